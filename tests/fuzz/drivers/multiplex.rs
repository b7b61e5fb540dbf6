//! The lines of a multiplexed connection to a pool, as each side reads the other's.

use iotcpd::internals::framing::multiplex::{ClientLine, ServerLine, Welcome, encode_cancel, is_hello};

/// `ClientLine`, `ServerLine`, `is_hello` and `Welcome`: each line of the input is read as both sides would read it. A
/// request or an answer has the number whose digits stand there, and its text is the rest of the line, byte for byte;
/// a cancellation is one written as this program writes it, or with a blank or CR behind its number; a welcome means the same
/// when it is written again, and when unknown words are added.
pub fn fuzz_multiplexed_line(input: &[u8]) {
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        if line.ends_with(b"\n") {
            check_client_line(line);
            check_server_line(line);
        }
        check_welcome(line);
    }
}

fn check_client_line(line: &[u8]) {
    match ClientLine::parse(line) {
        ClientLine::Request { number, prefix } => {
            assert_eq!(numbered(line), Some((number, prefix)), "{line:?}");
            assert!(!is_hello(line), "no hello is taken for a request");
        }
        ClientLine::Cancel(number) => {
            let mut written = Vec::new();
            encode_cancel(number, &mut written);
            let rest = line.strip_prefix(written.trim_ascii_end());
            assert!(matches!(rest, Some(b"\n" | b"\r\n" | b" \n" | b" \r\n")), "{line:?}");
        }
        ClientLine::Unknown => {
            assert_eq!(numbered(line), None, "{line:?}");
            let number = line.strip_prefix(b"!cancel ").and_then(numbered);
            let is_whole = |prefix| matches!(line.get(8 + prefix..), Some(b"" | b"\n" | b"\r\n"));
            assert!(!number.is_some_and(|(_, prefix)| is_whole(prefix)), "{line:?}");
        }
    }
}

fn check_server_line(line: &[u8]) {
    match ServerLine::parse(line) {
        ServerLine::Answer { number, prefix } => assert_eq!(numbered(line), Some((number, prefix)), "{line:?}"),
        ServerLine::Drain => assert_eq!(line.trim_ascii_end(), b"!drain"),
        ServerLine::Announcement => assert!(line.starts_with(b"!") && line.trim_ascii_end() != b"!drain"),
        ServerLine::Unknown => {
            assert_eq!(numbered(line), None, "{line:?}");
            assert!(!line.starts_with(b"!"), "{line:?}");
        }
    }
}

fn check_welcome(line: &[u8]) {
    let Some(welcome) = Welcome::parse(line) else { return };
    assert!(is_hello(line), "a welcome begins as a hello does: {line:?}");
    assert!(welcome.max_unanswered > 0 && welcome.at_once > 0, "{welcome:?}");
    let mut written = Vec::new();
    welcome.encode(&mut written);
    assert_eq!(Welcome::parse(&written), Some(welcome), "what is written is read again");
    let longer = [line.trim_ascii_end(), b" later=1 word\n"].concat();
    assert_eq!(Welcome::parse(&longer), Some(welcome), "{longer:?}");
}

/// Returns the number before a whole line, and the place where its text or its line end begins.
fn numbered(line: &[u8]) -> Option<(u32, usize)> {
    let (digits, blank) = match line.iter().position(|byte| *byte == b' ') {
        Some(end) => (line.get(..end)?, 1),
        None => (line.trim_ascii_end(), 0),
    };
    let number = std::str::from_utf8(digits).ok()?.parse::<u32>().ok()?;
    let is_alone = blank == 1
        || line
            .get(digits.len()..)
            .is_some_and(|end| end == b"\n" || end == b"\r\n");
    (is_alone && number.to_string().as_bytes() == digits).then_some((number, digits.len() + blank))
}
