//! The page of `round report --html`: one file, plots and tables, without script, for any screen.
//!
//! `plots` chooses what each plot shows, `draw` draws one, `glance` has the head of the page, `tables` its tables,
//! `numbers` writes numbers. `page.html` is the template; it escapes every text. The page also forbids all scripts and
//! all requests, so that a text which slipped through could do nothing.

mod draw;
mod glance;
mod numbers;
mod plots;
mod tables;

use super::derived::Derived;
use super::escape::escaped;
use super::metrics::{Outcome, RoundRecord};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, value::Serde};
use serde::Serialize;
use std::borrow::Cow;

/// What the page says besides its figures.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The name of the federation.
    pub title: &'a str,
    /// What the current round waits for, in a sentence. `None` for nothing.
    pub status: Option<&'a str>,
    /// The number of rounds that the convergence rate looks at.
    pub window: u64,
}

/// Why a page was not made.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum PageError {
    /// plotters could not draw.
    #[error("the report page: a plot cannot be drawn: {0}")]
    NotDrawn(String),
    /// The template could not be filled in.
    #[error("the report page: the template cannot be filled in")]
    Template(#[from] minijinja::Error),
}

/// What the template takes.
#[derive(Serialize)]
struct Page<'a> {
    title: Cow<'a, str>,
    status: Option<Cow<'a, str>>,
    version: &'static str,
    rounds: usize,
    published: usize,
    refused: usize,
    is_published: Option<bool>,
    last_success: Option<String>,
    model: Option<&'a str>,
    attention: Vec<String>,
    tiles: Vec<glance::Tile>,
    plots: Vec<plots::Plot>,
    table: Vec<tables::RoundRow>,
    turned_away: Option<Vec<tables::ClientRow>>,
    adapted: Vec<tables::SettingRow>,
    most_rounds: usize,
    most_rows: usize,
}

/// The page of all rounds up to now, as HTML. Records are in order of their rounds; there may be none.
///
/// # Errors
///
/// When a plot cannot be drawn or the template cannot be filled in.
pub fn page(records: &[RoundRecord], about: &About<'_>) -> Result<String, PageError> {
    let derived = Derived::of(records, about.window).unwrap_or_default();
    let is_published = |record: &&RoundRecord| record.outcome == Outcome::Published;
    let published = records.iter().filter(is_published).count();
    let page = Page {
        title: escaped(about.title),
        status: about.status.map(escaped),
        version: env!("CARGO_PKG_VERSION"),
        rounds: records.len(),
        published,
        refused: records.len() - published,
        is_published: records.last().map(|record| is_published(&record)),
        last_success: derived.last_published_at.map(numbers::time),
        model: records.iter().rev().find(is_published).and_then(|record| record.model.as_deref()),
        attention: glance::attention(records, &derived),
        tiles: glance::tiles(records, &derived),
        plots: plots::all(records, about.window).map_err(PageError::NotDrawn)?,
        table: tables::rounds(records),
        turned_away: tables::turned_away(records),
        adapted: tables::adapted(records),
        most_rounds: tables::ROUNDS,
        most_rows: tables::MOST_ROWS,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    let template = environment.template_from_str(include_str!("page.html"))?;
    Ok(template.render(Serde(page))?)
}
