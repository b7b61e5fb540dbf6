//! The certificates of listeners with TLS: a part of lowering that every listening door shares. The files are not read
//! here.

use std::path::PathBuf;

use super::{KEY, KeyRef, Mistake, Mistakes, setting};
use crate::config::quote::Quoted;
use crate::config::spec::listen::{MinTls, TlsSpec};
use crate::doors::front::options::TlsOptions;
use crate::net::access::TrustedProxies;
use crate::net::addr::{Listen, Transport};
use crate::net::tls::Version;
use crate::net::tls::files::{ClientRule, IdentityFiles};
use crate::net::tls::subjects::Subjects;

/// Lowers the settings of TLS. `listen` are the addresses as written under `key`, and `addresses` are all that the door listens on,
/// except addresses with a mistake.
pub(super) fn tls(
    mistakes: &mut Mistakes,
    spec: &TlsSpec,
    (key, listen): (&'static str, &[String]),
    addresses: &[(KeyRef, Listen)],
    proxies: &TrustedProxies,
) -> Option<TlsOptions> {
    let first = addresses.iter().find(|(_, listen)| listen.transport == Transport::Tls);
    // An address with a mistake, which is reported elsewhere, was meant to have TLS as well.
    let is_wanted = listen.iter().any(|text| text.starts_with(Transport::Tls.prefix()));
    if !is_wanted {
        check_unused(mistakes, spec, key);
        return None;
    }
    let identities = identities(mistakes, spec);
    if let (Some((origin, listen)), []) = (first, &*spec.cert) {
        let remedy = format!(
            "name the file of one with {KEY}cert, and that of its key with {KEY}key, or leave out {}",
            Transport::Tls.prefix()
        );
        mistakes.add(
            *origin,
            format!("{listen} has no certificate to show to clients"),
            remedy,
        );
    }
    let clients = clients(mistakes, spec);
    if clients.is_some() {
        check_exposed(mistakes, addresses);
        check_proxies(mistakes, addresses, proxies);
    }
    Some(TlsOptions {
        identities,
        clients,
        alpn: None,
        min_version: min_version(spec.min_tls),
    })
}

/// Lowers the settings of TLS that ends at a route door for one of its services. `alpn` is the protocol that clients must
/// offer. Every mistake belongs to the key that holds all of the settings.
pub(super) fn of_service(mistakes: &mut Mistakes, spec: &TlsSpec, alpn: Option<&str>) -> TlsOptions {
    let mut found = Mistakes::default();
    let identities = identities(&mut found, spec);
    if spec.cert.is_empty() {
        let text = "there is no certificate to show to clients";
        found.add(
            KeyRef::key("cert"),
            text,
            format!("name the file of one with {KEY}cert"),
        );
    }
    let clients = clients(&mut found, spec);
    for Mistake { origin, text, remedy } in found.0 {
        mistakes.add(KeyRef::key("tls"), format!("{KEY}{}: {text}", origin.key), remedy);
    }
    TlsOptions {
        identities,
        clients,
        alpn: alpn.map(|protocol| protocol.as_bytes().into()),
        min_version: min_version(spec.min_tls),
    }
}

fn min_version(min_tls: Option<MinTls>) -> Version {
    match min_tls {
        Some(MinTls::V1_3) => Version::V1_3,
        Some(MinTls::V1_2) | None => Version::V1_2,
    }
}

/// Returns the files of the certificates that `spec` names, or none if there is a mistake in them.
#[must_use]
pub fn identities_of(spec: &TlsSpec) -> Vec<IdentityFiles> {
    let mut mistakes = Mistakes::default();
    let identities = identities(&mut mistakes, spec);
    mistakes.into_result(identities).unwrap_or_default()
}

/// Pairs certificates and keys, by their order. Without any key, each is in the file of its certificate.
fn identities(mistakes: &mut Mistakes, spec: &TlsSpec) -> Vec<IdentityFiles> {
    for (key, files) in [("cert", &spec.cert), ("key", &spec.key)] {
        for (index, _) in files.iter().enumerate().filter(|(_, file)| file.is_empty()) {
            let remedy = "write the path of a PEM file, such as /etc/iotcpd/server.pem";
            mistakes.add(KeyRef::element(key, index), "it is empty", remedy);
        }
    }
    let (certs, keys) = (spec.cert.len(), spec.key.len());
    let remedy = format!(
        "give each {KEY}cert its {KEY}key, in the same order, or leave out every {KEY}key if the files of the \
         certificates hold the keys"
    );
    if keys > certs {
        let text = format!("it belongs to no certificate: {KEY}cert is given {}", times(certs));
        mistakes.add(KeyRef::element("key", certs), text, remedy);
    } else if keys > 0 && keys < certs {
        let text = format!("it has no key: {KEY}key is given {}", times(keys));
        mistakes.add(KeyRef::element("cert", keys), text, remedy);
    }
    let keys = if keys == 0 { &spec.cert } else { &spec.key };
    let files = |(certificate, key): (&String, &String)| IdentityFiles {
        certificate: certificate.into(),
        key: key.into(),
    };
    spec.cert.iter().zip(keys).map(files).collect()
}

/// Returns the file of the authorities that clients must have their certificates from, if it is named.
#[must_use]
pub fn authorities_of(spec: &TlsSpec) -> Option<PathBuf> {
    spec.client_ca
        .as_deref()
        .filter(|file| !file.is_empty())
        .map(PathBuf::from)
}

fn clients(mistakes: &mut Mistakes, spec: &TlsSpec) -> Option<ClientRule> {
    let mut subjects = Subjects::default();
    for (index, text) in spec.allow_subject.iter().enumerate() {
        if let Err(malformed) = subjects.add(text) {
            let text = format!("{} is no pattern: {malformed}", Quoted(text));
            let remedy = "write a name such as squid-1, or a pattern such as *.example.org";
            mistakes.add(KeyRef::element("allow-subject", index), text, remedy);
        }
    }
    if spec.client_ca.as_deref() == Some("") {
        let remedy = "write the path of a PEM file, such as /etc/iotcpd/clients.pem";
        mistakes.add(KeyRef::key("client-ca"), "it is empty", remedy);
    }
    if spec.client_ca.is_none() && !spec.allow_subject.is_empty() {
        let remedy = format!("name the authorities of their certificates with {KEY}client-ca, or leave it out");
        mistakes.add(
            KeyRef::key("allow-subject"),
            "clients are not asked for a certificate",
            remedy,
        );
    }
    let authorities = authorities_of(spec)?;
    Some(ClientRule { authorities, subjects })
}

/// Adds a mistake for each address without TLS that other machines can reach: the rule about certificates would keep no
/// client out.
fn check_exposed(mistakes: &mut Mistakes, addresses: &[(KeyRef, Listen)]) {
    let in_clear = |listen: &Listen| listen.transport == Transport::Plain && listen.address.is_exposed();
    for (origin, listen) in addresses.iter().filter(|(_, listen)| in_clear(listen)) {
        let text = format!("whoever reached {listen} from another machine would need no certificate of {KEY}client-ca");
        let remedy = format!(
            "write {}{listen} or a loopback address, or listen there in a service of its own",
            Transport::Tls.prefix()
        );
        mistakes.add(*origin, text, remedy);
    }
}

/// Adds a mistake for each local address without TLS to which a proxy may connect: it would bring clients of other
/// machines that have shown no certificate here.
fn check_proxies(mistakes: &mut Mistakes, addresses: &[(KeyRef, Listen)], proxies: &TrustedProxies) {
    let in_clear = |listen: &Listen| listen.transport == Transport::Plain && !listen.address.is_exposed();
    let reached = |listen: &Listen| in_clear(listen) && proxies.may_reach_local(&listen.address);
    for (origin, listen) in addresses.iter().filter(|(_, listen)| reached(listen)) {
        let text = format!(
            "whoever reached the proxy from another machine would come to {listen} without a certificate of {KEY}client-ca"
        );
        let remedy = format!("listen there in a service of its own, or leave that proxy out of {KEY}accept-proxy");
        mistakes.add(*origin, text, remedy);
    }
}

fn times(count: usize) -> String {
    match count {
        0 => "not once".to_owned(),
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}

/// Adds a mistake for each setting of TLS without an address for it: an operator who has written one expects clients to
/// speak TLS.
fn check_unused(mistakes: &mut Mistakes, spec: &TlsSpec, listen: &str) {
    let said = [
        ("cert", !spec.cert.is_empty()),
        ("key", !spec.key.is_empty()),
        ("client-ca", spec.client_ca.is_some()),
        ("allow-subject", !spec.allow_subject.is_empty()),
        ("min-tls", spec.min_tls.is_some()),
    ];
    for (key, _) in said.into_iter().filter(|(_, said)| *said) {
        let (text, remedy) = match listen {
            "listen" => (
                "no address has tls: in front, so no client speaks TLS",
                format!("give for example {}, or leave it out", setting(listen, "tls:*:9443")),
            ),
            // Those of a route door.
            _ => (
                "no address of tunnel clients has tls: in front",
                format!(
                    "give for example {}, or leave it out: the TLS of other clients goes through to the servers, which have \
                     the certificates, or ends by the `tls` of a service",
                    setting(listen, "tls:*:18000")
                ),
            ),
        };
        mistakes.add(KeyRef::key(key), text, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::listen::{AccessSpec, ListenSpec};

    fn lower(spec: &ListenSpec) -> (Option<TlsOptions>, Vec<String>) {
        let parsed = |(index, text): (usize, &String)| Some((KeyRef::element("listen", index), text.parse().ok()?));
        let addresses: Vec<_> = spec.listen.iter().enumerate().filter_map(parsed).collect();
        let mut mistakes = Mistakes::default();
        let options = tls(
            &mut mistakes,
            &spec.tls,
            ("listen", &spec.listen),
            &addresses,
            &TrustedProxies::default(),
        );
        (options, mistakes.0.iter().map(ToString::to_string).collect())
    }

    fn asking(listen: &[&str], client_ca: Option<&str>, allow_subject: &[&str]) -> ListenSpec {
        let mut asking = spec("", &["/a"], &[]);
        asking.listen = texts(listen);
        asking.tls.client_ca = client_ca.map(str::to_owned);
        asking.tls.allow_subject = texts(allow_subject);
        asking
    }

    #[test]
    fn clients_need_a_certificate_if_their_authorities_are_named() {
        let rule = |allow_subject: &[&str]| {
            let (options, told) = lower(&asking(&["tls:*:1"], Some("/ca"), allow_subject));
            assert_eq!(told, [""; 0]);
            options.expect("TLS").clients.expect("a rule")
        };
        let mut listed = Subjects::default();
        listed.add("squid-*").unwrap();
        assert_eq!(rule(&[]).subjects, Subjects::default());
        assert_eq!(rule(&["squid-*"]).subjects, listed);
        assert_eq!(rule(&[]).authorities, std::path::Path::new("/ca"));
        assert_eq!(lower(&asking(&["tls:*:1"], None, &[])).0.expect("TLS").clients, None);
    }

    #[test]
    fn a_list_of_names_needs_authorities_and_patterns() {
        for (client_ca, allow_subject, beginnings) in [
            (
                None,
                &["a"][..],
                &["allow-subject: clients are not asked for a certificate; "][..],
            ),
            (Some(""), &[], &["client-ca: it is empty; "]),
            (
                Some("/ca"),
                &["a", "", "b**"],
                &[
                    "allow-subject: `` is no pattern: it is empty; ",
                    "allow-subject: `b**` is no pattern: ",
                ],
            ),
        ] {
            let (_, told) = lower(&asking(&["tls:*:1"], client_ca, allow_subject));
            assert_eq!(told.len(), beginnings.len(), "{told:?}");
            for (line, beginning) in told.iter().zip(beginnings) {
                assert!(line.starts_with(beginning), "{told:?}");
            }
        }
    }

    #[test]
    fn no_other_machine_may_come_round_the_certificates_of_clients() {
        for local in ["127.0.0.1:2", "[::1]:2", "unix:/x", "systemd"] {
            let (_, told) = lower(&asking(&["tls:*:1", local], Some("/ca"), &[]));
            assert_eq!(told, [""; 0], "{local}");
        }
        for exposed in ["192.0.2.1:2", "*:2", "[::]:2"] {
            let (_, told) = lower(&asking(&["tls:*:1", exposed], Some("/ca"), &[]));
            let expected = format!(
                "listen: whoever reached {exposed} from another machine would need no certificate of client-ca; write \
                 tls:{exposed} or a loopback address, or listen there in a service of its own"
            );
            assert_eq!(told, [expected]);
            assert_eq!(lower(&asking(&["tls:*:1", exposed], None, &[])).1, [""; 0]);
        }
    }

    #[test]
    fn no_proxy_may_bring_other_machines_round_the_certificates_of_clients() {
        let told = |listen: &[&str], proxies: &[&str], client_ca| {
            let spec = ListenSpec {
                access: AccessSpec {
                    accept_proxy: texts(proxies),
                    ..AccessSpec::default()
                },
                ..asking(listen, client_ca, &[])
            };
            let mut mistakes = Mistakes::default();
            super::super::listen::listening(&mut mistakes, Vec::new(), &spec, &super::super::listen::MACHINE);
            mistakes.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for (local, proxy, is_reached) in [
            ("unix:/x", "unix", true),
            ("unix:@x", "unix", true),
            ("unix:/x", "127.0.0.1", false),
            ("127.0.0.1:2", "unix", false),
            ("127.0.0.1:2", "127.0.0.1", true),
            ("127.0.0.1:2", "127.0.0.9", true),
            ("127.0.0.1:2", "127.0.0.0/8", true),
            ("127.0.0.1:2", "0.0.0.0/0", true),
            ("127.0.0.1:2", "::ffff:127.0.0.1", true),
            ("127.0.0.1:2", "::1", false),
            ("127.0.0.1:2", "10.0.0.5", false),
            ("[::1]:2", "::1", true),
            ("[::1]:2", "::/0", true),
            ("[::1]:2", "127.0.0.1", false),
            // The kind of such a socket is looked at when it has come.
            ("systemd", "unix", false),
        ] {
            let found = told(&["tls:*:1", local], &[proxy], Some("/ca"));
            if is_reached {
                let expected = format!(
                    "listen: whoever reached the proxy from another machine would come to {local} without a \
                     certificate of client-ca; listen there in a service of its own, or leave that proxy out of \
                     accept-proxy"
                );
                assert_eq!(found, [expected], "{local} {proxy}");
            } else {
                assert_eq!(found, [""; 0], "{local} {proxy}");
            }
            assert_eq!(
                told(&["tls:*:1", local], &[proxy], None),
                [""; 0],
                "no certificate is asked for"
            );
            assert_eq!(
                told(&["tls:127.0.0.1:1"], &[proxy], Some("/ca")),
                [""; 0],
                "all addresses have TLS"
            );
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    fn spec(listen: &str, cert: &[&str], key: &[&str]) -> ListenSpec {
        ListenSpec {
            listen: texts(&[listen]),
            tls: TlsSpec {
                cert: texts(cert),
                key: texts(key),
                ..TlsSpec::default()
            },
            ..ListenSpec::default()
        }
    }

    #[test]
    fn certificates_and_keys_are_paired_by_their_order() {
        let pairs = |cert, key| {
            let (options, told) = lower(&spec("tls:*:1", cert, key));
            assert_eq!(told, [""; 0]);
            let files = options.expect("TLS").identities.into_iter();
            let text = |path: &std::path::PathBuf| path.display().to_string();
            files
                .map(|files| (text(&files.certificate), text(&files.key)))
                .collect::<Vec<_>>()
        };
        let own = |name: &str, key: &str| (name.to_owned(), key.to_owned());
        assert_eq!(
            pairs(&["/a", "/b"], &["/ka", "/kb"]),
            [own("/a", "/ka"), own("/b", "/kb")]
        );
        assert_eq!(pairs(&["/a", "/b"], &[]), [own("/a", "/a"), own("/b", "/b")]);
    }

    #[test]
    fn a_certificate_without_its_key_and_a_key_without_its_certificate_are_mistakes() {
        let (_, told) = lower(&spec("tls:*:1", &["/a", "/b"], &["/ka"]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("cert: it has no key: key is given once; "),
            "{told:?}"
        );
        let (_, told) = lower(&spec("tls:*:1", &["/a"], &["/ka", "/kb"]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("key: it belongs to no certificate"), "{told:?}");
        assert!(identities_of(&spec("tls:*:1", &["/a", "/b"], &["/ka"]).tls).is_empty());
    }

    #[test]
    fn an_address_with_tls_needs_a_certificate() {
        let (_, told) = lower(&spec("tls:*:1", &[], &[]));
        assert_eq!(
            told,
            [
                "listen: tls:*:1 has no certificate to show to clients; name the file of one with cert, and that of its \
              key with key, or leave out tls:"
            ]
        );
        let (_, told) = lower(&spec("tls:*:1", &[""], &[]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("cert: it is empty"), "{told:?}");
    }

    #[test]
    fn settings_of_tls_without_an_address_for_it_are_mistakes() {
        let mut plain = spec("127.0.0.1:1", &["/a"], &["/a"]);
        plain.tls.min_tls = Some(MinTls::V1_3);
        plain.tls.client_ca = Some("/ca".to_owned());
        plain.tls.allow_subject = texts(&["a"]);
        let (options, told) = lower(&plain);
        assert_eq!((options, told.len()), (None, 5));
        for (line, key) in told
            .iter()
            .zip(["cert", "key", "client-ca", "allow-subject", "min-tls"])
        {
            assert!(
                line.starts_with(&format!("{key}: no address has tls: in front")),
                "{line}"
            );
        }
        let (_, told) = lower(&spec("tls:nonsense", &["/a"], &[]));
        assert_eq!(told, [""; 0], "the address has the mistake");
    }

    #[test]
    fn the_oldest_version_is_1_2_unless_it_is_raised() {
        for (written, version) in [
            (None, Version::V1_2),
            (Some(MinTls::V1_2), Version::V1_2),
            (Some(MinTls::V1_3), Version::V1_3),
        ] {
            let mut min_tls = spec("tls:*:1", &["/a"], &[]);
            min_tls.tls.min_tls = written;
            assert_eq!(lower(&min_tls).0.expect("TLS").min_version, version);
        }
    }
}
