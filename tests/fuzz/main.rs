//! Runs every fuzz target over its seeds, over mutations of them, and over made-up inputs: the same ones every time.
//!
//! No nightly compiler and no libFuzzer are needed: `cargo test --test fuzz` takes a few seconds. `README.md` beside
//! this file says how to go on when an input is found.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

mod drivers;

use drivers::TARGETS;

/// The number of inputs that each target gets besides its seeds.
const INPUTS: u64 = 2000;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Numbers that are the same every time (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    }

    /// Bytes at which parsers turn, more often than others.
    fn byte(&mut self) -> u8 {
        let turns = b"\n\n\r\0 :;/.,=@[]*\"'\\#-+0123456789";
        match self.below(2) {
            0 => turns[self.below(turns.len())],
            _ => u8::try_from(self.below(256)).unwrap(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(96);
        (0..length).map(|_| self.byte()).collect()
    }

    /// The seed with some bytes changed, put in, left out, doubled, or taken from another seed.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = bytes.len().min(at + self.below(12));
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.byte(),
                1 => bytes.insert(at, self.byte()),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.truncate(at),
                4 => bytes.extend_from_within(at..end),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    bytes.splice(
                        at..end,
                        other.iter().skip(self.below(other.len() + 1)).copied().take(16),
                    );
                }
            }
        }
        bytes
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn try_one(target: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(failure) = panic::catch_unwind(|| target(input)) {
        let hex = input.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        eprintln!("target {name} fails on {hex} (tests/fuzz/README.md tells how to go on)");
        panic::resume_unwind(failure);
    }
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seeds: Vec<Vec<u8>> = files(&home().join("seeds").join(name))
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "{name} has seeds");
    for seed in &seeds {
        try_one(*target, seed, name);
    }
    let mut dice = Dice(0);
    for number in 0..INPUTS {
        let input = if number % 4 == 0 {
            dice.bytes()
        } else {
            dice.mutated(&seeds)
        };
        try_one(*target, &input, name);
    }
}

#[test]
fn line() {
    run("line");
}

#[test]
fn channel() {
    run("channel");
}

#[test]
fn heads() {
    run("heads");
}

#[test]
fn line_rules() {
    run("line_rules");
}

#[test]
fn framings() {
    run("framings");
}

#[test]
fn ready_line() {
    run("ready_line");
}

#[test]
fn multiplexed_line() {
    run("multiplexed_line");
}

#[test]
fn multiplexed_stream() {
    run("multiplexed_stream");
}

#[test]
fn config_file() {
    run("config_file");
}

#[test]
fn torc_cfg() {
    run("torc_cfg");
}

#[test]
fn quantities() {
    run("quantities");
}

#[test]
fn addresses() {
    run("addresses");
}

#[test]
fn networks() {
    run("networks");
}

#[test]
fn handover() {
    run("handover");
}

#[test]
fn proxy_header() {
    run("proxy_header");
}

#[test]
fn ask_input() {
    run("ask_input");
}

#[test]
fn ask_reply() {
    run("ask_reply");
}

#[test]
fn asker() {
    run("asker");
}

#[test]
fn stderr_log() {
    run("stderr_log");
}

#[test]
fn dispatcher() {
    run("dispatcher");
}

#[test]
fn exec_request() {
    run("exec_request");
}

#[test]
fn sockproc_request() {
    run("sockproc_request");
}

#[test]
fn call_answer() {
    run("call_answer");
}

#[test]
fn command_exchange() {
    run("command_exchange");
}

#[test]
fn tls_server() {
    run("tls_server");
}

#[test]
fn tls_records() {
    run("tls_records");
}

#[test]
fn certificate_file() {
    run("certificate_file");
}

#[test]
fn client_hello() {
    run("client_hello");
}

#[test]
fn tunnel_handshake() {
    run("tunnel_handshake");
}

#[test]
fn http_head() {
    run("http_head");
}

#[test]
fn http_exchange() {
    run("http_exchange");
}

#[test]
fn store_entry() {
    run("store_entry");
}

#[test]
fn mux_frames() {
    run("mux_frames");
}

#[test]
fn tunnel_session() {
    run("tunnel_session");
}

/// A target that one of the places has forgotten would never run.
#[test]
fn every_target_is_in_every_place() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        let files = files(&home().join(folder));
        files
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(stems("fuzz_targets"), named);
    assert_eq!(stems("seeds"), named);
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let tests = include_str!("main.rs");
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is in Cargo.toml"
        );
        assert!(tests.contains(&format!("run(\"{name}\");")), "{name} is run here");
    }
}
