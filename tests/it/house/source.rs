//! The Rust files of the repository as the rules of the house read them: code without comments and without tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub(super) struct File {
    /// Relative to the folder that was asked for.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl File {
    /// The first part of the path: `net` for `net/addr.rs`, `error` for `error.rs`.
    pub(super) fn room(&self) -> &str {
        let first = self.path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs")
    }

    pub(super) fn is_in_a_core(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "core")
    }

    /// `PATH:NUMBER`, the beginning of a line that reports an offence.
    pub(super) fn place(&self, number: usize) -> String {
        format!("{}:{number}", self.path.display())
    }

    /// The lines that are not part of a test, without their comments, with their numbers.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines_without_tests()
            .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    /// The text of each comment line, tests included, with its number. Left out are the words of `--help`, which are
    /// written for its readers: doc comments on an argument or a command of clap.
    pub(super) fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let mut is_help = false;
        let mut rest = self.text.lines().enumerate();
        std::iter::from_fn(move || {
            loop {
                let (index, line) = rest.next()?;
                if !is_comment(&line) {
                    is_help = false;
                    continue;
                }
                let mut behind = rest.clone().map(|(_, line)| line).skip_while(is_comment);
                is_help |= behind.next().is_some_and(|line| {
                    ["#[arg(", "#[command("]
                        .iter()
                        .any(|attribute| line.trim_start().starts_with(attribute))
                });
                if !is_help {
                    return Some((index + 1, line.trim_start().trim_start_matches(['/', '!']).trim()));
                }
            }
        })
    }

    /// All lines except for items under `#[cfg(test)]`, with their numbers.
    pub(super) fn lines_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut item = TestItem::None;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let keep = item.passes(line);
            keep.then_some((index + 1, line))
        })
    }
}

/// The position of the reader relative to an item under `#[cfg(test)]`.
enum TestItem {
    None,
    /// Behind the attribute, whose indentation is given, before the end of the item's first line.
    Head(usize),
    /// Inside the item, which ends with this line.
    Body(String),
}

impl TestItem {
    /// Moves on by a line; returns true if the line is not part of an item for tests.
    fn passes(&mut self, line: &str) -> bool {
        let trimmed = line.trim();
        match self {
            TestItem::None if trimmed == "#[cfg(test)]" => {
                *self = TestItem::Head(line.len() - line.trim_start().len());
                false
            }
            TestItem::None => true,
            TestItem::Head(indent) => {
                if trimmed.ends_with('{') {
                    *self = TestItem::Body(format!("{}}}", " ".repeat(*indent)));
                } else if trimmed.ends_with([';', ',', '}']) {
                    *self = TestItem::None;
                }
                false
            }
            TestItem::Body(end) => {
                // A macro's block may end in `};`, a statement's in `});`.
                if line
                    .trim_end()
                    .strip_prefix(end.as_str())
                    .is_some_and(|rest| !rest.starts_with(' '))
                {
                    *self = TestItem::None;
                }
                false
            }
        }
    }
}

/// The files under `src` that are not compiled for tests alone.
pub(super) fn sources() -> Vec<File> {
    let mut files = files_in("src");
    files.retain(|file| !is_for_tests(&file.path));
    assert!(files.len() > 50, "the sources are there");
    files
}

/// The name of each door whose folder in `src/doors` has this file: `options.rs` is in all of them, and `report.rs` once
/// the door has statistics. The front is a part of every door, and none itself.
pub(crate) fn doors_with(file_name: &str) -> Vec<String> {
    let named = |file: File| {
        let path = file.path.strip_prefix("doors").ok()?;
        let (door, is_direct) = (path.parent()?.to_str()?, path.iter().count() == 2);
        (is_direct && path.ends_with(file_name) && door != "front").then(|| door.to_owned())
    };
    let doors: Vec<_> = sources().into_iter().filter_map(named).collect();
    assert!(doors.len() >= 3, "the doors were found: {doors:?}");
    doors
}

/// All Rust files in a folder of the repository and below it.
pub(super) fn files_in(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// Modules that are compiled for tests alone.
fn is_for_tests(path: &Path) -> bool {
    ["tests", "testing", "scaffold"]
        .iter()
        .any(|name| path.file_stem().is_some_and(|stem| stem == *name))
}

pub(super) fn report(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn the_words_of_the_help_are_no_comments() {
    let text =
        "/// How long.\n/// And why.\n#[arg(long)]\ntime: Time,\n/// A sum.\nsum: u32, // in bytes\n  // Why so.\n";
    let file = File {
        path: PathBuf::from("a.rs"),
        text: text.to_owned(),
    };
    assert_eq!(file.comments().collect::<Vec<_>>(), [(5, "A sum."), (7, "Why so.")]);
}

#[test]
fn items_for_tests_are_left_out_and_the_code_behind_them_is_not() {
    let text = "#[cfg(test)]\nmod tests;\n\nfn a() {\n    #[cfg(test)]\n    tests::look(|n| {\n        n\n    });\n    b();\n}\n\
                #[cfg(test)]\nmod more {\n    fn c() {}\n}\nfn d() {} // e\n";
    let file = File {
        path: PathBuf::from("a.rs"),
        text: text.to_owned(),
    };
    let code: Vec<_> = file.code().filter(|(_, line)| !line.is_empty()).collect();
    assert_eq!(code, [(4, "fn a() {"), (9, "    b();"), (10, "}"), (15, "fn d() {} ")]);
}
