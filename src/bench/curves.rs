//! Draws epsilon against rounds: a line for each accountant, rounds logarithmic.

use super::BenchError;
use super::picture::{self, Area, COLORS, DrawResult, Format, Mark, Picture};
use crate::privacy::accountants::Cost;
use plotters::prelude::*;

/// Pixels of the plot.
const SIZE: (u32, u32) = (960, 560);

/// Width of the legend in pixels.
const LEGEND: u32 = 240;

/// A line: epsilon by rounds.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// Its name.
    pub label: String,
    /// Rounds and the epsilon there. Values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Number of points of a curve.
const POINTS: u32 = 24;

/// The numbers of rounds at which curves up to `last` rounds have points.
pub fn rounds(last: u64) -> Vec<u64> {
    let last = last.max(1) as f64;
    let part = |point: u32| f64::from(point) / f64::from(POINTS - 1);
    let mut rounds: Vec<u64> = (0..POINTS).map(|point| last.powf(part(point)).round() as u64).collect();
    rounds.dedup();
    rounds
}

/// A line for each accountant, from the costs of numbers of rounds.
pub fn of_costs(costs: &[(u64, Cost)]) -> Vec<Curve> {
    let curve = |label: &str, epsilon: &dyn Fn(&Cost) -> Option<f64>| Curve {
        label: label.to_owned(),
        points: costs.iter().filter_map(|(rounds, cost)| Some((*rounds as f64, epsilon(cost)?))).collect(),
    };
    vec![
        curve("Renyi divergences", &|cost| Some(cost.epsilon_rdp)),
        curve("Renyi, integer orders", &|cost| Some(cost.epsilon_rdp_integer)),
        curve("loss distribution", &|cost| cost.epsilon_pld),
    ]
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
    fn finite_points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(_, epsilon)| epsilon.is_finite())
    }
}

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND);
        let lines = || self.curves.iter().zip(COLORS.iter().cycle());
        let entry =
            |(curve, color): (&Curve, &RGBColor)| (Mark::Line(color.stroke_width(2)), curve.label.clone());
        picture::draw_legend(&legend, lines().map(entry).collect())?;
        let points = || self.curves.iter().flat_map(Curve::finite_points);
        let last = points().map(|point| point.0).fold(2.0, f64::max);
        let top = points().map(|point| point.1).fold(1e-9, f64::max);
        let mut chart = picture::chart(&area, self.title)
            .build_cartesian_2d((1.0..last * 1.05).log_scale(), 0.0..top * 1.05)?;
        picture::style(&mut chart.configure_mesh())
            .x_desc("rounds")
            .y_desc("epsilon")
            .x_label_formatter(&|rounds| format!("{rounds:.0}"))
            .draw()?;
        for (curve, color) in lines() {
            chart.draw_series(LineSeries::new(curve.finite_points(), color.stroke_width(2)).point_size(3))?;
        }
        Ok(())
    }
}
