//! The daemon's log as it is written: the lines that the run waits for, and all of it, with what this program did
//! meanwhile between the lines, for the report of a broken promise.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use nix::unistd::Pid;

const KEPT: usize = 400;

const LISTENING: &str = ": listening on ";
const SERVES: &str = " serves; this one finishes what it has in hand";
const FAILED: &str = "upgrade failed";
const REPLACED: &str = ": every worker has been replaced";

/// A line that the run waits for.
#[derive(Debug)]
pub(crate) enum News {
    /// A pool is there over TCP.
    Listening(String, SocketAddr),
    /// An upgrade has ended: the process that serves now, if it has succeeded.
    Upgraded(Option<Pid>),
    /// The pool of this name has done what HUP asked.
    Replaced(String),
}

/// The lines that were written: the last ones at hand, all of them in a file.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    last_lines: Mutex<VecDeque<String>>,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            last_lines: Mutex::default(),
        })
    }

    /// Reads what the daemon writes, to the end.
    pub(crate) fn read(&self, stderr: impl Read, news: &Sender<News>) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(heard) = understand(&line) {
                // The receiver is gone when the program ends.
                news.send(heard).ok();
            }
            self.note(format_args!("{line}"));
            let mut last = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(line);
        }
    }

    /// Writes a line to the file alone, of what is done or seen now.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        // One call, so that lines of several threads stay whole. Without room for it the run goes on.
        (&self.file).write_all(format!("{line}\n").as_bytes()).ok();
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        let last = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect()
    }
}

fn understand(line: &str) -> Option<News> {
    let name_in = |before: &str| before.rsplit(' ').next().unwrap_or_default().to_owned();
    if line.contains(FAILED) {
        return Some(News::Upgraded(None));
    }
    if let Some((before, _)) = line.split_once(SERVES) {
        let pid = name_in(before).parse().ok();
        return Some(News::Upgraded(pid.map(Pid::from_raw)));
    }
    if let Some((before, _)) = line.split_once(REPLACED) {
        return Some(News::Replaced(name_in(before)));
    }
    let (before, address) = line.split_once(LISTENING)?;
    let address = address.strip_prefix("tls:").unwrap_or(address);
    Some(News::Listening(name_in(before), address.parse().ok()?))
}
