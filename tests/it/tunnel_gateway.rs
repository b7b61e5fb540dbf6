//! A server of tunnels that speaks byte for byte as tcprouter's does, for tests of the client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::harness::{Daemon, WATCHDOG};
use crate::route_peers::{Backend, Served};
use crate::tunnel_peers::{ACK, DATA, FIN, Frame, PING, RST, SYN, WINDOW_UPDATE, header};

pub(crate) const SECRET: &str = "TB2pb-secret";

/// The bytes by which a client greets.
pub(crate) fn greeting(secret: &str) -> Vec<u8> {
    let length = u16::try_from(secret.len()).expect("a length").to_be_bytes();
    [&[0x11, 0x11], &length[..], secret.as_bytes()].concat()
}

/// A server of tunnels.
pub(crate) struct Gateway {
    listener: TcpListener,
}

/// The server's end of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) stream: TcpStream,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        Self { listener }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().expect("an address").to_string()
    }

    /// Starts a client of it with these flags.
    #[track_caller]
    pub(crate) fn start(&self, local: SocketAddr, flags: &[&str]) -> Daemon {
        let (remote, local) = (self.address(), local.to_string());
        let own = ["tunnel", "-remote", &remote, "-secret", SECRET, "-local", &local];
        let daemon = Daemon::with(own.into_iter().chain(flags.iter().copied())).spawn();
        daemon.stderr_wait("ready");
        daemon
    }

    /// The next connection, whose greeting is not read yet.
    #[track_caller]
    pub(crate) fn accept(&self) -> Tunnel {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a watchdog");
        Tunnel { stream }
    }

    /// The next connection, which has greeted.
    #[track_caller]
    pub(crate) fn greeted(&self) -> Tunnel {
        let mut tunnel = self.accept();
        tunnel.greet();
        tunnel
    }
}

impl Tunnel {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// The next frame that is no ping, with its payload. Pings are answered.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> (Frame, Vec<u8>) {
        loop {
            let mut head = [0; 12];
            self.stream.read_exact(&mut head).expect("a frame");
            let [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = head else {
                panic!("no frame of version 0: {head:?}");
            };
            let frame = Frame {
                kind,
                flags: u16::from_be_bytes([f0, f1]),
                stream: u32::from_be_bytes([s0, s1, s2, s3]),
                length: u32::from_be_bytes([l0, l1, l2, l3]),
            };
            let mut payload = vec![0; if kind == DATA { frame.length as usize } else { 0 }];
            self.stream.read_exact(&mut payload).expect("its payload");
            if kind != PING {
                return (frame, payload);
            }
            if frame.flags == SYN {
                self.send(header(PING, ACK, 0, frame.length));
            }
        }
    }

    /// Reads the greeting: the stream is opened, the whole of it stands in one frame, and the stream is ended.
    #[track_caller]
    pub(crate) fn greet(&mut self) {
        let (opening, _) = self.frame();
        assert_eq!((opening.kind, opening.flags, opening.stream), (WINDOW_UPDATE, SYN, 1));
        let (data, payload) = self.frame();
        assert_eq!((data.kind, data.stream), (DATA, 1));
        assert_eq!(payload, greeting(SECRET));
        let (end, _) = self.frame();
        assert_eq!(
            (end.kind, end.flags, end.stream, end.length),
            (WINDOW_UPDATE, FIN, 1, 0)
        );
        self.send(header(WINDOW_UPDATE, FIN, 1, 0));
    }

    /// Opens a stream with these first bytes, in one write as the original has them.
    pub(crate) fn open(&mut self, stream: u32, first: &[u8]) {
        let data = header(DATA, 0, stream, u32::try_from(first.len()).expect("a length"));
        self.send([&header(WINDOW_UPDATE, SYN, stream, 0)[..], &data, first].concat());
    }

    /// Opens a stream with a first byte, and returns its service, which has it.
    #[track_caller]
    pub(crate) fn begin(&mut self, stream: u32, local: &Backend) -> Served {
        self.open(stream, b"!");
        let mut served = local.accept();
        served.expect("!");
        served
    }

    /// Reads the frames of a stream up to its end, or its reset; returns the bytes, and true for an end.
    #[track_caller]
    pub(crate) fn read_to_end_of(&mut self, stream: u32) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        loop {
            let (frame, payload) = self.frame();
            if frame.stream != stream {
                continue;
            }
            bytes.extend(payload);
            if frame.flags & (FIN | RST) != 0 {
                return (bytes, frame.flags & FIN != 0);
            }
        }
    }
}

/// Serves one stream whose first bytes are `ping`.
#[track_caller]
pub(crate) fn exchange(tunnel: &mut Tunnel, stream: u32, local: &Backend) {
    tunnel.open(stream, b"ping");
    let mut served = local.accept();
    served.expect("ping");
    served.send("pong");
    drop(served);
    assert_eq!(tunnel.read_to_end_of(stream), (b"pong".to_vec(), true));
    tunnel.send(header(WINDOW_UPDATE, FIN, stream, 0));
}
