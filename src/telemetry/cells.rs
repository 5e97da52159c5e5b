//! Tables and texts for people.
//!
//! Text of clients may not act on the terminal, or break a row. Cells and texts wrap on a terminal only, so that each row
//! is one line where another program reads it, as in `fedmill plan history runs | grep failed`. `COLUMNS`, if set, is the
//! width in both cases.

use crate::telemetry::escape::escaped;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use std::io::{self, IsTerminal};

/// Columns of a terminal that says nothing of its width.
const TERMINAL: u16 = 80;

/// The columns that a line may take; `None` for any number.
fn width() -> Option<u16> {
    let stated = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    let stated = stated.filter(|columns: &u16| *columns > 0);
    stated.or_else(|| io::stdout().is_terminal().then_some(TERMINAL))
}

/// A table as a command prints it: rows in columns, without lines between them.
pub struct Listing {
    table: Table,
    right: Vec<usize>,
}

impl Listing {
    /// A table without a header.
    pub fn bare() -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        Self { table, right: Vec::new() }
    }

    /// A table whose columns have these names.
    pub fn with_header<const N: usize>(names: [&str; N]) -> Self {
        let mut listing = Self::bare();
        listing.table.set_header(names.map(|name| escaped(name).into_owned()));
        listing
    }

    /// A table of names, each with its value.
    pub fn of_values<'n>(values: impl IntoIterator<Item = (&'n str, String)>) -> Self {
        let mut listing = Self::bare();
        values.into_iter().for_each(|(name, value)| listing.add([name.to_owned(), value]));
        listing
    }

    /// Puts the cells of these columns at the right of their column.
    #[must_use]
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    /// Adds a row.
    pub fn add<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.map(|cell| escaped(&cell).into_owned()));
    }

    /// The text of the table. On a terminal the cells of these columns wrap, so that rows fit it; others never do.
    pub fn text(self, wrapped: &[usize]) -> String {
        self.within(width(), wrapped)
    }

    fn within(mut self, width: Option<u16>, wrapped: &[usize]) -> String {
        let width = width.filter(|_| !wrapped.is_empty());
        if let Some(width) = width {
            self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        for (place, column) in self.table.column_iter_mut().enumerate() {
            if width.is_some() && !wrapped.contains(&place) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            if self.right.contains(&place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.table.trim_fmt()
    }
}

/// A value, or `-` where there is none.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
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

/// Text behind some spaces; on a terminal in lines that fit it.
pub fn wrapped(text: &str, spaces: usize) -> String {
    wrapped_within(width(), text, spaces)
}

fn wrapped_within(width: Option<u16>, text: &str, spaces: usize) -> String {
    let width = width.map_or(usize::MAX, usize::from);
    let (mut lines, mut line) = (String::new(), " ".repeat(spaces));
    let mut is_empty = true;
    for word in escaped(text).split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
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
        let lines = wrapped_within(Some(80), &text, 2);
        assert!(lines.lines().all(|line| line.len() <= 80 && line.starts_with("  word")), "{lines}");
        assert_eq!((lines.lines().count(), lines.split_whitespace().count()), (3, 40));
        let long = "x".repeat(100);
        let cut = wrapped_within(Some(80), &format!("a {long}"), 0);
        assert_eq!(cut, format!("a\n{long}\n"), "a word is not cut");
        assert_eq!(wrapped_within(None, &text, 2), format!("  {text}\n"));
    }

    #[test]
    fn a_table_wraps_the_columns_that_may_wrap_and_none_without_a_width() {
        let text = |width: Option<u16>| {
            let mut table = Listing::with_header(["name", "why"]);
            table.add(["a-name-that-never-wraps".to_owned(), ["word"; 20].join(" ")]);
            table.within(width, &[1])
        };
        assert_eq!(text(None).lines().count(), 2);
        let wrapped = text(Some(60));
        assert!(wrapped.lines().all(|line| line.len() <= 60) && wrapped.lines().count() > 3, "{wrapped}");
        assert!(wrapped.contains("a-name-that-never-wraps"));
    }
}
