//! A tunnel client that speaks byte for byte as the original does (yamux version 0): its handshake, and then whatever the
//! test lets it say. It says nothing by itself but answers to pings.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::{Address, Certificate, WATCHDOG};

/// The kinds of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const WINDOW_UPDATE: u8 = 1;
pub(crate) const PING: u8 = 2;
pub(crate) const GO_AWAY: u8 = 3;

/// The flags of frames.
pub(crate) const SYN: u16 = 1;
pub(crate) const ACK: u16 = 2;
pub(crate) const FIN: u16 = 4;
pub(crate) const RST: u16 = 8;

/// The window of each stream at its beginning.
const WINDOW: u32 = 256 << 10;
/// The longest frame that the original sends.
const LONGEST_FRAME: usize = 65_524;

/// A connection.
trait Transport: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Transport for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A frame that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) stream: u32,
    pub(crate) length: u32,
}

/// The header of a frame.
pub(crate) fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let (flags, stream, length) = (flags.to_be_bytes(), stream.to_be_bytes(), length.to_be_bytes());
    [&[0, kind][..], &flags, &stream, &length].concat()
}

/// The frames by which the original presents a secret.
pub(crate) fn handshake(secret: &str) -> Vec<u8> {
    let length = u16::try_from(secret.len()).expect("a short secret").to_be_bytes();
    let presented = [&[0x11, 0x11][..], &length, secret.as_bytes()].concat();
    first_stream(&presented)
}

/// The frames of a first stream with these bytes.
pub(crate) fn first_stream(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short stream");
    [
        &header(WINDOW_UPDATE, SYN, 1, 0)[..],
        &header(DATA, 0, 1, length),
        bytes,
        &header(WINDOW_UPDATE, FIN, 1, 0),
    ]
    .concat()
}

/// The state of a stream that the door has opened.
#[derive(Debug, Default)]
struct Stream {
    /// The bytes that have come, and that the test has not taken.
    bytes: Vec<u8>,
    has_ended: bool,
    is_reset: bool,
    /// The bytes that may still be sent.
    credit: u32,
}

/// A tunnel client.
pub(crate) struct TunnelClient {
    transport: Box<dyn Transport>,
    streams: BTreeMap<u32, Stream>,
    /// The streams that were opened and not taken by the test.
    opened: Vec<u32>,
    pub(crate) answers_pings: bool,
    /// The number of pings that have come.
    pub(crate) pings: u32,
    /// The code of a go-away.
    pub(crate) went_away: Option<u32>,
}

impl TunnelClient {
    /// A client that has sent its handshake.
    #[track_caller]
    pub(crate) fn connect(address: &Address, secret: &str) -> Self {
        let mut client = Self::silent(address);
        client.send_raw(handshake(secret));
        client
    }

    /// A client that has not sent anything.
    #[track_caller]
    pub(crate) fn silent(address: &Address) -> Self {
        Self::over(Box::new(socket(address)))
    }

    /// A client that has sent its handshake by TLS.
    #[track_caller]
    pub(crate) fn connect_by_tls(address: &Address, certificate: &Certificate, secret: &str) -> Self {
        let stream = certificate.client(socket(&address.without_tls()));
        let mut client = Self::over(Box::new(stream));
        client.send_raw(handshake(secret));
        client
    }

    fn over(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            streams: BTreeMap::new(),
            opened: Vec::new(),
            answers_pings: true,
            pings: 0,
            went_away: None,
        }
    }

    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send_raw(bytes).expect("send to the door");
    }

    pub(crate) fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.transport.write_all(bytes.as_ref())?;
        self.transport.flush()
    }

    #[track_caller]
    pub(crate) fn send_frame(&mut self, kind: u8, flags: u16, stream: u32, length: u32) {
        self.send_raw(header(kind, flags, stream, length));
    }

    /// The local address, as the door names it.
    pub(crate) fn name(&self) -> String {
        self.transport.socket().local_addr().expect("an address").to_string()
    }

    // ---- from the door -----------------------------------------------------------------------------------------

    /// Takes in the next frame. `None` at the end of the connection.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let mut header = [0; 12];
        match self.transport.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("{error} instead of a frame"),
        }
        assert_eq!(header[0], 0, "the version of {header:?}");
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let frame = Frame {
            kind: header[1],
            flags: u16::from_be_bytes([header[2], header[3]]),
            stream: number(4),
            length: number(8),
        };
        self.take(&frame);
        Some(frame)
    }

    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            PING if frame.flags == SYN => {
                self.pings += 1;
                if self.answers_pings {
                    self.send_frame(PING, ACK, 0, frame.length);
                }
                return;
            }
            PING => return,
            GO_AWAY => {
                self.went_away = Some(frame.length);
                return;
            }
            _ => {}
        }
        if frame.flags & SYN != 0 {
            assert!(frame.stream.is_multiple_of(2), "the number of {frame:?}");
            let stream = Stream {
                credit: WINDOW,
                ..Stream::default()
            };
            assert!(self.streams.insert(frame.stream, stream).is_none(), "{frame:?} again");
            self.opened.push(frame.stream);
        }
        let mut bytes = Vec::new();
        if frame.kind == DATA {
            bytes = vec![0; usize::try_from(frame.length).expect("a short frame")];
            self.transport.read_exact(&mut bytes).expect("a payload");
        }
        // The stream of the handshake is not kept.
        let Some(stream) = self.streams.get_mut(&frame.stream) else {
            return;
        };
        stream.bytes.extend(bytes);
        if frame.kind == WINDOW_UPDATE {
            stream.credit += frame.length;
        }
        stream.has_ended |= frame.flags & FIN != 0;
        stream.is_reset |= frame.flags & RST != 0;
    }

    #[track_caller]
    fn more(&mut self, wanted: &str) {
        assert!(self.next_frame().is_some(), "the end of the tunnel instead of {wanted}");
    }

    /// The next stream that the door opens, which is acknowledged.
    #[track_caller]
    pub(crate) fn accept(&mut self) -> u32 {
        let stream = self.await_stream();
        self.send_frame(WINDOW_UPDATE, ACK, stream, 0);
        stream
    }

    /// The next stream that the door opens.
    #[track_caller]
    pub(crate) fn await_stream(&mut self) -> u32 {
        while self.opened.is_empty() {
            self.more("a stream");
        }
        self.opened.remove(0)
    }

    /// Takes exactly these bytes of a stream, and grants credit for them.
    #[track_caller]
    pub(crate) fn expect(&mut self, stream: u32, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let bytes = self.take_bytes(stream, expected.len());
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    /// Takes this number of bytes of a stream, and grants credit for them.
    #[track_caller]
    pub(crate) fn take_bytes(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let have = &mut self.streams.get_mut(&stream).expect("a stream").bytes;
            let piece: Vec<u8> = have.drain(..have.len().min(count - taken.len())).collect();
            if piece.is_empty() {
                assert!(!self.streams[&stream].is_reset, "a reset instead of bytes");
                self.more("bytes");
                continue;
            }
            taken.extend_from_slice(&piece);
            let credit = u32::try_from(piece.len()).expect("a short piece");
            self.send_frame(WINDOW_UPDATE, 0, stream, credit);
        }
        taken
    }

    /// Takes all bytes of a stream up to its end.
    #[track_caller]
    pub(crate) fn take_to_end(&mut self, stream: u32) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            let state = self.streams.get_mut(&stream).expect("a stream");
            assert!(!state.is_reset, "a reset instead of the end");
            let piece = std::mem::take(&mut state.bytes);
            let has_ended = state.has_ended;
            if !piece.is_empty() {
                let credit = u32::try_from(piece.len()).expect("a short piece");
                self.send_frame(WINDOW_UPDATE, 0, stream, credit);
                taken.extend(piece);
            } else if has_ended {
                return taken;
            } else {
                self.more("the end of a stream");
            }
        }
    }

    /// Waits until a stream is reset.
    #[track_caller]
    pub(crate) fn await_reset(&mut self, stream: u32) {
        while !self.streams[&stream].is_reset {
            self.more("a reset");
        }
    }

    /// Waits until the connection ends.
    #[track_caller]
    pub(crate) fn await_end(&mut self) {
        while self.next_frame().is_some() {}
    }

    /// Waits until the door says that it takes no more streams.
    #[track_caller]
    pub(crate) fn await_go_away(&mut self) -> u32 {
        loop {
            if let Some(code) = self.went_away {
                return code;
            }
            self.more("a go-away");
        }
    }

    /// Waits until this number of pings has come.
    #[track_caller]
    pub(crate) fn await_pings(&mut self, count: u32) {
        while self.pings < count {
            self.more("a ping");
        }
    }

    // ---- to the door -------------------------------------------------------------------------------------------

    /// Sends bytes by a stream, within the credit that the door grants.
    #[track_caller]
    pub(crate) fn send(&mut self, stream: u32, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref();
        while !bytes.is_empty() {
            let credit = usize::try_from(self.streams[&stream].credit).expect("a credit");
            let length = bytes.len().min(credit).min(LONGEST_FRAME);
            if length == 0 {
                assert!(!self.streams[&stream].is_reset, "a reset instead of credit");
                self.more("credit");
                continue;
            }
            let (piece, rest) = bytes.split_at(length);
            let length = u32::try_from(length).expect("a short piece");
            self.send_raw([&header(DATA, 0, stream, length), piece].concat());
            self.streams.get_mut(&stream).expect("a stream").credit -= length;
            bytes = rest;
        }
    }

    /// Waits this number of milliseconds for a frame, or for the end, and returns true if it comes. Only without TLS.
    pub(crate) fn has_input_within(&self, milliseconds: u8) -> bool {
        let mut wanted = [PollFd::new(self.transport.socket().as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::from(milliseconds)).expect("poll a connection") == 1
    }

    /// Takes in what has come. Returns true if it has opened no stream.
    pub(crate) fn is_quiet(&mut self) -> bool {
        while self.has_input_within(50) && self.opened.is_empty() {
            self.more("a frame");
        }
        self.opened.is_empty()
    }

    /// The credit of a stream.
    pub(crate) fn credit(&self, stream: u32) -> u32 {
        self.streams[&stream].credit
    }

    /// Says the end of a stream.
    #[track_caller]
    pub(crate) fn end(&mut self, stream: u32) {
        self.send_frame(WINDOW_UPDATE, FIN, stream, 0);
    }

    #[track_caller]
    pub(crate) fn reset(&mut self, stream: u32) {
        self.send_frame(WINDOW_UPDATE, RST, stream, 0);
    }
}

#[track_caller]
fn socket(address: &Address) -> TcpStream {
    let socket = TcpStream::connect(address.to_string()).expect("connect to the door");
    socket.set_read_timeout(Some(WATCHDOG)).expect("a watchdog");
    socket.set_write_timeout(Some(WATCHDOG)).expect("a watchdog");
    socket.set_nodelay(true).expect("no delay");
    socket
}
