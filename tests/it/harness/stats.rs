//! The USR1 block as data: markers, labels and values as iotcpd 1.1 printed them.

/// The line before a statistics block.
pub(crate) const BEGIN: &str = " --- statistics ---- >8 -------";
/// The line behind it.
pub(crate) const END: &str = " --- statistics ---- 8< -------";

/// One block. A label is everything before the last blank of its line, as scripts written for iotcpd 1.1 cut it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatsBlock {
    /// The lines between the markers, untouched.
    pub(crate) lines: Vec<String>,
}

impl StatsBlock {
    /// Takes the first whole block out of what was written to standard output.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text
            .lines()
            .skip_while(|line| *line != BEGIN)
            .skip(1)
            .map(str::to_owned);
        let body = lines.by_ref().scan((), |(), line| (line != END).then_some(line));
        let body: Vec<String> = body.collect();
        let whole = text.lines().skip_while(|line| *line != BEGIN).any(|line| line == END);
        whole.then_some(Self { lines: body })
    }

    /// The labels in their order.
    pub(crate) fn labels(&self) -> Vec<&str> {
        self.pairs().map(|(label, _)| label).collect()
    }

    /// The value of a label, as text.
    pub(crate) fn get(&self, label: &str) -> Option<&str> {
        self.pairs().find(|(found, _)| *found == label).map(|(_, value)| value)
    }

    /// The value of a label that counts something.
    #[track_caller]
    pub(crate) fn count(&self, label: &str) -> u64 {
        let value = self
            .get(label)
            .unwrap_or_else(|| panic!("no line {label:?} in {self:#?}"));
        value
            .parse()
            .unwrap_or_else(|error| panic!("{label:?} is {value:?}: {error}"))
    }

    /// The number of requests whose time was measured, however long they took.
    #[track_caller]
    pub(crate) fn measured(&self) -> u64 {
        let is_span = |label: &&str| {
            let span = label.strip_prefix("queries ");
            span.is_some_and(|span| span.starts_with(|first: char| first.is_ascii_digit()))
        };
        self.labels()
            .into_iter()
            .filter(is_span)
            .map(|label| self.count(label))
            .sum()
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| {
            let (label, value) = line.rsplit_once(char::is_whitespace)?;
            Some((label.trim_end(), value))
        })
    }
}

#[test]
fn a_block_of_the_old_program_is_read() {
    let text = format!(
        "noise\n{BEGIN}\nqueries total      855997\nqueries 0-100      657411\nqueries 1000-      343\n\
         daemon S_BUSY      5\nuptime   7916\nversion  1.1b103\n{END}\nmore noise\n"
    );
    let block = StatsBlock::parse(&text).unwrap();
    assert_eq!(
        block.labels(),
        [
            "queries total",
            "queries 0-100",
            "queries 1000-",
            "daemon S_BUSY",
            "uptime",
            "version"
        ]
    );
    assert_eq!(block.count("queries 1000-"), 343);
    assert_eq!(block.measured(), 657_754);
    assert_eq!(block.count("uptime"), 7916);
    assert_eq!(block.get("version"), Some("1.1b103"));
    assert_eq!(block.get("queries"), None);
}

#[test]
fn half_a_block_is_none() {
    assert_eq!(StatsBlock::parse(&format!("{BEGIN}\nqueries total      1\n")), None);
    assert_eq!(StatsBlock::parse(&format!("queries total      1\n{END}\n")), None);
}
