//! The parts that tests of many clients by dice have in common: a pool, clients that all ask it at once, the requests
//! that any of them may send, and the counters behind all of them.
//!
//! The rules of one kind of connection do not belong here: each test has its own.

use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, StatsBlock, worker_command};
use crate::random::Dice;

const CLIENTS: u64 = 10;
/// Connections of each client, one after the other.
const ROUNDS: u64 = 8;
/// The number of connections of a test.
pub(crate) const CONNECTIONS: u64 = CLIENTS * ROUNDS;

/// A pool of three workers that listens on TCP and on a UNIX socket.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    addresses: [Address; 2],
    _directory: tempfile::TempDir,
}

impl Scene {
    #[track_caller]
    pub(crate) fn new(flags: &[&str], worker: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a place for a socket");
        let listen = format!("unix:{}/pool", directory.path().display());
        let common = ["--queue-timeout", "60s", "--listen", &listen];
        let daemon = Daemon::pool(3, &worker_command(worker), &[&common, flags].concat());
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 3);
        Self {
            addresses: [daemon.nth_addr(1), daemon.nth_addr(2)],
            daemon,
            _directory: directory,
        }
    }

    /// Has all clients make their connections at once. `connection` plays one, which has a name of its own, from its
    /// first byte to its end; `intervene` is called after every ten.
    pub(crate) fn play(
        &self,
        seed: u64,
        connection: impl Fn(&mut Dice, &Address, &str) + Sync,
        mut intervene: impl FnMut(),
    ) {
        let (done, progress) = mpsc::channel();
        thread::scope(|scope| {
            for (number, address) in (0..CLIENTS).zip(self.addresses.iter().cycle()) {
                let (done, connection) = (done.clone(), &connection);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed * 1_000 + number);
                    for round in 0..ROUNDS {
                        connection(&mut dice, address, &format!("{seed}/{number}/{round}"));
                        done.send(()).expect("the test listens to the end");
                    }
                });
            }
            drop(done);
            for (count, ()) in progress.iter().enumerate() {
                if count % 10 == 9 {
                    intervene();
                }
            }
        });
    }

    /// Checks that nothing is in hand behind all clients, and that the counters add up; and ends the pool. Returns the
    /// counters. `flags` name the pool in a failure.
    #[track_caller]
    pub(crate) fn end(self, flags: &[&str]) -> StatsBlock {
        let stats = self.daemon.usr1_until(|stats| stats.count("connections") == 0);
        let ended = ["queries replied", "queries failed", "queries timeout"].map(|label| stats.count(label));
        let total = ended.iter().sum::<u64>();
        assert_eq!(stats.count("queries total"), total, "{flags:?}: {stats:#?}");
        assert_eq!(stats.count("queue length"), 0);
        self.daemon.signal(Signal::SIGTERM);
        assert!(self.daemon.wait_exit().success());
        stats
    }
}

/// Returns the text of a request, and its answer.
pub(crate) fn request(dice: &mut Dice, name: &str) -> (String, String) {
    match dice.below(20) {
        0 => ("echo a\0b".to_owned(), "ERR".to_owned()),
        1 => {
            let text = format!("length {name} {}", "x".repeat(dice.index(9_000)));
            let answer = text.len().to_string();
            (text, answer)
        }
        2 => {
            let size = dice.index(3_000);
            (format!("big {size}"), ('0'..='9').cycle().take(size).collect())
        }
        3..8 => {
            let shared = dice.below(4);
            (format!("echo shared {shared}"), format!("shared {shared}"))
        }
        _ => (format!("echo {name}"), name.to_owned()),
    }
}

/// Sends these bytes in pieces: whole, a few, or every byte alone.
pub(crate) fn send(dice: &mut Dice, client: &mut Client, bytes: &[u8]) {
    let largest = match dice.pick(&[1, 30, 2_000, usize::MAX]).expect("four sizes") {
        1 if bytes.len() > 500 => 500,
        size => size.min(bytes.len()),
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + dice.index(largest)).min(rest.len()));
        client.send(piece);
        rest = behind;
    }
}
