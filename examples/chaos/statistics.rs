//! The daemon's own counts: blocks of statistics, one for each pool.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Sender;

const BEGIN: &str = " --- statistics ---- >8 -------";
const END: &str = " --- statistics ---- 8< -------";

/// One block, or several added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    pub(crate) name: String,
    rows: HashMap<String, u64>,
}

impl Statistics {
    pub(crate) fn count(&self, label: &str) -> u64 {
        self.rows.get(label).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (label, value) in &other.rows {
            *self.rows.entry(label.clone()).or_default() += value;
        }
    }

    /// The counts whose labels begin with `beginning`, sorted, in words.
    pub(crate) fn all_of(&self, beginning: &str) -> String {
        let rows = self.rows.iter().filter(|(_, value)| **value > 0);
        let mut rows: Vec<String> = rows
            .filter_map(|(label, value)| Some(format!("{} {value}", label.strip_prefix(beginning)?.trim())))
            .collect();
        rows.sort();
        rows.join(", ")
    }

    /// Requests that have neither been answered nor refused nor abandoned. `None`: the counters do not add up.
    pub(crate) fn in_hand(&self) -> Option<u64> {
        let over = ["queries replied", "queries failed", "queries timeout"];
        let over: u64 = over.iter().map(|label| self.count(label)).sum();
        self.count("queries total").checked_sub(over)
    }

    /// Returns true if all requests in hand are in the queue or with a worker, where each worker has one at a time.
    pub(crate) fn is_in_place(&self, in_hand: u64) -> bool {
        let waiting = self.count("queue length");
        // Of the busy workers, some may be watched after a long request, or probed, and have none.
        let busy = self.count("daemon S_BUSY").checked_sub(self.count("workers draining"));
        busy.is_some_and(|busy| (waiting..=waiting + busy).contains(&in_hand))
    }
}

/// Passes on every block, until the end of the output or until the receiver is gone.
pub(crate) fn read_blocks(stdout: impl Read, blocks: &Sender<Statistics>) {
    let mut block: Option<Statistics> = None;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match (line.as_str(), &mut block) {
            (BEGIN, _) => block = Some(Statistics::default()),
            (END, _) => {
                if block.take().is_some_and(|block| blocks.send(block).is_err()) {
                    return;
                }
            }
            (line, Some(statistics)) => {
                let Some((label, value)) = line.rsplit_once(' ') else {
                    continue;
                };
                match (label.trim_end(), value.parse()) {
                    ("name", _) => value.clone_into(&mut statistics.name),
                    (label, Ok(value)) => drop(statistics.rows.insert(label.to_owned(), value)),
                    _ => {}
                }
            }
            // The dump of USR2.
            (_, None) => {}
        }
    }
}
