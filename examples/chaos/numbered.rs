//! Lines behind numbers, as a client plans, sends and reads them. They are written for chaos alone: the daemon's own
//! parsers cannot prove themselves.
//!
//! A client of a multiplexed connection says the hello, then each request behind a number; answers come in any order,
//! each behind the number of its request. `iotcpd ask --squid` speaks the same without the hello and without
//! announcements, so a client of it is one of these as well.

use crate::dice::Dice;
use crate::plan::{Exchange, LONGEST_BURST, Manner, Step, Via, in_pieces};
use crate::request::RequestKind;

pub(crate) const HELLO: &[u8] = b"iotcpd-multiplex 1\n";
const WELCOME: &str = "iotcpd-multiplex 1 ";
const LIMITS: [&str; 3] = ["max-unanswered=", "max-request=", "at-once="];

/// The percentage of requests with numbers that are cancelled.
const CANCELLED: usize = 8;

/// A line that came, without its LF.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Welcome,
    Drain,
    Announcement,
    Answer,
    Unknown,
}

/// The state of a connection whose requests have numbers.
#[derive(Debug)]
pub(crate) struct Numbered {
    /// True if the server has said that it speaks the protocol, or need not.
    pub(crate) is_welcome: bool,
    /// True if the server has said that it takes nothing new.
    pub(crate) is_draining: bool,
    /// The number of whole requests that were sent.
    pub(crate) requests_sent: usize,
    /// The first byte of the line that was sent in part.
    line_begun: Option<u8>,
}

impl Numbered {
    /// `has_hello`: the server must answer a hello first.
    pub(crate) fn new(has_hello: bool) -> Self {
        Self {
            is_welcome: !has_hello,
            is_draining: false,
            requests_sent: 0,
            line_begun: None,
        }
    }

    /// Takes in a line that came. Returns true if it is to be judged as an answer, right or not.
    pub(crate) fn hear(&mut self, line: &[u8]) -> bool {
        match (read(line), self.is_welcome) {
            (Line::Welcome, false) => self.is_welcome = true,
            (Line::Drain, true) => self.is_draining = true,
            (Line::Announcement, true) => {}
            _ => return true,
        }
        false
    }

    /// Counts the requests in bytes that were sent.
    pub(crate) fn note_sent(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let first = *self.line_begun.get_or_insert(*byte);
            if *byte == b'\n' {
                self.requests_sent += usize::from(first.is_ascii_digit());
                self.line_begun = None;
            }
        }
    }

    pub(crate) fn is_inside_line(&self) -> bool {
        self.line_begun.is_some()
    }
}

pub(crate) fn request(number: u32, bytes: &[u8]) -> Vec<u8> {
    [number.to_string().as_bytes(), b" ", bytes].concat()
}

pub(crate) fn cancel(number: u32) -> Vec<u8> {
    format!("!cancel {number}\n").into_bytes()
}

fn read(line: &[u8]) -> Line {
    let text = String::from_utf8_lossy(line);
    if let Some(limits) = text.strip_prefix(WELCOME) {
        let has = |name: &&str| {
            let mut values = limits.split(' ').filter_map(|word| word.strip_prefix(name));
            values.any(|value| value.parse::<u64>().is_ok())
        };
        return if LIMITS.iter().all(has) {
            Line::Welcome
        } else {
            Line::Unknown
        };
    }
    match line {
        b"!drain" => Line::Drain,
        [b'!', ..] => Line::Announcement,
        _ if parts(line).is_some() => Line::Answer,
        _ => Line::Unknown,
    }
}

fn parts(line: &[u8]) -> Option<(u32, &[u8])> {
    let blank = memchr::memchr(b' ', line)?;
    let (digits, text) = line.split_at(blank);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, text.get(1..)?))
}

/// Lays each answer, without its number, to the first request with its number that has none yet: a client uses a number
/// again only when its answer has come. Returns the lines that answer nothing as well.
pub(crate) fn lay_out(answers: Vec<Vec<u8>>, exchanges: &[Exchange]) -> (Vec<Option<Vec<u8>>>, Vec<Vec<u8>>) {
    let mut laid = vec![None; exchanges.len()];
    let mut surplus = Vec::new();
    for line in answers {
        let answer = parts(&line).filter(|_| read(&line) == Line::Answer);
        let place = answer.and_then(|(number, text)| {
            let mut places = laid.iter_mut().zip(exchanges);
            let place = places.find(|(place, exchange)| place.is_none() && exchange.number == Some(number));
            place.map(|(place, _)| *place = Some(text.to_owned()))
        });
        if place.is_none() {
            surplus.push(line);
        }
    }
    (laid, surplus)
}

// ---- the plan of a client -------------------------------------------------------------------------------------

/// The steps of a client that puts numbers before its lines, which its exchanges get here.
pub(crate) fn steps(dice: &mut Dice, via: Via, manner: Manner, exchanges: &mut Vec<Exchange>) -> Vec<Step> {
    let in_bursts = matches!(manner, Manner::Waiting | Manner::Bursts);
    double_some(exchanges);
    give_numbers(dice, in_bursts, exchanges);
    let (mut steps, mut bytes) = (Vec::new(), Vec::new());
    if via != Via::Ask {
        bytes.extend(HELLO);
        if dice.percent(50) {
            steps.extend([Step::Send(std::mem::take(&mut bytes)), Step::AwaitWelcome]);
        }
    }
    let mut asked = 0;
    while asked < exchanges.len() {
        let size = match manner {
            Manner::Waiting => 1,
            Manner::Bursts => 1 + dice.below(LONGEST_BURST),
            _ => exchanges.len(),
        };
        let end = (asked + size).min(exchanges.len());
        let asked_now = exchanges.get_mut(asked..end).unwrap_or_default();
        bytes.extend(burst(dice, via, asked_now));
        asked = end;
        if in_bursts {
            steps.push(Step::Send(std::mem::take(&mut bytes)));
            if asked < exchanges.len() {
                steps.push(Step::Await(asked));
            }
        }
    }
    match manner {
        Manner::Waiting | Manner::Bursts => {}
        Manner::GoneInside => {
            bytes.truncate(bytes.len().saturating_sub(1 + dice.below(40)));
            steps.extend([Step::Send(bytes), Step::Pause(dice.pause(20))]);
        }
        Manner::Gone => {
            steps.extend(in_pieces(dice, bytes, 50));
            steps.push(Step::Await(dice.below(exchanges.len())));
            steps.push(Step::Pause(dice.pause(100)));
        }
        Manner::Deaf => steps.extend([Step::Send(bytes), Step::Pause(dice.pause(500))]),
        _ => steps.extend(in_pieces(dice, bytes, 50)),
    }
    let ends_input = match manner {
        Manner::InPieces | Manner::Waiting | Manner::Bursts | Manner::SlowReader => true,
        // No other end of it would come.
        Manner::Idles | Manner::Silent => via == Via::Ask,
        _ => false,
    };
    if ends_input {
        steps.push(Step::EndInput);
    }
    steps
}

/// Puts the second line of those behind the first that a client sends twice under one number.
fn double_some(exchanges: &mut Vec<Exchange>) {
    *exchanges = exchanges
        .drain(..)
        .flat_map(|exchange| {
            let second = (exchange.kind == RequestKind::SameNumber).then(|| exchange.clone());
            [exchange].into_iter().chain(second)
        })
        .collect();
}

/// Other connections have the same numbers. In bursts, all of which are answered before the next one, they are used
/// again.
fn give_numbers(dice: &mut Dice, in_bursts: bool, exchanges: &mut [Exchange]) {
    let random = u32::try_from(dice.roll() >> 32).unwrap_or_default();
    let (first, step) = dice
        .weighted(&[
            ((0, 1), 40),
            ((u32::MAX, 1), 10),
            ((random, 1), 20),
            ((random, random | 1), 30),
        ])
        .unwrap_or((0, 1));
    let different = if in_bursts { LONGEST_BURST } else { usize::MAX };
    let (mut place, mut is_first_of_two) = (0, false);
    for exchange in exchanges {
        is_first_of_two = exchange.kind == RequestKind::SameNumber && !is_first_of_two;
        if exchange.kind != RequestKind::WithoutNumber {
            let multiple = u32::try_from(place % different).unwrap_or_default();
            let number = first.wrapping_add(step.wrapping_mul(multiple));
            exchange.number = Some(number);
        }
        place += usize::from(!is_first_of_two);
    }
}

/// The lines of some requests, and now and then one that cancels one of them.
fn burst(dice: &mut Dice, via: Via, exchanges: &mut [Exchange]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for place in 0..exchanges.len() {
        bytes.extend(exchanges.get(place).map_or_else(Vec::new, Exchange::wire));
        if via == Via::Ask || !bytes.ends_with(b"\n") || !dice.percent(CANCELLED) {
            continue;
        }
        if let Some(exchange) = exchanges.get_mut(dice.below(place + 1))
            && let Some(number) = exchange.number
        {
            exchange.is_cancelled = true;
            bytes.extend(cancel(number));
        }
    }
    bytes
}
