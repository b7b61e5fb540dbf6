//! Advice for flags and keys that other daemons have and this one does not have.
//!
//! `--pidfile` resembles `--pipeline`, but that would be the worst suggestion: an operator who writes it knows other
//! programs (xinetd, tcpserver, spawn-fcgi, squid and its helpers), and needs to know what replaces it here. So a word
//! is looked up here before it is compared with the existing words ([`nearest`](super::suggest::nearest)).

use super::suggest::normalized;

/// The names that several programs have for one thing, and what to do about it here.
struct Advice {
    /// The names, separated by blanks, without dashes in front; a single letter is a short flag.
    words: &'static str,
    /// The flag of this program that the text is about; the advice applies only where there is a flag of that name.
    /// Empty if the advice always applies.
    about: &'static str,
    /// The advice. Flags in it have their dashes.
    text: &'static str,
}

const ADVICE: &[Advice] = &[
    Advice {
        words: "pidfile pid-file pid write-pid pidfile-path P",
        about: "",
        text: "it writes no file with its process ID: it stays in the foreground, so that its supervisor (systemd, runit, s6) \
               knows its process; `pidof iotcpd` finds it as well",
    },
    Advice {
        words: "daemonize daemonise daemonized background bg detach fork do-fork D",
        about: "",
        text: "it stays in the foreground: let a supervisor start it, such as systemd by the unit in iotcpd(1), or a shell with \
               an & behind it",
    },
    Advice {
        words: "foreground fg nodaemon no-daemon no-daemonize nodetach no-detach nofork no-fork dontfork dont-fork \
                no-background N",
        about: "",
        text: "it always stays in the foreground; leave this out",
    },
    Advice {
        words: "logfile log-file filelog log log-path log-dir logdir error-log errorlog access-log log-output output \
                o L l",
        about: "",
        text: "it writes its log to standard error, which a supervisor keeps (journalctl shows it), or a shell by 2>>FILE",
    },
    Advice {
        words: "syslog use-syslog log-syslog syslog-facility log-facility facility logger",
        about: "",
        text: "it writes its log to standard error: systemd takes it into the journal; elsewhere pipe it into logger(1)",
    },
    Advice {
        words: "verbose verbosity loglevel log-level debug-level debug trace quiet silent q",
        about: "",
        text: "how much is logged is said by --log-level, in a file by level in the table [log]; for example debug",
    },
    Advice {
        words: "log-format logformat",
        about: "",
        text: "how lines of the log look is said by --log-format, in a file by format in the table [log]",
    },
    Advice {
        words: "config conf cfg configuration config-file conf-file configfile c f C",
        about: "",
        text: "the file with the services is named behind a command: iotcpd run FILE, or iotcpd check FILE",
    },
    Advice {
        words: "test configtest config-test check-config testconfig lint validate verify dry-run",
        about: "",
        text: "iotcpd check FILE says what is wrong with a file, without running anything",
    },
    Advice {
        words: "workers worker num-workers children max-children processes num-processes procs instances helpers \
                num-helpers servers daemons threads jobs",
        about: "num-daemons",
        text: "how many workers there are is said by --num-daemons; by --max-workers where they are to follow the load",
    },
    Advice {
        words: "host hostname bind bind-address bind-addr addr address ip interface iface listen-address listen-addr \
                listen-on local-address port socket unix unix-socket unix-path sock socket-path path uds s A p",
        about: "listen",
        text: "where clients connect is said by --listen, for example by 127.0.0.1:9991 or unix:/run/iotcpd.sock behind it",
    },
    Advice {
        words: "listen bind address port",
        about: "tls-listen",
        text: "where clients connect is said by --tls-listen, for example by *:443 or unix:/run/iotcpd.sock behind it",
    },
    Advice {
        words: "tls ssl https certificate tls-cert tls-key ssl-cert ssl-key ca cafile",
        about: "listen",
        text: "clients speak TLS where --listen has tls: in front, as in tls:*:9443, with the certificate of --cert and \
               --key",
    },
    Advice {
        words: "tls ssl https certificate tls-cert tls-key ssl-cert ssl-key ca cafile",
        about: "tls-listen",
        text: "TLS goes through to the servers, which have the certificates, or ends by the `tls` of a service",
    },
    Advice {
        words: "uid setuid run-as runas as-user username user-name su u",
        about: "user",
        text: "programs run as the user of --user; the daemon itself stays what it was started as (User= in a systemd unit)",
    },
    Advice {
        words: "gid setgid groupname group-name g",
        about: "group",
        text: "programs run in the group of --group; the daemon itself stays what it was started as (Group= in a systemd unit)",
    },
    Advice {
        words: "chroot chroot-dir jail",
        about: "sandbox",
        text: "it changes no root directory; --sandbox confines its programs, RootDirectory= in a systemd unit all of it",
    },
    Advice {
        words: "max-clients max-conns max-conn maxconn max-connection connection-limit limit clients",
        about: "max-connections",
        text: "how many clients may be connected is said by --max-connections",
    },
    Advice {
        words: "per-source max-per-ip per-ip max-clients-per-ip",
        about: "max-connections-per-ip",
        text: "how many clients of one address may be connected is said by --max-connections-per-ip",
    },
    Advice {
        words: "timeout request-timeout worker-timeout time-limit timelimit max-time",
        about: "busy-timeout",
        text: "how long a worker may take for a request is said by --busy-timeout, how long a request waits for one by \
               --queue-timeout",
    },
    Advice {
        words: "environment environ setenv envvar e",
        about: "env",
        text: "a variable is set by --env, with NAME=VALUE behind it",
    },
    Advice {
        words: "program command cmd exec helper executable child worker-command",
        about: "daemon",
        text: "the program of the workers, with its arguments, is said by --daemon",
    },
    Advice {
        words: "cwd dir directory workdir working-dir working-directory cd",
        about: "chdir",
        text: "the directory that programs start in is said by --chdir",
    },
    Advice {
        words: "respawn autorestart auto-restart stayalive restart-workers",
        about: "num-daemons",
        text: "a worker that ends is always started again; leave this out",
    },
    Advice {
        words: "memory memory-limit max-memory mem-limit",
        about: "limit-memory",
        text: "the memory of a program is limited by --limit-memory",
    },
    Advice {
        words: "umask",
        about: "socket-mode",
        text: "the umask is that of whoever starts the daemon (UMask= in a systemd unit); --socket-mode says who may connect \
               to UNIX sockets",
    },
    Advice {
        words: "socket-permissions socket-perms permissions perms chmod",
        about: "socket-mode",
        text: "the permissions of UNIX sockets are said by --socket-mode",
    },
    Advice {
        words: "allow-from allowed allowed-ips whitelist only-from acl access",
        about: "allow",
        text: "the addresses that may connect are said by --allow, and those that may not by --deny",
    },
    Advice {
        words: "deny-from blacklist no-access block",
        about: "deny",
        text: "the addresses that may not connect are said by --deny",
    },
    Advice {
        words: "proxy-protocol proxy accept-proxy-protocol expect-proxy send-proxy trusted-proxies real-ip",
        about: "accept-proxy",
        text: "the proxies whose PROXY header names the client are said by --accept-proxy",
    },
    Advice {
        words: "stats statistics status metrics info",
        about: "",
        text: "a running daemon prints its statistics at kill -USR1, and what each worker does at kill -USR2",
    },
    Advice {
        words: "stop reload restart shutdown quit kill",
        about: "",
        text: "a running daemon is told by signals: TERM ends it, HUP replaces its workers and reads its file again, URG starts \
               it anew without a pause",
    },
    Advice {
        words: "start serve server launch",
        about: "",
        text: "iotcpd with its flags runs a pool, and iotcpd run FILE the services of a file",
    },
];

/// Returns the advice for `written`, a flag with its dashes or the name of a command. `has` tells if there is a flag of
/// the given name, without dashes.
#[must_use]
pub fn for_flag(written: &str, has: impl Fn(&str) -> bool) -> Option<String> {
    let letter = written.strip_prefix('-').filter(|rest| rest.chars().count() == 1);
    let word = match letter {
        Some(letter) => letter.to_owned(),
        // A single letter after two dashes is not a short flag.
        None => Some(normalized(written.trim_start_matches('-'))).filter(|word| word.len() > 1)?,
    };
    find(&word, has).map(str::to_owned)
}

/// Returns the advice for a key of a file; flags in it have no dashes.
#[must_use]
pub fn for_key(written: &str, has: impl Fn(&str) -> bool) -> Option<String> {
    let word = Some(normalized(written)).filter(|word| word.len() > 1)?;
    find(&word, has).map(|text| text.replace("--", ""))
}

fn find(word: &str, has: impl Fn(&str) -> bool) -> Option<&'static str> {
    let fits = |advice: &&Advice| {
        advice.words.split(' ').any(|known| known == word) && (advice.about.is_empty() || has(advice.about))
    };
    ADVICE.iter().find(fits).map(|advice| advice.text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args, Command};

    use super::*;
    use crate::config::spec::exec::ExecSpec;
    use crate::config::spec::pool::PoolSpec;
    use crate::config::spec::route::RouteSpec;

    #[test]
    fn a_flag_of_another_program_gets_advice() {
        let of = |written: &str| for_flag(written, |flag| flag == "user");
        assert!(of("--pidfile").unwrap().contains("supervisor"));
        assert_eq!(of("--pid_file"), of("--pidfile"));
        assert!(of("-D").unwrap().contains("stays in the foreground"));
        assert_eq!(of("-d"), None, "a letter is what it is");
        assert_eq!(of("--D"), None);
        assert!(of("--uid").unwrap().contains("--user"));
        assert_eq!(of("--gid"), None, "there is no --group beside it");
        assert_eq!(of("--queue-timout"), None);
        assert!(for_key("uid", |_| true).unwrap().contains("the user of user;"));
    }

    /// Every flag that an advice names exists, and no existing flag has an advice.
    #[test]
    fn advice_names_existing_flags() {
        let flags = RouteSpec::augment_args(ExecSpec::augment_args(PoolSpec::augment_args(Command::new("flags"))));
        let known: BTreeSet<_> = flags
            .get_arguments()
            .filter_map(|flag| flag.get_long().map(str::to_owned))
            .collect();
        for advice in ADVICE {
            assert!(
                advice.about.is_empty() || known.contains(advice.about),
                "{}",
                advice.about
            );
            let named = advice
                .text
                .split([' ', ',', ';'])
                .filter_map(|word| word.strip_prefix("--"));
            // The flags of the log belong to no door.
            for flag in named.filter(|flag| !flag.starts_with("log-")) {
                assert!(known.contains(flag), "{flag} in {}", advice.text);
            }
        }
    }
}
