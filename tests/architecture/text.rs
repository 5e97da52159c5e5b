//! Comments and string literals of a source text, which a syntax tree does not keep as written.

/// A line of a comment, or a string literal from its first line on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Passage {
    /// Counted from 1.
    pub line: usize,
    /// A comment without its slashes; a literal without its quotes. An escape reads as a full stop, a line that is
    /// continued by a backslash as a space.
    pub text: String,
}

/// The comments and the string literals of a source text, each in order.
#[derive(Default, Debug)]
pub(crate) struct Passages {
    /// Lines of comments, those of documentation too.
    pub comments: Vec<Passage>,
    /// String literals.
    pub strings: Vec<Passage>,
}

impl Passages {
    /// Reads Rust or WGSL.
    pub(crate) fn read(text: &str) -> Self {
        let mut scanner = Scanner { rest: text, line: 1, before: ' ' };
        let mut found = Self::default();
        while let Some(next) = scanner.rest.chars().next() {
            scanner.take_one(next, &mut found);
        }
        found
    }
}

struct Scanner<'t> {
    rest: &'t str,
    line: usize,
    /// The character before the rest: a letter there means that `r"` ends a name.
    before: char,
}

impl<'t> Scanner<'t> {
    fn take_one(&mut self, next: char, found: &mut Passages) {
        let raw = self.raw_string_marks();
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            found.comments.push(self.comment_line(end));
        } else if self.rest.starts_with("/*") {
            self.block_comment(found);
        } else if let Some(marks) = raw {
            found.strings.push(self.raw_string(marks));
        } else if next == '"' {
            found.strings.push(self.string());
        } else if next == '\'' {
            let length = self.character_length();
            self.advance(length);
        } else {
            self.advance(next.len_utf8());
        }
    }

    /// Steps over bytes.
    fn advance(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.before = taken.chars().next_back().unwrap_or(self.before);
        self.rest = rest;
        taken
    }

    fn comment_line(&mut self, bytes: usize) -> Passage {
        let line = self.line;
        let text = self.advance(bytes).trim_start_matches(['/', '!', '*']).trim().to_owned();
        Passage { line, text }
    }

    /// Steps over a block comment and the ones inside it.
    fn block_comment(&mut self, found: &mut Passages) {
        let mut depth = 0_usize;
        let mut end = self.rest.len();
        for (place, _) in self.rest.char_indices() {
            let at = &self.rest[place..];
            depth += usize::from(at.starts_with("/*"));
            if at.starts_with("*/") {
                depth -= 1;
            }
            if depth == 0 {
                end = place + 2;
                break;
            }
        }
        let first = self.line;
        for (line, text) in (first..).zip(self.advance(end).lines()) {
            let text = text.trim().trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']).trim();
            found.comments.push(Passage { line, text: text.to_owned() });
        }
    }

    /// The `#` marks of a raw string that begins here.
    fn raw_string_marks(&self) -> Option<usize> {
        if self.before.is_alphanumeric() || self.before == '_' {
            return None;
        }
        let after = self.rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
        let quoted = after.trim_start_matches('#');
        quoted.starts_with('"').then_some(after.len() - quoted.len())
    }

    fn raw_string(&mut self, marks: usize) -> Passage {
        let line = self.line;
        let opening = self.rest.find('"').unwrap() + 1;
        self.advance(opening);
        let closing = format!("\"{}", "#".repeat(marks));
        let end = self.rest.find(&closing).unwrap_or(self.rest.len());
        let text = self.advance(end).to_owned();
        self.advance(closing.len().min(self.rest.len()));
        Passage { line, text }
    }

    fn string(&mut self) -> Passage {
        let line = self.line;
        self.advance(1);
        let mut text = String::new();
        while let Some(next) = self.rest.chars().next() {
            self.advance(next.len_utf8());
            match next {
                '"' => break,
                '\\' => text.push(self.escape()),
                other => text.push(other),
            }
        }
        Passage { line, text }
    }

    /// What an escape behind a backslash reads as.
    fn escape(&mut self) -> char {
        let Some(escaped) = self.rest.chars().next() else { return '.' };
        self.advance(escaped.len_utf8());
        if escaped == '\n' { ' ' } else { '.' }
    }

    /// The bytes of a character literal, or of the quote of a lifetime.
    fn character_length(&self) -> usize {
        let mut behind = self.rest.char_indices().skip(1);
        match (behind.next(), behind.next()) {
            (Some((_, '\\')), Some((place, _))) => {
                let after = place + 1;
                self.rest.get(after..).and_then(|rest| rest.find('\'')).map_or(1, |end| after + end + 1)
            }
            (Some(_), Some((place, '\''))) => place + 1,
            _ => 1,
        }
    }
}

/// The documentation at the head of a module: its leading `//!` lines, without the marks.
pub(crate) fn head(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
fn all(text: &str) -> [Vec<(usize, String)>; 2] {
    let Passages { comments, strings } = Passages::read(text);
    [comments, strings].map(|found| found.into_iter().map(|passage| (passage.line, passage.text)).collect())
}

#[test]
fn comments_of_every_kind_are_read_line_by_line() {
    let text = "//! head\n\nfn f() {} // behind\n/* one\n * two /* inner */\n */\n/// last";
    let expected = [(1, "head"), (3, "behind"), (4, "one"), (5, "two /* inner"), (6, ""), (7, "last")];
    let expected: Vec<_> = expected.map(|(line, text)| (line, text.to_owned())).into();
    assert_eq!(all(text), [expected, Vec::new()]);
}

#[test]
fn slashes_and_quotes_inside_literals_open_nothing() {
    let text =
        "let a = \"// no \\\" comment\"; let b = r#\"raw \" // no\"#; let c = ['\"', '\\'', '/']; // yes";
    let strings = vec![(1, "// no . comment".to_owned()), (1, "raw \" // no".to_owned())];
    assert_eq!(all(text), [vec![(1, "yes".to_owned())], strings]);
}

#[test]
fn lifetimes_and_names_that_end_in_r_are_no_literals() {
    let text = "fn f<'a>(x: &'a str) -> &'a str { bar\"x\" } // 'a";
    assert_eq!(all(text), [vec![(1, "'a".to_owned())], vec![(1, "x".to_owned())]]);
}

#[test]
fn a_continued_string_stands_at_its_first_line() {
    let text = "f(\n    \"one \\\n     two\"\n); // after";
    assert_eq!(all(text), [vec![(4, "after".to_owned())], vec![(2, "one       two".to_owned())]]);
}

#[test]
fn the_head_of_a_module_ends_at_its_first_other_line() {
    assert_eq!(head("//! One.\n//!\n//! Two.\nuse x;\n//! No."), "One.\n\nTwo.");
}
