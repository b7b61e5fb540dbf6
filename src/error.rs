//! The error that ends a command: whose fault it is, the event, and the remedy.
//!
//! The [`Blame`] decides the rest: the level at which the log reports the error, and the exit status when the error
//! ends the program. A failure that costs only one client or one worker is handled by the door that meets it and never
//! becomes an [`Error`].

use std::fmt;
use std::io::{self, ErrorKind};

use log::Level;

/// The exit status when something failed at run time.
pub const RUN_TIME: u8 = 1;
/// The exit status when the command line or the configuration has to be changed first.
pub const USAGE: u8 = 2;

/// The set of exit statuses by which a program that ends tells its supervisor the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExitCodes {
    /// [`RUN_TIME`] and [`USAGE`].
    #[default]
    Iotcpd,
    /// The statuses of sockexec, and of all programs in the tradition of ucspi and daemontools: 111 for a temporary
    /// failure, which may cure itself, and 100 for a permanent one.
    Sockexec,
}

impl ExitCodes {
    /// Returns the status for a failure at run time.
    #[must_use]
    pub const fn run_time(self) -> u8 {
        match self {
            Self::Iotcpd => RUN_TIME,
            Self::Sockexec => 111,
        }
    }

    /// Returns the status for a command line or a configuration that has to be changed first.
    #[must_use]
    pub const fn usage(self) -> u8 {
        match self {
            Self::Iotcpd => USAGE,
            Self::Sockexec => 100,
        }
    }
}

/// The party that has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The peer at the other end of a socket.
    Peer,
    /// The program behind a door.
    Worker,
    /// The author of the command line or of the configuration.
    Operator,
    /// The machine: addresses, files, memory, limits.
    System,
    /// This program.
    Bug,
}

impl Blame {
    /// Returns the level at which the log reports it. Faults that a stranger can cause at will never reach `warn`.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Peer => Level::Info,
            Self::Worker => Level::Warn,
            Self::Operator | Self::System | Self::Bug => Level::Error,
        }
    }

    /// Returns the exit status of a program that ends because of it.
    #[must_use]
    pub const fn exit_status(self, codes: ExitCodes) -> u8 {
        match self {
            Self::Operator => codes.usage(),
            Self::Peer | Self::Worker | Self::System | Self::Bug => codes.run_time(),
        }
    }
}

/// The reason why a command ended. The text says what was attempted, on what object, and what went wrong; then, after a
/// semicolon, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    blame: Blame,
    text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// The event and its remedy in one text.
    Said(String),
    /// One or more such texts, a line each, and each line begins with its place in a file.
    Placed(Vec<String>),
}

impl Error {
    /// Creates an error to be blamed on `blame`; `what` is the event, `remedy` is the advice.
    #[must_use]
    pub fn new(blame: Blame, what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            blame,
            text: Text::Said(format!("{what}; {remedy}")),
        }
    }

    /// Creates an error from a text that holds its remedy already.
    #[must_use]
    pub fn with_remedy(blame: Blame, text: impl fmt::Display) -> Self {
        Self {
            blame,
            text: Text::Said(text.to_string()),
        }
    }

    /// Creates an error from one or more mistakes of the operator: a line each, which begins with the place of the
    /// mistake and ends with its remedy.
    #[must_use]
    pub const fn mistakes(lines: Vec<String>) -> Self {
        Self {
            blame: Blame::Operator,
            text: Text::Placed(lines),
        }
    }

    /// Returns the party that has to act.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        self.blame
    }

    /// Returns the text for a terminal. A line with a place in a file begins with that place, so that an editor can
    /// jump to it; any other text begins with the name of the program.
    #[must_use]
    pub fn for_terminal(&self) -> String {
        match &self.text {
            Text::Said(text) => format!("iotcpd: {text}\n"),
            Text::Placed(lines) => lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Text::Said(text) => out.write_str(text),
            Text::Placed(lines) => out.write_str(&lines.join("\n")),
        }
    }
}

impl std::error::Error for Error {}

/// The cause of a failed system call, small enough to be part of an event. It prints the words of strerror(3), which
/// are well known, and not those of [`ErrorKind`] ("entity not found"), which are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An error number.
    System(i32),
    /// A kind of error that std itself has made up.
    Other(ErrorKind),
}

impl From<&io::Error> for Reason {
    fn from(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| error.kind().into(), Self::System)
    }
}

impl From<ErrorKind> for Reason {
    fn from(kind: ErrorKind) -> Self {
        let errno = match kind {
            ErrorKind::NotFound => libc::ENOENT,
            ErrorKind::PermissionDenied => libc::EACCES,
            ErrorKind::ConnectionRefused => libc::ECONNREFUSED,
            ErrorKind::ConnectionReset => libc::ECONNRESET,
            ErrorKind::ConnectionAborted => libc::ECONNABORTED,
            ErrorKind::NotConnected => libc::ENOTCONN,
            ErrorKind::AddrInUse => libc::EADDRINUSE,
            ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
            ErrorKind::BrokenPipe => libc::EPIPE,
            ErrorKind::AlreadyExists => libc::EEXIST,
            ErrorKind::WouldBlock => libc::EAGAIN,
            ErrorKind::InvalidInput => libc::EINVAL,
            ErrorKind::TimedOut => libc::ETIMEDOUT,
            ErrorKind::Interrupted => libc::EINTR,
            ErrorKind::OutOfMemory => libc::ENOMEM,
            ErrorKind::HostUnreachable => libc::EHOSTUNREACH,
            ErrorKind::NetworkUnreachable => libc::ENETUNREACH,
            other => return Self::Other(other),
        };
        Self::System(errno)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(errno) => out.write_str(&error_text(&io::Error::from_raw_os_error(*errno))),
            Self::Other(kind) => kind.fmt(out),
        }
    }
}

/// Returns the text of an error for people: without the number that std appends to the words of the system, and without
/// the words that std puts before those of the resolver.
#[must_use]
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    if let Some(errno) = error.raw_os_error() {
        let number = format!(" (os error {errno})");
        return text.strip_suffix(&number).map_or_else(|| text.clone(), str::to_owned);
    }
    if error.get_ref().is_none() && text == error.kind().to_string() {
        return Reason::from(error.kind()).to_string();
    }
    let resolver = "failed to lookup address information: ";
    text.strip_prefix(resolver).map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_quoted_in_its_own_words() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(error_text(&missing), "No such file or directory");
        assert_eq!(Reason::from(&missing).to_string(), "No such file or directory");
        assert_eq!(error_text(&ErrorKind::NotFound.into()), "No such file or directory");
        assert_eq!(
            Reason::from(ErrorKind::ConnectionRefused),
            Reason::System(libc::ECONNREFUSED)
        );
        assert_eq!(error_text(&io::Error::other("something else")), "something else");
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(error_text(&unknown), "Name or service not known");
        assert_eq!(
            Reason::from(ErrorKind::WriteZero).to_string(),
            ErrorKind::WriteZero.to_string()
        );
    }

    #[test]
    fn blame_decides_level_and_exit_status() {
        for (blame, level, status, as_sockexec) in [
            (Blame::Operator, Level::Error, 2, 100),
            (Blame::System, Level::Error, 1, 111),
            (Blame::Worker, Level::Warn, 1, 111),
            (Blame::Peer, Level::Info, 1, 111),
            (Blame::Bug, Level::Error, 1, 111),
        ] {
            assert_eq!(blame.level(), level);
            assert_eq!(blame.exit_status(ExitCodes::Iotcpd), status);
            assert_eq!(blame.exit_status(ExitCodes::Sockexec), as_sockexec);
        }
    }

    #[test]
    fn the_text_ends_in_the_remedy() {
        let error = Error::new(
            Blame::System,
            "cannot listen on [::1]:9991: address in use",
            "stop the other program",
        );
        assert_eq!(
            error.to_string(),
            "cannot listen on [::1]:9991: address in use; stop the other program"
        );
        assert_eq!(error.for_terminal(), format!("iotcpd: {error}\n"));
        let mistakes = Error::mistakes(vec!["f:1:1: a; b".into(), "f:2:1: c; d".into()]);
        assert_eq!(mistakes.to_string(), "f:1:1: a; b\nf:2:1: c; d");
        assert_eq!(mistakes.for_terminal(), "f:1:1: a; b\nf:2:1: c; d\n");
    }
}
