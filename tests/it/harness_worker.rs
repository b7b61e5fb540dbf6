//! The scripted worker driven by hand: what the tests of the pool take for granted about it.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;

use crate::harness::{Gate, ScriptedWorker, children_of, temp_dir};

#[test]
fn it_echoes_measures_and_counts() {
    let mut worker = ScriptedWorker::start(&[]);
    assert_eq!(worker.ask("echo a  b "), "a  b ");
    assert_eq!(worker.ask("echo a\0b"), "a\0b");
    assert_eq!(worker.ask("length x\0y"), "10");
    assert_eq!(worker.ask("big 12"), "012345678901");
    assert_eq!(worker.ask("big 1048576").len(), 1 << 20);
    assert_eq!(worker.ask("served"), "6");
    assert_eq!(worker.ask("nonsense x"), "unknown nonsense x");
    worker.program.stdin.take();
    assert_eq!(worker.program.wait_exit().code(), Some(0));
}

#[test]
fn it_waits_at_gates() {
    let gate = Gate::new();
    let mut worker = ScriptedWorker::start(&["--start-gate", gate.path(), "--ready", "I am up"]);
    gate.arrival().open();
    assert_eq!(worker.line(), "I am up");
    worker.send(format!("wait {} done\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(arrival.pid, worker.program.pid());
    arrival.open();
    assert_eq!(worker.line(), "done");
    worker.send(format!("partial he {} llo\n", gate.path()));
    gate.arrival().open();
    assert_eq!(worker.line(), "hello");
    worker.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    worker.program.signal(Signal::SIGKILL);
    arrival.wait_killed();
}

#[test]
fn a_gate_that_is_gone_is_open() {
    let path = Gate::new().path().to_owned();
    let mut worker = ScriptedWorker::start(&[]);
    assert_eq!(worker.ask(&format!("wait {path} done")), "done");
}

#[test]
fn it_answers_too_much() {
    let gate = Gate::new();
    let mut worker = ScriptedWorker::start(&["--max-line", "20"]);
    assert_eq!((worker.ask("two a b"), worker.line()), ("a".to_owned(), "b".to_owned()));
    assert_eq!(worker.ask("raw a\\nb\\\\\\n"), "a");
    assert_eq!(worker.line(), "b\\");
    assert_eq!(worker.ask("echo 6789012345678901234"), "678901234567890");
    assert_eq!(worker.line(), "unknown 1234");
    let mut worker = ScriptedWorker::start(&[]);
    worker.send(format!("two-writes a {} b\n", gate.path()));
    assert_eq!(worker.line(), "a");
    gate.arrival().open();
    assert_eq!(worker.line(), "b");
    assert_eq!(worker.ask(&format!("unasked {} surprise", gate.path())), "ok");
    let arrival = gate.arrival();
    assert_eq!(worker.ask("echo x"), "x");
    arrival.open();
    assert_eq!(worker.line(), "surprise");
}

#[test]
fn it_dies_in_many_ways() {
    let directory = temp_dir();
    let once = directory.path().join("once");
    let ending = |flags: &[&str], request: &str| {
        let mut worker = ScriptedWorker::start(flags);
        worker.send(format!("{request}\n"));
        let (status, output, _) = worker.program.finish();
        (status.code(), output)
    };
    assert_eq!(ending(&[], "die"), (Some(0), String::new()));
    assert_eq!(ending(&[], "die 7"), (Some(7), String::new()));
    assert_eq!(ending(&[], "die-after-partial ab"), (Some(0), "ab".to_owned()));
    assert_eq!(ending(&[], "die-after ab"), (Some(0), "ab".to_owned()));
    let die_first = format!("die-first {} again", once.display());
    assert_eq!(ending(&[], &die_first), (Some(0), String::new()));
    assert_eq!(ScriptedWorker::start(&[]).ask(&die_first), "again");
    let mut worker = ScriptedWorker::start(&[]);
    worker.send("kill-self\n");
    assert_eq!(worker.program.wait_exit().signal(), Some(9));
    let failed = |flags: &[&str]| ScriptedWorker::start(flags).program.wait_exit().code();
    assert_eq!(failed(&["--die-at-start"]), Some(3));
    assert_eq!(failed(&["--die-if", once.to_str().unwrap()]), Some(3));
}

#[test]
fn it_ignores_term_or_stops_talking() {
    let mut worker = ScriptedWorker::start(&["--ignore-term"]);
    assert_eq!(worker.ask("echo up"), "up");
    worker.program.signal(Signal::SIGTERM);
    assert_eq!(worker.ask("echo still up"), "still up");
    worker.send("close-stdout\n");
    worker.program.stdout.wait_ended().unwrap();
    assert_eq!(children_of(worker.program.pid()), Vec::<i32>::new());
    worker.program.stdin.take();
    assert_eq!(worker.program.wait_exit().code(), Some(0));
}

#[test]
fn it_answers_questions_about_itself() {
    let mut worker = ScriptedWorker::start(&["a b", "--x"]);
    let pid = worker.program.pid().to_string();
    assert_eq!(worker.ask("pid"), pid);
    assert_eq!(worker.ask("arguments"), "\"a b\" \"--x\"");
    assert_eq!(worker.ask("env PATH"), std::env::var("PATH").unwrap());
    assert_eq!(worker.ask("env IOTCPD_NO_SUCH_VARIABLE"), "");
    assert_eq!(
        worker.ask("cwd"),
        std::env::current_dir().unwrap().display().to_string()
    );
    assert!(worker.ask("proc status").contains(&format!("Pid:\t{pid}|")));
    assert!(worker.ask("descriptors").starts_with("0=pipe:["));
    assert_eq!(worker.ask("grow 1"), "ok");
    assert_eq!(worker.ask("stderr alarm"), "ok");
    worker.program.stderr_wait("alarm");
    assert_eq!(worker.ask("flood-stderr 200000"), "ok");
}

#[test]
fn its_grandchildren_outlive_it() {
    for request in ["spawn-grandchild", "spawn-holding-grandchild"] {
        let mut worker = ScriptedWorker::start(&[]);
        let grandchild: i32 = worker.ask(request).parse().unwrap();
        assert_eq!(children_of(worker.program.pid()), [grandchild]);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
    }
}
