//! The keys of services in a store: `/tcprouter/service/NAME`.
//!
//! Programs of several versions write them with no, one or two slashes at the beginning, and with `service` or
//! `services`. All of these are read; [`written`] is the one that this program writes.

use std::fmt;

/// The longest key in bytes that is taken for a service.
pub const LONGEST: usize = 1_024;

/// The pattern of SCAN for all keys of services. It matches other keys as well, which [`Key::parse`] does not take.
pub const PATTERN: &str = "*tcprouter/service*";

const FOLDERS: [&[u8]; 2] = [b"tcprouter/service/", b"tcprouter/services/"];

/// The key of a service.
///
/// Keys are ordered by precedence, for one service may be written under several of them: the key in the form that this
/// program writes is the first, and the others follow in the order of their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    is_in_another_form: bool,
    bytes: Box<[u8]>,
    /// The place of the label in `bytes`.
    label: usize,
}

impl Key {
    /// Returns the key that these bytes spell. `None` if they are not the key of a service.
    pub fn parse(bytes: &[u8]) -> Option<Key> {
        let slashes = bytes.iter().take_while(|byte| **byte == b'/').count();
        let path = bytes.get(slashes..)?;
        let folder = FOLDERS.iter().find(|folder| path.starts_with(folder))?;
        let label = slashes + folder.len();
        let is_key = slashes <= 2 && bytes.len() <= LONGEST && !bytes.get(label..)?.is_empty();
        is_key.then(|| Key {
            is_in_another_form: slashes != 1 || *folder != FOLDERS[0],
            bytes: bytes.into(),
            label,
        })
    }

    /// Returns the key that a keyspace notification is about, by the name of its channel. `None` if the channel is
    /// another one, or the key is not that of a service.
    pub fn of_channel(channel: &[u8]) -> Option<Key> {
        let rest = channel.strip_prefix(b"__keyspace@")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        Key::parse(rest.get(digits..)?.strip_prefix(b"__:")?)
    }

    /// The key as it is in the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The last part of the key: the name of the service, unless its value has another one.
    pub fn label(&self) -> &[u8] {
        self.bytes.get(self.label..).unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Returns the key under which this program writes the service with this name.
pub fn written(name: &str) -> String {
    format!("/tcprouter/service/{name}")
}

/// Returns the pattern of PSUBSCRIBE for the channels of all keys of services in a database.
pub fn channels(database: u32) -> String {
    format!("__keyspace@{database}__:{PATTERN}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(key: &str) -> Option<String> {
        Key::parse(key.as_bytes()).map(|key| key.label().escape_ascii().to_string())
    }

    #[test]
    fn the_key_of_a_service_has_up_to_two_slashes_and_either_folder() {
        for slashes in ["", "/", "//"] {
            for folder in ["service", "services"] {
                let key = format!("{slashes}tcprouter/{folder}/www.example.org");
                assert_eq!(label(&key).as_deref(), Some("www.example.org"), "{key}");
            }
        }
        assert_eq!(
            label("/tcprouter/service/*.example.org").as_deref(),
            Some("*.example.org")
        );
        assert_eq!(label("/tcprouter/service/services/").as_deref(), Some("services/"));
    }

    #[test]
    fn other_keys_are_not_taken() {
        for key in [
            "",
            "/",
            "///tcprouter/service/a",
            "/tcprouter/service/",
            "/tcprouter/services/",
            "/tcprouter/service",
            "/tcprouter/servicex/a",
            "/Tcprouter/service/a",
            "/x/tcprouter/service/a",
            " tcprouter/service/a",
            "/tcprouter//service/a",
        ] {
            assert_eq!(label(key), None, "{key}");
        }
        let prefix = "/tcprouter/service/";
        let longest = format!("{prefix}{}", "a".repeat(LONGEST - prefix.len()));
        assert!(label(&longest).is_some() && label(&format!("{longest}a")).is_none());
    }

    #[test]
    fn the_key_that_this_program_writes_goes_before_all_others() {
        let mut keys: Vec<Key> = [
            "tcprouter/service/a",
            "//tcprouter/service/a",
            "/tcprouter/services/a",
            "/tcprouter/service/a",
        ]
        .iter()
        .map(|key| Key::parse(key.as_bytes()).unwrap())
        .collect();
        keys.sort();
        assert_eq!(keys[0].to_string(), written("a"));
        keys.reverse();
        keys.sort();
        assert_eq!(keys[0].to_string(), written("a"));
    }

    #[test]
    fn a_notification_names_its_key() {
        let key = |channel: &str| Key::of_channel(channel.as_bytes()).map(|key| key.to_string());
        assert_eq!(
            key("__keyspace@12__:/tcprouter/service/a__:b").as_deref(),
            Some("/tcprouter/service/a__:b")
        );
        assert_eq!(key("__keyspace@0__:other"), None);
        assert_eq!(key("__keyevent@0__:del"), None);
        assert_eq!(key("/tcprouter/service/a"), None);
        assert_eq!(channels(3), "__keyspace@3__:*tcprouter/service*");
    }

    proptest! {
        #[test]
        fn a_key_that_is_written_is_read(name in "[!-~]{1,255}", rest in any::<Vec<u8>>()) {
            let text = written(&name);
            let key = Key::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(key.label(), name.as_bytes());
            prop_assert_eq!(key.as_bytes(), text.as_bytes());
            let channel = channels(0).replace(PATTERN, &text);
            prop_assert_eq!(Key::of_channel(channel.as_bytes()), Some(key));
            if let Some(key) = Key::parse(&rest) {
                prop_assert_eq!(key.as_bytes(), &*rest);
            }
        }
    }
}
