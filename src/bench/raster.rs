//! Plots as PNG: plotters draws the lines, a bitmap font inside the program gives the letters.
//!
//! The text of plotters itself needs a font that is installed, or one of 0.3 to 0.7 MB inside the program. Its own PNG
//! files go through the `image` crate straight to a path, while fedmill gives every file its name only when it is
//! whole.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingErrorKind};

/// Least size of text that is written in large letters.
const LARGE_SIZE: f64 = 20.0;

/// Pixels of three bytes, for lines and text.
pub(super) struct Raster<'a>(BitMapBackend<'a>);

impl<'a> Raster<'a> {
    /// Draws into `pixels`, three bytes each.
    pub(super) fn new(pixels: &'a mut [u8], size: (u32, u32)) -> Self {
        Self(BitMapBackend::with_buffer(pixels, size))
    }
}

fn height(size: f64) -> RasterHeight {
    if size >= LARGE_SIZE { RasterHeight::Size24 } else { RasterHeight::Size16 }
}

/// Width and height of a text.
fn extent(text: &str, height: RasterHeight) -> (i32, i32) {
    let width = text.chars().count() * get_raster_width(FontWeight::Regular, height);
    (width as i32, height.val() as i32)
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = <BitMapBackend<'static> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.present()
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.draw_pixel(point, color)
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let height = height(style.size());
        let (width, tall) = extent(text, height);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Right => -width,
            HPos::Center => -width / 2,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -tall / 2,
            VPos::Bottom => -tall,
        };
        let (w, h) = self.get_size();
        for (dx, dy, intensity) in letters(text, height) {
            let (dx, dy) = style.transform().transform(left + dx, top + dy);
            let (x, y) = (x + dx, y + dy);
            if (0..w as i32).contains(&x) && (0..h as i32).contains(&y) {
                let color = style.color();
                self.draw_pixel((x, y), BackendColor { alpha: color.alpha * intensity, ..color })?;
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let (width, tall) = extent(text, height(style.size()));
        Ok((width.unsigned_abs(), tall.unsigned_abs()))
    }
}

/// The pixels of a text that are not empty, and how dark each is from 0 to 1. A letter that the font lacks becomes a
/// question mark.
fn letters(text: &str, height: RasterHeight) -> Vec<(i32, i32, f64)> {
    let mut pixels = Vec::new();
    let mut left = 0;
    for letter in text.chars() {
        let glyph = get_raster(letter, FontWeight::Regular, height);
        let Some(glyph) = glyph.or_else(|| get_raster('?', FontWeight::Regular, height)) else { continue };
        for (y, line) in glyph.raster().iter().enumerate() {
            let dark = line.iter().enumerate().filter(|(_, intensity)| **intensity > 0);
            pixels.extend(dark.map(|(x, dark)| (left + x as i32, y as i32, f64::from(*dark) / 255.0)));
        }
        left += glyph.width() as i32;
    }
    pixels
}

/// The pixels as a PNG file.
pub(super) fn png(pixels: &[u8], (width, height): (u32, u32)) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}
