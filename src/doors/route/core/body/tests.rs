//! Ways to say a length that programs read differently, and chunks in pieces.

use proptest::prelude::*;

use super::*;

fn framing_of(lines: &str, minor_version: u8) -> Result<Framing, Fault> {
    let text = format!("{lines}\r\n\r\n");
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let (_, headers) = httparse::parse_headers(text.as_bytes(), &mut headers).unwrap().unwrap();
    framing(headers, minor_version)
}

/// The number of bytes of a chunked body, with the fault if there is one; `None` if it does not end.
fn chunked(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let mut body = Body::Size;
    let taken = body.advance(bytes)?;
    // A fault behind good bytes is found by the next call.
    let rest = bytes.get(taken..).unwrap_or_default();
    assert!(body.is_ended() || body.advance(rest)? == 0);
    Ok(body.is_ended().then_some(taken))
}

#[test]
fn a_length_is_said_once_and_in_digits() {
    for (lines, expected) in [
        ("X: y", Ok(Framing::Unsaid)),
        ("Content-Length: 0", Ok(Framing::Length(0))),
        ("content-length:\t15 ", Ok(Framing::Length(15))),
        ("Content-Length: 9007199254740992", Ok(Framing::Length(LONGEST))),
        ("Content-Length: 9007199254740993", Err(Fault::Length)),
        ("Content-Length: 99999999999999999999999", Err(Fault::Length)),
        ("Content-Length: +5", Err(Fault::Length)),
        ("Content-Length: -5", Err(Fault::Length)),
        ("Content-Length: 0x5", Err(Fault::Length)),
        ("Content-Length: 5 5", Err(Fault::Length)),
        ("Content-Length: 5, 5", Err(Fault::Length)),
        ("Content-Length:", Err(Fault::Length)),
        ("Content-Length: 5\r\nContent-Length: 5", Err(Fault::Ambiguous)),
        ("Content-Length: 5\r\ncontent-length: 6", Err(Fault::Ambiguous)),
        ("Content_Length: 5", Err(Fault::Ambiguous)),
        ("Transfer-Encoding: chunked", Ok(Framing::Chunked)),
        ("transfer-encoding: CHUNKED", Ok(Framing::Chunked)),
        ("Transfer-Encoding: gzip, chunked", Err(Fault::Coding)),
        ("Transfer-Encoding: chunked, identity", Err(Fault::Coding)),
        ("Transfer-Encoding: xchunked", Err(Fault::Coding)),
        ("Transfer-Encoding: \"chunked\"", Err(Fault::Coding)),
        ("Transfer-Encoding:", Err(Fault::Coding)),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Err(Fault::Ambiguous),
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Err(Fault::Ambiguous),
        ),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Err(Fault::Ambiguous)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Err(Fault::Ambiguous)),
        ("Transfer_Encoding: chunked\r\nContent-Length: 5", Err(Fault::Ambiguous)),
        ("X-Content-Length: 5\r\nX_Y: z", Ok(Framing::Unsaid)),
    ] {
        assert_eq!(framing_of(lines, 1), expected, "{lines}");
    }
    assert_eq!(framing_of("Content-Length: 5", 0), Ok(Framing::Length(5)));
    assert_eq!(framing_of("Transfer-Encoding: chunked", 0), Err(Fault::Coding));
}

#[test]
fn a_chunked_body_ends_behind_its_trailers_at_every_split_point() {
    for body in [
        &b"0\r\n\r\n"[..],
        b"000\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\"\r\nhello\r\n0;c\r\n\r\n",
        b"5\r\n\r\n0\r\n\r\n0\r\n\r\n",
        b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\nName: value\r\nOther: value\r\n\r\n",
    ] {
        for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"0\r\n\r\n", b"\r\n"] {
            let bytes = [body, behind].concat();
            assert_eq!(chunked(&bytes), Ok(Some(body.len())), "{}", bytes.escape_ascii());
            for cut in 0..body.len() {
                let mut rest = Body::Size;
                let first = rest.advance(&bytes[..cut]).unwrap();
                assert!(first <= cut && !rest.is_ended(), "{cut}");
                assert_eq!(rest.advance(&bytes[first..]), Ok(body.len() - first), "{cut}");
                assert!(rest.is_ended());
            }
        }
    }
}

#[test]
fn what_a_program_may_take_for_another_size_is_refused() {
    for line in [
        "\r\n",
        "\n",
        ";\r\n",
        " 5\r\n",
        "5 \r\n",
        "5 ;a\r\n",
        "5\n",
        "5;a\n",
        "5;a\nb\r\n",
        "5;a\rb\r\n",
        "5;\0\r\n",
        "5;\t\r\n",
        "5\r\r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        "5_0\r\n",
        "5,0\r\n",
        "g\r\n",
        "5g\r\n",
        "5;\u{fc}\r\n",
        "00000000000005\r\n",
        "20000000000000\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "\r",
    ] {
        let bytes = format!("{line}hello\r\n0\r\n\r\n");
        assert_eq!(chunked(bytes.as_bytes()), Err(Fault::Size), "{line:?}");
    }
    let long = |length: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(length - 4));
    assert!(chunked(long(LONGEST_LINE).as_bytes()).is_ok_and(|end| end.is_some()));
    assert_eq!(chunked(long(LONGEST_LINE + 1).as_bytes()), Err(Fault::Size));
    assert_eq!(chunked(&[b'0'; 14]), Err(Fault::Size));
}

#[test]
fn a_chunk_has_an_end_of_line_behind_it() {
    for behind in ["x", "\n", "\r\r", "\rx", "0\r\n\r\n"] {
        assert_eq!(
            chunked(format!("5\r\nhello{behind}").as_bytes()),
            Err(Fault::ChunkEnd),
            "{behind:?}"
        );
    }
    assert_eq!(chunked(b"5\r\nhello\r"), Ok(None));
}

#[test]
fn trailers_are_headers_that_say_no_length() {
    for trailers in [
        "Content-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer_Encoding: chunked\r\n\r\n",
        "Name : value\r\n\r\n",
        " Name: value\r\n\r\n",
        "Name: value\r\n folded\r\n\r\n",
        "Name\r\n\r\n",
        "Name: value\n\r\n",
        "Name: \0\r\n\r\n",
        "\n",
    ] {
        assert_eq!(
            chunked(format!("0\r\n{trailers}").as_bytes()),
            Err(Fault::Trailers),
            "{trailers:?}"
        );
    }
    let endless = format!("0\r\n{}", "X: y\r\n".repeat(4000));
    assert_eq!(chunked(endless.as_bytes()), Err(Fault::Trailers));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(MOST_TRAILERS + 1));
    assert_eq!(chunked(many.as_bytes()), Err(Fault::Trailers));
}

#[test]
fn a_body_of_a_length_ends_there_and_one_until_the_end_takes_everything() {
    let mut body = Body::Length(5);
    assert_eq!((body.advance(b""), body.advance(b"he")), (Ok(0), Ok(2)));
    assert!(!body.is_ended());
    assert_eq!(body.advance(b"llo next"), Ok(3));
    assert!(body.is_ended());
    assert_eq!(body.advance(b" next"), Ok(0));
    let mut body = Body::UntilClose;
    assert_eq!(body.step(b"hello"), Ok(5));
    assert_eq!(body.advance(b"0\r\n\r\n"), Ok(5));
    assert!(!body.is_ended());
}

proptest! {
    #[test]
    fn chunks_of_any_data_end_where_they_were_made_to(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes: Vec<u8> = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let length = bytes.len();
        bytes.extend_from_slice(&behind);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let (mut body, mut taken) = (Body::Size, 0);
        for cut in cuts {
            taken += body.advance(&bytes[taken..cut.max(taken)]).unwrap();
        }
        prop_assert!(body.is_ended());
        prop_assert_eq!(taken, length);
    }
}
