//! A table `[route.NAME]` with the tables of its services.

use std::time::Duration;

use crate::doors::Options as DoorOptions;
use crate::doors::route::options::{Balance, HTTP, Options, Pattern, Server, TLS, Target, Way};
use crate::error::Blame;

use super::super::read;

/// The options of the one service of a text, or its mistakes, a line each, without the name of the file.
fn read_text(text: &str) -> Result<Options, Vec<String>> {
    match read("f", text.as_bytes()) {
        Ok(mut services) => match services.remove(0) {
            DoorOptions::Route(options) if services.is_empty() => Ok(*options),
            other => panic!("a route door is one: {other:?}"),
        },
        Err(error) => {
            assert_eq!(error.blame(), Blame::Operator);
            let lines = error.to_string();
            let lines = lines.lines().map(|line| line.strip_prefix("f:").unwrap().to_owned());
            Err(lines.collect())
        }
    }
}

/// The options of a door with these services, each in a line `NAME = { KEYS }`.
fn with(services: &str) -> Result<Options, Vec<String>> {
    read_text(&format!(
        "[route.r]\ntls-listen = '127.0.0.1:1'\n[route.r.services]\n{services}\n"
    ))
}

/// The mistakes in such services, without their positions.
fn told(services: &str) -> Vec<String> {
    let lines = with(services).expect_err(services);
    lines
        .iter()
        .map(|line| line.splitn(3, ':').nth(2).unwrap().trim().to_owned())
        .collect()
}

/// The servers of a service, each with its weight if that is not 1.
fn servers(options: &Options, name: &str, way: Way) -> Vec<String> {
    let service = options.table.get(&name.parse().unwrap()).expect(name);
    let rule = service.rules.first().expect("a rule");
    let Some(servers) = rule.servers(way) else {
        return Vec::new();
    };
    let server = |server: &Server| match server.weight {
        1 => server.address.to_string(),
        weight => format!("{} x{weight}", server.address),
    };
    servers.list.iter().map(server).collect()
}

#[test]
fn a_door_has_its_settings_and_the_services_of_its_table() {
    let options = read_text(
        "[route.web]\ntls-listen = ['127.0.0.1:443', 'unix:/run/x']\nsocket-mode = '0660'\nhello-timeout = '3s'\n\
         connect-timeout = '2s'\nidle-timeout = 0\nstop-timeout = '5s'\nold-generation-timeout = '1m'\nmax-connections = 7\ndebug = true\n\
         [route.web.services.'WWW.Example.org.']\naddr = '10.0.0.5'\ntls-port = 8443\n\
         [route.web.services.'*.example.org']\naddr = '10.0.0.6:443'\nconnect-timeout = '1s'\nidle-timeout = '9s'\n\
         [route.web.services.CATCH_ALL]\naddr = 'unix:/run/all'\n",
    )
    .unwrap();
    let second = Duration::from_secs;
    assert_eq!(options.front.name, "web");
    let listen: Vec<_> = options.front.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:443", "unix:/run/x"]);
    assert_eq!(
        (options.front.unix_socket.mode, options.front.connection_limits.total),
        (Some(0o660), 7)
    );
    assert_eq!(
        (options.hello_timeout, options.front.stop_timeout),
        (second(3), second(5))
    );
    assert_eq!(options.front.old_generation_timeout, Some(second(60)));
    assert!(options.debug && options.front.tls.is_none());
    assert_eq!((options.table.len(), &*options.summary()), (3, "3 services"));
    let times = |name: &str| {
        let rule = &options.table.get(&name.parse().unwrap()).unwrap().rules[0];
        (rule.connect_timeout, rule.idle_timeout)
    };
    assert_eq!(times("www.example.org"), (second(2), None));
    assert_eq!(times("*.example.org"), (second(1), Some(second(9))));
    for (name, server) in [
        ("www.example.org", "10.0.0.5:8443"),
        ("*.example.org", "10.0.0.6:443"),
        ("CATCH_ALL", "unix:/run/all"),
    ] {
        assert_eq!(servers(&options, name, Way::Tls), [server]);
    }
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let options = with("a = { addr = '10.0.0.5:443' }").unwrap();
    let rule = &options.table.get(&Pattern::Exact("a".into())).unwrap().rules[0];
    assert_eq!(options.hello_timeout, Duration::from_secs(10));
    assert_eq!(options.front.stop_timeout, Duration::from_secs(30));
    assert_eq!(options.front.old_generation_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(rule.connect_timeout, Duration::from_secs(5));
    assert_eq!(rule.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((&rule.alpn, options.debug), (&None, false));
}

#[test]
fn an_address_is_read_with_and_without_its_port() {
    for (written, reached) in [
        ("addr = '10.0.0.5', tls-port = 443", "10.0.0.5:443"),
        ("addr = '10.0.0.5:8443'", "10.0.0.5:8443"),
        ("addr = '10.0.0.5:80', tls-port = 443", "10.0.0.5:443"),
        ("addr = '::1', tls-port = 443", "[::1]:443"),
        ("addr = '[::1]', tls-port = 443", "[::1]:443"),
        ("addr = '[::1]:8443'", "[::1]:8443"),
        ("addr = '[fe80::1%7]:8443'", "[fe80::1%7]:8443"),
        ("addr = 'fe80::1%7', tls-port = 1", "[fe80::1%7]:1"),
        ("addr = 'unix:/run/web', tls-port = 443", "unix:/run/web"),
        ("addr = '/run/web'", "unix:/run/web"),
        ("addr = 'unix:@web'", "unix:@web"),
    ] {
        let options = with(&format!("a = {{ {written} }}")).unwrap();
        assert_eq!(servers(&options, "a", Way::Tls), [reached], "{written}");
        let is_reached_by_http = !servers(&options, "a", Way::Http).is_empty();
        let has_own_port = written.contains("443'") && !written.contains("tls-port") || written.contains(":80");
        assert_eq!(
            is_reached_by_http,
            has_own_port || !written.contains("port"),
            "{written}"
        );
    }
}

#[test]
fn several_servers_have_weights_and_a_rule_of_choice() {
    let options =
        with("a = { addrs = ['10.0.0.5', { addr = '10.0.0.6:8443', weight = 3 }, { addr = '10.0.0.7' }], tls-port = 443, balance = 'sticky' }")
            .unwrap();
    assert_eq!(
        servers(&options, "a", Way::Tls),
        ["10.0.0.5:443", "10.0.0.6:443 x3", "10.0.0.7:443"]
    );
    let rule = &options.table.get(&Pattern::Exact("a".into())).unwrap().rules[0];
    assert_eq!(rule.servers(Way::Tls).unwrap().balance, Balance::Sticky);
    let one = with("a = { addrs = '10.0.0.5:443' }").unwrap();
    assert_eq!(servers(&one, "a", Way::Tls), ["10.0.0.5:443"]);
}

#[test]
fn each_mistake_in_a_service_is_told_with_its_remedy() {
    for (service, mistake) in [
        (
            "a = {}",
            "addr: no server is named; write for example addr = \"10.0.0.5\" and tls-port = 443",
        ),
        (
            "a = { addrs = [] }",
            "addr: no server is named; write for example addr = \"10.0.0.5\" and tls-port = 443",
        ),
        (
            "a = { addr = '10.0.0.5' }",
            "addr: it is not said at which port the server listens; write tls-port = 443 as well, or a port behind the address",
        ),
        (
            "a = { addrs = ['10.0.0.5:443', '10.0.0.6'] }",
            "addrs: it is not said at which port the server listens; write tls-port = 443 as well, or a port behind the address",
        ),
        (
            "a = { addr = '10.0.0.5:443', addrs = ['10.0.0.6:443'] }",
            "addr: there is addrs as well; write every server in addrs, and leave addr out",
        ),
        (
            "a = { addrs = ['10.0.0.5:443', '10.0.0.6:443', '10.0.0.5:443'] }",
            "addrs: this server is in the list already; leave it out, or raise its weight",
        ),
        (
            "a = { addrs = ['[0::1]:443', '::1'], tls-port = 443 }",
            "addrs: this server is in the list already; leave it out, or raise its weight",
        ),
        (
            "a = { addrs = [{ addr = '10.0.0.5:443', weight = 0 }] }",
            "addrs: every weight is 0, so no server gets a connection; give one of them a weight of 1 or more",
        ),
        (
            "a = { addrs = [{ addr = '10.0.0.5:443', weight = 65536 }] }",
            "addrs: the weight 65536 is out of range; write a weight from 0 to 65535",
        ),
        (
            "a = { addrs = [{ address = '10.0.0.5:443' }] }",
            "addrs: this is no server; write \"10.0.0.5\", \"10.0.0.5:8443\" or { addr = \"10.0.0.5\", weight = 2 }",
        ),
        (
            "a = { addrs = [7] }",
            "addrs: this is no server; write \"10.0.0.5\", \"10.0.0.5:8443\" or { addr = \"10.0.0.5\", weight = 2 }",
        ),
        (
            "a = { addr = 'https://10.0.0.5' }",
            "addr: it is a URL; write the host and the port alone, such as 10.0.0.5:443",
        ),
        (
            "a = { addr = '443' }",
            "addr: `443` is no address of a server; write for example 10.0.0.5, 10.0.0.5:443 or unix:/run/web",
        ),
        (
            "a = { addr = '', tls-port = 443 }",
            "addr: `` is no address of a server; write for example 10.0.0.5, 10.0.0.5:443 or unix:/run/web",
        ),
        (
            "a = { addr = '10.0.0.256:443' }",
            "addr: `10.0.0.256` is no IP address; write one such as 10.0.0.5",
        ),
        (
            "a = { addr = '10.0.0.5:0' }",
            "addr: \"10.0.0.5:0\" is not an address: nobody can be reached at port 0; write for example 10.0.0.5, 10.0.0.5:443 \
             or unix:/run/web",
        ),
        (
            "a = { addr = '10.0.0.5', tls-port = 0 }",
            "tls-port: 0 is out of range; write a value from 1 to 65535",
        ),
        (
            "a = { addr = '10.0.0.5', tls-port = 70000 }",
            "tls-port: 70000 is out of range; write a value from 1 to 65535",
        ),
        (
            "a = { addr = '10.0.0.5:443', balance = 'random' }",
            "balance: `random` is not known here; write \"round-robin\" or \"least-connections\" or \"sticky\"",
        ),
        (
            "a = { addr = '10.0.0.5:443', alpn = '' }",
            "alpn: the name of a protocol has 1 to 255 bytes; write for example h2 or postgresql",
        ),
        (
            "a = { addr = '10.0.0.5:443', redirect-https = 'yes' }",
            "redirect-https: this is switched on or off; write true or false",
        ),
        (
            "a = { addr = '10.0.0.5:443', acme-addr = '10.0.0.9' }",
            "acme-addr: its port is missing; write for example 127.0.0.1:8402 or unix:/run/acme.sock",
        ),
        (
            "a = { addr = '10.0.0.5:443', connect-timeout = '1ms' }",
            "connect-timeout: 1ms is out of range; write a value from 100ms to 366d",
        ),
        (
            "a = { addr = '10.0.0.5:443', idle-timeout = '1ms' }",
            "idle-timeout: 1ms is out of range; write a value from 100ms to 366d, or 0 for no limit",
        ),
        (
            "a = { addr = '10.0.0.5:443', tlsport = 443 }",
            "there is no key `tlsport`; did you mean `tls-port`?",
        ),
        (
            "a = 5",
            "`a` is not a service; write a table with a name, such as [route.r.services.\"www.example.org\"]",
        ),
        (
            "a = [5]",
            "`a` is not a service; write a table with a name, such as [route.r.services.\"www.example.org\"]",
        ),
        (
            "a = []",
            "`a` is not a service; write a table with a name, such as [route.r.services.\"www.example.org\"]",
        ),
    ] {
        assert_eq!(told(service), [mistake], "{service}");
    }
}

#[test]
fn a_name_that_no_client_can_ask_for_is_a_mistake() {
    let server = "{ addr = '10.0.0.5:443' }";
    for (name, remedy) in [
        ("", "write for example www.example.org, *.example.org or CATCH_ALL"),
        ("*", "write for example www.example.org, *.example.org or CATCH_ALL"),
        (
            "www.*.org",
            "write for example www.example.org, *.example.org or CATCH_ALL",
        ),
        (
            "*a.org",
            "write for example www.example.org, *.example.org or CATCH_ALL",
        ),
        (
            "a..org",
            "write for example www.example.org, *.example.org or CATCH_ALL",
        ),
        ("a b", "write for example www.example.org, *.example.org or CATCH_ALL"),
        ("bücher.example", "write the one that begins with xn--"),
        ("https://www.example.org", "write for example www.example.org"),
        ("www.example.org:443", "write for example www.example.org"),
        ("www.example.org/path", "write for example www.example.org"),
        ("[::1]", "write for example www.example.org"),
        (
            "catch_all",
            "the service for all other names is written in capitals; write CATCH_ALL",
        ),
    ] {
        let told = told(&format!("\"{name}\" = {server}"));
        assert_eq!(told.len(), 1, "{told:?}");
        let begin = format!("`{name}` cannot be the name of a service: ");
        assert!(told[0].starts_with(&begin) && told[0].ends_with(remedy), "{told:?}");
    }
    assert!(with(&format!("'::1' = {server}")).is_ok());
}

#[test]
fn a_name_in_a_header_without_quotes_is_told_how_to_be_written() {
    let told = read_text(
        "[route.r]\ntls-listen = '*:443'\n[route.r.services.www.example.org]\naddr = '10.0.0.5:443'\n\
         [route.r.services.a]\naddr = '10.0.0.5:443'\ncheck = 'x'\n",
    );
    let expected = [
        "3:23: a name with dots stands in quotes; write [route.r.services.\"www.example.org\"]",
        "7:9: check: `x` is neither tcp nor the path of a page; write check = \"tcp\", or a path of at most 1024 signs \
         without blanks, such as check = \"/healthz\"",
    ];
    assert_eq!(told.unwrap_err(), expected);
}

#[test]
fn a_name_may_stand_once_whatever_its_letters() {
    let told = with("'www.example.org' = { addr = '10.0.0.5:443' }\n'WWW.example.org.' = { addr = '10.0.0.6:443' }");
    assert_eq!(
        told.unwrap_err(),
        [
            "5:1: `www.example.org` and `WWW.example.org.` are one name, whatever their letters; leave out one of the two"
        ]
    );
}

#[test]
fn entries_of_one_name_are_told_apart_by_the_protocol_that_a_client_offers() {
    let text = |first: &str, second: &str| {
        format!(
            "[route.r]\ntls-listen = '*:443'\n[[route.r.services.a]]\naddr = '10.0.0.5:443'\n{first}\n\
             [[route.r.services.a]]\naddr = '10.0.0.6:443'\n{second}\n"
        )
    };
    let options = read_text(&text("alpn = 'h2'", "")).unwrap();
    let rules = &options.table.get(&Pattern::Exact("a".into())).unwrap().rules;
    let protocols: Vec<_> = rules.iter().map(|rule| rule.alpn.as_deref()).collect();
    assert_eq!(protocols, [Some(&b"h2"[..]), None]);
    assert!(matches!(rules[1].target, Target::Servers { .. }));
    assert!(
        read_text(&text("alpn = 'h2'", "alpn = 'postgresql'")).is_ok(),
        "a warning, not a mistake"
    );
    assert_eq!(
        read_text(&text("", "alpn = 'h2'")).unwrap_err(),
        ["8:8: an entry above it without `alpn` takes every connection, so none comes here; put that one last"]
    );
    assert_eq!(
        read_text(&text("alpn = 'h2'", "alpn = 'h2'")).unwrap_err(),
        ["8:8: an entry above it has the same `alpn`, so no connection comes here; leave out one of the two"]
    );
    let missing = read_text(&text("", "").replace("addr = '10.0.0.6:443'", "")).unwrap_err();
    assert!(
        missing[0].starts_with("6:"),
        "the entry and not the first one: {missing:?}"
    );
}

#[test]
fn each_mistake_in_a_door_is_told_at_its_position() {
    let services = "[route.r.services.a]\naddr = '10.0.0.5:443'\n";
    for (keys, mistake) in [
        (
            "",
            "1:8: tls-listen: there is no address to listen on; write for example *:443",
        ),
        (
            "tls-listen = 'tls:*:443'",
            "2:14: tls-listen: with tls: in front the TLS of *:443 would end at the door, which has no certificate; write \
             *:443: TLS goes through to the server, or ends where a service says so with tls",
        ),
        (
            "tls-listen = ['*:443', '0.0.0.0:443']",
            "2:24: tls-listen: 0.0.0.0:443 and *:443 are in each other's way; leave out one of the two",
        ),
        (
            "tls-listen = '*:443'\nsocket-mode = '0660'",
            "3:15: socket-mode: there is no UNIX socket with a path to apply it to; add a tls-listen address such as \
             unix:/run/iotcpd.sock, or leave it out",
        ),
        (
            "tls-listen = '*:443'\nhello-timeout = '11m'",
            "3:17: hello-timeout: 11m is out of range; write a value from 100ms to 10m",
        ),
        (
            "tls-listen = '*:443'\nidle-timeout = '1ms'",
            "3:16: idle-timeout: 1ms is out of range; write a value from 100ms to 366d, or 0 for no limit",
        ),
        (
            "tls-listen = '*:443'\nold-generation-timeout = 0",
            "3:26: old-generation-timeout: 0s is out of range; write a value from 100ms to 366d",
        ),
        (
            "listen = '*:443'",
            "2:1: there is no key `listen`; where clients connect is said by tls-listen, for example by *:443 or \
             unix:/run/iotcpd.sock behind it",
        ),
        (
            "tls-listen = '*:443'\ncert = '/x'",
            "3:8: cert: no address of tunnel clients has tls: in front; give for example tunnel-listen = \"tls:*:18000\", or \
             leave it out: the TLS of other clients goes through to the servers, which have the certificates, or ends by the \
             `tls` of a service",
        ),
        (
            "tls-listen = '*:443'\ntunnel-ping = '10ms'",
            "3:15: tunnel-ping: 10ms is out of range; write a value from 1s to 1h",
        ),
        (
            "tls-listen = '*:443'\ntunnel-listen = '*:443'",
            "3:17: tunnel-listen: *:443 and *:443 are in each other's way; leave out one of the two",
        ),
        (
            "tls-listen = '*:443'\ntunnel-listen = 'tls:*:18000'",
            "3:17: tunnel-listen: tls:*:18000 has no certificate to show to clients; name the file of one with cert, and that \
             of its key with key, or leave out tls:",
        ),
        (
            "http-listen = '*:80'\nredirect-https = true",
            "3:18: redirect-https: the door does not listen for TLS, so clients cannot come by https; write tls-listen as \
             well, for example *:443",
        ),
        (
            "http-listen = 'tls:*:80'",
            "2:15: http-listen: with tls: in front the TLS of *:80 would end at the door, which has no certificate; write \
             *:80 for HTTP in the clear",
        ),
        (
            "tls-listen = '*:443'\nhttp-listen = '127.0.0.1:443'",
            "3:15: http-listen: 127.0.0.1:443 and *:443 are in each other's way; leave out one of the two",
        ),
        (
            "tls-listen = '*:443'\nacme-addr = 'http://10.0.0.9'",
            "3:13: acme-addr: it is a URL; write the host and the port alone, such as 10.0.0.5:443",
        ),
        (
            "tunnel-listen = '*:80'",
            "1:8: tls-listen: there is no address to listen on; write for example *:443",
        ),
        (
            "tls-listen = '*:443'\nstore = 'redis'",
            "3:9: store: this is not a table; write store = { addr = \"127.0.0.1\" }",
        ),
        (
            "tls-listen = '*:443'\nstore = { type = 'consul', addr = 5 }",
            "3:18: type: names in consul are not served; keep them in a Redis, or write them into this file and leave \
             the table out",
        ),
        (
            "tls-listen = '*:443'\nstore = { type = 'sqlite' }",
            "3:18: type: `sqlite` is not known here; write \"redis\"",
        ),
        (
            "tls-listen = '*:443'\nstore = { addr = '10.0.0.9', prot = 6379 }",
            "3:30: there is no key `prot`; did you mean `port`?",
        ),
        (
            "tls-listen = '*:443'\nstore = { refresh = 0 }",
            "3:21: refresh: 0s is out of range; write a value from 100ms to 1d",
        ),
    ] {
        let told = read_text(&format!("[route.r]\n{keys}\n{services}")).expect_err(keys);
        assert_eq!(told, [mistake], "{keys}");
    }
}

#[test]
fn a_service_for_tunnel_clients_says_which_of_them_serve_and_needs_their_secret() {
    let options = with("a = { client-secret = 's', replace = true }\nb = { client-secret = 's' }").unwrap();
    for (name, takes_newest_alone) in [("a", true), ("b", false)] {
        let rule = &options.table.get(&name.parse().unwrap()).unwrap().rules[0];
        let Target::Tunnel(tunnel) = &rule.target else {
            panic!("{rule:?}")
        };
        assert_eq!(tunnel.takes_newest_alone, takes_newest_alone, "{name}");
    }
    assert_eq!(
        told("a = { addr = '10.0.0.5:443', replace = true }"),
        ["replace: no tunnel client serves this name; write client-secret as well, or leave it out"]
    );
}

#[test]
fn a_service_with_a_secret_is_for_a_tunnel_client_and_no_mistake_shows_the_secret() {
    let options = with("a = { client-secret = 's3cret' }\nb = { client-secret = 's', addr = '10.0.0.5' }").unwrap();
    for name in ["a", "b"] {
        let rule = &options.table.get(&name.parse().unwrap()).unwrap().rules[0];
        assert!(matches!(rule.target, Target::Tunnel(_)), "{rule:?}");
    }
    assert!(!format!("{options:?}").contains("s3cret"));
    let too_long = "s3cret".repeat(1000);
    for (value, mistake) in [
        (
            "''",
            "client-secret: a secret has 1 to 4096 bytes; write that of the tunnel client",
        ),
        (
            &format!("'{too_long}'"),
            "client-secret: a secret has 1 to 4096 bytes; write that of the tunnel client",
        ),
        (
            "7654321",
            "client-secret: an integer is not what belongs here; write client-secret = \"SECRET\"",
        ),
        (
            "['s3cret']",
            "client-secret: this takes one value, not a list; keep one of them",
        ),
        (
            "{ is = 's3cret' }",
            "client-secret: a table is not what belongs here; write client-secret = \"SECRET\"",
        ),
    ] {
        assert_eq!(told(&format!("a = {{ client-secret = {value} }}")), [mistake]);
    }
}

#[test]
fn services_with_the_same_program_share_it_and_two_programs_at_one_address_are_a_mistake() {
    let service = |name: &str, command: &str, port: u16| {
        format!("[route.r.services.'{name}']\naddr = '127.0.0.1:{port}'\nstart = '{command}'\n")
    };
    let door = |services: &[String]| read_text(&format!("[route.r]\ntls-listen = '*:443'\n{}", services.concat()));
    let three = [service("a", "/x", 1), service("b", "/x", 1), service("c", "/y", 2)];
    let options = door(&three).expect("no mistake");
    let programs: Vec<String> = options.programs.iter().map(ToString::to_string).collect();
    assert_eq!(programs, ["program /x", "program /y"]);
    let number = |name: &str| options.table.get(&name.parse().unwrap()).unwrap().rules[0].program;
    assert_eq!(["a", "b", "c"].map(number), [Some(0), Some(0), Some(1)]);
    let mistakes = door(&[service("a", "/x", 1), service("b", "/y", 1)]).expect_err("two programs");
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].starts_with("8:9: start: another service starts another program for the same server"),
        "{mistakes:?}"
    );
    let mistakes = door(&["[route.r.services.a]\naddr = '127.0.0.1:1'\nuser = 'root'\n".to_owned()]);
    let text = "5:8: user: there is no program that it could be for; write start as well, or leave this out";
    assert_eq!(mistakes.expect_err("no program"), [text]);
}

#[test]
fn a_door_without_services_is_refused() {
    let listen = "tls-listen = '*:443'";
    let told = |text: &str| read_text(text).unwrap_err();
    let example = "write a table with a name, such as [route.r.services.\"www.example.org\"]";
    assert_eq!(
        told(&format!("[route.r]\n{listen}\n")),
        [format!("1:8: no service is described; {example}")]
    );
    for empty in ["{}", "5", "[]"] {
        assert_eq!(
            told(&format!("[route.r]\n{listen}\nservices = {empty}\n")),
            [format!("3:12: services: no service is described; {example}")]
        );
    }
}

#[test]
fn an_address_belongs_to_one_service_of_a_file_whatever_its_kind() {
    let told = read_text(
        "[route.r]\ntls-listen = '127.0.0.1:7'\n[route.r.services.a]\naddr = '10.0.0.5:443'\n[pool.p]\nport = 7\n",
    );
    assert_eq!(
        told.unwrap_err(),
        ["6:8: `r` listens on 127.0.0.1:7 already; give `p` another address or port"]
    );
}

#[test]
fn listeners_for_http_and_for_tls_are_told_apart() {
    let options = read_text(
        "[route.r]\ntls-listen = '127.0.0.1:0'\nhttp-listen = ['127.0.0.1:0', 'unix:/run/h']\nsocket-mode = '0660'\n\
         [route.r.services.a]\naddr = '10.0.0.5'\nhttp-port = 80\n",
    )
    .unwrap();
    let marks: Vec<_> = options.front.listen.iter().map(|listen| listen.mark).collect();
    assert_eq!(marks, [TLS, HTTP, HTTP]);
    assert_eq!(servers(&options, "a", Way::Http), ["10.0.0.5:80"]);
    assert_eq!(servers(&options, "a", Way::Tls), [""; 0]);
}

#[test]
fn a_service_may_differ_from_its_door_in_where_http_and_challenges_go() {
    let options = read_text(
        "[route.r]\ntls-listen = '*:443'\nhttp-listen = '*:80'\nredirect-https = true\nacme-addr = '10.0.0.9:81'\n\
         [route.r.services.a]\naddr = '10.0.0.5:443'\n\
         [route.r.services.b]\naddr = '10.0.0.5:443'\nredirect-https = false\nacme-addr = 'unix:/run/acme'\n",
    )
    .unwrap();
    let redirects = |name: &str| options.table.get(&name.parse().unwrap()).unwrap().rules[0].redirects_to_https;
    assert_eq!((redirects("a"), redirects("b")), (true, false));
    assert_eq!(servers(&options, "a", Way::Acme), ["10.0.0.9:81"]);
    assert_eq!(servers(&options, "b", Way::Acme), ["unix:/run/acme"]);
    let options = with("a = { addr = '10.0.0.5:443', redirect-https = true }").unwrap();
    let rule = &options.table.get(&"a".parse().unwrap()).unwrap().rules[0];
    assert!(rule.redirects_to_https && rule.acme.is_none());
}

#[test]
fn a_door_may_have_its_services_in_a_store_alone() {
    let text =
        "[route.r]\ntls-listen = '*:443'\nconnect-timeout = 7\n[route.r.store]\naddr = '10.0.0.9'\npassword = 'x'\n";
    let door = read_text(text).unwrap();
    let store = door.store.expect("a store");
    assert_eq!(store.settings.place.to_string(), "10.0.0.9:6379");
    assert_eq!(store.rule.connect_timeout, Duration::from_secs(7));
    assert_eq!(door.table.len(), 0);
}

#[test]
fn the_first_request_decides_for_its_connection_unless_the_door_or_the_service_judges_each() {
    let judges = |door: &str, service: &str| {
        let text =
            format!("[route.r]\nhttp-listen = '*:80'\n{door}\n[route.r.services.a]\naddr = '10.0.0.5:80'\n{service}\n");
        read_text(&text).map(|options| options.table.get(&"a".parse().unwrap()).unwrap().rules[0].judges_each_request)
    };
    let (first, each) = ("http = 'per-connection'", "http = 'per-request'");
    for (door, service, expected) in [
        ("", "", false),
        (first, "", false),
        (each, "", true),
        ("", each, true),
        (each, first, false),
        (first, each, true),
    ] {
        assert_eq!(judges(door, service), Ok(expected), "{door} {service}");
    }
    let wrong = judges("http = 'each'", "").unwrap_err();
    assert!(wrong.len() == 1 && wrong[0].contains("per-request"), "{wrong:?}");
    let wrong = with("a = { door = 'p', http = 'per-request' }").unwrap_err();
    let text = "connections go to the door `p` of this process, and to no server; leave out one of http and door";
    assert!(wrong.iter().any(|line| line.contains(text)), "{wrong:?}");
}
