//! The log of a lost worker: one story, the cause first, and repeated lines once.

use nix::sys::signal::Signal;

use crate::harness::{Daemon, temp_dir, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

fn shell(script: &str) -> String {
    shell_words::join(["sh", "-c", script])
}

/// Workers that are started again as soon as may be.
fn hasty(workers: u32, command: &str) -> Daemon {
    Daemon::pool(
        workers,
        command,
        &["--alarm-interval", "100ms", "--queue-timeout", "60s"],
    )
}

/// Ends the daemon, so that its log is whole. Of that all but its first line, in which the command stands with the
/// words that its workers are going to say.
fn whole_log(daemon: &Daemon) -> String {
    daemon.signal(Signal::SIGTERM);
    let (status, _, log) = daemon.finish();
    assert!(status.success(), "{status}: {log}");
    let (start, rest) = log.split_once('\n').unwrap();
    assert!(start.contains(" is starting: "), "{log}");
    rest.to_owned()
}

/// The number of times that words are in the log; the daemon's own start shows the command, with the words in it.
fn times(log: &str, words: &str) -> usize {
    let lines = log.lines().filter(|line| !line.contains(" is starting: "));
    lines.map(|line| line.matches(words).count()).sum()
}

/// Of the lines from the one that holds this on, the next few, without the program's own beginning of each.
fn lines_from<'l>(log: &'l str, what: &str, count: usize) -> Vec<&'l str> {
    let lines = log.lines().skip_while(|line| !line.contains(what)).take(count);
    lines
        .map(|line| line.split_once("pool: ").map_or(line, |(_, said)| said))
        .collect()
}

#[test]
fn the_cause_comes_first_then_the_last_requests_then_the_refused_clients() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--retries", "0"]);
    let pid = daemon.ask("pid").trim_end().to_owned();
    assert_eq!(daemon.ask("die 3"), "ERR\n");
    daemon.stderr_wait("its worker died over it");
    let (log, worker) = (whole_log(&daemon), format!("worker 0 (pid {pid})"));
    let lines = lines_from(&log, "exited with", 4);
    let story = format!("{worker} exited with status 3 while it had a request in hand; started again at once");
    assert_eq!(lines[0], story, "{log}");
    let given = format!("{worker}: given ");
    assert!(lines[1].starts_with(&given) && lines[1].ends_with(": \"pid\""), "{log}");
    assert!(
        lines[2].starts_with(&given) && lines[2].ends_with(" not answered: \"die 3\""),
        "{log}"
    );
    assert!(
        lines[3].starts_with("refused 127.0.0.1:") && lines[3].contains(&worker),
        "{log}"
    );
    // It has no other name, and there is no other line.
    let has_pid = |line: &&str| line.split(|c: char| !c.is_ascii_digit()).any(|number| number == pid);
    let named = log.lines().filter(has_pid);
    assert!(
        named.clone().count() == 4 && named.clone().all(|line| line.contains(&worker)),
        "{log}"
    );
}

#[test]
fn each_way_to_be_lost_is_one_line_of_a_kind() {
    let told = |script: &str, flags: &[&str], story: &str| {
        let flags = [
            &["--retries", "0", "--busy-timeout", "1s", "--queue-timeout", "60s"],
            flags,
        ]
        .concat();
        let daemon = Daemon::pool(1, &shell(script), &flags);
        let mut client = daemon.client();
        client.send("x\n");
        let line = daemon.stderr_wait(story);
        let worker = line
            .split_once("pool: ")
            .unwrap()
            .1
            .split(')')
            .next()
            .unwrap()
            .to_owned();
        assert!(worker.starts_with("worker 0 (pid "), "{line}");
        // Of two that die within a moment, the end of the second may be heard of first.
        assert!(line.contains("; started again "), "{line}");
        client.reset();
        let log = whole_log(&daemon);
        let stories = log.lines().filter(|line| line.contains(&format!("{worker}) ")));
        let stories: Vec<_> = stories.filter(|line| !line.contains("refused")).collect();
        assert_eq!(stories.len(), 1, "{log}");
    };
    told(
        "read l; exec >&-; exec sleep 1000",
        &[],
        "closed its standard output while it had a request in hand; it is stopped",
    );
    told(
        "exec <&-; echo up; exec sleep 1000",
        &["--ready-line", "up"],
        "closed its standard input; it is stopped",
    );
    told(
        "read l; kill -ABRT $$",
        &[],
        "was killed by signal 6 (SIGABRT) while it had a request in hand",
    );
    told(
        "read l; read l",
        &[],
        "took longer than --busy-timeout 1 s and is stopped",
    );
    told(
        "read l; echo one; echo two; read l",
        &[],
        "has lost step and is stopped",
    );
    told(
        "read l; echo 123456789; read l",
        &["--max-reply", "5"],
        "wrote a reply longer than --max-reply 5 bytes and is stopped",
    );
    told(
        "read l; echo OK; read l",
        &["--worker-reply-framing", "netstring"],
        "wrote what is no reply: a netstring begins with its length in digits and a colon",
    );
    told(
        "read l; echo 7 OK; read l",
        &["--concurrency", "2"],
        "has answered under a channel-ID that no request of its has",
    );
    told(
        "read l",
        &["--ready-line", "up", "--start-timeout", "200ms"],
        "was not ready within --start-timeout 200 ms",
    );
}

#[test]
fn a_failed_start_is_one_line_and_its_repetitions_are_counted() {
    let directory = crate::harness::temp_dir();
    let program = directory.path().join("worker");
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let daemon = hasty(1, program.to_str().unwrap());
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    std::fs::remove_file(&program).unwrap();
    daemon.signal(Signal::SIGHUP);
    let line = daemon.stderr_wait("could not be started: cannot start ");
    assert!(
        line.contains("ERROR pool: worker 0 ") && line.contains("No such file"),
        "{line}"
    );
    assert!(line.contains("; the old worker 0 (pid "), "{line}");
    let line = daemon.stderr_wait("could not be started again, the 3rd time in a row: cannot start ");
    assert!(line.contains("stays in service"), "{line}");
    let log = daemon.stderr.text();
    let mut starts = log.lines().filter(|line| line.contains("running it: No such file"));
    assert!(starts.all(|line| line.contains("could not be started")), "{log}");
}

#[test]
fn the_same_last_words_are_shown_once_and_counted() {
    let daemon = hasty(1, &shell("echo \"$$: `date +%s.%N`: config error line 3\" >&2; exit 1"));
    let line = daemon.stderr_wait("the 4th time in a row");
    assert!(
        line.contains(
            ") exited with status 1 again, the 4th time in a row, with the same last words; started again in "
        ),
        "{line}"
    );
    let log = whole_log(&daemon);
    assert_eq!(times(&log, "config error line 3"), 1, "{log}");
    let words = log.find(": config error").unwrap();
    let first = log.find("exited with status 1; started again at once").unwrap();
    assert!(
        words < first && first < log.find(" again, the 2nd time in a row").unwrap(),
        "{log}"
    );
}

#[test]
fn workers_that_fail_in_the_same_way_say_why_once() {
    let daemon = hasty(8, &shell("echo starting >&2; echo \"no such table ($$)\" >&2; exit 1"));
    daemon.stderr_wait(" in a row in this pool, with the same last words");
    daemon.usr1_until(|stats| stats.count("restarts died") >= 16);
    let log = whole_log(&daemon);
    for words in ["starting", "no such table"] {
        assert_eq!(times(&log, words), 1, "{log}");
    }
    // The ones that are not shown are counted.
    let sum = log
        .lines()
        .find(|line| line.contains(" losses in a row the last "))
        .unwrap();
    assert!(
        sum.ends_with("not told here: each time a worker exited with status 1"),
        "{sum}"
    );
}

/// Starts, says so, fails for as long as a file says why, and serves once it does not.
struct Fickle {
    directory: tempfile::TempDir,
}

impl Fickle {
    fn that_says(why: &str) -> Self {
        let directory = crate::harness::temp_dir();
        let fickle = Fickle { directory };
        fickle.says(why);
        fickle
    }

    fn says(&self, why: &str) {
        let (new, path) = (self.directory.path().join("new"), self.directory.path().join("why"));
        std::fs::write(&new, format!("{why}\n")).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn is_mended(&self) {
        std::fs::remove_file(self.directory.path().join("why")).unwrap();
    }

    fn command(&self) -> String {
        let why = self.directory.path().join("why");
        shell(&format!(
            "echo starting >&2; cat {0} >&2 2>/dev/null && exit 1; while read l; do echo $l; done",
            why.display()
        ))
    }
}

#[test]
fn other_last_words_are_shown() {
    let fickle = Fickle::that_says("config error line 3");
    let daemon = hasty(1, &fickle.command());
    // The number of stories that are logged in ten seconds; they do not hide another story.
    daemon.stderr_wait("the 5th time in a row");
    fickle.says("config error line 4");
    daemon.stderr_wait(": config error line 4");
    daemon.stderr_wait(" exited with status 1; started again in ");
    let log = whole_log(&daemon);
    for (words, count) in [("starting", 2), ("line 3", 1), ("line 4", 1)] {
        assert_eq!(times(&log, words), count, "{words}: {log}");
    }
}

#[test]
fn the_first_answer_after_a_row_of_losses_is_logged_with_all_that_was_held_back() {
    let fickle = Fickle::that_says("config error line 3");
    let daemon = hasty(1, &fickle.command());
    daemon.stderr_wait("the 3rd time in a row");
    fickle.is_mended();
    assert_eq!(daemon.ask("hello"), "hello\n");
    let line = daemon.stderr_wait(" answers, after ");
    assert!(line.contains("INFO pool: worker 0 (pid "), "{line}");
    assert!(
        line.ends_with(" losses in a row: each time a worker exited with status 1"),
        "{line}"
    );
    let log = whole_log(&daemon);
    assert_eq!(log.matches(": starting").count(), 2, "{log}");
}

#[test]
fn a_repeated_complaint_of_a_young_worker_is_logged_soon_if_it_stays_alive() {
    let daemon = Daemon::pool(3, &shell("echo hello >&2; exec cat"), &PATIENT);
    daemon.stderr_wait_nth(": hello", 3);
}

#[test]
fn a_worker_that_puts_itself_in_the_background_is_reported_as_such() {
    let daemons = [
        (
            "sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & exit 0",
            "2 of its descendants go on",
        ),
        ("sleep 1000 & exit 0", "one of its descendants goes on"),
        ("perl -MPOSIX -e 'fork and exit; setsid; sleep 1000' & wait", "goes on"),
    ];
    for (script, left) in daemons {
        let daemon = hasty(1, &shell(script));
        let line = daemon.stderr_wait("has put itself in the background (its process ended with status 0 while ");
        assert!(
            line.contains("WARN pool: worker 0 (pid ") && line.contains(left),
            "{line}"
        );
        assert!(
            line.contains("; use its option to stay in the foreground; started again at once"),
            "{line}"
        );
    }
    // Whatever it says before.
    let command = shell("echo starting; sleep 1000 & exit 0");
    let daemon = Daemon::pool(1, &command, &["--ready-line", "up"]);
    daemon.stderr_wait("has put itself in the background");
    // One that has served, or leaves nothing, has only ended.
    for script in ["exit 0", "read l; echo OK; sleep 1000 & exit 0"] {
        let daemon = hasty(1, &shell(script));
        let mut client = daemon.client();
        client.send("x\n");
        daemon.stderr_wait("exited with status 0");
        assert!(!daemon.stderr.text().contains("in the background"), "{script}");
    }
}

#[test]
fn the_remedy_against_a_buffer_suits_the_program() {
    let hint = |command: &[&str], flags: &[&str]| {
        let flags = [&["--busy-timeout", "300ms"], flags].concat();
        let daemon = Daemon::pool(1, &shell_words::join(command), &flags);
        assert_eq!(daemon.ask("one"), "ERR\n");
        daemon.stderr_wait("took longer than --busy-timeout")
    };
    let python = hint(&["python3", "-c", "import time; time.sleep(1000)"], &[]);
    let sed = hint(&["sed", "s/^/re: /"], &[]);
    let shell = hint(&["sh", "-c", "read l; read l"], &[]);
    assert!(
        python.contains("buffer, start it by `python3 -u`, or give it a terminal by --pty"),
        "{python}"
    );
    assert!(
        sed.contains("buffer, start it by `sed -u`, or give it a terminal by --pty"),
        "{sed}"
    );
    assert!(shell.contains("buffer, give it a terminal by --pty"), "{shell}");
    for line in [&python, &sed, &shell] {
        for remedy in ["`python3 -u`", "`$| = 1` in Perl", "`stdbuf -oL` for C programs only"] {
            assert!(line.contains(remedy), "{line}");
        }
    }
    // It has one.
    let on_terminal = hint(&["sh", "-c", "read l; read l"], &["--pty"]);
    assert!(!on_terminal.contains("buffer"), "{on_terminal}");
}

#[test]
fn the_remedy_is_logged_once_in_a_row() {
    let daemon = Daemon::pool(
        1,
        &shell("read l; read l"),
        &["--busy-timeout", "300ms", "--queue-timeout", "60s"],
    );
    for _ in 0..2 {
        assert_eq!(daemon.ask("one"), "ERR\n");
    }
    daemon.stderr_wait("and is stopped again, the 2nd time in a row");
    let log = whole_log(&daemon);
    assert_eq!(
        log.matches("it has written nothing since its start").count(),
        1,
        "{log}"
    );
}

#[test]
fn a_replacement_that_is_meant_is_no_warning() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--max-requests", "2", "--queue-timeout", "60s"],
    );
    for number in 0..4 {
        daemon.ask(&format!("echo {number}"));
    }
    daemon.stderr_wait("has served long enough");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    let log = whole_log(&daemon);
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(log.contains("INFO pool: worker 0 (pid "), "{log}");
}

#[test]
fn the_count_of_replacements_that_are_meant_is_as_quiet_as_they_are() {
    let daemon = Daemon::pool(8, &worker_command(&[]), &[]);
    // More than are logged one by one.
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    let log = whole_log(&daemon);
    let counted = "INFO pool: 3 more workers that are let go as planned were left out of this log";
    assert!(log.contains(counted) && !log.contains("WARN"), "{log}");

    let daemon = Daemon::pool(
        1,
        &shell("read l; echo ok"),
        &["--mode", "session", "--queue-timeout", "60s"],
    );
    for _ in 0..8 {
        assert_eq!(daemon.ask("x"), "ok\n");
    }
    let log = whole_log(&daemon);
    // A line for each would be of use only to a reader who looks for it.
    assert!(!log.contains("left out"), "{log}");
}

#[test]
fn last_words_of_workers_that_have_answered_do_not_flood_the_log() {
    let script = "read l; echo 'fatal: the database has gone' >&2; echo ok; exit 1";
    let daemon = Daemon::pool(2, &shell(script), &["--queue-timeout", "60s", "--retries", "20"]);
    for _ in 0..60 {
        assert_eq!(daemon.ask("x"), "ok\n");
    }
    // A worker may get a second request before its end is noticed: so there may be more ends, and one request may meet
    // several of them.
    daemon.usr1_until(|stats| stats.count("restarts died") >= 60);
    let log = whole_log(&daemon);
    let told = times(&log, "the database has gone");
    let number_before = |line: &str, words: &str| {
        let (before, _) = line.split_once(words)?;
        before.rsplit(['(', ' ']).next()?.parse::<usize>().ok()
    };
    let words = log.lines().filter(|line| line.contains("the database has gone"));
    let along = words.filter_map(|line| number_before(line, " more like it"));
    let summed_up = log
        .lines()
        .filter_map(|line| number_before(line, " more lines that workers lost before"));
    let counted: usize = along.chain(summed_up).sum();
    assert!(told < 40 && told + counted >= 60, "{told}, {counted}: {log}");
}

#[test]
fn losses_are_logged_in_their_order() {
    let home = temp_dir();
    let been = home.path().join("been");
    let script = format!(
        "if test -e {0}; then exit 3; fi; : > {0}; exec >&-; exec sleep 1000",
        been.display()
    );
    let daemon = hasty(1, &shell(&script));
    // Its status is waited for, and meanwhile the workers behind it start and end.
    daemon.stderr_wait("closed its standard output");
    daemon.stderr_wait("exited with status 3 again");
    let log = whole_log(&daemon);
    let losses: Vec<&str> = log.lines().filter(|line| line.contains("; started again ")).collect();
    assert!(
        losses[0].contains("closed its standard output; it is stopped; started again at once"),
        "{log}"
    );
    assert!(losses[1].contains("exited with status 3; started again "), "{log}");
    assert!(losses[2].contains("exited with status 3 again, the 2nd time"), "{log}");
}
