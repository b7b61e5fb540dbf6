//! What to spawn, as data: nothing here touches the system, so a configuration can be lowered, compared and tested.
//!
//! A spec is made by `config`, kept by the door that runs it, and given to [`PreparedProgram::prepare`](super::spawn::PreparedProgram). It
//! is a [`Command`] in its [`SpawnContext`]; a door whose clients bring the command keeps the context alone, for a
//! [`Spawner`](super::spawn::Spawner). Two equal ones mean the same child, which is how a reload sees whether anything has
//! changed. User and group names are numbers here already: see [`identity`](super::identity).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::limits::ResourceLimits;
use super::stderr_log::printable;

/// So many characters of a command are shown to people.
const SHOWN: usize = 160;

/// A program and everything it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// What is run.
    pub command: Command,
    /// What it finds around it.
    pub context: SpawnContext,
}

impl ProcessSpec {
    /// A program with its arguments, otherwise as the daemon is.
    ///
    /// # Errors
    /// [`EmptyCommand`] when there is no program name.
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
    /// The program's name or path, then its arguments. Never empty, which is why it is private.
    words: Vec<OsString>,
    /// What the program is told that it is called, its `argv[0]`; `None`: what it is looked up by.
    pub argv0: Option<OsString>,
    /// What it is told of the client that has asked for it: assignments, `NAME=VALUE`, in place of any other variables of these
    /// names.
    pub client_variables: Vec<CString>,
}

impl Command {
    /// The program's name or path, then its arguments.
    ///
    /// # Errors
    /// [`EmptyCommand`] when there is no program name.
    pub fn new(words: Vec<OsString>) -> Result<Self, EmptyCommand> {
        if words.first().is_none_or(|program| program.is_empty()) {
            return Err(EmptyCommand);
        }
        Ok(Self {
            words,
            argv0: None,
            client_variables: Vec::new(),
        })
    }

    /// The same with more arguments behind its own.
    #[must_use]
    pub fn with(&self, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut command = self.clone();
        command.words.extend(arguments);
        command
    }

    /// The program's name or path, then its arguments, as written; at least one element.
    #[must_use]
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// The program as written.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        self.words.first().map_or_else(|| OsStr::new(""), OsString::as_os_str)
    }

    /// What the program is given: its `argv`.
    pub fn argv(&self) -> impl Iterator<Item = &OsStr> {
        let name = self.argv0.as_deref().unwrap_or_else(|| self.program());
        let arguments = self.words.iter().skip(1);
        std::iter::once(name).chain(arguments.map(OsString::as_os_str))
    }
}

/// As it could be typed into a shell, on one line; of a long one the beginning.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words.iter().map(|word| word.to_string_lossy());
        let text = printable(shell_words::join(words).as_bytes(), "");
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}...", text.get(..end).unwrap_or_default()),
            None => f.write_str(&text),
        }
    }
}

/// What a child finds around it, whatever program it is. The default is to be as the daemon is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpawnContext {
    /// Where it runs; `None`: where the daemon does. A relative program path is taken from here, as a shell would
    /// after `cd`.
    pub working_directory: Option<PathBuf>,
    /// Its variables.
    pub environment: Environment,
    /// The user id it runs as; `None`: the daemon's.
    pub user: Option<u32>,
    /// The group id it runs as; `None`: the daemon's.
    pub group: Option<u32>,
    /// Its supplementary groups, set when `user` or `group` is: the daemon's own are never passed on to another user.
    pub supplementary_groups: Vec<u32>,
    /// Its resource limits.
    pub limits: ResourceLimits,
    /// Its nice value, −20 (first served) to 19; `None`: the daemon's.
    pub nice: Option<i32>,
    /// Whether its standard input and output, where they would be pipes, are a terminal of its own instead: raw, without echo,
    /// 24 lines of 80 characters, its controlling one.
    pub terminal: bool,
    /// Whether it and its descendants can never gain privileges by exec (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Whether what it has left in its process group, once it has exited by itself, goes on; else that ends with it.
    pub leave_background: bool,
    /// The only files that it and its descendants may open; `None`: whatever its user may. Takes what `no_new_privileges` says
    /// with it.
    pub sandbox: Option<Sandbox>,
}

/// What a sandboxed child may open besides what every program needs: see [`sandbox`](super::sandbox). Absolute paths, of files,
/// or of directories with all that lies in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// May be read and executed.
    pub read: Vec<PathBuf>,
    /// May be read and written, made and removed, but not executed.
    pub write: Vec<PathBuf>,
}

/// The command holds no program name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyCommand;

impl fmt::Display for EmptyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command is empty; give a program, and its arguments after it")
    }
}

impl std::error::Error for EmptyCommand {}

/// The variables of a child.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// What it starts from.
    pub base: EnvironmentBase,
    /// Taken out of the base.
    pub removed: BTreeSet<OsString>,
    /// Added, or put in place of those of the same name, after `removed`.
    pub set: BTreeMap<OsString, OsString>,
}

/// What the variables of a child start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EnvironmentBase {
    /// The daemon's own, without those that its supervisor meant for it alone ([`ADDRESSED_TO_THE_DAEMON`]), and those that tell
    /// of the client of the program that started the daemon ([`tells_of_a_client`]).
    #[default]
    Inherited,
    /// Nothing.
    Cleared,
}

/// What systemd tells a service about itself (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`), and what a
/// daemon tells its successor ([`successor`](super::successor)). A child that believed it would take our sockets, or
/// report ready, or alive, in our name. And the [sign](super::signs) of a run that the daemon itself belongs to, which a child
/// is given with its own.
pub const ADDRESSED_TO_THE_DAEMON: [&str; 8] = [
    "IOTCPD_HANDOVER",
    super::signs::VARIABLE,
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

impl Environment {
    /// The variables a child gets when the daemon's own are `own`, each name once.
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

/// Whether a variable is one of those by which UCSPI programs are told who asks (tcp-environ(5) of ucspi-tcp, s6-tcpserver,
/// s6-ipcserver): what the daemon may have of them itself is of somebody else.
#[must_use]
pub fn tells_of_a_client(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let families: [&[u8]; 6] = [
        b"TCPREMOTE",
        b"TCPLOCAL",
        b"TCPCONNNUM",
        b"IPCREMOTE",
        b"IPCLOCAL",
        b"IPCCONNNUM",
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
