//! The rules of the call, one story each, and its invariants for events in any order.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const HELLO: &[u8] = b"6:stdout,5:hello,";

fn fresh(input: Input) -> (Call, Instant) {
    let now = Instant::now();
    (Call::new(&[b"cat".to_vec()], input, TIMEOUT, now), now)
}

fn running(input: Input) -> (Call, Instant) {
    let (mut call, now) = fresh(input);
    assert_eq!(call.handle(Event::Targets(1), now), [Action::Connect(0)]);
    let actions = call.handle(Event::Connected, now);
    assert_eq!(actions.contains(&Action::ReadInput), input == Input::Standard);
    (call, now)
}

/// Returns everything that is to be sent.
fn sent(call: &mut Call, now: Instant) -> String {
    let mut all = Vec::new();
    while !call.to_send().is_empty() {
        all.extend_from_slice(call.to_send());
        let count = call.to_send().len();
        call.handle(Event::Sent(count), now);
    }
    String::from_utf8(all).unwrap()
}

fn written(call: &mut Call, output: Output) -> String {
    String::from_utf8(std::mem::take(call.batch(output))).unwrap()
}

fn failure(call: &Call) -> &Failure {
    match call.outcome() {
        Some(Outcome::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_is_asked_for_fed_and_heard_to_its_end() {
    let (mut call, now) = running(Input::Standard);
    assert_eq!(sent(&mut call, now), "1:1,3:cat,");
    assert!(call.wants_input() && call.wants_answer());
    assert_eq!(call.deadline(), None, "it may take its time");
    call.handle(Event::Input(b"hello"), now);
    call.handle(Event::InputEnd, now);
    assert!(!call.wants_input());
    assert_eq!(sent(&mut call, now), "5:hello,0:,");
    call.handle(Event::Received(HELLO), now);
    call.handle(Event::Flushed, now);
    assert_eq!(call.outcome(), None);
    let actions = call.handle(Event::Received(b"6:stderr,2:no,8:exitcode,1:7,"), now);
    assert_eq!(
        (actions, call.outcome()),
        (vec![Action::HangUp], None),
        "not written yet"
    );
    assert_eq!(written(&mut call, Output::Stdout), "hello");
    assert_eq!(written(&mut call, Output::Stderr), "no");
    call.handle(Event::Flushed, now);
    assert_eq!(call.outcome(), Some(&Outcome::Ended(End::Exit(7))));
    assert_eq!(call.outcome().map(Outcome::status), Some(7));
}

#[test]
fn without_input_it_ends_in_the_first_breath() {
    let (mut call, now) = running(Input::None);
    assert_eq!(sent(&mut call, now), "1:1,3:cat,0:,");
    assert!(!call.wants_input());
}

#[test]
fn a_program_that_a_signal_has_ended_is_told_of_and_is_the_status() {
    for (said, line, status) in [
        ("4:KILL", "// killed by signal 9\n", 137),
        ("2:34", "// killed by signal 34\n", 162),
        ("6:FUTURE", "// killed by signal FUTURE\n", 128),
    ] {
        let (mut call, now) = running(Input::None);
        call.handle(Event::Received(format!("7:termsig,{said},").as_bytes()), now);
        assert_eq!(written(&mut call, Output::Stderr), line);
        call.handle(Event::Flushed, now);
        assert_eq!(call.outcome().map(Outcome::status), Some(status));
    }
}

#[test]
fn a_signal_ends_the_input_and_is_passed_on_and_a_second_one_hangs_up() {
    let (mut call, now) = running(Input::Standard);
    sent(&mut call, now);
    assert_eq!(call.handle(Event::Signal(INT), now), []);
    assert_eq!(sent(&mut call, now), "0:,6:signal,3:INT,");
    assert_eq!(call.handle(Event::Signal(TERM), now), [], "it is the first of its kind");
    assert_eq!(sent(&mut call, now), "6:signal,4:TERM,");
    assert_eq!(call.deadline(), None, "it has left");
    assert_eq!(call.handle(Event::Signal(INT), now), [Action::HangUp]);
    assert_eq!(call.outcome().map(Outcome::status), Some(130));
}

#[test]
fn signals_that_do_not_mean_the_end_are_passed_on_as_often_as_they_come() {
    let (mut call, now) = running(Input::None);
    sent(&mut call, now);
    for (number, name) in [
        (10, "4:USR1"),
        (10, "4:USR1"),
        (12, "4:USR2"),
        (1, "3:HUP"),
        (1, "3:HUP"),
    ] {
        assert_eq!(call.handle(Event::Signal(number), now), []);
        assert_eq!(call.deadline(), None);
        assert_eq!(sent(&mut call, now), format!("6:signal,{name},"));
    }
}

#[test]
fn a_signal_that_cannot_leave_hangs_up_in_time() {
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::Signal(TERM), now);
    assert_eq!(call.deadline(), Some(now + PATIENCE));
    call.handle(Event::Sent(3), now);
    assert_eq!(call.handle(Event::Tick, now), [], "early");
    assert_eq!(call.handle(Event::Tick, now + PATIENCE), [Action::HangUp]);
    assert_eq!(call.outcome(), Some(&Outcome::Interrupted(TERM)));
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::SendFailed, now);
    assert_eq!(call.handle(Event::Signal(10), now), [Action::HangUp], "nobody takes it");
}

#[test]
fn a_signal_ends_us_where_there_is_no_program() {
    let (mut call, now) = fresh(Input::Standard);
    assert_eq!(call.handle(Event::Signal(1), now), [Action::HangUp]);
    assert_eq!(call.outcome().map(Outcome::status), Some(129));
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::Received(b"8:exitcode,1:0,"), now);
    call.handle(Event::Signal(TERM), now);
    assert_eq!(
        call.outcome().map(Outcome::status),
        Some(143),
        "the reader of its output does not read"
    );
}

#[test]
fn what_a_server_has_said_counts_though_it_takes_nothing_more() {
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::SendFailed, now);
    assert!(call.to_send().is_empty() && !call.wants_input());
    call.handle(Event::Received(b"6:stderr,2:no,8:exitcode,3:125,"), now);
    call.handle(Event::Flushed, now);
    assert_eq!(call.outcome(), Some(&Outcome::Ended(End::Exit(125))));
}

#[test]
fn whatever_goes_wrong_is_told_behind_the_output_that_came_before() {
    let events: [(Event<'_>, Failure); 4] = [
        (Event::Closed(None), Failure::Lost(None)),
        (Event::Closed(Some("reset".into())), Failure::Lost(Some("reset".into()))),
        (Event::Received(b"5:stdin,"), Failure::Malformed(Wrong::Type)),
        (Event::InputFailed("EIO".into()), Failure::Input("EIO".into())),
    ];
    for (event, expected) in events {
        let (mut call, now) = running(Input::Standard);
        call.handle(Event::Received(HELLO), now);
        assert_eq!(call.handle(event, now), [Action::HangUp]);
        assert_eq!(call.outcome(), None);
        assert_eq!(written(&mut call, Output::Stdout), "hello");
        call.handle(Event::Flushed, now);
        assert_eq!(failure(&call), &expected);
        assert_eq!(call.outcome().map(Outcome::status), Some(FAILED));
    }
}

#[test]
fn an_output_that_nobody_reads_ends_us_as_it_would_the_program() {
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::Received(b"6:stdout,5:hello,6:stderr,2:no,"), now);
    let actions = call.handle(Event::OutputFailed(Output::Stdout, Broken::Pipe), now);
    assert_eq!(actions, [Action::HangUp]);
    assert_eq!(written(&mut call, Output::Stdout), "");
    assert_eq!(written(&mut call, Output::Stderr), "no", "the other one is still read");
    call.handle(Event::Flushed, now);
    assert_eq!(call.outcome().map(Outcome::status), Some(141));
    // The program has ended well, but its output was lost.
    let (mut call, now) = running(Input::Standard);
    call.handle(Event::Received(b"6:stdout,5:hello,8:exitcode,1:0,"), now);
    let full = Broken::Other("no space".into());
    call.handle(Event::OutputFailed(Output::Stdout, full), now);
    call.handle(Event::Flushed, now);
    assert_eq!(failure(&call), &Failure::Output(Output::Stdout, "no space".into()));
}

#[test]
fn the_server_is_read_only_while_its_output_is_written() {
    let (mut call, now) = running(Input::Standard);
    let output = [b"6:stdout,1099511627776:".to_vec(), vec![b'x'; OUTPUT_LIMIT - 1]].concat();
    call.handle(Event::Received(&output), now);
    assert!(call.wants_answer());
    call.handle(Event::Received(b"x"), now);
    assert!(!call.wants_answer());
    call.batch(Output::Stdout).clear();
    assert!(call.wants_answer());
}

#[test]
fn no_connection_is_a_failure_that_says_why() {
    let (mut call, now) = fresh(Input::None);
    call.handle(Event::Targets(1), now);
    let actions = call.handle(Event::NotConnected(Refused::Other("refused".into())), now);
    assert_eq!(actions, [Action::HangUp]);
    call.handle(Event::Flushed, now);
    assert_eq!(failure(&call), &Failure::Unreachable("refused".into()));
    let (mut call, now) = fresh(Input::None);
    call.handle(Event::Unresolved("unknown".into()), now);
    call.handle(Event::Flushed, now);
    assert_eq!(failure(&call), &Failure::Unresolved("unknown".into()));
}

fn event() -> impl Strategy<Value = Event<'static>> {
    prop_oneof![
        2 => Just(Event::Targets(2)),
        4 => Just(Event::Connected),
        1 => Just(Event::NotConnected(Refused::Full)),
        1 => Just(Event::NotConnected(Refused::Other("x".into()))),
        4 => Just(Event::Input(b"input")),
        1 => Just(Event::InputEnd),
        4 => (0usize..40).prop_map(Event::Sent),
        1 => Just(Event::SendFailed),
        4 => prop::sample::select(vec![HELLO, b"6:std", b"out,2:ab", b",", b"6:stderr,1:e,"]).prop_map(Event::Received),
        1 => prop::sample::select(vec![&b"8:exitcode,1:3,"[..], b"7:termsig,4:TERM,", b"x"]).prop_map(Event::Received),
        1 => Just(Event::Closed(None)),
        1 => Just(Event::OutputFailed(Output::Stdout, Broken::Pipe)),
        1 => Just(Event::OutputFailed(Output::Stderr, Broken::Other("x".into()))),
        4 => Just(Event::Flushed),
        1 => prop::sample::select(vec![1, 2, 10, 15]).prop_map(Event::Signal),
        2 => Just(Event::Tick),
    ]
}

proptest! {
    /// The invariants at the head of the core, for a shell that carries out all actions and events in any order.
    #[test]
    fn there_is_one_outcome_whatever_happens(
        story in prop::collection::vec((event(), 0u64..400), 0..60),
    ) {
        let (mut call, mut now) = fresh(Input::Standard);
        let (mut connected, mut hung_up, mut reads) = (false, false, false);
        let mut settled: Option<Outcome> = None;
        for (event, wait) in story {
            now += Duration::from_millis(wait);
            let signalled = matches!(event, Event::Signal(_));
            let unwritten = call.batches.iter().any(|batch| !batch.is_empty());
            // A real shell reports `Flushed` only without pending output, and bytes only over a connection.
            match event {
                Event::Flushed => call.batches.iter_mut().for_each(Vec::clear),
                Event::Connected if connected || hung_up => continue,
                Event::Received(_) | Event::Closed(_) if !connected || hung_up || !call.wants_answer() => continue,
                Event::Input(_) if !reads || !call.wants_input() => continue,
                Event::Sent(count) if count > call.to_send().len() => continue,
                _ => {}
            }
            connected |= event == Event::Connected && !hung_up;
            let flushed = event == Event::Flushed;
            for action in call.handle(event, now) {
                match action {
                    Action::Connect(target) => prop_assert!(target < 2 && !hung_up),
                    Action::ReadInput => prop_assert!(!std::mem::replace(&mut reads, true)),
                    Action::HangUp => hung_up = true,
                    Action::GiveUp => prop_assert!(!connected),
                }
            }
            prop_assert!(call.to_send().is_empty() || (connected && !hung_up));
            prop_assert!(call.deadline().is_some() || connected || hung_up, "who waits has a deadline");
            match (&settled, call.outcome()) {
                (Some(before), after) => prop_assert_eq!(Some(before), after, "an outcome stays"),
                (None, Some(outcome)) => {
                    prop_assert!(hung_up);
                    prop_assert!(signalled || flushed || !unwritten || matches!(outcome, Outcome::Interrupted(_)));
                    settled = Some(outcome.clone());
                }
                (None, None) => {}
            }
        }
        // After hanging up, the call is over as soon as everything is written.
        if hung_up {
            call.handle(Event::Flushed, now);
            prop_assert!(call.outcome().is_some());
        }
    }
}
