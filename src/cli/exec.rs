//! `iotcpd exec [flags] SOCKET`: one exec door, described on the command line, like sockexec.

use clap::Args;

use super::exit_codes::ExitCodesFlag;
use super::socket;
use crate::config::lower::log::LogSettings;
use crate::config::lower::{self, KeyRef, Mistake};
use crate::config::spec::exec::ExecSpec;
use crate::daemon::{self, Plan};
use crate::doors;
use crate::doors::exec::options::Options;
use crate::error::Error;

/// The name of a door that has no table with a name.
const NAME: &str = "exec";

const EXAMPLES: &str = "\
Example:
  iotcpd exec -t 30 /run/exec.sock
  printf '1:2,5:uname,2:-a,0:,' | nc -N -U /run/exec.sock

Whoever may connect can run every program as the user of this daemon, unless --allow-program says which, and --user as whom.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// Where to listen: the path of a UNIX socket, or an address as --listen takes it
    #[arg(value_name = "SOCKET")]
    socket: String,
    #[command(flatten)]
    pub(super) exit_codes: ExitCodesFlag,
    #[command(flatten)]
    spec: ExecSpec,
}

pub(super) fn run(flags: &Flags, log: LogSettings) -> Result<(), Error> {
    daemon::run(Plan {
        services: vec![doors::Options::Exec(Box::new(options(flags)?))],
        source: None,
        log,
        secret: None,
    })
}

/// Returns the door that the flags describe, or a line for each mistake in them.
fn options(flags: &Flags) -> Result<Options, Error> {
    let mut spec = flags.spec.clone();
    spec.listen.listen.insert(0, socket::address(&flags.socket));
    match lower::exec(NAME, &spec) {
        Ok(lowered) => Ok(lowered.options),
        Err(mistakes) => {
            let lines: Vec<_> = mistakes.iter().map(message).collect();
            Err(Error::mistakes(lines))
        }
    }
}

/// Returns the message about a mistake. SOCKET was inserted as the first address of `--listen`; a mistake in it is
/// reported as one in SOCKET.
fn message(mistake: &Mistake) -> String {
    let told = mistake.for_flags();
    let of_socket = told
        .strip_prefix("--listen")
        .filter(|_| mistake.origin == KeyRef::element("listen", 0));
    of_socket.map_or_else(|| format!("iotcpd: {told}"), |rest| format!("iotcpd: SOCKET{rest}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::error::Blame;

    #[derive(Debug, Parser)]
    #[command(name = "exec")]
    struct Exec {
        #[command(flatten)]
        flags: Flags,
    }

    fn lower(line: &str) -> Result<Options, Error> {
        let words = std::iter::once("exec").chain(line.split_whitespace());
        options(&Exec::try_parse_from(words).unwrap().flags)
    }

    #[test]
    fn the_letters_of_sockexec_work() {
        let letters = lower("-d -q 5 -m 6 -M 0600 -t 7 -k 8 /run/x").unwrap();
        let words =
            "--debug --backlog 5 --max-connections 6 --socket-mode 0600 --timeout 7 --kill-timeout 8 unix:/run/x";
        assert_eq!(letters, lower(words).unwrap());
        assert_ne!(letters, lower("/run/x").unwrap());
    }

    #[test]
    fn a_socket_is_a_path_or_an_address() {
        for (socket, listens) in [
            ("/run/x", "unix:/run/x"),
            ("x.sock", "unix:x.sock"),
            ("./a:1", "unix:./a:1"),
            ("unix:@x", "unix:@x"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("systemd:exec", "systemd:exec"),
        ] {
            let options = lower(socket).unwrap();
            assert_eq!(options.front.listen[0].to_string(), listens);
        }
        let error = lower("127.0.0.1:99999").unwrap_err();
        assert_eq!(error.blame(), Blame::Operator, "a slip is not made a file");
    }
}
