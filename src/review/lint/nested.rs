//! Plans inside of plans: their files, and what their stages give and take.

use super::finding::{Finding, Lint, finding};
use super::rules;
use crate::plan::nested::{self, Inner, file_of};
use crate::schema::Plan;
use crate::schema::stage::{Kind, Stage};
use crate::settings::nearest::nearest;
use std::path::Path;

/// What a stage says of a plan, without a look at its file.
pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        let runs = stage.kind == Some(Kind::Plan);
        match &stage.plan {
            None if runs => lint.add(&rules::MISSING, at, "found no `plan`, expected the file that it runs"),
            Some(_) if !runs => {
                let why = "found `plan` in a stage of another kind, expected `kind: plan`";
                lint.add(&rules::FIELD, format!("{at}.plan"), why);
            }
            Some(nested) => {
                if let Err(why) = file_of(nested) {
                    lint.add(&rules::NESTED, format!("{at}.plan.file"), why);
                }
                if stage.timeout.is_none() && plan.limits.timeout.is_none() {
                    let why =
                        "found no timeout of the whole plan, expected `timeout` here or `limits.timeout`";
                    lint.add(&rules::TIMEOUT, at, why);
                }
            }
            None => {}
        }
    }
}

/// The findings about the plans that a plan runs. Each place begins with the name of the file.
pub(super) fn findings(plan: &Plan, path: &Path) -> Vec<Finding> {
    let base = path.parent().unwrap_or(Path::new(""));
    let all = match nested::all(plan, base, path.file_name().map(Path::new)) {
        Ok(all) => all,
        Err((at, why)) => return vec![finding(&rules::NESTED, at, why)],
    };
    let mut found = Vec::new();
    for inner in &all {
        let outer = inner.outer.map_or(plan, |outer| &all[outer].plan);
        if let Some((at, why)) = nested::exceeds(outer, inner) {
            found.push(finding(&rules::NESTED, at, why));
        }
        names(&outer.stages[inner.stage], inner, &mut found);
        found.extend(
            super::lint(&inner.plan).into_iter().map(|finding| Finding {
                at: format!("{}: {}", inner.file.display(), finding.at),
                ..finding
            }),
        );
    }
    found
}

/// Names of parameters, inputs and outputs that the inner plan does not have.
fn names(stage: &Stage, inner: &Inner, found: &mut Vec<Finding>) {
    let (plan, file) = (&inner.plan, inner.file.display());
    let mut unknown = |at: String, name: &str, what: &str, known: Vec<&str>| {
        let why = format!("found `{name}`, expected {what} of {file}");
        let nearest = nearest(name, known).map(str::to_owned);
        found.push(Finding { nearest, ..finding(&rules::NESTED, at, why) });
    };
    let Some(nested) = &stage.plan else { return };
    for name in nested.params.keys().filter(|name| !plan.params.contains_key(*name)) {
        let known = plan.params.keys().map(|name| name.as_str()).collect();
        unknown(format!("{}.params.{name}", inner.at), name.as_str(), "a parameter", known);
    }
    for name in nested.inputs.keys().filter(|name| plan.input(name.as_str()).is_none()) {
        let known = plan.inputs.iter().map(|input| input.name.as_str()).collect();
        unknown(format!("{}.inputs.{name}", inner.at), name.as_str(), "an input", known);
    }
    let outputs: Vec<String> = plan
        .stages
        .iter()
        .filter(|stage| !stage.fans_out())
        .flat_map(|stage| stage.out.iter().map(move |out| format!("{}.{}", stage.id, out.name)))
        .collect();
    for (number, out) in stage.out.iter().enumerate().filter(|(_, out)| !outputs.contains(&out.path)) {
        let at = format!("{}.out[{number}].path", inner.at.trim_end_matches(".plan"));
        let known = outputs.iter().map(String::as_str).collect();
        unknown(at, &out.path, "STAGE.OUTPUT, of a stage that does not fan out,", known);
    }
}
