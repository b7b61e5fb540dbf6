//! Addresses, networks, the header of a proxy, and the table of sockets handed over.

use std::net::IpAddr;

use ipnet::IpNet;

use iotcpd::internals::net::{AccessList, Asserted, Connect, Listen, Origin, PeerAddr, handover, parse_net, proxy};

/// `Listen` and `Connect`: what can be read is written back as text that means the same, and neither that text
/// nor an error holds control characters, which would break a line of the log.
pub fn fuzz_addresses(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let listen = text.parse::<Listen>();
    let written = shown(&listen);
    if let Ok(address) = listen {
        assert_eq!(written.parse(), Ok(address), "{text:?} is written as {written:?}");
    }
    let connect = text.parse::<Connect>();
    let written = shown(&connect);
    if let Ok(connect) = connect {
        let figures = connect.address.to_socket_addr();
        assert!(figures.is_none_or(|figures| figures.port() > 0), "nothing is at port 0");
        assert_eq!(written.parse(), Ok(connect), "{text:?} is written as {written:?}");
    }
}

/// The table of sockets handed over: what can be read is written back as text that means the same, line by line.
pub fn fuzz_handover(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let Ok(entries) = handover::parse(text) else { return };
    let written: String = entries.iter().map(ToString::to_string).collect();
    assert_eq!(
        handover::parse(&written),
        Ok(entries),
        "{text:?} is written as {written:?}"
    );
}

/// `proxy::parse`: the finding about some bytes is the last one about each longer piece, a header is as long as it says,
/// its names upset no line of the log, and with a checksum none of its bytes can be changed.
pub fn fuzz_proxy_header(input: &[u8]) {
    let whole = proxy::parse(input);
    for end in 0..input.len() {
        match proxy::parse(&input[..end]) {
            proxy::Parsed::NeedMore { has_signature } => {
                let may_go_on = !has_signature || whole != proxy::Parsed::NoHeader;
                assert!(may_go_on, "a signature of {end} bytes was none");
            }
            decided => assert_eq!(decided, whole, "{end} bytes decide otherwise than all"),
        }
    }
    if let proxy::Parsed::NeedMore { .. } = whole {
        assert!(
            input.len() < proxy::LONGEST,
            "a header of {} bytes needs more",
            input.len()
        );
    }
    if let proxy::Parsed::Header(header) = whole {
        assert!((1..=input.len().min(proxy::LONGEST)).contains(&header.length));
        let origin = Origin {
            asserted: Some(header.client),
            details: header.details.map(Into::into),
            ..Origin::direct(PeerAddr::Unix)
        };
        let written = shown::<_, String>(&Ok(&origin));
        let is_known = matches!(header.client, Asserted::Address(_));
        assert_eq!(origin.ip().is_some(), is_known, "{written}");
        let binary = input.get(..header.length).filter(|bytes| bytes.starts_with(b"\r\n"));
        if let Some(bytes) = binary.filter(|_| is_known) {
            sum_protects(bytes, header.client);
        }
    }
}

/// A binary header with a checksum behind its fields is read as the one without, and refused with another bit in its
/// first twelve bytes of addresses or in the sum. A change of its fields may make the sum another field.
fn sum_protects(header: &[u8], client: Asserted) {
    const SUM: [u8; 3] = [3, 0, 4];
    let length = header.len() + SUM.len() + 4;
    // A second sum is a fault, and so is a length over the limit.
    if length > proxy::LONGEST || header.windows(SUM.len()).any(|bytes| bytes == SUM) {
        return;
    }
    let mut whole = [header, &SUM, &[0; 4]].concat();
    let body = u16::try_from(length - 16).unwrap_or_default().to_be_bytes();
    whole[14..16].copy_from_slice(&body);
    let sum = crc32c(&whole).to_be_bytes();
    whole[length - 4..].copy_from_slice(&sum);
    let proxy::Parsed::Header(found) = proxy::parse(&whole) else {
        panic!("a header with its checksum is refused: {whole:?}")
    };
    assert_eq!((found.length, found.client), (length, client));
    for at in (16..28).chain(length - 4..length) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        let finding = proxy::parse(&changed);
        assert_eq!(
            finding,
            proxy::Parsed::Wrong(proxy::Fault::Checksum),
            "byte {at} of {whole:?}"
        );
    }
}

/// The sum as the specification has it, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let next = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| next(sum))
    });
    !sum
}

fn shown<T: ToString, E: ToString>(outcome: &Result<T, E>) -> String {
    let shown = match outcome {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    };
    assert!(!shown.contains(char::is_control), "it upsets no log: {shown:?}");
    shown
}

/// `parse_net`: what can be read is written back as text that means the same, and a list that denies a network denies
/// its first and its last address, whichever way they are spelled. IPv4-mapped addresses within a wider IPv6 network
/// are IPv4, and not meant by it.
pub fn fuzz_networks(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let outcome = parse_net(text);
    let written = shown(&outcome);
    let Ok(net) = outcome else { return };
    assert_eq!(parse_net(&written), Ok(net), "{text:?} is written as {written:?}");
    let deny = AccessList {
        allow: Vec::new(),
        deny: vec![net],
    };
    let allow = AccessList {
        allow: vec![net],
        deny: Vec::new(),
    };
    let ends = [net.network(), net.broadcast()].into_iter();
    let meant = ends.filter(|ip| ip.to_canonical().is_ipv4() == matches!(net, IpNet::V4(_)));
    for ip in meant.flat_map(spellings) {
        let origin = Origin::direct(PeerAddr::tcp((ip, 1).into()));
        assert!(!deny.permits(&origin) && allow.permits(&origin), "{origin} is in {net}");
    }
}

/// The address, and its IPv4-mapped form if it has one.
fn spellings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let mapped = match ip {
        IpAddr::V4(ip) => Some(ip.to_ipv6_mapped().into()),
        IpAddr::V6(_) => None,
    };
    [ip].into_iter().chain(mapped)
}
