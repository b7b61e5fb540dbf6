//! The effect of a failure on the Squid behind a request: the setting of a pool and of `ask`.
//!
//! Squid reads the same answer differently in each place where it has a helper (tried with 5.7):
//!
//! | answer | `url_rewrite_program` | `external_acl_type` | `auth_param basic` |
//! | --- | --- | --- | --- |
//! | `ERR` | the URL passes | the ACL does not match | wrong password |
//! | `BH` | asked twice more, then it passes | asked twice more, then the request is denied, whatever the rule | asked twice more, then denied |
//! | `OK ...` | rewritten or redirected | the ACL matches | **let in** |
//! | `302:URL` | redirected | denied, as after BH | denied |
//!
//! So the older form of a redirection is the one answer that denies everywhere: where Squid does not know it, it is an
//! invalid answer, and an invalid answer denies.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Deserialize;

/// The page to which a denied request is redirected by default. No host name ends in `.invalid` (RFC 6761), so nothing
/// is ever loaded from there, and a browser shows the cause in its address line.
const NOWHERE: &str = "http://url-filter-unavailable.invalid/";
/// The longest address of a page for denied requests, in bytes.
pub const LONGEST_URL: usize = 2048;

/// The effect of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fail {
    /// The URL passes.
    Open,
    /// The URL is denied.
    Closed,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for Fail {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Open, Self::Closed]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }))
    }
}

impl Fail {
    /// Returns the answer in case of a failure, one line without its end. `url`, which must be [valid](url_mistake), is the
    /// page for a denied request.
    pub fn answer(self, url: Option<&str>) -> Vec<u8> {
        match self {
            Fail::Open => b"ERR".to_vec(),
            Fail::Closed => format!("302:{}", url.unwrap_or(NOWHERE)).into_bytes(),
        }
    }
}

/// Returns the reason why browsers cannot be redirected to an address, and the remedy; `None` if they can.
pub fn url_mistake(url: &str) -> Option<(&'static str, &'static str)> {
    const REMEDY: &str = "write for example http://intranet.example/denied.html";
    let is_web = ["http://", "https://"]
        .iter()
        .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if !is_web {
        return Some(("it does not begin with http:// or https:// and a host", REMEDY));
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(("it holds a blank or a byte that URLs write as %XX", REMEDY));
    }
    (url.len() > LONGEST_URL).then_some(("it is too long", "write at most 2048 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_one_line_that_squid_understands() {
        assert_eq!(Fail::Open.answer(None), b"ERR");
        assert_eq!(Fail::Closed.answer(None), b"302:http://url-filter-unavailable.invalid/");
        assert_eq!(Fail::Closed.answer(Some("https://a/b?c")), b"302:https://a/b?c");
        assert_eq!(url_mistake(NOWHERE), None);
    }

    #[test]
    fn a_page_for_denied_requests_has_a_web_address() {
        for url in ["http://a", "https://a.example:8080/denied?x=%20"] {
            assert_eq!(url_mistake(url), None, "{url}");
        }
        let long = format!("http://{}", "a".repeat(LONGEST_URL));
        for url in [
            "",
            "a",
            "http://",
            "ftp://a/",
            "http://a/b c",
            "http://a/\n",
            "http://\u{e9}/",
            &long,
        ] {
            assert!(url_mistake(url).is_some(), "{url}");
        }
    }
}
