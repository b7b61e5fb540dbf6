//! The rules of the asker, one story per rule; `tests/sim/ask.rs` shows that they hold in any order of events.

use std::io::ErrorKind;

use crate::error::Reason;
use std::time::Duration;

use super::super::options::{ChannelIds, Mode};
use super::super::reply::Flaw;
use super::*;

const TIMEOUT: Duration = Duration::from_secs(2);
const REFUSED: Fault = Fault::Unreachable(Reason::Other(ErrorKind::ConnectionRefused));

/// An asker whose clock only moves in [`pass`](Self::pass).
struct Story {
    asker: Asker,
    now: Instant,
}

impl Story {
    fn new(mode: Mode, addresses: usize, max_singles: usize) -> Story {
        let policy = Policy {
            mode,
            timeout: TIMEOUT,
            channel_ids: ChannelIds::Auto,
            on_failure: b"ERR".to_vec(),
            on_contradiction: b"BH".to_vec(),
            addresses,
            max_singles,
            singles_per_address: 10,
            connections: 0,
            max_connection_age: None,
            spread: 0,
            max_lines: 20,
            max_bytes: 1000,
        };
        let now = Instant::now();
        Story {
            asker: Asker::new(policy, now),
            now,
        }
    }

    /// Returns a story whose asker looks for pools that take many lines on one connection.
    fn with_shared_connections(addresses: usize) -> Story {
        let mut story = Story::new(Mode::Squid, addresses, 10);
        let policy = Policy {
            connections: 1,
            ..story.asker.policy.clone()
        };
        story.asker = Asker::new(policy, story.now);
        story
    }

    fn handle(&mut self, event: AskEvent<'_>) -> Vec<AskAction> {
        self.asker.handle(self.now, event);
        std::iter::from_fn(|| self.asker.next_action()).collect()
    }

    fn line(&mut self, line: &str) -> Vec<AskAction> {
        self.handle(AskEvent::Line(super::super::input::Line::Whole(line.into())))
    }

    /// Returns the attempt that a line leads to, and its address.
    fn asked(&mut self, line: &str) -> (AttemptId, usize) {
        connect(&self.line(line)).expect("a connection")
    }

    fn pass(&mut self, span: Duration) -> Vec<AskAction> {
        let (end, mut actions) = (self.now + span, Vec::new());
        while let Some(at) = self.asker.next_deadline().filter(|at| *at <= end) {
            self.now = at;
            actions.extend(self.handle(AskEvent::Tick));
        }
        self.now = end;
        actions
    }
}

fn connect(actions: &[AskAction]) -> Option<(AttemptId, usize)> {
    actions.iter().find_map(|action| match action {
        AskAction::Connect { attempt, address } => Some((*attempt, *address)),
        _ => None,
    })
}

fn opened(actions: &[AskAction]) -> Option<ConnectionId> {
    actions.iter().find_map(|action| match action {
        AskAction::Open { connection, .. } => Some(*connection),
        _ => None,
    })
}

/// Returns the connections on which lines are sent, with their numbers.
fn sent(actions: &[AskAction]) -> Vec<(ConnectionId, u32)> {
    let lines = actions.iter().filter_map(|action| match action {
        AskAction::Send { connection, number, .. } => Some((*connection, *number)),
        _ => None,
    });
    lines.collect()
}

fn written(actions: &[AskAction]) -> Vec<String> {
    let lines = actions.iter().filter_map(|action| match action {
        AskAction::Write(line) => Some(String::from_utf8(line.clone()).unwrap()),
        _ => None,
    });
    lines.collect()
}

#[test]
fn with_channel_ids_answers_come_as_they_are_ready_without_them_in_order() {
    for (lines, expected) in [(["1 a", "2 b"], ["2 B\n", "1 A\n"]), (["a", "b"], ["A\n", "B\n"])] {
        let mut story = Story::new(Mode::Squid, 1, 10);
        let [(first, _), (second, _)] = lines.map(|line| story.asked(line));
        assert_eq!(story.asker.question(second), Some(&b"b"[..]));
        let mut said = written(&story.handle(AskEvent::Reply(second, b"B".to_vec())));
        said.extend(written(&story.handle(AskEvent::Reply(first, b"A".to_vec()))));
        assert_eq!(said, expected);
    }
}

#[test]
fn a_daemon_that_is_being_restarted_is_reached() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let (mut attempt, _) = story.asked("a");
    for _ in 0..4 {
        let actions = story.handle(AskEvent::Failed(attempt, REFUSED));
        assert_eq!(written(&actions), [""; 0], "half a time-out is not over yet");
        (attempt, _) = connect(&story.pass(TIMEOUT / 8)).expect("it is tried again");
    }
    assert_eq!(
        written(&story.handle(AskEvent::Reply(attempt, b"OK".to_vec()))),
        ["OK\n"]
    );
}

#[test]
fn when_half_the_time_out_is_over_a_refusal_is_the_end() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let mut next = Some(story.asked("a"));
    let (start, mut said) = (story.now, Vec::new());
    while let Some((attempt, _)) = next {
        let mut actions = story.handle(AskEvent::Failed(attempt, REFUSED));
        if written(&actions).is_empty() {
            let at = story.asker.next_deadline().unwrap();
            actions.extend(story.pass(at - story.now));
        }
        said.extend(written(&actions));
        next = connect(&actions);
    }
    assert_eq!(said, ["ERR\n"]);
    assert_eq!(story.now - start, TIMEOUT / 2);
}

#[test]
fn in_a_long_outage_lines_fail_at_once_and_the_first_line_after_it_is_answered() {
    let mut story = Story::new(Mode::Squid, 2, 10);
    for _ in 0..2 {
        let (attempt, _) = story.asked("a");
        story.handle(AskEvent::Failed(attempt, REFUSED));
        story.pass(TIMEOUT);
    }
    story.pass(Duration::from_millis(1));
    let (first, one) = story.asked("b");
    let (second, other) = connect(&story.handle(AskEvent::Failed(first, REFUSED))).expect("the other one");
    assert_ne!(one, other, "each is tried once");
    assert_eq!(
        written(&story.handle(AskEvent::Failed(second, REFUSED))),
        ["ERR\n"],
        "at once"
    );
    let (attempt, _) = story.asked("c");
    assert_eq!(
        written(&story.handle(AskEvent::Reply(attempt, b"OK".to_vec()))),
        ["OK\n"]
    );
}

#[test]
fn a_silent_address_gets_half_of_the_time_and_the_last_one_all_of_the_rest() {
    let mut story = Story::new(Mode::Squid, 2, 10);
    let (silent, _) = story.asked("a");
    let actions = story.pass(TIMEOUT / 2);
    assert_eq!(actions.first(), Some(&AskAction::Cancel(silent)));
    let (other, _) = connect(&actions).expect("the other address");
    let almost = TIMEOUT / 2 - Duration::from_millis(1);
    assert_eq!(story.pass(almost), []);
    let actions = story.pass(Duration::from_millis(1));
    assert_eq!(actions.first(), Some(&AskAction::Cancel(other)));
    assert_eq!(written(&actions), ["ERR\n"]);
}

#[test]
fn a_question_without_a_good_answer_is_asked_once_at_each_address() {
    let mut story = Story::new(Mode::Squid, 2, 10);
    let (first, _) = story.asked("a");
    let unfinished = Fault::Flawed(super::super::reply::Flaw::Unfinished);
    let actions = story.handle(AskEvent::Failed(first, unfinished));
    let (second, _) = connect(&actions).expect("the other address");
    assert_eq!(
        written(&story.handle(AskEvent::Reply(second, b"O\0K".to_vec()))),
        ["ERR\n"]
    );
}

#[test]
fn a_shortage_blames_no_address_and_reduces_the_connections() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let (first, _) = story.asked("1 a");
    let (second, _) = story.asked("2 b");
    let actions = story.handle(AskEvent::Failed(
        second,
        Fault::Shortage(Reason::Other(ErrorKind::Other)),
    ));
    assert_eq!(actions, [], "the address is not away");
    assert_eq!(story.pass(TIMEOUT / 2), [], "one is open, and one is all there can be");
    let actions = story.handle(AskEvent::Reply(first, b"OK".to_vec()));
    assert_eq!(written(&actions), ["1 OK\n"]);
    let (second, _) = connect(&actions).expect("now there is one to be had");
    assert!(connect(&story.line("3 c")).is_some(), "an answer allows one more");
    assert_eq!(
        written(&story.handle(AskEvent::Reply(second, b"OK".to_vec()))),
        ["2 OK\n"]
    );
}

#[test]
fn no_more_lines_are_read_than_can_be_asked() {
    let mut story = Story::new(Mode::Squid, 1, 3);
    for line in ["1 a", "2 b", "3 c"] {
        assert!(story.asker.has_room());
        story.asked(line);
    }
    assert!(!story.asker.has_room(), "its time would run while it waits");
    assert_eq!(connect(&story.line("4 d")), None);
    assert_eq!(written(&story.pass(TIMEOUT)).len(), 4);
    assert!(story.asker.has_room());
}

#[test]
fn in_a_long_outage_lines_wait_side_by_side() {
    let mut story = Story::new(Mode::Squid, 1, 1);
    story.asked("1 a");
    story.pass(TIMEOUT);
    story.asked("2 b");
    assert!(!story.asker.has_room());
    story.pass(TIMEOUT);
    story.asked("3 c");
    assert!(!story.asker.has_room());
    story.pass(Duration::from_millis(1));
    story.handle(AskEvent::Tick);
    for number in 4..20 {
        assert!(story.asker.has_room(), "{number} would only wait longer elsewhere");
        story.line(&format!("{number} d"));
    }
    assert_eq!(written(&story.pass(TIMEOUT)).len(), 17);
}

#[test]
fn a_line_that_was_cut_is_refused_at_once_under_its_channel() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let actions = story.handle(AskEvent::Line(super::super::input::Line::Cut(b"1 http://".to_vec())));
    assert_eq!(
        (connect(&actions), written(&actions)),
        (None, vec!["1 ERR\n".to_owned()])
    );
}

#[test]
fn an_address_that_closes_without_a_byte_is_asked_again_and_one_that_sends_half_an_answer_is_not() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let (mut attempt, _) = story.asked("a");
    for _ in 0..4 {
        let empty = Fault::Flawed(super::super::reply::Flaw::Empty);
        assert_eq!(written(&story.handle(AskEvent::Failed(attempt, empty))), [""; 0]);
        (attempt, _) = connect(&story.pass(TIMEOUT / 8)).expect("it is tried again");
    }
    assert_eq!(story.asker.counters().retries, 4);
    let unfinished = Fault::Flawed(super::super::reply::Flaw::Unfinished);
    assert_eq!(written(&story.handle(AskEvent::Failed(attempt, unfinished))), ["ERR\n"]);
    assert_eq!(story.asker.counters().failed, 1);
}

#[test]
fn a_line_that_contradicts_the_first_is_answered_in_its_place_and_asked_nowhere() {
    let mut story = Story::new(Mode::Squid, 1, 10);
    let (first, _) = story.asked("a");
    let actions = story.line("1 b");
    assert_eq!(actions, [AskAction::Contradicted], "its turn has not come");
    assert_eq!(
        written(&story.handle(AskEvent::Reply(first, b"A".to_vec()))),
        ["A\n", "1 BH\n"]
    );
    let mut story = Story::new(Mode::Squid, 1, 10);
    story.asked("1 a");
    assert_eq!(written(&story.line("b")), ["BH\n"]);
    let counters = story.asker.counters();
    assert_eq!((counters.lines, counters.contradicted, counters.failed), (2, 1, 0));
}

const WELCOME: &[u8] = b"iotcpd-multiplex 1 max-unanswered=8 max-request=100 at-once=4\n";

/// Has the asker connect for `line`, and says `answer` to its hello.
fn greet(story: &mut Story, line: &str, answer: &[u8]) -> (ConnectionId, Vec<AskAction>) {
    let connection = opened(&story.line(line)).expect("a connection for many lines");
    story.handle(AskEvent::Connected(connection));
    (connection, story.handle(AskEvent::Received(connection, answer)))
}

#[test]
fn a_line_waits_for_the_answer_to_the_hello_and_goes_alone_if_there_is_none() {
    let mut story = Story::with_shared_connections(1);
    let connection = opened(&story.line("1 a")).unwrap();
    story.handle(AskEvent::Connected(connection));
    assert_eq!(connect(&story.pass(Duration::from_millis(199))), None);
    let (attempt, _) = connect(&story.pass(Duration::from_millis(1))).expect("a connection of its own");
    let said = story.handle(AskEvent::Reply(attempt, b"OK".to_vec()));
    assert_eq!(written(&said), ["1 OK\n"]);
}

#[test]
fn a_silent_address_is_sent_a_hello_again_soon_and_one_that_answers_otherwise_late() {
    for (is_silent, early, late) in [(true, 9, 11), (false, 290, 310)] {
        let mut story = Story::with_shared_connections(1);
        let connection = opened(&story.line("1 a")).unwrap();
        story.handle(AskEvent::Connected(connection));
        let actions = if is_silent {
            story.pass(Duration::from_millis(200))
        } else {
            story.handle(AskEvent::Received(connection, b"ERR\n"))
        };
        let (attempt, _) = connect(&actions).unwrap();
        story.handle(AskEvent::Reply(attempt, b"OK".to_vec()));
        story.pass(Duration::from_secs(early));
        let actions = story.line("2 b");
        assert_eq!(opened(&actions), None);
        story.handle(AskEvent::Reply(connect(&actions).unwrap().0, b"OK".to_vec()));
        story.pass(Duration::from_secs(late - early));
        let actions = story.line("3 c");
        assert!(opened(&actions).is_some());
        assert!(connect(&actions).is_some(), "the line does not wait for that");
    }
}

#[test]
fn a_pool_that_drains_answers_what_it_has_and_the_next_line_takes_another_connection() {
    let mut story = Story::with_shared_connections(1);
    let (first, actions) = greet(&mut story, "1 a", WELCOME);
    assert_eq!(sent(&actions), [(first, 0)]);
    story.handle(AskEvent::Received(first, b"!drain\n"));
    let second = opened(&story.line("2 b")).expect("another connection");
    assert_ne!(first, second);
    assert_eq!(written(&story.handle(AskEvent::Received(first, b"0 A\n"))), ["1 A\n"]);
    story.handle(AskEvent::Connected(second));
    assert_eq!(sent(&story.handle(AskEvent::Received(second, WELCOME))), [(second, 0)]);
    assert_eq!(written(&story.handle(AskEvent::Received(second, b"0 B\n"))), ["2 B\n"]);
}

/// With TLS 1.3, a server refuses this side's certificate only behind the end of the handshake.
#[test]
fn a_server_that_refuses_the_certificate_behind_the_hello_is_not_asked_line_by_line() {
    let mut story = Story::with_shared_connections(2);
    let first = opened(&story.line("1 a")).unwrap();
    story.handle(AskEvent::Connected(first));
    let actions = story.handle(AskEvent::Closed(first, Fault::Disagreed));
    assert_eq!(connect(&actions), None, "this says nothing about the hello");
    let second = opened(&actions).expect("a connection to the other address");
    assert_ne!(first, second);
}

/// A certificate does not become better while a line waits.
#[test]
fn a_line_is_not_asked_again_where_the_sides_do_not_agree_on_tls() {
    let mut story = Story::with_shared_connections(1);
    let connection = opened(&story.line("1 a")).unwrap();
    story.line("2 b");
    let actions = story.handle(AskEvent::Closed(connection, Fault::Disagreed));
    assert_eq!(written(&actions), ["1 ERR\n", "2 ERR\n"], "at once");
    assert!(
        opened(&story.line("3 c")).is_some(),
        "the next line finds out if it is mended"
    );
}

/// A pool that ends each connection at once, in good order, must not be connected to without pause.
#[test]
fn a_pool_that_drains_again_and_again_is_not_asked_without_a_pause() {
    let mut story = Story::with_shared_connections(1);
    let mut actions = story.line("1 a");
    let mut connections = 0;
    while let Some(connection) = opened(&actions) {
        connections += 1;
        assert!(connections < 10, "connected again and again in one moment");
        story.handle(AskEvent::Connected(connection));
        story.handle(AskEvent::Received(connection, WELCOME));
        story.handle(AskEvent::Received(connection, b"!drain\n"));
        actions = story.handle(AskEvent::Closed(connection, Fault::Flawed(Flaw::Empty)));
    }
    assert_eq!(written(&actions), [""; 0], "its time is not over");
}
