//! The reference of `scripts/bench` for programs on request: keeps AT_ONCE posix_spawns with three pipes going, and
//! does nothing else. It has no clients, no limits and no promises.
//!
//! `bare-spawn AT_ONCE RUNS [--input TEXT | --zeros BYTES] PROGRAM ARGUMENT...`: a run gives TEXT to the program, reads
//! both outputs to their ends, and waits for it. Prints `rate=`, runs a second. Exit status 1: an output was not the
//! TEXT, or the wrong number of zeros, or a program did not end with 0.
#![expect(unsafe_code, reason = "posix_spawn and epoll without a library in between")]

mod epoll;
mod runs;
mod spawn;

use std::error::Error;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use runs::Runs;
use spawn::{Started, Strings, spawn};

/// A program that runs.
struct Running {
    /// Which run it is, so that an event for the one before it in its place is not taken for its own: a sibling that
    /// was just started may for a moment have kept a closed pipe open, and in epoll.
    number: usize,
    pid: Pid,
    /// Its output and its errors, until they have ended.
    outputs: [Option<OwnedFd>; 2],
    received: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runs = Runs::parse(&words).map_err(|error| format!("usage: bare-spawn {}: {error}", runs::USAGE))?;
    let (argv, environment) = (Strings::new(runs.argv.clone())?, Strings::environment()?);
    let start = |epoll: &epoll::Epoll, number| start(&runs, spawn(&argv, &environment)?, epoll, number);
    let mut epoll = epoll::Epoll::new()?;
    let (mut slots, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let (began, mut started, mut ended) = (Instant::now(), 0, 0);
    while started < runs.at_once.min(runs.count) {
        slots.push(start(&epoll, started)?);
        started += 1;
    }
    while ended < runs.count {
        for name in epoll.wait()? {
            let (number, which) = (name / 2, name % 2);
            let Some(running) = slots.iter_mut().find(|running| running.number == number) else {
                continue;
            };
            if !hear(&runs, running, which, &mut buffer)? || running.outputs.iter().any(Option::is_some) {
                continue;
            }
            finish(&runs, running)?;
            ended += 1;
            if started < runs.count {
                *running = start(&epoll, started)?;
                started += 1;
            }
        }
    }
    println!("rate={:.1}", runs.count as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn start(runs: &Runs, started: Started, epoll: &epoll::Epoll, number: usize) -> Result<Running, Box<dyn Error>> {
    let Started { pid, input, outputs } = started;
    // So little fits into any pipe, and at once: its other end is still open here.
    if !runs.input.is_empty() && write(&input, &runs.input)? != runs.input.len() {
        return Err("the input is too long for a pipe".into());
    }
    for (output, name) in outputs.iter().zip(2 * number..) {
        epoll.add(output, name)?;
    }
    Ok(Running {
        number,
        pid,
        outputs: outputs.map(Some),
        received: 0,
    })
}

/// Reads once what epoll has announced; whether that was an end.
fn hear(runs: &Runs, running: &mut Running, which: usize, buffer: &mut [u8]) -> Result<bool, Box<dyn Error>> {
    let Some(output) = running.outputs.get_mut(which) else {
        return Ok(false);
    };
    let Some(descriptor) = output else { return Ok(false) };
    let count = read(&*descriptor, buffer)?;
    if count == 0 {
        *output = None;
        return Ok(true);
    }
    let bytes = buffer.get(..count).unwrap_or_default();
    if which == 1 || !runs.continues(running.received, bytes) {
        return Err(format!("other bytes than were expected, after {}", running.received).into());
    }
    running.received += count;
    Ok(false)
}

/// Both outputs have ended, so that it has exited, or is about to.
fn finish(runs: &Runs, running: &Running) -> Result<(), Box<dyn Error>> {
    let status = waitpid(running.pid, None)?;
    if status != WaitStatus::Exited(running.pid, 0) {
        return Err(format!("a program ended otherwise: {status:?}").into());
    }
    if !runs.is_whole(running.received) {
        return Err(format!("a program wrote {} bytes", running.received).into());
    }
    Ok(())
}
