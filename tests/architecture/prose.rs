//! The prose of the house: a short first line, and none of the words that make a reader guess.
//!
//! Comments and documentation are read in the source, the tests, the benches and the shaders; string literals, which
//! become messages and help, in the source without its tests. A phrase is found across the lines of a comment.

use super::not_yet_clean::{FIRST_LINES, PROSE};
use super::report::{Exception, Rule, Violation, without_exceptions};
use super::sources::{files_below, root};
use super::syntax::Syntax;
use super::text::{Passage, Passages};
use std::collections::BTreeMap;
use std::fs;

/// Characters of a first line.
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

const RULE: Rule = Rule {
    says: "the first line of a file has under 100 characters; comments, documentation and messages use plain words",
    instead: "say what it is, what it does, in which unit, and why, with the subject first and the actor named",
};

/// A word of a passage in lower case, or anything between two words that is not blank.
#[derive(PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Break,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.extend(c.to_lowercase());
            continue;
        }
        if !word.is_empty() {
            found.push(Token::Word(std::mem::take(&mut word)));
        }
        if !c.is_whitespace() {
            found.push(Token::Break);
        }
    }
    found
}

/// The lines at which phrases of the list begin, with what to write instead.
fn phrases(passages: &[Passage]) -> Vec<(usize, &'static str, &'static str)> {
    let mut words: Vec<(usize, Token)> = Vec::new();
    let mut before = 0;
    for Passage { line, text } in passages {
        if *line != before + 1 {
            words.push((*line, Token::Break));
        }
        before = *line;
        words.extend(tokens(text).into_iter().map(|token| (*line, token)));
    }
    let mut found = Vec::new();
    for (phrase, plain) in WORDS {
        let sought = tokens(phrase);
        let windows = words.windows(sought.len());
        let hits = windows.filter(|window| window.iter().map(|(_, token)| token).eq(&sought));
        found.extend(hits.map(|window| (window[0].0, *phrase, *plain)));
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

/// The phrases of a file that break the rule.
fn riddles(path: &str, text: &str) -> Vec<Violation> {
    let passages = Passages::read(text);
    let mut hits = phrases(&passages.comments);
    if path.starts_with("src/") {
        hits.extend(passages.strings.iter().flat_map(|string| outside_tests(path, text, string)));
    }
    let found = hits
        .into_iter()
        .map(|(line, phrase, plain)| Violation::new(path, line, format!("`{phrase}`, write: {plain}")));
    found.collect()
}

/// Phrases in a string literal, none if it belongs to a test.
fn outside_tests(path: &str, text: &str, string: &Passage) -> Vec<(usize, &'static str, &'static str)> {
    let hits = phrases(std::slice::from_ref(string));
    if hits.is_empty() {
        return hits;
    }
    let syntax = Syntax::read(text, &[]).unwrap_or_else(|error| panic!("{path}: {error}"));
    hits.into_iter().filter(|(line, ..)| !syntax.in_tests(*line)).collect()
}

/// Violations of all files but those that a list excuses, and the entries of the list that nothing needs.
fn but_for(
    excused: &[&'static str],
    files: &BTreeMap<String, String>,
    check: fn(&str, &str) -> Vec<Violation>,
) -> Vec<Violation> {
    let found = files
        .iter()
        .flat_map(|(path, text)| check(path, text).into_iter().map(|fault| (path.clone(), fault)));
    let excused: Vec<Exception> =
        excused.iter().map(|what| Exception { what, why: "written before the rule" }).collect();
    without_exceptions(found.collect(), &excused, "tests/architecture/not_yet_clean.rs")
}

/// All files of Rust in the repository whose prose the rule holds for.
fn rust_files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> =
        ["src", "tests", "benches"].into_iter().flat_map(|folder| files_below(folder, "rs")).collect();
    files.insert("build.rs".to_owned(), fs::read_to_string(root().join("build.rs")).unwrap());
    files
}

#[test]
fn first_lines_are_short() {
    RULE.holds(but_for(FIRST_LINES, &rust_files(), first_line));
}

#[test]
fn comments_and_messages_are_plain() {
    let mut files = rust_files();
    files.extend(files_below("shaders", "wgsl"));
    RULE.holds(but_for(PROSE, &files, riddles));
}

#[cfg(test)]
mod planted {
    use super::{WORDS, but_for, first_line, riddles};

    fn found(path: &str, text: &str) -> Vec<String> {
        riddles(path, &format!("//! A file.\n{text}")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_phrase_of_the_list_is_found_in_comments_documentation_and_messages() {
        for (phrase, plain) in WORDS {
            for text in [
                format!("// It {phrase} it.\n"),
                format!("/// {}.\nfn f() {{}}\n", phrase.to_uppercase()),
                format!("const A: &str = \"it {phrase} it\";\n"),
                format!("#[arg(help = \"it {phrase}\")]\nstruct A;\n"),
                format!("#[cfg(test)]\nmod tests {{}}\n/* {phrase} */\n"),
            ] {
                let found = found("src/rules/mean.rs", &text);
                assert_eq!(found.len(), 1, "{text}: {found:?}");
                assert!(found[0].contains(&format!("`{phrase}`, write: {plain}")), "{found:?}");
            }
        }
    }

    #[test]
    fn a_phrase_is_found_across_lines() {
        let expected = ["src/a.rs:2: `of its own`, write: its, a separate"];
        assert_eq!(found("src/a.rs", "/// A row of its\n/// own values.\nfn f() {}"), expected);
        assert_eq!(found("src/a.rs", "const A: &str = \"a row of \\\n    its own\";"), expected);
    }

    #[test]
    fn other_words_code_and_strings_of_tests_are_free() {
        for text in [
            "// That goes bypass; so_many; hangs. On; the tells; own; sameness of.\n// of its\n\n// own\n",
            "fn nobody() {}\n",
            "#[cfg(test)]\nmod tests { const A: &str = \"nobody\"; }\n",
        ] {
            assert_eq!(found("src/rules/mean.rs", text), [""; 0], "{text}");
        }
        assert_eq!(found("tests/rules.rs", "const A: &str = \"nobody\";\n"), [""; 0]);
        assert_eq!(found("tests/rules.rs", "// Nobody.\n").len(), 1);
        assert_eq!(riddles("shaders/gram.wgsl", "// Nobody.\n").len(), 1);
    }

    #[test]
    fn a_first_line_has_under_100_characters() {
        let line = |characters: usize| format!("//! {}\n", "é".repeat(characters - 4));
        assert_eq!(first_line("src/a.rs", &line(99)), []);
        assert_eq!(first_line("src/a.rs", &line(100)).len(), 1);
        assert_eq!(first_line("src/a.rs", "use a;\n").len(), 1);
    }

    #[test]
    fn a_clean_file_leaves_the_list() {
        let files = |text: &str| [("src/a.rs".to_owned(), format!("//! A file.\n{text}"))].into();
        assert_eq!(but_for(&["src/a.rs"], &files("// Nobody.\n"), riddles), []);
        let stale = but_for(&["src/a.rs"], &files(""), riddles);
        assert!(stale[0].found.contains("delete its exception"), "{}", stale[0]);
    }
}
