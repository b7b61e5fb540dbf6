//! The worker of the chaos test, `chaos worker FLAGS`: it obeys its requests, and much of that is bad.
//!
//! A request is a verb and words; TEXT is the rest, byte for byte. What is made of it is told in [`crate::request`],
//! where every verb is asked for. A reply, or what stands for one, is one `write` unless the verb says otherwise.
//!
//! | flag | |
//! | --- | --- |
//! | `--request-framing`, `--reply-framing` | as the daemon's; `line` unless given |
//! | `--concurrent` | a channel-ID stands before each request and reply; a request that waits lets others pass |
//! | `--poison FILE` | if FILE exists when it starts, it answers its probes wrongly from the beginning |
//! | `--session DIR` | says whatever comes, at the end its [`sum`], and then leaves a file named by the first word, see [`has_ended`] |
//! | `--never-read` | it does nothing, and lives |

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use nix::unistd::{dup2_stdin, dup2_stdout, pause};

use crate::clock;
use crate::mode::REST;
use crate::wire::Wire;

/// The text of every probe, and the answer of a healthy worker.
pub(crate) const PROBE: &str = "probe";
pub(crate) const HEALTHY: &str = "healthy";
const SICK: &str = "sick";

type Outcome = Result<Next, Box<dyn Error>>;

enum Next {
    Serve,
    Exit(u8),
}

/// Held while a reply is written in pieces: no other reply may come in between.
static OUTPUT_LOCK: Mutex<()> = Mutex::new(());

pub(crate) fn run(flags: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let given = |name: &str| flags.iter().any(|flag| flag == name);
    let value = |name: &str| flags.get(flags.iter().position(|flag| flag == name)? + 1);
    let wire = |name: &str| value(name).map_or(Some(Wire::Line), |framing| Wire::named(framing));
    if given("--never-read") {
        wait_forever();
    }
    start_descendants()?;
    if let Some(directory) = value("--session") {
        return talk(Path::new(directory));
    }
    let is_poisoned = value("--poison").is_some_and(|file| Path::new(file).exists());
    let mut worker = Worker {
        born: clock::now(),
        sick_since: is_poisoned.then(Instant::now),
    };
    let mut input = Input {
        wire: wire("--request-framing").ok_or("unknown --request-framing")?,
        pending: Vec::new(),
    };
    let writer = ReplyWriter {
        wire: wire("--reply-framing").ok_or("unknown --reply-framing")?,
        id: Vec::new(),
    };
    while let Some(mut request) = input.next()? {
        let mut writer = writer.clone();
        if given("--concurrent") {
            writer.id = take_id(&mut request);
            if waits(&request) {
                thread::spawn(move || {
                    if let Err(error) = take_time(&writer, &request) {
                        eprintln!("chaos worker: {error}");
                    }
                });
                continue;
            }
        }
        if let Next::Exit(status) = worker.obey(&writer, &request)? {
            return Ok(ExitCode::from(status));
        }
        if input.wire == Wire::Whole {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The worker between two requests.
struct Worker {
    born: u64,
    /// Since when it answers its probes wrongly.
    sick_since: Option<Instant>,
}

impl Worker {
    fn obey(&mut self, writer: &ReplyWriter, request: &[u8]) -> Outcome {
        let (verb, rest) = word(request);
        match verb {
            b"die" => return Ok(Next::Exit(1)),
            b"kill-self" => raise(Signal::SIGKILL)?,
            b"die-first" => {
                let (file, text) = word(rest);
                if fs::File::create_new(text_of(file)?).is_ok() {
                    return Ok(Next::Exit(1));
                }
                writer.reply(text)?;
            }
            b"die-inside" => {
                // The lock is never released: nothing may follow this half of a reply.
                std::mem::forget(OUTPUT_LOCK.lock().unwrap_or_else(PoisonError::into_inner));
                let bytes = writer.frame(rest);
                write_out(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                return Ok(Next::Exit(1));
            }
            b"die-after" => {
                writer.reply(rest)?;
                return Ok(Next::Exit(0));
            }
            b"stop-reading" => {
                writer.reply(rest)?;
                wait_forever();
            }
            b"close-stdin" => {
                // In this order no request can arrive before the input is closed.
                dup2_stdin(fs::File::open("/dev/null")?)?;
                writer.reply(rest)?;
                wait_forever();
            }
            b"hang" => wait_forever(),
            b"turn-sick" => {
                self.sick_since.get_or_insert_with(Instant::now);
                writer.reply(rest)?;
            }
            b"health" => match self.sick_since {
                Some(since) => {
                    writer.reply(format!("{} {}", text_of(rest)?, since.elapsed().as_millis()).as_bytes())?
                }
                None => writer.reply(rest)?,
            },
            verb if verb == PROBE.as_bytes() => {
                let answer = if self.sick_since.is_some() { SICK } else { HEALTHY };
                writer.reply(answer.as_bytes())?;
            }
            b"born" => {
                let (time, key) = word(rest);
                // Clients meet the request while it is worked on.
                thread::sleep(milliseconds(time)?);
                writer.reply(format!("{} {}", text_of(key)?, self.born).as_bytes())?;
            }
            _ if waits(request) => take_time(writer, request)?,
            _ => answer(writer, verb, rest)?,
        }
        Ok(Next::Serve)
    }
}

/// Returns true if a request would keep the ones behind it waiting.
fn waits(request: &[u8]) -> bool {
    matches!(word(request).0, b"wait" | b"wait-after" | b"inside" | b"hang")
}

/// Sleeps for the time in the request: the worker is slow on purpose, before, within or after its reply.
fn take_time(writer: &ReplyWriter, request: &[u8]) -> Result<(), Box<dyn Error>> {
    let (verb, rest) = word(request);
    if verb == b"hang" {
        return Ok(());
    }
    let (time, text) = word(rest);
    let time = milliseconds(time)?;
    match verb {
        b"inside" => {
            let _lock = OUTPUT_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = writer.frame(text);
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            write_out(head)?;
            thread::sleep(time);
            write_out(tail)
        }
        b"wait-after" => {
            writer.reply(text)?;
            thread::sleep(time);
            Ok(())
        }
        _ => {
            thread::sleep(time);
            writer.reply(text)
        }
    }
}

/// The requests after which it goes on as before.
fn answer(writer: &ReplyWriter, verb: &[u8], rest: &[u8]) -> Result<(), Box<dyn Error>> {
    match verb {
        b"echo" => writer.reply(rest),
        b"nul" => writer.reply(&[b"\0", rest, b"\0"].concat()),
        b"lines" => writer.reply(&[rest, b"\n", rest].concat()),
        b"big" => writer.reply(&vec![b'b'; text_of(rest)?.parse()?]),
        b"behind" => {
            let (time, text) = word(rest);
            let began = Instant::now();
            writer.reply(text)?;
            // The surplus line comes at any moment of the rest.
            thread::sleep(milliseconds(time)?);
            // One that is stopped or gets no processor here would write it when it has been given the next request.
            if began.elapsed() < Duration::from_millis(REST / 4) {
                writer.reply(b"this is nobody's")?;
            }
            Ok(())
        }
        b"two" => writer.write(&[writer.frame(rest), writer.frame(b"this is nobody's")].concat()),
        b"no-end" => {
            let bytes = writer.frame(rest);
            writer.write(bytes.split_last().map_or(&[], |(_, most)| most))
        }
        b"garbage" => writer.write(writer.wire.garbage().ok_or("no garbage in this framing")?),
        b"under" => {
            let (id, text) = word(rest);
            writer.write(&writer.wire.encode(&[id, b" ", text].concat()))
        }
        b"without-id" => writer.write(&writer.wire.encode(rest)),
        b"close-stdout" => Ok(dup2_stdout(fs::File::open("/dev/null")?)?),
        b"ignore-term" => {
            // A handler that only sets a flag, which is never read.
            signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::new(AtomicBool::new(false)))?;
            writer.reply(rest)
        }
        b"complain" => {
            eprintln!("{}", text_of(rest)?);
            writer.reply(rest)
        }
        b"child" => {
            child(Stdio::null(), Stdio::null())?;
            writer.reply(rest)
        }
        b"holding-child" => {
            child(Stdio::inherit(), Stdio::inherit())?;
            writer.reply(rest)
        }
        _ => Err(format!("unknown verb {}", verb.escape_ascii()).into()),
    }
}

/// Every third worker has descendants in groups and sessions of its own from the beginning.
fn start_descendants() -> io::Result<()> {
    if !std::process::id().is_multiple_of(3) {
        return Ok(());
    }
    let script = "timeout 1000 sleep 1000 & (setsid sleep 1000 &) & set -m; sleep 1000 &";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().map(drop)
}

/// One that lives on when its parent has gone.
fn child(stdout: Stdio, stderr: Stdio) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", "--never-read"]).stdin(Stdio::null());
    command.stdout(stdout).stderr(stderr).spawn()?;
    Ok(())
}

/// A whole session.
fn talk(directory: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let (mut said, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = nix::unistd::read(io::stdin(), &mut buffer)?;
        let heard = buffer.get(..read).unwrap_or_default();
        if heard.is_empty() {
            break;
        }
        write_out(heard)?;
        said.extend_from_slice(heard);
    }
    write_out(sum(&said).as_bytes())?;
    if let Ok(token) = text_of(word(&said).0) {
        fs::write(end_of(directory, token), "")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns true if the worker to which this token was the first word has written everything.
pub(crate) fn has_ended(directory: &Path, token: &str) -> bool {
    end_of(directory, token).exists()
}

fn end_of(directory: &Path, token: &str) -> PathBuf {
    directory.join(format!("ended-{token}"))
}

/// Tells bytes from others (FNV-1a), in sixteen digits.
pub(crate) fn sum(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}")
}

/// Lives until a signal ends it, and does nothing.
fn wait_forever() -> ! {
    loop {
        pause();
    }
}

/// The framing and the channel-ID that answers are written with.
#[derive(Clone)]
struct ReplyWriter {
    wire: Wire,
    /// With the blank behind it; or nothing.
    id: Vec<u8>,
}

impl ReplyWriter {
    fn frame(&self, text: &[u8]) -> Vec<u8> {
        self.wire.encode(&[&self.id, text].concat())
    }

    fn reply(&self, text: &[u8]) -> Result<(), Box<dyn Error>> {
        self.write(&self.frame(text))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let _lock = OUTPUT_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        write_out(bytes)
    }
}

/// Everything in as few writes as the pipe takes, with no buffer in between.
fn write_out(mut bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    while !bytes.is_empty() {
        let written = nix::unistd::write(io::stdout(), bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Standard input, request by request.
struct Input {
    wire: Wire,
    pending: Vec<u8>,
}

impl Input {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        loop {
            if let Some((request, taken)) = self.wire.decode(&self.pending) {
                self.pending.drain(..taken);
                return Ok(Some(request));
            }
            let mut buffer = [0; 64 * 1024];
            let read = nix::unistd::read(io::stdin(), &mut buffer)?;
            if read == 0 {
                let is_request = self.wire == Wire::Whole && !self.pending.is_empty();
                return Ok(is_request.then(|| std::mem::take(&mut self.pending)));
            }
            self.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
    }
}

/// The ID before a request, with its blank; the request is left without it.
fn take_id(request: &mut Vec<u8>) -> Vec<u8> {
    let (id, _) = word(request);
    let end = (id.len() + 1).min(request.len());
    request.drain(..end).collect()
}

/// The first word and what stands behind the blank after it.
fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', bytes).unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    (first, rest.get(1..).unwrap_or_default())
}

fn text_of(bytes: &[u8]) -> Result<&str, std::str::Utf8Error> {
    std::str::from_utf8(bytes)
}

fn milliseconds(text: &[u8]) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(text_of(text)?.parse()?))
}
