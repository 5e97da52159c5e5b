//! Tables and texts for people.
//!
//! Text of clients may not act on the terminal, or break a row. Cells and texts wrap on a terminal only, so that each row
//! is one line where another program reads it, as in `fedmill plan history runs | grep failed`. `COLUMNS`, if set, is the
//! width in both cases. Cells are cut on a terminal alone.

use crate::telemetry::escape::escaped;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use std::io::{self, IsTerminal};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a terminal that says nothing of its width.
const TERMINAL: u16 = 80;

/// The columns that a line may take; `None` for any number.
fn width() -> Option<u16> {
    let stated = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    let stated = stated.filter(|columns: &u16| *columns > 0);
    stated.or_else(|| io::stdout().is_terminal().then(|| columns_of_terminal().unwrap_or(TERMINAL)))
}

/// The columns that the terminal says it has.
fn columns_of_terminal() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

/// A table as a command prints it: rows in columns, without lines between them.
#[derive(Default)]
pub struct Listing {
    header: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
    points: Vec<usize>,
    cut: Option<usize>,
}

/// The fewest characters that are left of a cell that is cut.
const LEAST: usize = 12;

impl Listing {
    /// A table without a header.
    pub fn bare() -> Self {
        Self::default()
    }

    /// A table whose columns have these names.
    pub fn with_header<const N: usize>(names: [&str; N]) -> Self {
        Self { header: Some(names.map(|name| escaped(name).into_owned()).into()), ..Self::default() }
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

    /// Puts the numbers of this column at the right with their decimal points below each other.
    #[must_use]
    pub fn points(mut self, column: usize) -> Self {
        self.points.push(column);
        self.right([column])
    }

    /// Cuts the cells of this column on a terminal that is too narrow for the rows.
    #[must_use]
    pub fn cut(self, column: usize) -> Self {
        Self { cut: Some(column), ..self }
    }

    /// Adds a row.
    pub fn add<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| escaped(&cell).into_owned()).into());
    }

    /// The text of the table. On a terminal the cells of these columns wrap, so that rows fit it; others never do.
    pub fn text(mut self, wrapped: &[usize]) -> String {
        if io::stdout().is_terminal() {
            self.cut_to(width());
        }
        self.within(width(), wrapped)
    }

    /// Cuts the cells of the column that may be cut, as far as the rows are wider than this.
    fn cut_to(&mut self, width: Option<u16>) {
        let (Some(column), Some(width)) = (self.cut, width) else { return };
        let longest = |text: &str| text.lines().map(UnicodeWidthStr::width).max().unwrap_or_default();
        let excess = longest(&self.within(None, &[])).saturating_sub(width.into());
        let cells = || self.rows.iter().filter_map(|row| row.get(column));
        let most = cells().map(|cell| cell.width()).max().unwrap_or_default();
        let most = most.saturating_sub(excess).max(LEAST);
        for cell in self.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            if excess > 0 && cell.width() > most {
                *cell = cut(cell, most - 3);
            }
        }
    }

    /// The rows, with spaces behind numbers whose fractions are shorter than others of their column.
    fn aligned(&self) -> Vec<Vec<String>> {
        let mut rows = self.rows.clone();
        let fraction = |cell: &String| cell.find('.').map_or(0, |point| cell.len() - point);
        for column in &self.points {
            let cells = || self.rows.iter().filter_map(|row| row.get(*column));
            let most = cells().map(fraction).max().unwrap_or_default();
            for cell in rows.iter_mut().filter_map(|row| row.get_mut(*column)) {
                cell.extend(std::iter::repeat_n(' ', most - fraction(cell)));
            }
        }
        rows
    }

    fn within(&self, width: Option<u16>, wrapped: &[usize]) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).add_rows(self.aligned());
        if let Some(header) = &self.header {
            table.set_header(header);
        }
        let width = width.filter(|_| !wrapped.is_empty());
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            if width.is_some() && !wrapped.contains(&place) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            if self.right.contains(&place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt()
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

/// A measurement for people: four decimals, or an exponent where they would be zeros.
pub fn measured(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-4 { format!("{value:.4e}") } else { format!("{value:.4}") }
}

/// The start of a text that takes at most this many columns, with dots where it goes on.
pub fn cut(text: &str, most: usize) -> String {
    match past(text, most) {
        None => text.to_owned(),
        Some(end) => format!("{}...", text[..end].trim_end()),
    }
}

/// The start and the end of a text, together of at most `most` columns, with dots for what is between.
pub fn cut_inside(text: &str, most: usize) -> String {
    if past(text, most).is_none() {
        return text.to_owned();
    }
    let ends = most.saturating_sub(3);
    let start = past(text, ends.div_ceil(2)).unwrap_or(text.len());
    let mut end = text.len();
    for (place, c) in text.char_indices().rev() {
        if text[place..].width() > ends / 2 {
            break;
        }
        // A mark that joins the letter before it stays with that letter.
        end = if c.width() == Some(0) { end } else { place };
    }
    format!("{}...{}", &text[..start], &text[end..])
}

/// Where a text has taken this many columns of a terminal; `None` if it takes no more.
fn past(text: &str, most: usize) -> Option<usize> {
    let mut columns = 0;
    text.char_indices().find_map(|(place, c)| {
        columns += c.width().unwrap_or_default();
        (columns > most).then_some(place)
    })
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
        if !is_empty && line.width() + 1 + word.width() > width {
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
    fn wide_letters_take_two_columns() {
        assert_eq!((cut("模型模型", 8), cut("模型模型", 5)), ("模型模型".to_owned(), "模型...".to_owned()));
        let mut table = Listing::with_header(["client", "norm"]).right([1]).cut(0);
        table.add(["模".repeat(40), "1.0000".to_owned()]);
        table.cut_to(Some(50));
        let text = table.within(None, &[]);
        assert!(text.lines().all(|line| line.width() <= 50) && text.contains("..."), "{text}");
        assert!(wrapped_within(Some(20), &"模型 ".repeat(20), 2).lines().all(|line| line.width() <= 20));
    }

    #[test]
    fn what_differs_at_an_end_differs_when_it_is_cut_inside() {
        let ids = ["a", "b"].map(|end| cut_inside(&format!("client-of-the-large-hospital-{end}"), 24));
        assert_eq!(ids[0], "client-of-t...hospital-a");
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.width() <= 24), "{ids:?}");
        assert_eq!(cut_inside("模型模型模型模型模型模型", 24), "模型模型模型模型模型模型");
        assert!(cut_inside(&"模".repeat(13), 24).width() <= 24);
        assert_eq!(
            (measured(3e-5), measured(0.0), measured(1.0)),
            ("3.0000e-5".into(), "0.0000".into(), "1.0000".into())
        );
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
    fn points_are_below_each_other_and_only_long_cells_are_cut() {
        let mut table = Listing::with_header(["client", "examples", "norm"]).points(1).right([2]).cut(0);
        for (id, examples) in [("a", "12"), ("b".repeat(40).as_str(), "3.25"), ("c", "-")] {
            table.add([id.to_owned(), examples.to_owned(), "1.0000".to_owned()]);
        }
        let whole = table.within(None, &[]);
        let lines: Vec<&str> = whole.lines().collect();
        let end = |line: &str, text: &str| line.find(text).unwrap() + text.len();
        assert_eq!(end(lines[1], "12"), lines[2].find(".25").unwrap(), "{whole}");
        assert_eq!(end(lines[1], "12"), end(lines[3], "-"), "{whole}");
        assert_eq!(end(lines[1], "1.0000"), end(lines[2], "1.0000"), "{whole}");
        table.cut_to(Some(200));
        assert_eq!(table.within(None, &[]), whole);
        table.cut_to(Some(50));
        let cut = table.within(None, &[]);
        assert!(cut.lines().all(|line| line.len() <= 50) && cut.contains("bbb..."), "{cut}");
        assert!(cut.contains(&"b".repeat(20)), "{cut}");
        table.cut_to(Some(1));
        assert!(table.within(None, &[]).contains(&format!(" {}...", "b".repeat(LEAST - 3))));
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
