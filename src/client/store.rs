//! Services in the store of a route door: they are written in the form of tcprouter, shown without their secrets, and
//! removed under every key that they stand at.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::error::{Blame, Error};
pub use crate::store::entry::{Entry, Target};
use crate::store::faults::Faults;
use crate::store::key::{self, Key};
use crate::store::place::Place;
use crate::store::reading::Reading;
use crate::store::redis::{Failure, Redis};

/// The index of an entry in the form of tcprouter, whose library counts changes by it. Readers pass it over.
const LAST_INDEX: u64 = 1;

/// The entries of a store.
#[derive(Debug)]
pub struct Listed {
    /// A line for each service, in the order of their names.
    pub lines: Vec<String>,
    /// A line for some of the entries that cannot be used.
    pub faults: Vec<String>,
}

/// Returns the entry of a service at these ports of a host.
///
/// # Errors
/// The address cannot be that of a service: a sentence about "it".
pub fn entry(name: &str, addr: &str, tls_port: Option<u16>, http_port: Option<u16>) -> Result<Entry, String> {
    let value = json!({ "addr": addr, "tlsport": tls_port, "httpport": http_port });
    Entry::read(name.as_bytes(), value.to_string().as_bytes()).map_err(|fault| fault.to_string())
}

/// Reads entries that stand in lines of JSON, each in a form of the store with the name in `sni` or `Key`; the file of
/// the last good table is one.
///
/// # Errors
/// All mistakes, each with its line.
pub fn parse_lines(text: &str) -> Result<Vec<Entry>, Vec<String>> {
    let (mut entries, mut mistakes) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1_usize..).filter(|(line, _)| !line.trim().is_empty()) {
        let value: Option<Value> = serde_json::from_str(line).ok();
        if number == 1 && value.as_ref().is_some_and(|value| value.get("iotcpd-table").is_some()) {
            continue;
        }
        let key = value.as_ref().and_then(|value| value.get("Key")?.as_str());
        let key = key.and_then(|key| Key::parse(key.as_bytes()));
        match Entry::read(key.as_ref().map(Key::label).unwrap_or_default(), line.as_bytes()) {
            Ok(entry) => entries.push(entry),
            Err(fault) => mistakes.push(format!("line {number} is no entry: {fault}")),
        }
    }
    if mistakes.is_empty() {
        Ok(entries)
    } else {
        Err(mistakes)
    }
}

/// Writes entries into a store, in the place of others with their names.
///
/// # Errors
/// The store cannot be reached, or refuses them.
pub fn put(place: &Place, entries: &[Entry]) -> Result<(), Error> {
    let pair = |entry: &Entry| (key::written(&entry.name), entry.stored(LAST_INDEX));
    let pairs: Vec<_> = entries.iter().map(pair).collect();
    let done = Redis::connect(place).and_then(|mut redis| redis.set(&pairs));
    done.map_err(|failure| failed(place, &failure))
}

/// Removes services from a store. Returns the names that it does not have.
///
/// # Errors
/// The store cannot be reached, or refuses it.
pub fn delete(place: &Place, names: &[String]) -> Result<Vec<String>, Error> {
    let done = Redis::connect(place).and_then(|mut redis| {
        let keys: Vec<Key> = redis.keys()?.into_iter().collect();
        let mut missing = Vec::new();
        let mut gone = Vec::new();
        let (mut reading, mut faults) = (Reading::default(), Faults::default());
        redis.read_into(keys.clone(), &mut reading, &mut faults)?;
        for name in names {
            let before = gone.len();
            // An entry that cannot be read has the name of its key.
            let is_meant = |key: &&Key| match reading.get(key) {
                Some(entry) => is_same(entry.name.as_bytes(), name),
                None => is_same(key.label(), name),
            };
            gone.extend(keys.iter().filter(is_meant).cloned());
            if gone.len() == before {
                missing.push(name.clone());
            }
        }
        redis.delete(&gone)?;
        Ok(missing)
    });
    done.map_err(|failure| failed(place, &failure))
}

/// Returns true if both are names of one service.
fn is_same(written: &[u8], name: &str) -> bool {
    let bare = |name: &[u8]| name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
    bare(written) == bare(name.as_bytes())
}

/// Returns the services of a store.
///
/// # Errors
/// The store cannot be reached.
pub fn list(place: &Place) -> Result<Listed, Error> {
    let done = Redis::connect(place).and_then(|mut redis| {
        let (mut reading, mut faults) = (Reading::default(), Faults::default());
        let keys = redis.keys()?.into_iter().collect();
        redis.read_into(keys, &mut reading, &mut faults)?;
        Ok(Listed {
            lines: reading.listing().iter().map(line).collect(),
            faults: faults.lines(&Faults::default()),
        })
    });
    done.map_err(|failure| failed(place, &failure))
}

/// Returns the line about a service, in the words of the flags that write it.
fn line(entry: &Entry) -> String {
    let mut line = entry.name.to_string();
    match &entry.target {
        Target::Server {
            host,
            tls_port,
            http_port,
        } => {
            line.push(' ');
            line.push_str(host);
            for (flag, port) in [("--tls-port", tls_port), ("--http-port", http_port)] {
                if let Some(port) = port {
                    // Writing to a text does not fail.
                    let _ = write!(line, " {flag} {port}");
                }
            }
        }
        Target::Tunnel(_) => line.push_str(" --secret-file ***"),
    }
    line
}

fn failed(place: &Place, failure: &Failure) -> Error {
    let what = format_args!("the store at {place} cannot be used: {failure}");
    Error::new(Blame::System, what, "see that it runs there and lets this client in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_form_are_read_and_each_mistake_has_its_line() {
        let table = "{\"iotcpd-table\":1,\"names\":2}\n{\"sni\":\"a.example\",\"addr\":\"10.0.0.5:443\"}\n\n";
        let wrapped = Entry::read(b"b.example", br#"{"clientsecret":"x"}"#).unwrap().stored(1);
        let entries = parse_lines(&format!("{table}{wrapped}\n")).unwrap();
        let lines: Vec<String> = entries.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "a.example 10.0.0.5 --tls-port 443 --http-port 443",
                "b.example --secret-file ***"
            ]
        );
        let mistakes = parse_lines("{}\nx\n{\"sni\":\"a\",\"addr\":\"b:1\"}").unwrap_err();
        assert_eq!(mistakes.len(), 2);
        assert!(
            mistakes[1].starts_with("line 2 is no entry: it is no JSON"),
            "{mistakes:?}"
        );
    }

    #[test]
    fn an_entry_needs_a_host_and_a_port() {
        assert_eq!(
            line(&entry("a", "10.0.0.5", Some(443), None).unwrap()),
            "a 10.0.0.5 --tls-port 443"
        );
        assert!(entry("a", "10.0.0.5", None, None).is_err());
        assert!(entry("a", "unix:/x", Some(443), None).is_err());
    }
}
