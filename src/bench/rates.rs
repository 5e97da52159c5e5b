//! Draws what codecs make of an update: NMSE against bits per parameter, both logarithmic, a point for each, and below
//! them the least NMSE that any code has on white Gaussian data.

use super::BenchError;
use super::picture::{self, Area, COLORS, Drawn, Format, Picture, range};
use crate::compress::quality::white_bound;
use crate::compress::table::Row;
use plotters::prelude::*;

/// Pixels of the picture.
const SIZE: (u32, u32) = (1100, 640);

/// Pixels of it that name its points.
const LEGEND: u32 = 300;

/// Pixels of a line of text.
const LINE: i32 = 20;

/// NMSE below this is drawn there: nothing is to be seen of exact codecs otherwise.
const LEAST_NMSE: f64 = 1e-9;

/// Bits per parameter that are written along the axis.
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

/// Points by bits and NMSE, and what each is called.
struct Rates<'a> {
    title: &'a str,
    points: Vec<(f64, f64)>,
    labels: Vec<String>,
}

impl Picture for Rates<'_> {
    fn size(&self) -> (u32, u32) {
        (SIZE.0, SIZE.1.max(80 + LINE as u32 * self.labels.len() as u32))
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND);
        self.draw_legend(&legend)?;
        let across = range(self.points.iter().map(|point| point.0), 1.3);
        let up = range(self.points.iter().map(|point| point.1).chain([1.0]), 2.0);
        let (low, least) = (across.start, up.start);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(across.clone().log_scale().with_key_points(BITS.to_vec()), up.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.04))
            .bold_line_style(BLACK.mix(0.12))
            .label_style(("sans-serif", 14))
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
    /// The names of the points, beside them.
    fn draw_legend<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let mut y = 48;
        let text = ("sans-serif", 14).into_font();
        area.draw(&PathElement::new([(0, y - 20), (22, y - 20)], BLACK.mix(0.5)))?;
        area.draw(&Text::new("least NMSE of white data", (30, y - 28), text.clone()))?;
        for ((number, label), color) in self.labels.iter().enumerate().zip(COLORS.iter().cycle()) {
            area.draw(&Circle::new((6, y), 4, color.filled()))?;
            area.draw(&Text::new(format!("{} {label}", number + 1), (16, y - 8), text.clone()))?;
            y += LINE;
        }
        Ok(())
    }
}
