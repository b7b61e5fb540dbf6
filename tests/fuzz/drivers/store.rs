//! The store of a route door.

use iotcpd::internals::store::cache;
use iotcpd::internals::store::entry::{Entry, Target};
use iotcpd::internals::store::key::{self, Key};

/// `Key::parse`, `Entry::read` and `cache::parse`, of which the first line of the input is the key and the rest the
/// value: an entry has a name and an end, comes back from the forms that are written, and is the same in the file; a
/// fault is one line.
pub fn fuzz_store_entry(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (key, value) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let key = Key::parse(key);
    if let Some(key) = &key {
        assert!(!key.label().is_empty() && key.as_bytes().ends_with(key.label()));
    }
    let label = key.as_ref().map_or(key::PATTERN.as_bytes(), Key::label);
    match Entry::read(label, value) {
        Ok(entry) => {
            assert!(!entry.name.is_empty() && entry.name.bytes().all(|byte| byte.is_ascii_graphic()));
            match &entry.target {
                Target::Server {
                    host,
                    tls_port,
                    http_port,
                } => {
                    assert!(!host.is_empty() && tls_port.or(*http_port).is_some());
                    assert!(*tls_port != Some(0) && *http_port != Some(0));
                    assert!(!host.starts_with('/') && !host.starts_with("unix:"));
                }
                Target::Tunnel(secret) => assert!(!secret.reveal().is_empty()),
            }
            assert_eq!(
                Entry::read(entry.name.as_bytes(), entry.stored(1).as_bytes()).as_ref(),
                Ok(&entry)
            );
            let file = format!("{{\"iotcpd-table\":1,\"names\":1}}\n{}\n", entry.line());
            let cached = cache::parse(file.as_bytes());
            assert_eq!((cached.entries, cached.fault), (vec![entry], None));
        }
        Err(fault) => assert!(!fault.to_string().contains(char::is_control), "{fault}"),
    }
    let cached = cache::parse(input);
    assert!(cached.fault.is_none_or(|fault| !fault.contains(char::is_control)));
}
