//! The options of a tunnel door: [`TunnelSpec`] becomes [`Options`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::exec::DEFAULT_STOP_TIMEOUT;
use super::listen::{MACHINE, listening};
use super::pool::TIMEOUT;
use super::store::file;
use super::{KEY, KeyRef, Lowered, Mistake, Mistakes, setting};
use crate::config::quote::Quoted;
use crate::config::spec::listen::ListenSpec;
use crate::config::spec::tunnel::TunnelSpec;
use crate::doors::front::options::LimitKind;
use crate::doors::route::options::LONGEST_SECRET;
use crate::doors::tunnel::options::{Connect, ConnectAddr, Local, Options, Remote, Secret, Source};
use crate::net::addr::Transport;
use crate::net::tls::client::server_name;
use crate::net::tls::files::IdentityFiles;

const DEFAULT_BACKOFF: Duration = Duration::from_secs(60);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_OLD_GENERATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Lowers one tunnel door. `is_whole` is true if the spec holds all settings that were written: if not, the missing ones
/// were reported as mistakes already, and must not cause a second one.
///
/// # Errors
/// All mistakes in its settings.
pub fn tunnel(name: &str, spec: &TunnelSpec, is_whole: bool) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let mut listen = ListenSpec::default();
    listen.access.max_connections = spec.max_streams;
    let mut streams = Mistakes::default();
    let listening = listening(&mut streams, Vec::new(), &listen, &MACHINE);
    // The limit on connections is that on streams here.
    for Mistake { text, remedy, .. } in streams.0 {
        mistakes.add(KeyRef::key("max-streams"), text, remedy);
    }
    let backoff = mistakes.time("backoff", spec.backoff, &TIMEOUT);
    let connect_timeout = mistakes.time("connect-timeout", spec.connect_timeout, &TIMEOUT);
    let stop_timeout = mistakes.time("stop-timeout", spec.stop_timeout, &TIMEOUT);
    let old_generation_timeout = mistakes.time("old-generation-timeout", spec.old_generation_timeout, &TIMEOUT);
    let idle_timeout = mistakes.limit("idle-timeout", spec.idle_timeout, Some(DEFAULT_IDLE_TIMEOUT));
    let remotes = remotes(&mut mistakes, spec, is_whole);
    let (authorities, identity) = tls(&mut mistakes, spec, &remotes);
    let secret = secret(&mut mistakes, spec, is_whole);
    let local = local(&mut mistakes, "local", spec.local.as_deref());
    let local_tls = self::local(&mut mistakes, "local-tls", spec.local_tls.as_deref());
    if spec.local.is_none() && is_whole {
        let remedy = format!("write for example {}", setting("local", "127.0.0.1:80"));
        mistakes.add(KeyRef::key("local"), "the local service is missing", remedy);
    }
    let goes_to_doors = [&local, &local_tls]
        .into_iter()
        .any(|local| matches!(local, Some(Local::Door(_))));
    if spec.accept_proxy && !goes_to_doors && is_whole {
        let text = "no stream goes to a door of this process; a service gets the header itself";
        mistakes.add(KeyRef::key("accept-proxy"), text, "leave it out");
    }
    let (mut front, listen) =
        listening.into_front(name, LimitKind::Flexible, stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT));
    let old_generation_timeout = old_generation_timeout.unwrap_or(DEFAULT_OLD_GENERATION_TIMEOUT);
    Arc::make_mut(&mut front).old_generation_timeout = Some(old_generation_timeout);
    let nowhere = ConnectAddr::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 1,
    };
    let nowhere = || Local::Service(Arc::new(nowhere));
    let options = Options {
        front,
        remotes,
        authorities,
        identity,
        // A missing one is a mistake.
        secret: secret.unwrap_or_else(|| Source::File(PathBuf::new())),
        local: local.unwrap_or_else(nowhere),
        local_tls,
        accept_proxy: spec.accept_proxy,
        backoff: backoff.unwrap_or(DEFAULT_BACKOFF),
        connect_timeout: connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        idle_timeout,
        debug: spec.debug,
    };
    mistakes.into_result(Lowered { options, listen })
}

fn remotes(mistakes: &mut Mistakes, spec: &TunnelSpec, is_whole: bool) -> Vec<Remote> {
    if spec.remote.is_empty() && is_whole {
        let text = "there is no server to connect to";
        mistakes.add(
            KeyRef::key("remote"),
            text,
            "write for example gateway.example.org:18000",
        );
    }
    let given = given_name(mistakes, spec);
    let mut remotes: Vec<Remote> = Vec::new();
    for (index, text) in spec.remote.iter().enumerate() {
        let origin = KeyRef::element("remote", index);
        let address = match text.parse::<Connect>() {
            Ok(address) if spec.tls => Connect {
                transport: Transport::Tls,
                ..address
            },
            Ok(address) => address,
            Err(error) => {
                mistakes.add_error(
                    origin,
                    &error.to_string(),
                    "write for example gateway.example.org:18000",
                );
                continue;
            }
        };
        let name = match (address.transport, &address.address) {
            (Transport::Plain, _) => None,
            (Transport::Tls, _) if given.is_some() => given.clone(),
            (Transport::Tls, ConnectAddr::Tcp { host, .. }) => server_name(host),
            (Transport::Tls, ConnectAddr::Unix(_)) => None,
        };
        if name.is_none() && address.transport == Transport::Tls {
            let text = format!("no certificate can be for the host of {}", Quoted(text));
            let remedy = format!("write the name that its certificate has as {KEY}server-name");
            mistakes.add(origin, text, remedy);
            continue;
        }
        if remotes.iter().any(|known| known.address == address) {
            mistakes.add(origin, "this server is in the list already", "leave it out");
            continue;
        }
        remotes.push(Remote { address, name });
    }
    remotes
}

fn given_name(mistakes: &mut Mistakes, spec: &TunnelSpec) -> Option<ServerName<'static>> {
    let given = spec.server_name.as_deref()?;
    let name = server_name(given);
    if name.is_none() {
        let text = format!("{} is no name of a host", Quoted(given));
        mistakes.add(KeyRef::key("server-name"), text, "write one as gateway.example.org");
    }
    name
}

/// Returns the file of the authorities, and those of the certificate.
fn tls(mistakes: &mut Mistakes, spec: &TunnelSpec, remotes: &[Remote]) -> (Option<PathBuf>, Option<IdentityFiles>) {
    let authorities = file(mistakes, "ca", spec.ca.as_deref());
    let certificate = file(mistakes, "cert", spec.cert.as_deref());
    let key = file(mistakes, "key", spec.key.as_deref());
    let speaks_tls = remotes.iter().any(|remote| remote.address.transport == Transport::Tls);
    if !speaks_tls && !remotes.is_empty() {
        for (name, is_set) in [
            ("ca", authorities.is_some()),
            ("cert", certificate.is_some()),
            ("key", key.is_some()),
            ("server-name", spec.server_name.is_some()),
        ] {
            if is_set {
                let text = "no server is spoken with by TLS";
                let remedy = format!("write {KEY}tls, or tls: in front of the address in {KEY}remote; or leave it out");
                mistakes.add(KeyRef::key(name), text, remedy);
            }
        }
    }
    if key.is_some() && certificate.is_none() {
        let remedy = format!("name the file of its certificate with {KEY}cert");
        mistakes.add(KeyRef::key("key"), "it belongs to no certificate", remedy);
    }
    let identity = certificate.map(|certificate| IdentityFiles {
        key: key.unwrap_or_else(|| certificate.clone()).into(),
        certificate: certificate.into(),
    });
    (authorities.map(Into::into), identity)
}

fn secret(mistakes: &mut Mistakes, spec: &TunnelSpec, is_whole: bool) -> Option<Source> {
    let file = file(mistakes, "secret-file", spec.secret_file.as_deref());
    match (&spec.secret, file) {
        (Some(_), Some(_)) => {
            let text = format!("there is {KEY}secret as well");
            mistakes.add(KeyRef::key("secret-file"), text, "leave one of the two out");
            None
        }
        (Some(secret), None) => {
            let found = Secret::new(secret).filter(|_| secret.len() <= LONGEST_SECRET);
            if found.is_none() {
                let text = format!("a secret has 1 to {LONGEST_SECRET} bytes");
                mistakes.add(KeyRef::key("secret"), text, "write that of the service at the server");
            }
            found.map(Source::Text)
        }
        (None, Some(file)) => Some(Source::File(file.into())),
        (None, None) => {
            if is_whole && spec.secret_file.is_none() {
                let remedy = format!("write {KEY}secret-file, or {KEY}secret");
                mistakes.add(KeyRef::key("secret-file"), "the secret is missing", remedy);
            }
            None
        }
    }
}

/// The word in front of the name of a door.
const DOOR: &str = "door:";

fn local(mistakes: &mut Mistakes, key: &'static str, text: Option<&str>) -> Option<Local> {
    let text = text?;
    if let Some(name) = text.strip_prefix(DOOR) {
        return Some(Local::Door(name.into()));
    }
    match text.parse::<ConnectAddr>() {
        Ok(address) => Some(Local::Service(Arc::new(address))),
        Err(error) => {
            let otherwise = "write for example 127.0.0.1:80, unix:/run/web.sock or door:NAME";
            mistakes.add_error(KeyRef::key(key), &error.to_string(), otherwise);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TunnelSpec {
        TunnelSpec {
            remote: vec!["gateway.example.org:18000".to_owned()],
            secret: Some("TB2".to_owned()),
            local: Some("127.0.0.1:80".to_owned()),
            ..TunnelSpec::default()
        }
    }

    fn lowered(change: impl FnOnce(&mut TunnelSpec)) -> Result<Options, Vec<String>> {
        let mut spec = spec();
        change(&mut spec);
        match tunnel("t", &spec, true) {
            Ok(lowered) => Ok(lowered.options),
            Err(mistakes) => Err(mistakes.iter().map(Mistake::for_flags).collect()),
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_tunnel_needs_a_server_a_secret_and_a_service() {
        let options = lowered(|_| ()).unwrap();
        assert_eq!(options.remotes.len(), 1);
        assert!(options.remotes[0].name.is_none());
        assert!(!format!("{options:?}").contains("TB2"), "the secret is not shown");
        let empty = tunnel("t", &TunnelSpec::default(), true).unwrap_err();
        let keys: Vec<_> = empty.iter().map(|mistake| mistake.origin.key).collect();
        assert_eq!(keys, ["remote", "secret-file", "local"]);
        assert!(tunnel("t", &TunnelSpec::default(), false).is_ok(), "they were reported");
    }

    #[test]
    fn mistakes_name_the_remedy() {
        for (change, expected) in [
            (
                Box::new(|spec: &mut TunnelSpec| spec.secret = text("")) as Box<dyn FnOnce(&mut TunnelSpec)>,
                "--secret: a secret has 1 to 4096 bytes; write that of the service at the server",
            ),
            (
                Box::new(|spec| spec.secret_file = text("/x")),
                "--secret-file: there is --secret as well; leave one of the two out",
            ),
            (
                Box::new(|spec| spec.ca = text("/x")),
                "--ca: no server is spoken with by TLS; write --tls, or tls: in front of the address in --remote; or leave it out",
            ),
            (
                Box::new(|spec| spec.remote.push("gateway.example.org:18000".to_owned())),
                "--remote: this server is in the list already; leave it out",
            ),
            (
                Box::new(|spec| spec.remote = vec!["gateway.example.org".to_owned()]),
                "the port is missing",
            ),
            (Box::new(|spec| spec.local = text("80")), "--local: "),
            (
                Box::new(|spec| spec.max_streams = Some(crate::config::units::Whole(0))),
                "--max-streams: ",
            ),
        ] {
            let told = lowered(change).unwrap_err().join("\n");
            assert!(told.contains(expected), "{told}");
        }
        let options = lowered(|spec| spec.remote = vec!["tls:10.0.0.1:1".to_owned(), "tls:a.example:1".to_owned()]);
        let names = options.unwrap().remotes.into_iter().filter_map(|remote| remote.name);
        assert_eq!(
            names.map(|name| name.to_str().into_owned()).collect::<Vec<_>>(),
            ["10.0.0.1", "a.example"]
        );
    }
}
