//! The permissions of an exec door: which client may run which program, and if these lists suffice for the door's
//! addresses.

use super::{KEY, KeyRef, Mistakes};
use crate::config::spec::exec::ExecSpec;
use crate::doors::exec::core::permits::{Clients, Programs};
use crate::net::addr::{Listen, ListenAddr};
use crate::process::identity::{UserIdentity, lookup_group};

/// Lowers the lists. `addresses` are all addresses that the door listens on, except addresses with a mistake.
pub(super) fn permits(mistakes: &mut Mistakes, spec: &ExecSpec, addresses: &[(KeyRef, Listen)]) -> (Clients, Programs) {
    let clients = clients(mistakes, spec);
    let programs = programs(mistakes, spec);
    check_clients(mistakes, spec, addresses);
    check_exposed(mistakes, spec, addresses);
    check_proxies(mistakes, spec);
    check_handed(mistakes, spec);
    (clients, programs)
}

fn clients(mistakes: &mut Mistakes, spec: &ExecSpec) -> Clients {
    let mut clients = Clients::default();
    let remedy = "give its number";
    for (index, name) in spec.allow_user.iter().enumerate() {
        match UserIdentity::lookup(name) {
            Ok(found) => drop(clients.users.insert(found.user)),
            Err(error) => mistakes.add_error(KeyRef::element("allow-user", index), &error.to_string(), remedy),
        }
    }
    for (index, name) in spec.allow_group.iter().enumerate() {
        match lookup_group(name) {
            Ok(group) => drop(clients.groups.insert(group)),
            Err(error) => mistakes.add_error(KeyRef::element("allow-group", index), &error.to_string(), remedy),
        }
    }
    clients
}

fn programs(mistakes: &mut Mistakes, spec: &ExecSpec) -> Programs {
    let mut programs = Programs::default();
    for (index, pattern) in spec.allow_program.iter().enumerate() {
        if let Err(error) = programs.add(pattern) {
            mistakes.add_error(
                KeyRef::element("allow-program", index),
                &error.to_string(),
                "leave it out",
            );
        }
    }
    programs
}

/// Adds a mistake unless the lists of clients apply to all addresses. Users are known on UNIX sockets only: the lists
/// must not seem to protect an address where they have no effect.
fn check_clients(mistakes: &mut Mistakes, spec: &ExecSpec, addresses: &[(KeyRef, Listen)]) {
    let said = [
        ("allow-user", !spec.allow_user.is_empty()),
        ("allow-group", !spec.allow_group.is_empty()),
    ];
    let Some((key, _)) = said.into_iter().find(|(_, said)| *said) else {
        return;
    };
    let over_tcp = addresses
        .iter()
        .find(|(_, listen)| matches!(listen.address, ListenAddr::Tcp(_) | ListenAddr::TcpAny { .. }));
    if let Some((_, listen)) = over_tcp {
        mistakes.add(
            KeyRef::key(key),
            format!("whoever connects to {listen} has no user that could be told"),
            "listen on UNIX sockets alone, and on TCP in a service of its own",
        );
    }
}

/// Adds a mistake for each address that other machines can reach, unless the programs are listed: its clients could run
/// anything.
fn check_exposed(mistakes: &mut Mistakes, spec: &ExecSpec, addresses: &[(KeyRef, Listen)]) {
    let exposed = addresses.iter().filter(|(_, listen)| listen.address.is_exposed());
    for (origin, listen) in exposed.filter(|_| spec.allow_program.is_empty()) {
        mistakes.add(
            *origin,
            format!("whoever reached {listen} from another machine could run anything here"),
            format!(
                "write a loopback address such as 127.0.0.1:9992, or the path of a UNIX socket; \
                 or say with {KEY}allow-program what may be run"
            ),
        );
    }
}

/// Adds a mistake if proxies bring clients from other machines and the programs are not listed, wherever the door listens
/// and whatever a header claims; or if the lists of users would refuse every client, because none of them is known behind a
/// proxy.
fn check_proxies(mistakes: &mut Mistakes, spec: &ExecSpec) {
    if spec.listen.access.accept_proxy.is_empty() {
        return;
    }
    let key = KeyRef::key("accept-proxy");
    if spec.allow_program.is_empty() {
        let text = "whoever reached the proxy from another machine could run anything here";
        let remedy = format!("say with {KEY}allow-program what may be run, or leave it out");
        mistakes.add(key, text, remedy);
    }
    let has_users = !spec.allow_user.is_empty() || !spec.allow_group.is_empty();
    if has_users && !spec.listen.access.accept_proxy_optional {
        let text = format!("behind a proxy no user is known, and {KEY}allow-user or {KEY}allow-group asks for one");
        let remedy = format!(
            "leave out the lists of users, or say {KEY}accept-proxy-optional for clients that come without one"
        );
        mistakes.add(key, text, remedy);
    }
}

/// Adds a mistake if other doors may hand connections over and the programs are not listed, wherever their clients come
/// from; or if the lists of users would refuse every such client.
fn check_handed(mistakes: &mut Mistakes, spec: &ExecSpec) {
    if !spec.handed_over {
        return;
    }
    let key = KeyRef::key("handed-over");
    if spec.allow_program.is_empty() {
        let text = "whoever reached another door could run anything here";
        let remedy = format!("say with {KEY}allow-program what may be run, or leave it out");
        mistakes.add(key, text, remedy);
    }
    if !spec.allow_user.is_empty() || !spec.allow_group.is_empty() {
        let text = format!(
            "of a connection that another door hands over no user is known, and {KEY}allow-user or {KEY}allow-group asks for one"
        );
        let remedy = "leave out the lists of users, or hand over to a door of its own";
        mistakes.add(key, text, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &ExecSpec, addresses: &[&str]) -> Vec<String> {
        let mut mistakes = Mistakes::default();
        let addresses: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(index, text)| (KeyRef::element("listen", index), text.parse().unwrap()))
            .collect();
        permits(&mut mistakes, spec, &addresses);
        mistakes.0.iter().map(ToString::to_string).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_become_numbers() {
        let spec = ExecSpec {
            allow_user: texts(&["root", "7"]),
            allow_group: texts(&["root", "8"]),
            ..ExecSpec::default()
        };
        let mut mistakes = Mistakes::default();
        let (clients, programs) = permits(&mut mistakes, &spec, &[]);
        let (users, groups) = ([0, 7].into(), [0, 8].into());
        assert_eq!(clients, Clients { users, groups });
        assert!(mistakes.0.is_empty() && !programs.restrict());
    }

    #[test]
    fn users_are_known_on_unix_sockets_only() {
        for (user, group) in [(&["root"][..], &[][..]), (&[], &["root"])] {
            let spec = ExecSpec {
                allow_user: texts(user),
                allow_group: texts(group),
                ..ExecSpec::default()
            };
            assert_eq!(told(&spec, &["unix:/x", "unix:@x", "systemd"]), [""; 0]);
            let told = told(&spec, &["unix:/x", "127.0.0.1:1"]);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("connects to 127.0.0.1:1 has no user"), "{told:?}");
        }
    }

    #[test]
    fn other_machines_may_connect_only_if_programs_are_listed() {
        let mut spec = ExecSpec::default();
        for address in [
            "0.0.0.0:1",
            "[::]:1",
            "*:1",
            "192.0.2.1:1",
            "[2001:db8::1]:1",
            "tls:*:1",
        ] {
            spec.allow_program.clear();
            let refused = told(&spec, &["127.0.0.1:1", address]);
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(
                refused[0].contains("from another machine could run anything") && refused[0].contains("allow-program"),
                "{refused:?}"
            );
            spec.allow_program = texts(&["/usr/bin/uptime"]);
            assert_eq!(told(&spec, &[address]), [""; 0]);
        }
    }

    #[test]
    fn a_proxy_brings_other_machines_wherever_the_door_listens() {
        let mut spec = ExecSpec::default();
        spec.listen.access.accept_proxy = texts(&["unix"]);
        for address in ["127.0.0.1:1", "unix:/x", "systemd"] {
            spec.allow_program.clear();
            let refused = told(&spec, &[address]);
            assert!(
                refused.len() == 1 && refused[0].starts_with("accept-proxy: "),
                "{refused:?}"
            );
            assert!(refused[0].contains("allow-program"), "{refused:?}");
            spec.allow_program = texts(&["/usr/bin/uptime"]);
            assert_eq!(told(&spec, &[address]), [""; 0]);
        }
    }

    #[test]
    fn a_list_of_users_would_refuse_every_client_of_a_proxy() {
        let mut spec = ExecSpec {
            allow_user: texts(&["root"]),
            allow_program: texts(&["/usr/bin/uptime"]),
            ..ExecSpec::default()
        };
        spec.listen.access.accept_proxy = texts(&["unix"]);
        let refused = told(&spec, &["unix:/x"]);
        assert!(
            refused.len() == 1 && refused[0].contains("no user is known"),
            "{refused:?}"
        );
        spec.listen.access.accept_proxy_optional = true;
        assert_eq!(told(&spec, &["unix:/x"]), [""; 0]);
    }

    #[test]
    fn what_another_door_hands_over_needs_a_list_of_programs_and_none_of_users() {
        let mut spec = ExecSpec {
            handed_over: true,
            ..ExecSpec::default()
        };
        let refused = told(&spec, &["unix:/x"]);
        assert!(
            refused.len() == 1 && refused[0].starts_with("handed-over: ") && refused[0].contains("allow-program"),
            "{refused:?}"
        );
        spec.allow_program = texts(&["/usr/bin/uptime"]);
        assert_eq!(told(&spec, &["unix:/x"]), [""; 0]);
        spec.allow_user = texts(&["root"]);
        let refused = told(&spec, &["unix:/x"]);
        assert!(
            refused.len() == 1 && refused[0].contains("no user is known"),
            "{refused:?}"
        );
    }

    #[test]
    fn each_mistake_is_reported_by_its_index() {
        let spec = ExecSpec {
            allow_user: texts(&["root", "no such user"]),
            allow_group: texts(&["no such group"]),
            allow_program: texts(&["/usr/bin/*", "ls", "/["]),
            ..ExecSpec::default()
        };
        let mut mistakes = Mistakes::default();
        permits(&mut mistakes, &spec, &[]);
        let origins: Vec<_> = mistakes.0.iter().map(|mistake| mistake.origin).collect();
        let expected = [
            KeyRef::element("allow-user", 1),
            KeyRef::element("allow-group", 0),
            KeyRef::element("allow-program", 1),
            KeyRef::element("allow-program", 2),
        ];
        assert_eq!(origins, expected);
    }
}
