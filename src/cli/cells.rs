//! Tables and texts of a terminal of 80 columns.
//!
//! Text of clients may not act on the terminal, or break a row.

use crate::telemetry::escape::escaped;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

/// Columns of a terminal.
pub(super) const WIDTH: u16 = 80;

/// A row of a table.
pub(super) fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.iter().map(|cell| escaped(cell).into_owned()).collect()
}

/// The text of a table whose cells in some columns wrap, so that its rows fit [`WIDTH`]. The other columns keep theirs.
pub(super) fn fit(table: &mut Table, wrapped: &[usize]) -> String {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    for (place, column) in table.column_iter_mut().enumerate() {
        if !wrapped.contains(&place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

/// Text in lines of at most [`WIDTH`] columns, each behind some spaces.
pub(super) fn wrapped(text: &str, spaces: usize) -> String {
    let (mut lines, mut line) = (String::new(), " ".repeat(spaces));
    let mut is_empty = true;
    for word in escaped(text).split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH.into() {
            lines.push_str(&line);
            lines.push('\n');
            (line, is_empty) = (" ".repeat(spaces), true);
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    format!("{lines}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_wraps_between_words_behind_its_spaces() {
        let text = ["word"; 40].join(" ");
        let lines = wrapped(&text, 2);
        assert!(lines.lines().all(|line| line.len() <= 80 && line.starts_with("  word")), "{lines}");
        assert_eq!((lines.lines().count(), lines.split_whitespace().count()), (3, 40));
        let long = "x".repeat(100);
        assert_eq!(wrapped(&format!("a {long}"), 0), format!("a\n{long}\n"), "a word is not cut");
    }
}
