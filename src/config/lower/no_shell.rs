//! The check for shell syntax in a command, which is run without a shell.
//!
//! An operator who writes `prog 2>/dev/null` or `LANG=C prog` has a shell in mind; without one the program gets that as
//! an argument, or is not found, and the log shows its complaint instead of the cause. So shell syntax is a mistake,
//! but only where a word stands bare, in a place and a form in which a shell would interpret it: in quotes, or after a
//! backslash, everything is an argument. Words that a program may well get bare (`*.txt`, `a|b`, `$1`, a `;` after
//! `-exec`) are accepted.

use super::setting;
use crate::config::quote::Quoted;

/// A character of a word, and true if it stood bare: without quotes, and without a backslash before it.
type Letter = (char, bool);

/// Returns the mistake in a command and its remedy; `None` if the command needs no shell.
pub(super) fn mistake(command: &str) -> Option<(String, String)> {
    let words = words(command);
    let found = words
        .iter()
        .enumerate()
        .find_map(|(place, word)| in_word(&words, place, word));
    let construct = found.or_else(|| backquotes(&words))?;
    let text = format!("there is no shell here that {}", construct.wanted());
    let in_a_shell = if command.contains('\'') {
        "have a shell run it: sh -c 'COMMAND'".to_owned()
    } else {
        format!("have a shell run it: sh -c '{command}'")
    };
    Some((text, construct.remedy(&in_a_shell)))
}

/// Syntax that only a shell understands, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Construct {
    /// Several commands: `|`, `&&`, `;` and the like.
    Several(String),
    /// A `&` after the command.
    Background,
    /// A redirection: `2>/dev/null`, `<`.
    Redirection(String),
    /// The output of a command: `$(date)`, `` `date` ``.
    Output(String),
    /// A variable: `$HOME`, `${HOME}`.
    Variable(String),
    /// A variable set in front of the command: `LANG=C`.
    Assignment(String, String),
    /// A home directory: `~/bin/prog`.
    Home(String),
}

impl Construct {
    /// Returns the end of the sentence "there is no shell here that".
    fn wanted(&self) -> String {
        match self {
            Self::Several(word) => format!("would understand {}", Quoted(word)),
            Self::Background => "would put it in the background by `&`".to_owned(),
            Self::Redirection(word) => format!("would redirect anything by {}", Quoted(word)),
            Self::Output(word) => format!("would run what {} begins", Quoted(word)),
            Self::Variable(word) => format!("would put the value of a variable in the place of {}", Quoted(word)),
            Self::Assignment(name, value) => {
                format!(
                    "would set a variable by {} in front",
                    Quoted(&format!("{name}={value}"))
                )
            }
            Self::Home(word) => format!("would know whose home {} is in", Quoted(word)),
        }
    }

    fn remedy(&self, in_a_shell: &str) -> String {
        let or_literal = |word: &str| format!("put {} in quotes if the program is to get it", Quoted(word));
        match self {
            Self::Several(word) => format!("{in_a_shell}, or {}", or_literal(word)),
            Self::Background => "leave it out: programs run side by side as it is".to_owned(),
            Self::Redirection(word) => format!(
                "leave it out (what is written to standard error goes to the log), or {in_a_shell}, or {}",
                or_literal(word)
            ),
            Self::Output(word) => format!("write what comes out of it, or {in_a_shell}, or {}", or_literal(word)),
            Self::Variable(word) => format!("write the value, or {in_a_shell}, or {}", or_literal(word)),
            Self::Assignment(name, value) => {
                let setting = setting("env", &format!("{name}={value}"));
                format!("set it by {setting}, and begin with the program")
            }
            Self::Home(word) => {
                let rest = word.split_once('/').map_or("", |(_, rest)| rest);
                format!("write the whole path, such as /home/NAME/{rest}")
            }
        }
    }
}

/// Returns the shell syntax in the word at `place`, if any.
fn in_word(words: &[Vec<Letter>], place: usize, word: &[Letter]) -> Option<Construct> {
    let text: String = word.iter().map(|(letter, _)| letter).collect();
    let before = words.get(..place).unwrap_or_default();
    let is_last = place + 1 == words.len();
    if is_bare(word) {
        match text.as_str() {
            "|" | "||" | "&&" | "|&" => return Some(Construct::Several(text)),
            ";" if !is_last && !before.iter().any(|word| begins_clause(word)) => return Some(Construct::Several(text)),
            "&" if is_last => return Some(Construct::Background),
            "&" => return Some(Construct::Several(text)),
            _ if place == 0 && !is_last && text.ends_with(';') => return Some(Construct::Several(text)),
            _ if place > 0 && is_glued(&text) => return Some(Construct::Several(text)),
            _ if is_redirection(&text) => return Some(Construct::Redirection(text)),
            _ => {}
        }
    }
    if place == 0
        && let Some(assignment) = assignment(word, &text)
    {
        return Some(assignment);
    }
    let is_home = text == "~" || text.starts_with("~/") || (place == 0 && text.starts_with('~') && text.contains('/'));
    if is_home && word.first().is_some_and(|(_, bare)| *bare) {
        return Some(Construct::Home(text));
    }
    dollar(word, text)
}

fn is_bare(word: &[Letter]) -> bool {
    word.iter().all(|(_, bare)| *bare)
}

/// Returns true if a `;` after this word may be an argument of the program, as with find(1).
fn begins_clause(word: &[Letter]) -> bool {
    let text: String = word.iter().map(|(letter, _)| letter).collect();
    matches!(text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir")
}

/// Returns true for an operator with the next command directly after it: `|tee`, `&&./next`; false for `|a|` and `|=`.
fn is_glued(text: &str) -> bool {
    let operators = ["||", "|&", "|", "&&"];
    let command = operators.iter().find_map(|operator| text.strip_prefix(operator));
    command.is_some_and(|command| {
        command.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.')) && !command.ends_with('|')
    })
}

/// Returns true for an operator with or without the number of a descriptor before it and a file after it: `>`, `2>&1`,
/// `>>log`, `<in`; false for `<html>` and `>=`.
fn is_redirection(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let operator = text.get(digits..).unwrap_or_default();
    let operator = operator.strip_prefix('&').filter(|_| digits == 0).unwrap_or(operator);
    digits <= 2
        && operator.starts_with(['<', '>'])
        && !operator.contains('=')
        && !matches!(operator, "<-" | "<>")
        && !(operator.starts_with('<') && operator.ends_with('>'))
}

/// Recognizes `NAME=value` as the first word, with a bare name.
fn assignment(word: &[Letter], text: &str) -> Option<Construct> {
    let (name, value) = text.split_once('=')?;
    let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let bare = word.iter().take(name.len() + 1).all(|(_, bare)| *bare);
    (is_name && bare).then(|| Construct::Assignment(name.to_owned(), value.to_owned()))
}

/// Variables of awk and perl, whose programs are written bare when they have no blanks: `$NF`, `$ENV{X}`.
const PROGRAM_VARIABLES: [&str; 7] = ["NF", "NR", "FNR", "ENV", "ARGV", "OFS", "RS"];

/// Recognizes a bare `$(`, `${NAME}`, or `$NAME` with a name in capitals, like the names in the environment. A `$` in a
/// regular expression is not followed by these; after a `{` it is a variable of the program that begins there,
/// `{print$OUT}`.
fn dollar(word: &[Letter], text: String) -> Option<Construct> {
    let before = word.iter().take_while(|letter| **letter != ('$', true));
    let is_in_program = before.clone().any(|letter| *letter == ('{', true));
    let mut rest = word
        .iter()
        .skip_while(|letter| **letter != ('$', true))
        .skip(1)
        .peekable();
    let (next, bare) = rest.next()?;
    if !bare {
        return None;
    }
    match next {
        '(' => Some(Construct::Output(text)),
        '{' => {
            let name: String = rest
                .map(|(letter, _)| letter)
                .take_while(|letter| **letter != '}')
                .collect();
            let closed = text.contains('}');
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            (closed && is_name).then_some(Construct::Variable(text))
        }
        'A'..='Z' | '_' if !is_in_program => {
            let is_name_char = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let name = rest.take_while(|(c, bare)| *bare && is_name_char(*c)).map(|(c, _)| *c);
            let name: String = std::iter::once(*next).chain(name).collect();
            let second = name.chars().nth(1).is_some_and(|c| !c.is_ascii_digit());
            (second && !PROGRAM_VARIABLES.contains(&name.as_str())).then_some(Construct::Variable(text))
        }
        _ => None,
    }
}

/// Recognizes two bare backquotes, with the text between them.
fn backquotes(words: &[Vec<Letter>]) -> Option<Construct> {
    let count_in = |word: &Vec<Letter>| word.iter().filter(|letter| **letter == ('`', true)).count();
    let first = words.iter().find(|word| count_in(word) > 0)?;
    let count: usize = words.iter().map(count_in).sum();
    let text = first.iter().map(|(letter, _)| letter).collect();
    (count > 1).then_some(Construct::Output(text))
}

/// Splits a command whose quotes are closed into words, by the rules of `shell_words::split`, but keeps which
/// characters were bare.
fn words(command: &str) -> Vec<Vec<Letter>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<Letter>> = None;
    let mut letters = command.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '\'' => {
                let word = word.get_or_insert_default();
                word.extend(
                    letters
                        .by_ref()
                        .take_while(|letter| *letter != '\'')
                        .map(|letter| (letter, false)),
                );
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    match letters.peek().copied() {
                        Some('\n') if letter == '\\' => drop(letters.next()),
                        Some(escaped @ ('$' | '`' | '"' | '\\')) if letter == '\\' => {
                            word.push((escaped, false));
                            letters.next();
                        }
                        _ => word.push((letter, false)),
                    }
                }
            }
            '\\' => match letters.next() {
                // A line continuation does not begin a word.
                Some('\n') => {}
                escaped => word.get_or_insert_default().push((escaped.unwrap_or('\\'), false)),
            },
            bare => word.get_or_insert_default().push((bare, true)),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shell_syntax_is_recognized() {
        for (command, what) in [
            ("cat | grep x", "would understand `|`"),
            ("cat || true", "would understand `||`"),
            ("cd /x && ./prog", "would understand `&&`"),
            ("cat |tee x", "would understand `|tee`"),
            ("cd /x &&./prog", "would understand `&&./prog`"),
            ("cat ; ls", "would understand `;`"),
            ("cat; ls", "would understand `cat;`"),
            ("a & b", "would understand `&`"),
            ("cat &", "would put it in the background by `&`"),
            ("cat 2>/dev/null", "would redirect anything by `2>/dev/null`"),
            ("cat 2> /dev/null", "would redirect anything by `2>`"),
            ("cat 2>&1", "would redirect anything by `2>&1`"),
            ("cat &>log", "would redirect anything by `&>log`"),
            ("cat >>log", "would redirect anything by `>>log`"),
            ("cat < in", "would redirect anything by `<`"),
            ("cat $(date)", "would run what `$(date)` begins"),
            ("cat `date +%s`", "would run what ``date` begins"),
            (
                "cat $HOME/x",
                "would put the value of a variable in the place of `$HOME/x`",
            ),
            (
                "cat $NFS_ROOT",
                "would put the value of a variable in the place of `$NFS_ROOT`",
            ),
            (
                "cat --in=${dir}/x",
                "would put the value of a variable in the place of `--in=${dir}/x`",
            ),
            ("LANG=C cat", "would set a variable by `LANG=C` in front"),
            ("LANG='de DE' cat", "would set a variable by `LANG=de DE` in front"),
            ("~/bin/prog -x", "would know whose home `~/bin/prog` is in"),
            ("~joe/bin/prog", "would know whose home `~joe/bin/prog` is in"),
            ("prog -c ~/conf", "would know whose home `~/conf` is in"),
        ] {
            let told = mistake(command).map(|(text, _)| text);
            assert_eq!(told, Some(format!("there is no shell here that {what}")), "{command}");
        }
    }

    #[test]
    fn arguments_that_only_resemble_shell_syntax_are_accepted() {
        for command in [
            "squidGuard -c /etc/squidguard/squidGuard.conf",
            "sh -c 'cat | grep x 2>/dev/null && echo $HOME'",
            "sh -c \"cat | grep x > $(date) `date`\"",
            "grep -E a|b ^/x$ foo|bar",
            "grep '|' \\| \"&&\" '2>' \\> '~/x' \\~/x '$HOME' \\$HOME",
            "awk {print $1} $_ $",
            "awk {print$NF;fflush()} $NR==1 $FNR==1{print}",
            "perl -pe $_=$ENV{X}.$_ {print$OUT}",
            "find . -name *.txt -exec cat {} ;",
            "prog a;b c;",
            "prog --filter=a=b x=y",
            "prog <html> >= <= -> => <- 5 <>",
            "prog |a| |= ||- &&& |1",
            "|x y",
            "./A=b prog",
            "'A=b' prog",
            "prog a&b http://x/?a=1&b=2",
            "prog ~ish file~ 'it''s'",
            "prog ` one",
            "prog x # a note | and more",
        ] {
            assert_eq!(mistake(command), None, "{command}");
        }
    }

    #[test]
    fn the_remedy_can_be_pasted() {
        let remedy = |command| mistake(command).unwrap().1;
        assert!(remedy("cat | grep x").starts_with("have a shell run it: sh -c 'cat | grep x', or put `|` in quotes"));
        assert!(remedy("grep 'x' | cat").starts_with("have a shell run it: sh -c 'COMMAND'"));
        assert_eq!(remedy("~/bin/x"), "write the whole path, such as /home/NAME/bin/x");
    }

    proptest! {
        /// The words checked for bare characters are exactly the words that the program would get.
        #[test]
        fn words_equal_the_result_of_the_splitter(command in "[ab |&;<>$`(){}~=#\\\\'\"\n\t]{0,24}") {
            if let Ok(split) = shell_words::split(&command) {
                let own: Vec<String> = words(&command)
                    .iter()
                    .map(|word| word.iter().map(|(letter, _)| letter).collect())
                    .collect();
                prop_assert_eq!(own, split);
            }
        }

        #[test]
        fn any_command_can_be_checked(command in any::<String>()) {
            let _ = mistake(&command);
        }
    }
}
