//! The beginning of a routed connection.

use rustls::server::Acceptor;

use iotcpd::internals::route::core::answer;
use iotcpd::internals::route::core::head::{self, Head};
use iotcpd::internals::route::core::hello::{self, Hello, Parsed};
use iotcpd::internals::route::core::name::{self, Name};
use iotcpd::internals::route::core::opening::{self, Entrance, Verdict};

/// `hello::parse` and `opening::judge`: bytes that come one by one are judged as if they had come at once, a decision
/// stays, no more bytes are needed than the parser says, and a hello that rustls accepts as well has the same name and
/// the same protocols there.
pub fn fuzz_client_hello(input: &[u8]) {
    let mut progress = hello::Progress::default();
    let whole = hello::parse(input, &mut progress).shown();
    let mut progress = hello::Progress::default();
    for end in 0..=input.len() {
        let part = &input[..end];
        let resumed = hello::parse(part, &mut progress).shown();
        let at_once = hello::parse(part, &mut hello::Progress::default()).shown();
        assert_eq!(resumed, at_once, "{end} bytes");
        match at_once {
            Shown::NeedMore => assert!(end < hello::MOST_BYTES, "{end} bytes need more"),
            decided => assert_eq!(decided, whole, "{end} bytes decide otherwise than all"),
        }
    }
    compare_with_rustls(input, &whole);
    for entrance in [Entrance::Tls, Entrance::GssDenied, Entrance::Invited, Entrance::Http] {
        judged(entrance, input);
    }
}

/// A finding that borrows nothing.
#[derive(Debug, Clone, PartialEq)]
enum Shown {
    NeedMore,
    Hello(Option<Vec<u8>>, Vec<Vec<u8>>, bool),
    Wrong(hello::Fault),
}

trait Show {
    fn shown(self) -> Shown;
}

impl Show for Parsed<'_> {
    fn shown(self) -> Shown {
        match self {
            Parsed::NeedMore => Shown::NeedMore,
            Parsed::Hello(hello) => {
                named(&hello);
                let protocols = hello.alpn.protocols().map(<[u8]>::to_vec).collect();
                Shown::Hello(hello.name.map(<[u8]>::to_vec), protocols, hello.has_encrypted)
            }
            Parsed::Wrong(fault) => {
                assert!(!fault.to_string().contains(char::is_control));
                Shown::Wrong(fault)
            }
        }
    }
}

/// A name is looked up only in the form in which names are compared.
fn named(hello: &Hello<'_>) {
    let Some(bytes) = hello.name else { return };
    assert!(!bytes.is_empty());
    if let Some(name) = Name::parse(bytes) {
        let name = name.as_str();
        let is_name = !name.is_empty() && name.len() <= name::LONGEST && !name.contains("..");
        assert!(
            is_name
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        );
        assert_eq!(
            Name::parse(name.as_bytes()).map(|again| again.to_string()),
            Some(name.to_owned())
        );
    }
}

fn compare_with_rustls(input: &[u8], ours: &Shown) {
    let (mut acceptor, mut rest) = (Acceptor::default(), input);
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let protocols: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                return agree(ours, hello.server_name(), &protocols);
            }
            Err(_) => return,
        }
    }
}

/// rustls has found a hello with this name and these protocols. It gives no address as a name, takes a dot at
/// the end of a name off, and sets no bound to records and to the message as small as ours.
fn agree(ours: &Shown, name: Option<&str>, protocols: &[Vec<u8>]) {
    match ours {
        Shown::Hello(our_name, our_protocols, _) => {
            let our_name = our_name.as_deref().map(String::from_utf8_lossy);
            let our_name = our_name.filter(|name| name.parse::<std::net::IpAddr>().is_err());
            let our_name = our_name.map(|name| name.to_lowercase());
            assert_eq!(
                our_name.as_deref().map(|name| name.strip_suffix('.').unwrap_or(name)),
                name
            );
            assert_eq!(our_protocols, protocols);
        }
        Shown::Wrong(fault) => {
            let is_stricter =
                [hello::Fault::TooManyRecords, hello::Fault::TooLong, hello::Fault::Names].contains(fault);
            assert!(is_stricter, "{fault:?}");
        }
        Shown::NeedMore => panic!("rustls needs no more"),
    }
}

/// A verdict is the same one by one, and stays, except that a request of PostgreSQL must be alone.
fn judged(entrance: Entrance, input: &[u8]) {
    let mut from_scratch = opening::Progress::default();
    let whole = opening::judge(entrance, input, &mut from_scratch);
    let mut progress = opening::Progress::default();
    for end in 0..=input.len() {
        let part = &input[..end];
        let mut from_scratch = opening::Progress::default();
        let verdict = opening::judge(entrance, part, &mut from_scratch);
        assert_eq!(
            opening::judge(entrance, part, &mut progress),
            verdict,
            "{entrance:?}, {end} bytes"
        );
        let is_final = match verdict {
            Verdict::NeedMore => end >= hello::MOST_BYTES,
            Verdict::PostgresTls | Verdict::PostgresGss => end != opening::POSTGRES_REQUEST,
            Verdict::Refuse(fault) => {
                assert!(!fault.to_string().contains(char::is_control));
                fault != opening::Fault::GssAgain
            }
            Verdict::Tls(_) | Verdict::Http2 | Verdict::Http(_) | Verdict::Plain => true,
        };
        assert!(
            !is_final || verdict == whole,
            "{entrance:?}, {end} bytes: {verdict:?} is {whole:?} with all"
        );
    }
}

/// `head::parse`: bytes that come one by one are judged as if they had come at once, a decision stays, and the host of
/// a head is the one that the plainest reader of lines finds.
pub fn fuzz_http_head(input: &[u8]) {
    let whole = head::parse(input, &mut head::Progress::default());
    let mut progress = head::Progress::default();
    for end in 0..=input.len() {
        let resumed = head::parse(&input[..end], &mut progress);
        let at_once = head::parse(&input[..end], &mut head::Progress::default());
        assert_eq!(resumed, at_once, "{end} bytes");
        match at_once {
            head::Parsed::NeedMore => assert!(end < head::LONGEST, "{end} bytes need more"),
            decided => assert_eq!(decided, whole, "{end} bytes decide otherwise than all"),
        }
    }
    match whole {
        head::Parsed::NeedMore => {}
        head::Parsed::Wrong(fault) => assert!(!fault.to_string().contains(char::is_control)),
        head::Parsed::Head(head) => read_plainly(input, &head),
    }
}

/// Reads the head line by line.
fn read_plainly(input: &[u8], head: &Head<'_>) {
    assert!(input.starts_with(head.bytes) && head.bytes.len() <= head::LONGEST);
    let text = String::from_utf8_lossy(head.bytes);
    let mut lines = text.split("\r\n");
    let request_line = lines.next().unwrap_or_default();
    assert_eq!(head.request_line, request_line.len() + 2);
    let headers: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(headers.iter().all(|line| !line.contains(['\r', '\n', '\0'])));
    let mut hosts = headers.iter().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        assert_eq!(name.trim(), name);
        name.eq_ignore_ascii_case("host")
            .then_some(value.trim_matches([' ', '\t']))
    });
    let (host, second) = (hosts.next(), hosts.next());
    assert_eq!(second, None);
    assert!(host.is_some() || head.minor_version == 0);
    let written = host.filter(|host| !host.is_empty());
    let target = request_line.split(' ').nth(1).unwrap_or_default();
    let has_authority = target != head.path && target != "*";
    assert_eq!(written.is_some() || has_authority, head.host.is_some(), "{text}");
    let Some(host) = head.host else { return };
    let name = Name::parse(host.as_bytes()).unwrap_or_else(|| panic!("a host is a name: {host:?}"));
    if let Some(written) = written {
        let brackets = written.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let plain = brackets.map_or_else(|| written.split(':').next().unwrap_or_default(), |(address, _)| address);
        let plain = plain.to_lowercase();
        assert_eq!(name.as_str(), plain.strip_suffix('.').unwrap_or(&plain));
    }
    let location = String::from_utf8(answer::redirect(&name, 443, head.path)).unwrap_or_default();
    assert_eq!(location.matches("\r\n").count(), 5, "{location}");
}
