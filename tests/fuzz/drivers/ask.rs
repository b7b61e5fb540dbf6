//! `iotcpd ask`: what Squid says, what pools say, and what becomes of it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::Choices;
use iotcpd::internals::ask::{
    AskAction, AskEvent, Asker, AttemptId, ChannelIds, Collector, ConnectionId, Cut, Cutter, Fault, Flaw,
    LONGEST_FOR_SQUID, LONGEST_LINE, LONGEST_REPLY, Line, Mode, Policy, Protocol, Question, Reading, Splitter,
    protocol, reply,
};
use iotcpd::internals::error::Reason;

/// The longest line of a pool, without its LF: the number, the blank, and the longest reply.
const LONGEST_FROM_POOL: usize = 11 + LONGEST_REPLY;

const FAILURE: &[u8] = b"BH";
const CONTRADICTION: &[u8] = b"BH misread";

fn mode(choices: &mut Choices<'_>) -> Mode {
    choices.pick(&[Mode::Squid, Mode::Plain]).unwrap_or(Mode::Squid)
}

fn channel_ids(choices: &mut Choices<'_>) -> ChannelIds {
    let all = [ChannelIds::Auto, ChannelIds::Yes, ChannelIds::No];
    choices.pick(&all).unwrap_or(ChannelIds::Auto)
}

/// Returns a stream, and now and then one whose first line is about as long as a line may be.
fn stream(choices: &mut Choices<'_>, longest: usize) -> Vec<u8> {
    let beginning = match choices.byte() {
        length @ 252.. => vec![b'x'; longest - 254 + usize::from(length)],
        _ => Vec::new(),
    };
    [&beginning, choices.take(usize::MAX)].concat()
}

/// `Splitter` and `Protocol`: mode, whether there are channel-IDs, three bytes that cut the rest, and one that may put
/// a very long line before it. However the input is cut, each of its lines comes out once; and what is taken off a line
/// stands before its answer, byte for byte.
pub fn fuzz_ask_input(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (mode, ids, cuts) = (mode(&mut choices), channel_ids(&mut choices), choices.take(3));
    let input = stream(&mut choices, LONGEST_LINE);
    let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
    let (long, short) = input.split_at(input.len().saturating_sub(4096));
    for piece in [long].into_iter().chain(Choices::new(short).pieces(cuts)) {
        splitter.push(piece);
        lines.extend(std::iter::from_fn(|| splitter.next_line()));
    }
    lines.extend(splitter.last_line());
    assert!(splitter.is_drained(), "nothing is forgotten");
    let expected = lines_of(&input);
    assert_eq!(lines.len(), expected.len(), "each line comes out once");
    let mut protocol = Protocol::new(mode, ids);
    for (line, written) in lines.iter().zip(expected) {
        let held = written.get(..LONGEST_LINE).unwrap_or(written);
        assert!(line.bytes() == held, "a line is what was written");
        assert_eq!(
            matches!(line, Line::Cut(_)),
            written.len() > LONGEST_LINE,
            "cut where it is too long"
        );
        check_channel(&mut protocol, line.bytes());
    }
}

/// Without their LFs; the last one may have none.
fn lines_of(input: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), input);
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end);
        lines.push(line);
        rest = behind.get(1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn check_channel(protocol: &mut Protocol, line: &[u8]) {
    let reading = protocol.read(line);
    let (Reading::Question(Question { channel, .. }) | Reading::Contradiction(channel)) = &reading;
    let blank = if channel.is_empty() { &b""[..] } else { b" " };
    let answer = protocol::answer(channel, b"ERR");
    assert!(
        answer == [channel, blank, b"ERR\n"].concat(),
        "the channel-ID stands before the answer"
    );
    assert!(
        line.starts_with(channel) && channel.iter().all(u8::is_ascii_digit),
        "it is a number that the line begins with"
    );
    let Reading::Question(Question { channel, text }) = reading else {
        let may_be = channel.is_empty() == (*protocol == Protocol::Concurrent);
        return assert!(
            may_be,
            "what is missing contradicts channel-IDs, what is there their absence"
        );
    };
    assert_eq!(
        channel.is_empty(),
        *protocol != Protocol::Concurrent,
        "where there are none, none is found, and where there are, each question has one"
    );
    let rest = line.get(channel.len()..).unwrap_or_default();
    let rest = if channel.is_empty() {
        rest
    } else {
        rest.strip_prefix(b" ").unwrap_or(rest)
    };
    let tail = rest.strip_prefix(text.as_slice());
    assert!(
        matches!(tail, Some(b"" | b"\r")),
        "the rest, but for a CR at its end, is asked"
    );
}

/// `Collector` and `reply::result`: mode, the length of the channel-ID, three bytes that cut the rest, and one that may
/// put a very long line before it. However a reply is cut, its first line is the answer, and Squid can read it.
pub fn fuzz_ask_reply(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (mode, ahead, cuts) = (mode(&mut choices), choices.below(256), choices.take(3));
    let longest = choices.pick(&[LONGEST_REPLY, LONGEST_FOR_SQUID]).unwrap_or_default();
    let sent = stream(&mut choices, longest);
    let (long, short) = sent.split_at(sent.len().saturating_sub(4096));
    let mut collector = Collector::default();
    let mut pieces = [long].into_iter().chain(Choices::new(short).pieces(cuts));
    let outcome = pieces.find_map(|piece| collector.push(piece).transpose());
    let end = memchr::memchr(b'\n', &sent);
    let length = end.unwrap_or(sent.len());
    match outcome {
        Some(Ok(reply)) => {
            assert!(end.is_some() && length <= LONGEST_REPLY && reply == sent.get(..length).unwrap_or_default());
            check_result(mode, reply, ahead);
        }
        Some(Err(flaw)) => assert!(
            flaw == Flaw::TooLong && length > LONGEST_REPLY || flaw == Flaw::Tls && sent.starts_with(&[21, 3]),
            "{flaw:?} after {length} bytes"
        ),
        None => {
            assert!(end.is_none() && length <= LONGEST_REPLY, "not whole");
            assert_eq!(collector.flaw_at_end() == Flaw::Empty, sent.is_empty());
        }
    }
}

fn check_result(mode: Mode, reply: Vec<u8>, ahead: usize) {
    match (mode, reply::result(mode, &reply, ahead)) {
        (Mode::Plain, result) => assert!(result == Ok(reply.as_slice()), "untouched"),
        (Mode::Squid, Ok(result)) => {
            assert!(
                !result.contains(&b'\n') && !result.contains(&0) && !result.is_empty(),
                "one line for Squid"
            );
            assert!(ahead + result.len() < LONGEST_FOR_SQUID, "which fits");
            let text = reply.strip_suffix(b"\r").unwrap_or(&reply);
            assert!(
                result == text || result == b"ERR" && text.iter().all(u8::is_ascii_whitespace),
                "byte for byte"
            );
        }
        (Mode::Squid, Err(Flaw::Nul)) => assert!(reply.contains(&0)),
        (Mode::Squid, Err(flaw)) => {
            assert!(
                flaw == Flaw::TooLong && ahead + reply.len() >= LONGEST_FOR_SQUID,
                "{flaw:?}"
            );
        }
    }
}

/// `Cutter`: three bytes cut the rest, and one may put a very long line before it. However the lines of a pool are cut,
/// each comes out once, byte for byte, or once with its beginning if it is too long; what has no end does not.
pub fn fuzz_multiplexed_stream(input: &[u8]) {
    let mut choices = Choices::new(input);
    let cuts = choices.take(3);
    let sent = stream(&mut choices, LONGEST_FROM_POOL);
    let (long, short) = sent.split_at(sent.len().saturating_sub(4096));
    let (mut cutter, mut lines) = (Cutter::default(), Vec::new());
    for piece in [long].into_iter().chain(Choices::new(short).pieces(cuts)) {
        cutter.push(piece, |cut| {
            lines.push(match cut {
                Cut::Whole(line) => (true, line.to_vec()),
                Cut::Overlong(beginning) => (false, beginning.to_vec()),
            });
        });
    }
    let written: Vec<&[u8]> = sent
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n") || line.len() > LONGEST_FROM_POOL)
        .collect();
    assert_eq!(lines.len(), written.len(), "each line comes out once");
    for ((is_whole, line), written) in lines.iter().zip(written) {
        let length = written.strip_suffix(b"\n").unwrap_or(written).len();
        assert_eq!(*is_whole, length <= LONGEST_FROM_POOL, "cut where it is too long");
        assert!(if *is_whole {
            line == written
        } else {
            written.starts_with(line)
        });
        assert!(line.len() >= length.min(LONGEST_FROM_POOL), "as much as may be");
    }
}

/// `Asker`: a few bytes are the policy, the rest decides what happens: lines, replies, faults, the lines of connections
/// that carry many, time. Every line gets exactly one answer, of one line, under its own channel-ID, and none is left
/// when its time-out is over. (`tests/sim/ask.rs`, which knows which address was asked for each line, holds that it is the right one.)
pub fn fuzz_asker(input: &[u8]) {
    let mut choices = Choices::new(input);
    let mut run = Run::new(&mut choices);
    while !choices.is_empty() {
        run.step(&mut choices);
    }
    let end = run.now + run.policy.timeout;
    while let Some(at) = run.asker.next_deadline().filter(|at| *at <= end) {
        run.now = run.now.max(at);
        run.tell(AskEvent::Tick);
    }
    run.check_answers();
}

struct Run {
    asker: Asker,
    policy: Policy,
    now: Instant,
    attempts: Vec<AttemptId>,
    /// The connections for many lines that are open or being established.
    connections: Vec<ConnectionId>,
    /// The channel-IDs of the lines read.
    channels: Vec<Vec<u8>>,
    protocol: Protocol,
    answers: Vec<Vec<u8>>,
}

impl Run {
    fn new(choices: &mut Choices<'_>) -> Self {
        let policy = Policy {
            mode: mode(choices),
            timeout: Duration::from_millis(1 + choices.below(256) as u64 * 8),
            channel_ids: channel_ids(choices),
            on_failure: FAILURE.to_vec(),
            on_contradiction: CONTRADICTION.to_vec(),
            addresses: 1 + choices.below(3),
            max_singles: 1 + choices.below(4),
            singles_per_address: 1 + choices.below(8),
            connections: choices.below(3),
            max_connection_age: match choices.byte() {
                0 => None,
                age => Some(Duration::from_millis(u64::from(age) * 8)),
            },
            spread: choices.byte().into(),
            max_lines: 8,
            max_bytes: 256,
        };
        let now = Instant::now();
        Self {
            asker: Asker::new(policy.clone(), now),
            protocol: Protocol::new(policy.mode, policy.channel_ids),
            policy,
            now,
            attempts: Vec::new(),
            connections: Vec::new(),
            channels: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0..3 => self.read_line(choices),
            8..11 => self.read_line(choices),
            11 => self.on_connection(choices, |id, _| AskEvent::Connected(id)),
            12 => self.on_connection(choices, |id, _| AskEvent::Received(id, WELCOME)),
            13 => self.on_connection(choices, |id, line| AskEvent::Received(id, line)),
            14 => self.on_connection(choices, |id, line| AskEvent::Overlong(id, line)),
            15 => self.close_connection(choices),
            3..5 => {
                let reply = bytes(choices);
                self.on_attempt(choices, |attempt| AskEvent::Reply(attempt, reply));
            }
            5 => {
                let fault = choices.pick(&FAULTS).unwrap_or(Fault::TimedOut);
                self.on_attempt(choices, |attempt| AskEvent::Failed(attempt, fault));
            }
            6 => self.pass_time(Duration::from_millis(choices.below(256) as u64)),
            _ => self.pass_time(Duration::from_millis(choices.below(256) as u64 * 16)),
        }
    }

    /// A tick at every deadline on the way: that is the reactor's part.
    fn pass_time(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.asker.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(AskEvent::Tick);
        }
        self.now = end;
    }

    fn read_line(&mut self, choices: &mut Choices<'_>) {
        if self.asker.has_room() {
            let line = bytes(choices);
            let (Reading::Question(Question { channel, .. }) | Reading::Contradiction(channel)) =
                self.protocol.read(&line);
            self.channels.push(channel);
            let line = if choices.byte() == 255 {
                Line::Cut(line)
            } else {
                Line::Whole(line)
            };
            self.tell(AskEvent::Line(line));
        }
    }

    /// To any attempt, over or not: a report may be on its way when its attempt is cancelled.
    fn on_attempt(&mut self, choices: &mut Choices<'_>, event: impl FnOnce(AttemptId) -> AskEvent<'static>) {
        if let Some(attempt) = choices.pick(&self.attempts) {
            self.tell(event(attempt));
        }
    }

    /// Something comes on a connection for many lines: the answer to a line, or any bytes.
    fn on_connection(&mut self, choices: &mut Choices<'_>, event: impl FnOnce(ConnectionId, &[u8]) -> AskEvent<'_>) {
        let Some(id) = choices.pick(&self.connections) else {
            return;
        };
        let line = match choices.byte() {
            number @ 0..128 => [number.to_string().as_bytes(), b" ", &bytes(choices), b"\n"].concat(),
            128..160 => b"!drain\n".to_vec(),
            160.. => [bytes(choices).as_slice(), b"\n"].concat(),
        };
        self.tell(event(id, &line));
    }

    fn close_connection(&mut self, choices: &mut Choices<'_>) {
        if let Some(id) = choices.pick(&self.connections) {
            self.connections.retain(|other| *other != id);
            let fault = choices.pick(&FAULTS).unwrap_or(Fault::TimedOut);
            self.tell(AskEvent::Closed(id, fault));
        }
    }

    fn tell(&mut self, event: AskEvent<'_>) {
        self.asker.handle(self.now, event);
        while let Some(action) = self.asker.next_action() {
            match action {
                AskAction::Connect { attempt, .. } => {
                    assert!(
                        self.asker.question(attempt).is_none_or(|text| !text.contains(&b'\n')),
                        "one line is asked"
                    );
                    // The youngest are the ones that live.
                    self.attempts.insert(0, attempt);
                    self.attempts.truncate(16);
                }
                AskAction::Open { connection, .. } => self.connections.push(connection),
                AskAction::Send { connection, .. }
                | AskAction::Abandon { connection, .. }
                | AskAction::Finish { connection } => assert!(self.connections.contains(&connection)),
                AskAction::Close { connection } | AskAction::Reset { connection } => {
                    self.connections.retain(|other| *other != connection)
                }
                AskAction::Write(line) => self.answers.push(line),
                AskAction::LinkChanged { .. } => {}
                AskAction::Cancel(_) | AskAction::Away { .. } | AskAction::Probe { .. } | AskAction::Back { .. } => {}
                AskAction::GaveUp { .. } | AskAction::Contradicted => {}
            }
        }
        assert!(
            self.asker.singles() <= self.policy.max_singles,
            "never more connections than allowed"
        );
        assert_eq!(
            self.asker.connections(),
            self.connections.len(),
            "no connection is forgotten"
        );
    }

    fn check_answers(&self) {
        assert_eq!(self.asker.lines_in_hand(), 0, "no line is forgotten");
        assert_eq!(self.answers.len(), self.channels.len(), "one answer per line");
        let channels: BTreeSet<&Vec<u8>> = self.channels.iter().filter(|channel| !channel.is_empty()).collect();
        for channel in channels {
            let begin = [channel, &b" "[..]].concat();
            let answers = self.answers.iter().filter(|answer| answer.starts_with(&begin)).count();
            let lines = self.channels.iter().filter(|other| *other == channel).count();
            assert!(
                answers >= lines,
                "{answers} answers to {lines} lines of channel {channel:?}"
            );
        }
        for answer in &self.answers {
            assert!(
                answer.iter().position(|byte| *byte == b'\n') == Some(answer.len() - 1),
                "one line: {answer:?}"
            );
        }
    }
}

const WELCOME: &[u8] = b"iotcpd-multiplex 1 max-unanswered=3 max-request=99 at-once=2\n";

const FAULTS: [Fault; 8] = [
    Fault::Unreachable(Reason::Other(ErrorKind::ConnectionRefused)),
    Fault::Unresolved,
    Fault::Lost(Reason::Other(ErrorKind::ConnectionReset)),
    Fault::Shortage(Reason::Other(ErrorKind::Other)),
    Fault::TimedOut,
    Fault::Flawed(Flaw::Empty),
    Fault::Flawed(Flaw::Unfinished),
    Fault::Flawed(Flaw::Nul),
];

/// A line or a reply, without its LF.
fn bytes(choices: &mut Choices<'_>) -> Vec<u8> {
    let length = choices.below(24);
    let bytes = choices.take(length).iter().copied();
    bytes.filter(|byte| *byte != b'\n').collect()
}
