//! Texts that a shell or an interpreter runs as code, and shell syntax where no shell reads it.

use super::super::finding::Lint;
use super::super::rules;
use crate::language::template::{Reference, Template};
use crate::language::tunable::{is_interpreter, is_wrapper};
use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::stage::{ForEach, Stage};
use crate::schema::value::Scalar;

/// Words that only a shell understands.
const WORDS: [&str; 12] = [">", ">>", "<", "|", "||", "&", "&&", ";", "2>", "2>&1", "&>", "<<"];

pub(in crate::review::lint) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        let commands = lint.index.agents_of(stage).into_iter().filter_map(|agent| match agent {
            Agent::Command(agent) => Some(&agent.argv),
            _ => None,
        });
        let Some(own) = commands.min_by_key(|argv| argv.len()) else { continue };
        let Some(program) = own.first() else { continue };
        let at = |index: usize| format!("$.stages[{place}].argv[{index}]");
        let all: Vec<&String> = own.iter().chain(&stage.argv).collect();
        let text = all.iter().position(|argument| is_code_option(argument)).map(|option| option + 1);
        if is_interpreter(program) || is_wrapper(program) {
            let own_text = text.and_then(|text| text.checked_sub(own.len()));
            let Some((index, text)) = own_text.and_then(|index| Some((index, stage.argv.get(index)?))) else {
                continue;
            };
            if let Some(found) = from_outside(plan, stage, text) {
                let why = format!(
                    "found `{found}` in a text that `{program}` runs: its characters run as code; pass it as an \
                     argument, {}",
                    advice(program)
                );
                lint.add(&rules::CODE, at(index), why);
            }
        } else {
            for (index, argument) in stage.argv.iter().enumerate() {
                if let Some(why) = shell_syntax(argument) {
                    lint.add(&rules::NO_SHELL, at(index), why);
                }
            }
        }
    }
}

/// Whether a text to run follows this option: `-c`, or letters that end with `c` as in `-ec`.
fn is_code_option(argument: &str) -> bool {
    let letters = argument.strip_prefix('-').unwrap_or_default();
    letters.ends_with('c') && letters.len() <= 4 && letters.bytes().all(|letter| letter.is_ascii_lowercase())
}

/// How a program reads an argument behind its text.
fn advice(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or_default();
    if name.starts_with("py") {
        "as in `[\"-c\", \"import sys; print(sys.argv[1])\", \"{item}\"]`".to_owned()
    } else {
        "as in `[\"-c\", \"cat \\\"$1\\\"\", \"sh\", \"{item}\"]`".to_owned()
    }
}

/// The first reference of a text whose value comes from outside of the plan: a file name, or a parameter that is a text.
fn from_outside(plan: &Plan, stage: &Stage, text: &str) -> Option<String> {
    let template = Template::parse(text).ok()?;
    template.references().find_map(|reference| match reference {
        Reference::Item if matches!(stage.for_each, Some(ForEach::Input(_))) => Some("{item}".to_owned()),
        Reference::Input(name) => Some(format!("{{in.{name}}}")),
        Reference::Param(name) => {
            let is_text = matches!(plan.params.get(name), Some(Scalar::Text(_)));
            is_text.then(|| format!("{{params.{name}}}"))
        }
        _ => None,
    })
}

/// What is wrong with an argument that no shell reads.
fn shell_syntax(argument: &str) -> Option<String> {
    let is_variable = |name: &str| {
        let name = name.trim_matches(['{', '}']);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"*?._-/".contains(&byte);
    let is_pattern = argument.contains("*.") && argument.bytes().all(is_path);
    if WORDS.contains(&argument) {
        return Some(format!("found `{argument}`, which the program gets as it stands: no shell reads it"));
    }
    if is_pattern || argument.starts_with("~/") || argument.strip_prefix('$').is_some_and(is_variable) {
        return Some(format!(
            "found `{argument}`, which the program gets as it stands: no shell expands it; name an input, or run `sh -c`"
        ));
    }
    let (first, rest) = argument.split_once(' ')?;
    let is_option = first.starts_with("--") && !first.contains('=') && !rest.trim().is_empty();
    is_option.then(|| {
        format!("found `{argument}`, expected one argument in each element: `{first}`, `{}`", rest.trim())
    })
}
