//! An entry of a store: a service in the forms in which programs write it, and in the one that this program writes.
//!
//! The forms, all of them JSON:
//!
//! ```text
//! {"Key":"tcprouter/service/NAME","Value":"BASE64","LastIndex":1}      Value is the base64 of one of the next two
//! {"addr":"10.0.0.5","tlsport":443,"httpport":80,"clientsecret":""}
//! {"addr":"10.0.0.5:443","sni":"NAME","name":"a label"}                an older form
//! ```
//!
//! The names of fields are compared without regard to case, hyphens and underscores; the last of two fields with one
//! name counts; `null`, an empty text and a port of 0 are as good as no such field; other fields are passed over. The
//! name of the service is `sni`, or else the last part of the key. If both `addr` and `clientsecret` are written, the
//! secret counts, as in the original. A port behind the address counts for TLS and for HTTP, unless `tlsport` or
//! `httpport` says otherwise.
//!
//! An entry leads to a port of a host, or to a tunnel. It cannot lead to a UNIX socket, to another door or to a
//! program, which are reserved for the file of the operator: a store may be written by others.

use std::fmt;

use base64ct::{Base64, Base64Unpadded, Encoding};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use super::key;
use crate::net::addr::ServerAddr;

/// The longest value in bytes that is read.
pub const LONGEST_VALUE: usize = 65_536;

/// The longest name in bytes that an entry may have. Which names a service can have is decided by the door.
const LONGEST_NAME: usize = 256;

/// The longest secret in bytes. Any entry that is read can be written in each form without exceeding
/// [`LONGEST_VALUE`].
const LONGEST_SECRET: usize = 4_096;

/// The longest address in bytes.
const LONGEST_ADDRESS: usize = 300;

/// A service of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is written: visible characters of ASCII, at least one.
    pub name: Box<str>,
    /// The end of its connections.
    pub target: Target,
}

/// The end of the connections of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server. At least one of the ports is there, and a port is not 0.
    Server {
        /// An IP address without brackets, or a name that is to be resolved.
        host: Box<str>,
        /// The port for TLS.
        tls_port: Option<u16>,
        /// The port for HTTP and for every protocol without TLS.
        http_port: Option<u16>,
    },
    /// The client of a tunnel, which presents this secret.
    Tunnel(Secret),
}

/// A secret, which is not shown in the log. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Returns the secret with this text, or `None` if it is empty.
    pub fn new(text: &str) -> Option<Secret> {
        (!text.is_empty()).then(|| Secret(text.into()))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The reason why a value cannot be read. It prints a sentence about "it", the entry, without the value itself, which
/// may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The value has more than [`LONGEST_VALUE`] bytes.
    TooLong,
    /// The value is no JSON from this line and column on, which are counted from 1.
    NoJson(usize, usize),
    /// The value is JSON, but no object.
    NoObject,
    /// The field `Value` is not the base64 of another object.
    NoBase64,
    /// The field with this name has a value of a wrong type or range; the second text says which it should have.
    Field(&'static str, &'static str),
    /// The name is empty, too long, or has blanks or other characters than those of ASCII.
    Name,
    /// The address cannot be the address of a server, for this reason.
    Address(String),
    /// There is neither an address nor a secret.
    NoTarget,
    /// There is no port, neither in a field nor behind the address.
    NoPort,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong => write!(f, "it is longer than {LONGEST_VALUE} bytes"),
            Fault::NoJson(line, column) => write!(f, "it is no JSON (line {line}, column {column})"),
            Fault::NoObject => f.write_str("it is no object of JSON, such as {\"addr\":\"10.0.0.5\",\"tlsport\":443}"),
            Fault::NoBase64 => f.write_str("its Value is not the base64 of an object of JSON"),
            Fault::Field(name, expected) => write!(f, "its {name} is not {expected}"),
            Fault::Name => {
                write!(
                    f,
                    "its name does not have 1 to {LONGEST_NAME} letters, digits and signs of ASCII without a blank"
                )
            }
            Fault::Address(why) => write!(f, "its addr is no address of a server: {why}"),
            Fault::NoTarget => f.write_str("it has neither addr nor clientsecret"),
            Fault::NoPort => f.write_str("it has neither tlsport nor httpport, and no port behind its addr"),
        }
    }
}

impl std::error::Error for Fault {}

impl Entry {
    /// Reads a value that stands under a key with this last part.
    ///
    /// # Errors
    /// The value is none of the forms, or the service has no name or no end.
    pub fn read(label: &[u8], value: &[u8]) -> Result<Entry, Fault> {
        if value.len() > LONGEST_VALUE {
            return Err(Fault::TooLong);
        }
        let mut fields = Fields::parse(value)?;
        if let Some(wrapped) = text("Value", fields.value.take())? {
            fields = Fields::parse(&unwrapped(&wrapped)?)?;
            if fields.value.is_some() {
                return Err(Fault::NoBase64);
            }
        }
        let name = match text("sni", fields.sni)? {
            Some(sni) => name(sni.as_bytes())?,
            None => name(label)?,
        };
        let secret = text("clientsecret", fields.secret)?;
        if secret.as_ref().is_some_and(|secret| secret.len() > LONGEST_SECRET) {
            return Err(Fault::Field("clientsecret", "a text of at most 4096 bytes"));
        }
        let addr = text("addr", fields.addr)?;
        let tls_port = port("tlsport", fields.tls_port)?;
        let http_port = port("httpport", fields.http_port)?;
        let target = match (secret.and_then(|secret| Secret::new(&secret)), addr) {
            (Some(secret), _) => Target::Tunnel(secret),
            (None, Some(addr)) => server(&addr, tls_port, http_port)?,
            (None, None) => return Err(Fault::NoTarget),
        };
        Ok(Entry { name, target })
    }

    /// Returns the value in the form that this program writes into a store, and that the original reads.
    pub fn stored(&self, last_index: u64) -> String {
        let key = key::written(&self.name);
        let stored = Stored {
            key: key.trim_start_matches('/'),
            value: Base64::encode_string(self.plain(None).as_bytes()),
            last_index,
        };
        json(&stored)
    }

    /// Returns one line from which [`read`](Self::read) makes the same entry whatever the label is.
    pub fn line(&self) -> String {
        self.plain(Some(&self.name))
    }

    fn plain(&self, sni: Option<&str>) -> String {
        json(&match &self.target {
            Target::Server {
                host,
                tls_port,
                http_port,
            } => Plain {
                sni,
                addr: Some(host),
                tls_port: *tls_port,
                http_port: *http_port,
                secret: None,
            },
            Target::Tunnel(secret) => Plain {
                sni,
                addr: None,
                tls_port: None,
                http_port: None,
                secret: Some(secret.reveal()),
            },
        })
    }
}

/// The outer object.
#[derive(Serialize)]
struct Stored<'e> {
    #[serde(rename = "Key")]
    key: &'e str,
    #[serde(rename = "Value")]
    value: String,
    #[serde(rename = "LastIndex")]
    last_index: u64,
}

/// The inner object.
#[derive(Serialize)]
struct Plain<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<&'e str>,
    #[serde(rename = "tlsport", skip_serializing_if = "Option::is_none")]
    tls_port: Option<u16>,
    #[serde(rename = "httpport", skip_serializing_if = "Option::is_none")]
    http_port: Option<u16>,
    #[serde(rename = "clientsecret", skip_serializing_if = "Option::is_none")]
    secret: Option<&'e str>,
}

/// Returns the JSON of texts and numbers, which always have one.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The fields of an object that count, of any type. `null` is as good as no field.
#[derive(Default)]
struct Fields {
    value: Option<Value>,
    sni: Option<Value>,
    addr: Option<Value>,
    tls_port: Option<Value>,
    http_port: Option<Value>,
    secret: Option<Value>,
}

impl Fields {
    fn parse(json: &[u8]) -> Result<Fields, Fault> {
        // The text of the error may quote the value.
        serde_json::from_slice(json).map_err(|error| match error.classify() {
            Category::Data => Fault::NoObject,
            Category::Syntax | Category::Eof | Category::Io => Fault::NoJson(error.line(), error.column()),
        })
    }

    fn field(&mut self, name: &str) -> Option<&mut Option<Value>> {
        let mut name = name.replace(['-', '_'], "");
        name.make_ascii_lowercase();
        match &*name {
            "value" => Some(&mut self.value),
            "sni" => Some(&mut self.sni),
            "addr" => Some(&mut self.addr),
            "tlsport" => Some(&mut self.tls_port),
            "httpport" => Some(&mut self.http_port),
            "clientsecret" => Some(&mut self.secret),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            match fields.field(&name) {
                Some(field) => {
                    if let Some(value) = map.next_value()? {
                        *field = Some(value);
                    }
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// Returns the text of a field, or `None` if it is empty or not there.
fn text(field: &'static str, value: Option<Value>) -> Result<Option<String>, Fault> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(Fault::Field(field, "a text")),
    }
}

/// Returns the port of a field, or `None` if it is 0 or not there.
fn port(field: &'static str, value: Option<Value>) -> Result<Option<u16>, Fault> {
    let wrong = Fault::Field(field, "a number from 0 to 65535");
    let Some(value) = value else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.ok_or(wrong).map(|port| Some(port).filter(|port| *port != 0))
}

/// Returns the bytes behind base64, which may be broken into lines and end without its padding.
fn unwrapped(base64: &str) -> Result<Vec<u8>, Fault> {
    let compact: String = base64.split_ascii_whitespace().collect();
    Base64Unpadded::decode_vec(compact.trim_end_matches('=')).map_err(|_| Fault::NoBase64)
}

fn name(bytes: &[u8]) -> Result<Box<str>, Fault> {
    let is_name = (1..=LONGEST_NAME).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_name);
    text.map(Box::from).ok_or(Fault::Name)
}

/// Reads `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]` or `[IPV6]:PORT`.
fn server(addr: &str, tls_port: Option<u16>, http_port: Option<u16>) -> Result<Target, Fault> {
    let wrong = |why: &str| Err(Fault::Address(why.to_owned()));
    if addr.len() > LONGEST_ADDRESS {
        return wrong("it is too long");
    }
    if addr.starts_with("unix:") || addr.starts_with('/') {
        return wrong("a UNIX socket can be named in the file alone");
    }
    let (host, own) = match addr.parse() {
        Ok(ServerAddr::Tcp { host, port }) => (host, port),
        Ok(ServerAddr::Unix(_)) => return wrong("it is a UNIX socket"),
        Err(error) => return wrong(&error.to_string()),
    };
    let (tls_port, http_port) = (tls_port.or(own), http_port.or(own));
    if tls_port.is_none() && http_port.is_none() {
        return Err(Fault::NoPort);
    }
    Ok(Target::Server {
        host: host.into(),
        tls_port,
        http_port,
    })
}

#[cfg(test)]
mod tests;
