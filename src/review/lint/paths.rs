//! Inputs and outputs: where their files lie.

use super::finding::Lint;
use super::rules;
use crate::schema::stage::{Out, clashes};
use crate::schema::{Input, Pin};
use crate::tasks::folder::OWN;
use std::path::{Component, Path};

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, input) in plan.inputs.iter().enumerate() {
        check_input(lint, &format!("$.inputs[{place}]"), input);
    }
    for (place, stage) in plan.stages.iter().enumerate() {
        for (number, out) in stage.out.iter().enumerate() {
            if out.path != "-" && !is_plain(&out.path) {
                let why = format!(
                    "found path `{}`, expected one inside of the folder of the attempt, without `.` and `..`",
                    out.path
                );
                lint.add(&rules::PATH, format!("$.stages[{place}].out[{number}].path"), why);
            }
        }
        // Outputs of a plan lie in a folder with their name each.
        if stage.plan.is_none() {
            check_clashes(lint, place);
        }
        let mut printed = stage.out.iter().enumerate().filter(|(_, out)| out.path == "-");
        if let Some((number, _)) = printed.nth(1) {
            let why = "found `-` again, expected one output that is what the command prints";
            lint.add(&rules::TWICE, format!("$.stages[{place}].out[{number}].path"), why);
        }
    }
    let kill_file = &plan.safety.kill_file;
    if !is_inside(kill_file) {
        let why = format!("found path `{kill_file}`, expected one inside of the directory of the run");
        lint.add(&rules::PATH, "$.safety.kill_file", why);
    }
    let first = Path::new(kill_file).components().find(|part| *part != Component::CurDir);
    let first = first.and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
    if OWN.contains(&first.to_lowercase().as_str()) {
        let why = format!("found `{first}`, which the runner makes itself, expected another name");
        lint.add(&rules::PATH, "$.safety.kill_file", why);
    }
}

/// Outputs of a stage whose files would be one.
fn check_clashes(lint: &mut Lint, place: usize) {
    let outs = &lint.plan.stages[place].out;
    for [first, later] in clashes(outs.iter().map(|out| (out.name.as_str(), out.path.as_str()))) {
        let (one, other) = (&outs[first], &outs[later]);
        // Two that are printed are a finding as such.
        if one.path != "-" || other.path != "-" {
            let shown = |at: &Out| match at.path.as_str() {
                "-" => format!("`-` (kept as `{}`)", at.name),
                path => format!("`{path}`"),
            };
            let why = format!(
                "found {} where $.stages[{place}].out[{first}].path has {}; expected paths of which none is the other or \
                 its folder, whatever their case",
                shown(other),
                shown(one)
            );
            lint.add(&rules::TWICE, format!("$.stages[{place}].out[{later}].path"), why);
        }
    }
}

/// Whether a path names a file below its folder in the shortest way.
fn is_plain(path: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    // Components leave out dots in the middle and doubled slashes.
    !path.is_empty()
        && parts.iter().all(|part| matches!(part, Component::Normal(_)))
        && path.split('/').filter(|part| !part.is_empty()).count() == parts.len()
        && !path.ends_with('/')
}

/// Whether a path is one below its folder.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn check_input(lint: &mut Lint, at: &str, input: &Input) {
    match (&input.path, &input.glob) {
        (Some(_), Some(_)) => {
            lint.add(&rules::PATH, at, "found both `path` and `glob`, expected one of them");
        }
        (None, None) => lint.add(&rules::PATH, at, "found neither `path` nor `glob`, expected one of them"),
        (Some(path), None) => check_inside(lint, &format!("{at}.path"), path),
        (None, Some(pattern)) => {
            check_inside(lint, &format!("{at}.glob"), pattern);
            let fault = pattern.split('/').find_map(|part| glob::Pattern::new(part).err());
            if let Some(why) = fault {
                lint.add(
                    &rules::PATH,
                    format!("{at}.glob"),
                    format!("found `{pattern}`, which is no pattern: {}", why.msg),
                );
            }
        }
    }
    if let Some(most) = input.max.filter(|most| *most < input.min) {
        let why = format!("found {most}, expected at least the {} of `min`", input.min);
        lint.add(&rules::LIMIT, format!("{at}.max"), why);
    }
    let Pin::Files(pins) = &input.pin else { return };
    for (path, pin) in pins {
        let digits = pin.strip_prefix("blake3:").or_else(|| pin.strip_prefix("sha256:"));
        let is_digest =
            |hex: &str| hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        if !digits.is_some_and(is_digest) {
            let why = format!("found `{pin}`, expected blake3: or sha256: and 64 digits of lower-case hex");
            lint.add(&rules::PATH, format!("{at}.pin.{path}"), why);
        }
    }
}

fn check_inside(lint: &mut Lint, at: &str, path: &str) {
    if !is_inside(path) {
        let why = format!(
            "found `{path}`, expected a path inside of the plan's folder; --input names files elsewhere"
        );
        lint.add(&rules::PATH, at, why);
    }
}
