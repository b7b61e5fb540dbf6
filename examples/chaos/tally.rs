//! The results that the clients saw, by mode and by kind of request.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::client::{Outcome, Seen};
use crate::plan::{Plan, shown};
use crate::request::RequestKind;

/// The number of offences that are kept to be shown; all are counted.
const SHOWN: usize = 10;

#[derive(Debug, Default, Clone, Copy)]
struct Row {
    requests: u64,
    answered: u64,
    refused: u64,
    left: u64,
    too_late: u64,
    asked_again: u64,
    wrong: u64,
    lost: u64,
    /// Connections without a request, which the daemon counts where each is a session.
    silent: u64,
}

/// The outcomes of one client, or of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    modes: BTreeMap<&'static str, Row>,
    kinds: BTreeMap<RequestKind, Row>,
    connections: u64,
    longest: Duration,
    offences: Vec<String>,
    /// Clients of ours that ended by a fault of their own.
    broken_down: u64,
}

impl Tally {
    /// Counts the outcomes of a connection. Returns the promise that it broke, if it did.
    pub(crate) fn count(&mut self, mode: &'static str, plan: &Plan, seen: &Seen) -> Option<String> {
        self.connections += 1;
        self.longest = self.longest.max(seen.took);
        self.modes.entry(mode).or_default().silent += u64::from(plan.exchanges.is_empty());
        for (exchange, outcome) in plan.exchanges.iter().zip(&seen.outcomes) {
            self.kinds.entry(exchange.kind).or_default().count(outcome);
            self.modes.entry(mode).or_default().count(outcome);
        }
        if let Some(fault) = &seen.fault {
            let row = self.modes.entry(mode).or_default();
            row.count(fault);
            row.requests -= 1;
        }
        // A fault of the first request mostly explains the others.
        let outcomes = seen.outcomes.iter().chain(&seen.fault);
        let offence = outcomes
            .zip(0..)
            .find_map(|(outcome, place)| Some((place, offence(outcome)?)));
        let (place, what) = offence?;
        let expected = plan.exchanges.get(place).map(|exchange| &exchange.expect);
        let took = seen.took;
        let offence = format!("{mode}: {what} at request {place}, expecting {expected:?}, after {took:?}; {plan:?}");
        self.offend(offence.clone());
        Some(offence)
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (mode, row) in other.modes {
            self.modes.entry(mode).or_default().add(&row);
        }
        for (kind, row) in other.kinds {
            self.kinds.entry(kind).or_default().add(&row);
        }
        self.connections += other.connections;
        self.longest = self.longest.max(other.longest);
        self.broken_down += other.broken_down;
        other.offences.into_iter().for_each(|offence| self.offend(offence));
    }

    /// A client had a fault of its own: what it saw is not known, so nothing is proven.
    pub(crate) fn broke_down(&mut self) {
        self.broken_down += 1;
    }

    fn offend(&mut self, offence: String) {
        if self.offences.len() < SHOWN {
            self.offences.push(offence);
        }
    }

    fn sum(&self) -> Row {
        self.modes.values().fold(Row::default(), |mut sum, row| {
            sum.add(row);
            sum
        })
    }

    /// Returns the number of requests in this mode that were answered, of those whose client left first, and of those
    /// that were refused.
    pub(crate) fn answered_left_refused(&self, mode: &str) -> (u64, u64, u64) {
        let row = self.modes.get(mode).copied().unwrap_or_default();
        (row.answered, row.left, row.refused)
    }

    /// Returns the number of connections in this mode whose client has said nothing.
    pub(crate) fn silent(&self, mode: &str) -> u64 {
        self.modes.get(mode).map_or(0, |row| row.silent)
    }

    /// Broken promises, with what is needed to look into them.
    pub(crate) fn offences(&self) -> Vec<String> {
        let sum = self.sum();
        let mut offences = Vec::new();
        if sum.wrong + sum.lost > 0 {
            offences.push(format!("{} wrong answers, {} silent losses", sum.wrong, sum.lost));
            offences.extend(self.offences.iter().cloned());
        }
        if self.broken_down > 0 {
            offences.push(format!("{} clients of chaos itself broke down", self.broken_down));
        }
        offences
    }
}

/// Returns the promise that an outcome breaks, if it does.
fn offence(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Wrong(bytes) => Some(format!("wrong answer \"{}\"", shown(bytes))),
        Outcome::Lost(how) => Some(format!("silent loss: {how}")),
        _ => None,
    }
}

impl Row {
    fn count(&mut self, outcome: &Outcome) {
        // A request that was not served is sent again, and counted then.
        self.requests += u64::from(*outcome != Outcome::Unserved);
        let count = match outcome {
            Outcome::Answered => &mut self.answered,
            Outcome::Refused => &mut self.refused,
            Outcome::Left | Outcome::Cancelled => &mut self.left,
            Outcome::Unserved => &mut self.asked_again,
            Outcome::TooLate => &mut self.too_late,
            Outcome::Wrong(_) => &mut self.wrong,
            Outcome::Lost(_) => &mut self.lost,
        };
        *count += 1;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused += other.refused;
        self.left += other.left;
        self.too_late += other.too_late;
        self.asked_again += other.asked_again;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.silent += other.silent;
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            answered,
            refused,
            left,
            too_late,
            asked_again,
            wrong,
            lost,
            silent: _,
        } = self;
        writeln!(
            f,
            "{name:<17} {requests:>9} {answered:>9} {refused:>8} {left:>7} {too_late:>8} {asked_again:>11} {wrong:>6} {lost:>6}"
        )
    }
}

const HEAD: &str = "requests  answered  refused    left too-late asked-again  WRONG SILENT";

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<17}  {HEAD}", "kind")?;
        for (kind, row) in &self.kinds {
            row.write(&format!("{kind:?}"), f)?;
        }
        writeln!(f, "\n{:<17}  {HEAD}", "mode")?;
        for (mode, row) in &self.modes {
            row.write(mode, f)?;
        }
        let sum = self.sum();
        sum.write("all", f)?;
        writeln!(
            f,
            "\nrequests        {} on {} connections",
            sum.requests, self.connections
        )?;
        writeln!(f, "answers         {}", sum.answered)?;
        writeln!(f, "wrong answers   {}", sum.wrong)?;
        writeln!(f, "silent losses   {}", sum.lost)?;
        writeln!(f, "refusals        {}", sum.refused)?;
        writeln!(f, "asked again     {}", sum.asked_again)?;
        writeln!(f, "excused         {}", sum.left + sum.too_late)?;
        writeln!(
            f,
            "longest wait    {:?} from the last byte sent to the end",
            self.longest
        )
    }
}
