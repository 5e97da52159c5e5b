//! Cells of tables: text of clients may not act on the terminal, or break a row.

use crate::telemetry::escape::escaped;

/// A row of a table.
pub(super) fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.iter().map(|cell| escaped(cell).into_owned()).collect()
}
