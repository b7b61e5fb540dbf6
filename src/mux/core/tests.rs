//! The rules of a session, frame by frame, and two sessions that talk to each other.

use super::*;

fn settings() -> Settings {
    Settings {
        total: 2 << 20,
        streams: 3,
        unaccepted: 2,
        ..Settings::default()
    }
}

fn server(now: Instant) -> Session {
    Session::new(Role::Server, settings(), now)
}

fn header(kind: Kind, flags: Flags, stream: u32, length: u32) -> [u8; HEADER] {
    let header = Header {
        kind,
        flags,
        stream,
        length,
    };
    header.bytes()
}

fn update(flags: Flags, stream: u32, length: u32) -> [u8; HEADER] {
    header(Kind::WindowUpdate, flags, stream, length)
}

fn data(flags: Flags, stream: u32, length: u32) -> [u8; HEADER] {
    header(Kind::Data, flags, stream, length)
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event()).collect()
}

fn control(session: &mut Session) -> Vec<Header> {
    std::iter::from_fn(|| session.next_control())
        .map(|bytes| Header::parse(bytes).unwrap())
        .collect()
}

/// The frames with which trc presents its secret: an opening, one frame of data, and its end.
#[test]
fn the_first_stream_of_the_original_is_taken() {
    let (now, stream) = (Instant::now(), StreamId(1));
    let mut session = server(now);
    session.header(update(Flags::SYN, 1, 0), now).unwrap();
    assert_eq!(events(&mut session), [Event::Opened(stream)]);
    session.accept(stream);
    session.header(data(Flags::default(), 1, 9), now).unwrap();
    assert_eq!(events(&mut session), [Event::Readable(stream)]);
    let expected = Expected {
        stream: Some(stream),
        left: 9,
    };
    assert_eq!(session.expected(), Some(expected));
    session.received(4);
    session.received(5);
    assert_eq!(session.expected(), None);
    assert_eq!(session.input(stream), Input::Open);
    session.header(update(Flags::FIN, 1, 0), now).unwrap();
    assert_eq!(events(&mut session), [Event::Readable(stream)]);
    assert_eq!(session.input(stream), Input::Ended);
    session.consumed(stream, 9);
    session.end(stream);
    // The larger window, and what was consumed meanwhile.
    let returned = settings().window - FIRST_WINDOW + 9;
    let frames = control(&mut session);
    let expected = [update(Flags::ACK, 1, returned), update(Flags::FIN, 1, 0)];
    assert_eq!(frames.iter().map(|frame| frame.bytes()).collect::<Vec<_>>(), expected);
    assert_eq!((session.streams(), session.held()), (0, 0), "both ends are said");
}

#[test]
fn streams_are_opened_with_even_numbers_until_too_many_wait() {
    let now = Instant::now();
    let mut session = server(now);
    assert_eq!([session.open(), session.open()], [Some(StreamId(2)), Some(StreamId(4))]);
    assert_eq!(session.open(), None, "two wait to be acknowledged");
    session.header(update(Flags::ACK, 2, 0), now).unwrap();
    assert_eq!(session.open(), Some(StreamId(6)));
    // The larger windows were granted as long as the total of 2 MiB allowed it.
    let lengths: Vec<u32> = control(&mut session).iter().map(|frame| frame.length).collect();
    assert_eq!(lengths, [768 << 10, 768 << 10, 0]);
    session.go_away();
    assert_eq!(session.open(), None);
}

#[test]
fn credit_is_spent_returned_and_never_exceeded() {
    let now = Instant::now();
    let mut session = server(now);
    let stream = session.open().unwrap();
    assert_eq!(control(&mut session).len(), 1);
    assert_eq!(session.credit(stream), FIRST_WINDOW);
    let _ = session.begin_data(stream, FIRST_WINDOW);
    assert_eq!(session.owed(), Some((stream, FIRST_WINDOW)));
    session.sent(1);
    session.sent(FIRST_WINDOW - 1);
    assert_eq!((session.owed(), session.credit(stream)), (None, 0));
    session.header(update(Flags::ACK, 2, 5), now).unwrap();
    assert_eq!(events(&mut session), [Event::Writable(stream)]);
    assert_eq!(session.credit(stream), 5);
    session.header(update(Flags::default(), 2, 5), now).unwrap();
    assert_eq!(events(&mut session), [], "it had some");
    let fault = session.header(update(Flags::default(), 2, u32::MAX), now);
    assert_eq!(fault, Err(Fault::Credit(2)));
}

#[test]
fn the_peer_gets_credit_for_what_has_left_at_half_a_window() {
    let now = Instant::now();
    let mut session = server(now);
    let stream = session.open().unwrap();
    control(&mut session);
    let half = settings().window / 2;
    session.header(data(Flags::ACK, 2, half), now).unwrap();
    session.received(half);
    session.consumed(stream, u64::from(half) - 1);
    assert!(!session.has_control());
    session.consumed(stream, 1);
    assert_eq!(
        control(&mut session),
        [Header::parse(update(Flags::default(), 2, half)).unwrap()]
    );
    // The peer may send a whole window now.
    session
        .header(data(Flags::default(), 2, settings().window), now)
        .unwrap();
    session.received(settings().window);
    let fault = session.header(data(Flags::default(), 2, 1), now);
    assert_eq!(fault, Err(Fault::OverWindow(2)));
    assert_eq!(
        control(&mut session),
        [Header::parse(header(Kind::GoAway, Flags::default(), 0, 1)).unwrap()]
    );
}

#[test]
fn what_is_owed_comes_before_every_other_frame() {
    let now = Instant::now();
    let mut session = server(now);
    let (first, second) = (session.open().unwrap(), session.open().unwrap());
    control(&mut session);
    let _ = session.begin_data(first, 100);
    session.end(second);
    session.ping_now(now);
    session.reset(first);
    assert_eq!(session.next_control(), None);
    assert!(session.has_control());
    session.sent(99);
    assert_eq!(session.next_control(), None, "of a stream that was reset, too");
    session.sent(1);
    let kinds: Vec<_> = control(&mut session)
        .iter()
        .map(|frame| (frame.kind, frame.flags, frame.stream))
        .collect();
    let expected = [
        (Kind::Ping, Flags::SYN, 0),
        (Kind::WindowUpdate, Flags::FIN, 4),
        (Kind::WindowUpdate, Flags::RST, 2),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn an_end_on_a_frame_of_data_holds_behind_its_payload() {
    let (now, stream) = (Instant::now(), StreamId(1));
    let mut session = server(now);
    session.header(data(Flags::SYN.with(Flags::FIN), 1, 3), now).unwrap();
    assert_eq!(events(&mut session), [Event::Opened(stream), Event::Readable(stream)]);
    assert_eq!(session.input(stream), Input::Open);
    session.received(3);
    assert_eq!(session.input(stream), Input::Ended);
    assert_eq!(events(&mut session), [Event::Readable(stream)]);
    let fault = session.header(data(Flags::default(), 1, 1), now);
    assert_eq!(fault, Err(Fault::BehindEnd(1)));
}

#[test]
fn a_reset_frees_everything_and_later_frames_are_thrown_away() {
    let (now, stream) = (Instant::now(), StreamId(2));
    let mut session = server(now);
    session.open().unwrap();
    control(&mut session);
    session.header(data(Flags::ACK, 2, 1000), now).unwrap();
    session.received(400);
    session.reset(stream);
    assert_eq!((session.streams(), session.held(), session.granted), (0, 0, 0));
    let rest = Expected {
        stream: None,
        left: 600,
    };
    assert_eq!(session.expected(), Some(rest));
    session.received(600);
    session.consumed(stream, 400);
    session.header(data(Flags::FIN, 2, 7), now).unwrap();
    assert_eq!(session.expected(), Some(Expected { stream: None, left: 7 }));
    session.received(7);
    session.header(update(Flags::default(), 2, 7), now).unwrap();
    let fault = session.header(data(Flags::default(), 2, u32::MAX), now);
    assert_eq!(fault, Err(Fault::OverWindow(2)), "4 GiB are not thrown away");

    let mut session = server(now);
    session.open().unwrap();
    session.reset(stream);
    assert_eq!(control(&mut session), [], "a stream of which the peer has not heard");
    session.open().unwrap();
    control(&mut session);
    session.header(update(Flags::RST, 4, 0), now).unwrap();
    assert_eq!(events(&mut session), [Event::Reset(StreamId(4))]);
    assert_eq!(control(&mut session), []);
}

#[test]
fn the_streams_of_the_peer_are_bounded_and_have_its_numbers() {
    let now = Instant::now();
    let mut session = server(now);
    for stream in [1, 7, 3, 5] {
        session.header(update(Flags::SYN, stream, 0), now).unwrap();
    }
    assert_eq!(events(&mut session).len(), 3);
    assert_eq!(
        control(&mut session),
        [Header::parse(update(Flags::RST, 5, 0)).unwrap()]
    );
    assert_eq!(session.counters().refused, 1);
    for (stream, fault) in [(2, Fault::Number(2)), (0, Fault::Number(0)), (7, Fault::Again(7))] {
        let mut session = server(now);
        session.header(update(Flags::SYN, 7, 0), now).unwrap();
        assert_eq!(session.header(update(Flags::SYN, stream, 0), now), Err(fault));
    }
    // A peer that does not read the resets has an end of it.
    let mut opened = (9..)
        .step_by(2)
        .map(|stream| session.header(update(Flags::SYN, stream, 0), now));
    assert_eq!(
        opened
            .by_ref()
            .take(settings().streams + MOST_RESETS + 1)
            .find_map(Result::err),
        Some(Fault::Flood)
    );
}

#[test]
fn a_reset_with_a_payload_is_held_to_the_window_too() {
    let now = Instant::now();
    let mut session = server(now);
    session.header(data(Flags::SYN, 1, FIRST_WINDOW), now).unwrap();
    session.received(FIRST_WINDOW);
    let fault = session.header(data(Flags::RST, 1, 1), now);
    assert_eq!(fault, Err(Fault::OverWindow(1)));

    let mut session = server(now);
    session.header(data(Flags::SYN, 1, 10), now).unwrap();
    session.received(10);
    session.header(data(Flags::RST, 1, FIRST_WINDOW - 10), now).unwrap();
    let rest = Expected {
        stream: None,
        left: FIRST_WINDOW - 10,
    };
    assert_eq!(session.expected(), Some(rest));
}

#[test]
fn a_number_names_one_stream_and_no_other() {
    let (now, both) = (Instant::now(), Flags::SYN.with(Flags::RST));
    // Peers with threads write their openings in another order than that of the numbers.
    for (first, again) in [(Flags::SYN, false), (both, true)] {
        let mut session = server(now);
        for stream in [5, 1, 3] {
            session.header(update(first, stream, 0), now).unwrap();
        }
        if !again {
            session.header(update(Flags::RST, 1, 0), now).unwrap();
        }
        // An owner here may not know of the reset yet, and would be given the bytes of the second stream.
        let fault = session.header(update(Flags::SYN, 1, 0), now);
        assert_eq!(fault, Err(Fault::Again(1)));
    }
    // One that is too old to be known is not taken.
    let mut session = server(now);
    session.header(update(both, 100_001, 0), now).unwrap();
    session.header(update(Flags::SYN, 99_999, 0), now).unwrap();
    session.header(update(Flags::SYN, 1, 0), now).unwrap();
    assert_eq!(events(&mut session), [Event::Opened(StreamId(99_999))]);
    assert_eq!(
        control(&mut session),
        [Header::parse(update(Flags::RST, 1, 0)).unwrap()]
    );
}

#[test]
fn resets_that_the_peer_has_not_caused_are_no_flood() {
    let now = Instant::now();
    let settings = Settings {
        streams: 5000,
        unaccepted: 10_000,
        ..Settings::default()
    };
    let mut session = Session::new(Role::Server, settings, now);
    for _ in 0..10_000 {
        let _ = session.open().unwrap();
    }
    control(&mut session);
    for stream in (2..=20_000).step_by(2) {
        session.reset(StreamId(stream));
    }
    session.header(update(Flags::SYN, 1, 0), now).unwrap();
    // All streams that the peer may have are reset at once: the server behind them has gone.
    for stream in (3..10_000).step_by(2) {
        session.header(update(Flags::SYN, stream, 0), now).unwrap();
    }
    for stream in (1..10_000).step_by(2) {
        session.reset(StreamId(stream));
    }
    session.header(update(Flags::SYN, 10_001, 0), now).unwrap();
    // A stream that the peer has reset itself needs no reset.
    for stream in (1..10_000).step_by(2) {
        session.header(update(Flags::RST, stream, 0), now).unwrap();
    }
    assert_eq!(control(&mut session).len(), 10_000);
}

#[test]
fn questions_of_one_turn_are_no_flood() {
    let now = Instant::now();
    let mut session = server(now);
    for number in 0..64 {
        session.header(header(Kind::Ping, Flags::SYN, 0, number), now).unwrap();
    }
    assert_eq!(control(&mut session).len(), 64);
}

#[test]
fn nothing_is_taken_behind_a_fault() {
    let now = Instant::now();
    let mut session = server(now);
    let fault = session.header([9; HEADER], now);
    assert!(fault.is_err());
    assert_eq!(session.header(data(Flags::SYN, 1, 5), now), fault);
    assert_eq!(session.header(header(Kind::GoAway, Flags::default(), 0, 0), now), fault);
    assert_eq!((session.expected(), session.streams()), (None, 0));
    assert_eq!(events(&mut session), []);
    // The reason is told, although the door parts from the peer in order.
    session.go_away();
    let last = Header::parse(header(Kind::GoAway, Flags::default(), 0, PROTOCOL_ERROR)).unwrap();
    assert_eq!(control(&mut session), [last]);
}

#[test]
fn the_stream_that_holds_most_is_reset_when_all_hold_too_much() {
    let now = Instant::now();
    let mut session = Session::new(
        Role::Client,
        Settings {
            total: 1 << 20,
            ..Settings::default()
        },
        now,
    );
    for (stream, length) in [
        (2, 200 << 10),
        (4, 256 << 10),
        (6, 256 << 10),
        (8, 256 << 10),
        (10, 100 << 10),
    ] {
        session.header(update(Flags::SYN, stream, 0), now).unwrap();
        session.accept(StreamId(stream));
        session.header(data(Flags::default(), stream, length), now).unwrap();
        session.received(length);
    }
    let evicted: Vec<_> = events(&mut session)
        .into_iter()
        .filter(|event| matches!(event, Event::Evicted(_)))
        .collect();
    assert_eq!(evicted.len(), 1);
    assert!(!evicted.contains(&Event::Evicted(StreamId(2))) && !evicted.contains(&Event::Evicted(StreamId(10))));
    assert!(session.held() <= 1 << 20);
    assert_eq!((session.streams(), session.counters().evicted), (4, 1));
}

#[test]
fn pings_are_answered_sent_and_missed() {
    let start = Instant::now();
    let mut session = server(start);
    session.header(header(Kind::Ping, Flags::SYN, 0, 77), start).unwrap();
    assert_eq!(
        control(&mut session),
        [Header::parse(header(Kind::Ping, Flags::ACK, 0, 77)).unwrap()]
    );
    let due = session.deadline().unwrap();
    assert_eq!(due, start + settings().ping_interval);
    session.timeout(due).unwrap();
    assert_eq!(
        control(&mut session),
        [Header::parse(header(Kind::Ping, Flags::SYN, 0, 0)).unwrap()]
    );
    assert_eq!(session.asked_at(), Some(due));
    let answered = due + Duration::from_millis(7);
    session.header(header(Kind::Ping, Flags::ACK, 0, 9), answered).unwrap();
    assert_eq!(session.round_trip(), None, "an answer to another question");
    session.header(header(Kind::Ping, Flags::ACK, 0, 0), answered).unwrap();
    assert_eq!(session.round_trip(), Some(Duration::from_millis(7)));
    let due = session.deadline().unwrap();
    assert_eq!(due, answered + settings().ping_interval);
    session.timeout(due).unwrap();
    let end = session.deadline().unwrap();
    assert_eq!(end, due + settings().ping_timeout);
    // A frame of the peer puts the end off.
    let heard = due + Duration::from_secs(1);
    session.header(header(Kind::Ping, Flags::ACK, 0, 9), heard).unwrap();
    assert_eq!(session.deadline(), Some(heard + settings().ping_timeout));
    assert_eq!(session.timeout(heard + settings().ping_timeout), Err(Fault::Silent));
    // Questions are answered as long as the answers are read.
    let mut session = server(start);
    let mut asked = (0..).map(|number| session.header(header(Kind::Ping, Flags::SYN, 0, number), start));
    assert_eq!(
        asked.by_ref().take(MOST_ANSWERS + 1).find_map(Result::err),
        Some(Fault::Flood)
    );
}

#[test]
fn an_idle_stream_takes_little_memory() {
    assert!(size_of::<Stream>() <= 64, "{} bytes", size_of::<Stream>());
}

#[test]
fn streams_that_come_and_go_unheard_leave_nothing_to_write() {
    let now = Instant::now();
    let mut session = server(now);
    // The peer reads nothing, so no frame of this side leaves.
    for stream in (1..20_000).step_by(2) {
        session.header(update(Flags::SYN, stream, 0), now).unwrap();
        session.accept(StreamId(stream));
        session.header(update(Flags::RST, stream, 0), now).unwrap();
        events(&mut session);
    }
    assert_eq!(session.streams(), 0);
    assert!(session.due.streams() <= 1, "{} are listed", session.due.streams());
}

#[test]
fn a_stream_that_is_opened_and_reset_by_one_frame_is_not_offered() {
    let now = Instant::now();
    let mut session = server(now);
    let both = Flags::SYN.with(Flags::RST);
    session.header(data(both, 1, 5), now).unwrap();
    assert_eq!(events(&mut session), []);
    assert_eq!(session.expected(), Some(Expected { stream: None, left: 5 }));
    session.received(5);
    assert_eq!((session.streams(), session.of_peer), (0, 0));
    assert_eq!(session.header(update(both, 2, 0), now), Err(Fault::Number(2)));
}

#[test]
fn a_peer_that_is_in_a_long_frame_is_not_silent() {
    let start = Instant::now();
    let mut session = server(start);
    session.header(data(Flags::SYN, 1, FIRST_WINDOW), start).unwrap();
    let mut now = session.deadline().unwrap();
    session.timeout(now).unwrap();
    // A slow link takes longer for the frame than the peer may be silent.
    for _ in 0..8 {
        now += settings().ping_timeout / 2;
        session.received(1000);
        session.timeout(now).unwrap();
    }
    now += settings().ping_timeout * 2;
    let mut outcome = session.timeout(now);
    if outcome.is_ok() {
        now = session.deadline().unwrap();
        outcome = session.timeout(now);
    }
    assert_eq!(outcome, Err(Fault::Silent));
}
