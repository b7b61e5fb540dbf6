//! The load generator of `scripts/bench` for an exec door: one thread, N connections at once, every answer checked to its last
//! byte.
//!
//! `exec-load runs SOCKET AT_ONCE RUNS [--input TEXT | --zeros BYTES] PROGRAM ARGUMENT...`: has the program run so often, so many
//! at once, gives TEXT to each, and wants exactly TEXT, or so many zeros, from its output, nothing from its errors, exit
//! code 0 behind them and then the end. Prints one line of `name=value` pairs: `rate`, runs a second, and the time from
//! before connect until the end in microseconds.
//!
//! `exec-load stream SOCKET BYTES`: so many zeros from one `head -c`. `exec-load stream-by-socat SOCKET BYTES`: the same from
//! that program in a shell pipe with a socat, which connects to SOCKET, made here. Both print `rate`, bytes a second.
//!
//! Exit status 1: an answer was another than it had to be.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod epoll;
mod runs;

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Instant;

use hdrhistogram::Histogram;
use runs::Runs;

const BUFFER: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["runs", socket, runs @ ..] => run_all(socket, &Runs::parse(runs)?),
        ["stream", socket, bytes] => stream(socket, bytes),
        ["stream-by-socat", socket, bytes] => stream_by_socat(socket, bytes),
        _ => {
            let usage = runs::USAGE;
            Err(
                format!("usage: exec-load runs SOCKET {usage} | stream SOCKET BYTES | stream-by-socat SOCKET BYTES")
                    .into(),
            )
        }
    }
}

/// The bytes that ask for a run.
fn request(runs: &Runs) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut string = |bytes: &[u8]| {
        wire.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        wire.extend_from_slice(bytes);
        wire.push(b',');
    };
    string(runs.argv.len().to_string().as_bytes());
    for word in &runs.argv {
        string(word.as_bytes());
    }
    if !runs.input.is_empty() {
        string(&runs.input);
    }
    string(b"");
    wire
}

/// What the next bytes of an answer are.
enum Expects {
    /// The length of a string.
    Length { value: usize },
    /// So much of a string.
    Bytes { left: usize },
    /// The comma behind it.
    Comma,
}

/// An answer, read as it comes: pairs of netstrings, of which only what is short is kept.
struct Answer {
    expects: Expects,
    /// The type of the pair whose data comes next, as far as it is known.
    kind: Vec<u8>,
    in_data: bool,
    code: Vec<u8>,
    output: usize,
}

impl Answer {
    fn new() -> Self {
        Self {
            expects: Expects::Length { value: 0 },
            kind: Vec::new(),
            in_data: false,
            code: Vec::new(),
            output: 0,
        }
    }

    fn take(&mut self, runs: &Runs, mut bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.expects {
                Expects::Length { value } => {
                    self.expects = match first {
                        b':' if value == 0 => Expects::Comma,
                        b':' => Expects::Bytes { left: value },
                        b'0'..=b'9' => Expects::Length {
                            value: value * 10 + usize::from(first - b'0'),
                        },
                        _ => return Err("what came is no netstring".into()),
                    };
                    rest
                }
                Expects::Bytes { left } => {
                    let (now, behind) = bytes.split_at(left.min(bytes.len()));
                    self.keep(runs, now)?;
                    self.expects = match left - now.len() {
                        0 => Expects::Comma,
                        left => Expects::Bytes { left },
                    };
                    behind
                }
                Expects::Comma if first == b',' => {
                    self.expects = Expects::Length { value: 0 };
                    if self.in_data {
                        self.kind.clear();
                    }
                    self.in_data = !self.in_data;
                    rest
                }
                Expects::Comma => return Err("a netstring does not end with a comma".into()),
            };
        }
        Ok(())
    }

    fn keep(&mut self, runs: &Runs, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        match (self.in_data, self.kind.as_slice()) {
            (false, _) => self.kind.extend_from_slice(bytes),
            (true, b"stdout") if self.code.is_empty() && runs.continues(self.output, bytes) => {
                self.output += bytes.len()
            }
            (true, b"exitcode") => self.code.extend_from_slice(bytes),
            (true, kind) => {
                let (kind, data) = (String::from_utf8_lossy(kind), String::from_utf8_lossy(bytes));
                return Err(format!("{kind} is {data:?} after {} bytes of output", self.output).into());
            }
        }
        Ok(())
    }

    /// The end has come.
    fn check(&self, runs: &Runs) -> Result<(), Box<dyn Error>> {
        let between = matches!(self.expects, Expects::Length { value: 0 }) && !self.in_data;
        if !between || self.code != b"0" || !runs.is_whole(self.output) {
            let code = String::from_utf8_lossy(&self.code);
            return Err(format!(
                "an answer ended with exit code {code:?} after {} bytes of output",
                self.output
            )
            .into());
        }
        Ok(())
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
    let (mut latency, request) = (Histogram::<u64>::new(3)?, request(runs));
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
    let mut running = Running::start(socket, &request(&runs))?;
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
