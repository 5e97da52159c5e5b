//! `fedmill compress --table`: every codec on one update, side by side.

use super::{Common, Failure, print, print_account};
use crate::bench::picture::Format;
use crate::bench::rates;
use crate::compress::run::Compression;
use crate::compress::table;
use crate::io::collision::{self, target::is_stream};
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
    print_beside(plot, json, &text)
}

/// Prints what a command found. Beside a plot the table is not what the command was asked for; JSON is.
pub(super) fn print_beside(plot: Option<&Path>, json: bool, text: &str) -> Result<(), Failure> {
    if json || plot.is_none() {
        return print(text);
    }
    print_account(text);
    Ok(())
}

/// The format of a plot, by the extension of its file; a stream gets SVG. A plot replaces nothing but an earlier one.
pub(super) fn format_of(path: &Path) -> Result<Format, Failure> {
    let why = || {
        anyhow::anyhow!(
            "--plot: {}: expected a file that ends in .svg or .png, or `-` for SVG on standard output",
            path.display()
        )
    };
    let format = Format::of(path).or(is_stream(path).then_some(Format::Svg)).ok_or_else(why)?;
    collision::check_earlier(path, format.start(), "an earlier picture")?;
    Ok(format)
}

/// Writes a picture.
pub(super) fn write(path: &Path, picture: &[u8]) -> Result<(), Failure> {
    collision::check_target(path)?;
    Ok(collision::write_output(path, picture)?)
}
