//! The load of `scripts/bench route` and of `scripts/bench tunnel`: routed TLS connections without cryptography. A
//! connection sends a ClientHello and no more of TLS; the server reads it and answers bytes that only the load understands.
//!
//! `route-load serve PORT`: the server behind the routers. It answers each hello: one for `wwwN.example.org` with
//! [`ANSWER`] bytes, after which it returns all that comes until the client's end; one with a number in its session, with
//! that number of bytes and its own end; and one with [`TAKE`] there as the first, but it throws away what comes, and says
//! the number of bytes at the client's end. It says `listening on ADDRESS` on standard error.
//!
//! `route-load new ADDRESS CLIENTS CONNECTIONS NAMES`: CLIENTS at once, a new connection for each answer, to one of
//! NAMES names in turn; the client ends first and reads to the end. Prints `rate=`, connections a second, and the latency
//! of a whole connection, `p50_us=` and `p99_us=`. Exit status 1: another answer.
//!
//! `route-load bulk ADDRESS BYTES CONNECTIONS`: downloads of BYTES each, CONNECTIONS at once. Prints `rate=`, bytes a
//! second in all. The bytes are thrown away without a copy, so that the client costs little.
//!
//! `route-load push ADDRESS BYTES CONNECTIONS`: the same in the other direction.
//!
//! `route-load trips ADDRESS CONNECTIONS TRIPS`: TRIPS messages of [`MESSAGE`] bytes and back on connections that stay, one
//! in flight on each. Prints `rate=`, round trips a second, and the time of one, `p50_us=` and `p99_us=`. Exit status 1:
//! another message came back.
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
                     | bulk ADDRESS BYTES CONNECTIONS | push ADDRESS BYTES CONNECTIONS \
                     | trips ADDRESS CONNECTIONS TRIPS | hold ADDRESS CONNECTIONS";

/// The number of bytes in a small answer: about what a server's first flight takes.
const ANSWER: usize = 1000;
/// The number in the session of a hello behind which the client sends bytes that are thrown away.
const TAKE: u64 = u64::MAX;
/// The number of bytes in a message that comes back.
const MESSAGE: usize = 64;
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
        ["bulk", address, bytes, connections] => {
            all_at_once(download, address.parse()?, bytes.parse()?, connections.parse()?)
        }
        ["push", address, bytes, connections] => {
            all_at_once(upload, address.parse()?, bytes.parse()?, connections.parse()?)
        }
        ["trips", address, connections, trips] => round_trips(address.parse()?, connections.parse()?, trips.parse()?),
        ["hold", address, connections] => hold(address.parse()?, connections.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// Returns a hello for the name of this number that asks for this number of bytes, 0 for a small answer, or for [`TAKE`].
fn hello_for(name: u64, asked: u64) -> Vec<u8> {
    let mut hello = hello::write(&format!("www{name}.example.org"), HELLO);
    if let Some(place) = hello.get_mut(SESSION..SESSION + 8) {
        place.copy_from_slice(&asked.to_be_bytes());
    }
    hello
}

// ---- the server ----------------------------------------------------------------------------------------------------

/// A connection of a client.
struct Served {
    stream: TcpStream,
    turn: Turn,
    /// The first part of a hello that comes in several pieces, as behind a tunnel.
    hello: Vec<u8>,
}

/// The side whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    /// The hello has not come.
    Hello,
    /// The number of bytes that the client is owed, and the use of what it sends then.
    Answer(u64, Then),
    /// The client's.
    Client(Then),
}

/// The use of the bytes behind a hello.
#[derive(Clone, Copy)]
enum Then {
    /// There are none: the server ends.
    End,
    Return,
    /// They are thrown away; this many have come.
    Take(u64),
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
            turn: Turn::Hello,
            hello: Vec::new(),
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

/// Goes on until the kernel has nothing, or takes nothing. Returns false at the end.
fn goes_on(served: &mut Served, bytes: &[u8]) -> bool {
    loop {
        match step(served, bytes) {
            Ok(Some(turn)) => served.turn = turn,
            Ok(None) => return false,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Takes a step, and returns the next one, or nothing at the end. The kernel takes a message that is returned at once.
fn step(served: &mut Served, bytes: &[u8]) -> io::Result<Option<Turn>> {
    let mut buffer = [0; 4096];
    let Served { stream, turn, hello } = served;
    let turn = *turn;
    match turn {
        Turn::Hello => {
            let count = stream.read(&mut buffer)?;
            hello.extend_from_slice(buffer.get(..count).unwrap_or_default());
            let next = take_hello(hello).filter(|_| count > 0);
            if !matches!(next, Some(Turn::Hello)) {
                *hello = Vec::new();
            }
            Ok(next)
        }
        Turn::Answer(0, Then::End) => {
            stream.shutdown(Shutdown::Write)?;
            Ok(Some(Turn::Client(Then::End)))
        }
        Turn::Answer(0, then) => Ok(Some(Turn::Client(then))),
        Turn::Answer(owed, then) => {
            let most = usize::try_from(owed).map_or(bytes.len(), |owed| owed.min(bytes.len()));
            let count = stream.write(bytes.get(..most).unwrap_or_default())?;
            Ok(Some(Turn::Answer(owed - count as u64, then)))
        }
        Turn::Client(Then::End) => Ok((stream.read(&mut buffer)? > 0).then_some(turn)),
        Turn::Client(Then::Return) => {
            let count = stream.read(&mut buffer)?;
            stream.write_all(buffer.get(..count).unwrap_or_default())?;
            Ok((count > 0).then_some(turn))
        }
        Turn::Client(Then::Take(taken)) => match throw_away(stream)? {
            0 => stream.write_all(&taken.to_be_bytes()).map(|()| None),
            count => Ok(Some(Turn::Client(Then::Take(taken + count)))),
        },
    }
}

/// Returns the turn behind these bytes: the answer to a hello, the rest of it, or nothing if it is none.
fn take_hello(hello: &[u8]) -> Option<Turn> {
    match hello::read(hello) {
        hello::Found::Name(Some(_)) => {}
        hello::Found::Name(None) => return None,
        hello::Found::More => return Some(Turn::Hello),
    }
    let asked = hello.get(SESSION..SESSION + 8).and_then(|place| place.try_into().ok());
    Some(match asked.map_or(0, u64::from_be_bytes) {
        0 => Turn::Answer(ANSWER as u64, Then::Return),
        TAKE => Turn::Answer(ANSWER as u64, Then::Take(0)),
        bytes => Turn::Answer(bytes, Then::End),
    })
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
    print_result(&latency, began);
    Ok(())
}

/// Prints the rate since this moment, and the latency.
fn print_result(latency: &Histogram<u64>, began: Instant) {
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let rate = latency.len() as f64 / began.elapsed().as_secs_f64();
    println!("rate={rate:.0} p50_us={:.1} p99_us={:.1}", at(0.5), at(0.99));
}

/// Moves this number of bytes on each of these connections at once, by a function that takes the connection's number and
/// returns the bytes that have arrived.
fn all_at_once(
    moves: fn(SocketAddr, u64, u64) -> io::Result<u64>,
    address: SocketAddr,
    bytes: u64,
    connections: u64,
) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let moving: Vec<_> = (0..connections)
        .map(|name| thread::spawn(move || moves(address, bytes, name)))
        .collect();
    for one in moving {
        let arrived = one.join().map_err(|_| "a client has panicked")??;
        if arrived != bytes {
            return Err(format!("{arrived} bytes came of {bytes}").into());
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

fn upload(address: SocketAddr, bytes: u64, name: u64) -> io::Result<u64> {
    let mut stream = greet(address, name, TAKE)?;
    let piece = vec![b'x'; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        left -= stream.write(piece.get(..most).unwrap_or_default())? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut taken = [0; 8];
    stream.read_exact(&mut taken)?;
    Ok(u64::from_be_bytes(taken))
}

/// Waits for bytes and throws away up to a megabyte of them, which the kernel need not copy (MSG_TRUNC, tcp(7)).
/// Returns 0 at the end.
fn throw_away(stream: &TcpStream) -> io::Result<u64> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, and the null pointer is not followed.
    let count = unsafe { libc::recv(stream.as_raw_fd(), std::ptr::null_mut(), 1 << 20, libc::MSG_TRUNC) };
    Ok(u64::try_from(Errno::result(count)?).unwrap_or_default())
}

/// A connection whose hello was answered.
fn greet(address: SocketAddr, name: u64, asked: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&hello_for(name, asked))?;
    stream.read_exact(&mut [0; ANSWER])?;
    Ok(stream)
}

/// A connection that stays, and the number and the time of its last message.
struct Kept {
    stream: TcpStream,
    number: u64,
    since: Instant,
}

impl Kept {
    fn send(&mut self, number: u64) -> io::Result<()> {
        (self.number, self.since) = (number, Instant::now());
        self.stream.write_all(&message(number))
    }
}

/// The message of this number.
fn message(number: u64) -> [u8; MESSAGE] {
    let mut message = [b'x'; MESSAGE];
    if let Some(place) = message.first_chunk_mut() {
        *place = number.to_be_bytes();
    }
    message
}

fn round_trips(address: SocketAddr, connections: u64, trips: u64) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    let mut epoll = epoll::Epoll::new()?;
    let mut kept = Vec::new();
    for name in 0..connections {
        let stream = greet(address, name % 10, 0)?;
        epoll.add(&stream, usize::try_from(name)?)?;
        let since = Instant::now();
        kept.push(Kept {
            stream,
            number: 0,
            since,
        });
    }
    let (began, mut sent) = (Instant::now(), 0);
    for one in &mut kept {
        one.send(sent)?;
        sent += 1;
    }
    while latency.len() < trips {
        for name in epoll.wait()? {
            let Some(one) = kept.get_mut(name) else { continue };
            let mut came = [0; MESSAGE];
            one.stream.read_exact(&mut came)?;
            latency.record(u64::try_from(one.since.elapsed().as_nanos())?)?;
            if came != message(one.number) {
                return Err(format!("another message than number {} came back", one.number).into());
            }
            if sent < trips {
                one.send(sent)?;
                sent += 1;
            }
        }
    }
    print_result(&latency, began);
    Ok(())
}

fn hold(address: SocketAddr, connections: u64) -> Result<(), Box<dyn Error>> {
    let open = |name| greet(address, name % 10, 0);
    let held: Vec<TcpStream> = (0..connections).map(open).collect::<io::Result<_>>()?;
    println!("held");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(held);
    Ok(())
}
