//! `fedmill compress --table`: every codec on one update, side by side.

use super::{Common, Failure, print};
use crate::bench::picture::Format;
use crate::bench::rates;
use crate::compress::run::Compression;
use crate::compress::table::{self, Row};
use crate::io::collision;
use crate::io::model_writer::check_file_target;
use comfy_table::{CellAlignment, Table, presets};
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
        false => text = format!("{}\n", table(&rows)),
    }
    print(&text)
}

/// The format of a plot, by the extension of its file.
pub(super) fn format_of(path: &Path) -> Result<Format, Failure> {
    let why = || anyhow::anyhow!("--plot: {}: expected a file that ends in .svg or .png", path.display());
    Ok(Format::of(path).ok_or_else(why)?)
}

/// Writes a picture.
pub(super) fn write(path: &Path, picture: &[u8]) -> Result<(), Failure> {
    check_file_target(path)?;
    Ok(collision::write_output(path, picture)?)
}

fn table(rows: &[Row]) -> String {
    let header =
        ["codec", "bytes", "ratio", "bits", "NMSE", "white", "cosine", "norm", "encode MB/s", "decode MB/s"];
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in 1..header.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let speed = |speed: Option<f64>| speed.map_or("-".to_owned(), |speed| format!("{speed:.0}"));
    for row in rows {
        table.add_row([
            row.codec.clone(),
            row.bytes.to_string(),
            format!("{:.2}", row.ratio),
            format!("{:.3}", row.bits_per_parameter),
            format!("{:.3e}", row.measures.nmse),
            format!("{:.3e}", row.white_nmse_bound),
            format!("{:.4}", row.measures.cosine),
            format!("{:.4}", row.measures.norm_ratio),
            speed(row.encode_mb_per_s),
            speed(row.decode_mb_per_s),
        ]);
    }
    table.trim_fmt()
}
