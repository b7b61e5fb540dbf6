//! Plain words: no comments in a private language, and no names of methods that say the opposite of their effect.

use super::source::{File, files_in, report, sources};

/// A comment is a sentence with a noun for its subject: it does not begin like a question.
const BEGINNINGS: [&str; 6] = ["What", "Who", "Whom", "How", "Whether", "Whoever"];

/// Words that hide the subject of a sentence: a client, a worker and an operator have names.
const RIDDLES: [&str; 12] = [
    "nobody",
    "somebody",
    "whoever",
    "whom",
    "those that",
    "those who",
    "so many",
    "anew",
    "let go",
    "lets go",
    "everybody",
    "anybody",
];

/// The Rust files of the repository.
fn all_files() -> Vec<File> {
    let mut all = Vec::new();
    for folder in ["src", "tests", "examples"] {
        for mut file in files_in(folder) {
            file.path = std::path::Path::new(folder).join(&file.path);
            all.push(file);
        }
    }
    all
}

/// The riddles in a line, in the order of [`RIDDLES`].
fn riddles_in(line: &str) -> Vec<&'static str> {
    let line = line.to_lowercase();
    let is_part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for riddle in RIDDLES {
        let whole_words = line.match_indices(riddle).filter(|(at, _)| {
            !line[..*at].ends_with(is_part_of_word) && !line[at + riddle.len()..].starts_with(is_part_of_word)
        });
        found.extend(whole_words.map(|_| riddle));
    }
    found
}

fn begins_like_a_question(line: &str) -> bool {
    let first = line.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    first.is_some_and(|word| BEGINNINGS.contains(&word))
}

#[test]
fn comments_are_sentences_with_a_noun_for_their_subject() {
    assert!(begins_like_a_question("How long a client may wait.") && !begins_like_a_question("However long."));
    let mut offences = Vec::new();
    for file in all_files() {
        let found = file.comments().filter(|(_, line)| begins_like_a_question(line));
        offences.extend(found.map(|(number, line)| format!("{}: begins like a question: {line}", file.place(number))));
    }
    report(&offences);
}

#[test]
fn comments_name_what_they_speak_of() {
    assert_eq!(
        riddles_in("Nobody's; those that\u{2026} newanew"),
        ["nobody", "those that"]
    );
    let mut offences = Vec::new();
    for file in all_files() {
        for (number, line) in file.comments() {
            let place = |riddle| format!("{}: names no subject, but \"{riddle}\": {line}", file.place(number));
            offences.extend(riddles_in(line).into_iter().map(place));
        }
    }
    report(&offences);
}

/// The names of functions that change their first parameter, with the numbers of their lines.
fn changing_functions(file: &File) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = file.code().collect();
    let mut found = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        let Some((name, rest)) = head_of_function(line) else {
            continue;
        };
        let behind = lines.get(index + 1).map_or("", |(_, line)| line.trim());
        let is_split = rest.trim_end().ends_with('(');
        let parameters = if is_split {
            behind
        } else {
            rest.split_once('(').map_or("", |(_, rest)| rest)
        };
        let first = parameters.split(',').next().unwrap_or_default();
        if first.starts_with("&mut self") || first.contains(": &mut ") {
            found.push((*number, name.to_owned()));
        }
    }
    found
}

/// Returns the name of the function whose head the line is, and the rest of the line.
fn head_of_function(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once("fn ")?;
    let is_qualifier =
        |word: &str| word.starts_with("pub") || word.ends_with(')') || ["const", "unsafe", "async"].contains(&word);
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    before.split_whitespace().all(is_qualifier).then(|| rest.split_at(end))
}

#[test]
fn names_of_functions_and_tests_hold_no_riddle() {
    let mut offences = Vec::new();
    for file in all_files() {
        for (index, line) in file.text.lines().enumerate() {
            if let Some((name, _)) = head_of_function(line) {
                let place = |riddle| format!("{}: {name} holds \"{riddle}\"", file.place(index + 1));
                offences.extend(riddles_in(&name.replace('_', " ")).into_iter().map(place));
            }
        }
    }
    report(&offences);
}

#[test]
fn a_function_that_changes_something_is_not_named_like_a_question() {
    let mut offences = Vec::new();
    for file in sources() {
        for (number, name) in changing_functions(&file) {
            let is_question = ["is", "are", "was", "has", "have", "can"]
                .iter()
                .any(|verb| name.starts_with(&format!("{verb}_")) || name.contains(&format!("_{verb}_")));
            if is_question {
                offences.push(format!(
                    "src/{}: {name}(&mut ...) is named like a question",
                    file.place(number)
                ));
            }
        }
    }
    report(&offences);
}
