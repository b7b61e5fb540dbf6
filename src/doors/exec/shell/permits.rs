//! Holds clients, listeners and programs against the lists of the options.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::doors::exec::core::permits::{Clients, Programs, Verdict};
use crate::doors::exec::options::Options;
use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::origin::Origin;
use crate::process::failure::SpawnError;
use crate::process::program::{Found, Program};

/// The reason for which a program is not run.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The program is not listed. This is its file.
    Forbidden(PathBuf),
    /// There is no such program, or it may not be run.
    Missing(SpawnError),
    /// The file system has not answered in time, or is known not to answer.
    Unanswered,
}

/// Writes the reason for the log. A client is told the same for all reasons, since it may not learn which files exist.
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Forbidden(path) => write!(f, "{path:?} is not allowed (--allow-program)"),
            Unfit::Missing(error) => error.fmt(f),
            Unfit::Unanswered => f.write_str(
                "its file system has not answered within 2 s, or other look-ups in that directory or of that client wait for it",
            ),
        }
    }
}

/// A program that a list permits.
#[derive(Debug)]
pub(super) struct Fit {
    /// The file that is run.
    pub(super) program: Program,
    /// The name (`argv[0]`) that it is given in place of the client's.
    pub(super) argv0: Option<OsString>,
}

impl Fit {
    /// Holds a program that was found against the list.
    ///
    /// # Errors
    /// The program is not listed.
    pub(super) fn of(programs: &Programs, Found { program, target }: Found) -> Result<Fit, Unfit> {
        let (program, argv0) = match programs.verdict(program.path(), target.path()) {
            Verdict::Found => (program, None),
            Verdict::Target => (target, None),
            Verdict::Renamed => {
                let name = target.path().into();
                (target, Some(name))
            }
            Verdict::Forbidden => return Err(Unfit::Forbidden(target.path().to_owned())),
        };
        Ok(Fit { program, argv0 })
    }
}

/// Holds the user at the other end against the lists.
///
/// # Errors
/// The user is not listed. The error is for the log and the client.
pub(super) fn permit_client(clients: &Clients, conn: &Conn, origin: &Origin) -> Result<(), String> {
    if !clients.restrict() {
        return Ok(());
    }
    if !origin.is_direct() {
        return Err(format!(
            "{origin} was handed over, so that no user is known who could be allowed (--allow-user)"
        ));
    }
    let stream = conn.socket();
    let asked = stream
        .peer_credentials()
        .and_then(|peer| Ok((peer, stream.peer_groups()?)));
    match asked {
        Ok((Some(peer), Some(groups))) if clients.permit(peer.uid, &groups) => Ok(()),
        Ok((Some(peer), _)) => Err(format!("{peer} is not allowed (--allow-user, --allow-group)")),
        Ok((None, _)) => Err("a client over TCP has no user that could be allowed (--allow-user)".to_owned()),
        // A user that is not known is refused.
        Err(error) => Err(format!("its user cannot be told: {error}")),
    }
}

/// Returns true if the peer is on another machine and no list of programs restricts what it may run. Listeners are
/// refused before that can happen, but a packet filter may rewrite addresses, and another door may hand a connection
/// over.
pub(super) fn may_run_anything(programs: &Programs, origin: &Origin) -> bool {
    !programs.restrict() && !origin.is_local()
}

/// Holds listeners against the lists. Those whose address is known before they are there were held against them with
/// the configuration; the others the service manager has opened. One that other machines reach without a certificate is
/// told in the log.
///
/// # Errors
/// Other machines could run anything; or there is a list of users, who are not known over TCP.
pub(super) fn check_listeners<'l>(
    options: &Options,
    listeners: impl Iterator<Item = (&'l ListenAddr, &'l Listener)>,
) -> Result<(), Error> {
    let name = &options.front.name;
    // Then no address without TLS is exposed.
    let asks = options.front.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    for (configured, listener) in listeners {
        let address = listener.local_addr();
        let exposed = address.is_exposed();
        if exposed && !options.programs.restrict() {
            return Err(Error::new(
                Blame::Operator,
                format!(
                    "{name}: {configured} is {address}: whoever reached it from another machine could run anything"
                ),
                "give the socket a loopback address or a path, or say with allow-program what may be run",
            ));
        }
        if options.clients.restrict() && !matches!(address, ListenAddr::Unix(_)) {
            return Err(Error::new(
                Blame::Operator,
                format!(
                    "{name}: {configured} is {address}: no user is known there, and allow-user or allow-group asks"
                ),
                "give the socket a path, or leave the lists of users and groups out",
            ));
        }
        if exposed && !asks {
            log::warn!(
                service:% = name; "{name}: {address} can be reached from other machines: whoever is let in (--allow, --deny) can run what \
                 --allow-program names, without a password"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::PeerAddr;
    use crate::net::origin::Asserted;
    use crate::net::stream::Stream;

    #[test]
    fn a_list_of_users_refuses_a_client_that_another_process_or_door_has_spoken_for() {
        let own = nix::unistd::geteuid().as_raw();
        let listed = Clients {
            users: [own].into(),
            ..Clients::default()
        };
        let others = Clients {
            users: [own + 1].into(),
            ..Clients::default()
        };
        let (stream, _client) = mio::net::UnixStream::pair().unwrap();
        let conn = Conn::new(Stream::Unix(stream));
        let direct = Origin::direct(PeerAddr::Unix);
        assert_eq!(permit_client(&listed, &conn, &direct), Ok(()));
        assert!(permit_client(&others, &conn, &direct).is_err());
        let asserted = |asserted| Origin {
            asserted: Some(asserted),
            ..direct.clone()
        };
        for origin in [
            asserted(Asserted::Address("127.0.0.1:5".parse().unwrap())),
            asserted(Asserted::Unknown),
            Origin {
                door: Some("route".into()),
                ..direct.clone()
            },
        ] {
            assert!(permit_client(&listed, &conn, &origin).is_err(), "{origin:?}");
            assert_eq!(permit_client(&Clients::default(), &conn, &origin), Ok(()));
        }
    }

    #[test]
    fn another_machine_runs_nothing_unless_it_is_said_what() {
        let peer = |text: &str| Origin::direct(PeerAddr::tcp(text.parse().unwrap()));
        let mut programs = Programs::default();
        for (text, refused) in [
            ("127.0.0.1:5", false),
            ("[::1]:5", false),
            ("[::ffff:127.0.0.1]:5", false),
            ("192.0.2.7:5", true),
            ("[2001:db8::1]:5", true),
        ] {
            assert_eq!(may_run_anything(&programs, &peer(text)), refused, "{text}");
        }
        assert!(!may_run_anything(&programs, &Origin::direct(PeerAddr::Unix)));
        let through_a_proxy = |asserted| Origin {
            asserted: Some(asserted),
            ..Origin::direct(PeerAddr::Unix)
        };
        for (asserted, refused) in [
            (Asserted::Address("127.0.0.1:5".parse().unwrap()), false),
            (Asserted::Address("192.0.2.7:5".parse().unwrap()), true),
            (Asserted::Unknown, true),
        ] {
            let origin = through_a_proxy(asserted);
            assert_eq!(may_run_anything(&programs, &origin), refused, "{origin}");
        }
        programs.add("/usr/bin/uptime").unwrap();
        assert!(!may_run_anything(&programs, &peer("192.0.2.7:5")));
    }
}
