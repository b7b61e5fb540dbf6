//! How often the daemon's loop allocates per request: the binary's own `main`, in this process, under an allocator that
//! counts. `allocations REQUESTS [FLAG ...]` prints `allocations_per_request=N`, of a pool with these flags; used by
//! `scripts/bench`.
//!
//! The daemon runs on the main thread, as it always does, and only that thread is counted; a second thread is the client. The
//! first requests are not counted: they fill the buffers that later ones use again.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call is handed on to the system's allocator as it is; counting touches an atomic and a thread-local that
// needs no allocation.
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
    let requests: u64 = std::env::args().nth(1).ok_or("usage: allocations REQUESTS")?.parse()?;
    // A port that was free a moment ago; nobody else on this machine is likely to take it before the daemon does.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let client = std::thread::spawn(move || {
        let counted =
            converse(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), requests).map_err(|error| error.to_string());
        let ended = raise_term();
        counted.and_then(|counted| ended.map(|()| counted))
    });
    COUNTED.set(true);
    let port = port.to_string();
    let arguments = ["iotcpd", "-n", "2", "-d", "cat", "-p", &port].map(OsString::from);
    let status = iotcpd::cli::main(arguments.into_iter().chain(std::env::args_os().skip(2)));
    COUNTED.set(false);
    let counted = client.join().map_err(|_| "the client has failed")??;
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let per_request = counted as f64 / requests as f64;
    println!("allocations_per_request={per_request:.4}");
    Ok(status)
}

fn converse(address: SocketAddr, requests: u64) -> std::io::Result<u64> {
    // The daemon answers from its first millisecond; until then nobody listens.
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    ask(address, WARM_UP)?;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    ask(address, requests)?;
    Ok(ALLOCATIONS.load(Ordering::Relaxed) - before)
}

fn ask(address: SocketAddr, requests: u64) -> std::io::Result<()> {
    for number in 0..requests {
        let question = format!("http://www.example.org/{number} 10.0.0.1/- - GET\n");
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer != question {
            return Err(std::io::Error::other(format!("{question:?} was answered {answer:?}")));
        }
    }
    Ok(())
}

/// To the process: the daemon's own handler takes it.
fn raise_term() -> Result<(), String> {
    kill(nix::unistd::getpid(), Signal::SIGTERM).map_err(|errno| errno.to_string())
}
