//! The rules of the call, one story each, and its invariants for events in any order.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const HELLO: &[u8] = b"6:stdout,5:hello,";

fn fresh(input: InputSource) -> (Call, Instant) {
    let now = Instant::now();
    (Call::new(&[b"cat".to_vec()], input, TIMEOUT, now), now)
}

fn running(input: InputSource) -> (Call, Instant) {
    let (mut call, now) = fresh(input);
    assert_eq!(call.handle(CallEvent::Targets(1), now), [CallAction::Connect(0)]);
    let (request, end) = ("1:1,3:cat,", "0:,");
    let expected = match input {
        InputSource::Standard => vec![send(request), CallAction::ReadInput],
        InputSource::None => vec![send(&format!("{request}{end}"))],
    };
    assert_eq!(call.handle(CallEvent::Connected, now), expected);
    (call, now)
}

fn send(text: &str) -> CallAction {
    CallAction::Send(text.as_bytes().to_vec())
}

/// Everything that waits is sent.
fn sent_all(call: &mut Call, now: Instant) {
    assert_eq!(call.handle(CallEvent::Sent(usize::MAX), now), []);
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
fn a_call_sends_input_and_writes_output_until_the_program_ends() {
    let (mut call, now) = running(InputSource::Standard);
    assert!(call.wants_input() && call.wants_answer());
    assert_eq!(call.deadline(), None, "it may take its time");
    assert_eq!(call.handle(CallEvent::Input(b"hello"), now), [send("5:hello,")]);
    assert_eq!(call.handle(CallEvent::InputEnd, now), [send("0:,")]);
    assert!(!call.wants_input());
    call.handle(CallEvent::Received(HELLO), now);
    call.handle(CallEvent::Flushed, now);
    assert_eq!(call.outcome(), None);
    let actions = call.handle(CallEvent::Received(b"6:stderr,2:no,8:exitcode,1:7,"), now);
    assert_eq!(
        (actions, call.outcome()),
        (vec![CallAction::HangUp], None),
        "not written yet"
    );
    assert_eq!(written(&mut call, Output::Stdout), "hello");
    assert_eq!(written(&mut call, Output::Stderr), "no");
    call.handle(CallEvent::Flushed, now);
    assert_eq!(call.outcome(), Some(&Outcome::Ended(ProgramEnd::Exit(7))));
    assert_eq!(call.outcome().map(Outcome::status), Some(7));
}

#[test]
fn without_input_the_request_includes_its_end() {
    let (call, _) = running(InputSource::None);
    assert!(!call.wants_input());
}

#[test]
fn a_killed_program_is_reported_and_its_signal_is_the_exit_status() {
    for (said, line, status) in [
        ("4:KILL", "// killed by signal 9\n", 137),
        ("2:34", "// killed by signal 34\n", 162),
        ("6:FUTURE", "// killed by signal FUTURE\n", 128),
    ] {
        let (mut call, now) = running(InputSource::None);
        call.handle(CallEvent::Received(format!("7:termsig,{said},").as_bytes()), now);
        assert_eq!(written(&mut call, Output::Stderr), line);
        call.handle(CallEvent::Flushed, now);
        assert_eq!(call.outcome().map(Outcome::status), Some(status));
    }
}

#[test]
fn a_signal_ends_the_input_and_is_passed_on_and_a_second_one_hangs_up() {
    let (mut call, now) = running(InputSource::Standard);
    assert_eq!(call.handle(CallEvent::Signal(INT), now), [send("0:,6:signal,3:INT,")]);
    assert_eq!(
        call.handle(CallEvent::Signal(TERM), now),
        [send("6:signal,4:TERM,")],
        "it is the first of its kind"
    );
    sent_all(&mut call, now);
    assert_eq!(call.deadline(), None, "it has left");
    assert_eq!(call.handle(CallEvent::Signal(INT), now), [CallAction::HangUp]);
    assert_eq!(call.outcome().map(Outcome::status), Some(130));
}

#[test]
fn signals_that_do_not_end_the_program_are_passed_on_every_time() {
    let (mut call, now) = running(InputSource::None);
    sent_all(&mut call, now);
    for (number, name) in [
        (10, "4:USR1"),
        (10, "4:USR1"),
        (12, "4:USR2"),
        (1, "3:HUP"),
        (1, "3:HUP"),
    ] {
        let expected = send(&format!("6:signal,{name},"));
        assert_eq!(call.handle(CallEvent::Signal(number), now), [expected]);
        assert_eq!(call.deadline(), None);
    }
}

#[test]
fn a_signal_that_cannot_be_sent_hangs_up_in_time() {
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::Signal(TERM), now);
    assert_eq!(call.deadline(), Some(now + PATIENCE));
    call.handle(CallEvent::Sent(3), now);
    assert_eq!(call.handle(CallEvent::Tick, now), [], "early");
    assert_eq!(call.handle(CallEvent::Tick, now + PATIENCE), [CallAction::HangUp]);
    assert_eq!(call.outcome(), Some(&Outcome::Interrupted(TERM)));
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::SendFailed, now);
    assert_eq!(
        call.handle(CallEvent::Signal(10), now),
        [CallAction::HangUp],
        "it cannot be sent"
    );
}

#[test]
fn a_signal_ends_the_call_while_no_program_runs() {
    let (mut call, now) = fresh(InputSource::Standard);
    assert_eq!(call.handle(CallEvent::Signal(1), now), [CallAction::HangUp]);
    assert_eq!(call.outcome().map(Outcome::status), Some(129));
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::Received(b"8:exitcode,1:0,"), now);
    call.handle(CallEvent::Signal(TERM), now);
    assert_eq!(
        call.outcome().map(Outcome::status),
        Some(143),
        "the reader of its output does not read"
    );
}

#[test]
fn an_answer_counts_even_if_the_server_stopped_reading() {
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::SendFailed, now);
    assert!(!call.wants_input());
    assert_eq!(call.handle(CallEvent::InputEnd, now), [], "nothing more is sent");
    call.handle(CallEvent::Received(b"6:stderr,2:no,8:exitcode,3:125,"), now);
    call.handle(CallEvent::Flushed, now);
    assert_eq!(call.outcome(), Some(&Outcome::Ended(ProgramEnd::Exit(125))));
}

#[test]
fn a_failure_is_reported_after_the_output_before_it() {
    let events: [(CallEvent<'_>, Failure); 4] = [
        (CallEvent::Closed(None), Failure::Lost(None)),
        (
            CallEvent::Closed(Some("reset".into())),
            Failure::Lost(Some("reset".into())),
        ),
        (CallEvent::Received(b"5:stdin,"), Failure::Malformed(AnswerError::Type)),
        (CallEvent::InputFailed("EIO".into()), Failure::Input("EIO".into())),
    ];
    for (event, expected) in events {
        let (mut call, now) = running(InputSource::Standard);
        call.handle(CallEvent::Received(HELLO), now);
        assert_eq!(call.handle(event, now), [CallAction::HangUp]);
        assert_eq!(call.outcome(), None);
        assert_eq!(written(&mut call, Output::Stdout), "hello");
        call.handle(CallEvent::Flushed, now);
        assert_eq!(failure(&call), &expected);
        assert_eq!(call.outcome().map(Outcome::status), Some(FAILED));
    }
}

#[test]
fn a_closed_output_ends_the_call_as_it_would_end_the_program() {
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::Received(b"6:stdout,5:hello,6:stderr,2:no,"), now);
    let actions = call.handle(CallEvent::OutputFailed(Output::Stdout, WriteError::BrokenPipe), now);
    assert_eq!(actions, [CallAction::HangUp]);
    assert_eq!(written(&mut call, Output::Stdout), "");
    assert_eq!(written(&mut call, Output::Stderr), "no", "the other one is still read");
    call.handle(CallEvent::Flushed, now);
    assert_eq!(call.outcome().map(Outcome::status), Some(141));
    // The program has ended well, but its output was lost.
    let (mut call, now) = running(InputSource::Standard);
    call.handle(CallEvent::Received(b"6:stdout,5:hello,8:exitcode,1:0,"), now);
    let full = WriteError::Other("no space".into());
    call.handle(CallEvent::OutputFailed(Output::Stdout, full), now);
    call.handle(CallEvent::Flushed, now);
    assert_eq!(failure(&call), &Failure::Output(Output::Stdout, "no space".into()));
}

#[test]
fn the_server_is_read_only_while_its_output_is_written() {
    let (mut call, now) = running(InputSource::Standard);
    let output = [b"6:stdout,1099511627776:".to_vec(), vec![b'x'; OUTPUT_LIMIT - 1]].concat();
    call.handle(CallEvent::Received(&output), now);
    assert!(call.wants_answer());
    call.handle(CallEvent::Received(b"x"), now);
    assert!(!call.wants_answer());
    call.batch(Output::Stdout).clear();
    assert!(call.wants_answer());
}

#[test]
fn a_failure_to_connect_has_its_cause() {
    let (mut call, now) = fresh(InputSource::None);
    call.handle(CallEvent::Targets(1), now);
    let actions = call.handle(CallEvent::NotConnected(ConnectError::Other("refused".into())), now);
    assert_eq!(actions, [CallAction::HangUp]);
    call.handle(CallEvent::Flushed, now);
    assert_eq!(failure(&call), &Failure::Unreachable("refused".into()));
    let (mut call, now) = fresh(InputSource::None);
    call.handle(CallEvent::Unresolved("unknown".into()), now);
    call.handle(CallEvent::Flushed, now);
    assert_eq!(failure(&call), &Failure::Unresolved("unknown".into()));
}

fn event() -> impl Strategy<Value = CallEvent<'static>> {
    prop_oneof![
        2 => Just(CallEvent::Targets(2)),
        4 => Just(CallEvent::Connected),
        1 => Just(CallEvent::NotConnected(ConnectError::Full)),
        1 => Just(CallEvent::NotConnected(ConnectError::Other("x".into()))),
        4 => Just(CallEvent::Input(b"input")),
        1 => Just(CallEvent::InputEnd),
        4 => (0usize..40).prop_map(CallEvent::Sent),
        1 => Just(CallEvent::SendFailed),
        4 => prop::sample::select(vec![HELLO, b"6:std", b"out,2:ab", b",", b"6:stderr,1:e,"]).prop_map(CallEvent::Received),
        1 => prop::sample::select(vec![&b"8:exitcode,1:3,"[..], b"7:termsig,4:TERM,", b"x"]).prop_map(CallEvent::Received),
        1 => Just(CallEvent::Closed(None)),
        1 => Just(CallEvent::OutputFailed(Output::Stdout, WriteError::BrokenPipe)),
        1 => Just(CallEvent::OutputFailed(Output::Stderr, WriteError::Other("x".into()))),
        4 => Just(CallEvent::Flushed),
        1 => prop::sample::select(vec![1, 2, 10, 15]).prop_map(CallEvent::Signal),
        2 => Just(CallEvent::Tick),
    ]
}

proptest! {
    /// The invariants at the head of the core, for a shell that carries out all actions and events in any order.
    #[test]
    fn there_is_one_outcome_for_any_sequence_of_events(
        story in prop::collection::vec((event(), 0u64..400), 0..60),
    ) {
        let (mut call, mut now) = fresh(InputSource::Standard);
        let (mut connected, mut hung_up, mut reads, mut unsent) = (false, false, false, 0);
        let mut settled: Option<Outcome> = None;
        for (event, wait) in story {
            now += Duration::from_millis(wait);
            let signalled = matches!(event, CallEvent::Signal(_));
            let unwritten = call.batches.iter().any(|batch| !batch.is_empty());
            // A real shell reports `Flushed` only without pending output, and bytes only over a connection.
            match event {
                CallEvent::Flushed => call.batches.iter_mut().for_each(Vec::clear),
                CallEvent::Connected if connected || hung_up => continue,
                CallEvent::Received(_) | CallEvent::Closed(_) if !connected || hung_up || !call.wants_answer() => continue,
                CallEvent::Input(_) if !reads || !call.wants_input() => continue,
                CallEvent::Sent(count) if count > unsent => continue,
                CallEvent::Sent(count) => unsent -= count,
                _ => {}
            }
            connected |= event == CallEvent::Connected && !hung_up;
            let flushed = event == CallEvent::Flushed;
            for action in call.handle(event, now) {
                match action {
                    CallAction::Connect(target) => prop_assert!(target < 2 && !hung_up),
                    CallAction::Send(bytes) => {
                        prop_assert!(connected && !hung_up);
                        unsent += bytes.len();
                    }
                    CallAction::ReadInput => prop_assert!(!std::mem::replace(&mut reads, true)),
                    CallAction::HangUp => hung_up = true,
                    CallAction::GiveUp => prop_assert!(!connected),
                }
            }
            prop_assert!(call.deadline().is_some() || connected || hung_up, "every wait has a deadline");
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
            call.handle(CallEvent::Flushed, now);
            prop_assert!(call.outcome().is_some());
        }
    }
}
