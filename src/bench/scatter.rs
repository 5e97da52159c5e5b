//! Draws points of several kinds with labels beside them.
//!
//! A title and a key stand above the chart, notes below it.

use super::BenchError;
use super::labels::{self, Pixel, Room, Wanted};
use super::picture::{self, Area, DrawResult, Format, LINE, Mark, Picture};
use crate::telemetry::axis::Axis;
use crate::telemetry::cells::{cut, cut_inside, number};
use crate::telemetry::escape::escaped;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels of the plot.
const SIZE: (u32, u32) = (800, 560);

/// Pixels that a letter takes, in PNG files exactly one less.
const LETTER: i32 = 8;

/// Pixels from the left edge to text, and between the entries of a key.
const MARGIN: i32 = 14;

/// Pixels of the height of a label.
const HEIGHT: i32 = 16;

/// The most letters of a label.
const MOST_LETTERS: usize = 24;

/// The most labels that are tried.
const MOST_LABELS: usize = 100;

/// The colors of three kinds of points, which differ for colour-blind readers too.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub(super) const DARK: RGBColor = RGBColor(60, 60, 60);

/// Points of several kinds in one chart.
pub(super) struct Scatter {
    pub(super) title: String,
    /// The axis at the bottom.
    pub(super) across: Scale,
    /// The axis at the left.
    pub(super) up: Scale,
    /// The kinds of points. Those of an earlier one are drawn over those of a later one, and their labels go first.
    pub(super) groups: Vec<Group>,
    /// A value of the axis at the left that has a dashed line, and what it is.
    pub(super) limit: Option<(f64, String)>,
    /// Lines of text below the chart.
    pub(super) notes: Vec<String>,
}

/// An axis with its name.
pub(super) struct Scale {
    pub(super) name: String,
    pub(super) axis: Axis,
}

/// Points of one kind.
pub(super) struct Group {
    pub(super) mark: Mark,
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// A point and the label that it may have.
pub(super) struct Point {
    pub(super) at: (f64, f64),
    pub(super) label: Option<String>,
}

impl Point {
    /// A point that has the id of a client as its label if it `is_labelled`.
    pub(super) fn of_client(id: &str, at: (f64, f64), is_labelled: bool) -> Self {
        Self { at, label: is_labelled.then(|| cut_inside(&escaped(id), MOST_LETTERS)) }
    }
}

/// A mark of the chart in pixels, with its label.
type Drawn<'a> = (Mark, Pixel, Option<&'a str>);

/// An entry of the key: its mark and name, and where it stands.
type Entry = (Mark, String, Pixel);

impl Scatter {
    /// Draws the points as a file of this format.
    pub(super) fn render(&self, format: Format) -> Result<Vec<u8>, BenchError> {
        picture::render(self, format)
    }

    /// The entries of the key with their places, and the height of all above the chart.
    fn key(&self) -> (Vec<Entry>, u32) {
        let groups = self.groups.iter().filter(|group| !group.points.is_empty());
        let groups = groups.map(|group| (group.mark, format!("{} ({})", group.name, group.points.len())));
        let limit = self
            .limit
            .iter()
            .map(|(value, name)| (Mark::Dashes(DARK.into()), format!("{name}: {}", tick(*value))));
        let (mut x, mut y) = (MARGIN, 2 * LINE as i32);
        let mut entries = Vec::new();
        for (mark, name) in groups.chain(limit) {
            let width = 28 + width(&name) + MARGIN;
            if x > MARGIN && x + width > SIZE.0 as i32 {
                (x, y) = (MARGIN, y + LINE as i32);
            }
            entries.push((mark, name, (x, y)));
            x += width;
        }
        (entries, (y + LINE as i32) as u32)
    }

    /// Writes labels beside their marks. Returns how many have no room.
    fn draw_labels<B: DrawingBackend>(
        area: &Area<B>,
        marks: &[Drawn],
        room: Room,
    ) -> Result<usize, DrawingAreaErrorKind<B::ErrorType>> {
        let labelled: Vec<(Pixel, &str)> =
            marks.iter().filter_map(|(_, at, label)| Some((*at, (*label)?))).collect();
        let tried = &labelled[..labelled.len().min(MOST_LABELS)];
        let wanted: Vec<Wanted> = tried.iter().map(|(at, label)| (*at, (width(label), HEIGHT))).collect();
        let mut placed = 0;
        for ((at, label), place) in tried.iter().zip(room.places(&wanted)) {
            let Some(place) = place else { continue };
            placed += 1;
            if let Some(end) = place.leader {
                area.draw(&PathElement::new([*at, end], BLACK.mix(0.4)))?;
            }
            let side = [HPos::Right, HPos::Center, HPos::Left][(place.side + 1) as usize];
            let style = ("sans-serif", 14).into_font().into_text_style(area);
            let style = style.pos(Pos::new(side, VPos::Center));
            let middle = (place.at.0, place.top + HEIGHT / 2);
            area.draw(&Text::new((*label).to_owned(), middle, style))?;
        }
        Ok(labelled.len() - placed)
    }
}

impl Picture for Scatter {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (key, head) = self.key();
        // A line more, for labels without room.
        let foot = LINE * (self.notes.len() as u32 + 1);
        let (_, rest) = area.split_vertically(head);
        let (body, foot) = rest.split_vertically(SIZE.1 - head - foot);
        let text =
            |text: &str, at, size: i32| Text::new(text.to_owned(), at, ("sans-serif", size).into_font());
        area.draw(&text(&cut(&self.title, 84), (MARGIN, 10), 18))?;
        for (mark, name, (x, y)) in key {
            mark.draw(area, (x + 11, y + 8))?;
            area.draw(&text(&name, (x + 28, y), 14))?;
        }
        let (across, up) = (&self.across, &self.up);
        let mut chart = picture::untitled(&body).build_cartesian_2d(across.axis.clone(), up.axis.clone())?;
        picture::style(&mut chart.configure_mesh())
            .x_desc(&across.name)
            .y_desc(&up.name)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .draw()?;
        if let Some((limit, _)) = self.limit {
            let ends = across.axis.range();
            let line = [(ends.start, limit), (ends.end, limit)];
            chart.draw_series(DashedLineSeries::new(line, 6, 4, DARK.stroke_width(1)))?;
        }
        let marks: Vec<Drawn> = self
            .groups
            .iter()
            .flat_map(|group| group.points.iter().map(|point| (group.mark, point)))
            .map(|(mark, point)| (mark, chart.backend_coord(&point.at), point.label.as_deref()))
            .collect();
        marks.iter().rev().try_for_each(|(mark, at, _)| mark.draw(area, *at))?;
        let (x, y) = chart.plotting_area().get_pixel_range();
        let inside = labels::Area { left: x.start, top: y.start, right: x.end, bottom: y.end };
        let line =
            self.limit.as_ref().map(|(limit, _)| chart.backend_coord(&(across.axis.range().start, *limit)).1);
        let room = Room::new(inside, marks.iter().map(|mark| mark.1), line);
        let left_out = Self::draw_labels(area, &marks, room)?;
        let crowded = (left_out > 0).then(|| format!("labels without room: {left_out}"));
        for (note, y) in self.notes.iter().chain(&crowded).zip((0..).step_by(LINE as usize)) {
            foot.draw(&text(note, (MARGIN, y), 14))?;
        }
        Ok(())
    }
}

/// The most pixels that a text takes.
fn width(text: &str) -> i32 {
    LETTER * text.chars().count() as i32
}

/// A value as an axis shows it.
fn tick(value: f64) -> String {
    number(value).replace(".0000e", "e")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_label_of_an_axis_is_inside_the_picture() {
        let axis = Axis::spanning([1000.038, 1000.238].into_iter());
        let scale = || Scale { name: "value".to_owned(), axis: axis.clone() };
        let points = vec![Point { at: (1000.1, 1000.1), label: None }];
        let groups = vec![Group { mark: Mark::Dot(BLUE), name: "point".to_owned(), points }];
        let (across, up) = (scale(), scale());
        let scatter =
            Scatter { title: "ends".to_owned(), across, up, groups, limit: None, notes: Vec::new() };
        let svg = String::from_utf8(scatter.render(Format::Svg).unwrap()).unwrap();
        let label = svg.split("<text ").find(|text| text.contains("middle") && text.contains("\n1000.25\n"));
        let label = label.unwrap_or_else(|| panic!("no last label: {svg}"));
        let place = label.split('"').nth(1).and_then(|x| x.parse::<i32>().ok()).unwrap();
        assert!(place + width("1000.25") / 2 <= SIZE.0 as i32, "{label}");
    }
}
