//! The load generator of `scripts/bench` for an exec door: one thread, N connections at once, every answer checked to
//! its last byte.
//!
//! `exec-load runs SOCKET AT_ONCE RUNS [--input TEXT | --zeros BYTES] PROGRAM ARGUMENT...`: has the program run RUNS
//! times, AT_ONCE at a time, gives TEXT to each, and wants exactly TEXT, or BYTES zeros, from its output, nothing from
//! its errors, exit code 0 behind them and then the end. Prints one line of `name=value` pairs: `rate`, runs a second,
//! and the time from before connect until the end in microseconds.
//!
//! `exec-load stream SOCKET BYTES`: BYTES zeros from one `head -c`. `exec-load stream-by-socat SOCKET BYTES`: the same
//! from that program in a shell pipe with a socat, which connects to SOCKET, made here. Both print `rate`, bytes a
//! second.
//!
//! `exec-load impatient SOCKET AT_ONCE RUNS ...`: the same runs for clients that read as the Lua client for nginx does
//! (see `impatient`), and how many of them get a whole answer: `share`, of 1.
//!
//! Exit status 1: an answer was another than it had to be. One that such a client takes for broken is not.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod answer;
mod epoll;
mod impatient;
mod runs;

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Instant;

use answer::Answer;
use hdrhistogram::Histogram;
use runs::Runs;

const BUFFER: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["runs", socket, runs @ ..] => run_all(socket, &Runs::parse(runs)?),
        ["impatient", socket, runs @ ..] => impatient::run_all(socket, &Runs::parse(runs)?),
        ["stream", socket, bytes] => stream(socket, bytes),
        ["stream-by-socat", socket, bytes] => stream_by_socat(socket, bytes),
        _ => {
            let usage = runs::USAGE;
            Err(format!(
                "usage: exec-load runs|impatient SOCKET {usage} | stream SOCKET BYTES | stream-by-socat SOCKET BYTES"
            )
            .into())
        }
    }
}

/// A connection in the middle of its run.
struct Running {
    stream: UnixStream,
    since: Instant,
    answer: Answer,
}

impl Running {
    fn start(socket: &str, request: &[u8]) -> Result<Self, Box<dyn Error>> {
        let since = Instant::now();
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(request)?;
        Ok(Self {
            stream,
            since,
            answer: Answer::new(),
        })
    }

    /// Reads what epoll has announced; whether it was the end.
    fn hear(&mut self, runs: &Runs, buffer: &mut [u8]) -> Result<bool, Box<dyn Error>> {
        let count = self.stream.read(buffer)?;
        if count == 0 {
            self.answer.check(runs)?;
        } else {
            self.answer.take(runs, buffer.get(..count).unwrap_or_default())?;
        }
        Ok(count == 0)
    }
}

fn run_all(socket: &str, runs: &Runs) -> Result<(), Box<dyn Error>> {
    let (mut latency, request) = (Histogram::<u64>::new(3)?, answer::request(runs).concat());
    let mut epoll = epoll::Epoll::new()?;
    let (mut slots, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    let (began, mut started, mut ended) = (Instant::now(), 0, 0);
    while started < runs.at_once.min(runs.count) {
        let running = Running::start(socket, &request)?;
        epoll.add(&running.stream, started)?;
        slots.push(Some(running));
        started += 1;
    }
    while ended < runs.count {
        for name in epoll.wait()? {
            let Some(slot) = slots.get_mut(name) else { continue };
            let Some(running) = slot else { continue };
            if !running.hear(runs, &mut buffer)? {
                continue;
            }
            ended += 1;
            latency.record(u64::try_from(running.since.elapsed().as_nanos())?)?;
            // Its connection is closed first: the door may have no room for one more.
            *slot = None;
            if started < runs.count {
                let running = slot.insert(Running::start(socket, &request)?);
                epoll.add(&running.stream, name)?;
                started += 1;
            }
        }
    }
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let rate = runs.count as f64 / began.elapsed().as_secs_f64();
    println!("rate={rate:.1} p50_us={:.1} p99_us={:.1}", at(0.5), at(0.99));
    Ok(())
}

fn zeros(bytes: &str) -> Result<Runs, Box<dyn Error>> {
    Runs::parse(&["1", "1", "--zeros", bytes, "head", "-c", bytes, "/dev/zero"])
}

fn stream(socket: &str, bytes: &str) -> Result<(), Box<dyn Error>> {
    let (runs, mut buffer, began) = (zeros(bytes)?, vec![0; BUFFER], Instant::now());
    let mut running = Running::start(socket, &answer::request(&runs).concat())?;
    while !running.hear(&runs, &mut buffer)? {}
    println!(
        "rate={:.0}",
        running.answer.output as f64 / began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn stream_by_socat(socket: &str, bytes: &str) -> Result<(), Box<dyn Error>> {
    let (runs, mut buffer, listener) = (zeros(bytes)?, vec![0; BUFFER], UnixListener::bind(socket)?);
    let began = Instant::now();
    let script = format!("{} | socat -u - UNIX-CONNECT:{socket}", runs.argv.join(" "));
    let mut shell = Command::new("sh").args(["-c", &script]).spawn()?;
    let (mut stream, mut received) = (listener.accept()?.0, 0);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        if !runs.continues(received, bytes) {
            return Err(format!("other bytes than were expected, after {received}").into());
        }
        received += count;
    }
    let took = began.elapsed().as_secs_f64();
    shell.wait()?;
    std::fs::remove_file(socket)?;
    if !runs.is_whole(received) {
        return Err(format!("{received} bytes came of {bytes}").into());
    }
    println!("rate={:.0}", received as f64 / took);
    Ok(())
}
