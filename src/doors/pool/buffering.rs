//! Remedies for a worker that keeps its replies in a buffer, as many libraries do when the output is no terminal.
//!
//! stdbuf(1) reaches only programs that write by the C library and are linked with it dynamically. Python, Perl and
//! Java have buffers of their own. So the remedy depends on the program, which is recognized by its name, behind the
//! shell or the wrapper that starts it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Programs that start another one: the first of their arguments that is no option, assignment or number.
const WRAPPERS: [&str; 9] = [
    "env", "nice", "ionice", "chrt", "timeout", "setsid", "exec", "setpriv", "unshare",
];
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "ksh", "zsh"];

/// The remedies for known programs: the names of a program without its version, the end of the names of its scripts,
/// and the remedy.
const REMEDIES: [(&[&str], &str, &str); 9] = [
    (&["python", "pypy"], ".py", "start it by `python3 -u`"),
    (&["perl"], ".pl", "let it set `$| = 1` before all else"),
    (&["ruby"], ".rb", "let it set `$stdout.sync = true` before all else"),
    (
        &["php"],
        ".php",
        "start it by `php -d output_buffering=0 -d implicit_flush=1`",
    ),
    (&["mawk"], "", "start it by `mawk -W interactive`"),
    (
        &["awk", "gawk", "nawk"],
        ".awk",
        "let it call `fflush()` behind each reply (mawk: `-W interactive`)",
    ),
    (&["sed", "gsed"], ".sed", "start it by `sed -u`"),
    (&["grep", "egrep", "fgrep"], "", "start it by `grep --line-buffered`"),
    (&["jq"], "", "start it by `jq --unbuffered`"),
];

/// Returns the end of the log line about a worker that got a request and has never written a byte. `command` is the
/// worker's command.
pub(super) fn hint<'w>(command: impl Iterator<Item = &'w OsStr>) -> String {
    let words: Vec<String> = command
        .map(|word| String::from_utf8_lossy(word.as_bytes()).into_owned())
        .collect();
    let if_so = "; it has written nothing since its start: if it keeps its replies in a buffer,";
    let others = "`python3 -u`, `$| = 1` in Perl, `stdbuf -oL` for C programs only";
    match remedy(&words) {
        Some(remedy) => format!("{if_so} {remedy}, or give it a terminal by --pty (what helps others: {others})"),
        None => format!("{if_so} give it a terminal by --pty, or what makes it write each at once ({others})"),
    }
}

fn remedy(words: &[String]) -> Option<&'static str> {
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let name = name(word);
        if WRAPPERS.contains(&name) || is_argument(word) {
            continue;
        }
        if SHELLS.contains(&name) {
            let script: Vec<String> = words
                .find(|word| !word.starts_with('-'))
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            return if script.is_empty() { None } else { remedy(&script) };
        }
        let bare = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
        let is_known =
            |(names, end, _): &&(&[&str], &str, _)| names.contains(&bare) || (!end.is_empty() && name.ends_with(end));
        return REMEDIES.iter().find(is_known).map(|(_, _, remedy)| *remedy);
    }
    None
}

/// Returns true for an argument of a wrapper.
fn is_argument(word: &str) -> bool {
    word.starts_with('-') || word.contains('=') || word.starts_with(|first: char| first.is_ascii_digit())
}

fn name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_for(command: &str) -> String {
        let words = shell_words::split(command).unwrap();
        hint(words.iter().map(OsStr::new))
    }

    #[test]
    fn the_remedy_for_the_program_stands_first() {
        for (command, remedy) in [
            ("python3 check.py", "`python3 -u`"),
            ("/usr/bin/python3.11 -O check.py", "`python3 -u`"),
            ("/opt/check.py --fast", "`python3 -u`"),
            ("env LANG=C nice -n 5 perl check.pl", "`$| = 1`"),
            ("sh -c 'exec ruby check.rb'", "`$stdout.sync = true`"),
            ("bash -e -c 'LANG=C mawk -f x'", "`mawk -W interactive`"),
            ("timeout 5 gawk 1", "`fflush()`"),
            ("awk 1", "`fflush()`"),
            ("sed s/^/OK/", "`sed -u`"),
            ("grep -E x", "`grep --line-buffered`"),
            ("php8.2 check.php", "`php -d output_buffering=0"),
            ("jq .", "`jq --unbuffered`"),
        ] {
            let hint = hint_for(command);
            let (first, _) = hint.split_once("(what helps others").unwrap();
            assert!(first.contains(remedy) && first.contains("--pty"), "{command}: {hint}");
        }
    }

    #[test]
    fn the_hint_for_an_unknown_program_has_all_remedies() {
        for command in [
            "tr a-z A-Z",
            "/usr/bin/squidGuard -c /etc/x.conf",
            "sh",
            "sh -c ''",
            "env",
            "pythonic",
        ] {
            let hint = hint_for(command);
            for remedy in [
                "--pty",
                "`python3 -u`",
                "`$| = 1` in Perl",
                "`stdbuf -oL` for C programs only",
            ] {
                assert!(hint.contains(remedy) && !hint.contains("others"), "{command}: {hint}");
            }
        }
    }
}
