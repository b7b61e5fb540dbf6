//! The beginning of a routed connection.

use rustls::server::Acceptor;

use iotcpd::internals::route::core::answer;
use iotcpd::internals::route::core::event::Side;
use iotcpd::internals::route::core::exchange::{Exchange, Fault, FromClient, FromServer, Given};
use iotcpd::internals::route::core::filter::{Filter, Finding};
use iotcpd::internals::route::core::handshake::Handshake;
use iotcpd::internals::route::core::head::{self, Head};
use iotcpd::internals::route::core::hello::{self, Hello, Parsed};
use iotcpd::internals::route::core::name::{self, Name};
use iotcpd::internals::route::core::opening::{self, Entrance, Verdict};
use iotcpd::internals::route::core::secrets::{LONGEST_SECRET, Secret};

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

/// `Handshake::take`: bytes that come one by one end in the same secret or fault as if they had come at once, at the byte
/// that decides; a secret is the bytes behind its length, and is not shown.
pub fn fuzz_tunnel_handshake(input: &[u8]) {
    let whole = Handshake::default().take(input);
    let mut handshake = Handshake::default();
    let mut outcome = Ok(None);
    let mut taken = 0;
    for byte in input {
        outcome = handshake.take(&[*byte]);
        taken += 1;
        if !matches!(outcome, Ok(None)) {
            break;
        }
    }
    assert_eq!(outcome, whole, "{taken} bytes");
    match outcome {
        Ok(Some(secret)) => {
            let length = usize::from(u16::from_be_bytes([input[2], input[3]]));
            assert_eq!(taken, 4 + length);
            assert_eq!(Some(&secret), Secret::new(&input[4..taken]).as_ref());
            assert_eq!(format!("{secret:?}"), "***");
        }
        Ok(None) => assert!(input.len() < 4 + LONGEST_SECRET),
        Err(fault) => assert!(taken <= 4 && !fault.to_string().contains(char::is_control)),
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
            Verdict::PostgresTls | Verdict::PostgresGss => end != opening::SSL_REQUEST.len(),
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

/// `Exchange`: requests and answers end at the same bytes however they come in pieces, and a lenient reader of the same
/// bytes finds the same ends of requests.
pub fn fuzz_http_exchange(input: &[u8]) {
    let whole = requests(input, input.len().max(1));
    let answer = answers(input, input.len().max(1));
    for size in [1, 2, 7, 64] {
        assert_eq!(requests(input, size), whole, "requests in pieces of {size}");
        assert_eq!(answers(input, size), answer, "answers in pieces of {size}");
        assert_eq!(
            filtered(input, size),
            filtered(input, input.len().max(1)),
            "filtered in pieces of {size}"
        );
    }
    let (ends, fault) = whole;
    let lenient = ends_for_a_lenient_reader(input);
    assert!(
        lenient.starts_with(&ends),
        "{ends:?}, {fault:?}, and leniently {lenient:?}"
    );
}

/// Reads requests in pieces of `size` bytes, each answered at once. Returns the places where they end, and the fault
/// behind them.
fn requests(input: &[u8], size: usize) -> (Vec<usize>, Option<Fault>) {
    let mut exchange = Exchange::default();
    let (mut at, mut seen) = (0, 0);
    let mut ends = Vec::new();
    loop {
        let passed = match exchange.from_client(&input[at..seen]) {
            FromClient::Hold if seen == input.len() => return (ends, None),
            FromClient::Hold => {
                seen = input.len().min(seen + size);
                continue;
            }
            FromClient::Head(head) => match exchange.begin(&head) {
                Ok(count) => {
                    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                    assert_eq!(exchange.from_server(answer), FromServer::Pass(answer.len()));
                    count
                }
                Err(fault) => return (ends, Some(fault)),
            },
            FromClient::Pass(count) => count,
            FromClient::Wrong(fault) => return (ends, Some(fault)),
        };
        assert!(passed > 0 && at + passed <= seen, "{passed} bytes are passed on");
        at += passed;
        if exchange.is_idle() {
            ends.push(at);
        }
    }
}

/// Lets requests through a filter in pieces of `size` bytes, each answered as soon as its head has gone through. Returns the
/// number of bytes that went through, which are the first ones, and the reason for which it has stopped.
fn filtered(input: &[u8], size: usize) -> (usize, Option<Finding>) {
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let (mut filter, mut through, mut to) = (Filter::default(), Vec::new(), [0; 50]);
    let admits = &mut |_: &Head<'_>| true;
    for piece in input.chunks(size) {
        if filter.room(Side::Client) < piece.len() {
            break;
        }
        let count = filter.sift(Side::Client, piece, admits);
        through.extend_from_slice(&piece[..count]);
        loop {
            if filter.given() == Given::Nothing && filter.finding().is_none() {
                assert_eq!(filter.sift(Side::Server, answer, admits), answer.len());
            }
            match filter.take(Side::Client, &mut to, admits) {
                0 => break,
                count => through.extend_from_slice(&to[..count]),
            }
        }
    }
    assert!(input.starts_with(&through) && (filter.finding().is_some() || filter.held().len() <= head::LONGEST));
    (through.len(), filter.finding())
}

/// Reads the answer to a request in pieces of `size` bytes. Returns the fault in it, and true if the server may end.
fn answers(input: &[u8], size: usize) -> (Option<Fault>, bool) {
    let mut exchange = Exchange::default();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let FromClient::Head(head) = exchange.from_client(request) else {
        panic!("a head")
    };
    assert_eq!(exchange.begin(&head), Ok(request.len()));
    let (mut at, mut seen) = (0, 0);
    loop {
        match exchange.from_server(&input[at..seen]) {
            FromServer::Hold if seen == input.len() => return (None, exchange.may_server_end()),
            FromServer::Hold => seen = input.len().min(seen + size),
            FromServer::Pass(count) => {
                assert!(count > 0 && at + count <= seen, "{count} bytes are passed on");
                at += count;
            }
            FromServer::Wrong(fault) => {
                assert!(!fault.to_string().contains(char::is_control));
                return (Some(fault), exchange.may_server_end());
            }
        }
    }
}

/// The next line, without its end, which may be LF alone.
fn next_line<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = input.get(*at..)?;
    let line = rest
        .split(|byte| *byte == b'\n')
        .next()
        .filter(|line| line.len() < rest.len())?;
    *at += line.len() + 1;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The ends of the requests for a reader that takes any line end, passes over what it does not know, and reads as much
/// of a number as it can.
fn ends_for_a_lenient_reader(input: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    while next_line(input, &mut at).is_some() {
        let Some(end) = lenient_end(input, at).filter(|end| *end <= input.len()) else {
            break;
        };
        ends.push(end);
        at = end;
    }
    ends
}

/// The end of the request whose headers begin at `at`.
fn lenient_end(input: &[u8], mut at: usize) -> Option<usize> {
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let line = String::from_utf8_lossy(next_line(input, &mut at)?).to_lowercase();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.trim() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => is_chunked |= value.contains("chunked"),
            _ => {}
        }
    }
    if !is_chunked {
        return at.checked_add(length);
    }
    loop {
        let line = String::from_utf8_lossy(next_line(input, &mut at)?).into_owned();
        let digits: String = line.trim().chars().take_while(char::is_ascii_hexdigit).collect();
        match usize::from_str_radix(&digits, 16).unwrap_or(0) {
            0 => break,
            size => at = at.checked_add(size)?,
        }
        next_line(input, &mut at)?;
    }
    while !next_line(input, &mut at)?.is_empty() {}
    Some(at)
}
