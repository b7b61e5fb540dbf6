//! The list of names of which a client's certificate must have one.

use std::fmt;

use glob::{MatchOptions, Pattern};

use super::names::Names;

/// The largest number of names that a message repeats, and the largest number of characters of each.
const NAMES: usize = 3;
const CHARACTERS: usize = 80;

/// Patterns of names. `*` matches any characters, dots and slashes among them, `?` one, `[a-z]` one of these. An empty
/// list permits every name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    patterns: Vec<Pattern>,
}

/// The reason why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Subjects {
    /// Adds a pattern.
    ///
    /// # Errors
    /// It is empty, or malformed.
    pub fn add(&mut self, text: &str) -> Result<(), Malformed> {
        if text.is_empty() {
            return Err(Malformed("it is empty"));
        }
        let pattern = Pattern::new(text).map_err(|error| Malformed(error.msg))?;
        self.patterns.push(pattern);
        Ok(())
    }

    /// Returns true if one of the names is on the list: a common name, a host, a URI or an address of e-mail. Upper and
    /// lower case are the same in the names of hosts alone. A `*` in a name stands for itself.
    #[must_use]
    pub fn permit(&self, names: &Names) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, names))
    }
}

fn matches(pattern: &Pattern, names: &Names) -> bool {
    let options = |case_sensitive| MatchOptions {
        case_sensitive,
        require_literal_separator: false,
        require_literal_leading_dot: false,
    };
    let mut others = names.common_names.iter().chain(&names.uris).chain(&names.emails);
    let mut hosts = names.dns.iter();
    others.any(|name| pattern.matches_with(name, options(true)))
        || hosts.any(|name| pattern.matches_with(name, options(false)))
}

/// The first of the names that such a list is about, escaped, for a message.
#[must_use]
pub fn shown(names: &Names) -> String {
    let Names {
        common_names,
        dns,
        uris,
        emails,
        ..
    } = names;
    let mut all = common_names.iter().chain(dns).chain(uris).chain(emails);
    let first: Vec<String> = all.by_ref().take(NAMES).map(|name| shortened(name)).collect();
    match (&*first, all.next()) {
        ([], _) => "no name".to_owned(),
        (_, None) => first.join(", "),
        (_, Some(_)) => first.join(", ") + " and others",
    }
}

fn shortened(name: &str) -> String {
    let end = name.char_indices().nth(CHARACTERS).map(|(end, _)| end);
    let (start, dots) = match end {
        Some(end) => (name.get(..end).unwrap_or_default(), "..."),
        None => (name, ""),
    };
    format!("{}{dots}", start.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn names() -> Names {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Names {
            subject: "O=Farm,CN=Squid-1".to_owned(),
            common_names: own(&["Squid-1"]),
            dns: own(&["a.Cache.example", "*.b.example"]),
            addresses: Vec::new(),
            uris: own(&["spiffe://farm/squid/1"]),
            emails: own(&["root@a.example"]),
            not_after: UNIX_EPOCH,
        }
    }

    fn permits(patterns: &[&str], names: &Names) -> bool {
        let mut subjects = Subjects::default();
        patterns.iter().for_each(|pattern| subjects.add(pattern).unwrap());
        subjects.permit(names)
    }

    #[test]
    fn one_name_of_any_kind_that_matches_one_pattern_suffices() {
        for (pattern, is_permitted) in [
            ("Squid-1", true),
            ("Squid-?", true),
            ("squid-1", false),
            ("Squid-[2-9]", false),
            ("Squid", false),
            ("Squid-1 ", false),
            ("A.CACHE.example", true),
            ("*.example", true),
            ("*.cache.example", true),
            ("cache.example", false),
            ("x.b.example", false),
            ("spiffe://farm/*", true),
            ("SPIFFE://farm/*", false),
            ("spiffe://other/*", false),
            ("root@a.example", true),
            ("*@a.example", true),
            ("O=Farm*", false),
            ("Farm", false),
            ("*", true),
        ] {
            assert_eq!(permits(&[pattern], &names()), is_permitted, "{pattern}");
            assert_eq!(permits(&["other", pattern], &names()), is_permitted, "{pattern}");
        }
    }

    #[test]
    fn without_a_list_every_name_will_do_and_with_one_a_certificate_without_a_name_will_not() {
        let nameless = Names {
            common_names: Vec::new(),
            dns: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
            ..names()
        };
        assert!(permits(&[], &nameless));
        assert!(!permits(&["*"], &nameless));
        assert_eq!(shown(&nameless), "no name");
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        for text in ["", "a**", "[a"] {
            assert!(Subjects::default().add(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_shows_few_names_short_and_escaped() {
        assert_eq!(shown(&names()), "Squid-1, a.Cache.example, *.b.example and others");
        let odd = Names {
            common_names: vec!["a\nERROR fake".to_owned(), "ü".repeat(100)],
            ..names()
        };
        let expected = format!("a\\nERROR fake, {}..., a.Cache.example and others", "ü".repeat(80));
        assert_eq!(shown(&odd), expected);
    }
}
