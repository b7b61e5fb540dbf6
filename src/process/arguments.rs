//! The command line of this process, as other processes see it.
//!
//! A secret on a command line can be read by every user of the machine (`/proc/PID/cmdline`, proc(5)), for as long as it
//! stands there. [`hide`] overwrites it in the memory of this process, which the kernel shows. The arguments as they were
//! given, which a successor is to get, must have been read before: see [`Image`](super::successor::Image).
//!
//! The command lines of programs that are started for clients do not belong here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// The byte that stands in the place of each hidden one.
const COVER: u8 = b'x';

/// Overwrites this text wherever it is an argument, or stands behind the equals sign of one.
///
/// # Errors
/// `/proc` is not there, or this process may not write to its own memory by it. The text may still be seen.
pub fn hide(text: &OsStr) -> io::Result<()> {
    let line = fs::read("/proc/self/cmdline")?;
    let begin = begin_of_arguments(&fs::read_to_string("/proc/self/stat")?)
        .ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "the kernel does not say where they are"))?;
    let places = places_of(&line, text.as_bytes());
    if places.is_empty() {
        return Err(io::Error::new(
            ErrorKind::NotFound,
            "they are not where the kernel says",
        ));
    }
    // By the file and not by a pointer: the kernel checks the address, and no reference to the memory is needed.
    let memory = File::options().write(true).open("/proc/self/mem")?;
    for place in places {
        let cover = vec![COVER; place.len()];
        let offset = u64::try_from(place.start).unwrap_or(u64::MAX);
        memory.write_all_at(&cover, begin.saturating_add(offset))?;
    }
    Ok(())
}

/// Returns the address of the command line: arg_start, the 48th field of `/proc/self/stat` (proc(5)).
fn begin_of_arguments(stat: &str) -> Option<u64> {
    // The second field, the name of the program, may hold blanks and brackets.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let field = behind_name.split_ascii_whitespace().nth(48 - 3)?;
    field.parse().ok().filter(|address| *address != 0)
}

/// Returns the places of a text among arguments that end in NUL each.
fn places_of(line: &[u8], text: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut begin = 0;
    for argument in line.split(|byte| *byte == 0) {
        let end = begin + argument.len();
        let value = argument.strip_suffix(text).filter(|_| !text.is_empty());
        if value.is_some_and(|front| front.is_empty() || front.ends_with(b"=")) {
            places.push(end - text.len()..end);
        }
        begin = end + 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_as_an_argument_and_behind_an_equals_sign() {
        let line = b"iotcpd\0tunnel\0--secret\0abc\0-secret=abc\0--local=xabc\0abcd\0\0";
        assert_eq!(places_of(line, b"abc"), [23..26, 35..38]);
        assert!(places_of(line, b"").is_empty());
        assert!(places_of(b"", b"abc").is_empty());
    }

    #[test]
    fn the_begin_of_the_command_line_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) b (c) {}", fields.join(" "));
        assert_eq!(begin_of_arguments(&stat), Some(48));
        assert_eq!(begin_of_arguments("7 (a) R 1"), None);
        assert_eq!(begin_of_arguments(""), None);
    }
}
