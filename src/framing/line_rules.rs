//! The rules for messages to programs that read lines: a message that such a program may take for two is refused.
//!
//! Here a line ends at LF. To Java's `readLine`, Node's `readline` and Python's files in text mode a lone CR ends a
//! line as well, to programs in C a NUL does, and to some programs even certain Unicode characters do
//! ([`holds_unicode_line_end`]); `tests/it/real_runtimes.rs` shows that. A client could put two lines into one request
//! for such a program. The program would answer both, and the second answer would go to another client. So any byte
//! that such a reader may take for a line end is refused, whichever client sent it and in whatever framing.
//!
//! Where an empty line ends a message ([`until-empty-line`](super::empty_line)), a line of blanks is an empty line to
//! every program that strips its lines, so it is refused there too.
//!
//! An operator can allow all of this for programs that are known to read differently.

use super::{Framing, Unfit};

/// The operator's settings about the way in which workers read lines. The defaults assume nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineRules {
    /// A CR without a LF after it is an ordinary byte to the workers.
    pub allow_lone_cr: bool,
    /// A line of blanks is not empty to the workers.
    pub allow_blank_lines: bool,
    /// The workers take Unicode line ends for line ends, so these are refused.
    pub refuse_unicode: bool,
    /// The line ends of messages to the workers.
    pub end: LineEnd,
}

/// The forms of a line end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineEnd {
    /// LF, or CR LF where the client sent that.
    #[default]
    AsItCame,
    /// LF.
    Lf,
    /// CR LF.
    CrLf,
}

impl LineRules {
    /// Checks that a message, written for a program in this framing, is one message to that program, however it reads
    /// lines.
    ///
    /// # Errors
    /// The reason why it may be more than one.
    pub fn check(self, framing: Framing, message: &[u8]) -> Result<(), Unfit> {
        match framing {
            Framing::Line => self.check_lines(message),
            Framing::UntilEmptyLine => {
                self.check_lines(message)?;
                let mut lines = message.split(|byte| *byte == b'\n');
                if !self.allow_blank_lines && lines.any(is_blank) {
                    return Err(Unfit("holds a line of nothing but blanks (see --allow-blank-lines)"));
                }
                Ok(())
            }
            // In these framings a line end has no meaning.
            Framing::Netstring
            | Framing::Nul
            | Framing::U32be
            | Framing::ContentLength
            | Framing::Eof
            | Framing::Quiet(_) => Ok(()),
        }
    }

    /// Rewrites the line ends of a message that has passed [`check`](Self::check) to the form that its reader needs.
    /// Otherwise a client could send the other form to a program that knows only one: the program would read on into
    /// the next client's message.
    pub fn write_ends(self, framing: Framing, message: &mut Vec<u8>) {
        let end: &[u8] = match (framing, self.end) {
            (Framing::Line | Framing::UntilEmptyLine, LineEnd::Lf) => b"\n",
            (Framing::Line | Framing::UntilEmptyLine, LineEnd::CrLf) => b"\r\n",
            _ => return,
        };
        let mut written = Vec::with_capacity(message.len() + 2);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            written.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            written.extend_from_slice(end);
        }
        *message = written;
    }

    fn check_lines(self, message: &[u8]) -> Result<(), Unfit> {
        for at in memchr::memchr2_iter(0, b'\r', message) {
            if message.get(at) == Some(&0) {
                return Err(Unfit("holds a NUL byte"));
            }
            if !self.allow_lone_cr && message.get(at + 1) != Some(&b'\n') {
                return Err(Unfit(
                    "holds a carriage return before no line feed (see --allow-lone-cr)",
                ));
            }
        }
        if self.refuse_unicode && holds_unicode_line_end(message) {
            return Err(Unfit(
                "holds a character that ends lines in Unicode (--refuse-unicode-line-ends)",
            ));
        }
        Ok(())
    }
}

/// Returns true if a message holds anything, besides LF and CR, that some runtime takes for the end of a line in UTF-8:
/// U+0085, U+2028 and U+2029 (`Scanner` of Java; the last two also `readline` of newer versions of Node), vertical tab,
/// form feed and the separators of files, groups and records (`str.splitlines` of Python; the first two also `\R` of
/// Java and Perl).
fn holds_unicode_line_end(message: &[u8]) -> bool {
    let is_control = |byte: &u8| matches!(byte, 0x0b | 0x0c | 0x1c..=0x1e);
    message.iter().any(is_control)
        || memchr::memmem::find(message, "\u{85}".as_bytes()).is_some()
        || memchr::memmem::find_iter(message, b"\xe2\x80").any(|at| matches!(message.get(at + 2), Some(0xa8 | 0xa9)))
}

/// Returns true if a line, given without its LF, is not empty and a program that strips it is left with nothing: it
/// holds only blanks and control characters of ASCII, as Java's `trim` knows them, and of Unicode.
fn is_blank(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(|byte| matches!(byte, b'!'..=b'~')) || line.is_empty() {
        return false;
    }
    let is_nothing = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    std::str::from_utf8(line).map_or_else(
        // Latin-1 has no blank of its own but the no-break space.
        |_| line.iter().all(|byte| matches!(byte, 0..=b' ' | 0x7f..=0xa0)),
        |text| text.chars().all(is_nothing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: LineRules = LineRules {
        allow_lone_cr: false,
        allow_blank_lines: false,
        refuse_unicode: true,
        end: LineEnd::AsItCame,
    };

    fn why(rules: LineRules, framing: Framing, message: &[u8]) -> &'static str {
        rules.check(framing, message).map_or_else(|Unfit(why)| why, |()| "")
    }

    #[test]
    fn a_lone_cr_passes_no_reader_of_lines_unless_it_is_said_to() {
        let allowed = LineRules {
            allow_lone_cr: true,
            allow_blank_lines: true,
            ..LineRules::default()
        };
        for framing in [Framing::Line, Framing::UntilEmptyLine] {
            for message in [&b"a\rb\n"[..], b"\ra\n", b"a\r\r\n", b"a\r", b"\r\r\n", b"a\r\0\n"] {
                assert!(why(LineRules::default(), framing, message).starts_with("holds a carriage return before no"));
                let nul = message.contains(&0).then_some("holds a NUL byte");
                assert_eq!(why(allowed, framing, message), nul.unwrap_or_default(), "{message:?}");
            }
            for message in [
                &b"a\r\n"[..],
                b"\r\n",
                b"\n",
                b"a b\tc\n",
                "\u{e4}\u{2028}\u{85}\x0b\n".as_bytes(),
            ] {
                assert_eq!(why(LineRules::default(), framing, message), "", "{message:?}");
            }
        }
        assert_eq!(
            why(LineRules::default(), Framing::UntilEmptyLine, b"a\r\nb\r\n\r\n"),
            ""
        );
    }

    #[test]
    fn line_ends_are_written_as_configured() {
        let written = |end, framing, message: &[u8]| {
            let (rules, mut message) = (
                LineRules {
                    end,
                    ..LineRules::default()
                },
                message.to_vec(),
            );
            rules.write_ends(framing, &mut message);
            message
        };
        let mixed = b"a=1\r\nb=2\n\r\n";
        assert_eq!(written(LineEnd::AsItCame, Framing::UntilEmptyLine, mixed), mixed);
        assert_eq!(written(LineEnd::Lf, Framing::UntilEmptyLine, mixed), b"a=1\nb=2\n\n");
        assert_eq!(
            written(LineEnd::CrLf, Framing::UntilEmptyLine, mixed),
            b"a=1\r\nb=2\r\n\r\n"
        );
        assert_eq!(written(LineEnd::Lf, Framing::Line, b"a\r\n"), b"a\n");
        assert_eq!(written(LineEnd::CrLf, Framing::Line, b"\n"), b"\r\n");
        assert_eq!(written(LineEnd::CrLf, Framing::Nul, b"a\n\0"), b"a\n\0");
    }

    #[test]
    fn a_nul_passes_no_reader_of_lines() {
        for framing in [Framing::Line, Framing::UntilEmptyLine] {
            assert_eq!(why(LineRules::default(), framing, b"a\0b\n"), "holds a NUL byte");
        }
    }

    #[test]
    fn other_framings_carry_everything() {
        let all: Vec<u8> = (0..=255).collect();
        for framing in [
            Framing::Netstring,
            Framing::Nul,
            Framing::U32be,
            Framing::ContentLength,
            Framing::Eof,
        ] {
            assert_eq!(why(STRICT, framing, &all), "", "{framing}");
        }
    }

    #[test]
    fn line_ends_of_unicode_are_refused_where_that_is_asked_for() {
        for end in ["\u{85}", "\u{2028}", "\u{2029}", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"] {
            for message in [format!("a{end}b\n"), format!("{end}\n"), format!("a\n{end}b\n\n")] {
                let framings = [Framing::Line, Framing::UntilEmptyLine];
                assert!(
                    framings
                        .iter()
                        .all(|framing| why(STRICT, *framing, message.as_bytes()).contains("Unicode"))
                );
            }
        }
        // Characters that contain one of these bytes, and neighbours of these characters.
        for message in ["\u{c5}\u{205}\n", "\u{2027}\u{202a}\n", "\u{84}\u{86}\n", "\x1f\t\n"] {
            assert_eq!(why(STRICT, Framing::Line, message.as_bytes()), "", "{message:?}");
        }
        for torn in [&b"\xe2\x80\n"[..], b"\x80\xa8\n", b"\x85\n", b"\xc2\n"] {
            assert_eq!(why(STRICT, Framing::Line, torn), "", "{torn:?}");
        }
    }

    #[test]
    fn a_line_of_blanks_is_no_line_where_an_empty_one_ends_the_message() {
        for blanks in [
            " ",
            "\t",
            "  \t ",
            " \r",
            "\x0b",
            "\x1f",
            "\u{a0}",
            "\u{2003} ",
            "\u{3000}",
            "\u{feff}",
            "\u{85}",
        ] {
            let message = format!("a=b\n{blanks}\nc=d\n\n");
            let allowed = LineRules {
                allow_blank_lines: true,
                ..LineRules::default()
            };
            assert!(
                why(LineRules::default(), Framing::UntilEmptyLine, message.as_bytes()).contains("blanks"),
                "{blanks:?}"
            );
            assert_eq!(why(allowed, Framing::UntilEmptyLine, message.as_bytes()), "");
            assert_eq!(
                why(LineRules::default(), Framing::Line, message.as_bytes()),
                "",
                "it is a message there"
            );
        }
        assert!(
            why(LineRules::default(), Framing::UntilEmptyLine, b"a\n\xa0\nb\n\n").contains("blanks"),
            "in Latin-1"
        );
        for message in [
            &b"a\n b\n\n"[..],
            b"\n",
            b"\r\n",
            b"a\r\n\r\n",
            "\u{e4}\n\n".as_bytes(),
            b"\xe4\n\n",
        ] {
            assert_eq!(why(STRICT, Framing::UntilEmptyLine, message), "", "{message:?}");
        }
    }
}
