//! The environment and the limits of a program: the part of lowering that every spawning door shares.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{KEY, KeyRef, LONGEST, Mistakes, no_shell};
use crate::config::bytes::bytes;
use crate::config::quote::Quoted;
use crate::config::spec::process::ProcessSpec as Spec;
use crate::process::identity::{UserIdentity, lookup_group};
use crate::process::limits::ResourceLimits;
use crate::process::sandbox::{Access, look_at};
use crate::process::spec::{Command, Environment, EnvironmentBase, ProcessSpec, Sandbox, SpawnContext};

/// The range of address spaces; below its start no program gets past its dynamic linker.
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// The kernel counts whole seconds.
const CPU: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
/// Three descriptors are open when the program starts.
const OPEN_FILES: RangeInclusive<u64> = 3..=1 << 30;
const PROCESSES: RangeInclusive<u64> = 1..=1 << 22;
/// The range of `setpriority(2)`.
const NICE: RangeInclusive<i32> = -20..=19;

/// Returns the program `command`, the value of `key`, with the settings of `spec`. Adds a mistake and returns `None` if
/// the command cannot be read.
pub(super) fn process(mistakes: &mut Mistakes, key: &'static str, command: &str, spec: &Spec) -> Option<ProcessSpec> {
    let command = program(mistakes, key, command);
    let context = context(mistakes, spec);
    Some(ProcessSpec {
        command: command?,
        context,
    })
}

/// Returns the settings with which programs are started, for a door that learns later which programs.
pub(super) fn context(mistakes: &mut Mistakes, spec: &Spec) -> SpawnContext {
    let mut context = SpawnContext {
        limits: limits(mistakes, spec),
        environment: environment(mistakes, spec),
        nice: mistakes.count("nice", spec.nice, NICE),
        working_directory: spec.chdir.as_ref().map(Into::into),
        no_new_privileges: spec.no_new_privs,
        leave_background: spec.leave_background,
        sandbox: sandbox(mistakes, spec),
        ..SpawnContext::default()
    };
    let user = spec
        .user
        .as_deref()
        .and_then(|name| mistakes.resolve("user", UserIdentity::lookup(name)));
    context.group = spec
        .group
        .as_deref()
        .and_then(|name| mistakes.resolve("group", lookup_group(name)));
    if let Some(user) = user {
        user.apply_to(&mut context);
    }
    if spec.chdir.as_deref() == Some("") {
        mistakes.add(
            KeyRef::key("chdir"),
            "the directory has no name",
            "write for example /var/lib/iotcpd",
        );
    }
    context
}

/// Splits a command by the quoting rules of a shell. Nothing is expanded, and no shell runs.
fn program(mistakes: &mut Mistakes, key: &'static str, command: &str) -> Option<Command> {
    let Ok(words) = shell_words::split(command) else {
        let text = format!("the quotes of {} are not closed", Quoted(command));
        mistakes.add(
            KeyRef::key(key),
            text,
            "close each quote, or put a backslash before one that is meant literally",
        );
        return None;
    };
    if words.iter().any(|word| word.contains('\0')) {
        mistakes.add(
            KeyRef::key(key),
            "the command contains a NUL",
            "leave it out: no argument of a program can hold one",
        );
        return None;
    }
    if let Some((text, remedy)) = no_shell::mistake(command) {
        mistakes.add(KeyRef::key(key), text, remedy);
        return None;
    }
    match Command::new(words.iter().map(|word| OsString::from_vec(bytes(word))).collect()) {
        Ok(command) => Some(command),
        Err(_) => {
            let remedy = "write a program and its arguments, for example squidGuard -c sg.conf";
            mistakes.add(KeyRef::key(key), "the command names no program", remedy);
            None
        }
    }
}

fn limits(mistakes: &mut Mistakes, spec: &Spec) -> ResourceLimits {
    let cpu = mistakes.time("limit-cpu", spec.limit_cpu, &CPU);
    if cpu.is_some_and(|time| time.subsec_nanos() != 0) {
        mistakes.add(
            KeyRef::key("limit-cpu"),
            "processor time is limited in whole seconds",
            "write for example 60s",
        );
    }
    ResourceLimits {
        memory: mistakes.size("limit-memory", spec.limit_memory, &MEMORY),
        cpu_seconds: cpu.map(|time| time.as_secs()),
        open_files: mistakes.count("limit-open-files", spec.limit_open_files, OPEN_FILES),
        processes: mistakes.count("limit-processes", spec.limit_processes, PROCESSES),
    }
}

fn environment(mistakes: &mut Mistakes, spec: &Spec) -> Environment {
    let mut set = BTreeMap::new();
    for (index, entry) in spec.env.iter().enumerate() {
        let origin = KeyRef::element("env", index);
        match entry.split_once('=') {
            Some((name, _)) if name.is_empty() || entry.contains('\0') => {
                mistakes.add(
                    origin,
                    "a variable needs a name, and no NUL",
                    "write for example LANG=C",
                );
            }
            Some((name, value)) => {
                if set.insert(OsString::from(name), OsString::from(value)).is_some() {
                    mistakes.add(origin, format!("{name} is set twice"), "keep one of the two");
                }
            }
            None => {
                let text = format!("{} gives the variable no value", Quoted(entry));
                mistakes.add(origin, text, "write NAME=VALUE, for example LANG=C");
            }
        }
    }
    let base = if spec.clear_env {
        EnvironmentBase::Cleared
    } else {
        EnvironmentBase::Inherited
    };
    Environment {
        base,
        set,
        ..Environment::default()
    }
}

fn sandbox(mistakes: &mut Mistakes, spec: &Spec) -> Option<Sandbox> {
    let read = paths(mistakes, Access::Read, &spec.sandbox_read);
    let write = paths(mistakes, Access::Write, &spec.sandbox_write);
    for (access, paths) in [(Access::Read, &read), (Access::Write, &write)] {
        if !spec.sandbox && !paths.is_empty() {
            let text = "there is no sandbox that it could open";
            let remedy = format!("add {KEY}sandbox, or leave this out");
            mistakes.add(KeyRef::key(access.key()), text, remedy);
        }
    }
    spec.sandbox.then_some(Sandbox { read, write })
}

/// Returns the paths that a sandbox grants. Each of them must exist.
fn paths(mistakes: &mut Mistakes, access: Access, written: &[String]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (index, path) in written.iter().enumerate() {
        let origin = KeyRef::element(access.key(), index);
        if !path.starts_with('/') || path.contains('\0') {
            let text = format!("{} is not an absolute path", Quoted(path));
            mistakes.add(origin, text, "write for example /var/lib/squidguard");
        } else if let Err(errno) = look_at(Path::new(path)) {
            let text = format!("cannot open {}: {}", Quoted(path), errno.desc());
            mistakes.add(origin, text, "correct the path, or make it first");
        }
        paths.push(PathBuf::from(path));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::{Size, Time, Whole};

    fn lower(command: &str, spec: &Spec) -> Result<ProcessSpec, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let process = process(&mut mistakes, "daemon", command, spec);
        mistakes
            .into_result(process)
            .map(Option::unwrap)
            .map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let process = lower(r#"sg -c "my conf" 'a b' c\ d '$HOME' a|b"#, &Spec::default()).unwrap();
        assert_eq!(
            process.command.words(),
            ["sg", "-c", "my conf", "a b", "c d", "$HOME", "a|b"]
        );
    }

    #[test]
    fn an_invalid_command_is_refused() {
        for (command, text) in [
            ("sg 'x", "not closed"),
            ("  ", "names no program"),
            ("'' x", "names no program"),
            ("a\0", "NUL"),
        ] {
            let mistakes = lower(command, &Spec::default()).unwrap_err();
            assert_eq!(mistakes.len(), 1);
            assert!(
                mistakes[0].starts_with("daemon: ") && mistakes[0].contains(text),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn everything_reaches_the_process() {
        let spec = Spec {
            user: Some("root".into()),
            group: Some("7".into()),
            chdir: Some("/".into()),
            env: vec!["A=1=2".into(), "B=".into()],
            clear_env: true,
            nice: Some(Whole(-5)),
            limit_memory: Some(Size(1 << 30)),
            limit_cpu: Some(Time(Duration::from_secs(60))),
            limit_open_files: Some(Whole(64)),
            limit_processes: Some(Whole(9)),
            no_new_privs: true,
            leave_background: true,
            sandbox: true,
            sandbox_read: vec!["/usr".into(), "/etc/passwd".into()],
            sandbox_write: vec!["/tmp".into()],
        };
        let process = lower("cat", &spec).unwrap().context;
        assert!(process.leave_background && process.no_new_privileges);
        assert_eq!(
            (process.user, process.group, process.nice),
            (Some(0), Some(7), Some(-5))
        );
        assert_eq!(process.working_directory.as_deref(), Some(std::path::Path::new("/")));
        assert_eq!(process.environment.base, EnvironmentBase::Cleared);
        assert_eq!(
            process.environment.set,
            [("A".into(), "1=2".into()), ("B".into(), "".into())].into()
        );
        let limits = ResourceLimits {
            memory: Some(1 << 30),
            cpu_seconds: Some(60),
            open_files: Some(64),
            processes: Some(9),
        };
        assert_eq!((process.limits, process.no_new_privileges), (limits, true));
        let sandbox = Sandbox {
            read: vec!["/usr".into(), "/etc/passwd".into()],
            write: vec!["/tmp".into()],
        };
        assert_eq!(process.sandbox, Some(sandbox));
    }

    #[test]
    fn a_sandbox_grants_existing_paths_and_paths_need_a_sandbox() {
        let spec = Spec {
            sandbox: true,
            sandbox_read: vec!["/".into(), "/no/such/path".into(), "data".into()],
            sandbox_write: vec![String::new()],
            ..Spec::default()
        };
        assert_eq!(
            lower("cat", &spec).unwrap_err(),
            [
                "sandbox-read: cannot open `/no/such/path`: No such file or directory; \
                 correct the path, or make it first",
                "sandbox-read: `data` is not an absolute path; write for example /var/lib/squidguard",
                "sandbox-write: `` is not an absolute path; write for example /var/lib/squidguard",
            ]
        );
        let spec = Spec {
            sandbox_read: vec!["/".into()],
            sandbox_write: vec!["/tmp".into()],
            ..Spec::default()
        };
        assert_eq!(
            lower("cat", &spec).unwrap_err(),
            [
                "sandbox-read: there is no sandbox that it could open; add sandbox, or leave this out",
                "sandbox-write: there is no sandbox that it could open; add sandbox, or leave this out",
            ]
        );
    }

    #[test]
    fn each_mistake_is_reported() {
        let spec = Spec {
            user: Some("no such user".into()),
            group: Some("no such group".into()),
            chdir: Some(String::new()),
            env: vec!["A".into(), "=1".into(), "B=1".into(), "B=2".into()],
            nice: Some(Whole(20)),
            limit_memory: Some(Size(1)),
            limit_cpu: Some(Time(Duration::from_millis(1500))),
            limit_open_files: Some(Whole(2)),
            limit_processes: Some(Whole(0)),
            ..Spec::default()
        };
        let mistakes = lower("'", &spec).unwrap_err();
        let keys: Vec<_> = mistakes.iter().map(|line| line.split(':').next().unwrap()).collect();
        let expected = [
            "daemon",
            "limit-cpu",
            "limit-memory",
            "limit-open-files",
            "limit-processes",
            "env",
            "env",
            "env",
            "nice",
            "user",
            "group",
            "chdir",
        ];
        assert_eq!(keys, expected);
        assert!(mistakes.iter().all(|line| line.contains("; ")), "{mistakes:?}");
    }
}
