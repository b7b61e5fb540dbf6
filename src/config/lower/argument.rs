//! The rules for the arguments of a command.

use std::ops::RangeInclusive;

use super::pattern::pattern;
use super::{KeyRef, Mistakes};
use crate::config::quote::Quoted;
use crate::config::spec::command::ArgumentSpec;
use crate::doors::command::options::Argument;

/// Lowers the rule for the argument at one position. Adds a mistake and returns `None` if it cannot be read.
pub(super) fn argument(mistakes: &mut Mistakes, origin: KeyRef, spec: &ArgumentSpec) -> Option<Argument> {
    match spec {
        ArgumentSpec::Words(list) => words(mistakes, origin, list),
        ArgumentSpec::Text(text) if text.starts_with('^') => pattern(mistakes, origin, text).map(Argument::Matching),
        ArgumentSpec::Text(text) if text == "any" => Some(Argument::Any),
        ArgumentSpec::Text(text) => match integer(text) {
            Some(Ok(range)) => Some(Argument::Integer(range)),
            Some(Err(what)) => {
                let text = format!("{} {what}", Quoted(text));
                mistakes.add(origin, text, "write the smallest and the largest, such as int 1..100");
                None
            }
            None => {
                let what = format!("{} does not say what an argument may be", Quoted(text));
                let remedy = "write any, int 1..100, an expression that begins with ^, or a list of words";
                mistakes.add(origin, what, remedy);
                None
            }
        },
    }
}

fn words(mistakes: &mut Mistakes, origin: KeyRef, words: &[String]) -> Option<Argument> {
    if words.is_empty() {
        let remedy = "write the words that it may be, or any";
        mistakes.add(origin, "no word is in the list", remedy);
        return None;
    }
    if let Some(word) = words.iter().find(|word| ends_a_message(word)) {
        let text = format!("nobody can send {}: a CR, LF or NUL ends an argument", Quoted(word));
        mistakes.add(origin, text, "leave it out");
        return None;
    }
    Some(Argument::OneOf(words.to_vec()))
}

/// Returns true if a client that sent this text would end its message early.
pub(super) fn ends_a_message(text: &str) -> bool {
    text.contains(['\r', '\n', '\0'])
}

/// Parses `int`, or a range such as `int 1..100`. Returns `None` for a text of another kind, and the mistake for a
/// wrong range.
fn integer(text: &str) -> Option<Result<RangeInclusive<i64>, &'static str>> {
    let rest = text.strip_prefix("int")?;
    if rest.is_empty() {
        return Some(Ok(i64::MIN..=i64::MAX));
    }
    let range = rest.strip_prefix(char::is_whitespace)?;
    let Some((smallest, largest)) = range.split_once("..") else {
        return Some(Err("has no range"));
    };
    let (Ok(smallest), Ok(largest)) = (smallest.trim().parse(), largest.trim().parse()) else {
        return Some(Err("is not a range of whole numbers"));
    };
    if smallest > largest {
        return Some(Err("is an empty range"));
    }
    Some(Ok(smallest..=largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(spec: &ArgumentSpec) -> Result<Argument, String> {
        let mut mistakes = Mistakes::default();
        let argument = argument(&mut mistakes, KeyRef::element("args", 0), spec);
        let all = mistakes.into_result(argument);
        all.map(Option::unwrap).map_err(|all| {
            assert_eq!(all.len(), 1);
            all[0].to_string()
        })
    }

    fn text(text: &str) -> Result<Argument, String> {
        lower(&text.into())
    }

    fn words(words: &[&str]) -> Result<Argument, String> {
        lower(&ArgumentSpec::Words(words.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn each_form_is_accepted() {
        assert_eq!(text("any"), Ok(Argument::Any));
        assert_eq!(text("int"), Ok(Argument::Integer(i64::MIN..=i64::MAX)));
        for written in ["int 1..100", "int  1 .. 100", "int\t1..100"] {
            assert_eq!(text(written), Ok(Argument::Integer(1..=100)), "{written}");
        }
        assert_eq!(text("int -5..-5"), Ok(Argument::Integer(-5..=-5)));
        let Ok(Argument::Matching(pattern)) = text("^[a-z]+$") else {
            panic!("it is an expression")
        };
        assert_eq!(pattern.as_str(), "^[a-z]+$");
        let both = ["start", "stop"].map(str::to_owned).to_vec();
        assert_eq!(words(&["start", "stop"]), Ok(Argument::OneOf(both)));
    }

    #[test]
    fn an_unclear_argument_is_refused_with_a_remedy() {
        for (written, said) in [
            ("", "`` does not say what an argument may be; write any, int 1..100, "),
            ("start", "`start` does not say what an argument may be; write any, "),
            ("Any", "`Any` does not say"),
            ("[a-z]+", "`[a-z]+` does not say"),
            ("integer", "`integer` does not say"),
            ("int1..5", "`int1..5` does not say"),
            (
                "int 5",
                "`int 5` has no range; write the smallest and the largest, such as int 1..100",
            ),
            ("int 1..", "`int 1..` is not a range of whole numbers; write "),
            ("int 1...5", "`int 1...5` is not a range of whole numbers; write "),
            ("int 5..1", "`int 5..1` is an empty range; write "),
            (
                "^(",
                "`^(` is not a regular expression at character 2: unclosed group; mend it there",
            ),
        ] {
            let told = text(written).unwrap_err();
            assert!(told.starts_with(&format!("args: {said}")), "{told}");
        }
        assert_eq!(
            words(&[]),
            Err("args: no word is in the list; write the words that it may be, or any".to_owned())
        );
        let told = words(&["a", "b\n"]).unwrap_err();
        assert_eq!(
            told,
            "args: nobody can send `b\\n`: a CR, LF or NUL ends an argument; leave it out"
        );
    }
}
