//! A short run of `scripts/chaos` (`examples/chaos`, which says what it promises and excuses), always with the same
//! seed: one by which everything that can be done to the daemon is done to it soon, an upgrade too.

use std::path::Path;
use std::process::Command;

use crate::harness::Program;

/// The modes, in parts that a small machine can bear at a time.
const PARTS: [&[&str]; 3] = [
    &[
        "line",
        "ahead",
        "kept",
        "kept-ahead",
        "channels",
        "kept-channels",
        "netstring",
        "line-netstring",
        "content-length",
        "u32be",
        "until-empty-line",
        "nul",
        "eof",
        "line-eof",
        "quiet",
        "cache",
        "probe",
        "elastic",
        "rest",
        "session",
    ],
    &[
        "multiplexed",
        "multiplexed-channels",
        "multiplexed-netstring",
        "multiplexed-cache",
        "ask",
    ],
    &[
        "tls",
        "tls-kept",
        "tls-netstring",
        "tls-multiplexed",
        "tls-ask",
        "tls-session",
    ],
];

#[test]
fn promises_hold_while_faults_are_injected() {
    let chaos = Path::new(env!("CARGO_BIN_EXE_iotcpd")).with_file_name("examples/chaos");
    assert!(
        chaos.exists(),
        "{} is missing: cargo build --example chaos",
        chaos.display()
    );
    for modes in PARTS {
        let program = Program::start(Command::new(&chaos).args(["3", "12"]).args(modes));
        // One at a time, because the whole may take longer than any wait for a single event.
        let stages = [
            "load 0 is over",
            "faults: ",
            "what the daemon counted",
            "load 1 is over",
            "requests  ",
        ];
        let deaths = (1..=10).map(|number| format!("killed {number} of 10 daemons"));
        for stage in stages.map(str::to_owned).into_iter().chain(deaths) {
            let waited = program.stdout.wait_from(0, |line| line.starts_with(&stage));
            waited.unwrap_or_else(|why| program.fail(&format!("wanted {stage:?}: {why}")));
        }
        let (status, stdout, stderr) = program.finish();
        assert!(status.success(), "{status}\n{stdout}\n{stderr}");
        assert!(stdout.contains("every promise held"), "{stdout}");
    }
}
