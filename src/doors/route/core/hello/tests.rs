//! The parser beside the one of rustls, over hellos of real clients and over hostile ones.

use proptest::prelude::*;
use rustls::server::Acceptor;
use rustls::{Error, InvalidMessage};

use super::*;
use crate::doors::route::core::name::Name;

/// A hello as a client has sent it, and what is in it.
struct Fixture {
    bytes: &'static [u8],
    name: Option<&'static [u8]>,
    alpn: &'static [&'static [u8]],
    has_encrypted: bool,
}

macro_rules! fixture {
    ($file:literal, $name:expr, $alpn:expr) => {
        Fixture {
            bytes: include_bytes!(concat!("../../../../../tests/fuzz/seeds/client_hello/", $file)),
            name: $name,
            alpn: $alpn,
            has_encrypted: false,
        }
    };
}

const WWW: Option<&[u8]> = Some(b"www.example.org");

fn fixtures() -> Vec<Fixture> {
    let chromium = fixture!("chromium-post-quantum", WWW, &[b"h2", b"http/1.1"]);
    vec![
        fixture!("openssl", WWW, &[b"h2", b"http/1.1"]),
        fixture!("openssl-no-name", None, &[]),
        fixture!("openssl-tls12", WWW, &[]),
        fixture!("openssl-postgresql", Some(b"db.example.org"), &[b"postgresql"]),
        fixture!("curl", WWW, &[b"h2", b"http/1.1"]),
        fixture!("python", WWW, &[]),
        fixture!("python-acme", Some(b"acme.example.org"), &[b"acme-tls/1"]),
        fixture!("gnutls", WWW, &[]),
        fixture!("rustls-post-quantum", WWW, &[b"h2", b"http/1.1"]),
        // GREASE in each list that may hold it, a post-quantum key share, and an Encrypted ClientHello.
        Fixture {
            has_encrypted: true,
            ..chromium
        },
    ]
}

impl Fixture {
    fn message(&self) -> &'static [u8] {
        &self.bytes[RECORD_HEAD..]
    }

    #[track_caller]
    fn assert_found(&self, parsed: Parsed<'_>) {
        let Parsed::Hello(hello) = parsed else {
            panic!("{parsed:?}")
        };
        assert_eq!(hello.name, self.name);
        assert_eq!(hello.alpn.protocols().collect::<Vec<_>>(), self.alpn);
        assert_eq!(hello.has_encrypted, self.has_encrypted);
    }
}

fn record(part: &[u8]) -> Vec<u8> {
    let length = u16::try_from(part.len()).unwrap();
    [&[HANDSHAKE, 3, 1], &length.to_be_bytes()[..], part].concat()
}

/// The message in records that hold `size` bytes of it.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

fn vector(width: usize, data: &[u8]) -> Vec<u8> {
    let length = data.len().to_be_bytes();
    [&length[length.len() - width..], data].concat()
}

fn extension(kind: usize, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[6..], &vector(2, data)].concat()
}

fn host(name: &[u8]) -> Vec<u8> {
    [&[0][..], &vector(2, name)].concat()
}

fn server_name(names: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &vector(2, names))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|protocol| vector(1, protocol)).collect();
    extension(ALPN, &vector(2, &list))
}

/// The extension without which rustls takes no hello.
fn signatures() -> Vec<u8> {
    extension(13, b"\0\x04\x04\x03\x08\x04")
}

/// A message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    message_with(
        &vector(1, &[7; 32]),
        b"\0\x02\x13\x01",
        b"\x01\0",
        &vector(2, &extensions.concat()),
    )
}

fn message_with(session: &[u8], suites: &[u8], methods: &[u8], extensions: &[u8]) -> Vec<u8> {
    let body = [b"\x03\x03", &[9; 32][..], session, suites, methods, extensions].concat();
    [&[CLIENT_HELLO][..], &vector(3, &body)].concat()
}

/// A name and protocols, or `None` if more bytes are needed.
type Found<Name> = Option<(Option<Name>, Vec<Vec<u8>>)>;

fn at_once(bytes: &[u8]) -> Result<Found<Vec<u8>>, Fault> {
    match parse(bytes, &mut Progress::default()) {
        Parsed::NeedMore => Ok(None),
        Parsed::Hello(hello) => {
            let protocols = hello.alpn.protocols().map(<[u8]>::to_vec).collect();
            Ok(Some((hello.name.map(<[u8]>::to_vec), protocols)))
        }
        Parsed::Wrong(fault) => Err(fault),
    }
}

/// The finding of rustls: the name in lower case and the protocols.
fn by_rustls(bytes: &[u8]) -> Result<Found<String>, Error> {
    let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).unwrap();
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error)? {
            let hello = accepted.client_hello();
            let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            return Ok(Some((hello.server_name().map(str::to_owned), protocols)));
        }
    }
    Ok(None)
}

/// Our name in the form in which rustls gives one: without a dot at its end, and never an address.
fn as_rustls_has_it(name: Option<&[u8]>) -> Option<String> {
    let name = std::str::from_utf8(name?).unwrap().to_lowercase();
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    (!is_address).then(|| name.strip_suffix('.').unwrap_or(&name).to_owned())
}

/// Asserts that both find the same, or that we refuse what rustls takes for a reason of our own. Returns true if both
/// find a hello. `sent` is the name in the bytes before they were changed.
#[track_caller]
fn assert_agreed(bytes: &[u8], sent: Option<&[u8]>) -> bool {
    let shown = || bytes.escape_ascii().to_string();
    match (at_once(bytes), by_rustls(bytes)) {
        (Ok(Some((name, protocols))), Ok(Some((rustls_name, rustls_protocols)))) => {
            assert_eq!(as_rustls_has_it(name.as_deref()), rustls_name, "{}", shown());
            assert_eq!(protocols, rustls_protocols, "{}", shown());
            true
        }
        // rustls reads further extensions, and waits for the end of the record.
        (Ok(Some((name, _))), Err(Error::InvalidMessage(_)) | Ok(None)) => {
            assert!(name.is_none() || name.as_deref() == sent, "{}", shown());
            false
        }
        // The name cannot be one, no signature schemes, no compression method 0.
        (Ok(Some(_)), Err(Error::PeerMisbehaved(_) | Error::PeerIncompatible(_))) => false,
        (Err(fault), Ok(Some(_))) => {
            let is_stricter = matches!(fault, Fault::TooManyRecords | Fault::TooLong | Fault::Names);
            assert!(is_stricter, "{fault:?}: {}", shown());
            false
        }
        (Ok(None), Ok(Some(_))) => panic!("more is needed: {}", shown()),
        (Ok(None) | Err(_), Ok(None) | Err(_)) => false,
        (found, error) => panic!("{found:?}, {error:?}: {}", shown()),
    }
}

/// Asserts that the bytes are decided the same one by one and at once, and that the decision comes with byte `length`.
#[track_caller]
fn assert_decided_at(bytes: &[u8], length: usize, check: impl Fn(Parsed<'_>)) {
    let mut progress = Progress::default();
    for end in 0..length {
        let part = &bytes[..end];
        assert_eq!(parse(part, &mut progress), Parsed::NeedMore, "{end} of {length} bytes");
        let from_scratch = parse(part, &mut Progress::default()) == Parsed::NeedMore;
        assert!(from_scratch, "{end} of {length} bytes at once");
    }
    for end in [length, bytes.len(), bytes.len()] {
        check(parse(&bytes[..end], &mut progress));
        check(parse(&bytes[..end], &mut Progress::default()));
    }
}

#[track_caller]
fn assert_wrong_at(bytes: &[u8], length: usize, fault: Fault) {
    assert_decided_at(bytes, length, |parsed| assert_eq!(parsed, Parsed::Wrong(fault)));
}

#[track_caller]
fn assert_wrong(bytes: &[u8], fault: Fault) {
    assert_wrong_at(bytes, bytes.len(), fault);
}

#[test]
fn the_hellos_of_real_clients_are_read_at_every_split_point() {
    for fixture in fixtures() {
        let length = fixture.bytes.len();
        for size in [
            length,
            length / 2,
            1000,
            100,
            length.div_ceil(usize::from(MOST_RECORDS)),
        ] {
            let bytes = in_records(fixture.message(), size);
            assert_decided_at(&bytes, bytes.len(), |parsed| fixture.assert_found(parsed));
        }
    }
}

#[test]
fn the_hellos_of_real_clients_are_read_in_records_of_every_size() {
    for fixture in fixtures() {
        let message = fixture.message();
        for size in 1..=message.len() {
            let bytes = in_records(message, size);
            if message.len().div_ceil(size) <= usize::from(MOST_RECORDS) {
                fixture.assert_found(parse(&bytes, &mut Progress::default()));
                assert!(assert_agreed(&bytes, fixture.name), "records of {size}");
            } else {
                assert_eq!(at_once(&bytes), Err(Fault::TooManyRecords), "records of {size}");
            }
        }
    }
}

#[test]
fn a_hello_in_one_record_allocates_nothing() {
    for fixture in fixtures() {
        let mut progress = Progress::default();
        for end in 0..=fixture.bytes.len() {
            parse(&fixture.bytes[..end], &mut progress);
        }
        fixture.assert_found(parse(fixture.bytes, &mut progress));
        assert_eq!(progress.gathered.capacity(), 0);
    }
}

#[test]
fn a_hello_with_one_byte_changed_is_read_as_rustls_reads_it() {
    let mut found = 0;
    for fixture in fixtures() {
        let mut bytes = fixture.bytes.to_vec();
        for at in 0..bytes.len() {
            let before = bytes[at];
            for value in [
                0,
                1,
                0xff,
                before ^ 1,
                before ^ 0x20,
                before.wrapping_sub(1),
                before.wrapping_add(1),
            ] {
                bytes[at] = value;
                found += usize::from(assert_agreed(&bytes, fixture.name));
            }
            bytes[at] = before;
        }
    }
    assert!(found > 1000, "{found} changes left a hello");
}

#[test]
fn a_hello_with_a_byte_left_out_or_doubled_is_read_as_rustls_reads_it() {
    for fixture in fixtures() {
        for at in 0..fixture.bytes.len() {
            let (before, behind) = fixture.bytes.split_at(at);
            assert_agreed(&[before, &behind[1..]].concat(), fixture.name);
            assert_agreed(&[before, &behind[..1], behind].concat(), fixture.name);
        }
    }
}

#[test]
fn bytes_behind_the_message_are_not_looked_at() {
    let fixture = &fixtures()[0];
    let behind: [&[u8]; 5] = [
        b"\x17\x03\x03\0\x05early",
        b"\x15\x03\x03\0\x02\x01\0",
        b"\x16\x03\x03\0\0",
        b"x",
        b"\xff\xff\xff\xff\xff\xff",
    ];
    for behind in behind {
        let bytes = [fixture.bytes, behind].concat();
        assert_decided_at(&bytes, fixture.bytes.len(), |parsed| fixture.assert_found(parsed));
    }
    // Another message in the same record, complete or not.
    let message = fixture.message();
    let bytes = record(&[message, b"\x01\0\0\x05again"].concat());
    assert_decided_at(&bytes, RECORD_HEAD + message.len(), |parsed| {
        fixture.assert_found(parsed)
    });
    let two = [
        record(&message[..100]),
        record(&[&message[100..], &[1; 99][..]].concat()),
    ]
    .concat();
    assert_decided_at(&two, two.len() - 99, |parsed| fixture.assert_found(parsed));
}

#[test]
fn a_hello_without_extensions_names_no_host() {
    for extensions in [&b""[..], b"\0\0"] {
        let bytes = record(&message_with(b"\0", b"\0\x02\0\x2f", b"\x01\0", extensions));
        assert_decided_at(&bytes, bytes.len(), |parsed| {
            assert_eq!(parsed, Parsed::Hello(Hello::default()));
        });
    }
}

#[test]
fn every_length_that_lies_is_refused() {
    let whole = message(&[
        server_name(&host(b"a.example")),
        alpn(&[b"h2", b"http/1.1"]),
        signatures(),
    ]);
    assert!(at_once(&record(&whole)).is_ok_and(|found| found.is_some()));
    // The low bytes of the lengths of the session identifier, suites, methods, extensions; of the first extension, its
    // list, its name; of the second extension, its list, its protocols; and of the last extension.
    for (at, length) in [
        (38, 32),
        (72, 2),
        (75, 1),
        (78, 46),
        (82, 14),
        (84, 12),
        (87, 9),
        (100, 14),
        (102, 12),
        (103, 2),
        (106, 8),
        (118, 6),
    ] {
        assert_eq!(whole[at], length, "byte {at} is a length");
        for lie in [0, 1, length - 1, length + 1, length + 7, length + 100, 0xff] {
            let mut changed = whole.clone();
            changed[at] = lie;
            let found = at_once(&record(&changed));
            assert!(lie == length || found.is_err(), "byte {at} is {lie}: {found:?}");
        }
    }
}

#[test]
fn a_malformed_fixed_part_is_refused() {
    let extensions = &vector(2, &signatures());
    let (session, suites, methods) = (b"\0", b"\0\x02\x13\x01", b"\x01\0");
    let longest = vector(1, &[7; LONGEST_SESSION]);
    assert!(at_once(&record(&message_with(&longest, suites, methods, extensions))).is_ok());
    for wrong in [
        message_with(&vector(1, &[7; LONGEST_SESSION + 1]), suites, methods, extensions),
        message_with(session, b"\0\0", methods, extensions),
        message_with(session, b"\0\x03\x13\x01\x13", methods, extensions),
        message_with(session, suites, b"\0", extensions),
        message_with(session, suites, b"", b""),
        message_with(session, b"", b"", b""),
        message_with(b"", b"", b"", b""),
        message_with(session, suites, methods, b"\0"),
        message_with(session, suites, methods, &[extensions, &b"\0"[..]].concat()),
        b"\x01\0\0\0".to_vec(),
        b"\x01\0\0\x02\x03\x03".to_vec(),
    ] {
        assert_wrong(&record(&wrong), Fault::Malformed);
        assert!(by_rustls(&record(&wrong)).is_err());
    }
}

#[test]
fn two_names_a_name_twice_and_a_list_that_is_not_one_name_are_refused() {
    let (a, b) = (host(b"a.example"), host(b"b.example"));
    let other_type = [&[5][..], &vector(2, b"c")].concat();
    for names in [
        [&a[..], &b].concat(),
        [&a[..], &a].concat(),
        [&other_type[..], &a].concat(),
        [&a[..], &other_type].concat(),
        other_type,
        host(b""),
        b"\0".to_vec(),
        [&a[..], &[0]].concat(),
        Vec::new(),
    ] {
        assert_wrong(&record(&message(&[server_name(&names), signatures()])), Fault::Names);
    }
    for data in [&b""[..], b"\0", b"\0\0", &[&vector(2, &a)[..], b"\0"].concat()] {
        let bytes = record(&message(&[extension(SERVER_NAME, data), signatures()]));
        assert_wrong(&bytes, Fault::Names);
    }
    for second in [&a, &b] {
        let bytes = record(&message(&[server_name(&a), signatures(), server_name(second)]));
        assert_wrong(&bytes, Fault::Repeated);
        assert!(matches!(
            by_rustls(&bytes),
            Err(Error::InvalidMessage(InvalidMessage::DuplicateExtension(0)))
        ));
    }
}

#[test]
fn a_list_of_protocols_must_have_protocols_and_be_there_once() {
    for wrong in [
        alpn(&[]),
        alpn(&[b""]),
        alpn(&[b"h2", b""]),
        extension(ALPN, b""),
        extension(ALPN, b"\0\x03\x02h2x"),
    ] {
        assert_wrong(&record(&message(&[wrong, signatures()])), Fault::Protocols);
    }
    let twice = message(&[alpn(&[b"h2"]), signatures(), alpn(&[b"h2"])]);
    assert_wrong(&record(&twice), Fault::Repeated);
    let longest = [b'a'; 255];
    let bytes = record(&message(&[alpn(&[&longest, b"\x0a\x0a"]), signatures()]));
    assert_eq!(
        at_once(&bytes),
        Ok(Some((None, vec![longest.to_vec(), b"\x0a\x0a".to_vec()])))
    );
}

#[test]
fn an_encrypted_hello_is_marked_and_may_be_there_once() {
    let encrypted = extension(ENCRYPTED_HELLO, b"\0");
    let bytes = record(&message(&[encrypted.clone(), server_name(&host(b"outer.example"))]));
    let expected = Hello {
        name: Some(b"outer.example"),
        has_encrypted: true,
        ..Hello::default()
    };
    assert_eq!(parse(&bytes, &mut Progress::default()), Parsed::Hello(expected));
    assert_wrong(&record(&message(&[encrypted.clone(), encrypted])), Fault::Repeated);
}

#[test]
fn nothing_may_come_between_the_records_of_a_hello() {
    let message = fixtures()[0].message();
    let first = record(&message[..50]);
    let between: [&[u8]; 6] = [
        b"\x15\x03\x03\0\x02\x01\0",
        b"\x14\x03\x03\0\x01\x01",
        b"\x17\x03\x03\0\x05early",
        b"\x16\x02\x03\0\x05early",
        b"\x80\x2e\x01\x03\x01",
        b"GET / HTTP/1.1\r\n",
    ];
    for between in between {
        let bytes = [&first, between, &record(&message[50..])].concat();
        assert_wrong_at(&bytes, first.len() + RECORD_HEAD, Fault::Record);
    }
    // The same in front of the message.
    assert_wrong_at(
        &[b"\x15\x03\x03\0\x02\x01\0", &first[..]].concat(),
        RECORD_HEAD,
        Fault::Record,
    );
}

#[test]
fn a_record_must_hold_1_to_16384_bytes() {
    let message = fixtures()[0].message();
    let first = record(&message[..1]);
    for length in [[0, 0], [0x40, 1], [0x48, 0], [0xff, 0xff]] {
        let head = [HANDSHAKE, 3, 1, length[0], length[1]];
        assert_wrong_at(&[&head, message].concat(), RECORD_HEAD, Fault::RecordLength);
        let bytes = [&first, &head[..], &message[1..]].concat();
        assert_wrong_at(&bytes, first.len() + RECORD_HEAD, Fault::RecordLength);
    }
}

#[test]
fn the_records_of_a_hello_are_counted() {
    let longest = usize::from(MOST_RECORDS);
    let message = message(&[server_name(&host(b"a.example")), signatures()]);
    let (begin, rest) = message.split_at(longest - 1);
    let bytes = [in_records(begin, 1), record(rest)].concat();
    assert!(at_once(&bytes).is_ok_and(|found| found.is_some()));
    // 16,384 records of one byte: the 64th one decides.
    let bytes = in_records(&vec![1; LONGEST], 1);
    let message = [&b"\x01\0\x3f\0"[..], &[3; 0x3f00]].concat();
    for bytes in [bytes, in_records(&message, 1)] {
        let is_too_long = bytes[6 + RECORD_HEAD] == 1;
        let (length, fault) = if is_too_long {
            (4 * 6, Fault::TooLong)
        } else {
            (longest * 6, Fault::TooManyRecords)
        };
        assert_wrong_at(&bytes[..longest * 7], length, fault);
    }
}

#[test]
fn a_hello_of_16384_bytes_is_read_and_a_longer_one_is_refused_by_its_length() {
    let padding = |length: usize| extension(21, &vec![0; length]);
    let name = server_name(&host(b"a.example"));
    let without = message(&[name.clone(), signatures(), padding(0)]).len();
    let longest = message(&[padding(LONGEST - without), signatures(), name.clone()]);
    assert_eq!(longest.len(), LONGEST);
    for size in [LONGEST, LONGEST - 1, 1000, LONGEST / usize::from(MOST_RECORDS)] {
        let bytes = in_records(&longest, size);
        assert!(bytes.len() <= MOST_BYTES);
        assert_eq!(
            at_once(&bytes),
            Ok(Some((Some(b"a.example".to_vec()), Vec::new()))),
            "{size}"
        );
        let mut progress = Progress::default();
        for end in (0..bytes.len()).step_by(97) {
            assert_eq!(parse(&bytes[..end], &mut progress), Parsed::NeedMore);
        }
        assert!(progress.gathered.capacity() <= 2 * LONGEST);
    }
    assert_eq!(in_records(&longest, LONGEST / 64).len(), MOST_BYTES);
    let too_long = message(&[padding(LONGEST + 1 - without), signatures(), name]);
    assert_wrong_at(&in_records(&too_long, 1000), RECORD_HEAD + MESSAGE_HEAD, Fault::TooLong);
    assert_wrong(b"\x16\x03\x01\0\x04\x01\xff\xff\xff", Fault::TooLong);
}

#[test]
fn another_message_is_refused_by_its_first_byte() {
    for kind in [0, 2, 11, 20, 22, 0x80, 0xff] {
        assert_wrong_at(&record(&[kind, 0, 0, 5]), RECORD_HEAD + 1, Fault::OtherMessage);
    }
}

/// An extension that neither parser reads, by the number in the name of its type.
fn unknown_extension() -> impl Strategy<Value = Vec<u8>> {
    (0x1000_usize..0x2000, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, data)| extension(kind, &data))
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?"
}

proptest! {
    #[test]
    fn a_made_up_hello_is_read_as_rustls_reads_it(
        labels in prop::option::of(prop::collection::vec(label(), 1..5)),
        protocols in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
        mut others in prop::collection::vec(unknown_extension(), 0..12),
        size in 1_usize..600,
        place in any::<prop::sample::Index>(),
    ) {
        others.sort();
        others.dedup_by(|one, other| one[..2] == other[..2]);
        let name = labels.map(|labels| labels.join("."));
        let protocols: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
        others.insert(place.index(others.len() + 1), signatures());
        if let Some(name) = &name {
            others.insert(place.index(others.len() + 1), server_name(&host(name.as_bytes())));
        }
        if !protocols.is_empty() {
            others.insert(place.index(others.len() + 1), alpn(&protocols));
        }
        let message = message(&others);
        let size = size.max(message.len().div_ceil(usize::from(MOST_RECORDS)));
        let bytes = in_records(&message, size);
        let found = at_once(&bytes);
        let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        prop_assert_eq!(found, Ok(Some((name.clone().map(String::into_bytes), protocols))));
        assert_agreed(&bytes, None);
        let normal = name.as_deref().map(|name| Name::parse(name.as_bytes()));
        prop_assert_eq!(normal.map(|name| name.unwrap().to_string()), name.map(|name| name.to_lowercase()));
    }
}
