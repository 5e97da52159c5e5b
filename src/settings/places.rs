//! The lines and columns of JSON paths in a text.

use std::collections::{BTreeMap, BTreeSet};

/// A place in a text. Both numbers begin with 1; the column counts characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The places of paths such as `$.stages[3].needs[0]` in the text of a JSON value: that of the key of a member. A path that
/// the text does not have has the place of what is around it.
pub fn places<'p>(text: &str, paths: impl IntoIterator<Item = &'p str>) -> BTreeMap<&'p str, Place> {
    let paths: BTreeSet<&str> = paths.into_iter().collect();
    let mut wanted = BTreeSet::new();
    for path in &paths {
        let around = std::iter::successors(Some(*path), |path| outer(path));
        // What is around a path that is known is known, too.
        around.take_while(|path| wanted.insert(*path)).for_each(drop);
    }
    let mut scan =
        Scan { text, at: 0, line: 1, start: 0, path: "$".to_owned(), wanted, found: BTreeMap::new() };
    scan.blank();
    scan.note();
    scan.value();
    let of = |path: &&'p str| {
        let mut around = std::iter::successors(Some(*path), |path| outer(path));
        Some((*path, around.find_map(|path| scan.found.get(path).copied())?))
    };
    paths.iter().filter_map(of).collect()
}

/// The path of what is around the value at a path.
fn outer(path: &str) -> Option<&str> {
    path.rfind(['.', '[']).map(|end| &path[..end])
}

/// A walk through a text that is JSON. Text that is none ends it early.
struct Scan<'t, 'p> {
    text: &'t str,
    at: usize,
    line: usize,
    /// Where the line begins.
    start: usize,
    path: String,
    wanted: BTreeSet<&'p str>,
    found: BTreeMap<&'p str, Place>,
}

impl Scan<'_, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while let Some(byte) = self.peek().filter(u8::is_ascii_whitespace) {
            self.at += 1;
            if byte == b'\n' {
                self.line += 1;
                self.start = self.at;
            }
        }
    }

    /// Notes the place of the path, if someone wants it.
    fn note(&mut self) {
        if let Some(path) = self.wanted.get(self.path.as_str()) {
            let column = self.text[self.start..self.at].chars().count() + 1;
            self.found.insert(path, Place { line: self.line, column });
        }
    }

    fn value(&mut self) {
        match self.peek() {
            Some(b'{') => self.members(),
            Some(b'[') => self.elements(),
            Some(b'"') => drop(self.string()),
            _ => {
                let ends = |byte: u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
                while self.peek().is_some_and(|byte| !ends(byte)) {
                    self.at += 1;
                }
            }
        }
    }

    fn members(&mut self) {
        let outside = self.path.len();
        self.at += 1;
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                break;
            }
            let place = self.at;
            let key = self.string();
            let behind = std::mem::replace(&mut self.at, place);
            self.path += ".";
            self.path += &key;
            self.note();
            self.at = behind;
            self.blank();
            // The colon.
            self.at += 1;
            self.blank();
            self.value();
            self.path.truncate(outside);
            if !self.goes_on() {
                break;
            }
        }
        self.at += 1;
    }

    fn elements(&mut self) {
        let outside = self.path.len();
        self.at += 1;
        for place in 0.. {
            self.blank();
            if matches!(self.peek(), None | Some(b']')) {
                break;
            }
            self.path += &format!("[{place}]");
            self.note();
            self.value();
            self.path.truncate(outside);
            if !self.goes_on() {
                break;
            }
        }
        self.at += 1;
    }

    /// Whether a comma follows, which is passed.
    fn goes_on(&mut self) -> bool {
        self.blank();
        let more = self.peek() == Some(b',');
        self.at += usize::from(more);
        more
    }

    /// Passes a text, which stands in one line.
    fn string(&mut self) -> String {
        let from = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_lines_and_columns() {
        let text = "\n{\"a\": [1, {\"b\\\"\": \"ä\", \"c\": null},\n  \"x]\"],\n \"d\": {}, \"é\": {\"e\": [[true]]}}";
        for (path, expected) in [
            ("$", (2, 1)),
            ("$.a", (2, 2)),
            ("$.a[0]", (2, 8)),
            ("$.a[1].b\"", (2, 12)),
            ("$.a[1].c", (2, 24)),
            ("$.a[2]", (3, 3)),
            ("$.é.e[0][0]", (4, 24)),
            // What the text does not have.
            ("$.a[9]", (2, 2)),
            ("$.d.x[2].y", (4, 2)),
            ("$.nothing", (2, 1)),
        ] {
            let found = places(text, [path])[path];
            assert_eq!((found.line, found.column), expected, "{path}");
        }
        for broken in ["", "{", "[1", "{\"a\"", "{\"a\": \"\\"] {
            places(broken, ["$.a[0]"]);
        }
    }
}
