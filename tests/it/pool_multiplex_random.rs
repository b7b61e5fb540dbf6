//! Multiplexed connections, by dice: many clients at once do all that a client may do, with requests of every kind in
//! pieces of every size, cancellations, hang-ups and drains, while workers are replaced; each answer is compared with
//! what the request with that number must get.
//!
//! The invariant of every client: each of its requests gets exactly one answer, which is its own, or the refusal if the
//! client has cancelled it. A client that stays to the end has all of them, also of requests that it has sent before a drain.
//! Behind all clients nothing is in hand, and the counters add up.
//!
//! A pool reads for a second after it has announced a drain, and a client of this test may sleep for longer. So a client
//! sends nothing on a connection that is older than the last HUP.

use std::collections::HashMap;
use std::sync::{RwLock, mpsc};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, worker_command};
use crate::random::Dice;

const CLIENTS: u64 = 10;
/// Connections of each client, one after the other.
const ROUNDS: u64 = 8;
/// The most requests that a client has under way: all of them, with their answers, fit the buffers of the sockets.
const MOST: usize = 40;
/// The longest request, so that longer ones can be sent too.
const MAX_REQUEST: usize = 10_000;
const REFUSAL: &str = "ERR";

/// The model of one connection.
struct Model {
    /// The answers that are still to come, by number.
    under_way: HashMap<u32, Expected>,
    /// True once the pool has announced that it drains.
    is_drained: bool,
}

struct Expected {
    answer: String,
    is_cancelled: bool,
}

impl Model {
    /// Takes in a line of the pool.
    fn take(&mut self, name: &str, line: &str) {
        if line == "!drain" {
            assert!(!self.is_drained, "{name}: a drain is announced once");
            self.is_drained = true;
            return;
        }
        let (number, answer) = line.split_once(' ').unwrap_or_else(|| panic!("{name}: {line:?}"));
        let number = number.parse().unwrap_or_else(|_| panic!("{name}: {line:?}"));
        let expected = self.under_way.remove(&number);
        let expected = expected.unwrap_or_else(|| panic!("{name}: {line:?} is the answer to no request"));
        let is_right = answer == expected.answer || (expected.is_cancelled && answer == REFUSAL);
        assert!(is_right, "{name}: {line:?} instead of {:?}", expected.answer);
    }
}

/// 0 to `bound` - 1.
fn below(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).expect("it is below what was a usize")
}

/// A request with its answer.
fn request(dice: &mut Dice, name: &str) -> (String, String) {
    match dice.below(20) {
        0 => ("echo a\0b".to_owned(), REFUSAL.to_owned()),
        1 => ("x".repeat(MAX_REQUEST + 1 + below(dice, 9_000)), REFUSAL.to_owned()),
        2 => {
            let text = format!("length {name} {}", "x".repeat(below(dice, 9_000)));
            let answer = text.len().to_string();
            (text, answer)
        }
        3 => {
            let size = below(dice, 3_000);
            (format!("big {size}"), ('0'..='9').cycle().take(size).collect())
        }
        4..8 => {
            let shared = dice.below(4);
            (format!("echo shared {shared}"), format!("shared {shared}"))
        }
        _ => (format!("echo {name}"), name.to_owned()),
    }
}

/// Adds requests and cancellations to the model, and returns their lines.
fn lines(dice: &mut Dice, model: &mut Model, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in 0..1 + dice.below(60) {
        let known: Vec<u32> = model.under_way.keys().copied().collect();
        if dice.percent(15)
            && let Some(number) = dice.pick(&known)
        {
            bytes.extend(format!("!cancel {number}\n").into_bytes());
            if let Some(expected) = model.under_way.get_mut(&number) {
                expected.is_cancelled = true;
            }
            continue;
        }
        let number = match dice.below(8) {
            0 => u32::MAX - u32::try_from(dice.below(3)).expect("it is small"),
            _ => u32::try_from(dice.below(60)).expect("it is small"),
        };
        if known.len() >= MOST || known.contains(&number) {
            continue;
        }
        let (text, answer) = request(dice, &format!("{name}/{number}/{step}"));
        bytes.extend(format!("{number} {text}\n").into_bytes());
        let is_cancelled = false;
        model.under_way.insert(number, Expected { answer, is_cancelled });
    }
    bytes
}

/// Sends these bytes in pieces: whole, a few, or every byte alone.
fn send(dice: &mut Dice, client: &mut Client, bytes: &[u8]) {
    let largest = match dice.pick(&[1, 30, 2_000, usize::MAX]).expect("four sizes") {
        1 if bytes.len() > 500 => 500,
        size => size.min(bytes.len()),
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + below(dice, largest)).min(rest.len()));
        client.send(piece);
        rest = behind;
    }
}

/// One connection, from its first byte to whatever end it takes.
fn connection(dice: &mut Dice, address: &Address, rolls: &RwLock<usize>, name: &str) {
    let before = *rolls.read().expect("no thread has failed with it");
    let mut client = Client::connect(address);
    let mut model = Model {
        under_way: HashMap::new(),
        is_drained: false,
    };
    send(dice, &mut client, b"iotcpd-multiplex 1\n");
    let mut is_welcome = dice.percent(50);
    if is_welcome {
        assert!(client.read_line().starts_with("iotcpd-multiplex 1 "), "{name}");
    }
    for burst in 0..2 + dice.below(4) {
        let now = rolls.read().expect("no thread has failed with it");
        if *now != before {
            break;
        }
        let bytes = lines(dice, &mut model, &format!("{name}/{burst}"));
        if dice.percent(5) {
            // In the middle of a line, with answers on their way.
            let cut = below(dice, bytes.len() + 1);
            send(dice, &mut client, &bytes[..cut]);
            return client.reset();
        }
        send(dice, &mut client, &bytes);
        drop(now);
        if !is_welcome {
            is_welcome = true;
            assert!(client.read_line().starts_with("iotcpd-multiplex 1 "), "{name}");
        }
        // Some answers are taken, and the others stay under way with the next requests.
        let left = below(dice, 1 + model.under_way.len());
        while model.under_way.len() > left {
            model.take(name, &client.read_line());
        }
        if dice.percent(5) {
            return;
        }
    }
    client.half_close();
    let text = String::from_utf8(client.read_to_end()).expect("the workers write ASCII");
    let lines = text.lines().skip(usize::from(!is_welcome));
    lines.for_each(|line| model.take(name, line));
    let left = model.under_way.len();
    assert_eq!(left, 0, "{name}: the number of requests without an answer");
}

/// Every way in which a pool may be set up.
#[test]
fn every_request_gets_its_own_answer_once() {
    let ways: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&["--pipeline", "8", "--max-unanswered", "3"], &[]),
        (&["--concurrency", "8", "--cache-size", "64K"], &["--concurrent"]),
        (&["--cache-size", "64K", "--max-unanswered", "1", "--persistent"], &[]),
        (
            &["--pipeline", "64", "--cache-size", "1M", "--max-requests", "100"],
            &[],
        ),
    ];
    for (seed, (flags, worker)) in (1..).zip(ways) {
        let directory = tempfile::tempdir().expect("a place for a socket");
        let listen = format!("unix:{}/pool", directory.path().display());
        let longest = MAX_REQUEST.to_string();
        let common = ["--queue-timeout", "60s", "--max-request", &longest, "--listen", &listen];
        let daemon = Daemon::pool(3, &worker_command(worker), &[&common, flags].concat());
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 3);
        let addresses = [daemon.nth_addr(1), daemon.nth_addr(2)];
        let (done, progress) = mpsc::channel();
        let rolls = RwLock::new(0);
        thread::scope(|scope| {
            for (number, address) in (0..CLIENTS).zip(addresses.iter().cycle()) {
                let (done, rolls) = (done.clone(), &rolls);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed * 1_000 + number);
                    for round in 0..ROUNDS {
                        connection(&mut dice, address, rolls, &format!("{seed}/{number}/{round}"));
                        done.send(()).expect("the test listens to the end");
                    }
                });
            }
            drop(done);
            for (count, ()) in progress.iter().enumerate() {
                if count % 10 == 9 {
                    let mut rolls = rolls.write().expect("no thread has failed with it");
                    daemon.signal(Signal::SIGHUP);
                    *rolls += 1;
                    daemon.stderr_wait_nth("replacing every worker", *rolls);
                }
            }
        });
        let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
        let ended = ["queries replied", "queries failed", "queries timeout"].map(|label| stats.count(label));
        assert_eq!(
            stats.count("queries total"),
            ended.iter().sum::<u64>(),
            "{flags:?}: {stats:#?}"
        );
        assert_eq!((stats.count("queue length"), stats.count("multiplexed")), (0, 0));
        assert_eq!(stats.count("multiplexed total"), CLIENTS * ROUNDS);
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_exit().success());
    }
}
