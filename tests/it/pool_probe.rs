//! `--probe`: a worker that answers promptly and wrongly serves no client.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

/// A request that waits for a worker ends when one is there, not because time has passed.
const PATIENT: [&str; 2] = ["--queue-timeout", "600s"];
const EXPECTED: [&str; 4] = ["--probe", "probe", "--probe-expect", "^good$"];

/// A program that replies to `probe` what stands in a file, to `pid` its process number, and to the rest the same line.
struct Checker {
    directory: TempDir,
}

impl Checker {
    fn answering(answer: &str) -> Self {
        let checker = Self { directory: temp_dir() };
        checker.answer(answer);
        checker
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("answer")
    }

    /// Sets the answer of each of its processes from now on. The file is renamed, so that no worker reads half of it.
    fn answer(&self, answer: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, answer).expect("write an answer");
        fs::rename(new, self.file()).expect("put an answer into its place");
    }

    fn command(&self) -> String {
        let answer = self.file();
        let answer = answer.to_str().expect("temporary paths are UTF-8");
        let cases = format!("probe) cat {answer};; pid) echo $$;; *) printf '%s\\n' \"$line\";;");
        let script = format!("while read -r line; do case $line in {cases} esac; done");
        shell_words::join(["sh", "-c", &script])
    }

    fn pool(&self, workers: u32, flags: &[&str]) -> Daemon {
        let flags = [&EXPECTED[..], &["-a", "100ms"], flags].concat();
        Daemon::pool(workers, &self.command(), &flags)
    }
}

#[test]
fn no_request_is_served_before_the_probe_is_answered() {
    let gate = Gate::new();
    let probe = format!("wait {} fine", gate.path());
    let flags = [&PATIENT[..], &["--probe", &probe, "--probe-expect", "^fine$"]].concat();
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let asked = gate.arrival();
    let mut client = daemon.client();
    client.send("served\n");
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!((stats.count("daemon S_STARTING"), stats.count("probes asked")), (1, 1));
    asked.open();
    assert_eq!(client.read_to_end(), b"2\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries total"), stats.count("queries replied")), (1, 1));
}

#[test]
fn a_worker_that_answers_its_probe_wrongly_serves_no_request_until_it_recovers() {
    let checker = Checker::answering("bad\n");
    let daemon = checker.pool(1, &PATIENT);
    let line = daemon.stderr_wait("has failed its probe and is quarantined");
    assert!(
        line.contains("ERROR") && line.contains("pool: worker 0 (pid "),
        "{line}"
    );
    let story = ": asked \"probe\", it answered \"bad\", in which --probe-expect \"^good$\" is not found; ";
    assert!(line.contains(story), "{line}");
    assert!(line.ends_with("; started again in 100 ms"), "{line}");
    let mut client = daemon.client();
    client.send("mine\n");
    let stats = daemon.usr1_until(|stats| stats.count("workers quarantine") == 1);
    assert_eq!(
        (stats.count("queries replied"), stats.count("daemon S_AVAILABLE")),
        (0, 0)
    );
    assert!(stats.count("restarts probe") >= 1);
    daemon.stderr_wait("; started again in 200 ms");
    let dump = daemon.usr2();
    assert!(dump.contains(&"d[0].status = 32".to_owned()), "{dump:#?}");
    checker.answer("good\n");
    assert_eq!(client.read_to_end(), b"mine\n");
    daemon.stderr_wait("ends the quarantine of its place");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("workers quarantine"), stats.count("queries failed")),
        (0, 0)
    );
}

#[test]
fn a_request_that_waits_for_a_worker_in_quarantine_is_refused_in_time() {
    let checker = Checker::answering("bad\n");
    let daemon = checker.pool(2, &["--queue-timeout", "300ms"]);
    daemon.stderr_wait("is quarantined");
    assert_eq!(daemon.ask("mine"), "ERR\n");
    assert_eq!(daemon.usr1().count("refused queue-time"), 1);
}

#[test]
fn a_worker_that_goes_wrong_later_is_found_out() {
    let checker = Checker::answering("good\n");
    let daemon = checker.pool(1, &[&PATIENT[..], &["--probe-interval", "1s"]].concat());
    let old = daemon.ask("pid");
    daemon.usr1_until(|stats| stats.count("probes asked") >= 3);
    assert_eq!(daemon.ask("pid"), old, "it goes on for as long as it answers rightly");
    checker.answer("bad\n");
    daemon.stderr_wait("it answered \"bad\"");
    let record = daemon.stderr_wait(": \"pid\"");
    assert!(record.contains("ERROR pool: worker 0 (pid "), "{record}");
    checker.answer("good\n");
    assert_ne!(daemon.ask("pid"), old);
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn an_answer_has_to_be_one_line() {
    let checker = Checker::answering("good\ngood\n");
    let daemon = checker.pool(1, &PATIENT);
    daemon.stderr_wait("it answered \"good\" and more than that one line");
    checker.answer("good\n");
    assert_eq!(daemon.ask("mine"), "mine\n");
}

#[test]
fn a_worker_that_misses_the_time_of_its_probe_or_dies_has_failed_it() {
    let told = |command: &str, why: &str| {
        let flags = [&EXPECTED[..], &["--start-timeout", "300ms"]].concat();
        Daemon::pool(1, command, &flags).stderr_wait(why)
    };
    let silent = told("sleep 1000", "it gave no answer within --start-timeout");
    assert!(
        silent.contains("; it has written nothing since its start") && silent.contains("--pty"),
        "{silent}"
    );
    told("sh -c 'read line; exit 3'", "asked \"probe\", it exited with status 3");
    told(
        "sh -c 'read line; exec >&-; exec sleep 1000'",
        "it closed its standard output",
    );
    // Its greeting is there before it is asked, or is taken for its answer.
    let greeting = told("sh -c 'echo hello; cat'", "has failed its probe");
    assert!(
        greeting.contains("\"hello\"") || greeting.contains("it had written before it was asked anything"),
        "{greeting}"
    );
    assert!(!greeting.contains("it has written nothing"), "{greeting}");
}

#[test]
fn a_generation_that_fails_leaves_the_old_one_in_service() {
    let checker = Checker::answering("good\n");
    let daemon = checker.pool(2, &PATIENT);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    let old = daemon.ask("pid");
    checker.answer("bad\n");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.stderr_wait("stays in service");
    assert!(line.contains("has failed its probe and is quarantined"), "{line}");
    assert!(line.contains("; the old worker 0 (pid "), "{line}");
    assert!(
        line.ends_with(") stays in service, and another is started in 100 ms"),
        "{line}"
    );
    // The more it fails the longer it takes to the next trial, though the old one answers.
    daemon.stderr_wait("and another is started in 200 ms");
    assert_eq!(daemon.ask("pid"), old);
    daemon.stderr_wait("and another is started in 400 ms");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("daemon S_AVAILABLE"), stats.count("restarts asked")),
        (2, 0)
    );
    checker.answer("good\n");
    daemon.stderr_wait("every worker has been replaced");
    assert_ne!(daemon.ask("pid"), old);
    let stats = daemon.usr1_until(|stats| stats.count("workers stopping") == 0);
    assert_eq!((stats.count("queries failed"), stats.count("restarts asked")), (0, 2));
}

/// The old generation is measured by what was to be asked in its time.
#[test]
fn a_new_question_is_for_the_new_generation() {
    let directory = temp_dir();
    let (file, socket) = (directory.path().join("iotcpd.toml"), directory.path().join("socket"));
    let write = |probe: &str, expect: &str| {
        let (command, listen) = (worker_command(&[]), format!("unix:{}", socket.display()));
        let text = format!(
            "[pool.main]\ndaemon = {command:?}\nlisten = {listen:?}\nnum-daemons = 1\nalarm-interval = '100ms'\n\
             queue-timeout = '600s'\nprobe = {probe:?}\nprobe-expect = {expect:?}\nprobe-interval = '1s'\n"
        );
        fs::write(&file, text).expect("write a configuration");
    };
    write("echo old", "^old$");
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("temporary paths are UTF-8")]).start();
    let old = daemon.ask("pid");
    write("echo new", "^old$");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("asked \"echo new\", it answered \"new\"");
    // Of the workers that are probed now the old one passes: one that fails was started since.
    let probes = |stats: &crate::harness::StatsBlock| stats.count("probes asked") - stats.count("restarts probe");
    let before = probes(&daemon.usr1());
    daemon.usr1_until(|stats| probes(stats) >= before + 3);
    assert_eq!(daemon.ask("pid"), old);
    write("echo new", "^new$");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    assert_ne!(daemon.ask("pid"), old);
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn an_expression_that_is_none_is_refused_with_its_place() {
    let (status, _, said) = Daemon::with(["-p", "0", "--probe", "q", "--probe-expect", "OK (a|b"])
        .spawn()
        .finish();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("at character 4: unclosed group"), "{said}");
    let directory = temp_dir();
    let file = directory.path().join("iotcpd.toml");
    fs::write(&file, "[pool.main]\ndaemon = 'cat'\nprobe = 'q'\n").expect("write a configuration");
    let file = file.to_str().expect("temporary paths are UTF-8");
    let (status, _, said) = Daemon::with(["check", "--config", file]).spawn().finish();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains(":3:") && said.contains("give probe-expect with it"),
        "{said}"
    );
}

/// Whatever it has answered since it passed last may be as wrong as its answer to the probe.
#[test]
fn answers_of_a_worker_before_it_failed_its_probe_are_not_cached() {
    let checker = Checker::answering("good\n");
    let flags = [
        &PATIENT[..],
        &["--probe-interval", "1s", "--cache-size", "1MiB", "--cache-ttl", "1h"],
    ]
    .concat();
    let daemon = checker.pool(1, &flags);
    let before = daemon.ask("pid");
    assert_eq!(daemon.ask("pid"), before);
    assert_eq!(daemon.usr1().count("cache hits"), 1);
    checker.answer("bad\n");
    daemon.usr1_until(|stats| stats.count("restarts probe") > 0);
    checker.answer("good\n");
    assert_ne!(daemon.ask("pid"), before);
}
