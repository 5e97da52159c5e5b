//! Draws epsilon against rounds: a line for each accountant, rounds logarithmic.

use super::BenchError;
use super::picture::{self, Area, COLORS, Drawn, Format, Picture};
use plotters::prelude::*;

/// Pixels of the picture.
const SIZE: (u32, u32) = (960, 560);

/// Pixels of it that name its lines.
const LEGEND: u32 = 240;

/// Pixels of a line of text.
const LINE: i32 = 20;

/// A line: epsilon by rounds.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// What it is called.
    pub label: String,
    /// Rounds, and epsilon there; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

/// Draws lines as a file of this format.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn draw(title: &str, curves: &[Curve], format: Format) -> Result<Vec<u8>, BenchError> {
    picture::render(&Curves { title, curves }, format)
}

struct Curves<'a> {
    title: &'a str,
    curves: &'a [Curve],
}

impl Curve {
    fn drawn(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(_, epsilon)| epsilon.is_finite())
    }
}

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND);
        self.draw_legend(&legend)?;
        let points = || self.curves.iter().flat_map(Curve::drawn);
        let last = points().map(|point| point.0).fold(2.0, f64::max);
        let top = points().map(|point| point.1).fold(1e-9, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d((1.0..last * 1.05).log_scale(), 0.0..top * 1.05)?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.04))
            .bold_line_style(BLACK.mix(0.12))
            .label_style(("sans-serif", 14))
            .x_desc("rounds")
            .y_desc("epsilon")
            .x_label_formatter(&|rounds| format!("{rounds:.0}"))
            .draw()?;
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            chart.draw_series(LineSeries::new(curve.drawn(), color.stroke_width(2)).point_size(3))?;
        }
        Ok(())
    }
}

impl Curves<'_> {
    /// The names of the lines, beside them.
    fn draw_legend<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let mut y = 48;
        let text = ("sans-serif", 14).into_font();
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            area.draw(&PathElement::new([(0, y), (22, y)], color.stroke_width(2)))?;
            area.draw(&Text::new(curve.label.as_str(), (30, y - 8), text.clone()))?;
            y += LINE;
        }
        Ok(())
    }
}
