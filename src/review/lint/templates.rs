//! References in the texts of stages.

use super::finding::Lint;
use super::names::{known_input, known_stage};
use super::order::{self, Viewer};
use super::rules;
use crate::language::template::{Part, Reference, Template, each_text};
use crate::schema::stage::{ForEach, Shards, Stage};
use crate::schema::value::Scalar;

/// A text with references.
struct Text<'p> {
    at: String,
    text: &'p str,
    place: usize,
    stage: &'p Stage,
    /// Whether it is the path of an output.
    is_path: bool,
    /// Whether a reference alone in it stands for several files.
    takes_several: bool,
}

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        let text = |at: String, text| Text { at, text, place, stage, is_path: false, takes_several: false };
        for (number, argument) in stage.argv.iter().enumerate() {
            let found = text(format!("{at}.argv[{number}]"), argument.as_str());
            check_text(lint, &Text { takes_several: true, ..found });
        }
        for (name, value) in &stage.env {
            check_text(lint, &text(format!("{at}.env.{name}"), value));
        }
        for (key, value) in [("stdin", &stage.stdin), ("prompt", &stage.prompt)] {
            value.iter().for_each(|value| check_text(lint, &text(format!("{at}.{key}"), value)));
        }
        if let Some(body) = &stage.body {
            each_text(body, &format!("{at}.body"), &mut |at, value| check_text(lint, &text(at, value)));
        }
        for (key, value) in stage.texts_of_built_in() {
            let found = text(format!("{at}.{key}"), value);
            check_text(lint, &Text { takes_several: true, ..found });
            expect_files(lint, &format!("{at}.{key}"), stage, value);
        }
        for (option, value) in stage.consensus.iter().flat_map(|vote| &vote.candidates) {
            check_text(lint, &text(format!("{at}.consensus.candidates.{option}"), value));
        }
        for (name, value) in stage.plan.iter().flat_map(|nested| &nested.params) {
            if let Scalar::Text(value) = value {
                check_text(lint, &text(format!("{at}.plan.params.{name}"), value));
            }
        }
        for (number, out) in stage.out.iter().enumerate() {
            let found = text(format!("{at}.out[{number}].path"), out.path.as_str());
            check_text(lint, &Text { is_path: true, ..found });
        }
    }
}

fn check_text(lint: &mut Lint, text: &Text<'_>) {
    // Most texts have no references.
    if !text.text.contains(['{', '}']) {
        return;
    }
    let template = match Template::parse(text.text) {
        Ok(template) => template,
        Err(why) => return lint.add(&rules::TEMPLATE, text.at.clone(), format!("found {why}")),
    };
    let is_alone = text.takes_several && template.alone().is_some();
    for part in &template.parts {
        let Part::Ref(alternatives) = part else { continue };
        for reference in alternatives {
            check_reference(lint, text, reference, alternatives.len() > 1);
            if !is_alone && may_be_several(lint, reference) {
                let why = format!(
                    "found `{reference}` inside a longer text, where it must stand for one file; an argument that is the \
                     reference alone takes several"
                );
                lint.add(&rules::SEVERAL, text.at.clone(), why);
            }
        }
    }
}

/// Adds a finding unless a text is one reference, each alternative of which stands for files or, as `?`, for none.
fn expect_files(lint: &mut Lint, at: &str, stage: &Stage, text: &str) {
    // `check_text` finds what cannot be parsed.
    let Ok(template) = Template::parse(text) else { return };
    let is_file = |reference: &Reference| match reference {
        Reference::Input(_) | Reference::Carry(_) | Reference::Output(..) | Reference::At(..) => true,
        Reference::Item => matches!(stage.for_each, Some(ForEach::Input(_))),
        Reference::Nothing => true,
        _ => false,
    };
    if !template.alone().is_some_and(|alternatives| alternatives.iter().all(is_file)) {
        let why = format!("found `{text}`, expected one reference to files, such as {{part.text}}");
        lint.add(&rules::TEMPLATE, at, why);
    }
}

/// Whether a reference may stand for several files.
fn may_be_several(lint: &Lint, reference: &Reference) -> bool {
    match reference {
        Reference::Input(name) => {
            let found = lint.plan.input(name.as_str());
            found.is_some_and(|input| input.max != Some(1) && (input.glob.is_some() || input.min > 1))
        }
        Reference::Output(of, _) => {
            lint.index.stage(of.as_str()).is_some_and(|(_, stage)| match &stage.for_each {
                None | Some(ForEach::Range(1) | ForEach::Shards(Shards::Count(1))) => false,
                Some(ForEach::Values(values)) => values.len() > 1,
                Some(_) => true,
            })
        }
        _ => false,
    }
}

fn check_reference(lint: &mut Lint, text: &Text<'_>, reference: &Reference, has_others: bool) {
    match reference {
        Reference::Param(name) => {
            if !lint.plan.params.contains_key(name) {
                let known = lint.plan.params.keys().map(|name| name.as_str());
                lint.add_unknown(&rules::UNKNOWN, text.at.clone(), (name.as_str(), "a parameter"), known);
            }
        }
        Reference::Input(name) => known_input(lint, &text.at, name.as_str()),
        Reference::Own(name) => check_own(lint, text, name.as_str()),
        Reference::Carry(name) => check_carry(lint, text, name.as_str(), has_others),
        Reference::Output(of, name) => check_output(lint, text, of.as_str(), name.as_str()),
        Reference::At(of, name, Some(place)) => {
            check_output(lint, text, of.as_str(), name.as_str());
            check_place(lint, text, reference, (of.as_str(), *place));
        }
        Reference::At(of, name, None) => {
            check_output(lint, text, of.as_str(), name.as_str());
            check_fan_out(lint, text, reference);
        }
        Reference::Choice(of) => check_choice(lint, text, of.as_str()),
        Reference::Item | Reference::Index | Reference::Count | Reference::Shard | Reference::Shards => {
            check_fan_out(lint, text, reference);
        }
        Reference::Iteration => {
            if lint.index.loop_of[text.place].is_none() {
                let why = "found `{k}` outside of a loop, where it is 0";
                lint.add(&rules::FIRST, text.at.clone(), why);
            }
        }
        Reference::Key | Reference::Nothing | Reference::PlanFolder => {}
    }
}

/// The number of an instance of another stage.
fn check_place(lint: &mut Lint, text: &Text<'_>, reference: &Reference, (of, place): (&str, u32)) {
    let Some((_, stage)) = lint.index.stage(of) else { return };
    // Otherwise the number is known once the run starts.
    let Some(count) = stage.known_instances() else { return };
    if place >= count {
        let why =
            format!("found `{reference}`, and stage `{of}` has {count} instances, expected a number below");
        lint.add(&rules::TEMPLATE, text.at.clone(), why);
    }
}

fn check_fan_out(lint: &mut Lint, text: &Text<'_>, reference: &Reference) {
    if text.stage.for_each.is_none() && text.stage.consensus.is_none() {
        let why = format!("found `{reference}` in a stage that does not fan out, expected `for_each`");
        lint.add(&rules::TEMPLATE, text.at.clone(), why);
    }
}

fn check_own(lint: &mut Lint, text: &Text<'_>, name: &str) {
    if text.is_path {
        let why =
            format!("found `{{out.{name}}}` in the path of an output, expected no reference to an output");
        return lint.add(&rules::TEMPLATE, text.at.clone(), why);
    }
    if text.stage.out.iter().all(|out| out.name.as_str() != name) {
        let known = text.stage.out.iter().map(|out| out.name.as_str());
        lint.add_unknown(&rules::UNKNOWN, text.at.clone(), (name, "an output of the stage"), known);
    }
}

fn check_carry(lint: &mut Lint, text: &Text<'_>, name: &str, has_others: bool) {
    let Some(looped) = lint.index.loop_of[text.place] else {
        let why = format!("found `{{carry.{name}}}` outside of a loop");
        return lint.add(&rules::TEMPLATE, text.at.clone(), why);
    };
    let carry = &lint.plan.loops[looped].carry;
    match carry.iter().find(|(id, _)| id.as_str() == name) {
        None => {
            let known = carry.keys().map(|id| id.as_str());
            lint.add_unknown(&rules::UNKNOWN, text.at.clone(), (name, "a file that the loop carries"), known);
        }
        Some((_, carry)) if carry.init.is_none() && !has_others => {
            let why = format!(
                "found `{{carry.{name}}}`, which has no file in the first iteration, expected `init` in the loop or an \
                 alternative behind |"
            );
            lint.add(&rules::CARRY, text.at.clone(), why);
        }
        Some(_) => {}
    }
}

fn check_output(lint: &mut Lint, text: &Text<'_>, of: &str, name: &str) {
    let Some((place, stage)) = lint.index.stage(of) else { return known_stage(lint, &text.at, of) };
    let outputs = lint.index.outputs(stage);
    if !outputs.contains(&name) {
        let expected = format!("an output of stage `{of}`");
        return lint.add_unknown(&rules::UNKNOWN, text.at.clone(), (name, &expected), outputs);
    }
    expect_before(lint, text, place, &format!("{{{of}.{name}}}"));
}

fn check_choice(lint: &mut Lint, text: &Text<'_>, of: &str) {
    let Some((place, stage)) = lint.index.stage(of) else { return known_stage(lint, &text.at, of) };
    if super::index::Index::choices(stage).is_empty() {
        let why = format!(
            "found `{{{of}}}`, a stage that chooses nothing, expected a decision, a vote or {{{of}.OUTPUT}}"
        );
        return lint.add(&rules::TEMPLATE, text.at.clone(), why);
    }
    expect_before(lint, text, place, &format!("{{{of}}}"));
}

fn expect_before(lint: &mut Lint, text: &Text<'_>, place: usize, reference: &str) {
    let (of, name) = (&lint.plan.stages[place].id, &text.stage.id);
    let why = format!(
        "found `{reference}`, and stage `{name}` does not wait for `{of}`, expected `{of}` in its `needs`"
    );
    order::expect_before(lint, Viewer::Stage(text.place), &[place], &rules::ORDER, &text.at, why);
}
