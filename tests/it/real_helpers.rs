//! Debian's Squid helpers behind the pool, spoken to as Squid does it: with a channel-ID before every line.
//!
//! Where Squid is missing these tests fail.

use std::fs;
use std::thread;

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

const HELPERS: &str = "/usr/lib/squid";

/// It knows from a number at the beginning of a line that it is spoken to so, and its answer tells the URL.
#[test]
fn storeid_file_rewrite_answers_each_request_with_its_own_url() {
    let directory = temp_dir();
    let rules = directory.path().join("rules");
    fs::write(&rules, "^http://([a-z0-9]+)\\.example/(.*)\thttp://$1.internal/$2\n").unwrap();
    let command = format!("{HELPERS}/storeid_file_rewrite {}", rules.display());
    let daemon = Daemon::pool(2, &command, &["--concurrency", "16", "--queue-timeout", "600s"]);
    thread::scope(|scope| {
        for client in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || {
                for number in 0..50 {
                    let answer = daemon.ask(&format!("http://c{client}.example/{number}"));
                    assert_eq!(answer, format!("OK store-id=http://c{client}.internal/{number}\n"));
                }
            });
        }
    });
    assert_eq!(daemon.ask("http://www.example.org/"), "ERR\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (401, 2));
}

/// Squid's own multiplexer, which starts a program for each request that is under way, answers in the order in which
/// those do.
#[test]
fn helper_mux_answers_in_any_order() {
    let command = format!("{HELPERS}/helper-mux {}", worker_command(&[]));
    let daemon = Daemon::pool(1, &command, &["--concurrency", "4", "--queue-timeout", "600s"]);
    let mut held: Vec<_> = (0..3)
        .map(|number| {
            let (gate, mut client) = (Gate::new(), daemon.client());
            client.send(format!("wait {} {number}\n", gate.path()));
            let arrival = gate.arrival();
            (number, client, arrival)
        })
        .collect();
    assert_eq!(daemon.ask("echo past them all"), "past them all\n");
    while let Some((number, mut client, arrival)) = held.pop() {
        drop(arrival);
        assert_eq!(client.read_to_end(), format!("{number}\n").into_bytes());
    }
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("queries concurrent"), stats.count("daemon spawns")),
        (3, 1)
    );
}
