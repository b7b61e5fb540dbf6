//! The asker against pools that are made of dice.
//!
//! The shadow model knows for each line when it was read, under which channel-ID, and which address got its question.
//! The promises of `ask` follow: every line gets exactly one answer, within its time-out, under its own channel-ID,
//! which is either a pool's answer to that very question or the text for failures; without channel-IDs in the order of
//! the lines; never more connections than allowed. A line that contradicts what is known of channel-IDs is asked
//! nowhere. What has been counted is what has happened. At the end every line is let run out: none may be left over.
//!
//! Some pools take many lines on one connection ([`Shared`]), and some learn or forget it while they are away. On such
//! a connection a line is sent only behind the welcome and before the end of the asker's side, and no number twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use iotcpd::internals::ask::{
    AskAction, AskEvent, Asker, AttemptId, ChannelIds, ConnectionId, Fault, Flaw, LONGEST_FOR_SQUID, Line, Mode, Policy,
};
use iotcpd::internals::error::Reason;

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 3000;
const FAILURE: &str = "BH";
const CONTRADICTION: &str = "BH misread";
const REFUSED: Fault = Fault::Unreachable(Reason::Other(ErrorKind::ConnectionRefused));
const RESET: Fault = Fault::Lost(Reason::Other(ErrorKind::ConnectionReset));
const SHORTAGE: Fault = Fault::Shortage(Reason::Other(ErrorKind::Other));

/// The program at the other end of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Plainly,
    Serially,
    Concurrently,
}

/// The state of a pool; changes every now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Answers, most of the time.
    Fine,
    /// Refuses every connection at once.
    Gone,
    /// Takes every question and says nothing.
    Hanging,
}

#[derive(Debug)]
struct Waiting {
    read: Instant,
    channel: String,
    question: String,
    /// True if the line is well-formed; else it is answered with the text for that, and no pool is asked.
    fits: bool,
    /// Everywhere it was asked, one after the other.
    asked: Vec<usize>,
    /// The addresses that took it and gave no good answer: they are not to have it again.
    spoilt: Vec<usize>,
}

/// A connection for one line.
#[derive(Debug)]
struct Connection {
    line: u64,
    address: usize,
}

/// A connection for many lines.
#[derive(Debug)]
struct Shared {
    address: usize,
    phase: Phase,
    /// The number of the last line.
    last: Option<u32>,
    /// The lines that the pool owes an answer, by number.
    owed: BTreeMap<u32, Sent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Greeting,
    Open,
    /// The asker has ended its side.
    Finished,
}

#[derive(Debug, Clone, Copy)]
enum Sent {
    /// The asker waits for the answer to this line.
    Wanted(u64),
    /// The asker has cancelled the line.
    Abandoned,
}

struct World {
    dice: Dice,
    now: Instant,
    asking: Asking,
    policy: Policy,
    asker: Asker,
    moods: Vec<Mood>,
    /// Tells of each pool if it takes many lines on one connection.
    multiplexes: Vec<bool>,
    /// Lines without an answer, by number.
    lines: BTreeMap<u64, Waiting>,
    connections: BTreeMap<AttemptId, Connection>,
    shared: BTreeMap<ConnectionId, Shared>,
    /// The addresses that were asked since the list was cleared.
    asked: BTreeSet<usize>,
    next_line: u64,
    answered: u64,
    failed: u64,
    contradicted: u64,
    /// The number of times that a line was asked again.
    retries: u64,
    /// In the end nothing breaks any more.
    calm: bool,
    trace: Vec<AskAction>,
}

fn policy(dice: &mut Dice, asking: Asking) -> Policy {
    Policy {
        mode: if asking == Asking::Plainly {
            Mode::Plain
        } else {
            Mode::Squid
        },
        timeout: Duration::from_millis(20 + dice.below(3000)),
        channel_ids: match asking {
            Asking::Concurrently => dice.pick(&[ChannelIds::Auto, ChannelIds::Yes]),
            Asking::Plainly | Asking::Serially => dice.pick(&[ChannelIds::Auto, ChannelIds::No]),
        }
        .expect("there are two"),
        on_failure: FAILURE.into(),
        on_contradiction: CONTRADICTION.into(),
        addresses: 1 + dice.below(4) as usize,
        max_singles: 1 + dice.below(12) as usize,
        singles_per_address: 1 + dice.below(12) as usize,
        connections: dice.below(4) as usize,
        max_connection_age: dice.percent(70).then(|| Duration::from_millis(1 + dice.below(20_000))),
        spread: dice.roll(),
        max_lines: 1 + dice.below(60) as usize,
        max_bytes: 200 + dice.below(5000) as usize,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let kinds = [
            Asking::Plainly,
            Asking::Serially,
            Asking::Concurrently,
            Asking::Concurrently,
        ];
        let asking = dice.pick(&kinds).expect("there are some");
        let policy = policy(&mut dice, asking);
        let now = Instant::now();
        World {
            moods: vec![Mood::Fine; policy.addresses],
            multiplexes: (0..policy.addresses).map(|_| dice.percent(60)).collect(),
            asker: Asker::new(policy.clone(), now),
            dice,
            now,
            asking,
            policy,
            lines: BTreeMap::new(),
            connections: BTreeMap::new(),
            shared: BTreeMap::new(),
            asked: BTreeSet::new(),
            next_line: 0,
            answered: 0,
            failed: 0,
            contradicted: 0,
            retries: 0,
            calm: false,
            trace: Vec::new(),
        }
    }

    // ---- the shell -------------------------------------------------------------------------------------------

    fn tell(&mut self, event: AskEvent<'_>) {
        self.asker.handle(self.now, event);
        while let Some(action) = self.asker.next_action() {
            self.trace.push(action.clone());
            self.carry_out(action);
        }
        assert_eq!(
            self.asker.singles(),
            self.connections.len(),
            "no connection for one line is forgotten"
        );
        assert_eq!(
            self.asker.connections(),
            self.shared.len(),
            "no connection for many lines is forgotten"
        );
    }

    fn carry_out(&mut self, action: AskAction) {
        match action {
            AskAction::Connect { attempt, address } => self.connect(attempt, address),
            AskAction::Cancel(attempt) => self.cancel(attempt),
            AskAction::Open { connection, address } => self.open(connection, address),
            AskAction::Send {
                connection,
                number,
                attempt,
            } => self.send(connection, number, attempt),
            AskAction::Abandon { connection, number } => self.abandon(connection, number),
            AskAction::Finish { connection } => {
                let shared = self.shared.get_mut(&connection).expect("only what is open is ended");
                assert_eq!(shared.phase, Phase::Open, "its side is ended once");
                shared.phase = Phase::Finished;
            }
            AskAction::Close { connection } => {
                let shared = self.shared.remove(&connection).expect("only what is open is closed");
                let mut owed = shared.owed.values();
                let is_done = owed.all(|sent| matches!(sent, Sent::Abandoned));
                assert!(is_done, "a line is under way there");
            }
            AskAction::Reset { connection } => {
                self.shared.remove(&connection).expect("only what is open is closed");
            }
            AskAction::Write(line) => self.write(&line),
            AskAction::Away { .. } | AskAction::Probe { .. } | AskAction::Back { .. } => {}
            AskAction::LinkChanged { .. } => {}
            AskAction::GaveUp { .. } | AskAction::Contradicted => {}
        }
    }

    /// Notes that the line of an attempt goes to an address, and returns its number.
    fn note_asked(&mut self, attempt: AttemptId, address: usize) -> u64 {
        let question = self.asker.question(attempt).expect("a line waits for this attempt");
        let question = String::from_utf8(question.to_vec()).expect("it was text");
        let (line, waiting) = self
            .lines
            .iter_mut()
            .find(|(_, waiting)| waiting.question == question)
            .expect("no line has asked that");
        let line = *line;
        assert!(!waiting.spoilt.contains(&address), "line {line} goes round and round");
        assert!(waiting.fits, "line {line} is no question");
        self.retries += u64::from(!waiting.asked.is_empty());
        waiting.asked.push(address);
        self.asked.insert(address);
        let is_alone = self.connections.values().any(|other| other.line == line);
        let mut owed = self.shared.values().flat_map(|shared| shared.owed.values());
        let is_shared = owed.any(|sent| matches!(sent, Sent::Wanted(other) if *other == line));
        assert!(!is_alone && !is_shared, "line {line} is asked twice at once");
        line
    }

    fn connect(&mut self, attempt: AttemptId, address: usize) {
        let line = self.note_asked(attempt, address);
        assert!(self.connections.len() < self.policy.max_singles, "too many connections");
        if !self.calm && self.dice.percent(2) {
            return self.fail_at_once(AskEvent::Failed(attempt, SHORTAGE));
        }
        match self.moods[address] {
            // Half of the refusals come at once, half after a round trip.
            Mood::Gone if self.dice.percent(50) => self.fail_at_once(AskEvent::Failed(attempt, REFUSED)),
            Mood::Gone | Mood::Fine | Mood::Hanging => {
                self.connections.insert(attempt, Connection { line, address });
            }
        }
    }

    fn cancel(&mut self, attempt: AttemptId) {
        let connection = self.connections.remove(&attempt).expect("only what is open is closed");
        let waiting = self
            .lines
            .get_mut(&connection.line)
            .expect("its answer comes behind it");
        waiting.spoilt.push(connection.address);
    }

    fn open(&mut self, id: ConnectionId, address: usize) {
        let young = |shared: &&Shared| shared.address == address && shared.phase != Phase::Finished;
        let count = self.shared.values().filter(young).count();
        assert!(
            count < self.policy.connections,
            "too many connections to address {address}"
        );
        if !self.calm && self.dice.percent(2) {
            return self.fail_at_once(AskEvent::Closed(id, SHORTAGE));
        }
        if self.moods[address] == Mood::Gone && self.dice.percent(50) {
            return self.fail_at_once(AskEvent::Closed(id, REFUSED));
        }
        let shared = Shared {
            address,
            phase: Phase::Connecting,
            last: None,
            owed: BTreeMap::new(),
        };
        self.shared.insert(id, shared);
    }

    fn send(&mut self, id: ConnectionId, number: u32, attempt: AttemptId) {
        if self.asker.question(attempt).is_none() {
            // The attempt has ended since.
            return;
        }
        let address = self.shared[&id].address;
        let line = self.note_asked(attempt, address);
        let shared = self.shared.get_mut(&id).expect("only what is open is written to");
        assert_eq!(shared.phase, Phase::Open, "line {line} is sent at a wrong time");
        assert!(shared.last < Some(number), "number {number} is used twice");
        shared.last = Some(number);
        shared.owed.insert(number, Sent::Wanted(line));
    }

    fn abandon(&mut self, id: ConnectionId, number: u32) {
        let shared = self.shared.get_mut(&id).expect("only what is open is written to");
        let sent = shared.owed.insert(number, Sent::Abandoned);
        let Some(Sent::Wanted(line)) = sent else {
            panic!("number {number} is not under way");
        };
        let waiting = self.lines.get_mut(&line).expect("its answer comes behind it");
        waiting.spoilt.push(shared.address);
    }

    fn fail_at_once(&mut self, event: AskEvent<'_>) {
        self.asker.handle(self.now, event);
    }

    fn write(&mut self, line: &[u8]) {
        let text = std::str::from_utf8(line).expect("it was text");
        let text = text.strip_suffix('\n').expect("a line ends in a LF");
        assert!(!text.contains('\n'), "one line is one line");
        let (number, result) = if text == CONTRADICTION && self.asking == Asking::Concurrently {
            // Without a channel-ID there is none to be answered under.
            let of_misfit = |(number, waiting): (&u64, &Waiting)| (!waiting.fits).then_some(*number);
            (
                self.lines.iter().find_map(of_misfit).expect("there is such a line"),
                text,
            )
        } else if self.asking == Asking::Concurrently {
            let (channel, result) = text.split_once(' ').expect("a channel-ID comes first");
            let of_channel = |(number, waiting): (&u64, &Waiting)| (waiting.channel == channel).then_some(*number);
            (
                self.lines
                    .iter()
                    .find_map(of_channel)
                    .expect("nobody waits on that channel"),
                result,
            )
        } else {
            let (number, first) = self.lines.iter().next().expect("nobody waits");
            let misread = format!("{} {CONTRADICTION}", first.channel);
            (
                *number,
                if !first.fits && text == misread {
                    CONTRADICTION
                } else {
                    text
                },
            )
        };
        let waiting = self.lines.remove(&number).expect("it was found");
        let took = self.now - waiting.read;
        assert!(took <= self.policy.timeout, "line {number} is answered after {took:?}");
        assert_eq!(result == CONTRADICTION, !waiting.fits, "line {number} is misread");
        match result {
            FAILURE => self.failed += 1,
            CONTRADICTION => self.contradicted += 1,
            _ => self.answered_by_a_pool(&waiting, result),
        }
    }

    fn answered_by_a_pool(&mut self, waiting: &Waiting, result: &str) {
        self.answered += 1;
        let last = waiting.asked.last().expect("an answer comes from somewhere");
        assert_eq!(result, reply(&waiting.question, *last), "somebody else's answer");
    }

    // ---- what happens ----------------------------------------------------------------------------------------

    fn read_line(&mut self) {
        if !self.asker.has_room() {
            return;
        }
        let number = self.next_line;
        self.next_line += 1;
        // The first line decides, unless a flag has decided already.
        let fits = number == 0 || self.asking == Asking::Plainly || !self.dice.percent(3);
        let question = format!("http://host-{number}/ 10.0.0.1/- - GET");
        let (channel, mut line) = match self.asking {
            Asking::Concurrently if fits => {
                let channel = if number < 2 {
                    number.to_string()
                } else {
                    format!("{:03}", number * 7)
                };
                (channel.clone(), format!("{channel} {question}"))
            }
            // A word that looks like a first channel-ID is part of the question if the flags say that there are none.
            Asking::Serially if !fits && self.policy.channel_ids == ChannelIds::Auto => {
                ("1".to_owned(), format!("1 {question}"))
            }
            Asking::Concurrently | Asking::Plainly | Asking::Serially => (String::new(), question.clone()),
        };
        let fits = fits || (self.asking == Asking::Serially && self.policy.channel_ids == ChannelIds::No);
        if self.asking != Asking::Plainly && self.dice.percent(20) {
            line.push('\r');
        }
        let line = if self.dice.percent(1) {
            line.push_str(&"x".repeat(10));
            Line::Cut(line.into_bytes())
        } else {
            Line::Whole(line.into_bytes())
        };
        let waiting = Waiting {
            read: self.now,
            channel,
            question,
            fits,
            asked: Vec::new(),
            spoilt: Vec::new(),
        };
        self.lines.insert(number, waiting);
        self.tell(AskEvent::Line(line));
    }

    /// Something happens to one of the connections, according to the mood at the other end.
    fn progress(&mut self) {
        let singles = self.connections.len() as u64;
        let shared: Vec<ConnectionId> = self.shared.keys().copied().collect();
        // A connection for many lines moves as often as all of its lines would.
        let weight = |id: &ConnectionId| 1 + self.shared[id].owed.len() as u64;
        let mut place = self.dice.below(singles + shared.iter().map(weight).sum::<u64>());
        if place < singles {
            return self.progress_of_one(usize::try_from(place).expect("it is small"));
        }
        place -= singles;
        for id in shared {
            let weight = 1 + self.shared[&id].owed.len() as u64;
            if place < weight {
                return self.progress_of_many(id);
            }
            place -= weight;
        }
    }

    fn progress_of_one(&mut self, place: usize) {
        let attempt = *self.connections.keys().nth(place).expect("it is there");
        let Connection { line, address } = self.connections[&attempt];
        let outcome = match self.moods[address] {
            Mood::Hanging => return,
            Mood::Gone if self.dice.percent(50) => Err(REFUSED),
            Mood::Gone => Err(RESET),
            Mood::Fine if self.calm => Ok(reply(&self.lines[&line].question, address).into_bytes()),
            Mood::Fine => match self.dice.below(100) {
                0..4 => Err(Fault::Flawed(Flaw::Empty)),
                4..8 => Err(Fault::Flawed(Flaw::Unfinished)),
                8..10 => Err(Fault::Flawed(Flaw::TooLong)),
                10..14 => Err(RESET),
                14..16 => Err(Fault::Disagreed),
                16..19 => Err(Fault::Tls),
                _ => Ok(reply(&self.lines[&line].question, address).into_bytes()),
            },
        };
        self.connections.remove(&attempt);
        match outcome {
            Ok(reply) => {
                let reply = self.clothe(line, address, reply);
                self.tell(AskEvent::Reply(attempt, reply));
            }
            Err(fault) => {
                // One that was closed without a byte may be tried again.
                if matches!(
                    fault,
                    Fault::Disagreed | Fault::Flawed(Flaw::Unfinished | Flaw::TooLong | Flaw::Nul)
                ) {
                    self.spoil(line, address);
                }
                self.tell(AskEvent::Failed(attempt, fault));
            }
        }
    }

    fn progress_of_many(&mut self, id: ConnectionId) {
        let Shared { address, phase, .. } = self.shared[&id];
        match (self.moods[address], phase) {
            (Mood::Hanging, _) => {}
            (Mood::Gone, Phase::Connecting) if self.dice.percent(30) => self.end(id, Fault::Tls),
            (Mood::Gone, Phase::Connecting) => self.end(id, REFUSED),
            (Mood::Gone, _) if self.dice.percent(50) => self.end(id, Fault::Flawed(Flaw::Empty)),
            (Mood::Gone, _) => self.end(id, RESET),
            (Mood::Fine, Phase::Connecting) => {
                self.shared.get_mut(&id).expect("it is there").phase = Phase::Greeting;
                self.tell(AskEvent::Connected(id));
            }
            (Mood::Fine, Phase::Greeting) if self.multiplexes[address] => self.welcome(id),
            (Mood::Fine, Phase::Greeting) => match self.dice.below(4) {
                // A program that does not know the protocol swallows the hello.
                0 if !self.calm => {}
                1 if !self.calm => self.end(id, Fault::Flawed(Flaw::Empty)),
                2 => self.tell(AskEvent::Overlong(id, b"iotcpd-multiplex 1")),
                _ => self.tell(AskEvent::Received(id, b"ERR\n")),
            },
            (Mood::Fine, Phase::Open | Phase::Finished) => self.talk(id),
        }
    }

    fn end(&mut self, id: ConnectionId, fault: Fault) {
        self.shared.remove(&id);
        self.tell(AskEvent::Closed(id, fault));
    }

    fn welcome(&mut self, id: ConnectionId) {
        self.shared.get_mut(&id).expect("it is there").phase = Phase::Open;
        let (max_unanswered, at_once) = (1 + self.dice.below(12), 1 + self.dice.below(4));
        let welcome = format!("iotcpd-multiplex 1 max-unanswered={max_unanswered} max-request=99 at-once={at_once}\n");
        self.tell(AskEvent::Received(id, welcome.as_bytes()));
    }

    /// A pool says something on a connection for many lines.
    fn talk(&mut self, id: ConnectionId) {
        match self.dice.below(100) {
            0..2 if !self.calm => self.tell(AskEvent::Received(id, b"!drain\n")),
            2..3 if !self.calm => {
                let fault = self.dice.pick(&[RESET, Fault::Tls]).unwrap_or(RESET);
                self.end(id, fault);
            }
            3..5 if !self.calm => self.end(id, Fault::Flawed(Flaw::Empty)),
            5..6 if !self.calm => self.tell(AskEvent::Received(id, b"what is that\n")),
            6..9 => self.tell(AskEvent::Received(id, b"!later\n")),
            // An answer to a line that was never sent is ignored.
            9..10 => self.tell(AskEvent::Received(id, b"4000000000 OK\n")),
            _ => self.answer(id),
        }
    }

    fn answer(&mut self, id: ConnectionId) {
        let shared = self.shared.get_mut(&id).expect("it is there");
        let (address, numbers) = (shared.address, shared.owed.keys().copied().collect::<Vec<_>>());
        let Some(number) = self.dice.pick(&numbers) else { return };
        let text = match shared.owed.remove(&number).expect("it is there") {
            Sent::Abandoned => b"ERR".to_vec(),
            Sent::Wanted(line) if !self.calm && self.dice.percent(2) => {
                self.spoil(line, address);
                let line = format!("{number} OK ...");
                return self.tell(AskEvent::Overlong(id, line.as_bytes()));
            }
            Sent::Wanted(line) => {
                let reply = reply(&self.lines[&line].question, address).into_bytes();
                self.clothe(line, address, reply)
            }
        };
        let line = [format!("{number} ").as_bytes(), &text, b"\n"].concat();
        self.tell(AskEvent::Received(id, &line));
    }

    fn spoil(&mut self, line: u64, address: usize) {
        let waiting = self.lines.get_mut(&line).expect("it is being asked");
        waiting.spoilt.push(address);
    }

    /// Dresses a reply as a pool may send it; Squid's never sees more than it can read.
    fn clothe(&mut self, line: u64, address: usize, mut reply: Vec<u8>) -> Vec<u8> {
        if self.calm || self.asking == Asking::Plainly {
            return reply;
        }
        match self.dice.below(100) {
            0..20 => reply.push(b'\r'),
            20..22 => reply.push(0),
            22..24 => reply.resize(LONGEST_FOR_SQUID, b'x'),
            _ => {}
        }
        if reply.contains(&0) || reply.len() >= LONGEST_FOR_SQUID {
            self.spoil(line, address);
        }
        reply
    }

    fn change_mood(&mut self) {
        let address = self.dice.below(self.moods.len() as u64) as usize;
        let moods = [Mood::Fine, Mood::Fine, Mood::Gone, Mood::Hanging];
        self.moods[address] = self.dice.pick(&moods).expect("there are some");
        if self.moods[address] == Mood::Gone && self.dice.percent(30) {
            // It comes back as another version.
            self.multiplexes[address] = !self.multiplexes[address];
        }
    }

    /// Reports about an attempt that is over are ignored.
    fn stale_report(&mut self) {
        let attempts: Vec<AttemptId> = self
            .trace
            .iter()
            .rev()
            .take(40)
            .filter_map(|action| match action {
                AskAction::Cancel(attempt) => Some(*attempt),
                _ => None,
            })
            .collect();
        if let Some(attempt) = self.dice.pick(&attempts) {
            self.tell(AskEvent::Reply(attempt, b"stale".to_vec()));
        }
    }

    /// Lets time pass, and never past a deadline without a tick: that is the reactor's part.
    fn pass_time(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.asker.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(AskEvent::Tick);
        }
        self.now = end;
    }

    fn step(&mut self) {
        match self.dice.below(1000) {
            0..400 => self.read_line(),
            400..800 => self.progress(),
            800..960 => {
                let span = Duration::from_millis(self.dice.below(30));
                self.pass_time(span);
            }
            960..970 => {
                let span = self.policy.timeout * 2 * self.dice.below(100) as u32 / 100;
                self.pass_time(span);
            }
            970..985 => self.stale_report(),
            _ => self.change_mood(),
        }
        assert_eq!(self.asker.lines_in_hand(), self.lines.len(), "no line is forgotten");
    }

    /// The input has ended: all lines are answered within a time-out, even if every pool is silent.
    fn run_out(&mut self) {
        self.moods.fill(Mood::Hanging);
        self.pass_time(self.policy.timeout);
        assert!(self.lines.is_empty(), "these were never answered: {:?}", self.lines);
        assert!(
            self.connections.is_empty(),
            "these were never closed: {:?}",
            self.connections
        );
        let mut owed = self.shared.values().flat_map(|shared| shared.owed.values());
        assert!(
            owed.all(|sent| matches!(sent, Sent::Abandoned)),
            "a line without an answer"
        );
        if self.shared.is_empty() {
            assert_eq!(self.asker.next_deadline(), None, "nothing is left to wait for");
        }
        assert!(self.asker.has_room());
        let counters = self.asker.counters();
        assert_eq!((counters.answered, counters.failed), (self.answered, self.failed));
        assert_eq!(
            (counters.contradicted, counters.retries),
            (self.contradicted, self.retries)
        );
        assert_eq!(counters.lines, self.next_line);
    }

    /// All pools are back: within the longest delay every one of them is asked again.
    fn recover(&mut self) {
        self.calm = true;
        self.moods.fill(Mood::Fine);
        self.asked.clear();
        self.pass_time(Duration::from_secs(5));
        let (before, lines) = (self.answered, 200);
        for _ in 0..lines {
            self.read_line();
            while self.is_asking() {
                self.progress();
            }
            self.pass_time(Duration::from_millis(1));
        }
        self.pass_time(self.policy.timeout);
        assert_eq!(
            self.asked.len(),
            self.policy.addresses,
            "an address was given up for good"
        );
        assert!(self.answered > before, "no line was answered by pools that are fine");
    }

    /// Returns true if a pool that is fine has something to do.
    fn is_asking(&self) -> bool {
        let is_busy =
            |shared: &Shared| matches!(shared.phase, Phase::Connecting | Phase::Greeting) || !shared.owed.is_empty();
        !self.connections.is_empty() || self.shared.values().any(is_busy)
    }
}

/// The pool's answer at that address to that question.
fn reply(question: &str, address: usize) -> String {
    format!("OK pool={address} {question}")
}

fn simulate(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.run_out();
    world.recover();
    world.run_out();
    world
}

#[test]
fn every_line_gets_one_answer_whatever_the_pools_do() {
    let counts = seeds::each(|seed| {
        let world = simulate(seed);
        [world.answered, world.failed, world.contradicted, world.retries]
    });
    let sums = counts.into_iter().fold([0; 4], |sums, more| {
        std::array::from_fn(|place| sums[place] + more[place])
    });
    assert!(
        sums.iter().all(|sum| *sum > 0),
        "{sums:?} answered, failed, misread and tried again: that shows nothing"
    );
}

#[test]
fn the_same_seed_goes_the_same_way() {
    assert_eq!(simulate(7).trace, simulate(7).trace);
    assert_ne!(simulate(7).trace, simulate(8).trace);
}
