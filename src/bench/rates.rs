//! Draws NMSE against bits per parameter: a point for each codec, both axes logarithmic.
//!
//! A line below the points is the least NMSE that any code reaches on white Gaussian data.

use super::BenchError;
use super::picture::{self, Area, COLORS, DrawResult, Format, LINE, Mark, Picture, range};
use crate::compress::quality::white_bound;
use crate::compress::table::Row;
use plotters::prelude::*;

/// Pixels of the plot; its height grows with the legend.
const SIZE: (u32, u32) = (1100, 640);

/// Width of the legend in pixels.
const LEGEND: u32 = 300;

/// A smaller NMSE is drawn as this one, so that exact codecs are visible.
const LEAST_NMSE: f64 = 1e-9;

/// Bits per parameter that label the axis.
const BITS: [f64; 10] = [0.1, 0.2, 0.32, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// Draws rows as a file of this format.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn draw(title: &str, rows: &[Row], format: Format) -> Result<Vec<u8>, BenchError> {
    let points = rows.iter().map(|row| (row.bits_per_parameter, row.measures.nmse.max(LEAST_NMSE)));
    let labels = rows.iter().map(|row| row.codec.clone());
    picture::render(&Rates { title, points: points.collect(), labels: labels.collect() }, format)
}

/// Points by bits and NMSE, and the name of each.
struct Rates<'a> {
    title: &'a str,
    points: Vec<(f64, f64)>,
    labels: Vec<String>,
}

impl Picture for Rates<'_> {
    fn size(&self) -> (u32, u32) {
        (SIZE.0, SIZE.1.max(100 + LINE * self.labels.len() as u32))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND);
        picture::draw_legend(&legend, self.legend())?;
        let across = range(self.points.iter().map(|point| point.0), 1.3);
        let up = range(self.points.iter().map(|point| point.1).chain([1.0]), 2.0);
        let (low, least) = (across.start, up.start);
        let mut chart = picture::chart(&area, self.title)
            .build_cartesian_2d(across.clone().log_scale().with_key_points(BITS.to_vec()), up.log_scale())?;
        picture::style(&mut chart.configure_mesh())
            .x_desc("bits per parameter")
            .y_desc("NMSE")
            .x_label_formatter(&|bits| bits.to_string())
            .y_label_formatter(&|nmse| format!("{nmse:.0e}"))
            .draw()?;
        let steps = (0..=200).map(|step| low * (across.end / low).powf(f64::from(step) / 200.0));
        let bound = steps.map(|bits| (bits, white_bound(bits))).take_while(|(_, nmse)| *nmse > least);
        chart.draw_series(LineSeries::new(bound, BLACK.mix(0.5).stroke_width(1)))?;
        for (number, (point, color)) in self.points.iter().zip(COLORS.iter().cycle()).enumerate() {
            let dot = EmptyElement::at(*point)
                + Circle::new((0, 0), 4, color.filled())
                + Text::new((number + 1).to_string(), (6, -14), ("sans-serif", 14).into_font());
            chart.draw_series([dot])?;
        }
        Ok(())
    }
}

impl Rates<'_> {
    fn legend(&self) -> Vec<(Mark, String)> {
        let bound = (Mark::Line(BLACK.mix(0.5).into()), "least NMSE of white data".to_owned());
        let codecs = self.labels.iter().enumerate().zip(COLORS.iter().cycle());
        let codecs =
            codecs.map(|((number, label), color)| (Mark::Dot(*color), format!("{} {label}", number + 1)));
        [bound].into_iter().chain(codecs).collect()
    }
}
