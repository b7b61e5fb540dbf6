//! The load generator of `scripts/bench` for sessions: whole streams, and the first byte of a connection.
//!
//! `session-load stream ADDRESS BYTES`: sends BYTES bytes over one connection while it reads what comes back, ends its
//! side, and reads to the end. `session-load stream-by-socat BYTES`: the same through `cat` in a shell pipe between two
//! sockets. Each prints `rate=`, bytes a second that came back. Exit status 1: other bytes came than were sent.
//!
//! `session-load first ADDRESS CONNECTIONS PAUSE_MS`: connections one after the other, with a pause in between; prints
//! the time from before connect until the first byte of each, `p50_us=` and `p99_us=`.
//!
//! `session-load --ca FILE stream ...`: the same over TLS, see `connection/mod.rs`.

mod connection;

use std::error::Error;
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use connection::{Connection, Transport};
use hdrhistogram::Histogram;

const USAGE: &str = "usage: session-load [--ca FILE] stream ADDRESS BYTES | stream-by-socat BYTES \
                     | first ADDRESS CONNECTIONS PAUSE_MS";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (transport, words) = Transport::parse(&words)?;
    match words {
        ["stream", address, bytes] => {
            let mut connection = Connection::start(address.parse()?, &transport)?;
            connection.finish_handshake(0)?;
            exchange(connection.second()?, connection, bytes.parse()?)
        }
        ["stream-by-socat", bytes] => by_socat(bytes.parse()?),
        ["first", address, connections, pause] => {
            first(address, connections.parse()?, Duration::from_millis(pause.parse()?))
        }
        _ => Err(USAGE.into()),
    }
}

/// A piece of what is sent: of no length that any buffer has.
fn piece() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes().first().copied().unwrap_or_default()
    };
    (0..99_991).map(|_| next()).collect()
}

fn exchange(mut to: Connection, mut from: Connection, bytes: usize) -> Result<(), Box<dyn Error>> {
    let (began, expected) = (Instant::now(), piece());
    let sent = expected.clone();
    let sending = thread::spawn(move || -> std::io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let now = sent.get(..left.min(sent.len())).unwrap_or_default();
            to.send(now)?;
            left -= now.len();
        }
        to.end()
    });
    let (mut buffer, mut piece, mut received, mut goes_on) = (vec![0; 256 * 1024], Vec::new(), 0, true);
    while goes_on {
        goes_on = from.receive(&mut buffer, &mut piece)?;
        let mut came = piece.as_slice();
        while !came.is_empty() {
            let at = received % expected.len();
            let wanted = expected.get(at..).unwrap_or_default();
            let length = wanted.len().min(came.len());
            if came.get(..length) != wanted.get(..length) {
                return Err(format!("other bytes than were sent, after {received}").into());
            }
            received += length;
            came = came.get(length..).unwrap_or_default();
        }
        piece.clear();
    }
    let took = began.elapsed().as_secs_f64();
    sending.join().map_err(|_| "the sender has panicked")??;
    if received != bytes {
        return Err(format!("{received} bytes came back of {bytes}").into());
    }
    println!("rate={:.0}", bytes as f64 / took);
    Ok(())
}

fn by_socat(bytes: usize) -> Result<(), Box<dyn Error>> {
    let (input, output) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (from, to) = (input.local_addr()?, output.local_addr()?);
    let script = format!("socat -u TCP:{from} - | cat | socat -u - TCP:{to}");
    let mut shell = Command::new("sh").args(["-c", &script]).spawn()?;
    let outcome = exchange(input.accept()?.0.into(), output.accept()?.0.into(), bytes);
    shell.wait()?;
    outcome
}

fn first(address: &str, connections: u32, pause: Duration) -> Result<(), Box<dyn Error>> {
    let mut latency = Histogram::<u64>::new(3)?;
    for _ in 0..connections {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.read_exact(&mut [0])?;
        latency.record(u64::try_from(began.elapsed().as_nanos())?)?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        // PAUSE_MS: a worker is free and at rest again before the next connection.
        thread::sleep(pause);
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    println!("p50_us={:.1} p99_us={:.1}", at(0.5), at(0.99));
    Ok(())
}
