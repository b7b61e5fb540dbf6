//! The load of `scripts/bench route`: routed TLS connections without cryptography. A connection sends a ClientHello and no
//! more of TLS; the server reads it and answers bytes that only the load understands.
//!
//! `route-load serve PORT`: the server behind the routers. It answers each hello: one for `wwwN.example.org` with
//! [`ANSWER`] bytes, after which it waits for the client's end; one with a number in its session, with that number of
//! bytes and its own end. It says `listening on ADDRESS` on standard error.
//!
//! `route-load new ADDRESS CLIENTS CONNECTIONS NAMES`: CLIENTS at once, a new connection for each answer, to one of
//! NAMES names in turn; the client ends first and reads to the end. Prints `rate=`, connections a second, and the latency
//! of a whole connection, `p50_us=` and `p99_us=`. Exit status 1: another answer.
//!
//! `route-load bulk ADDRESS BYTES CONNECTIONS`: downloads of BYTES each, CONNECTIONS at once. Prints `rate=`, bytes a
//! second in all. The bytes are thrown away without a copy, so that the client costs little.
//!
//! `route-load hold ADDRESS CONNECTIONS`: opens connections that were answered and are silent, prints `held`, and keeps
//! them until its standard input ends.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod epoll;
mod hello;

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;
use nix::errno::Errno;

use epoll::LISTENER;

const USAGE: &str = "usage: route-load serve PORT | new ADDRESS CLIENTS CONNECTIONS NAMES \
                     | bulk ADDRESS BYTES CONNECTIONS | hold ADDRESS CONNECTIONS";

/// The number of bytes in a small answer: about what a server's first flight takes.
const ANSWER: usize = 1000;
/// The number of bytes in a hello, as browsers and curl pad it.
const HELLO: usize = 517;
/// The place of the session in a hello: the headers, the version and the random bytes, and its length.
const SESSION: usize = 9 + 2 + 32 + 1;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve(port.parse()?),
        ["new", address, clients, connections, names] => {
            new(address.parse()?, clients.parse()?, connections.parse()?, names.parse()?)
        }
        ["bulk", address, bytes, connections] => bulk(address.parse()?, bytes.parse()?, connections.parse()?),
        ["hold", address, connections] => hold(address.parse()?, connections.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// Returns a hello for the name of this number that asks for this number of bytes, 0 for a small answer.
fn hello_for(name: u64, bytes: u64) -> Vec<u8> {
    let mut hello = hello::write(&format!("www{name}.example.org"), HELLO);
    if let Some(place) = hello.get_mut(SESSION..SESSION + 8) {
        place.copy_from_slice(&bytes.to_be_bytes());
    }
    hello
}

// ---- the server ----------------------------------------------------------------------------------------------------

/// A connection of which the hello is read, and the number of bytes that it is still owed.
struct Served {
    stream: TcpStream,
    owed: Option<u64>,
    is_bulk: bool,
}

fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = epoll::listen_on(port)?;
    let mut epoll = epoll::Epoll::of_server(&listener)?;
    let mut served: Vec<Option<Served>> = Vec::new();
    let bytes = vec![b'x'; 256 << 10];
    loop {
        for name in epoll.wait()? {
            if name == LISTENER {
                accept_all(&listener, &epoll, &mut served, &bytes)?;
            } else if let Some(slot) = served.get_mut(name)
                && slot.as_mut().is_some_and(|it| !goes_on(it, &bytes))
            {
                *slot = None;
            }
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    epoll: &epoll::Epoll,
    served: &mut Vec<Option<Served>>,
    bytes: &[u8],
) -> Result<(), Box<dyn Error>> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        stream.set_nonblocking(true)?;
        let name = usize::try_from(stream.as_raw_fd())?;
        epoll.add_both(&stream, name)?;
        let mut new = Served {
            stream,
            owed: None,
            is_bulk: false,
        };
        if goes_on(&mut new, bytes) {
            if served.len() <= name {
                served.resize_with(name + 1, || None);
            }
            if let Some(slot) = served.get_mut(name) {
                *slot = Some(new);
            }
        }
    }
}

/// Reads the hello, which comes in one piece, answers, and waits for the client's end. Returns false at the end.
fn goes_on(served: &mut Served, bytes: &[u8]) -> bool {
    let mut buffer = [0; 4096];
    loop {
        if let Some(owed) = &mut served.owed
            && *owed > 0
        {
            let most = usize::try_from(*owed).map_or(bytes.len(), |owed| owed.min(bytes.len()));
            match served.stream.write(bytes.get(..most).unwrap_or_default()) {
                Ok(count) => *owed -= count as u64,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if *owed == 0 && served.is_bulk && served.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
            continue;
        }
        match served.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) if served.owed.is_none() => {
                let hello = buffer.get(..count).unwrap_or_default();
                if !matches!(hello::read(hello), hello::Found::Name(Some(_))) {
                    return false;
                }
                let session = hello.get(SESSION..SESSION + 8).and_then(|place| place.try_into().ok());
                let asked = session.map_or(0, u64::from_be_bytes);
                served.is_bulk = asked > 0;
                served.owed = Some(if served.is_bulk { asked } else { ANSWER as u64 });
            }
            // Bytes that no hello of the load is followed by.
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

// ---- the clients ---------------------------------------------------------------------------------------------------

/// A client in the middle of a connection.
struct Client {
    stream: TcpStream,
    since: Instant,
    received: usize,
}

impl Client {
    /// Connecting waits for the kernel's handshake with itself, and no longer.
    fn start(address: SocketAddr, name: u64) -> io::Result<Self> {
        let since = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&hello_for(name, 0))?;
        Ok(Self {
            stream,
            since,
            received: 0,
        })
    }

    /// Reads what epoll has announced. Returns true at the server's end.
    fn is_over(&mut self) -> io::Result<bool> {
        let count = self.stream.read(&mut [0; 4096])?;
        self.received += count;
        if count > 0 && self.received >= ANSWER {
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(count == 0)
    }
}

fn new(address: SocketAddr, clients: usize, connections: u64, names: u64) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let mut running: Vec<Option<Client>> = Vec::new();
    let (began, mut started) = (Instant::now(), 0);
    for name in 0..clients {
        let client = Client::start(address, started % names)?;
        epoll.add(&client.stream, name)?;
        running.push(Some(client));
        started += 1;
    }
    while latency.len() < connections {
        for name in epoll.wait()? {
            let Some(slot) = running.get_mut(name) else { continue };
            let Some(client) = slot else { continue };
            if !client.is_over()? {
                continue;
            }
            latency.record(u64::try_from(client.since.elapsed().as_nanos())?)?;
            if client.received != ANSWER {
                return Err(format!("{} bytes instead of {ANSWER}", client.received).into());
            }
            *slot = None;
            if started < connections {
                let next = Client::start(address, started % names)?;
                epoll.add(&next.stream, name)?;
                *slot = Some(next);
                started += 1;
            }
        }
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let rate = latency.len() as f64 / began.elapsed().as_secs_f64();
    println!("rate={rate:.0} p50_us={:.1} p99_us={:.1}", at(0.5), at(0.99));
    Ok(())
}

fn bulk(address: SocketAddr, bytes: u64, connections: u64) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let downloads: Vec<_> = (0..connections)
        .map(|name| thread::spawn(move || download(address, bytes, name)))
        .collect();
    for download in downloads {
        let received = download.join().map_err(|_| "a client has panicked")??;
        if received != bytes {
            return Err(format!("{received} bytes came of {bytes}").into());
        }
    }
    println!(
        "rate={:.0}",
        (bytes * connections) as f64 / began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn download(address: SocketAddr, bytes: u64, name: u64) -> io::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&hello_for(name, bytes))?;
    let mut received = 0;
    loop {
        match throw_away(&stream)? {
            0 => return Ok(received),
            count => received += count,
        }
    }
}

/// Waits for bytes and throws away up to a megabyte of them, which the kernel need not copy (MSG_TRUNC, tcp(7)).
/// Returns 0 at the end.
fn throw_away(stream: &TcpStream) -> io::Result<u64> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, and the null pointer is not followed.
    let count = unsafe { libc::recv(stream.as_raw_fd(), std::ptr::null_mut(), 1 << 20, libc::MSG_TRUNC) };
    Ok(u64::try_from(Errno::result(count)?).unwrap_or_default())
}

fn hold(address: SocketAddr, connections: u64) -> Result<(), Box<dyn Error>> {
    let open = |name| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&hello_for(name % 10, 0))?;
        stream.read_exact(&mut [0; ANSWER])?;
        Ok(stream)
    };
    let held: Vec<TcpStream> = (0..connections).map(open).collect::<io::Result<_>>()?;
    println!("held");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(held);
    Ok(())
}
