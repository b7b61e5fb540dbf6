//! Entries as programs write them, and values that are none.

use proptest::prelude::*;

use super::*;

fn read(value: &str) -> Result<Entry, Fault> {
    Entry::read(b"www.example.org", value.as_bytes())
}

fn server(name: &str, host: &str, tls_port: u16, http_port: u16) -> Result<Entry, Fault> {
    let (host, port) = (host.into(), |port| (port != 0).then_some(port));
    let (tls_port, http_port) = (port(tls_port), port(http_port));
    Ok(Entry {
        name: name.into(),
        target: Target::Server {
            host,
            tls_port,
            http_port,
        },
    })
}

fn tunnel(name: &str, secret: &str) -> Result<Entry, Fault> {
    Ok(Entry {
        name: name.into(),
        target: Target::Tunnel(Secret::new(secret).unwrap()),
    })
}

/// The outer object around a text.
fn wrapped(inner: &str) -> String {
    let value = Base64::encode_string(inner.as_bytes());
    format!(r#"{{"Key":"tcprouter/service/www.example.org","Value":"{value}","LastIndex":7}}"#)
}

#[test]
fn each_of_the_forms_is_read() {
    let go = r#"{"Addr":"151.101.1.178","ClientSecret":"","TLSPort":443,"HTTPPort":80}"#;
    let plain = r#"{"addr":"151.101.1.178","tlsport":443,"httpport":80}"#;
    let hyphens = r#"{"addr":"151.101.1.178","tls-port":443,"http_port":80,"other":{"addr":[1]}}"#;
    for inner in [go, plain, hyphens] {
        let expected = server("www.example.org", "151.101.1.178", 443, 80);
        assert_eq!(read(inner), expected, "{inner}");
        assert_eq!(read(&wrapped(inner)), expected, "{inner}");
    }
    let older = r#"{"addr":"1.2.3.4:443","sni":"git.example.org","name":"git"}"#;
    assert_eq!(read(older), server("git.example.org", "1.2.3.4", 443, 443));
    assert_eq!(read(&wrapped(older)), server("git.example.org", "1.2.3.4", 443, 443));
    let secret = r#"{"clientsecret":"TB2pb","addr":"","tlsport":0}"#;
    assert_eq!(read(secret), tunnel("www.example.org", "TB2pb"));
    let both = r#"{"clientsecret":"TB2pb","addr":"10.0.0.5","tlsport":443}"#;
    assert_eq!(read(both), tunnel("www.example.org", "TB2pb"));
    let lower = wrapped(plain)
        .replace("\"Value\"", "\"value\"")
        .replace("\"Key\"", "\"KEY\"");
    assert_eq!(read(&lower), read(plain));
    let null = r#"{"addr":"10.0.0.5","tlsport":443,"httpport":null,"Value":null,"sni":null,"clientsecret":null}"#;
    assert_eq!(read(null), server("www.example.org", "10.0.0.5", 443, 0));
    let last = r#"{"addr":"10.0.0.5","TLSPORT":1,"tlsport":2,"TlsPort":443}"#;
    assert_eq!(read(last), server("www.example.org", "10.0.0.5", 443, 0));
}

#[test]
fn base64_may_be_broken_into_lines_or_lack_its_padding() {
    let inner = r#"{"addr":"10.0.0.55","tlsport":443}"#;
    let expected = server("www.example.org", "10.0.0.55", 443, 0);
    let base64 = Base64::encode_string(inner.as_bytes());
    assert!(base64.ends_with('='));
    let in_lines = format!("{}\\n{}\\r\\n", &base64[..20], &base64[20..]);
    for value in [&*base64, base64.trim_end_matches('='), &in_lines] {
        assert_eq!(read(&format!(r#"{{"Value":"{value}"}}"#)), expected, "{value}");
    }
}

#[test]
fn an_address_is_a_host_with_a_port_or_without() {
    for (addr, host, port) in [
        ("10.0.0.5", "10.0.0.5", 0),
        ("10.0.0.5:8443", "10.0.0.5", 8443),
        ("::1", "::1", 0),
        ("[::1]", "::1", 0),
        ("[::1]:8443", "::1", 8443),
        ("web.internal", "web.internal", 0),
        ("web.internal:8443", "web.internal", 8443),
    ] {
        let value = format!(r#"{{"addr":"{addr}","tlsport":443}}"#);
        assert_eq!(read(&value), server("www.example.org", host, 443, port), "{addr}");
        let alone = read(&format!(r#"{{"addr":"{addr}"}}"#));
        match port {
            0 => assert_eq!(alone, Err(Fault::NoPort), "{addr}"),
            port => assert_eq!(alone, server("www.example.org", host, port, port), "{addr}"),
        }
    }
    for addr in [
        "unix:/run/docker.sock",
        "/run/docker.sock",
        "unix:@name",
        "https://10.0.0.5",
        "443",
        ":443",
        "10.0.0.5:0",
        "10.0.0.5:65536",
        "10.0.0.5:x",
        "10.0.0",
        "10.0.0.256:443",
        "10.0.0.5:",
        "::1:443x",
        "a b",
        "a\\nb",
        "[::1",
        "[nonsense]:443",
        "*:443",
        "user@host:443",
    ] {
        let result = read(&format!(r#"{{"addr":"{addr}","tlsport":443}}"#));
        assert!(matches!(result, Err(Fault::Address(_))), "{addr}: {result:?}");
    }
    let long = format!(r#"{{"addr":"{}","tlsport":443}}"#, "a".repeat(301));
    assert_eq!(read(&long), Err(Fault::Address("it is too long".into())));
}

#[test]
fn a_value_that_is_no_entry_says_why() {
    let number = "a number from 0 to 65535";
    for (value, fault) in [
        ("", Fault::NoJson(1, 0)),
        ("rubbish", Fault::NoJson(1, 1)),
        ("{\"addr\":\"10.0.0.5\"", Fault::NoJson(1, 18)),
        ("{} {}", Fault::NoJson(1, 4)),
        ("\"10.0.0.5:443\"", Fault::NoObject),
        ("[]", Fault::NoObject),
        ("null", Fault::NoObject),
        ("5", Fault::NoObject),
        ("{}", Fault::NoTarget),
        (r#"{"tlsport":443}"#, Fault::NoTarget),
        (r#"{"addr":"10.0.0.5"}"#, Fault::NoPort),
        (r#"{"addr":"10.0.0.5","tlsport":0,"httpport":0}"#, Fault::NoPort),
        (
            r#"{"addr":"10.0.0.5","tlsport":65536}"#,
            Fault::Field("tlsport", number),
        ),
        (r#"{"addr":"10.0.0.5","tlsport":-1}"#, Fault::Field("tlsport", number)),
        (r#"{"addr":"10.0.0.5","tlsport":4.5}"#, Fault::Field("tlsport", number)),
        (
            r#"{"addr":"10.0.0.5","httpport":"80"}"#,
            Fault::Field("httpport", number),
        ),
        (r#"{"addr":["10.0.0.5"],"tlsport":443}"#, Fault::Field("addr", "a text")),
        (r#"{"clientsecret":5}"#, Fault::Field("clientsecret", "a text")),
        (r#"{"addr":"10.0.0.5:443","sni":{}}"#, Fault::Field("sni", "a text")),
        (r#"{"addr":"10.0.0.5:443","sni":"a b"}"#, Fault::Name),
        (r#"{"addr":"10.0.0.5:443","sni":"bücher.example"}"#, Fault::Name),
        (r#"{"Value":5}"#, Fault::Field("Value", "a text")),
        (r#"{"Value":"%%%"}"#, Fault::NoBase64),
        (r#"{"Value":"YQ"}"#, Fault::NoJson(1, 1)),
    ] {
        assert_eq!(read(value), Err(fault), "{value}");
    }
    let twice = wrapped(&wrapped(r#"{"addr":"10.0.0.5:443"}"#));
    assert_eq!(read(&twice), Err(Fault::NoBase64), "it is wrapped once");
    let deep = format!("{{\"x\":{}", "[".repeat(20_000));
    assert!(matches!(read(&deep), Err(Fault::NoJson(1, _))));
    assert_eq!(read(&" ".repeat(LONGEST_VALUE + 1)), Err(Fault::TooLong));
    let name = "a".repeat(257);
    assert_eq!(
        Entry::read(name.as_bytes(), br#"{"addr":"10.0.0.5:443"}"#),
        Err(Fault::Name)
    );
    assert_eq!(Entry::read(b"\xff", br#"{"addr":"10.0.0.5:443"}"#), Err(Fault::Name));
    assert!(
        Entry::read(b"\xff", br#"{"addr":"10.0.0.5:443","sni":"a"}"#).is_ok(),
        "a label may be anything"
    );
}

#[test]
fn the_longest_entry_can_be_written_and_read_again() {
    // Each of these characters is written as six.
    let secret = |length: usize| format!(r#"{{"clientsecret":"{}"}}"#, r"\u0001".repeat(length));
    let name = [b'"'; 256];
    let longest = Entry::read(&name, secret(LONGEST_SECRET).as_bytes()).unwrap();
    assert_eq!(
        Entry::read(&name, longest.stored(u64::MAX).as_bytes()).as_ref(),
        Ok(&longest)
    );
    assert_eq!(Entry::read(b"", longest.line().as_bytes()).as_ref(), Ok(&longest));
    let fault = Fault::Field("clientsecret", "a text of at most 4096 bytes");
    assert_eq!(read(&secret(LONGEST_SECRET + 1)), Err(fault));
}

#[test]
fn a_secret_is_shown_by_no_fault_and_by_no_debug_form() {
    for value in [
        r#""TB2pb""#,
        r#"{"clientsecret":["TB2pb"]}"#,
        r#"{"clientsecret":"TB2pb""#,
        r#"{"clientsecret":"TB2pb","tlsport":"TB2pb"}"#,
        r#"{"Value":"TB2pb"}"#,
    ] {
        let fault = read(value).unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains("TB2pb"), "{fault}");
    }
    let entry = read(r#"{"clientsecret":"TB2pb"}"#).unwrap();
    assert!(!format!("{entry:?}").contains("TB2pb"));
}

#[test]
fn an_entry_is_written_in_the_form_that_the_original_reads() {
    let entry = server("www.example.org", "151.101.1.178", 443, 80).unwrap();
    let stored: Value = serde_json::from_str(&entry.stored(1)).unwrap();
    assert_eq!(stored["Key"], "tcprouter/service/www.example.org");
    assert_eq!(stored["LastIndex"], 1);
    let inner = Base64::decode_vec(stored["Value"].as_str().unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(inner).unwrap(),
        r#"{"addr":"151.101.1.178","tlsport":443,"httpport":80}"#
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ports = prop_oneof![
        (1..=u16::MAX, 0..=u16::MAX),
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(one, _)| (0, one))
    ];
    let host = prop_oneof![
        // No name ends in a label of figures.
        "[a-z][a-z0-9.-]{0,40}x",
        Just("10.0.0.5".to_owned()),
        Just("fe80::1%2".to_owned())
    ];
    let to_server = (host, ports).prop_map(|(host, ports)| server("x", &host, ports.0, ports.1).unwrap().target);
    let to_tunnel = "\\PC{1,40}".prop_map(|secret| Target::Tunnel(Secret::new(&secret).unwrap()));
    ("[!-~]{1,256}", prop_oneof![to_server, to_tunnel]).prop_map(|(name, target)| Entry {
        name: name.into(),
        target,
    })
}

proptest! {
    #[test]
    fn an_entry_comes_back_from_each_form_that_is_written(entry in any_entry(), index in any::<u64>()) {
        let stored = Entry::read(entry.name.as_bytes(), entry.stored(index).as_bytes());
        prop_assert_eq!(stored.as_ref(), Ok(&entry));
        let kept = Entry::read(b"label", entry.line().as_bytes());
        prop_assert_eq!(kept.as_ref(), Ok(&entry));
        prop_assert!(!entry.line().contains('\n'));
    }

    #[test]
    fn any_bytes_are_an_entry_or_a_fault(bytes in any::<Vec<u8>>(), json in r#"\{("(addr|sni|Value|tlsport)":("[a-z:0-9]*"|[0-9]{1,6}|null),?){0,4}\}"#) {
        for value in [&*bytes, json.as_bytes()] {
            match Entry::read(b"label", value) {
                Ok(entry) => prop_assert_eq!(Entry::read(b"", entry.line().as_bytes()), Ok(entry)),
                Err(fault) => prop_assert!(!fault.to_string().contains(char::is_control)),
            }
        }
    }
}
