//! The description of a child as data. Nothing here touches the system, so a configuration can be lowered, compared and
//! tested.
//!
//! A [`ProcessSpec`] is a [`Command`] and its [`SpawnContext`]. The configuration makes it, a door keeps it, and it is
//! given to [`PreparedProgram::prepare`](super::spawn::PreparedProgram::prepare). A door whose clients choose the
//! command keeps only the context, for a [`Spawner`](super::spawn::Spawner). Equal specs mean the same child, which is
//! how a reload notices a change. User and group names are numbers here already: see [`identity`](super::identity).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::limits::ResourceLimits;
use super::stderr_log::printable;
use super::strings::Strings;

/// The number of characters after which a command is cut in messages.
const MAX_SHOWN: usize = 160;

/// A program and everything that it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program and its arguments.
    pub command: Command,
    /// Everything else: user, environment, limits and so on.
    pub context: SpawnContext,
}

impl ProcessSpec {
    /// Returns the spec of a program whose context is the daemon's own.
    ///
    /// # Errors
    /// [`EmptyCommand`] if there is no program name.
    pub fn new(words: Vec<OsString>) -> Result<Self, EmptyCommand> {
        Ok(Self {
            command: Command::new(words)?,
            context: SpawnContext::default(),
        })
    }
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program's name or path, then its arguments. Never empty, and private for that reason.
    words: Vec<OsString>,
    /// The program's `argv[0]`; `None` if that is the name by which it is looked up.
    pub argv0: Option<OsString>,
    /// Variables that describe the client, as assignments `NAME=VALUE`. They replace other variables with the same
    /// names, each of which [tells of a client](tells_of_a_client).
    pub client_variables: Strings,
}

impl Command {
    /// Returns the command of these words: the program's name or path, then its arguments.
    ///
    /// # Errors
    /// [`EmptyCommand`] if there is no program name.
    pub fn new(words: Vec<OsString>) -> Result<Self, EmptyCommand> {
        if words.first().is_none_or(|program| program.is_empty()) {
            return Err(EmptyCommand);
        }
        Ok(Self {
            words,
            argv0: None,
            client_variables: Strings::default(),
        })
    }

    /// Returns this command with more arguments at its end.
    #[must_use]
    pub fn with(&self, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut command = self.clone();
        command.words.extend(arguments);
        command
    }

    /// Returns the program's name or path and its arguments, as written. There is at least one word.
    #[must_use]
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Returns the program's name or path, as written.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        self.words.first().map_or_else(|| OsStr::new(""), OsString::as_os_str)
    }

    /// Returns the program's `argv`.
    pub fn argv(&self) -> impl Iterator<Item = &OsStr> + Clone {
        let name = self.argv0.as_deref().unwrap_or_else(|| self.program());
        let arguments = self.words.iter().skip(1);
        std::iter::once(name).chain(arguments.map(OsString::as_os_str))
    }
}

/// The command as it could be typed into a shell, on one line. A long one is cut.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words.iter().map(|word| word.to_string_lossy());
        let text = printable(shell_words::join(words).as_bytes(), "");
        match text.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => write!(f, "{}...", text.get(..end).unwrap_or_default()),
            None => f.write_str(&text),
        }
    }
}

/// Everything that a child is started with, whatever its program is. By default all of it is the daemon's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpawnContext {
    /// The working directory; `None` for the daemon's. A relative program path begins here, as in a shell after `cd`.
    pub working_directory: Option<PathBuf>,
    /// The environment variables.
    pub environment: Environment,
    /// The user id; `None` for the daemon's.
    pub user: Option<u32>,
    /// The group id; `None` for the daemon's.
    pub group: Option<u32>,
    /// The supplementary groups, which are set if `user` or `group` is: another user never inherits the daemon's own.
    pub supplementary_groups: Vec<u32>,
    /// The resource limits.
    pub limits: ResourceLimits,
    /// The nice value, from −20 (served first) to 19; `None` for the daemon's.
    pub nice: Option<i32>,
    /// True if standard input and output, where they would be pipes, are a terminal of the child's own: raw, without
    /// echo, 24 lines of 80 characters, and its controlling terminal.
    pub terminal: bool,
    /// True if the child and its descendants can never gain privileges by an exec (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// True if processes that the child has left in its process group go on after its exit. Otherwise they are ended.
    pub leave_background: bool,
    /// The only files that the child and its descendants may open; `None` for all that its user may open. Implies
    /// `no_new_privileges`.
    pub sandbox: Option<Sandbox>,
}

/// The files that a child in a [sandbox](super::sandbox) may open, in addition to the files that every program needs.
/// Absolute paths of files, or of directories with everything below them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// May be read and executed.
    pub read: Vec<PathBuf>,
    /// May be read, written, created and removed, but not executed.
    pub write: Vec<PathBuf>,
}

/// The error for a command without a program name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyCommand;

impl fmt::Display for EmptyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command is empty; give a program, and its arguments after it")
    }
}

impl std::error::Error for EmptyCommand {}

/// The environment variables of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The variables that the others are based on.
    pub base: EnvironmentBase,
    /// The names to remove from the base.
    pub removed: BTreeSet<OsString>,
    /// The variables to add or replace, after `removed` was applied.
    pub set: BTreeMap<OsString, OsString>,
}

/// The sets of variables that a child's environment can be based on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EnvironmentBase {
    /// The daemon's own variables, except the ones that its supervisor meant for it alone ([`ADDRESSED_TO_THE_DAEMON`])
    /// and the ones about the client of the program that started the daemon ([`tells_of_a_client`]).
    #[default]
    Inherited,
    /// No variables.
    Cleared,
}

/// The variables that are meant for the daemon alone: those by which systemd addresses a service (`sd_listen_fds(3)`,
/// `sd_notify(3)`, `sd_watchdog_enabled(3)`) and those by which a daemon addresses its successor
/// ([`successor`](super::successor)). A child that obeyed them would take the daemon's sockets, or report in the
/// daemon's name. The [sign](super::signs) of a run that the daemon itself belongs to is among them, because a child
/// gets it together with its own.
pub const ADDRESSED_TO_THE_DAEMON: [&str; 9] = [
    "IOTCPD_HANDOVER",
    "IOTCPD_LINKS",
    super::signs::VARIABLE,
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

impl Environment {
    /// Returns the variables of a child when the daemon's own are `own`, each name once.
    #[must_use]
    pub fn resolve(&self, own: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
        let mut variables: BTreeMap<_, _> = match self.base {
            EnvironmentBase::Cleared => BTreeMap::new(),
            EnvironmentBase::Inherited => own
                .filter(|(name, _)| !is_for_the_daemon(name) && !tells_of_a_client(name))
                .collect(),
        };
        variables.retain(|name, _| !self.removed.contains(name));
        variables.extend(self.set.iter().map(|(name, value)| (name.clone(), value.clone())));
        variables
    }
}

/// Returns true for a variable by which UCSPI programs learn of their client (tcp-environ(5) of ucspi-tcp,
/// s6-tcpserver, s6-ipcserver), or of its TLS. In the daemon's own environment it describes another client.
#[must_use]
pub fn tells_of_a_client(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let families: [&[u8]; 7] = [
        b"TCPREMOTE",
        b"TCPLOCAL",
        b"TCPCONNNUM",
        b"IPCREMOTE",
        b"IPCLOCAL",
        b"IPCCONNNUM",
        b"IOTCPD_TLS_",
    ];
    name == b"PROTO" || families.iter().any(|family| name.starts_with(family))
}

fn is_for_the_daemon(name: &OsStr) -> bool {
    ADDRESSED_TO_THE_DAEMON.iter().any(|ours| name == *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        let owned: Vec<_> = list.iter().map(|(name, value)| (name.into(), value.into())).collect();
        owned.into_iter()
    }

    #[test]
    fn a_command_without_a_program_is_refused() {
        assert_eq!(ProcessSpec::new(vec![]), Err(EmptyCommand));
        assert_eq!(ProcessSpec::new(vec!["".into(), "x".into()]), Err(EmptyCommand));
        let spec = ProcessSpec::new(vec!["cat".into()]).unwrap();
        assert_eq!(spec.command.program(), "cat");
    }

    #[test]
    fn a_program_may_be_told_another_name_than_it_is_looked_up_by() {
        let mut command = Command::new(["/bin/busybox", "-l"].map(Into::into).to_vec()).unwrap();
        assert!(command.argv().eq(["/bin/busybox", "-l"]));
        command.argv0 = Some("ls".into());
        assert!(command.argv().eq(["ls", "-l"]));
        assert_eq!(command.program(), "/bin/busybox");
    }

    #[test]
    fn variables_are_removed_before_they_are_set() {
        let environment = Environment {
            base: EnvironmentBase::Inherited,
            removed: ["A".into(), "B".into()].into(),
            set: [("B".into(), "2".into())].into(),
        };
        let got = environment.resolve(pairs(&[("A", "1"), ("B", "1"), ("C", "1"), ("NOTIFY_SOCKET", "/x")]));
        assert_eq!(got, pairs(&[("B", "2"), ("C", "1")]).collect());
    }

    #[test]
    fn variables_about_a_client_of_the_daemons_starter_are_not_inherited() {
        let own = pairs(&[
            ("PROTO", "TCP"),
            ("TCPREMOTEIP", "192.0.2.1"),
            ("TCPREMOTEINFO", ""),
            ("TCPLOCALHOST", "x"),
            ("IPCREMOTEPATH", "/x"),
            ("IPCCONNNUM", "1"),
            ("IOTCPD_TLS_SUBJECT", "CN=x"),
            ("PROTOCOL", "1"),
            ("TCP", "1"),
        ]);
        let got = Environment::default().resolve(own);
        assert_eq!(got, pairs(&[("PROTOCOL", "1"), ("TCP", "1")]).collect());
    }

    #[test]
    fn a_cleared_environment_has_only_what_is_set() {
        let set = [("B".into(), "2".into())].into();
        let environment = Environment {
            base: EnvironmentBase::Cleared,
            set,
            ..Default::default()
        };
        assert_eq!(
            environment.resolve(pairs(&[("A", "1")])),
            pairs(&[("B", "2")]).collect()
        );
    }
}
