//! The reference of `scripts/bench` for programs on request: keeps AT_ONCE posix_spawns with three pipes going, and
//! does nothing else. It has no clients, no limits and no promises.
//!
//! `bare-spawn AT_ONCE RUNS [--input TEXT | --zeros BYTES] PROGRAM ARGUMENT...`: a run gives TEXT to the program, reads
//! both outputs to their ends, and waits for it. Prints `rate=`, runs a second. Exit status 1: an output was not the
//! TEXT, or the wrong number of zeros, or a program did not end with 0.
#![expect(unsafe_code, reason = "posix_spawn and epoll without a library in between")]

mod epoll;
mod runs;

use std::error::Error;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, write};
use runs::Runs;

/// The argument and environment arrays of every start, with what they point to.
struct Image {
    _strings: [Vec<CString>; 2],
    argv: Vec<*mut c_char>,
    environment: Vec<*mut c_char>,
}

impl Image {
    fn new(argv: &[String]) -> Result<Self, Box<dyn Error>> {
        let argv: Vec<CString> = argv
            .iter()
            .map(|word| CString::new(word.as_str()))
            .collect::<Result<_, _>>()?;
        let variables = std::env::vars().map(|(name, value)| CString::new(format!("{name}={value}")));
        let environment: Vec<CString> = variables.collect::<Result<_, _>>()?;
        let pointers = |strings: &[CString]| {
            let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
            pointers.chain([ptr::null_mut()]).collect()
        };
        let (argv_pointers, environment_pointers) = (pointers(&argv), pointers(&environment));
        Ok(Self {
            _strings: [argv, environment],
            argv: argv_pointers,
            environment: environment_pointers,
        })
    }

    /// Starts the program with these descriptors for its standard streams.
    fn spawn(&self, streams: [&OwnedFd; 3]) -> Result<Pid, Errno> {
        let mut actions = MaybeUninit::uninit();
        let mut pid = 0;
        // SAFETY: the actions are initialised before they are used, and destroyed once; the arrays end with a null
        // pointer, and they and their strings live as long as `self`.
        let result = unsafe {
            libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
            for (source, target) in streams.into_iter().zip(0..) {
                libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), source.as_raw_fd(), target);
            }
            let program = self.argv.first().copied().unwrap_or(ptr::null_mut());
            let (argv, environment) = (self.argv.as_ptr(), self.environment.as_ptr());
            let result = libc::posix_spawnp(&raw mut pid, program, actions.as_ptr(), ptr::null(), argv, environment);
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            result
        };
        if result == 0 {
            Ok(Pid::from_raw(pid))
        } else {
            Err(Errno::from_raw(result))
        }
    }
}

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
    let image = Image::new(&runs.argv)?;
    let mut epoll = epoll::Epoll::new()?;
    let (mut slots, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let (began, mut started, mut ended) = (Instant::now(), 0, 0);
    while started < runs.at_once.min(runs.count) {
        slots.push(start(&runs, &image, &epoll, started)?);
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
                *running = start(&runs, &image, &epoll, started)?;
                started += 1;
            }
        }
    }
    println!("rate={:.1}", runs.count as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn start(runs: &Runs, image: &Image, epoll: &epoll::Epoll, number: usize) -> Result<Running, Box<dyn Error>> {
    let (their_input, input) = pipe2(OFlag::O_CLOEXEC)?;
    let (output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
    let (errors, their_errors) = pipe2(OFlag::O_CLOEXEC)?;
    let pid = image.spawn([&their_input, &their_output, &their_errors])?;
    // So little fits into any pipe, and at once: its other end is still open here.
    if !runs.input.is_empty() && write(&input, &runs.input)? != runs.input.len() {
        return Err("the input is too long for a pipe".into());
    }
    epoll.add(&output, 2 * number)?;
    epoll.add(&errors, 2 * number + 1)?;
    Ok(Running {
        number,
        pid,
        outputs: [Some(output), Some(errors)],
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
