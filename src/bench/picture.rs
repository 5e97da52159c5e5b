//! Pictures as files, whatever is on them.

use super::BenchError;
use super::raster::{self, Raster};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// What lines are drawn in, one after the other.
pub(super) const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

/// What a picture is stored as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Format {
    Svg,
    Png,
}

impl Format {
    /// The format that a file's name ends with.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Some(Self::Svg),
            Some("png") => Some(Self::Png),
            _ => None,
        }
    }
}

/// Where is drawn.
pub(super) type Area<B> = DrawingArea<B, Shift>;

/// What a part of a picture comes to.
pub(super) type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// What can be drawn.
pub(super) trait Picture {
    /// Its pixels, across and down.
    fn size(&self) -> (u32, u32);
    /// Draws it.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B>;
}

/// A picture as a file of this format.
pub(super) fn render(picture: &impl Picture, format: Format) -> Result<Vec<u8>, BenchError> {
    let size = picture.size();
    match format {
        Format::Svg => {
            let mut text = String::new();
            draw_on(&SVGBackend::with_string(&mut text, size).into_drawing_area(), picture)?;
            Ok(text.into_bytes())
        }
        Format::Png => {
            let mut pixels = vec![255; 3 * size.0 as usize * size.1 as usize];
            draw_on(&Raster::new(&mut pixels, size).into_drawing_area(), picture)?;
            raster::png(&pixels, size).map_err(not_drawn)
        }
    }
}

fn draw_on<B: DrawingBackend>(area: &Area<B>, picture: &impl Picture) -> Result<(), BenchError> {
    area.fill(&WHITE).map_err(not_drawn)?;
    picture.draw(area).map_err(not_drawn)?;
    area.present().map_err(not_drawn)
}

fn not_drawn(why: impl std::fmt::Display) -> BenchError {
    BenchError::NotDrawn(why.to_string())
}

/// The least and the greatest, with some room about them.
pub(super) fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    low / room..high * room
}
