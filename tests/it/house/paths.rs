//! Paths that documents and comments name: each is there.

use std::path::Path;

use super::source::{self, report};

/// Folders at the top of the repository. A word in backticks that begins with one of them is a path.
const FOLDERS: [&str; 9] = [
    ".ci/",
    "dist/",
    "doc/",
    "examples/",
    "man/",
    "scripts/",
    "src/",
    "systemd/",
    "tests/",
];

/// The paths in a line: what stands in backticks and begins with a folder of the repository, without arguments behind
/// it.
fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let words = quoted.filter_map(|words| words.split_whitespace().next());
    words.filter(|word| {
        FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains(['*', '[', '<', '{', '$'])
    })
}

#[test]
fn paths_in_documents_and_comments_exist() {
    assert_eq!(
        paths_in("see `src/a.rs` and `scripts/b 600`, not src/c or `d`.").count(),
        2
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lines: Vec<(String, String)> = Vec::new();
    for folder in ["", "doc", "tests/fuzz"] {
        for entry in root.join(folder).read_dir().unwrap() {
            let path = entry.unwrap().path();
            // The log of changes speaks of what was there at the time.
            if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("CHANGELOG.md") {
                let text = std::fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                lines.extend(text.lines().map(|line| (name.clone(), line.to_owned())));
            }
        }
    }
    for folder in ["src", "tests", "examples"] {
        for file in source::files_in(folder) {
            let comments = file.comments();
            lines.extend(comments.map(|(number, line)| (format!("{folder}/{}", file.place(number)), line.to_owned())));
        }
    }
    let mut offences = Vec::new();
    let mut found = 0;
    for (place, line) in &lines {
        for path in paths_in(line) {
            found += 1;
            if !root.join(path.split("::").next().unwrap()).exists() {
                offences.push(format!("{place}: there is no {path}"));
            }
        }
    }
    assert!(found > 50, "paths were found: {found}");
    report(&offences);
}
