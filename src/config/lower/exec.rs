//! The options of an exec door: [`ExecSpec`] becomes [`Options`].

use std::ops::RangeInclusive;
use std::time::Duration;

use super::listen::{ANY_NUMBER, listening};
use super::permits::permits;
use super::pool::TIMEOUT;
use super::process::context;
use super::{KEY, KeyRef, LONGEST, Lowered, Mistake, Mistakes};
use crate::config::spec::exec::{self, ExecSpec};
use crate::config::spec::yes_no::YesNo;
use crate::config::units::Whole;
use crate::doors::exec::core::sockproc::SHELL;
use crate::doors::exec::options::{Options, Policy, Protocol};
use crate::doors::front::options::LimitKind;

// The defaults of sockexec 3.1.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_BACKLOG: i64 = 100;
const DEFAULT_CONNECTIONS: i64 = 100;
const DEFAULT_MODE: u32 = 0o660;

pub(super) const DEFAULT_LINGER: Duration = Duration::from_secs(1);
pub(super) const DEFAULT_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_MAX_ARGUMENTS: u64 = 1 << 20;
pub(super) const DEFAULT_MAX_BUFFER: u64 = 256 << 10;

const DEFAULT_MAX_OUTPUT: u64 = 4 << 20;

/// A linger of zero would cut off the last output of a program's children.
pub(super) const LINGER: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// Linux accepts a quarter of the stack limit, as a rule 2 MiB, and never more than 6 MiB.
const MAX_ARGUMENTS: RangeInclusive<u64> = 1 << 10..=8 << 20;
/// With a smaller buffer each system call would move next to nothing.
pub(super) const MAX_BUFFER: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Each connection may hold this much.
const MAX_OUTPUT: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Lowers one exec door.
///
/// # Errors
/// All mistakes in its settings.
pub fn exec(name: &str, spec: &ExecSpec) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let mut listen = spec.listen.clone();
    listen.sockets.backlog.get_or_insert(Whole(DEFAULT_BACKLOG));
    listen.access.max_connections.get_or_insert(Whole(DEFAULT_CONNECTIONS));
    let mut listening = listening(&mut mistakes, Vec::new(), &listen, &ANY_NUMBER);
    listening.unix_socket.mode.get_or_insert(DEFAULT_MODE);
    check_addresses(&mut mistakes, spec);
    let (clients, programs) = permits(&mut mistakes, spec, &listening.addresses);
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    let kill_timeout = timeout("kill-timeout", spec.kill_timeout, DEFAULT_KILL_TIMEOUT);
    let stop_timeout = timeout("stop-timeout", spec.stop_timeout, DEFAULT_STOP_TIMEOUT);
    let policy = Policy {
        read_timeout: timeout("read-timeout", spec.read_timeout, DEFAULT_CLIENT_TIMEOUT),
        write_timeout: timeout("write-timeout", spec.write_timeout, DEFAULT_CLIENT_TIMEOUT),
        timeout: mistakes.limit("timeout", spec.timeout, Some(DEFAULT_TIMEOUT)),
        linger: mistakes.time("linger", spec.linger, &LINGER).unwrap_or(DEFAULT_LINGER),
    };
    let max_arguments = mistakes.size("max-arguments", spec.max_arguments, &MAX_ARGUMENTS);
    let max_buffer = mistakes.size("max-buffer", spec.max_buffer, &MAX_BUFFER);
    // As with sockexec, a limit that the operator has set is lowered as well to the number that the machine allows.
    let (front, listen) = listening.into_front(name, LimitKind::Flexible, stop_timeout);
    let options = Options {
        front,
        clients,
        programs,
        takes_handed: spec.handed_over,
        protocol: protocol(&mut mistakes, spec),
        context: context(&mut mistakes, &spec.process),
        policy,
        kill_timeout,
        max_arguments: bytes(max_arguments.unwrap_or(DEFAULT_MAX_ARGUMENTS)),
        max_buffer: bytes(max_buffer.unwrap_or(DEFAULT_MAX_BUFFER)),
        log_arguments: spec.log_args == Some(YesNo::Yes),
        debug: spec.debug,
    };
    mistakes.into_result(Lowered { options, listen })
}

/// Returns the protocol of the door. A key that belongs to one protocol is a mistake with the other.
fn protocol(mistakes: &mut Mistakes, spec: &ExecSpec) -> Protocol {
    let max_output = mistakes.size("max-output", spec.max_output, &MAX_OUTPUT);
    match spec.protocol.unwrap_or(exec::Protocol::Sockexec) {
        exec::Protocol::Sockexec => {
            if max_output.is_some() {
                let text = "output is passed on as it comes, none is held";
                let remedy = format!("leave it out; it is for {KEY}protocol sockproc, where the length comes first");
                mistakes.add(KeyRef::key("max-output"), text, remedy);
            }
            Protocol::Sockexec
        }
        exec::Protocol::Sockproc => {
            if !spec.allow_program.is_empty() {
                let text = format!("with {KEY}protocol sockproc the one program is {SHELL}, which runs all others");
                let remedy = format!("write {KEY}protocol sockexec, or leave it out and restrict who may connect");
                mistakes.add(KeyRef::key("allow-program"), text, remedy);
            }
            let max_output = max_output.unwrap_or(DEFAULT_MAX_OUTPUT);
            Protocol::Sockproc {
                max_output: usize::try_from(max_output).unwrap_or(usize::MAX),
            }
        }
    }
}

/// Adds a mistake if there is no address to listen on.
fn check_addresses(mistakes: &mut Mistakes, spec: &ExecSpec) {
    if spec.listen.listen.is_empty() && !spec.handed_over {
        let text = "there is no address to listen on";
        mistakes.add(
            KeyRef::key("listen"),
            text,
            "write for example unix:/run/iotcpd-exec.sock",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Time;
    use crate::config::units::{FileMode, Size};

    fn on(address: &str) -> ExecSpec {
        let mut spec = ExecSpec::default();
        spec.listen.listen = vec![address.to_owned()];
        spec
    }

    fn lower(spec: &ExecSpec) -> Result<Options, Vec<String>> {
        let lowered = exec("main", spec).map(|lowered| lowered.options);
        lowered.map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_defaults_are_those_of_sockexec() {
        let options = lower(&on("unix:/x")).unwrap();
        assert_eq!(options.policy.timeout, Some(Duration::from_secs(60)));
        assert_eq!(options.kill_timeout, Duration::from_secs(10));
        assert_eq!(
            (options.front.backlog, options.front.connection_limits.total),
            (100, 100)
        );
        assert_eq!(options.front.unix_socket.mode, Some(0o660));
    }

    /// The daemon finds out the limits of the machine.
    #[test]
    fn connections_and_backlog_may_be_any_number() {
        let with = |number: i64| {
            let mut spec = on("unix:/x");
            (spec.listen.sockets.backlog, spec.listen.access.max_connections) =
                (Some(Whole(number)), Some(Whole(number)));
            lower(&spec).map(|options| (options.front.backlog, options.front.connection_limits.total))
        };
        assert_eq!(with(1), Ok((1, 1)));
        assert_eq!(with(4_294_967_295), Ok((u32::MAX, u32::MAX as usize)));
        for wrong in [0, 4_294_967_296] {
            assert_eq!(with(wrong).unwrap_err().len(), 2, "{wrong}");
        }
    }

    #[test]
    fn zero_means_no_time_limit() {
        let spec = ExecSpec {
            timeout: Some(Time(Duration::ZERO)),
            ..on("unix:/x")
        };
        assert_eq!(lower(&spec).unwrap().policy.timeout, None);
    }

    #[test]
    fn every_range_has_its_ends() {
        let ms = |ms| Some(Time(Duration::from_millis(ms)));
        type Change = fn(&mut ExecSpec, Option<Time>);
        let times: [(&str, u64, Change); 6] = [
            ("timeout", 100, |spec, time| spec.timeout = time),
            ("kill-timeout", 100, |spec, time| spec.kill_timeout = time),
            ("stop-timeout", 100, |spec, time| spec.stop_timeout = time),
            ("read-timeout", 100, |spec, time| spec.read_timeout = time),
            ("write-timeout", 100, |spec, time| spec.write_timeout = time),
            ("linger", 1, |spec, time| spec.linger = time),
        ];
        let longest = 366 * 86_400_000;
        for (key, shortest, change) in times {
            for (time, good) in [(shortest, true), (longest, true), (longest + 1, false)] {
                let mut spec = on("unix:/x");
                change(&mut spec, ms(time));
                assert_eq!(lower(&spec).is_ok(), good, "{key} = {time}ms");
            }
        }
        for (arguments, buffer, good) in [
            (1 << 10, 4 << 10, true),
            (8 << 20, 1 << 30, true),
            ((1 << 10) - 1, 4 << 10, false),
            ((8 << 20) + 1, 4 << 10, false),
            (1 << 10, (4 << 10) - 1, false),
            (1 << 10, (1 << 30) + 1, false),
        ] {
            let spec = ExecSpec {
                max_arguments: Some(Size(arguments)),
                max_buffer: Some(Size(buffer)),
                ..on("unix:/x")
            };
            assert_eq!(lower(&spec).is_ok(), good, "{arguments} {buffer}");
        }
    }

    #[test]
    fn a_key_of_one_protocol_is_refused_with_the_other() {
        let with = |protocol, max_output: Option<u64>, program: Option<&str>| ExecSpec {
            protocol,
            max_output: max_output.map(Size),
            allow_program: program.into_iter().map(str::to_owned).collect(),
            ..on("unix:/x")
        };
        let sockproc = Some(exec::Protocol::Sockproc);
        let held = |options: Options| match options.protocol {
            Protocol::Sockexec => None,
            Protocol::Sockproc { max_output } => Some(max_output),
        };
        assert_eq!(held(lower(&on("unix:/x")).unwrap()), None);
        assert_eq!(held(lower(&with(sockproc, None, None)).unwrap()), Some(4 << 20));
        for (size, good) in [
            (4 << 10, true),
            (1 << 30, true),
            ((4 << 10) - 1, false),
            ((1 << 30) + 1, false),
        ] {
            assert_eq!(lower(&with(sockproc, Some(size), None)).is_ok(), good, "{size}");
        }
        for (spec, key) in [
            (with(None, Some(1 << 20), None), "max-output: "),
            (
                with(Some(exec::Protocol::Sockexec), Some(1 << 20), None),
                "max-output: ",
            ),
            (with(sockproc, None, Some("/bin/sh")), "allow-program: "),
        ] {
            let told = lower(&spec).unwrap_err();
            assert!(told.len() == 1 && told[0].starts_with(key), "{told:?}");
        }
    }

    #[test]
    fn each_mistake_is_reported() {
        let mut spec = ExecSpec {
            timeout: Some(Time(Duration::from_millis(1))),
            kill_timeout: Some(Time(Duration::ZERO)),
            ..ExecSpec::default()
        };
        spec.listen.sockets.socket_mode = Some(FileMode(0o660));
        let told = lower(&spec).unwrap_err();
        let keys: Vec<_> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["socket-mode", "listen", "kill-timeout", "timeout"]);
        assert!(told.iter().all(|line| line.contains("; ")), "{told:?}");
    }
}
