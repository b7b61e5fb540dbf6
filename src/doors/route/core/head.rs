//! The head of an HTTP/1 request, as far as a router reads it: the host that it is for.
//!
//! ```text
//! GET /path?query HTTP/1.1\r\n              a request line: method, target and version
//! Host: www.example.org:8080\r\n            headers
//! \r\n                                      an empty line
//!
//! target     /path                          origin form
//!            http://www.example.org/path    absolute form: its authority must be the same as Host
//!            www.example.org:443            authority form, for CONNECT alone: as above
//!            *                              for OPTIONS alone
//! host       name | name:port | [IPv6 address] | [IPv6 address]:port
//! ```
//!
//! [`parse`] is pure: all bytes that have been read so far in, "more is needed", a head or a fault out. [`Progress`]
//! remembers the bytes that were searched for the end of the head. The complete head is parsed by `httparse`, once.
//!
//! The backend reads the same head with another parser, and must find the same host in it. So the rules are stricter
//! than `httparse`: lines end in CR LF, no empty line is in front, no control character is anywhere, `Host` is there
//! once (in HTTP/1.0 it may be absent), and nothing is in it but a name and a port. The invariant: nothing is found
//! before the head is complete.
//!
//! The length of a body does not belong here, nor does the question which service has the host.

use std::fmt;

use super::name::Name;

/// The longest head in bytes, its empty line included.
pub const LONGEST: usize = 16 << 10;
/// The most headers.
pub const MOST_HEADERS: usize = 100;

/// The beginning of the paths by which an authority for certificates asks if a client of its has the name (RFC 8555,
/// section 8.3).
const ACME_CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The schemes of targets in absolute form, with the port that is meant where none is written.
const SCHEMES: [(&str, u16); 2] = [("http", HTTP_PORT), ("https", HTTPS_PORT)];
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The finding about the first bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// They are the beginning of a head.
    NeedMore,
    /// A complete head.
    Head(Head<'a>),
    /// They are no valid head, whatever follows.
    Wrong(Fault),
}

/// A complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The whole head, its empty line included.
    pub bytes: &'a [u8],
    /// The number of bytes of it in front of the headers.
    pub request_line: usize,
    /// The method.
    pub method: &'a str,
    /// The path and the query, as they are written there. Empty for `*` and CONNECT; in absolute form the path may be
    /// absent.
    pub path: &'a str,
    /// The number behind the dot of the version: 0 or 1.
    pub minor_version: u8,
    /// The host without its port and the brackets of an IPv6 address, as it is written there: a [`Name`] can be parsed
    /// from it. `None` if the request names no host.
    pub host: Option<&'a str>,
}

impl Head<'_> {
    /// Returns true if the request is a challenge of ACME, which proves that the name belongs to the one who asked for
    /// its certificate.
    pub fn is_acme_challenge(&self) -> bool {
        self.path.starts_with(ACME_CHALLENGES)
    }
}

/// A fault in a head. Its answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The head is longer than [`LONGEST`].
    TooLong,
    /// A line does not end in CR LF.
    LineEnd,
    /// A control character.
    Control,
    /// The method, the target or the version, or an empty line in front of them.
    RequestLine,
    /// A header that is not `Name: value`.
    Header,
    /// More headers than [`MOST_HEADERS`].
    TooManyHeaders,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// `Host` is there more than once.
    Hosts,
    /// `Host`, or the authority of the target, is no host with or without a port.
    Host,
    /// The authority of the target is not the one in `Host`.
    Authority,
}

/// Writes the fault as the end of a sentence that begins "its request".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => write!(f, "has a head longer than {LONGEST} bytes"),
            Fault::LineEnd => f.write_str("has a line that does not end in CR LF"),
            Fault::Control => f.write_str("has a control character in its head"),
            Fault::RequestLine => f.write_str("does not begin with a line of HTTP/1"),
            Fault::Header => f.write_str("has a header that is malformed"),
            Fault::TooManyHeaders => write!(f, "has more than {MOST_HEADERS} headers"),
            Fault::NoHost => f.write_str("has no Host"),
            Fault::Hosts => f.write_str("has more than one Host"),
            Fault::Host => f.write_str("has a Host that is no name of a host"),
            Fault::Authority => f.write_str("has a Host that is not the one of its target"),
        }
    }
}

/// The part of a head that was searched for its end. It belongs to one head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// The place where the unfinished line begins.
    line: usize,
    /// The number of bytes that were searched.
    searched: usize,
}

/// Parses the head at the beginning of a request. `bytes` are all bytes that were read of it, at least the ones of the
/// call before with the same `progress`.
pub fn parse<'a>(bytes: &'a [u8], progress: &mut Progress) -> Parsed<'a> {
    if bytes.first().is_some_and(|first| !first.is_ascii_graphic()) {
        return Parsed::Wrong(Fault::RequestLine);
    }
    match progress.find_end(bytes) {
        Ok(None) => Parsed::NeedMore,
        Ok(Some(head)) => read(head).map_or_else(Parsed::Wrong, Parsed::Head),
        Err(fault) => Parsed::Wrong(fault),
    }
}

impl Progress {
    /// Searches on for the empty line at the end of a head. Returns the head, or `None` if the bytes end before.
    /// Once it was found, each further call finds the same.
    pub fn find_end<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let seen = bytes.get(..LONGEST).unwrap_or(bytes);
        loop {
            let rest = seen.get(self.searched..).unwrap_or_default();
            let line_end = memchr::memchr(b'\n', rest);
            let new = line_end.map_or(rest, |at| rest.get(..at).unwrap_or_default());
            if new.iter().any(is_forbidden) {
                return Err(Fault::Control);
            }
            let Some(at) = line_end else { break };
            let end = self.searched + at;
            match seen.get(self.line..end) {
                Some(b"\r") => return Ok(seen.get(..=end)),
                Some([.., b'\r']) => (self.line, self.searched) = (end + 1, end + 1),
                Some(_) | None => return Err(Fault::LineEnd),
            }
        }
        if seen.len() == LONGEST {
            return Err(Fault::TooLong);
        }
        self.searched = seen.len();
        Ok(None)
    }
}

/// Returns true for the bytes that no head may have; of CR and LF `httparse` knows where they may be.
fn is_forbidden(byte: &u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')
}

/// Reads a complete head, whose lines all end in CR LF.
fn read(bytes: &[u8]) -> Result<Head<'_>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let is_complete = request.parse(bytes).map_err(fault_of)? == httparse::Status::Complete(bytes.len());
    let (true, Some(method), Some(target), Some(minor_version)) =
        (is_complete, request.method, request.path, request.version)
    else {
        return Err(Fault::RequestLine);
    };
    let target = Target::parse(method, target)?;
    let mut hosts = (request.headers.iter()).filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|header| header.value);
    if hosts.next().is_some() {
        return Err(Fault::Hosts);
    }
    if host.is_none() && minor_version > 0 {
        return Err(Fault::NoHost);
    }
    let host = host.map(Authority::parse_host).transpose()?;
    let authority = match (host, target.authority) {
        (Some(host), Some(authority)) if !authority.is_same(host.as_ref(), target.default_port) => {
            return Err(Fault::Authority);
        }
        (_, Some(authority)) => Some(authority),
        (host, None) => host.flatten(),
    };
    Ok(Head {
        bytes,
        request_line: memchr::memchr(b'\n', bytes).map_or(0, |at| at + 1),
        method,
        path: target.path,
        minor_version,
        host: authority.map(|authority| authority.host),
    })
}

fn fault_of(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Fault::Header,
        httparse::Error::NewLine => Fault::LineEnd,
        httparse::Error::TooManyHeaders => Fault::TooManyHeaders,
        httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => Fault::RequestLine,
    }
}

/// The target of a request.
struct Target<'a> {
    authority: Option<Authority<'a>>,
    /// The port that is meant where none is written.
    default_port: u16,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn parse(method: &str, target: &'a str) -> Result<Self, Fault> {
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Fault::RequestLine);
        }
        let (authority, default_port, path) = if method == "CONNECT" {
            (Some(target), HTTPS_PORT, "")
        } else if target.starts_with('/') {
            (None, HTTP_PORT, target)
        } else if target == "*" && method == "OPTIONS" {
            (None, HTTP_PORT, "")
        } else {
            let (scheme, rest) = target.split_once("://").ok_or(Fault::RequestLine)?;
            let known = SCHEMES.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known));
            let (_, default_port) = *known.ok_or(Fault::RequestLine)?;
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), default_port, path)
        };
        let authority = authority.map(Authority::parse).transpose()?;
        Ok(Target {
            authority,
            default_port,
            path,
        })
    }
}

/// A host, and a port if one is written.
#[derive(Clone, Copy)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses the value of `Host`, which may be empty.
    fn parse_host(value: &'a [u8]) -> Result<Option<Self>, Fault> {
        let value = std::str::from_utf8(value).map_err(|_| Fault::Host)?;
        (!value.is_empty()).then(|| Authority::parse(value)).transpose()
    }

    /// Parses a host with or without a port. Anything else that an authority may have is a fault: a user in front of
    /// the host, and the letters that no real name of a host has.
    fn parse(text: &'a str) -> Result<Self, Fault> {
        let (host, behind) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, behind) = rest.split_once(']').ok_or(Fault::Host)?;
                let is_address = address.contains(':')
                    && address
                        .bytes()
                        .all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
                (Some(address).filter(|_| is_address), behind)
            }
            None => {
                let (host, behind) = text.split_at(text.find(':').unwrap_or(text.len()));
                let is_host = host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
                (Some(host).filter(|_| is_host), behind)
            }
        };
        let host = host
            .filter(|host| Name::parse(host.as_bytes()).is_some())
            .ok_or(Fault::Host)?;
        let port = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| Fault::Host)?)
            }
            None | Some(_) => return Err(Fault::Host),
        };
        Ok(Authority { host, port })
    }

    /// Returns true if both mean the same host and port.
    fn is_same(&self, other: Option<&Authority<'_>>, default_port: u16) -> bool {
        let normal = |authority: &Authority<'_>| {
            let port = authority.port.unwrap_or(default_port);
            (Name::parse(authority.host.as_bytes()), port)
        };
        other.is_some_and(|other| normal(other) == normal(self))
    }
}

#[cfg(test)]
mod tests;
