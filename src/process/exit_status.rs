//! The exit status of a child, and its form in the log.

use std::fmt;

use nix::sys::signal::Signal;

/// The exit status of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// The child returned from `main` or called `exit`: 0 to 255.
    Code(i32),
    /// A signal ended the child.
    Signal {
        /// The signal's number, including real-time signals.
        number: i32,
        /// True if it left a core dump.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// Returns true if the child exited by itself with status 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal { number, core_dumped } => {
                write!(f, "signal {number}")?;
                if let Ok(signal) = Signal::try_from(number) {
                    write!(f, " ({signal})")?;
                }
                f.write_str(if core_dumped { ", core dumped" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_the_log_has_it() {
        let signal = |number, core_dumped| ExitStatus::Signal { number, core_dumped };
        assert_eq!(ExitStatus::Code(1).to_string(), "exit status 1");
        assert_eq!(signal(9, false).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(signal(11, true).to_string(), "signal 11 (SIGSEGV), core dumped");
        assert_eq!(signal(40, false).to_string(), "signal 40");
    }

    #[test]
    fn only_zero_is_success() {
        assert!(ExitStatus::Code(0).success());
        assert!(!ExitStatus::Code(1).success());
        assert!(
            !ExitStatus::Signal {
                number: 9,
                core_dumped: false
            }
            .success()
        );
    }
}
