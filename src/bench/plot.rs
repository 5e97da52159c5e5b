//! Draws time against clients: a panel for each kernel and rule.
//!
//! Both axes are logarithmic. Dashed lines are limits.

use super::BenchError;
use super::picture::{self, Area, COLORS, DrawResult, Format, LINE, Mark, Picture, range};
use super::results::{Backend, Results, Row, Subject, Work, duration};
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Pixels of a panel.
const PANEL: (u32, u32) = (720, 400);

/// Width of a panel's legend in pixels.
const LEGEND: u32 = 220;

/// Panels beside each other.
const COLUMNS: usize = 2;

/// Most panels that are drawn. More would not be legible.
pub const MOST_PANELS: usize = 24;

/// Draws results as a file of this format.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn draw(results: &Results, format: Format) -> Result<Vec<u8>, BenchError> {
    picture::render(&Panels { results, panels: Panel::all(results) }, format)
}

/// The whole plot.
struct Panels<'a> {
    results: &'a Results,
    panels: Vec<Panel>,
}

/// Times of one subject.
struct Panel {
    title: String,
    series: Vec<Series>,
}

/// Times of a backend by clients, and the least times that are possible.
struct Series {
    label: String,
    limit_label: String,
    color: RGBColor,
    seconds: Vec<(f64, f64)>,
    limits: Vec<(f64, f64)>,
}

/// The machine and its devices, a line each.
fn head(results: &Results) -> Vec<String> {
    let machine = &results.machine;
    let mut lines = vec![
        format!("fedmill {} bench: median time of {} runs", results.tool.version, results.settings.samples),
        format!("cpu: {}, {}, {} threads", machine.processor, machine.instruction_set, machine.threads),
    ];
    for adapter in &machine.adapters {
        let number = number_of(results, &adapter.name);
        lines.push(format!("gpu{number}: {}, {}", adapter.name, adapter.driver));
    }
    lines
}

fn head_height(results: &Results) -> u32 {
    (head(results).len() as u32 + 1) * LINE
}

/// The number of a device, empty if there is only one.
fn number_of(results: &Results, adapter: &str) -> String {
    let adapters = &results.machine.adapters;
    let place = adapters.iter().position(|other| other.name == adapter).filter(|_| adapters.len() > 1);
    place.map_or_else(String::new, |place| format!(" {}", place + 1))
}

impl Panel {
    fn all(results: &Results) -> Vec<Self> {
        let mut subjects: Vec<&Subject> = Vec::new();
        for row in &results.rows {
            if !subjects.contains(&&row.subject) {
                subjects.push(&row.subject);
            }
        }
        // Kernels first, in the order in which they were measured.
        subjects.sort_by_key(|subject| subject.work);
        subjects.into_iter().take(MOST_PANELS).map(|subject| Self::of(subject, results)).collect()
    }

    fn of(subject: &Subject, results: &Results) -> Self {
        let mut sides: BTreeMap<(Option<&str>, Backend), Vec<&Row>> = BTreeMap::new();
        for row in results.rows.iter().filter(|row| row.subject == *subject) {
            sides.entry((row.adapter.as_deref(), row.backend)).or_default().push(row);
        }
        let series = sides.into_iter().zip(COLORS.iter().cycle());
        let series = series.map(|(((adapter, backend), rows), color)| {
            let number = adapter.map_or_else(String::new, |adapter| number_of(results, adapter));
            Series::of(&format!("{backend}{number}"), rows, *color)
        });
        Self { title: subject.to_string(), series: series.collect() }
    }
}

impl Series {
    fn of(label: &str, mut rows: Vec<&Row>, color: RGBColor) -> Self {
        rows.sort_by_key(|row| row.clients);
        let points =
            |seconds: fn(&Row) -> f64| rows.iter().map(|row| (row.clients as f64, seconds(row))).collect();
        let of_files = rows.first().filter(|row| row.subject.work != Work::Kernel);
        Self {
            label: label.to_owned(),
            limit_label: of_files
                .map_or_else(|| format!("limit of {label}"), |row| format!("limit: {}", row.limit.name)),
            color,
            seconds: points(|row| row.latency.total.p50_ns as f64 / 1e9),
            limits: points(|row| row.limit.seconds.max(1e-9)),
        }
    }
}

impl Picture for Panels<'_> {
    fn size(&self) -> (u32, u32) {
        let rows = self.panels.len().div_ceil(COLUMNS).max(1) as u32;
        (PANEL.0 * COLUMNS as u32, head_height(self.results) + PANEL.1 * rows)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (top, body) = area.split_vertically(head_height(self.results));
        for (line, y) in head(self.results).into_iter().zip((8..).step_by(LINE as usize)) {
            top.draw(&Text::new(line, (12, y), ("sans-serif", 16).into_font()))?;
        }
        let places = body.split_evenly((self.panels.len().div_ceil(COLUMNS).max(1), COLUMNS));
        self.panels.iter().zip(&places).try_for_each(|(panel, place)| draw_panel(place, panel))
    }
}

fn draw_panel<B: DrawingBackend>(area: &Area<B>, panel: &Panel) -> DrawResult<B> {
    let (area, legend) = area.split_horizontally(PANEL.0 - LEGEND);
    picture::draw_legend(&legend, panel.legend())?;
    let points = || panel.series.iter().flat_map(|series| series.seconds.iter().chain(&series.limits));
    let mut clients: Vec<f64> = points().map(|point| point.0).collect();
    clients.sort_by(f64::total_cmp);
    clients.dedup();
    let across = range(clients.iter().copied(), 1.3);
    let up = range(points().map(|point| point.1), 2.0);
    let mut chart = picture::chart(&area, &panel.title)
        .build_cartesian_2d(across.log_scale().with_key_points(clients), up.log_scale())?;
    picture::style(&mut chart.configure_mesh())
        .x_desc("clients")
        .x_label_formatter(&|clients| format!("{clients:.0}"))
        .y_label_formatter(&|seconds| duration((seconds * 1e9) as u64))
        .draw()?;
    for series in &panel.series {
        let line = series.color.stroke_width(2);
        chart.draw_series(LineSeries::new(series.seconds.iter().copied(), line).point_size(3))?;
        let faint = series.color.mix(0.6).stroke_width(1);
        chart.draw_series(DashedLineSeries::new(series.limits.iter().copied(), 6, 4, faint))?;
    }
    Ok(())
}

impl Panel {
    fn legend(&self) -> Vec<(Mark, String)> {
        let entries = |series: &Series| {
            let line = (Mark::Line(series.color.stroke_width(2)), series.label.clone());
            [line, (Mark::Dashes(series.color.mix(0.6)), series.limit_label.clone())]
        };
        self.series.iter().flat_map(entries).collect()
    }
}
