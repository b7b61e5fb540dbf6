//! What ends a command: whose fault it is, what happened, and what to do about it.
//!
//! The blame decides the rest: how loudly it is said in the log, and the exit status when it ends the program. Errors
//! that only cost one client or one worker stay with the door that meets them and never become an [`Error`].

use std::fmt;
use std::io::{self, ErrorKind};

use log::Level;

/// The exit status when something failed at run time.
pub const RUN_TIME: u8 = 1;
/// The exit status when the command line or the configuration has to be changed first.
pub const USAGE: u8 = 2;

/// By which numbers a program that ends tells its supervisor why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExitCodes {
    /// [`RUN_TIME`] and [`USAGE`].
    #[default]
    Iotcpd,
    /// Those of sockexec, and of all programs in the manner of ucspi and daemontools: 111 for what may be mended by itself, 100
    /// for what never will be.
    Sockexec,
}

impl ExitCodes {
    /// Something failed at run time.
    #[must_use]
    pub const fn run_time(self) -> u8 {
        match self {
            Self::Iotcpd => RUN_TIME,
            Self::Sockexec => 111,
        }
    }

    /// The command line or the configuration has to be changed first.
    #[must_use]
    pub const fn usage(self) -> u8 {
        match self {
            Self::Iotcpd => USAGE,
            Self::Sockexec => 100,
        }
    }
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Someone at the other end of a socket.
    Peer,
    /// The program behind a door.
    Worker,
    /// Whoever wrote the command line or the configuration.
    Operator,
    /// The machine: addresses, files, memory, limits.
    System,
    /// This program.
    Bug,
}

impl Blame {
    /// How loudly it is said. What strangers can cause at will never reaches `warn`.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Peer => Level::Info,
            Self::Worker => Level::Warn,
            Self::Operator | Self::System | Self::Bug => Level::Error,
        }
    }

    /// The exit status of a program that ends for it.
    #[must_use]
    pub const fn exit_status(self, codes: ExitCodes) -> u8 {
        match self {
            Self::Operator => codes.usage(),
            Self::Peer | Self::Worker | Self::System | Self::Bug => codes.run_time(),
        }
    }
}

/// Why a command ended. Its text says what was attempted, on what, what went wrong; then, behind a semicolon, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    blame: Blame,
    text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// What happened and what to do.
    Said(String),
    /// The same, a line each, and each with its place in front.
    Placed(Vec<String>),
}

impl Error {
    /// An error to be blamed on `blame`; `what` happened, `remedy` is what to do about it.
    #[must_use]
    pub fn new(blame: Blame, what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            blame,
            text: Text::Said(format!("{what}; {remedy}")),
        }
    }

    /// An error whose text was written by somebody who knew the remedy, and holds it.
    #[must_use]
    pub fn with_remedy(blame: Blame, text: impl fmt::Display) -> Self {
        Self {
            blame,
            text: Text::Said(text.to_string()),
        }
    }

    /// Mistakes of the operator's, one or more: a line each, which begins with the place of the mistake and ends in its
    /// remedy.
    #[must_use]
    pub const fn mistakes(lines: Vec<String>) -> Self {
        Self {
            blame: Blame::Operator,
            text: Text::Placed(lines),
        }
    }

    /// Who has to act.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        self.blame
    }

    /// As it stands on a terminal: what has a place in a file begins with it, so that an editor can go there; anything
    /// else begins with the name of the program.
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

/// What the system said when something failed, small enough to be part of an event. In the words of strerror(3), whose text
/// people know; those of [`ErrorKind`] ("entity not found") nobody has met before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An error number.
    System(i32),
    /// One that std has made up itself.
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
            Self::System(errno) => out.write_str(&words(&io::Error::from_raw_os_error(*errno))),
            Self::Other(kind) => kind.fmt(out),
        }
    }
}

/// What an error says, for people: without the number that std puts behind the words of the system, and without the words
/// that it puts before those of the resolver.
#[must_use]
pub fn words(error: &io::Error) -> String {
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
        assert_eq!(words(&missing), "No such file or directory");
        assert_eq!(Reason::from(&missing).to_string(), "No such file or directory");
        assert_eq!(words(&ErrorKind::NotFound.into()), "No such file or directory");
        assert_eq!(
            Reason::from(ErrorKind::ConnectionRefused),
            Reason::System(libc::ECONNREFUSED)
        );
        assert_eq!(words(&io::Error::other("something else")), "something else");
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(words(&unknown), "Name or service not known");
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
