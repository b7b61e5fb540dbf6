//! The bundled worker of `scripts/quickstart`: it must answer as squidGuard 1.6 does (`real_squidguard.rs` asks that
//! one).

use std::io::Write;
use std::process::Command;

use crate::harness::{Program, temp_dir};

#[test]
fn it_answers_in_the_words_of_squidguard() {
    let directory = temp_dir();
    let domains = directory.path().join("domains");
    std::fs::write(&domains, "other.example\nads.example\n").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/worker-demo");
    let mut worker = Program::start(Command::new(script).arg(&domains));
    let conversation = [
        (
            "http://ads.example/x 10.0.0.1/- - GET",
            "OK status=302 url=\"http://127.0.0.1/blocked?u=http://ads.example/x\"",
        ),
        (
            "https://a.b.ads.example 10.0.0.1/- - GET k=v",
            "OK status=302 url=\"http://127.0.0.1/blocked?u=https://a.b.ads.example\"",
        ),
        (
            "ads.example:443 10.0.0.1/- - CONNECT",
            "OK status=302 url=\"http://127.0.0.1/blocked?u=ads.example:443\"",
        ),
        ("http://notads.example/ 10.0.0.1/- - GET", "ERR"),
        ("http://example/ads.example 10.0.0.1/- - GET", "ERR"),
        (
            "http://ads.example/ 10.0.0.1/- -",
            "BH message=\"worker-demo: a line needs URL, client, user and method\"",
        ),
        (
            "",
            "BH message=\"worker-demo: a line needs URL, client, user and method\"",
        ),
    ];
    for (place, (request, answer)) in conversation.into_iter().enumerate() {
        // Each answer is waited for before the next request: the worker must not buffer.
        worker
            .stdin
            .as_mut()
            .unwrap()
            .write_all(format!("{request}\n").as_bytes())
            .unwrap();
        assert_eq!(worker.stdout.wait_from(place, |_| true), Ok((place, answer.to_owned())));
    }
    worker.stdin.take();
    assert_eq!(worker.finish().0.code(), Some(0));
}
