//! Strings as `execve(2)` takes them, each with a NUL behind it, in one buffer: a string costs its bytes and one more,
//! and no allocation of its own.

use std::ffi::CStr;
use std::fmt;
use std::io::Write;

use nix::errno::Errno;

/// A row of strings without a NUL: arguments, variables or paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings(Vec<u8>);

impl Strings {
    /// An empty row with room for this number of bytes, a NUL for each string among them.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends a string that is made of these parts.
    ///
    /// # Errors
    /// EINVAL: it holds a NUL. Nothing is appended then.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), Errno> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(Errno::EINVAL);
        }
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.push(0);
        Ok(())
    }

    /// Appends a string whose text must hold no NUL.
    pub fn push_text(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a vector cannot fail.
        let _ = self.0.write_fmt(text);
        self.0.push(0);
    }

    /// Returns the strings in order. Does not allocate.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> + Clone {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(string.count_bytes() + 1..)?;
            Some(string)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order_and_one_with_a_nul_is_refused() {
        let mut strings = Strings::default();
        assert_eq!(strings.iter().count(), 0);
        strings.push(&[b"PATH", b"=", b"/bin"]).unwrap();
        strings.push(&[b""]).unwrap();
        assert_eq!(strings.push(&[b"A=", b"1\0"]), Err(Errno::EINVAL));
        strings.push_text(format_args!("PID={}", 7));
        assert!(strings.iter().eq([c"PATH=/bin", c"", c"PID=7"]));
    }
}
