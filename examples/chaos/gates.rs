//! What makes workers slow: gates (see `scripted-worker`) that let everybody through after a time of their own.
//!
//! How long a worker takes is so a part of the request, and the seed decides it.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::dice::Dice;

/// Milliseconds, and how often of 100. The last one is longer than any busy time-out here.
const GATES: [(u64, usize); 5] = [(5, 40), (30, 40), (150, 15), (700, 4), (3000, 1)];

/// The gates, open until the program ends.
#[derive(Debug, Clone)]
pub(crate) struct Gates {
    home: PathBuf,
}

impl Gates {
    pub(crate) fn open(home: &Path) -> io::Result<Self> {
        let gates = Self { home: home.to_owned() };
        for (milliseconds, _) in GATES {
            let listener = UnixListener::bind(gates.path(milliseconds))?;
            thread::spawn(move || {
                for worker in listener.incoming().flatten() {
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(milliseconds));
                        drop(worker);
                    });
                }
            });
        }
        Ok(gates)
    }

    /// One of them, for a request.
    pub(crate) fn pick(&self, dice: &mut Dice) -> String {
        let milliseconds = dice.weighted(&GATES).unwrap_or_default();
        self.path(milliseconds).display().to_string()
    }

    /// A file that does not exist yet, for requests that need one.
    pub(crate) fn fresh_file(&self, token: &str) -> String {
        self.home.join(format!("once-{token}")).display().to_string()
    }

    fn path(&self, milliseconds: u64) -> PathBuf {
        self.home.join(format!("gate-{milliseconds}"))
    }
}
