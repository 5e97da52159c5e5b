//! Tables and texts of a terminal of 80 columns.
//!
//! Text of clients may not act on the terminal, or break a row.

use crate::telemetry::escape::escaped;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

/// Columns of a terminal.
pub const WIDTH: u16 = 80;

/// A row of a table.
pub fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.iter().map(|cell| escaped(cell).into_owned()).collect()
}

/// The text of a table whose cells in some columns wrap, so that its rows fit [`WIDTH`]. The other columns keep theirs.
pub fn fit(table: &mut Table, wrapped: &[usize]) -> String {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    for (place, column) in table.column_iter_mut().enumerate() {
        if !wrapped.contains(&place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

/// A number for people: four decimals at most, or an exponent where they say nothing.
pub fn number(value: f64) -> String {
    let is_plain = value == 0.0 || (1e-3..1e6).contains(&value.abs()) || !value.is_finite();
    if !is_plain {
        return format!("{value:.4e}");
    }
    let text = format!("{value:.4}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The start of a text, with dots where it goes on.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text[..end].trim_end()),
    }
}

/// Text in lines of at most [`WIDTH`] columns, each behind some spaces.
pub fn wrapped(text: &str, spaces: usize) -> String {
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
    fn numbers_have_the_digits_that_say_something() {
        let shown = [0.904_7, 15.846_999_999_999_998, 60.0, 3_002_298_693.318_4, 0.000_012, 0.0].map(number);
        assert_eq!(shown, ["0.9047", "15.847", "60", "3.0023e9", "1.2000e-5", "0"]);
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!((cut("short", 5), cut("longer", 4)), ("short".to_owned(), "long...".to_owned()));
    }

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
