//! Requests and answers in turn, and whatever would put them out of turn.

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn exchange() -> Exchange {
    Exchange::default()
}

/// Begins the request at the beginning of the bytes.
#[track_caller]
fn begin(exchange: &mut Exchange, bytes: &[u8]) -> Result<usize, Fault> {
    match exchange.from_client(bytes) {
        FromClient::Head(head) => exchange.begin(&head),
        other => panic!("{other:?}"),
    }
}

/// An exchange in which the request was begun whose head these bytes are.
#[track_caller]
fn asked(head: &[u8]) -> Exchange {
    let mut exchange = exchange();
    assert_eq!(begin(&mut exchange, head), Ok(head.len()));
    exchange
}

/// Feeds the bytes of a server as long as some are passed on. Returns the number that were, and the last finding.
fn feed(exchange: &mut Exchange, bytes: &[u8]) -> (usize, FromServer) {
    let mut passed = 0;
    loop {
        match exchange.from_server(&bytes[passed..]) {
            FromServer::Pass(count) => passed += count,
            other => return (passed, other),
        }
    }
}

#[test]
fn the_next_request_is_held_until_the_answer_has_ended() {
    let mut exchange = exchange();
    let two = [GET, GET].concat();
    assert_eq!(begin(&mut exchange, &two), Ok(GET.len()));
    assert_eq!(exchange.from_client(GET), FromClient::Hold);
    for end in 1..OK.len() - 2 {
        let mut exchange = exchange.clone();
        assert_eq!(feed(&mut exchange, &OK[..end]).1, FromServer::Hold);
        assert!(!exchange.is_idle() && !exchange.may_server_end());
        assert_eq!(exchange.from_client(GET), FromClient::Hold, "{end} bytes of the answer");
    }
    assert_eq!(feed(&mut exchange, OK), (OK.len(), FromServer::Hold));
    assert!(exchange.is_idle() && exchange.may_server_end());
    assert!(matches!(exchange.from_client(GET), FromClient::Head(_)));
}

#[test]
fn an_answer_that_comes_before_the_body_of_its_request_does_not_end_it() {
    let mut exchange = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(exchange.from_client(b"he"), FromClient::Pass(2));
    assert_eq!(feed(&mut exchange, OK), (OK.len(), FromServer::Hold));
    assert!(!exchange.is_idle() && exchange.may_server_end());
    assert_eq!(exchange.from_server(b"H"), FromServer::Wrong(Fault::Unasked));
    assert_eq!(exchange.from_client(b"lloGET /"), FromClient::Pass(3));
    assert!(exchange.is_idle());
}

#[test]
fn a_server_answers_only_what_was_asked() {
    assert_eq!(exchange().from_server(OK), FromServer::Wrong(Fault::Unasked));
    assert_eq!(exchange().from_server(b""), FromServer::Hold);
    let mut exchange = asked(GET);
    let two = [OK, OK].concat();
    assert_eq!(feed(&mut exchange, &two), (OK.len(), FromServer::Wrong(Fault::Unasked)));
}

#[test]
fn an_answer_ends_as_its_head_says() {
    for (request, answer, is_idle) in [
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            true,
        ),
        ("GET", "204 No Content\r\n\r\n", true),
        ("GET", "204 No Content\r\nContent-Length: 5\r\n\r\n", true),
        ("GET", "304 Not Modified\r\nContent-Length: 5\r\n\r\n", true),
        ("HEAD", "200 OK\r\nContent-Length: 5\r\n\r\n", true),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        ("HEAD", "200 OK\r\n\r\n", true),
        (
            "GET",
            "100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            true,
        ),
        ("CONNECT", "404 Not Found\r\nContent-Length: 2\r\n\r\nno", true),
        ("GET", "200 OK\r\n\r\nok until the end", false),
        ("GET", "205 Reset Content\r\n\r\n", false),
    ] {
        let target = if request == "CONNECT" { "a:443" } else { "/" };
        let mut exchange = asked(format!("{request} {target} HTTP/1.1\r\nHost: a:443\r\n\r\n").as_bytes());
        let answer = format!("HTTP/1.1 {answer}");
        assert_eq!(
            feed(&mut exchange, answer.as_bytes()),
            (answer.len(), FromServer::Hold),
            "{answer}"
        );
        assert_eq!(exchange.is_idle(), is_idle, "{request}: {answer}");
        assert!(exchange.may_server_end());
    }
}

#[test]
fn an_answer_that_programs_read_differently_is_refused() {
    for (answer, fault) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault::Body(body::Fault::Ambiguous),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            Fault::Body(body::Fault::Ambiguous),
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault::Body(body::Fault::Coding),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            Fault::Body(body::Fault::Size),
        ),
        (
            "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
            Fault::Head(head::Fault::LineEnd),
        ),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Fault::Head(head::Fault::Control)),
        (
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            Fault::Head(head::Fault::Header),
        ),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            Fault::Head(head::Fault::Header),
        ),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::Head(head::Fault::Header)),
        ("SSH-2.0-x\r\n\r\n", Fault::Head(head::Fault::Header)),
    ] {
        let (_, found) = feed(&mut asked(GET), answer.as_bytes());
        assert_eq!(found, FromServer::Wrong(fault), "{answer}");
    }
    let endless = vec![b'x'; head::LONGEST];
    let too_long = FromServer::Wrong(Fault::Head(head::Fault::TooLong));
    assert_eq!(asked(GET).from_server(&endless), too_long);
}

#[test]
fn a_request_that_programs_read_differently_is_refused_before_it_is_passed_on() {
    for (lines, fault) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            body::Fault::Ambiguous,
        ),
        ("Content-Length: 5\r\nContent-Length: 5", body::Fault::Ambiguous),
        ("Transfer-Encoding: identity", body::Fault::Coding),
        ("Content-Length: +5", body::Fault::Length),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        assert_eq!(
            begin(&mut exchange(), head.as_bytes()),
            Err(Fault::Body(fault)),
            "{lines}"
        );
    }
    let mut exchange = asked(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(exchange.from_client(b"2\r\nok\r\n"), FromClient::Pass(7));
    assert_eq!(
        exchange.from_client(b"\r\n"),
        FromClient::Wrong(Fault::Body(body::Fault::Size))
    );
}

#[test]
fn another_protocol_follows_only_an_answer_that_agrees_to_it() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    for (request, answer) in [(&upgrade[..], &switching[..]), (connect, b"HTTP/1.1 200 OK\r\n\r\n")] {
        let mut exchange = asked(request);
        assert_eq!(exchange.from_client(b"\x81\0"), FromClient::Hold);
        assert_eq!(exchange.from_server(answer), FromServer::Pass(answer.len()));
        assert!(exchange.is_raw() && exchange.may_server_end() && !exchange.is_idle());
        assert_eq!(exchange.from_client(b"\x81\0"), FromClient::Pass(2));
        assert_eq!(exchange.from_server(b"\x81\0\0"), FromServer::Pass(3));
        assert_eq!(
            (exchange.from_client(b""), exchange.from_server(b"")),
            (FromClient::Hold, FromServer::Hold)
        );
    }
    let mut early = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(early.from_server(switching), FromServer::Wrong(Fault::TooEarly));
}

#[test]
fn a_protocol_whose_requests_would_pass_unread_is_refused() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n";
    for (lines, is_agreed) in [
        ("Upgrade: websocket\r\n", true),
        ("upgrade: TLS/1.0\r\n", true),
        ("", false),
        ("Upgrade:\r\n", false),
        ("Upgrade: h2c\r\n", false),
        ("Upgrade: H2C\r\n", false),
        ("Upgrade: HTTP/2.0\r\n", false),
        ("Upgrade: websocket, h2c\r\n", false),
        ("Upgrade: websocket\r\nUpgrade: h2c\r\n", false),
    ] {
        let mut exchange = asked(upgrade);
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
        let expected = match is_agreed {
            true => FromServer::Pass(answer.len()),
            false => FromServer::Wrong(Fault::Protocol),
        };
        assert_eq!(exchange.from_server(answer.as_bytes()), expected, "{lines}");
        assert_eq!(exchange.is_raw(), is_agreed);
    }
}

#[test]
fn it_is_known_which_part_of_an_answer_was_passed_on() {
    let mut exchange = exchange();
    assert_eq!((exchange.given(), exchange.is_answer_awaited()), (Given::Whole, false));
    begin(
        &mut exchange,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        (exchange.given(), exchange.is_answer_awaited()),
        (Given::Nothing, false)
    );
    assert_eq!(exchange.from_client(b"hello"), FromClient::Pass(5));
    feed(&mut exchange, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!((exchange.given(), exchange.is_answer_awaited()), (Given::Nothing, true));
    feed(&mut exchange, &OK[..OK.len() - 1]);
    assert_eq!((exchange.given(), exchange.is_answer_awaited()), (Given::Part, true));
    feed(&mut exchange, b"k");
    assert_eq!((exchange.given(), exchange.is_answer_awaited()), (Given::Whole, false));
}

#[test]
fn bytes_in_front_of_a_fault_are_passed_on_however_they_come() {
    let mut exchange = asked(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let size = FromClient::Wrong(Fault::Body(body::Fault::Size));
    assert_eq!(exchange.from_client(b"2\r\nok\r\nx\r\n"), FromClient::Pass(7));
    assert_eq!(
        (exchange.from_client(b"x\r\n"), exchange.from_client(b"x\r\n")),
        (size, size)
    );
    let mut exchange = asked(GET);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok";
    let wrong = FromServer::Wrong(Fault::Body(body::Fault::ChunkEnd));
    assert_eq!(feed(&mut exchange, format!("{head}x").as_bytes()), (head.len(), wrong));
}
