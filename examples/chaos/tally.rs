//! What the clients saw, by kind of request.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::client::Outcome;
use crate::plan::{Kind, Plan, shown};

/// How many offences are kept to be shown; all are counted.
const SHOWN: usize = 10;

#[derive(Debug, Default, Clone, Copy)]
struct Row {
    connections: u64,
    answered: u64,
    refused: u64,
    closed: u64,
    left: u64,
    too_late: u64,
    wrong: u64,
    lost: u64,
}

/// The outcomes of one client, or of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rows: BTreeMap<Kind, Row>,
    longest: Duration,
    offences: Vec<String>,
    /// Clients of ours that ended by a fault of their own.
    broken_down: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, plan: &Plan, outcome: &Outcome, took: Duration) {
        let row = self.rows.entry(plan.kind).or_default();
        row.connections += 1;
        let count = match outcome {
            Outcome::Answered => &mut row.answered,
            Outcome::Refused => &mut row.refused,
            Outcome::Closed => &mut row.closed,
            Outcome::Left => &mut row.left,
            Outcome::TooLate => &mut row.too_late,
            Outcome::Wrong(_) => &mut row.wrong,
            Outcome::Lost(_) => &mut row.lost,
        };
        *count += 1;
        self.longest = self.longest.max(took);
        match outcome {
            Outcome::Wrong(bytes) => {
                let bytes = shown(bytes);
                self.offend(format!("wrong answer to {plan:?} after {took:?}: \"{bytes}\""));
            }
            Outcome::Lost(how) => self.offend(format!("silent loss of {plan:?} after {took:?}: {how}")),
            _ => {}
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (kind, row) in other.rows {
            let sum = self.rows.entry(kind).or_default();
            *sum = sum.plus(&row);
        }
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
        self.rows.values().fold(Row::default(), |sum, row| sum.plus(row))
    }

    pub(crate) fn answered(&self) -> u64 {
        self.sum().answered
    }

    pub(crate) fn left(&self) -> u64 {
        self.sum().left
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

impl Row {
    fn plus(&self, other: &Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            closed: self.closed + other.closed,
            left: self.left + other.left,
            too_late: self.too_late + other.too_late,
            wrong: self.wrong + other.wrong,
            lost: self.lost + other.lost,
        }
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            answered,
            refused,
            closed,
            left,
            too_late,
            wrong,
            lost,
        } = self;
        writeln!(
            f,
            "{name:<15} {connections:>9} {answered:>9} {refused:>9} {closed:>7} {left:>7} {too_late:>8} {wrong:>6} {lost:>6}"
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "what clients saw   requests  answered   refused  closed    left too-late  WRONG SILENT"
        )?;
        for (kind, row) in &self.rows {
            row.write(&format!("{kind:?}"), f)?;
        }
        self.sum().write("all", f)?;
        let sum = self.sum();
        writeln!(f, "\nrequests        {}", sum.connections)?;
        writeln!(f, "answers         {}", sum.answered)?;
        writeln!(f, "wrong answers   {}", sum.wrong)?;
        writeln!(f, "silent losses   {}", sum.lost)?;
        writeln!(f, "refusals        {}", sum.refused)?;
        writeln!(f, "excused         {}", sum.closed + sum.left + sum.too_late)?;
        writeln!(
            f,
            "longest wait    {:?} from the last byte sent to the end",
            self.longest
        )
    }
}
