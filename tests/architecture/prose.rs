//! The prose of the house: a short first line, and none of the words that make a reader guess.
//!
//! The whole text of a file is read, with its code, so messages and help count too. A phrase is found across the lines
//! of a comment or of a string.

use super::report::{Exception, Rule, Violation, without_exceptions};
use super::sources::{files_below, root};
use std::collections::BTreeMap;
use std::fs;

/// A first line has fewer characters.
const FIRST_LINE: usize = 100;

/// Words that make a reader guess, and what to write.
const WORDS: &[(&str, &str)] = &[
    ("whoever", "name the actor: the operator, the server, the client that"),
    ("nobody", "name the actor: no client, the server cannot"),
    ("somebody", "name the actor: an operator, a client, an attacker"),
    ("hang on", "depend on"),
    ("hangs on", "depends on"),
    ("hung on", "depended on"),
    ("go by", "use, depend on"),
    ("goes by", "uses, depends on"),
    ("going by", "using"),
    ("went by", "used"),
    ("told apart", "distinguished"),
    ("is told", "receives, takes, is set to"),
    ("are told", "receive, take"),
    ("was told", "received, took"),
    ("were told", "received, took"),
    ("become of", "say what is done with it"),
    ("becomes of", "say what is done with it"),
    ("so many", "give the number its name: `n` clients"),
    ("of its own", "its, a separate"),
    ("of their own", "their, separate"),
    ("the same of", "repeat the noun"),
];

/// Files that may hold such a word. The list may only shrink.
const EXCEPTIONS: &[Exception] =
    &[Exception { what: "src/updates/metadata.rs", why: "released models hold the bytes of a text" }];

const RULE: Rule = Rule {
    says: "the first line of a file has under 100 characters; comments, documentation and messages use plain words",
    instead: "say what it is, what it does, in which unit, and why, with the subject first and the actor named",
};

/// The words of a text in lower case with their lines. `.` stands for all that separates them but blanks and ends of
/// lines.
fn words_of(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim().trim_start_matches(['/', '!', '*']).trim_end_matches('\\').to_lowercase();
        let split = |c: char| !c.is_alphanumeric() && c != '_';
        for piece in line.split_inclusive(split).filter(|piece| !piece.trim().is_empty()) {
            let word = piece.trim_end_matches(split);
            found.extend(Some(word).filter(|word| !word.is_empty()).map(|word| (number, word.to_owned())));
            if piece.trim_end() != word {
                found.push((number, ".".to_owned()));
            }
        }
        if line.trim().is_empty() {
            found.push((number, ".".to_owned()));
        }
    }
    found
}

/// The phrases of a file that break the rule.
fn riddles(path: &str, text: &str) -> Vec<Violation> {
    let words = words_of(text);
    let mut found = Vec::new();
    for (phrase, plain) in WORDS {
        let sought: Vec<&str> = phrase.split(' ').collect();
        let windows = words.windows(sought.len());
        let hits = windows.filter(|window| window.iter().map(|(_, word)| word).eq(&sought));
        let hits =
            hits.map(|window| Violation::new(path, window[0].0, format!("`{phrase}`, write: {plain}")));
        found.extend(hits);
    }
    found
}

/// The first line of a Rust file, where it breaks the rule.
fn first_line(path: &str, text: &str) -> Vec<Violation> {
    let first = text.lines().next().unwrap_or_default();
    let length = first.chars().count();
    if first.starts_with("//! ") && length < FIRST_LINE {
        return Vec::new();
    }
    let text = format!("a first line of {length} characters, expected `//! ` and under {FIRST_LINE}");
    vec![Violation::new(path, 1, text)]
}

/// All files of Rust in the repository, without this one, which lists the words.
fn rust_files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> =
        ["src", "tests", "benches"].into_iter().flat_map(|folder| files_below(folder, "rs")).collect();
    files.insert("build.rs".to_owned(), fs::read_to_string(root().join("build.rs")).unwrap());
    files.remove("tests/architecture/prose.rs");
    files
}

#[test]
fn first_lines_are_short() {
    RULE.holds(|_| rust_files().iter().flat_map(|(path, text)| first_line(path, text)).collect());
}

#[test]
fn comments_and_messages_are_plain() {
    RULE.holds(|_| {
        let pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "justfile"];
        let pages = pages.map(|name| (name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
        let others = files_below("shaders", "wgsl").into_iter().chain(files_below("docs", "md"));
        let files = rust_files().into_iter().chain(others).chain(pages);
        let of_file = |(path, text): (String, String)| {
            riddles(&path, &text).into_iter().map(move |v| (path.clone(), v))
        };
        without_exceptions(files.flat_map(of_file).collect(), EXCEPTIONS, "tests/architecture/prose.rs")
    });
}

#[test]
fn every_phrase_is_found_in_comments_documentation_and_messages() {
    for (phrase, plain) in WORDS {
        let (first, rest) = phrase.split_once(' ').unwrap_or((phrase, ""));
        for text in [
            format!("\n// It {phrase} it.\n"),
            format!("\n/// {}.\nfn f() {{}}\n", phrase.to_uppercase()),
            format!("\nconst A: &str = \"it {phrase} it\";\n"),
            format!("\n/// A row {first}\n/// {rest}, then.\n"),
            format!("\nconst A: &str = \"a row {first} \\\n    {rest}\";\n"),
        ] {
            let found = riddles("src/a.rs", &text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].to_string(), format!("src/a.rs:2: `{phrase}`, write: {plain}"));
        }
    }
}

#[test]
fn other_words_are_free() {
    let free = "// That goes bypass; so_many; hangs. On; own; of (its) own; sameness of.\n// of its\n\n// own\nfn nobody_is();\n";
    assert_eq!(riddles("src/a.rs", free), []);
}

#[test]
fn a_first_line_has_under_100_characters_of_documentation() {
    let line = |characters: usize| format!("//! {}\n", "é".repeat(characters - 4));
    assert_eq!(first_line("src/a.rs", &line(99)), []);
    assert_eq!(first_line("src/a.rs", &line(100)).len(), 1);
    assert_eq!(first_line("src/a.rs", "use a;\n").len(), 1);
}
