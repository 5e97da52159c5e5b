//! The tables of rules, steps, strategies, codecs, kernels, figures and keys in `docs`.
//!
//! They come from the registries, the heads of their files and the types of the configuration. `just bless` writes them anew.

mod codecs;
mod configuration;
#[cfg(feature = "gpu")]
mod kernels;
mod plans;

use crate::harness::{shortest, source_tree};
use crate::robust::id;
use crate::robust::passes::reads_of_rule;
use fedmill::rules::pre::{self, STEPS};
use fedmill::rules::{self, RULES};
use fedmill::settings::{Definition, RegistryEntry, Setting};
use fedmill::strategies::STRATEGIES;
use fedmill::telemetry::figures::FIGURES;
use fedmill::telemetry::prometheus::PREFIX;
use fedmill::watch::figures as runs;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The points of a file's head, `//! - Name: text.`, by name.
fn points(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut points: Vec<String> = Vec::new();
    let mut in_point = false;
    for line in text.lines().map_while(|line| line.strip_prefix("//!")) {
        if let Some(point) = line.strip_prefix(" - ") {
            points.push(point.to_owned());
            in_point = true;
            continue;
        }
        match line.strip_prefix("   ") {
            Some(more) if in_point => *points.last_mut().unwrap() += &format!(" {more}"),
            _ => in_point = false,
        }
    }
    let split = |point: &String| {
        let (name, text) = point.split_once(": ").unwrap_or_else(|| panic!("{point} has no name"));
        (name.to_owned(), text.trim_end_matches('.').to_owned())
    };
    points.iter().map(split).collect()
}

/// The row of an entry: its name, its summary, and the other columns.
fn row<T>(root: &Path, folder: &str, entry: &RegistryEntry<T>, columns: &[Column]) -> String {
    let file = root.join(folder).join(format!("{}.rs", entry.name.replace('-', "_")));
    let points = points(&file);
    let cell = |column: &Column| match column {
        Column::Settings(first) => {
            let setting = |setting: &Setting| {
                let required = if setting.is_required { " (required)" } else { "" };
                format!("`{}={}`{required}: {}", setting.key, setting.example, setting.meaning)
            };
            let settings = entry.settings.iter().map(setting);
            first.iter().map(|first| (*first).to_owned()).chain(settings).collect::<Vec<_>>().join("<br>")
        }
        Column::Text(text) => (*text).to_owned(),
        Column::Point(names) => {
            let found = names.iter().find_map(|name| points.get(*name));
            found.unwrap_or_else(|| panic!("{}: the head has no {}", file.display(), names[0])).clone()
        }
        Column::Optional(name) => points.get(*name).cloned().unwrap_or_default(),
    };
    let cells = [format!("`{}`", entry.name), entry.summary.to_owned()];
    line(cells.into_iter().chain(columns.iter().map(cell)))
}

enum Column {
    /// The settings, after the required options.
    Settings(Option<&'static str>),
    Text(&'static str),
    /// A point that must exist, under one of these names.
    Point(&'static [&'static str]),
    Optional(&'static str),
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cell = |cell: String| {
        if cell.is_empty() { " |".to_owned() } else { format!(" {} |", cell.replace('|', "\\|")) }
    };
    format!("|{}", cells.into_iter().map(cell).collect::<String>())
}

/// Compares the lines between two markers of a page with a table, or writes them.
fn check(page: &Path, mark: &str, head: &[&str], rows: impl Iterator<Item = String>) {
    compare(page, mark, &table(head, rows));
}

/// The lines of a table.
fn table(head: &[&str], rows: impl Iterator<Item = String>) -> String {
    let titles = line(head.iter().map(|title| (*title).to_owned()));
    let rule = format!("|{}", "---|".repeat(head.len()));
    [titles, rule].into_iter().chain(rows).map(|line| line + "\n").collect()
}

/// Compares the lines between two markers of a page with a text, or writes them.
fn compare(page: &Path, mark: &str, expected: &str) {
    let text = fs::read_to_string(page).unwrap();
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{}: no {begin}", page.display()));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{}: no {end}", page.display()));
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(page, [before, &begin, expected, &end, after].concat()).unwrap();
        return;
    }
    assert_eq!(found, expected, "{}: `{mark}` is not what the source has: `just bless`", page.display());
}

#[test]
fn the_table_of_rules_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let rows = RULES.iter().map(|entry| {
        let text = shortest(entry, &id(0));
        let rule = rules::parse(&text, Definition::Paper).unwrap();
        let columns = [
            Column::Point(&["Tolerates"]),
            Column::Text(reads_of_rule(&text)),
            Column::Settings(rule.uses_byzantine().then_some("by F")),
            Column::Point(&["Paper", "Source"]),
        ];
        row(root, "src/rules", entry, &columns)
    });
    let head = ["rule", "what it does", "tolerates", "reads", "settings", "paper"];
    check(&root.join("docs/rules.md"), "rules", &head, rows);
}

#[test]
fn the_table_of_steps_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let rows = STEPS.iter().map(|entry| {
        let step = pre::parse(&shortest(entry, "ID")).unwrap();
        let columns = [
            Column::Point(&["Tolerates"]),
            Column::Point(&["Leaves"]),
            Column::Settings(step.uses_byzantine().then_some("by F")),
            Column::Point(&["Paper", "Source"]),
        ];
        row(root, "src/rules/pre", entry, &columns)
    });
    let head = ["step", "what it does", "tolerates", "leaves the rule", "settings", "paper"];
    check(&root.join("docs/rules.md"), "steps", &head, rows);
}

#[test]
fn the_table_of_strategies_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let columns = [
        Column::Optional("Before the rule"),
        Column::Point(&["Step"]),
        Column::Settings(None),
        Column::Optional("Keeps"),
        Column::Optional("Clients send"),
        Column::Point(&["Paper"]),
    ];
    let rows = STRATEGIES.iter().map(|entry| row(root, "src/strategies", entry, &columns));
    let head = [
        "strategy",
        "what it does",
        "before the rule",
        "the server's step",
        "settings",
        "keeps",
        "clients send",
        "paper",
    ];
    check(&root.join("docs/strategies.md"), "strategies", &head, rows);
}

#[test]
fn the_table_of_exported_figures_is_that_of_the_exporter() {
    let Some(root) = source_tree() else { return };
    let rows = FIGURES.iter().map(|figure| {
        let label = figure.label().map(|label| format!("`{label}`")).unwrap_or_default();
        let name = format!("`{PREFIX}{}`", figure.name);
        line([name, figure.group.to_owned(), figure.kind.name().to_owned(), label, figure.help.to_owned()])
    });
    let head = ["name", "group", "type", "label", "what it is"];
    check(&root.join("docs/monitoring.md"), "figures", &head, rows);
}

#[test]
fn the_table_of_figures_of_runs_is_that_of_the_exporter() {
    let Some(root) = source_tree() else { return };
    let rows = std::iter::once(&runs::RUNS).chain(runs::FIGURES).map(|figure| {
        let label = figure.label.map(|label| format!("`{label}`")).unwrap_or_default();
        let name = format!("`{PREFIX}{}`", figure.name);
        line([name, figure.kind.name().to_owned(), label, figure.help.to_owned()])
    });
    check(&root.join("docs/monitoring.md"), "run-figures", &["name", "type", "label", "what it is"], rows);
}

#[test]
fn the_table_of_selection_strategies_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let columns = [
        Column::Point(&["Formula"]),
        Column::Point(&["Probability"]),
        Column::Settings(None),
        Column::Optional("Pacer"),
    ];
    let entries = fedmill::fleet::select::STRATEGIES.iter();
    let rows = entries.map(|entry| row(root, "src/fleet/select", entry, &columns));
    let head = ["strategy", "what it does", "formula", "probability", "settings", "pacer"];
    check(&root.join("docs/clients.md"), "selection", &head, rows);
}

#[test]
fn points_of_a_head_go_on_over_lines() {
    let dir = crate::harness::Dir::new();
    dir.write("a.rs", "//! First line.\n//!\n//! - Paper: one,\n//!   two.\n//! - Keeps: `m`.\n//!\n//!   not this\n\n//! - No: x.\n");
    let points = points(&dir.path("a.rs"));
    assert_eq!(
        points.into_iter().collect::<Vec<_>>(),
        [("Keeps".to_owned(), "`m`".to_owned()), ("Paper".to_owned(), "one, two".to_owned()),]
    );
}
