//! `fedmill compress --table`: every codec on one update, side by side.

use super::{Common, Failure, print};
use crate::bench::picture::Format;
use crate::bench::rates;
use crate::compress::run::Compression;
use crate::compress::table;
use crate::io::collision;
use std::path::Path;

/// Measures all codecs on an update. Prints a table, or JSON with one object per line.
pub(super) fn run(
    compression: &Compression,
    json: bool,
    plot: Option<&Path>,
    common: &Common,
) -> Result<(), Failure> {
    let format = plot.map(format_of).transpose()?;
    let rows = table::measure(compression, &common.pool()?).map_err(Failure::of)?;
    if let (Some(path), Some(format)) = (plot, format) {
        let title = format!("{}, NMSE by bits per parameter", compression.update.display());
        write(path, &rates::draw(&title, &rows, format)?)?;
    }
    let mut text = String::new();
    match json {
        true => {
            for row in &rows {
                text.push_str(&serde_json::to_string(row)?);
                text.push('\n');
            }
        }
        false => text = format!("{}\n", table::text(&rows)),
    }
    print(&text)
}

/// The format of a plot, by the extension of its file. A plot replaces nothing but an earlier one.
pub(super) fn format_of(path: &Path) -> Result<Format, Failure> {
    let why = || anyhow::anyhow!("--plot: {}: expected a file that ends in .svg or .png", path.display());
    let format = Format::of(path).ok_or_else(why)?;
    collision::check_earlier(path, format.start(), "an earlier picture")?;
    Ok(format)
}

/// Writes a picture.
pub(super) fn write(path: &Path, picture: &[u8]) -> Result<(), Failure> {
    collision::check_target(path)?;
    Ok(collision::write_output(path, picture)?)
}
