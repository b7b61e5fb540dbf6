//! Counts the allocations of the daemon's loop per request: the binary's own `main` runs in this process, under an
//! allocator that counts. `allocations REQUESTS [FLAG ...]` prints `allocations_per_request=N`, of a pool with these
//! flags; `allocations multiplex REQUESTS [FLAG ...]` the same for requests on one multiplexed connection;
//! `allocations exec RUNS` prints `allocations_per_run=N`, of an exec door that runs `true`. Used by `scripts/bench`.
//!
//! The daemon runs on the main thread, as it always does, and only that thread is counted; a second thread is the
//! client. The first requests are not counted: they fill the buffers that later ones use again.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call is handed on to the system's allocator as it is; counting touches an atomic and a thread-local
// that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough for every buffer to have grown to its size.
const WARM_UP: u64 = 1000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let usage = "usage: allocations [multiplex] REQUESTS [FLAG ...] | allocations exec RUNS";
    // The daemon runs its own program a second time, as its guard.
    if std::env::args_os()
        .next()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"guard of "))
    {
        return Ok(iotcpd::main(std::env::args_os()));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A port that was free a moment ago; another program is unlikely to take it before the daemon does.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let pool = |flags: &[&str]| {
        let port = port.to_string();
        let words = [&["-n", "2", "-d", "cat", "-p", &port], flags].concat();
        words.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (door, count, how): (Vec<String>, u64, How) = match words.as_slice() {
        ["exec", runs] => (
            vec!["exec".to_owned(), address.to_string()],
            runs.parse()?,
            How::Each(run),
        ),
        ["multiplex", requests, flags @ ..] => (pool(flags), requests.parse()?, How::Multiplexed),
        [requests, flags @ ..] => (pool(flags), requests.parse()?, How::Each(request)),
        [] => return Err(usage.into()),
    };
    let unit = if words.first() == Some(&"exec") {
        "run"
    } else {
        "request"
    };
    let client = std::thread::spawn(move || {
        let counted = converse(address, count, how).map_err(|error| error.to_string());
        let ended = raise_term();
        counted.and_then(|counted| ended.map(|()| counted))
    });
    COUNTED.set(true);
    let status = iotcpd::main(["iotcpd".to_owned()].into_iter().chain(door).map(OsString::from));
    COUNTED.set(false);
    let counted = client.join().map_err(|_| "the client has failed")??;
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let each = counted as f64 / count as f64;
    println!("allocations_per_{unit}={each:.4}");
    Ok(status)
}

/// The way in which the client asks.
#[derive(Clone, Copy)]
enum How {
    /// Each time on a connection of its own; the number says for what.
    Each(fn(SocketAddr, u64) -> std::io::Result<()>),
    /// On one multiplexed connection, in batches.
    Multiplexed,
}

/// The requests that are sent at a time on a multiplexed connection.
const BATCH: u64 = 32;

fn converse(address: SocketAddr, count: u64, how: How) -> std::io::Result<u64> {
    // The daemon answers from its first millisecond; until then a connection is refused.
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    let mut ask: Box<dyn FnMut(u64) -> std::io::Result<()>> = match how {
        How::Each(ask) => Box::new(move |count| (0..count).try_for_each(|number| ask(address, number))),
        How::Multiplexed => {
            let mut stream = BufReader::new(TcpStream::connect(address)?);
            stream.get_mut().write_all(b"iotcpd-multiplex 1\n")?;
            stream.read_line(&mut String::new())?;
            Box::new(move |count| (0..count / BATCH).try_for_each(|_| batch(&mut stream)))
        }
    };
    ask(WARM_UP)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    ask(count)?;
    Ok(ALLOCATIONS.load(Ordering::Relaxed) - before)
}

/// Asks a batch of requests on a multiplexed connection, and reads their answers.
fn batch(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let line = |number| format!("{number} http://www.example.org/{number} 10.0.0.1/- - GET\n");
    let mut lines: Vec<String> = (0..BATCH).map(line).collect();
    stream.get_mut().write_all(lines.concat().as_bytes())?;
    let mut answers = Vec::new();
    for _ in 0..BATCH {
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        answers.push(answer);
    }
    lines.sort();
    answers.sort();
    match lines == answers {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("{lines:?} were answered {answers:?}"))),
    }
}

fn request(address: SocketAddr, number: u64) -> std::io::Result<()> {
    let question = format!("http://www.example.org/{number} 10.0.0.1/- - GET\n");
    answered(address, &question, &question)
}

fn run(address: SocketAddr, _: u64) -> std::io::Result<()> {
    answered(address, "1:1,4:true,0:,", "8:exitcode,1:0,")
}

fn answered(address: SocketAddr, question: &str, expected: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer != expected {
        return Err(std::io::Error::other(format!("{question:?} was answered {answer:?}")));
    }
    Ok(())
}

/// To the process: the daemon's own handler takes it.
fn raise_term() -> Result<(), String> {
    kill(nix::unistd::getpid(), Signal::SIGTERM).map_err(|errno| errno.to_string())
}
