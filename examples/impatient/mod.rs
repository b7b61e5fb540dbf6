//! Clients that read as `resty.exec` 3.0.3 does, the Lua client for nginx.
//!
//! It sends everything before it reads. For the first string of an answer it waits long, and 1 ms for each piece of
//! every further one, until there is none: then it passes on the pairs that it has, and starts over. So an answer is
//! broken to it (a time-out) when
//!
//! - a millisecond passes within a string, of which it then forgets a part, or before there is one pair;
//! - the end of the connection does not come in the millisecond behind the last pair.
//!
//! To nginx, a millisecond depends on the last time that it looked at its clock; here it is never shorter than one.

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::answer::{self, Answer};
use crate::runs::Runs;

/// The longest receive, in bytes.
const RECEIVE: usize = 8192;
/// The time that it waits for the first string, in milliseconds.
const LONG: u16 = 60_000;
/// The time that it waits for the pieces of the others.
const SHORT: u16 = 1;

/// The state in which an answer arrives at such a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    /// A pair did not lie there whole.
    Torn,
    /// The end did not come with the last pair.
    Late,
}

/// The number of answers with each verdict.
#[derive(Debug, Default)]
struct Tally {
    whole: usize,
    torn: usize,
    late: usize,
}

/// Makes all runs, `at_once` at a time, and prints the counts of their verdicts.
pub(crate) fn run_all(socket: &str, runs: &Runs) -> Result<(), Box<dyn Error>> {
    let (begun, began) = (AtomicUsize::new(0), Instant::now());
    let (mut all, mut error) = (Tally::default(), None);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..runs.at_once)
            .map(|_| scope.spawn(|| run_some(socket, runs, &begun)))
            .collect();
        for client in clients {
            match client.join() {
                Ok(Ok(tally)) => all.add(&tally),
                Ok(Err(why)) => error = Some(why),
                Err(_) => error = Some("a client has panicked".to_owned()),
            }
        }
    });
    if let Some(error) = error {
        return Err(error.into());
    }
    let Tally { whole, torn, late } = all;
    let share = whole as f64 / runs.count as f64;
    let rate = runs.count as f64 / began.elapsed().as_secs_f64();
    println!("share={share:.4} torn={torn} late={late} rate={rate:.1}");
    Ok(())
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.whole += other.whole;
        self.torn += other.torn;
        self.late += other.late;
    }
}

/// One run after the other, as long as there are any to begin.
fn run_some(socket: &str, runs: &Runs, begun: &AtomicUsize) -> Result<Tally, String> {
    let mut tally = Tally::default();
    while begun.fetch_add(1, Ordering::Relaxed) < runs.count {
        match run(socket, runs).map_err(|error| error.to_string())? {
            Verdict::Whole => tally.whole += 1,
            Verdict::Torn => tally.torn += 1,
            Verdict::Late => tally.late += 1,
        }
    }
    Ok(tally)
}

fn run(socket: &str, runs: &Runs) -> Result<Verdict, Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    for part in answer::request(runs) {
        stream.write_all(&part)?;
    }
    stream.set_nonblocking(true)?;
    let (mut answer, mut buffer) = (Answer::new(), [0; RECEIVE]);
    // The number of strings when the last long wait began; where they are in pairs, so are those received since.
    let mut before = 0;
    loop {
        let waits_long = answer.strings == before;
        if !wait(&stream, if waits_long { LONG } else { SHORT })? {
            let pairs = answer.strings / 2 - before / 2;
            match waits_long {
                true => return Err("nothing has come for a minute".into()),
                false if pairs == 0 || answer.is_within_string() => return Ok(Verdict::Torn),
                false => before = answer.strings,
            }
            continue;
        }
        let count = stream.read(&mut buffer)?;
        if count > 0 {
            answer.take(runs, buffer.get(..count).unwrap_or_default())?;
        } else if waits_long {
            return Ok(Verdict::Late);
        } else {
            answer.check(runs)?;
            return Ok(Verdict::Whole);
        }
    }
}

/// Waits for something to read; whether there is.
fn wait(stream: &UnixStream, milliseconds: u16) -> Result<bool, Box<dyn Error>> {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut watched, PollTimeout::from(milliseconds))? > 0)
}
