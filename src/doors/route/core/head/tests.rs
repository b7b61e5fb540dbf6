//! Heads in pieces, and every way to write a host.

use proptest::prelude::*;

use super::*;

fn at_once(bytes: &[u8]) -> Parsed<'_> {
    parse(bytes, &mut Progress::default())
}

#[track_caller]
fn head(bytes: &[u8]) -> Head<'_> {
    match at_once(bytes) {
        Parsed::Head(head) => head,
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    }
}

/// The host of a request with these lines, or the fault in it.
fn host_in(lines: &[&str]) -> Result<Option<String>, Fault> {
    match at_once(&request(lines)) {
        Parsed::Head(head) => Ok(head.host.map(str::to_owned)),
        Parsed::Wrong(fault) => Err(fault),
        Parsed::NeedMore => panic!("{lines:?} need more"),
    }
}

fn request(lines: &[&str]) -> Vec<u8> {
    [&lines.join("\r\n"), "\r\n\r\n"].concat().into_bytes()
}

/// Asserts that the bytes are decided the same one by one and at once, and that the decision comes with byte `length`.
#[track_caller]
fn assert_decided_at(bytes: &[u8], length: usize, expected: Parsed<'_>) {
    let mut progress = Progress::default();
    for end in 0..length {
        assert_eq!(
            parse(&bytes[..end], &mut progress),
            Parsed::NeedMore,
            "{end} of {length} bytes"
        );
        assert_eq!(
            at_once(&bytes[..end]),
            Parsed::NeedMore,
            "{end} of {length} bytes at once"
        );
    }
    for end in [length, bytes.len(), bytes.len()] {
        assert_eq!(parse(&bytes[..end], &mut progress), expected);
        assert_eq!(at_once(&bytes[..end]), expected);
    }
}

#[track_caller]
fn assert_wrong_at(bytes: &[u8], length: usize, fault: Fault) {
    assert_decided_at(bytes, length, Parsed::Wrong(fault));
}

const CURL: &[u8] =
    b"GET /a?b=c HTTP/1.1\r\nHost: www.example.org:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";

#[test]
fn a_head_is_read_at_every_split_point_whatever_is_behind_it() {
    let expected = Head {
        bytes: CURL,
        request_line: 21,
        method: "GET",
        path: "/a?b=c",
        minor_version: 1,
        host: Some("www.example.org"),
    };
    assert_decided_at(CURL, CURL.len(), Parsed::Head(expected));
    for behind in [&b"body"[..], CURL, b"\n", b"\0\x01\x02", &[b'x'; LONGEST]] {
        assert_decided_at(&[CURL, behind].concat(), CURL.len(), Parsed::Head(expected));
    }
    let shortest = b"GET / HTTP/1.0\r\n\r\n";
    let expected = Head {
        bytes: shortest,
        request_line: 16,
        path: "/",
        minor_version: 0,
        host: None,
        ..expected
    };
    assert_decided_at(shortest, shortest.len(), Parsed::Head(expected));
}

#[test]
fn a_host_is_found_however_it_is_written() {
    for (written, host) in [
        ("www.example.org", "www.example.org"),
        ("www.example.org:80", "www.example.org"),
        ("www.example.org:", "www.example.org"),
        ("www.example.org:65535", "www.example.org"),
        ("WWW.Example.Org.", "WWW.Example.Org."),
        ("  www.example.org \t", "www.example.org"),
        ("10.0.0.1:8080", "10.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("[::1]:", "::1"),
        ("[::FFFF:10.0.0.1]", "::FFFF:10.0.0.1"),
        ("a_b.example", "a_b.example"),
        ("localhost", "localhost"),
    ] {
        for name in ["Host: ", "host:", "HOST: ", "hOsT:\t"] {
            let lines = ["GET / HTTP/1.1", "Accept: */*", &format!("{name}{written}"), "X: y"];
            assert_eq!(host_in(&lines), Ok(Some(host.to_owned())), "{name}{written}");
        }
    }
}

#[test]
fn a_host_that_is_no_name_with_a_port_is_refused() {
    for written in [
        "a b",
        "a, b",
        "a,b",
        "a:b",
        "a:80:80",
        "a:+80",
        "a:65536",
        "a:123456",
        "a: 80",
        "::1",
        "[::1",
        "[::1]80",
        "[::1]:x",
        "[::1]]",
        "[]",
        "[a]",
        "[10.0.0.1]",
        "[fe80::1%eth0]",
        "[v1.a:b]",
        "user@a",
        "user:secret@a",
        "a@b:80",
        "http://a",
        "a/",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%2eb",
        "%61",
        "*",
        "*.example.org",
        ".a",
        "a..b",
        ".",
        "a..",
        ":80",
        "b\u{fc}cher.example",
    ] {
        let lines = ["GET / HTTP/1.1", &format!("Host: {written}")];
        assert_eq!(host_in(&lines), Err(Fault::Host), "{written}");
        let target = format!("GET http://{written}/ HTTP/1.0");
        let in_target = host_in(&[&target]);
        let is_other_form = written.contains(['/', '?', ' ', '#', '\u{fc}']);
        assert!(
            is_other_form || in_target == Err(Fault::Host),
            "{target}: {in_target:?}"
        );
    }
    let long = format!("Host: {}", "a".repeat(254));
    assert_eq!(host_in(&["GET / HTTP/1.1", &long]), Err(Fault::Host));
}

#[test]
fn bytes_beyond_ascii_in_a_host_are_refused_in_every_encoding() {
    for value in [&b"b\xfccher"[..], b"\xff", b"a\x80", b"\xef\xbb\xbfa"] {
        let bytes = [b"GET / HTTP/1.1\r\nHost: ", value, b"\r\n\r\n"].concat();
        assert_eq!(at_once(&bytes), Parsed::Wrong(Fault::Host), "{}", value.escape_ascii());
    }
}

#[test]
fn a_host_must_be_there_once() {
    for second in ["Host: a", "host: a", "HOST:a", "Host:", "Host: b"] {
        for lines in [
            ["GET / HTTP/1.1", "Host: a", second],
            ["GET / HTTP/1.0", second, "Host: a"],
            ["GET http://a/ HTTP/1.1", "Host: a", second],
        ] {
            assert_eq!(host_in(&lines), Err(Fault::Hosts), "{lines:?}");
        }
    }
    assert_eq!(host_in(&["GET / HTTP/1.1", "Accept: */*"]), Err(Fault::NoHost));
    assert_eq!(host_in(&["GET http://a/ HTTP/1.1"]), Err(Fault::NoHost));
    assert_eq!(host_in(&["GET / HTTP/1.0"]), Ok(None));
    assert_eq!(host_in(&["GET http://a/ HTTP/1.0"]), Ok(Some("a".to_owned())));
    // Empty: the client knows that its target has no authority.
    assert_eq!(host_in(&["GET / HTTP/1.1", "Host:"]), Ok(None));
    assert_eq!(host_in(&["GET / HTTP/1.1", "Host: \t"]), Ok(None));
    // Names that only look like it.
    assert_eq!(
        host_in(&["GET / HTTP/1.1", "X-Host: b", "Hosts: b", "Host: a"]),
        Ok(Some("a".to_owned()))
    );
}

#[test]
fn the_authority_of_a_target_must_be_the_host() {
    let same = [
        ("GET http://a/", "a"),
        ("GET http://a", "a:80"),
        ("GET http://A:80/", "a"),
        ("GET HTTP://a.:080/", "a"),
        ("GET http://a?b", "a"),
        ("GET https://a/", "a:443"),
        ("GET http://[::1]:8080/", "[::1]:8080"),
        ("CONNECT a:443", "a:443"),
        ("CONNECT a:443", "a"),
        ("CONNECT [::1]:22", "[::1]:22"),
    ];
    for (target, host) in same {
        let found = host_in(&[&format!("{target} HTTP/1.1"), &format!("Host: {host}")]);
        let name = found.unwrap().unwrap();
        assert!(target.contains(&name), "{target} {host}: {name}");
    }
    let different = [
        ("GET http://a/", "b"),
        ("GET http://a/", "a.b"),
        ("GET http://a/", ""),
        ("GET http://a:8080/", "a"),
        ("GET http://a/", "a:8080"),
        ("GET https://a/", "a:80"),
        ("GET http://[::1]/", "[::2]"),
        ("CONNECT a:22", "a"),
        ("CONNECT a:443", "b:443"),
    ];
    for (target, host) in different {
        let found = host_in(&[&format!("{target} HTTP/1.1"), &format!("Host: {host}")]);
        assert_eq!(found, Err(Fault::Authority), "{target} {host}");
    }
}

#[test]
fn a_target_of_another_form_is_refused() {
    for line in [
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET ://a/ HTTP/1.1",
        "GET //a HTTP/1.1x",
        "GET http:a HTTP/1.1",
        "GET /#a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET http://a#b HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "PRI * HTTP/2.0",
        "GET\t/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "(GET / HTTP/1.1",
    ] {
        let found = host_in(&[line, "Host: a"]);
        assert!(
            matches!(found, Err(Fault::RequestLine | Fault::LineEnd)),
            "{line}: {found:?}"
        );
    }
    for line in [
        "CONNECT / HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
        "GET http:/// HTTP/1.1",
        "CONNECT * HTTP/1.1",
    ] {
        assert_eq!(host_in(&[line, "Host: a"]), Err(Fault::Host), "{line}");
    }
    let paths = [
        ("OPTIONS *", ""),
        ("GET //a/b", "//a/b"),
        ("GET http://a", ""),
        ("GET http://a?b", "?b"),
        ("GET http://a/b?c", "/b?c"),
        ("CONNECT a:443", ""),
    ];
    for (line, path) in paths {
        assert_eq!(head(&request(&[&format!("{line} HTTP/1.1"), "Host: a"])).path, path);
    }
}

#[test]
fn a_header_that_parsers_read_in_different_ways_is_refused() {
    for header in [
        "Host : a",
        "Host\t: a",
        " Host: a",
        "\tHost: a",
        "X: y\r\n folded",
        "X: y\r\n\tHost: b",
        ": a",
        "Host",
        "Ho st: a",
        "Host\u{e9}: a",
        "X: y\rHost: b",
        "X: y\r\r",
    ] {
        let found = host_in(&["GET / HTTP/1.1", "Host: a", header]);
        assert!(
            matches!(found, Err(Fault::Header | Fault::LineEnd)),
            "{header:?}: {found:?}"
        );
    }
}

#[test]
fn lines_end_in_cr_lf_and_none_is_empty_in_front_of_the_request() {
    assert_wrong_at(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 15, Fault::LineEnd);
    assert_wrong_at(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 24, Fault::LineEnd);
    assert_wrong_at(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 26, Fault::LineEnd);
    for first in [
        &b"\r\n"[..],
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"\x16\x03\x01",
        b"\x80",
        b"\xef\xbb\xbf",
    ] {
        let bytes = [first, CURL].concat();
        assert_wrong_at(&bytes, 1, Fault::RequestLine);
    }
}

#[test]
fn a_control_character_is_refused_where_it_stands() {
    let controls = (0..32).chain([127]).filter(|byte| !b"\t\r\n".contains(byte));
    for control in controls {
        for at in [1, 5, 12, 18, 23, 27, 40] {
            let mut bytes = CURL.to_vec();
            bytes[at] = control;
            assert_wrong_at(&bytes, at + 1, Fault::Control);
        }
    }
}

#[test]
fn a_head_of_16384_bytes_is_read_and_a_longer_one_is_refused() {
    let without = request(&["GET / HTTP/1.1", "Host: a", "X: "]).len();
    for (length, is_read) in [(LONGEST, true), (LONGEST + 1, false)] {
        let filling = format!("X: {}", "x".repeat(length - without));
        let bytes = request(&["GET / HTTP/1.1", "Host: a", &filling]);
        assert_eq!(bytes.len(), length);
        assert_eq!(matches!(at_once(&bytes), Parsed::Head(_)), is_read);
        let mut progress = Progress::default();
        for end in (0..LONGEST).step_by(61) {
            assert_eq!(parse(&bytes[..end], &mut progress), Parsed::NeedMore);
        }
        assert_eq!(matches!(parse(&bytes, &mut progress), Parsed::Head(_)), is_read);
    }
    // A head without end.
    let endless = [b"GET /".to_vec(), vec![b'x'; 2 * LONGEST]].concat();
    assert_eq!(at_once(&endless[..LONGEST - 1]), Parsed::NeedMore);
    assert_eq!(at_once(&endless[..LONGEST]), Parsed::Wrong(Fault::TooLong));
    assert_eq!(at_once(&endless), Parsed::Wrong(Fault::TooLong));
}

#[test]
fn a_head_has_at_most_100_headers() {
    for (others, is_read) in [(MOST_HEADERS - 1, true), (MOST_HEADERS, false)] {
        let bytes = request(&[&["GET / HTTP/1.1"][..], &vec!["X: y"; others], &["Host: a"]].concat());
        let expected = if is_read {
            Ok(Some("a".to_owned()))
        } else {
            Err(Fault::TooManyHeaders)
        };
        let found = match at_once(&bytes) {
            Parsed::Head(head) => Ok(head.host.map(str::to_owned)),
            Parsed::Wrong(fault) => Err(fault),
            Parsed::NeedMore => panic!("needs more"),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn a_challenge_of_acme_is_known_by_its_path() {
    let is_challenge =
        |target: &str| head(&request(&[&format!("GET {target} HTTP/1.1"), "Host: a"])).is_acme_challenge();
    for target in [
        "/.well-known/acme-challenge/token",
        "http://a/.well-known/acme-challenge/token",
        "/.well-known/acme-challenge/",
    ] {
        assert!(is_challenge(target), "{target}");
    }
    for target in [
        "/",
        "/.well-known/acme-challenge",
        "//.well-known/acme-challenge/x",
        "/a?/.well-known/acme-challenge/x",
        "/.WELL-KNOWN/acme-challenge/x",
        "/.well-known/acme-challenges/x",
    ] {
        assert!(!is_challenge(target), "{target}");
    }
}

proptest! {
    #[test]
    fn pieces_decide_the_same_as_the_whole(
        lines in prop::collection::vec("(Host: ?|host:|GET |X: )?[a-z :/.@\\[\\]\u{0}\r\n\t0-9]{0,12}(\r\n|\n| HTTP/1\\.[01]\r\n)", 0..6),
    ) {
        let bytes = [&lines.concat(), "\r\n\r\n"].concat().into_bytes();
        let mut progress = Progress::default();
        for end in 0..=bytes.len() {
            let part = &bytes[..end];
            let found = parse(part, &mut progress);
            prop_assert_eq!(found, at_once(part));
            if found != Parsed::NeedMore {
                prop_assert_eq!(found, at_once(&bytes));
            }
        }
    }
}
