//! The program behind the servers of a service: `start` and the settings that go with it become [`ProgramOptions`].
//!
//! Services whose settings of it are the same share one program, whatever addresses they have: [`Programs`] has each once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::exec::DEFAULT_KILL_TIMEOUT;
use super::pool::TIMEOUT;
use super::process::process;
use super::{KEY, KeyRef, LONGEST, Mistake, Mistakes, SHORTEST_TIMEOUT};
use crate::config::spec::process::ProcessSpec as Settings;
use crate::config::spec::route::ServiceSpec;
use crate::doors::route::options::{Address, ProgramOptions, Rule, Way};
use crate::process::spec::ProcessSpec;

const START: &str = "start";
const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_IDLE: Duration = Duration::from_secs(300);
const READY_TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=LONGEST;

/// The programs of a door, each with a number.
#[derive(Debug, Default)]
pub struct Programs {
    list: Vec<ProgramOptions>,
}

impl Programs {
    /// Adds a program. Returns its number, which is that of one with the same settings, if there is one.
    ///
    /// # Errors
    /// Another program has one of its addresses.
    pub fn add(&mut self, program: ProgramOptions) -> Result<usize, Mistake> {
        let same = |known: &ProgramOptions| {
            let addresses = program.addresses.clone();
            ProgramOptions {
                addresses,
                ..known.clone()
            } == program
        };
        let index = self.list.iter().position(same);
        let mut others = self.list.iter().enumerate().filter(|(other, _)| Some(*other) != index);
        if others.any(|(_, other)| other.has_an_address_of(&program)) {
            return Err(Mistake {
                origin: KeyRef::key(START),
                text: "another service starts another program for the same server".to_owned(),
                remedy: "write the same settings for both, or give one of the two an address of its own".to_owned(),
            });
        }
        match index.and_then(|index| Some((index, self.list.get_mut(index)?))) {
            Some((index, known)) => {
                known.addresses.extend(program.addresses);
                Ok(index)
            }
            None => {
                self.list.push(program);
                Ok(self.list.len() - 1)
            }
        }
    }

    /// Returns the programs in the order of their numbers.
    #[must_use]
    pub fn into_list(self) -> Vec<Arc<ProgramOptions>> {
        self.list.into_iter().map(Arc::new).collect()
    }
}

/// Lowers the program of a service, whose other settings have become `rule`. Returns `None` for a service without one.
///
/// # Errors
/// All mistakes in its settings.
pub fn start(spec: &ServiceSpec, rule: &Rule) -> Result<Option<ProgramOptions>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let Some(command) = &spec.start else {
        for key in set_without_program(spec) {
            let text = "there is no program that it could be for";
            let remedy = format!("write {KEY}start as well, or leave this out");
            mistakes.add(KeyRef::key(key), text, remedy);
        }
        return mistakes.into_result(None);
    };
    let process = process(&mut mistakes, START, command, &spec.process);
    if spec.process.leave_background {
        let text = "a program that is started here ends with everything that it has started";
        mistakes.add(KeyRef::key("leave-background"), text, "leave it out");
    }
    let addresses = addresses(&mut mistakes, spec, rule);
    let ready_timeout = mistakes.time("ready-timeout", spec.ready_timeout, &READY_TIMEOUT);
    let idle = mistakes.limit("idle", spec.idle, Some(DEFAULT_IDLE));
    let kill_timeout = mistakes.time("kill-timeout", spec.kill_timeout, &TIMEOUT);
    let program = process.map(|process| ProgramOptions {
        process,
        addresses,
        ready_timeout: ready_timeout.unwrap_or(DEFAULT_READY_TIMEOUT),
        idle,
        kill_timeout: kill_timeout.unwrap_or(DEFAULT_KILL_TIMEOUT),
    });
    mistakes.into_result(program)
}

/// Returns the program of a service, even if the service has other mistakes; `None` if the program itself has one, or
/// there is none.
#[must_use]
pub fn program_of_service(spec: &ServiceSpec) -> Option<ProcessSpec> {
    let mut mistakes = Mistakes::default();
    let process = process(&mut mistakes, START, spec.start.as_deref()?, &spec.process);
    process.filter(|_| mistakes.0.is_empty())
}

/// Returns the addresses of the only server, which must be on this machine.
fn addresses(mistakes: &mut Mistakes, spec: &ServiceSpec, rule: &Rule) -> BTreeSet<Address> {
    if spec.door.is_some() || spec.client_secret.is_some() {
        let text = "another door or a tunnel client is the server, and nothing is to be started";
        mistakes.add(KeyRef::key(START), text, "leave it out");
    }
    if spec.addr.iter().count() + spec.addrs.len() > 1 {
        let text = "a service whose server is started has one server";
        let remedy = format!("write its address in {KEY}addr, and leave the others out");
        mistakes.add(KeyRef::key(START), text, remedy);
    }
    let servers = [Way::Tls, Way::Http].into_iter().filter_map(|way| rule.servers(way));
    let all = servers.flat_map(|servers| &servers.list);
    let addresses: BTreeSet<Address> = all.map(|server| server.address.clone()).collect();
    let is_elsewhere = |address: &Address| match address {
        Address::Network { host, .. } => &**host != "localhost" && host.split('%').next().is_none_or(is_no_ip),
        Address::Unix(_) | Address::Tunnel(_) => false,
    };
    if let Some(elsewhere) = addresses.iter().find(|address| is_elsewhere(address)) {
        let text = format!("{elsewhere} is named by its host, and a server that is started is on this machine");
        mistakes.add(
            KeyRef::key(START),
            text,
            "write its address as 127.0.0.1:8443, localhost:8443 or unix:/run/web.sock",
        );
    }
    addresses
}

fn is_no_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// Returns the keys that are set and mean something for a program alone.
fn set_without_program(spec: &ServiceSpec) -> impl Iterator<Item = &'static str> {
    let Settings {
        user,
        group,
        chdir,
        env,
        clear_env,
        nice,
        limit_memory,
        limit_cpu,
        limit_open_files,
        limit_processes,
        no_new_privs,
        leave_background,
        sandbox,
        sandbox_read,
        sandbox_write,
    } = &spec.process;
    [
        ("ready-timeout", spec.ready_timeout.is_some()),
        ("idle", spec.idle.is_some()),
        ("kill-timeout", spec.kill_timeout.is_some()),
        ("user", user.is_some()),
        ("group", group.is_some()),
        ("chdir", chdir.is_some()),
        ("env", !env.is_empty()),
        ("clear-env", *clear_env),
        ("nice", nice.is_some()),
        ("limit-memory", limit_memory.is_some()),
        ("limit-cpu", limit_cpu.is_some()),
        ("limit-open-files", limit_open_files.is_some()),
        ("limit-processes", limit_processes.is_some()),
        ("no-new-privs", *no_new_privs),
        ("leave-background", *leave_background),
        ("sandbox", *sandbox),
        ("sandbox-read", !sandbox_read.is_empty()),
        ("sandbox-write", !sandbox_write.is_empty()),
    ]
    .into_iter()
    .filter_map(|(key, is_set)| is_set.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::super::route::service_defaults;
    use super::super::service::service;
    use super::*;
    use crate::config::spec::route::{RouteSpec, ServerSpec};
    use crate::config::units::{Time, Whole};

    fn lower(spec: &ServiceSpec) -> Result<Option<ProgramOptions>, Vec<String>> {
        let defaults = service_defaults(&RouteSpec::default());
        let rule = service("web", spec, true, &defaults).expect("a rule").rule;
        start(spec, &rule).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    fn spec(addr: &str) -> ServiceSpec {
        ServiceSpec {
            addr: Some(addr.into()),
            start: Some("web --serve".into()),
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn a_program_has_the_addresses_of_its_server_and_usual_times() {
        let both = ServiceSpec {
            tls_port: Some(Whole(8443)),
            http_port: Some(Whole(8080)),
            ..spec("127.0.0.1")
        };
        let program = lower(&both).unwrap().unwrap();
        assert_eq!(program.process.command.words(), ["web", "--serve"]);
        let addresses: Vec<_> = program.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:8080", "127.0.0.1:8443"]);
        assert_eq!(program.ready_timeout, Duration::from_secs(30));
        assert_eq!(
            (program.idle, program.kill_timeout),
            (Some(DEFAULT_IDLE), DEFAULT_KILL_TIMEOUT)
        );
        for addr in ["unix:/run/web.sock", "localhost:80", "[::1]:443"] {
            let spec = ServiceSpec {
                idle: Some(Time(Duration::ZERO)),
                ..spec(addr)
            };
            assert_eq!(lower(&spec).unwrap().unwrap().idle, None, "{addr}");
        }
        let without = ServiceSpec {
            start: None,
            ..spec("10.0.0.1:443")
        };
        assert_eq!(lower(&without), Ok(None));
    }

    #[test]
    fn each_mistake_is_reported() {
        let several = ServiceSpec {
            addr: None,
            addrs: ["127.0.0.1:1", "127.0.0.1:2"].map(ServerSpec::from).into(),
            ..spec("")
        };
        let late = ServiceSpec {
            ready_timeout: Some(Time(Duration::ZERO)),
            process: Settings {
                leave_background: true,
                ..Settings::default()
            },
            ..spec("www.example.org:443")
        };
        let shell = ServiceSpec {
            start: Some("web > /dev/null".into()),
            ..spec("127.0.0.1:1")
        };
        let without = ServiceSpec {
            start: None,
            idle: Some(Time(Duration::ZERO)),
            process: Settings {
                user: Some("root".into()),
                sandbox: true,
                ..Settings::default()
            },
            ..spec("127.0.0.1:1")
        };
        let door = ServiceSpec {
            addr: None,
            door: Some("filter".into()),
            ..spec("")
        };
        let cases: [(&ServiceSpec, &[&str]); 5] = [
            (
                &door,
                &["start: another door or a tunnel client is the server, and nothing is to be started; leave it out"],
            ),
            (
                &several,
                &["start: a service whose server is started has one server; write its address in addr"],
            ),
            (
                &late,
                &[
                    "leave-background: a program that is started here ends",
                    "start: www.example.org:443 is named by its host",
                    "ready-timeout: 0",
                ],
            ),
            (&shell, &["start: there is no shell here"]),
            (
                &without,
                &[
                    "idle: there is no program that it could be for; write start as well",
                    "user: there is no program",
                    "sandbox: there is no program",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let mistakes = lower(spec).unwrap_err();
            assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
            for (mistake, beginning) in mistakes.iter().zip(expected) {
                assert!(mistake.starts_with(beginning), "{mistake}");
            }
        }
    }

    #[test]
    fn services_with_the_same_settings_share_a_program_and_no_two_programs_have_one_address() {
        let program = |spec: &ServiceSpec| lower(spec).unwrap().unwrap();
        let mut programs = Programs::default();
        assert_eq!(programs.add(program(&spec("127.0.0.1:1"))), Ok(0));
        assert_eq!(programs.add(program(&spec("127.0.0.1:1"))), Ok(0));
        assert_eq!(programs.add(program(&spec("127.0.0.1:2"))), Ok(0));
        let other = ServiceSpec {
            start: Some("other".into()),
            ..spec("127.0.0.1:2")
        };
        let mistake = programs.add(program(&other)).unwrap_err().to_string();
        assert!(
            mistake.starts_with("start: another service starts another program"),
            "{mistake}"
        );
        assert_eq!(
            programs.add(program(&ServiceSpec {
                addr: Some("127.0.0.1:3".into()),
                ..other
            })),
            Ok(1)
        );
        let list = programs.into_list();
        assert_eq!(list.iter().map(|it| it.addresses.len()).collect::<Vec<_>>(), [2, 1]);
    }
}
