//! A worker that does what its requests say: the other end of every test of the pool.
//!
//! It reads lines from standard input and obeys them one after the other. Each reply is one `write`, unbuffered, so a
//! test knows exactly which bytes come together. TEXT is the rest of the line, byte for byte (a NUL as well).
//!
//! A GATE is the path of a UNIX socket that a test listens on (`tests/it/harness/gate.rs`): the worker connects, writes
//! its pid and a newline, and waits until the other end closes. A gate without a listener is open.
//!
//! | request | what happens |
//! | --- | --- |
//! | `echo TEXT` | replies TEXT |
//! | `raw TEXT` | writes TEXT as it is, `\n`, `\r`, `\0`, `\\` meaning those bytes, and no newline of its own |
//! | `length TEXT` | replies how many bytes the whole request had, its newline not counted |
//! | `big N` | replies N bytes, the digits 0 to 9 over and over |
//! | `wait GATE TEXT` | waits at GATE, then replies TEXT |
//! | `wait-twice GATE GATE2 TEXT` | waits at GATE, replies TEXT, and waits at GATE2 before it reads on |
//! | `partial HEAD GATE TAIL` | writes HEAD, waits at GATE, then writes TAIL and a newline |
//! | `two A B` | replies A and B, two lines in one write |
//! | `two-writes A GATE B` | replies A, waits at GATE, then replies B |
//! | `unasked GATE TEXT` | replies `ok`; goes on serving, and when GATE opens writes TEXT as a line |
//! | `twice TEXT` | replies TEXT twice, in one write |
//! | `bare` | replies an empty line; after an ID without a blank behind it |
//! | `under ID TEXT` | replies TEXT under that ID |
//! | `id` | replies the ID that it was asked under |
//! | `die [STATUS]` | exits (0) without a reply |
//! | `die-after-partial TEXT` | writes TEXT without a newline and exits |
//! | `die-after TEXT` | replies TEXT and exits |
//! | `die-first FILE TEXT` | if FILE does not exist makes it and exits; otherwise replies TEXT |
//! | `kill-self` | dies by SIGKILL |
//! | `hang` | never replies and reads no more |
//! | `burn` | never replies and uses the processor |
//! | `stop-reading` | replies `ok` and reads no more, but lives |
//! | `close-stdout` | closes standard output; lives until its input ends |
//! | `close-stdin` | replies `ok`, closes standard input, and lives |
//! | `ignore-term` | replies `ok`; from now on SIGTERM does nothing |
//! | `spawn-grandchild [GATE]` | starts a child that runs until it is killed, with its streams on `/dev/null`; replies its pid. With a GATE it stands there first |
//! | `spawn-holding-grandchild [GATE]` | the same, but the child keeps this worker's standard output and error open |
//! | `stderr TEXT` | writes TEXT as a line to standard error, then replies `ok` |
//! | `flood-stderr N` | writes N bytes in lines to standard error, then replies `ok` |
//! | `grow N` | takes N MiB of memory, touches and keeps them, replies `ok` |
//! | `pid` | replies its process number |
//! | `served` | replies how many requests it has had, this one included |
//! | `arguments` | replies its arguments, each as a quoted string |
//! | `env NAME` | replies the value of a variable, empty if it is not set |
//! | `cwd` | replies its working directory |
//! | `proc NAME` | replies `/proc/self/NAME`, its lines joined by `\|` |
//! | `descriptors` | replies what its open descriptors are, `0=pipe:[1] 1=...` |
//!
//! Anything else is replied to with `unknown ` and the request. It exits with 0 at the end of its input.
//!
//! | flag | what happens at the start, in this order |
//! | --- | --- |
//! | `--ignore-term` | as the request |
//! | `--start-gate GATE` | waits at GATE |
//! | `--die-if FILE` | exits with status 3 if FILE exists |
//! | `--die-at-start` | exits with status 3 |
//! | `--ready TEXT` | writes TEXT as a line |
//! | `--never-read` | reads nothing, ever, but lives |
//! | `--reply-early TEXT` | replies TEXT as soon as there is input, reads one byte of it, and from then on nothing, but lives |
//! | `--reply-first TEXT` | replies TEXT to each line once it has read one byte of it, and reads the rest when that has been read |
//! | `--concurrent` | while it runs: the first word of each line is an ID if it is a number, and stands before the replies to it. `hang`, or a request that waits at a GATE, lets other requests be answered meanwhile |
//! | `--max-line N` | while it runs: a longer line is taken for two, as squidGuard does with more than 12,287 bytes |

use std::cell::RefCell;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use nix::sys::signal::{Signal, raise};
use nix::unistd::{dup2_stdin, dup2_stdout, pause};

/// The exit status of the flags that make it fail at its start.
const FAILED_START: u8 = 3;

type Outcome = Result<Next, Box<dyn Error>>;

/// The step after a request.
enum Next {
    /// The next request.
    Serve,
    /// The end, with this status.
    Exit(u8),
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let flags: Vec<String> = std::env::args().skip(1).collect();
    let mut worker = Worker::default();
    if let Next::Exit(status) = worker.begin(&flags)? {
        return Ok(ExitCode::from(status));
    }
    let mut input = Lines::new(worker.max_line);
    while let Some(mut line) = input.next_line()? {
        worker.served += 1;
        if worker.is_concurrent {
            let prefix = take_id(&mut line);
            if waits(&line) {
                thread::spawn(move || obey_apart(prefix, &line));
                continue;
            }
            PREFIX.set(prefix);
        }
        if let Next::Exit(status) = worker.obey(&line)? {
            return Ok(ExitCode::from(status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

thread_local! {
    /// The text before the replies of this thread: an ID and a blank, or nothing.
    static PREFIX: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn prefix() -> Vec<u8> {
    PREFIX.with_borrow(Vec::clone)
}

/// The ID before a line, with its blank; the line is left without it.
fn take_id(line: &mut Vec<u8>) -> Vec<u8> {
    let (id, _) = word(line);
    if id.is_empty() || id.len() == line.len() || !id.iter().all(u8::is_ascii_digit) {
        return Vec::new();
    }
    line.drain(..=id.len()).collect()
}

/// Returns true if a request would keep the ones behind it waiting.
fn waits(line: &[u8]) -> bool {
    matches!(
        word(line).0,
        b"wait" | b"wait-twice" | b"partial" | b"two-writes" | b"hang"
    )
}

/// One of several requests that are answered at once.
fn obey_apart(prefix: Vec<u8>, line: &[u8]) {
    PREFIX.set(prefix);
    let (verb, rest) = word(line);
    if verb == b"hang" {
        return;
    }
    if let Err(error) = pieces(verb, rest) {
        eprintln!("scripted-worker: {error}");
    }
}

/// The worker between two requests.
#[derive(Default)]
struct Worker {
    served: u64,
    is_concurrent: bool,
    max_line: Option<usize>,
    ballast: Vec<Vec<u8>>,
}

impl Worker {
    fn begin(&mut self, flags: &[String]) -> Outcome {
        let given = |name: &str| flags.iter().any(|flag| flag == name);
        let value = |name: &str| {
            let place = flags.iter().position(|flag| flag == name)?;
            flags.get(place + 1)
        };
        if given("--ignore-term") {
            ignore_term()?;
        }
        if let Some(gate) = value("--start-gate") {
            wait_at(gate.as_bytes())?;
        }
        if given("--die-at-start") || value("--die-if").is_some_and(|file| Path::new(file).exists()) {
            return Ok(Next::Exit(FAILED_START));
        }
        if let Some(text) = value("--ready") {
            reply(text)?;
        }
        if given("--never-read") {
            live_on();
        }
        if let Some(text) = value("--reply-early") {
            nix::unistd::read(io::stdin(), &mut [0])?;
            reply(text)?;
            live_on();
        }
        if let Some(text) = value("--reply-first") {
            reply_first(text)?;
        }
        self.is_concurrent = given("--concurrent");
        self.max_line = value("--max-line").map(|bytes| bytes.parse()).transpose()?;
        Ok(Next::Serve)
    }

    fn obey(&mut self, line: &[u8]) -> Outcome {
        let (verb, rest) = word(line);
        match verb {
            b"die" => return Ok(Next::Exit(if rest.is_empty() { 0 } else { number(rest)? })),
            b"die-after-partial" => {
                write_out(&[&prefix(), rest].concat())?;
                return Ok(Next::Exit(0));
            }
            b"die-after" => {
                reply(rest)?;
                return Ok(Next::Exit(0));
            }
            b"die-first" => {
                let (file, text) = word(rest);
                if fs::File::create_new(text_of(file)?).is_ok() {
                    return Ok(Next::Exit(0));
                }
                reply(text)?;
            }
            b"kill-self" => raise(Signal::SIGKILL)?,
            b"hang" => live_on(),
            b"burn" => loop {
                std::hint::spin_loop();
            },
            b"close-stdin" => {
                // In this order no request can arrive before the input is closed.
                dup2_stdin(fs::File::open("/dev/null")?)?;
                reply("ok")?;
                live_on();
            }
            b"stop-reading" => {
                reply("ok")?;
                live_on();
            }
            _ => self.answer(verb, rest, line)?,
        }
        Ok(Next::Serve)
    }

    /// The requests after which it goes on as before.
    fn answer(&mut self, verb: &[u8], rest: &[u8], line: &[u8]) -> Result<(), Box<dyn Error>> {
        match verb {
            b"echo" => reply(rest),
            b"raw" => write_out(&unescape(rest)),
            b"twice" => {
                let line = [&prefix(), rest, b"\n"].concat();
                write_out(&[line.as_slice(), &line].concat())
            }
            b"bare" => write_out(&[prefix().trim_ascii_end(), b"\n"].concat()),
            b"under" => write_out(&[rest, b"\n"].concat()),
            b"id" => reply(prefix().trim_ascii_end()),
            b"length" => reply(line.len().to_string()),
            b"big" => reply((b'0'..=b'9').cycle().take(number(rest)?).collect::<Vec<u8>>()),
            b"wait" | b"wait-twice" | b"partial" | b"two" | b"two-writes" | b"unasked" => pieces(verb, rest),
            b"close-stdout" => Ok(dup2_stdout(fs::File::open("/dev/null")?)?),
            b"ignore-term" => ignore_term().and_then(|()| reply("ok")),
            b"spawn-grandchild" => reply(grandchild(rest, Stdio::null(), Stdio::null())?.to_string()),
            b"spawn-holding-grandchild" => reply(grandchild(rest, Stdio::inherit(), Stdio::inherit())?.to_string()),
            b"stderr" => {
                io::stderr().write_all(&[rest, b"\n"].concat())?;
                reply("ok")
            }
            b"flood-stderr" => {
                let line = [&[b'e'; 79][..], b"\n"].concat();
                io::stderr().write_all(&line.into_iter().cycle().take(number(rest)?).collect::<Vec<u8>>())?;
                reply("ok")
            }
            b"grow" => {
                self.ballast.push(vec![1; number::<usize>(rest)? << 20]);
                reply("ok")
            }
            b"served" => reply(self.served.to_string()),
            _ => about_itself(verb, rest, line),
        }
    }
}

/// The replies that come in pieces, or in another order than usual.
fn pieces(verb: &[u8], rest: &[u8]) -> Result<(), Box<dyn Error>> {
    let (first, rest) = word(rest);
    let (second, third) = word(rest);
    match verb {
        b"wait" => {
            wait_at(first)?;
            reply(rest)
        }
        b"wait-twice" => {
            wait_at(first)?;
            reply(third)?;
            wait_at(second)
        }
        b"partial" => {
            write_out(&[&prefix(), first].concat())?;
            wait_at(second)?;
            write_out(&[third, b"\n"].concat())
        }
        b"two" => write_out(&[first, b"\n", rest, b"\n"].concat()),
        b"two-writes" => {
            reply(first)?;
            wait_at(second)?;
            reply(third)
        }
        _ => {
            let (gate, text) = (first.to_owned(), rest.to_owned());
            thread::spawn(move || {
                if let Err(error) = wait_at(&gate).and_then(|()| reply(&text)) {
                    eprintln!("scripted-worker: unasked: {error}");
                }
            });
            reply("ok")
        }
    }
}

/// Replies with a fact about the process itself.
fn about_itself(verb: &[u8], rest: &[u8], line: &[u8]) -> Result<(), Box<dyn Error>> {
    match verb {
        b"pid" => reply(std::process::id().to_string()),
        b"arguments" => {
            let quoted: Vec<String> = std::env::args()
                .skip(1)
                .map(|argument| format!("{argument:?}"))
                .collect();
            reply(quoted.join(" "))
        }
        b"env" => reply(std::env::var(text_of(rest)?).unwrap_or_default()),
        b"cwd" => reply(std::env::current_dir()?.display().to_string()),
        b"proc" => {
            let text = fs::read_to_string(format!("/proc/self/{}", text_of(rest)?))?;
            reply(text.trim_end().replace('\n', "|"))
        }
        b"descriptors" => reply(descriptors()?),
        _ => reply([b"unknown ", line].concat()),
    }
}

/// Its open descriptors, without the one that the looking itself needs.
fn descriptors() -> Result<String, Box<dyn Error>> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?.display().to_string();
        if !target.starts_with("/proc/") {
            open.push(format!("{}={target}", entry.file_name().display()));
        }
    }
    open.sort();
    Ok(open.join(" "))
}

fn grandchild(gate: &[u8], stdout: Stdio, stderr: Stdio) -> Result<u32, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    if !gate.is_empty() {
        command.args(["--start-gate", text_of(gate)?]);
    }
    let child = command
        .arg("--never-read")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()?;
    Ok(child.id())
}

/// Lives until a signal ends it, and does nothing.
fn live_on() -> ! {
    loop {
        pause();
    }
}

/// Installs a handler that only sets a flag, which is never read: the signal is taken and does nothing.
fn ignore_term() -> Result<(), Box<dyn Error>> {
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

/// Stands at a gate until it opens.
fn wait_at(gate: &[u8]) -> Result<(), Box<dyn Error>> {
    let Ok(mut stream) = UnixStream::connect(text_of(gate)?) else {
        return Ok(());
    };
    stream.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    // However the other end goes (end or reset), the gate is open then.
    io::copy(&mut stream, &mut io::sink()).ok();
    Ok(())
}

fn reply(text: impl AsRef<[u8]>) -> Result<(), Box<dyn Error>> {
    write_out(&[&prefix(), text.as_ref(), b"\n"].concat())
}

/// Everything in as few writes as the pipe takes, with no buffer in between.
fn write_out(mut bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    while !bytes.is_empty() {
        let written = nix::unistd::write(io::stdout(), bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
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

fn number<T>(bytes: &[u8]) -> Result<T, Box<dyn Error>>
where
    T: std::str::FromStr<Err: Error + 'static>,
{
    Ok(text_of(bytes)?.parse()?)
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        plain.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'0') => 0,
            Some(other) => other,
            None => b'\\',
        });
    }
    plain
}

/// Standard input in lines, cut like squidGuard's when they are longer than `max_line`.
struct Lines {
    pending: Vec<u8>,
    max_line: Option<usize>,
}

impl Lines {
    fn new(max_line: Option<usize>) -> Self {
        Self {
            pending: Vec::new(),
            max_line,
        }
    }

    /// The next line without its newline. `None`: the input has ended (a line without a newline is dropped).
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let newline = memchr::memchr(b'\n', &self.pending);
            let limit = self.max_line.filter(|max| newline.unwrap_or(self.pending.len()) > *max);
            if let Some(max) = limit {
                return Ok(Some(self.pending.drain(..max).collect()));
            }
            if let Some(end) = newline {
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            let mut buffer = [0; 64 * 1024];
            let read = nix::unistd::read(io::stdin(), &mut buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
    }
}

/// Until the end of its input. It looks away for no time at all: what is tried is whether the moment between two system
/// calls of its reader can be hit.
fn reply_first(text: &str) -> Result<(), Box<dyn Error>> {
    let mut byte = [0];
    while nix::unistd::read(io::stdin(), &mut byte)? > 0 {
        reply(text)?;
        while iotcpd::internals::process::unread_bytes(io::stdout())? > 0 {
            std::hint::spin_loop();
        }
        while byte != *b"\n" {
            nix::unistd::read(io::stdin(), &mut byte)?;
        }
    }
    Ok(())
}
