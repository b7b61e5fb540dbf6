//! Connections that stay, by dice: many clients at once do all that a client may do, with requests of every kind in
//! pieces of every size, while workers are replaced; each answer is compared with what that very request must get.
//!
//! The invariant of every client: its answers are those of its requests, in their order. A client that stays to the end
//! has all of them. Behind all clients nothing is in hand, and the counters add up.

use nix::sys::signal::Signal;

use crate::harness::{Address, Client};
use crate::pool_clients_by_dice::{self, Scene, send};
use crate::random::Dice;

/// The most requests that a client sends before it reads: all of them, with their answers, fit the buffers of the
/// sockets.
const BURST: u64 = 40;

/// A request with its answer.
type Pair = (Vec<u8>, String);

fn request(dice: &mut Dice, name: &str) -> Pair {
    let (text, answer) = pool_clients_by_dice::request(dice, name);
    (format!("{text}\n").into_bytes(), answer)
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
            let cut = dice.index(bytes.len());
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
            true => dice.index(pairs.len()),
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
        let scene = Scene::new(&[&["--persistent"], flags].concat(), worker);
        scene.play(seed, connection, || scene.daemon.signal(Signal::SIGHUP));
        scene.end(flags);
    }
}

crate::harness::over_tls! {
    every_client_gets_its_answers_in_order,
}
