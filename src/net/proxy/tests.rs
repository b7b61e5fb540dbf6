use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const ADDRESS: &str = "192.0.2.7:56324";

fn asserted(text: &str) -> Asserted {
    Asserted::Address(text.parse().unwrap())
}

fn header(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Parsed::Header(header) => header,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

/// A header of version 2 with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE_2, &[command, family], &length, body].concat()
}

/// The addresses of IPv4: [`ADDRESS`] to 203.0.113.1:443.
fn ipv4() -> Vec<u8> {
    [
        &[192, 0, 2, 7, 203, 0, 113, 1][..],
        &56324_u16.to_be_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, value].concat()
}

#[test]
fn version_1_names_the_client_or_says_that_it_is_unknown() {
    for (line, client) in [
        ("PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n", asserted(ADDRESS)),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n",
            asserted("[2001:db8::7]:0"),
        ),
        ("PROXY UNKNOWN\r\n", Asserted::Unknown),
        ("PROXY UNKNOWN ffff::ffff whatever \u{fc} 65535\r\n", Asserted::Unknown),
    ] {
        let found = header(format!("{line}GET /").as_bytes());
        assert_eq!((found.length, found.client, found.details), (line.len(), client, None));
    }
}

#[test]
fn the_longest_line_of_the_specification_is_read_and_a_longer_one_is_not() {
    let six = "ffff:f...f:ffff";
    let longest = format!("PROXY UNKNOWN {six:f<39} {six:f<39} 65535 65535\r\n");
    assert_eq!((longest.len(), header(longest.as_bytes()).length), (107, 107));
    let longer = longest.replace("\r\n", " \r\n");
    assert_eq!(parse(longer.as_bytes()), Parsed::Wrong(Fault::LongLine));
    assert_eq!(
        parse(&longer.as_bytes()[..106]),
        Parsed::NeedMore { has_signature: true }
    );
}

#[test]
fn a_line_that_the_specification_does_not_define_is_wrong() {
    for line in [
        "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443 \r\n",
        "PROXY  TCP4 192.0.2.7 203.0.113.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1 56324 65536\r\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1 01 443\r\n",
        "PROXY TCP4 192.0.2.7 203.0.113.1  443\r\n",
        "PROXY TCP4 192.0.2.07 203.0.113.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 nonsense 56324 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
        "PROXY TCP6 192.0.2.7 203.0.113.1 56324 443\r\n",
        "PROXY UDP4 192.0.2.7 203.0.113.1 56324 443\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY \u{fc}\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Wrong(Fault::Line), "{line:?}");
    }
}

#[test]
fn version_2_names_the_client_of_either_family_and_transport() {
    for family in [0x11, 0x12] {
        let found = header(&binary(0x21, family, &ipv4()));
        assert_eq!((found.length, found.client), (28, asserted(ADDRESS)));
    }
    let mut body = vec![0; 36];
    body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (body[15], body[33]) = (7, 80);
    for family in [0x21, 0x22] {
        assert_eq!(
            header(&binary(0x21, family, &body)).client,
            asserted("[2001:db8::7]:80")
        );
    }
}

#[test]
fn a_client_without_an_address_is_unknown_and_a_health_check_is_the_proxys_own() {
    let unix = [0; 216];
    for (command, family, body, client) in [
        (0x21, 0x00, &[][..], Asserted::Unknown),
        (0x21, 0x00, b"not even a TLV", Asserted::Unknown),
        (0x21, 0x10, b"x", Asserted::Unknown),
        (0x21, 0x31, &unix, Asserted::Unknown),
        (0x21, 0x32, &unix, Asserted::Unknown),
        (0x20, 0x00, b"", Asserted::Proxy),
        (0x20, 0x11, b"too short for it", Asserted::Proxy),
        (0x20, 0x41, b"of no family", Asserted::Proxy),
        (0x20, 0xff, b"", Asserted::Proxy),
    ] {
        let found = header(&binary(command, family, body));
        assert_eq!((found.length, found.client), (16 + body.len(), client));
    }
}

#[test]
fn names_are_kept_for_the_log_and_other_fields_are_skipped() {
    let within = [
        &[0x05, 0, 0, 0, 0][..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x23, b"ECDHE"),
        &tlv(0x22, b"client.example"),
    ]
    .concat();
    let body = [
        ipv4(),
        tlv(0x04, &[0; 7]),
        tlv(0x02, b"www.example"),
        tlv(0x20, &within),
        tlv(0xea, b"vpce-08d2bf15fac5001c9"),
        tlv(0x02, b"a second one"),
        tlv(0x05, b""),
    ];
    let found = header(&binary(0x21, 0x11, &body.concat()));
    assert_eq!(found.client, asserted(ADDRESS));
    let details = found.details.unwrap();
    assert_eq!(
        details.to_string(),
        r#", for "www.example", with "TLSv1.3", subject "client.example""#
    );
    let long = header(&binary(0x21, 0x11, &[ipv4(), tlv(0x02, &[b'a'; 300])].concat()));
    assert_eq!(long.details.unwrap().authority.unwrap().len(), 255);
    assert_eq!(
        header(&binary(0x21, 0x11, &[ipv4(), tlv(0xea, b"x")].concat())).details,
        None
    );
}

/// A header as HAProxy 2.6 sends it with `proxy-v2-options crc32c,unique-id`: the checksum, and an empty identifier.
const OF_HAPROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x16\x7f\0\0\x01\x7f\0\0\x01\x88\x0c\x46\xcb\
    \x03\0\x04\xd3\x81\x0b\x8b\x05\0\0";

#[test]
fn a_header_is_held_against_its_checksum() {
    let found = header(OF_HAPROXY);
    assert_eq!((found.length, found.client), (38, asserted("127.0.0.1:34828")));
    // A change of the addresses, of the checksum, or of a field is found.
    for at in [16, 27, 31, 34, 35] {
        for bit in 0..8 {
            let mut changed = OF_HAPROXY.to_vec();
            changed[at] ^= 1 << bit;
            assert_eq!(
                parse(&changed),
                Parsed::Wrong(Fault::Checksum),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn a_checksum_of_another_length_and_a_second_one_are_wrong() {
    let sum = &OF_HAPROXY[31..35];
    for tlvs in [
        tlv(0x03, b""),
        tlv(0x03, &sum[..3]),
        tlv(0x03, &[sum, b"\0"].concat()),
        [tlv(0x03, sum), tlv(0x03, sum)].concat(),
    ] {
        let bytes = binary(0x21, 0x11, &[ipv4(), tlvs].concat());
        assert_eq!(parse(&bytes), Parsed::Wrong(Fault::Checksum), "{bytes:?}");
    }
}

/// A header with this checksum behind its addresses, and with the sum of HAProxy's algorithm if it is `None`.
fn summed(command: u8, family: u8, addresses: &[u8], sum: Option<[u8; 4]>) -> Vec<u8> {
    let zero = binary(command, family, &[addresses, &tlv(0x03, &[0; 4])].concat());
    let sum = sum.unwrap_or_else(|| crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&zero).to_be_bytes());
    binary(command, family, &[addresses, &tlv(0x03, &sum)].concat())
}

#[test]
fn a_header_whose_addresses_are_ignored_is_held_against_its_checksum_too() {
    for (command, family, addresses, client) in [
        (0x21, 0x00, &[][..], Asserted::Unknown),
        (0x20, 0x00, &[], Asserted::Proxy),
        (0x20, 0x11, &ipv4(), Asserted::Proxy),
        (0x20, 0x21, &[0; 36], Asserted::Proxy),
        (0x20, 0x31, &[0; 216], Asserted::Proxy),
        (0x21, 0x31, &[0; 216], Asserted::Unknown),
    ] {
        let sound = summed(command, family, addresses, None);
        assert_eq!(header(&sound).client, client, "{sound:?}");
        let wrong = summed(command, family, addresses, Some([1, 2, 3, 4]));
        assert_eq!(parse(&wrong), Parsed::Wrong(Fault::Checksum), "{wrong:?}");
    }
    // One bit makes the proxy's own connection of a client's.
    let mut changed = OF_HAPROXY.to_vec();
    changed[12] = 0x20;
    assert_eq!(parse(&changed), Parsed::Wrong(Fault::Checksum));
    // A body of another form has no field that could be one.
    let other = binary(0x21, 0x00, &tlv(0x03, &[0; 4])[..6]);
    assert_eq!(header(&other).client, Asserted::Unknown);
}

#[test]
fn a_binary_header_that_the_specification_does_not_define_is_wrong() {
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&ipv4()[..], tlvs].concat());
    for (bytes, fault) in [
        (binary(0x31, 0x11, &ipv4()), Fault::Command),
        (binary(0x11, 0x11, &ipv4()), Fault::Command),
        (binary(0x22, 0x11, &ipv4()), Fault::Command),
        (binary(0x21, 0x41, &ipv4()), Fault::Family),
        (binary(0x21, 0x13, &ipv4()), Fault::Family),
        (binary(0x21, 0x11, &ipv4()[..11]), Fault::TooShort),
        (binary(0x21, 0x21, &ipv4()), Fault::TooShort),
        (binary(0x21, 0x31, &[0; 215]), Fault::TooShort),
        (binary(0x21, 0x00, &[0; LONGEST - 15]), Fault::TooLong),
        (with(&[1]), Fault::Tlv),
        (with(&[1, 0, 2, 0]), Fault::Tlv),
        (with(&tlv(0x20, &[0; 4])), Fault::Tlv),
        (with(&tlv(0x20, &[0; 6])), Fault::Tlv),
    ] {
        assert_eq!(parse(&bytes), Parsed::Wrong(fault), "{bytes:?}");
    }
    let longest = binary(0x21, 0x00, &[0; LONGEST - 16]);
    assert_eq!(header(&longest).length, LONGEST);
}

/// A proxy that sends a length of 64 KiB is refused at once, not after as many bytes.
#[test]
fn a_fault_is_found_with_its_byte_and_not_at_the_end() {
    let whole = binary(0x31, 0x11, &ipv4());
    assert_eq!(parse(&whole[..12]), Parsed::NeedMore { has_signature: true });
    assert_eq!(parse(&whole[..13]), Parsed::Wrong(Fault::Command));
    let whole = [SIGNATURE_2, &[0x21, 0x11, 0xff, 0xff]].concat();
    assert_eq!(parse(&whole[..15]), Parsed::NeedMore { has_signature: true });
    assert_eq!(parse(&whole), Parsed::Wrong(Fault::TooLong));
}

#[test]
fn bytes_that_are_no_header_are_told_from_the_beginning_of_one() {
    assert_eq!(parse(b""), Parsed::NeedMore { has_signature: false });
    assert_eq!(parse(b"PROXY"), Parsed::NeedMore { has_signature: false });
    assert_eq!(parse(b"\r\n\r"), Parsed::NeedMore { has_signature: false });
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"P ",
        b"PROXYTCP4",
        b"proxy ",
        b"\r\n\r\n\r",
        b"\x16\x03\x01",
    ] {
        assert_eq!(parse(bytes), Parsed::NoHeader, "{bytes:?}");
    }
}

fn tlvs() -> impl Strategy<Value = Vec<u8>> {
    let one = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40));
    let one = one.prop_filter_map("one has fields of its own, one a sum", |(kind, value)| {
        (!matches!(kind, 0x03 | 0x20)).then(|| tlv(kind, &value))
    });
    proptest::collection::vec(one, 0..5).prop_map(|all| all.concat())
}

proptest! {
    /// A header is found with its last byte, whatever follows, and each shorter piece needs more.
    #[test]
    fn a_header_is_the_same_at_every_split_point(
        source: [u8; 4], port: u16, tlvs in tlvs(), is_text: bool, behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let address = SocketAddr::from((source, port));
        let bytes = if is_text {
            format!("PROXY TCP4 {} 203.0.113.1 {port} 443\r\n", address.ip()).into_bytes()
        } else {
            let body = [&source[..], &[203, 0, 113, 1], &port.to_be_bytes(), &[1, 187], &tlvs].concat();
            binary(0x21, 0x11, &body)
        };
        let signature = if is_text { SIGNATURE_1.len() } else { SIGNATURE_2.len() };
        for end in 0..bytes.len() {
            let has_signature = end >= signature;
            prop_assert_eq!(parse(&bytes[..end]), Parsed::NeedMore { has_signature });
        }
        let whole = header(&bytes);
        prop_assert_eq!((whole.length, whole.client), (bytes.len(), Asserted::Address(address)));
        prop_assert_eq!(parse(&[&bytes[..], &behind].concat()), Parsed::Header(whole));
    }
}
