//! The common parts of all plots: the file, colors, the style of a chart, the legend beside it.

use super::BenchError;
use super::raster::{self, Raster};
use crate::telemetry::escape;
use plotters::chart::{ChartBuilder, MeshStyle};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use std::path::Path;

/// Colors of lines and points, in turn.
pub(super) const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

/// Pixels of a line of text.
pub(super) const LINE: u32 = 20;

/// The file format of a plot.
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

    /// The first bytes of every file of the format.
    pub fn start(self) -> &'static [u8] {
        match self {
            Self::Svg => b"<svg",
            Self::Png => b"\x89PNG",
        }
    }
}

/// A part of a plot.
pub(super) type Area<B> = DrawingArea<B, Shift>;

/// The outcome of drawing.
pub(super) type DrawResult<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// A plot.
pub(super) trait Picture {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws the plot.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B>;
}

/// A plot as a file of this format.
pub(super) fn render(picture: &impl Picture, format: Format) -> Result<Vec<u8>, BenchError> {
    let size = picture.size();
    match format {
        Format::Svg => {
            let mut text = String::new();
            draw_on(&SVGBackend::with_string(&mut text, size).into_drawing_area(), picture)?;
            Ok(escape::xml(&text).into_owned().into_bytes())
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

/// The smallest and the largest value, widened by the factor `room` at both ends.
pub(super) fn range(values: impl Iterator<Item = f64>, room: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    low / room..high * room
}

/// A chart with a title and room for the labels of its axes.
pub(super) fn chart<'a, 'b, B: DrawingBackend>(area: &'a Area<B>, title: &str) -> ChartBuilder<'a, 'b, B> {
    let mut chart = untitled(area);
    chart.caption(title, ("sans-serif", 18));
    chart
}

/// A chart with room for the labels of its axes.
pub(super) fn untitled<'a, 'b, B: DrawingBackend>(area: &'a Area<B>) -> ChartBuilder<'a, 'b, B> {
    let mut chart = ChartBuilder::on(area);
    // The last label of the axis at the bottom reaches beyond the chart by half its width.
    chart.margin(10).margin_right(44).x_label_area_size(44).y_label_area_size(84);
    chart
}

/// Gives the mesh of a chart the style of all plots.
pub(super) fn style<'s, 'a, 'b, X, Y, B>(
    mesh: &'s mut MeshStyle<'a, 'b, X, Y, B>,
) -> &'s mut MeshStyle<'a, 'b, X, Y, B>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    B: DrawingBackend,
{
    mesh.light_line_style(BLACK.mix(0.04)).bold_line_style(BLACK.mix(0.12)).label_style(("sans-serif", 14))
}

/// The sign before a name in a legend. Points of different kinds differ in shape too.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    /// A line of this look.
    Line(ShapeStyle),
    /// A dashed line.
    Dashes(RGBAColor),
    /// A dot.
    Dot(RGBColor),
    /// A triangle.
    Triangle(RGBColor),
    /// Two lines that cross.
    Cross(RGBColor),
}

impl Mark {
    /// Draws the sign around this pixel.
    pub(super) fn draw<B: DrawingBackend>(self, area: &Area<B>, (x, y): (i32, i32)) -> DrawResult<B> {
        match self {
            Self::Line(look) => area.draw(&PathElement::new([(x - 11, y), (x + 11, y)], look)),
            Self::Dashes(color) => [-11, -3, 5]
                .into_iter()
                .try_for_each(|dash| area.draw(&PathElement::new([(x + dash, y), (x + dash + 5, y)], color))),
            Self::Dot(color) => area.draw(&Circle::new((x, y), 4, color.filled())),
            Self::Triangle(color) => area.draw(&TriangleMarker::new((x, y), 6, color.filled())),
            Self::Cross(color) => area.draw(&Cross::new((x, y), 4, color.stroke_width(2))),
        }
    }
}

/// Writes names below each other, beside a chart: inside the chart they would hide its lines.
pub(super) fn draw_legend<B: DrawingBackend>(area: &Area<B>, entries: Vec<(Mark, String)>) -> DrawResult<B> {
    for ((mark, name), y) in entries.into_iter().zip((48..).step_by(LINE as usize)) {
        mark.draw(area, (11, y))?;
        area.draw(&Text::new(name, (30, y - 8), ("sans-serif", 14).into_font()))?;
    }
    Ok(())
}
