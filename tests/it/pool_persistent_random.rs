//! Connections that stay, by dice: many clients at once do all that a client may do, with requests of every kind in
//! pieces of every size, while workers are replaced; each answer is compared with what that very request must get.
//!
//! The invariant of every client: its answers are those of its requests, in their order. A client that stays to the end
//! has all of them. Behind all clients nothing is in hand, and the counters add up.

use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, worker_command};
use crate::random::Dice;

const CLIENTS: u64 = 10;
/// Connections of each client, one after the other.
const ROUNDS: u64 = 8;
/// The most bytes that a client sends before it reads: all of them, with their answers, fit the buffers of the sockets.
const BURST: u64 = 40;

/// A request with its answer.
type Pair = (Vec<u8>, String);

/// 0 to `bound` - 1.
fn below(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).expect("it is below what was a usize")
}

fn request(dice: &mut Dice, name: &str) -> Pair {
    let line = |text: String, answer: String| (format!("{text}\n").into_bytes(), answer);
    match dice.below(20) {
        0 => (b"echo a\0b\n".to_vec(), "ERR".to_owned()),
        1 => {
            let padding = "x".repeat(below(dice, 9_000));
            let text = format!("length {name} {padding}");
            let answer = text.len().to_string();
            line(text, answer)
        }
        2 => {
            let size = below(dice, 3_000);
            let answer = ('0'..='9').cycle().take(size).collect();
            line(format!("big {size}"), answer)
        }
        3..8 => {
            let shared = dice.below(4);
            line(format!("echo shared {shared}"), format!("shared {shared}"))
        }
        _ => line(format!("echo {name}"), name.to_owned()),
    }
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
fn connection(dice: &mut Dice, address: &Address, name: &str) {
    let mut client = Client::connect(address);
    for burst in 0..1 + dice.below(3) {
        let pairs: Vec<Pair> = (0..1 + dice.below(BURST))
            .map(|number| request(dice, &format!("{name}/{burst}/{number}")))
            .collect();
        let bytes: Vec<u8> = pairs.iter().flat_map(|(request, _)| request).copied().collect();
        if dice.percent(8) {
            // In the middle of a request, with answers on their way.
            let cut = below(dice, bytes.len());
            send(dice, &mut client, &bytes[..cut]);
            return client.reset();
        }
        send(dice, &mut client, &bytes);
        if dice.percent(8) {
            client.half_close();
            let all: String = pairs.iter().map(|(_, answer)| format!("{answer}\n")).collect();
            assert_eq!(String::from_utf8_lossy(&client.read_to_end()), all, "{name}");
            return;
        }
        let leaves = dice.percent(8);
        let taken = match leaves {
            true => below(dice, pairs.len()),
            false => pairs.len(),
        };
        for (request, answer) in &pairs[..taken] {
            assert_eq!(
                &client.read_line(),
                answer,
                "{name}: {:?}",
                String::from_utf8_lossy(request)
            );
        }
        if leaves {
            return;
        }
    }
}

/// Every way in which a pool may be set up for connections that stay.
#[test]
fn every_client_gets_its_answers_in_order() {
    let ways: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&["--pipeline", "8", "--max-unanswered", "3"], &[]),
        (&["--concurrency", "8", "--cache-size", "64K"], &["--concurrent"]),
        (&["--cache-size", "64K", "--max-unanswered", "1"], &[]),
        (
            &["--pipeline", "64", "--cache-size", "1M", "--max-requests", "100"],
            &[],
        ),
    ];
    for (seed, (flags, worker)) in (1..).zip(ways) {
        let directory = tempfile::tempdir().expect("a place for a socket");
        let listen = format!("unix:{}/pool", directory.path().display());
        let common = ["--persistent", "--queue-timeout", "60s", "--listen", &listen];
        let daemon = Daemon::pool(3, &worker_command(worker), &[&common, flags].concat());
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 3);
        let addresses = [daemon.nth_addr(1), daemon.nth_addr(2)];
        let (done, progress) = mpsc::channel();
        thread::scope(|scope| {
            for (number, address) in (0..CLIENTS).zip(addresses.iter().cycle()) {
                let done = done.clone();
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
                    daemon.signal(Signal::SIGHUP);
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
        assert_eq!(stats.count("queue length"), 0);
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_exit().success());
    }
}
