//! Plain words: bounds on comments in a private language, and names of methods that say the opposite of what they do.

use std::collections::BTreeMap;

use super::ratchet::{self, Allowed};
use super::source::{File, files_in, sources};

/// A comment is a sentence with a noun for its subject: it does not begin like a question.
const BEGINNINGS: [&str; 6] = ["What", "Who", "Whom", "How", "Whether", "Whoever"];

/// The most comment lines in a hundred that may begin so.
const BEGINNINGS_PER_HUNDRED: usize = 2;

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

/// The most of these in a thousand words of comments.
const RIDDLES_PER_THOUSAND: usize = 2;

/// Comment lines that begin like questions, in rooms above the bound.
const BEGINNINGS_ALLOWED: Allowed = &[("daemon", 12), ("doors", 272), ("tests/sim", 13)];

/// Riddles in rooms above the bound.
const RIDDLES_ALLOWED: Allowed = &[("doors", 165), ("tests/sim", 15)];

/// Methods that change something and are named like questions.
const QUESTIONS_THAT_CHANGE: Allowed = &[("doors", 3)];

/// Every room of `src`, and the folders beside it, with their files.
fn rooms() -> BTreeMap<String, Vec<File>> {
    let mut rooms: BTreeMap<String, Vec<File>> = BTreeMap::new();
    for mut file in files_in("src") {
        let room = file.room().to_owned();
        file.path = std::path::Path::new("src").join(&file.path);
        rooms.entry(room).or_default().push(file);
    }
    for folder in ["tests/it", "tests/sim", "tests/fuzz", "examples"] {
        let mut files = files_in(folder);
        for file in &mut files {
            file.path = std::path::Path::new(folder).join(&file.path);
        }
        rooms.insert(folder.to_owned(), files);
    }
    rooms
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
    let mut offences = BTreeMap::new();
    for (room, files) in rooms() {
        let lines: usize = files.iter().map(|file| file.comments().count()).sum();
        let mut places = Vec::new();
        for file in &files {
            let found = file.comments().filter(|(_, line)| begins_like_a_question(line));
            places.extend(found.map(|(number, line)| format!("{}: {line}", file.place(number))));
        }
        if places.len() * 100 >= lines * BEGINNINGS_PER_HUNDRED && !places.is_empty() {
            offences.insert(room, places);
        }
    }
    let rule = "a comment line begins with What, Who, Whom, How or Whether";
    ratchet::hold(rule, BEGINNINGS_ALLOWED, &offences);
}

#[test]
fn comments_name_what_they_speak_of() {
    assert_eq!(
        riddles_in("Nobody's; those that\u{2026} newanew"),
        ["nobody", "those that"]
    );
    let mut offences = BTreeMap::new();
    for (room, files) in rooms() {
        let (mut words, mut places) = (0, Vec::new());
        for file in &files {
            for (number, line) in file.comments() {
                words += line.split_whitespace().count();
                let place = |riddle| format!("{}: \"{riddle}\": {line}", file.place(number));
                places.extend(riddles_in(line).into_iter().map(place));
            }
        }
        if places.len() * 1000 >= words * RIDDLES_PER_THOUSAND && !places.is_empty() {
            offences.insert(room, places);
        }
    }
    ratchet::hold("a comment does not name what it speaks of", RIDDLES_ALLOWED, &offences);
}

/// The names of functions that change their first parameter, with the numbers of their lines.
fn changing_functions(file: &File) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = file.code().collect();
    let mut found = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        let Some((_, rest)) = line.split_once("fn ").filter(|(before, _)| is_head_of_function(before)) else {
            continue;
        };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let behind = lines.get(index + 1).map_or("", |(_, line)| line.trim());
        let is_split = rest.trim_end().ends_with('(');
        let parameters = if is_split {
            behind
        } else {
            rest.split_once('(').map_or("", |(_, rest)| rest)
        };
        let first = parameters.split(',').next().unwrap_or_default();
        if first.starts_with("&mut self") || first.contains(": &mut ") {
            found.push((*number, name));
        }
    }
    found
}

fn is_head_of_function(before: &str) -> bool {
    before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || word.ends_with(')') || ["const", "unsafe", "async"].contains(&word))
}

#[test]
fn a_function_that_changes_something_is_not_named_like_a_question() {
    let mut offences: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for (number, name) in changing_functions(&file) {
            let is_question = ["is", "are", "was", "has", "have", "can"]
                .iter()
                .any(|verb| name.starts_with(&format!("{verb}_")) || name.contains(&format!("_{verb}_")));
            if is_question {
                let place = format!("src/{}: {name}(&mut ...)", file.place(number));
                offences.entry(file.room().to_owned()).or_default().push(place);
            }
        }
    }
    ratchet::hold(
        "a method that changes something is named like a question",
        QUESTIONS_THAT_CHANGE,
        &offences,
    );
}
