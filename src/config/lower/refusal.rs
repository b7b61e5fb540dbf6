//! The answer to a client whose request has failed: `error-reply`, or `fail` for Squid.

use super::framing::error_reply;
use super::{KEY, KeyRef, Mistakes};
use crate::config::spec::fail::{self, Fail};
use crate::config::spec::pool::PoolSpec;
use crate::doors::pool::options::Framing;

/// In a URL rewriter it is also the answer for "leave this URL alone".
const DEFAULT_ERROR_REPLY: &[u8] = b"ERR\n";
const ERROR_REPLY_BYTES: usize = 64 << 10;

/// Returns the refusal, encoded for the client.
pub(super) fn refusal(mistakes: &mut Mistakes, spec: &PoolSpec, framing: Framing) -> Vec<u8> {
    let text = spec.error_reply.as_ref().map(|reply| reply.0.clone());
    if let Some(text) = text.as_ref().filter(|text| text.len() > ERROR_REPLY_BYTES) {
        let wrong = format!("it is {} bytes long", text.len());
        let remedy = format!("write at most {ERROR_REPLY_BYTES} bytes");
        mistakes.add(KeyRef::key("error-reply"), wrong, remedy);
    }
    if spec.fail.is_some() && text.is_some() {
        let wrong = format!("{KEY}fail and {KEY}error-reply both say what a failed request is answered");
        mistakes.add(KeyRef::key("fail"), wrong, "leave one of the two out");
    }
    let fail = in_one_word(mistakes, spec).map(|line| [line.as_slice(), b"\n"].concat());
    let text = text.or(fail).unwrap_or_else(|| DEFAULT_ERROR_REPLY.to_vec());
    error_reply(mistakes, text, framing)
}

/// Returns the answer that `fail` stands for, without a line end.
fn in_one_word(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<Vec<u8>> {
    let url = spec.fail_url.as_deref();
    if url.is_some() && spec.fail != Some(Fail::Closed) {
        let wrong = format!("it is where denied requests are sent, and nothing is denied without {KEY}fail closed");
        mistakes.add(
            KeyRef::key("fail-url"),
            wrong,
            format!("give {KEY}fail closed as well, or leave it out"),
        );
    }
    if let Some((wrong, remedy)) = url.and_then(fail::url_mistake) {
        mistakes.add(KeyRef::key("fail-url"), wrong, remedy);
    }
    spec.fail.map(|fail| fail.answer(url))
}

#[cfg(test)]
mod tests {
    use super::super::pool;
    use super::*;
    use crate::config::units::Escaped;

    fn told(fail: Option<Fail>, url: Option<&str>, error_reply: Option<&str>) -> Result<String, String> {
        let spec = PoolSpec {
            fail,
            fail_url: url.map(Into::into),
            error_reply: error_reply.map(|text| Escaped(text.into())),
            ..PoolSpec::default()
        };
        match pool("p", &spec) {
            Ok(lowered) => Ok(String::from_utf8(lowered.options.error_reply).unwrap()),
            Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn fail_open_and_closed_choose_the_answer() {
        assert_eq!(told(None, None, None).unwrap(), "ERR\n");
        assert_eq!(told(Some(Fail::Open), None, None).unwrap(), "ERR\n");
        let closed = told(Some(Fail::Closed), None, None).unwrap();
        assert_eq!(closed, "302:http://url-filter-unavailable.invalid/\n");
        assert_eq!(
            told(Some(Fail::Closed), Some("http://a/"), None).unwrap(),
            "302:http://a/\n"
        );
    }

    #[test]
    fn fail_and_error_reply_exclude_each_other() {
        for error_reply in ["ERR\n", ""] {
            let wrong = told(Some(Fail::Closed), None, Some(error_reply)).unwrap_err();
            assert!(wrong.contains("error-reply both say"), "{wrong}");
        }
        for fail in [None, Some(Fail::Open)] {
            let wrong = told(fail, Some("http://a/"), None).unwrap_err();
            assert!(wrong.contains("nothing is denied without"), "{wrong}");
        }
        let wrong = told(Some(Fail::Closed), Some("a b"), None).unwrap_err();
        assert!(wrong.contains("does not begin with http://"), "{wrong}");
    }
}
