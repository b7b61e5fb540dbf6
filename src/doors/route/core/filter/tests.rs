//! Requests in random order, cut at every place: they come out unchanged, up to the first that may not.

use proptest::prelude::*;

use super::super::exchange::body_behind;
use super::*;

/// One request of a client, and its part in a test.
#[derive(Debug, Clone)]
struct Request {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It goes through.
    Good,
    /// It is for another host.
    Misdirected,
    /// Its head is refused.
    BadHead,
    /// Its head goes through, and this number of bytes of its body.
    BadBody(usize),
}

/// The host whose requests go through.
fn admits(head: &Head<'_>) -> bool {
    head.host == Some("a.example") && body_behind(head).is_ok()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const OTHER: &[u8] = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn good() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0usize), 1usize..40, 20_000usize..40_000];
    let with_length = length.clone().prop_map(|length| {
        let head = format!("PUT /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n");
        // A body that looks like requests.
        let body = OTHER.iter().copied().cycle().take(length);
        head.into_bytes().into_iter().chain(body).collect()
    });
    let in_chunks = proptest::collection::vec(1usize..300, 0..6).prop_map(|chunks| {
        let mut bytes = b"POST / HTTP/1.1\r\nhost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for size in chunks {
            bytes.extend(format!("{size:x};a=b\r\n").into_bytes());
            bytes.extend(OTHER.iter().copied().cycle().take(size));
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nX: y\r\n\r\n");
        bytes
    });
    let plain = prop_oneof![
        Just(GET.to_vec()),
        Just(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n".to_vec()),
        Just(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n".to_vec()),
    ];
    prop_oneof![plain, with_length, in_chunks]
}

fn request() -> impl Strategy<Value = Request> {
    let of = |kind| move |bytes: Vec<u8>| Request { bytes, kind };
    let bad_head = proptest::sample::select(vec![
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\nHost: a.example\n\n",
        "\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ]);
    let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad_body = proptest::sample::select(vec![
        ("3\r\nabc\r\n", "x\r\n"),
        ("", "\r\n"),
        ("3\r\nabc", "d\r\n"),
        ("", "3\nabc\r\n"),
    ]);
    prop_oneof![
        12 => good().prop_map(of(Kind::Good)),
        1 => Just(OTHER.to_vec()).prop_map(of(Kind::Misdirected)),
        1 => bad_head.prop_map(|head| Request { bytes: head.as_bytes().to_vec(), kind: Kind::BadHead }),
        1 => bad_body.prop_map(move |(good, bad)| Request {
            bytes: [chunked, good, bad].concat().into_bytes(),
            kind: Kind::BadBody(chunked.len() + good.len()),
        }),
    ]
}

/// The two sides of a filter, read as the relay reads them.
struct Wire {
    filter: Filter,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// The heads that were asked about.
    heads: usize,
}

impl Wire {
    fn new() -> Self {
        Wire {
            filter: Filter::default(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            heads: 0,
        }
    }

    fn take(&mut self, side: Side, piece: usize) {
        let mut to = vec![0; piece];
        loop {
            let heads = &mut self.heads;
            let count = self.filter.take(side, &mut to, &mut |head| {
                *heads += 1;
                admits(head)
            });
            if count == 0 {
                return;
            }
            self.got(side, &to[..count]);
        }
    }

    fn got(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => self.to_server.extend_from_slice(bytes),
            Side::Server => self.to_client.extend_from_slice(bytes),
        }
    }

    /// Feeds as many of these bytes as there is room for, and returns their number.
    fn feed(&mut self, side: Side, bytes: &[u8]) -> usize {
        self.take(side, bytes.len().max(1));
        let count = self.filter.room(side).min(bytes.len());
        let heads = &mut self.heads;
        let through = self.filter.sift(side, &bytes[..count], &mut |head| {
            *heads += 1;
            admits(head)
        });
        self.got(side, &bytes[..through]);
        self.take(side, bytes.len().max(1));
        count
    }
}

/// Runs these requests through a filter, in pieces of these sizes, each answered once the server has all of it. Returns
/// the wire at its end.
fn run(requests: &[Request], sizes: &[usize]) -> Wire {
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.clone()).collect();
    let mut ends = Vec::new();
    for request in requests {
        ends.push(ends.last().copied().unwrap_or(0) + request.bytes.len());
    }
    let (mut wire, mut at, mut answered) = (Wire::new(), 0, 0);
    let mut sizes = sizes.iter().copied().cycle();
    loop {
        let size = sizes.next().unwrap_or(1);
        let fed = wire.feed(Side::Client, &bytes[at..bytes.len().min(at + size)]);
        at += fed;
        assert!(wire.filter.held().len() <= head::LONGEST, "bounded");
        let whole = ends.iter().filter(|end| **end <= wire.to_server.len()).count();
        assert!(whole <= answered + 1, "one request at a time");
        let had = wire.to_server.len();
        if whole > answered {
            for piece in ANSWER.chunks(size) {
                assert_eq!(wire.filter.finding(), None);
                assert_eq!(wire.to_server.len(), had, "none before the answer");
                assert_eq!(wire.feed(Side::Server, piece), piece.len());
            }
            answered += 1;
            wire.take(Side::Client, size);
        } else if fed == 0 || wire.filter.finding().is_some() {
            return wire;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_come_out_unchanged_up_to_the_first_that_may_not(
        requests in proptest::collection::vec(request(), 1..8),
        sizes in proptest::collection::vec(prop_oneof![1usize..5, 1usize..200, Just(16_384usize)], 1..6),
    ) {
        let wire = run(&requests, &sizes);
        let (mut expected, mut finding, mut answers) = (Vec::new(), None, 0);
        for request in &requests {
            let count = match request.kind {
                Kind::Good => request.bytes.len(),
                Kind::Misdirected | Kind::BadHead => 0,
                Kind::BadBody(count) => count,
            };
            expected.extend_from_slice(&request.bytes[..count]);
            match request.kind {
                Kind::Good => answers += 1,
                Kind::Misdirected | Kind::BadHead => finding = Some(Finding::Unfit),
                Kind::BadBody(_) => {
                    let found = wire.filter.finding();
                    prop_assert!(matches!(found, Some(Finding::Garbled(Side::Client, _))), "{:?}", found);
                    prop_assert_eq!(wire.filter.given(), Given::Nothing);
                    finding = found;
                }
            }
            if finding.is_some() {
                break;
            }
        }
        prop_assert_eq!(wire.filter.finding(), finding);
        prop_assert_eq!(wire.to_server.escape_ascii().to_string(), expected.escape_ascii().to_string());
        prop_assert_eq!(wire.to_client, ANSWER.repeat(answers));
        if finding == Some(Finding::Unfit) {
            prop_assert_eq!(wire.filter.given(), Given::Whole);
            prop_assert!(!wire.filter.held().is_empty());
        }
    }

    #[test]
    fn the_first_request_is_cut_at_every_place_like_any_other(
        requests in proptest::collection::vec(good(), 1..4), cut in 0usize..20_000, size in 1usize..400,
    ) {
        let bytes = requests.concat();
        let first = requests[0].len();
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let cut = cut.clamp(head, bytes.len().max(head));
        let (filter, through) = Filter::open(bytes[..cut].to_vec());
        prop_assert!(through.len() >= head && through.len() <= first.min(cut));
        let mut wire = Wire { filter, to_server: through, ..Wire::new() };
        let mut at = cut;
        for number in 1..=requests.len() {
            let end: usize = requests[..number].iter().map(Vec::len).sum();
            while wire.to_server.len() < end {
                let fed = wire.feed(Side::Client, &bytes[at..bytes.len().min(at + size)]);
                at += fed;
                prop_assert!(fed > 0 || wire.to_server.len() >= end, "stuck");
            }
            prop_assert_eq!(wire.to_server.len(), end);
            wire.feed(Side::Server, ANSWER);
            wire.take(Side::Client, size);
        }
        prop_assert_eq!(wire.to_server, bytes);
        prop_assert_eq!(wire.heads, requests.len() - 1);
    }
}

/// A wire on which the first request was asked.
fn asked(request: &[u8]) -> Wire {
    let mut wire = Wire::new();
    assert_eq!(wire.feed(Side::Client, request), request.len());
    wire
}

#[test]
fn the_turn_of_a_held_request_comes_with_the_end_of_the_answer_before() {
    let mut wire = asked(&[GET, GET].concat());
    assert!(!wire.filter.is_client_due());
    wire.feed(Side::Server, &ANSWER[..ANSWER.len() - 1]);
    assert!(!wire.filter.is_client_due() && wire.to_server == GET);
    wire.feed(Side::Server, b"k");
    assert!(wire.filter.take_client_due() && !wire.filter.is_client_due());
    wire.take(Side::Client, 3);
    assert_eq!(wire.to_server, [GET, GET].concat());
}

#[test]
fn an_end_of_the_client_comes_behind_everything_that_may_go_through() {
    let mut wire = asked(&[GET, GET, b"GET / HT"].concat());
    wire.filter.end(Side::Client);
    assert!(!wire.filter.has_ended(Side::Client));
    wire.feed(Side::Server, ANSWER);
    wire.take(Side::Client, 100);
    assert!(!wire.filter.has_ended(Side::Client));
    wire.feed(Side::Server, ANSWER);
    wire.take(Side::Client, 100);
    assert!(wire.filter.has_ended(Side::Client));
    assert_eq!(wire.to_server, [GET, GET].concat());
    // Behind a request alone it comes at once, as it does without a filter; and so does one in a body.
    for request in [
        GET,
        b"PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nab",
        b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5",
    ] {
        let mut wire = asked(request);
        wire.filter.end(Side::Client);
        assert!(wire.filter.has_ended(Side::Client));
    }
}

#[test]
fn an_end_of_the_client_behind_a_request_that_may_not_go_through_is_none() {
    let mut wire = asked(&[GET, OTHER].concat());
    wire.filter.end(Side::Client);
    wire.feed(Side::Server, ANSWER);
    wire.take(Side::Client, 100);
    assert_eq!(wire.filter.finding(), Some(Finding::Unfit));
    assert!(!wire.filter.has_ended(Side::Client));
    assert_eq!(wire.filter.held(), OTHER);
}

#[test]
fn an_answer_that_is_not_there_or_is_broken_off_is_a_fault() {
    let broken = Some(Finding::Garbled(Side::Server, Fault::BrokenOff));
    for (answer, passed, given) in [
        (&b""[..], &b""[..], Given::Nothing),
        (b"HTTP/1.1 200 O", b"", Given::Nothing),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            Given::Nothing,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            Given::Part,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            Given::Part,
        ),
    ] {
        let mut wire = asked(&[GET, GET].concat());
        wire.feed(Side::Server, answer);
        wire.filter.end(Side::Server);
        wire.take(Side::Server, 5);
        assert_eq!(wire.to_client, passed, "{}", answer.escape_ascii());
        assert_eq!((wire.filter.finding(), wire.filter.given()), (broken, given));
        assert_eq!(wire.to_server, GET, "no further request");
    }
    // The end says that the body is complete.
    let mut wire = asked(GET);
    wire.feed(Side::Server, b"HTTP/1.1 200 OK\r\n\r\nall of it");
    wire.filter.end(Side::Server);
    assert_eq!(
        (wire.filter.finding(), wire.filter.has_ended(Side::Server)),
        (None, true)
    );
}

/// The request was on its way when the server closed an idle connection: the client may repeat it.
#[test]
fn the_end_of_a_server_that_has_answered_before_is_passed_on() {
    let mut wire = asked(GET);
    wire.feed(Side::Server, ANSWER);
    wire.feed(Side::Client, GET);
    wire.filter.end(Side::Server);
    assert_eq!(
        (wire.filter.finding(), wire.filter.has_ended(Side::Server)),
        (None, true)
    );
    let mut wire = asked(GET);
    wire.feed(Side::Server, ANSWER);
    wire.feed(Side::Client, GET);
    wire.feed(Side::Server, b"HTTP");
    wire.filter.end(Side::Server);
    assert!(wire.filter.finding().is_some());
}

#[test]
fn the_end_of_a_server_takes_the_turn_of_every_other_request() {
    // Between two requests.
    let mut wire = asked(GET);
    wire.feed(Side::Server, ANSWER);
    wire.filter.end(Side::Server);
    assert!(wire.filter.has_ended(Side::Server) && wire.filter.is_over());
    wire.feed(Side::Client, OTHER);
    assert_eq!((wire.filter.finding(), wire.to_server), (None, GET.to_vec()));
    // In the body of a request.
    let mut wire = asked(b"PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nab");
    wire.filter.end(Side::Server);
    assert!(!wire.filter.is_over());
}

#[test]
fn a_server_that_says_more_than_it_was_asked_is_stopped() {
    let mut wire = asked(GET);
    wire.feed(Side::Server, &[ANSWER, b"HTTP"].concat());
    let unasked = Finding::Garbled(Side::Server, Fault::Unasked);
    assert_eq!(
        (wire.filter.finding(), wire.filter.given()),
        (Some(unasked), Given::Whole)
    );
    assert_eq!(wire.to_client, ANSWER);
    wire.filter.end(Side::Server);
    wire.take(Side::Server, 100);
    assert_eq!(wire.to_client, ANSWER);
    assert_eq!((wire.filter.room(Side::Client), wire.filter.room(Side::Server)), (0, 0));
}

#[test]
fn behind_a_change_of_protocol_all_bytes_go_through() {
    let mut wire = asked(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    wire.feed(Side::Client, OTHER);
    assert!(!wire.filter.is_open() && !wire.to_server.ends_with(OTHER));
    wire.feed(
        Side::Server,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nab",
    );
    assert!(wire.filter.take_client_due() && wire.to_client.ends_with(b"\r\n\r\nab"));
    assert!(!wire.filter.is_open());
    wire.take(Side::Client, 10);
    assert!(wire.filter.is_open() && wire.to_server.ends_with(OTHER));
    wire.feed(Side::Client, b"\0\r\n");
    assert!(wire.filter.is_open() && wire.to_server.ends_with(b"\0\r\n"));
    wire.filter.end(Side::Client);
    assert!(wire.filter.has_ended(Side::Client) && wire.filter.is_open() && !wire.filter.is_over());
}
