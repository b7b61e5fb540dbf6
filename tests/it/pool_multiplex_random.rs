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
use std::sync::RwLock;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client};
use crate::pool_clients_by_dice::{self, CONNECTIONS, Scene, send};
use crate::random::Dice;

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

/// A request with its answer. One that is too long is refused, and costs nothing else.
fn request(dice: &mut Dice, name: &str) -> (String, String) {
    if dice.percent(5) {
        return ("x".repeat(MAX_REQUEST + 1 + dice.index(9_000)), REFUSAL.to_owned());
    }
    pool_clients_by_dice::request(dice, name)
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
            let cut = dice.index(bytes.len() + 1);
            send(dice, &mut client, &bytes[..cut]);
            // A client that goes before the end of its handshake is not counted.
            if !is_welcome && matches!(address, Address::Tls(..)) {
                client.read_line();
            }
            return client.reset();
        }
        send(dice, &mut client, &bytes);
        drop(now);
        if !is_welcome {
            is_welcome = true;
            assert!(client.read_line().starts_with("iotcpd-multiplex 1 "), "{name}");
        }
        // Some answers are taken, and the others stay under way with the next requests.
        let left = dice.index(1 + model.under_way.len());
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
        let longest = MAX_REQUEST.to_string();
        let scene = Scene::new(&[&["--max-request", &longest], flags].concat(), worker);
        let rolls = RwLock::new(0);
        scene.play(
            seed,
            |dice, address, name| connection(dice, address, &rolls, name),
            || {
                let mut rolls = rolls.write().expect("no thread has failed with it");
                scene.daemon.signal(Signal::SIGHUP);
                *rolls += 1;
                scene.daemon.stderr_wait_nth("replacing every worker", *rolls);
            },
        );
        let stats = scene.end(flags);
        assert_eq!(stats.count("multiplexed"), 0);
        assert_eq!(stats.count("multiplexed total"), CONNECTIONS);
    }
}

crate::harness::over_tls! {
    every_request_gets_its_own_answer_once,
}
