//! Draws one chart as SVG that scales, in the colors of the page.
//!
//! plotters writes colors as numbers. The page has a light and a dark scheme, so each number here only stands for a class
//! of the style sheet, which gives it its color. Text is HTML except for the labels of the axes.

use super::numbers::Unit;
use crate::telemetry::axis::Axis;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use std::fmt::Write as _;

/// Width and height at which a chart's text has its natural size, in pixels.
const SIZE: (u32, u32) = (400, 210);

/// Steps of a pixel, since plotters draws at whole steps.
const FINE: u32 = 4;

/// The most buckets of rounds. Each shows its least and its largest value.
const BUCKETS: usize = 240;

/// Up to this many points each have a dot.
const MOST_DOTS: usize = 30;

/// The number of colors of the style sheet.
pub(super) const COLORS: usize = 8;

/// Values of one quantity.
pub(super) struct Series {
    /// What the legend calls it.
    pub(super) label: String,
    /// Rounds and values, in order of rounds. All are finite.
    pub(super) points: Vec<(f64, f64)>,
    /// How it looks.
    pub(super) look: Look,
}

/// How a series looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// A line of this color.
    Line(usize),
    /// A thin line of this color, for bounds.
    Thin(usize),
    /// Ticks at the bottom: something happened in these rounds.
    Ticks(usize),
}

impl Look {
    /// The number of its color.
    pub(super) fn color(self) -> usize {
        let (Self::Line(color) | Self::Thin(color) | Self::Ticks(color)) = self;
        color % COLORS
    }

    /// A number that stands for the color until [`with_classes`].
    fn stand_in(self) -> RGBColor {
        RGBColor(1, 0, self.color() as u8)
    }
}

/// The outcome of drawing.
type DrawResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Draws series as an `svg` element. `title` is its name for those who do not see it.
///
/// # Errors
///
/// When plotters fails, with its message.
pub(super) fn svg(title: &str, series: &[Series], unit: Unit) -> Result<String, String> {
    let size = (SIZE.0 * FINE, SIZE.1 * FINE);
    let mut text = String::new();
    draw(&mut text, size, series, unit).map_err(|why| why.to_string())?;
    let (_, body) = text.split_once('>').unwrap_or_default();
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let mut svg = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">", size.0, size.1);
    let _ = write!(svg, "{}", with_classes(body));
    Ok(svg)
}

fn draw<'a>(text: &'a mut String, size: (u32, u32), series: &[Series], unit: Unit) -> DrawResult<'a> {
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    let lines = || series.iter().filter(|series| !matches!(series.look, Look::Ticks(_)));
    let all = || series.iter().flat_map(|series| &series.points);
    let across = Axis::whole(all().map(|point| point.0));
    let up = Axis::of(lines().flat_map(|series| &series.points).map(|point| point.1));
    let range = up.range();
    let low = range.start;
    let tick = up.value(up.place(low) + 0.08 * (up.place(range.end) - up.place(low)));
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8 * FINE)
        .margin_right(12 * FINE)
        .x_label_area_size(24 * FINE)
        .y_label_area_size(56 * FINE)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.15).stroke_width(FINE))
        .axis_style(BLACK.mix(0.3).stroke_width(FINE))
        .label_style(("sans-serif", 14 * FINE))
        .x_label_formatter(&|round| format!("{round:.0}"))
        .y_label_formatter(&|value| unit.shown(*value))
        .draw()?;
    for Series { points, look, .. } in series {
        let color = look.stand_in();
        if let Look::Ticks(_) = look {
            let path =
                |(round, _)| PathElement::new([(round, low), (round, tick)], color.stroke_width(2 * FINE));
            chart.draw_series(fewer(points).into_iter().map(path))?;
            continue;
        }
        let width = if let Look::Thin(_) = look { FINE } else { 2 * FINE };
        let dot = if points.len() <= MOST_DOTS { 2 * FINE + FINE / 2 } else { 0 };
        let line = LineSeries::new(fewer(points), color.stroke_width(width));
        chart.draw_series(if dot > 0 { line.point_size(dot) } else { line })?;
    }
    area.present()
}

/// The least and the largest value of each bucket of rounds, if there are more points than fit.
fn fewer(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * BUCKETS {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(2 * BUCKETS + 2);
    kept.extend(points.first());
    for bucket in points.chunks(points.len().div_ceil(BUCKETS)) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(least), Some(largest)) = (bucket.iter().min_by(by_value), bucket.iter().max_by(by_value))
        else {
            continue;
        };
        let (first, second) = if least.0 <= largest.0 { (least, largest) } else { (largest, least) };
        kept.push(*first);
        if second.0 > first.0 {
            kept.push(*second);
        }
    }
    kept.extend(points.last());
    kept
}

/// Replaces the numbers of colors by classes, and leaves out what the style sheet says.
fn with_classes(body: &str) -> String {
    let mut body = body.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "");
    for color in 0..COLORS {
        body = body.replace(&format!("stroke=\"#0100{color:02X}\""), &format!("class=\"l{color}\""));
        body = body.replace(&format!("fill=\"#0100{color:02X}\""), &format!("class=\"f{color}\""));
    }
    body.replace("stroke=\"#000000\"", "class=\"g\"").replace("fill=\"#000000\"", "class=\"t\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_points_keep_their_ends_and_their_extremes() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 0.5)).collect();
        points[4321].1 = 9.0;
        points[4322].1 = -9.0;
        let kept = fewer(&points);
        assert!(kept.len() <= 2 * BUCKETS + 2);
        for index in [0, 4321, 4322, 9999] {
            assert!(kept.contains(&points[index]), "{index}");
        }
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
        assert_eq!(fewer(&points[..100]), points[..100]);
    }

    #[test]
    fn a_chart_scales_and_has_classes_for_colors() {
        let series = [
            Series { label: String::new(), points: vec![(1.0, 0.5), (2.0, 0.7)], look: Look::Line(0) },
            Series { label: String::new(), points: vec![(2.0, 0.0)], look: Look::Ticks(9) },
        ];
        let svg = svg("a < b", &series, Unit::Plain).unwrap();
        assert!(
            svg.starts_with("<svg viewBox=\"0 0 1600 840\" role=\"img\" aria-label=\"a &lt; b\">"),
            "{svg}"
        );
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("class=\"l0\"") && svg.contains("class=\"l1\""));
        assert!(!svg.contains('#'), "{svg}");
    }

    #[test]
    fn one_round_and_no_round_are_drawn() {
        for points in [vec![(1.0, 0.0)], Vec::new()] {
            svg("one", &[Series { label: String::new(), points, look: Look::Line(0) }], Unit::Bytes).unwrap();
        }
    }
}
