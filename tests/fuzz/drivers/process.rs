//! The standard error of children.

use std::time::{Duration, Instant};

use super::Choices;
use iotcpd::internals::process::{LINES_PER_SECOND, MAX_LINE, StderrLog};

/// The most bytes that one byte of a child may become (`\x1b`).
const LONGEST_ESCAPE: usize = 4;
/// Room for the words that say that a line was cut.
const MARK: usize = 16;

/// `StderrLog`: four bytes cut the rest, and make time pass between the pieces. Every line in the log is one line of
/// bounded length and free of control characters, and every line of the child is in the log or among the lines counted
/// as left out.
///
/// An input that holds "left out" itself is skipped: its lines could not be told from the ones that count.
pub fn fuzz_stderr_log(input: &[u8]) {
    if input.windows(8).any(|window| window == b"left out") {
        return;
    }
    let mut choices = Choices::new(input);
    let cuts = choices.take(4);
    let step = Duration::from_millis(u64::from(choices.byte()) * 4);
    let repeat = choices.below(8);
    let child = choices.take(usize::MAX).repeat(1 + repeat * repeat);
    let mut now = Instant::now();
    let (mut log, mut heard) = (StderrLog::new(now), Vec::new());
    let mut told = 0;
    for piece in Choices::new(&child).pieces(cuts) {
        log.feed(piece, now, &mut |line| heard.push(line.to_owned()));
        now += step;
        if let Some(deadline) = log.deadline().filter(|deadline| *deadline <= now) {
            log.on_deadline(deadline, &mut |line| heard.push(line.to_owned()));
            assert_eq!(log.deadline(), None, "what was told is not told again");
            told += 1;
        }
    }
    log.close(now, &mut |line| heard.push(line.to_owned()));
    check_lines(&heard);
    check_account(&child, &heard);
    let most = usize::try_from(LINES_PER_SECOND).unwrap_or(usize::MAX);
    if step.is_zero() {
        assert!(
            told == 0 && heard.len() <= most + 1,
            "{} lines in one moment",
            heard.len()
        );
    }
}

fn check_lines(heard: &[String]) {
    for line in heard {
        assert!(line.len() <= MAX_LINE * LONGEST_ESCAPE + MARK, "{} bytes", line.len());
        let upsets = |c: char| c.is_control() && c != '\t' || matches!(c, '\u{2028}'..='\u{202e}');
        assert!(!line.is_empty() && !line.contains(upsets), "{line:?}");
    }
}

fn check_account(child: &[u8], heard: &[String]) {
    let written = child
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && *line != b"\r")
        .count();
    let accounted: usize = heard.iter().map(|line| left_out(line).unwrap_or(1)).sum();
    assert_eq!(accounted, written, "every line is in the log or counted");
}

fn left_out(line: &str) -> Option<usize> {
    let (count, _) = line.strip_suffix(" left out")?.split_once(' ')?;
    count.parse().ok()
}
