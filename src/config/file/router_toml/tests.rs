//! The table `[server]` of a router.toml.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::file::needs::Scope;
use crate::config::file::{read_all, read_bytes};
use crate::config::units::Time;
use crate::doors::route::options::{HTTP, Options as RouteOptions, TLS, Way};

/// Settings that a door needs beside those of a test.
const REST: &str = "httpport = 0\nclientsport = 0\n[server.services.a]\naddr = '10.0.0.5:443'\n";

fn with_flags(text: &str, flags: &RouteSpec) -> Result<RouteOptions, Vec<String>> {
    let read = read_bytes("f", text.as_bytes(), Scope::Settings, Some(flags));
    let mut contents = read.map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
    match contents.services.remove(0) {
        Options::Route(options) if contents.services.is_empty() => Ok(*options),
        other => panic!("a router.toml is one route door: {other:?}"),
    }
}

fn read_text(text: &str) -> Result<RouteOptions, Vec<String>> {
    with_flags(text, &RouteSpec::default())
}

fn told(text: &str) -> Vec<String> {
    read_text(text).expect_err(text)
}

fn listening(options: &RouteOptions) -> Vec<String> {
    options.front.listen.iter().map(ToString::to_string).collect()
}

fn server(options: &RouteOptions, name: &str) -> String {
    let service = options.table.get(&name.parse().unwrap()).expect(name);
    let servers = service.rules[0].servers(Way::Tls).expect(name);
    servers.list[0].address.to_string()
}

#[test]
fn the_settings_of_tcprouter_keep_their_meaning() {
    let options = read_text(
        "[server]\naddr = '127.0.0.1'\nport = 443\nhttpport = 0\nclientsport = 18000\n\
         [server.services.'WWW.example.org']\naddr = '151.101.1.178'\ntlsport = 443\nhttpport = 0\nclientsecret = ''\n\
         [server.services.CATCH_ALL]\naddr = '10.0.0.5:8443'\n",
    )
    .unwrap();
    assert_eq!(options.front.name.to_string(), "route");
    assert_eq!(listening(&options), ["127.0.0.1:443", "127.0.0.1:18000"]);
    assert_eq!(server(&options, "www.example.org"), "151.101.1.178:443");
    assert_eq!(server(&options, "CATCH_ALL"), "10.0.0.5:8443");
}

#[test]
fn the_name_of_the_table_may_be_written_in_capitals() {
    let text = "[Server]\nPort = 443\nHTTPPort = 0\nClientsPort = 0\n[Server.Services.a]\nAddr = '10.0.0.5:443'\n";
    let options = read_text(text).unwrap();
    assert_eq!(server(&options, "a"), "10.0.0.5:443");
}

#[test]
fn the_store_of_tcprouter_is_that_of_the_door() {
    let head = "[server]\nport = 443\nhttpport = 0\nclientsport = 0\n";
    let place = |text: &str| {
        let store = read_text(&format!("{head}{text}")).unwrap().store.expect("a store");
        (store.settings.place.to_string(), store.settings)
    };
    let (address, settings) = place(
        "[server.dbbackend]\ntype = 'redis'\naddr = '10.0.0.9'\nport = 6380\nusername = ''\npassword = ''\ntoken = ''\n\
         refresh = 7\nTable_Cache = '/x'\n",
    );
    assert_eq!(address, "10.0.0.9:6380");
    assert_eq!(settings.refresh, Duration::from_secs(7));
    assert_eq!((settings.place.user, settings.place.password), (None, None));
    assert_eq!(settings.cache, Some("/x".into()));
    let (address, _) = place("[server.DBBackend]\nType = 'Redis'\nAddr = '10.0.0.8'\n");
    assert_eq!(address, "10.0.0.8:6379");
    let (address, settings) = place("[server.store]\naddr = '10.0.0.9'\npassword_file = '/x'\n");
    assert_eq!(address, "10.0.0.9:6379");
    assert!(settings.place.password.is_some());
}

#[test]
fn check_looks_for_the_files_by_which_a_store_is_reached() {
    let text = "[server]\nport = 443\nhttpport = 0\nclientsport = 0\n[server.store]\naddr = 'redis.internal'\ntls = true\n\
                ca = '/nowhere/ca.pem'\npassword_file = '/nowhere/password'\n";
    let told = read_bytes("f", text.as_bytes(), Scope::Needs, None)
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("f:7:7: tls: ") && lines[0].contains("/nowhere/ca.pem"),
        "{told}"
    );
    assert!(
        lines[1].starts_with("f:9:17: password-file: /nowhere/password is of no use: "),
        "{told}"
    );
}

#[test]
fn the_port_for_http_leads_to_the_ports_for_http() {
    let options = read_text(
        "[server]\nport = 443\nhttpport = 80\nclientsport = 0\nredirect_https = true\nacme_addr = '10.0.0.9:81'\n\
         [server.services.a]\naddr = '10.0.0.5'\ntlsport = 443\nhttpport = 8080\nredirect_https = false\n\
         [server.services.b]\naddr = '10.0.0.5'\ntlsport = 443\n",
    )
    .unwrap();
    assert_eq!(listening(&options), ["*:443", "*:80"]);
    let marks: Vec<_> = options.front.listen.iter().map(|listen| listen.mark).collect();
    assert_eq!(marks, [TLS, HTTP]);
    let rule = |name: &str| Arc::clone(&options.table.get(&name.parse().unwrap()).unwrap().rules[0]);
    let (a, b) = (rule("a"), rule("b"));
    let servers = a.servers(Way::Http).expect("servers for HTTP");
    assert_eq!(servers.list[0].address.to_string(), "10.0.0.5:8080");
    assert!(b.servers(Way::Http).is_none() && b.acme.is_some());
    assert_eq!((a.redirects_to_https, b.redirects_to_https), (false, true));
}

#[test]
fn the_keys_of_a_route_door_may_stand_beside_them_in_either_spelling() {
    let options = read_text(
        "[server]\nPort = 443\nhttpport = 0\nclientsport = 0\nidle_timeout = 5\nhello-timeout = '3s'\n\
         tls_listen = 'unix:/run/x'\n\
         [[server.services.a]]\nalpn = 'h2'\naddr = '10.0.0.5'\ntls_port = 1\n\
         [[server.services.a]]\nAddr = '10.0.0.6'\ntls-port = 2\nconnect_timeout = '1s'\n",
    )
    .unwrap();
    assert_eq!(listening(&options), ["*:443", "unix:/run/x"]);
    assert_eq!(options.hello_timeout, Duration::from_secs(3));
    let service = options.table.get(&"a".parse().unwrap()).unwrap();
    assert_eq!(service.rules.len(), 2);
    assert_eq!(service.rules[0].idle_timeout, Some(Duration::from_secs(5)));
    assert_eq!(service.rules[1].connect_timeout, Duration::from_secs(1));
}

#[test]
fn a_missing_port_is_a_mistake_that_names_the_key() {
    let service = "[server.services.a]\naddr = '10.0.0.5:443'\n";
    let no_such = |key: &str, example: u16| {
        format!("f:1:2: there is no key `{key}`; write {key} = {example}, or 0 for no such listener")
    };
    let all = [
        no_such("port", 443),
        no_such("httpport", 80),
        no_such("clientsport", 18000),
    ];
    assert_eq!(told(&format!("[server]\n{service}")), all);
    let but_one = [all[1].clone()];
    assert_eq!(
        told(&format!("[server]\nport = 443\nclientsport = 0\n{service}")),
        but_one
    );
}

#[test]
fn a_port_that_a_syntax_error_hides_is_not_told_as_missing() {
    let told = told("[server]\nport = 443\nhttpport = \nclientsport = 0\n[server.services.a]\naddr = '10.0.0.5:443'\n");
    assert!(told.len() == 1 && told[0].starts_with("f:3:"), "{told:#?}");
}

#[test]
fn an_address_written_as_such_needs_no_port_beside_it() {
    let text = format!("[server]\ntls-listen = 'unix:/x'\n{REST}");
    assert_eq!(listening(&read_text(&text).unwrap()), ["unix:/x"]);
    let flags = RouteSpec {
        tls_listen: vec!["unix:/y".to_owned()],
        ..RouteSpec::default()
    };
    for text in [
        text,
        format!("[server]\n{REST}"),
        format!("[server]\nport = 443\n{REST}"),
    ] {
        assert_eq!(listening(&with_flags(&text, &flags).unwrap()), ["unix:/y"], "{text}");
    }
}

#[test]
fn flags_go_over_the_file_and_their_mistakes_are_those_of_flags() {
    let text = format!("[server]\nport = 443\nhello-timeout = '3s'\nidle-timeout = '7s'\n{REST}");
    let hello = |seconds| RouteSpec {
        hello_timeout: Some(Time(Duration::from_secs(seconds))),
        ..RouteSpec::default()
    };
    let options = with_flags(&text, &hello(5)).unwrap();
    assert_eq!(options.hello_timeout, Duration::from_secs(5));
    let rule = &options.table.get(&"a".parse().unwrap()).unwrap().rules[0];
    assert_eq!(rule.idle_timeout, Some(Duration::from_secs(7)));
    let mistake = "iotcpd: --hello-timeout: 1h is out of range; write a value from 100ms to 10m";
    assert_eq!(with_flags(&text, &hello(3600)).unwrap_err(), [mistake]);
}

#[test]
fn each_mistake_is_told_at_its_position_with_a_remedy() {
    for (server, mistake) in [
        (
            "port = 70000",
            "2:8: port: this is not the number of a port; write a value from 0 to 65535",
        ),
        (
            "port = '443x'",
            "2:8: port: this is not the number of a port; write a value from 0 to 65535",
        ),
        (
            "port = 443\naddr = 'localhost'",
            "3:8: addr: this is not the IP address of a listener; write for example addr = \"0.0.0.0\"",
        ),
        (
            "port = 443\naddr = 5",
            "3:8: addr: this is not the IP address of a listener; write for example addr = \"0.0.0.0\"",
        ),
        (
            "port = 443\nhello-timeout = '1s'\nhello_timeout = '2s'",
            "4:1: `hello-timeout` is set a second time; keep one of the two",
        ),
        (
            "port = 443\nidle_timeot = 5",
            "3:1: there is no key `idle_timeot`; did you mean `idle-timeout`?",
        ),
        (
            "port = 443\ndbbackend = { type = 'etcd' }",
            "3:22: type: names in etcd are not served; keep them in a Redis, or write them into this file and leave \
             the table out",
        ),
        (
            "port = 443\nstore = {}\ndbbackend = { type = 'redis', refresh = 5 }",
            "4:1: dbbackend: there is store as well, which is the same; keep one of the two",
        ),
        (
            "port = 443\ndbbackend = { type = 'redis', table_cahce = '/x' }",
            "3:31: there is no key `table_cahce`; did you mean `table-cache`?",
        ),
        (
            "port = 0",
            "1:2: tls-listen: there is no address to listen on; write for example *:443",
        ),
    ] {
        assert_eq!(
            told(&format!("[server]\n{server}\n{REST}")),
            [format!("f:{mistake}")],
            "{server}"
        );
    }
    let head = "[server]\nport = 443\nhttpport = 0\nclientsport = 0\n";
    let example = "write a table with a name, such as [server.services.\"www.example.org\"]";
    for (services, mistake) in [
        ("", format!("1:2: no service is described; {example}")),
        (
            "services = {}",
            format!("5:12: services: no service is described; {example}"),
        ),
        (
            "services = 5",
            format!("5:12: services: no service is described; {example}"),
        ),
        ("services.a = 5", format!("5:10: `a` is not a service; {example}")),
        (
            "[server.services.www.example.org]\naddr = '10.0.0.5:1'",
            "5:22: a name with dots stands in quotes; write [server.services.\"www.example.org\"]".to_owned(),
        ),
        (
            "[server.services.a]\naddr = '10.0.0.5'\ntlsport = 70000",
            "7:11: tls-port: 70000 is out of range; write a value from 1 to 65535".to_owned(),
        ),
        (
            "[server.services.a]\naddr = '10.0.0.5'\ntlsport = 1\ntls_port = 2",
            "8:1: `tls-port` is set a second time; keep one of the two".to_owned(),
        ),
    ] {
        assert_eq!(
            told(&format!("{head}{services}\n")),
            [format!("f:{mistake}")],
            "{services}"
        );
    }
    for text in ["server = 5\n", "[[server]]\nport = 1\n"] {
        let told = told(text).remove(0);
        assert!(told.ends_with("write [server], and below it port = 443"), "{told}");
    }
}

#[test]
fn a_file_without_the_table_is_told_which_command_runs_it() {
    let no_server = "f:1:1: there is no table [server], so this is no router.toml";
    assert_eq!(
        told("[route.web]\ntls-listen = '*:443'\n"),
        [format!(
            "{no_server}; what it describes is run with iotcpd run --config f"
        )]
    );
    let remedy = "write [server], and below it port = 443 and the other keys of iotcpd-route(1)";
    for text in ["", "[log]\nlevel = 'info'\n"] {
        assert_eq!(told(text), [format!("{no_server}; {remedy}")]);
    }
}

#[test]
fn other_services_may_stand_beside_the_table_under_other_names() {
    let exec = |name: &str| format!("[server]\nport = 443\n{REST}[exec.{name}]\nlisten = 'unix:/x'\n");
    let contents = read_all("f", exec("jobs").as_bytes()).unwrap();
    let names: Vec<_> = contents.services.iter().map(Options::name).collect();
    assert_eq!(names, ["route", "jobs"]);
    let told = read_all("f", exec("route").as_bytes()).unwrap_err().to_string();
    assert_eq!(
        told,
        "f:7:7: there is a service called `route` already; give this one another name"
    );
}
