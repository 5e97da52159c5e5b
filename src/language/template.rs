//! Texts with references: `{params.f}`, `{in.updates}`, `{gram.g}`.
//!
//! A reference stands in braces; `{{` and `}}` are braces. `|` names alternatives: the first that exists is taken, so
//! that a stage behind two branches reads the one that ran. `?` at the end means nothing if none exists. An argument that
//! is one reference alone becomes one argument for each file.

use crate::schema::name::Id;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// A text with references.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    /// Its parts.
    pub parts: Vec<Part>,
}

/// A part of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// The first of these that exists.
    Ref(Vec<Reference>),
}

/// What a reference names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reference {
    /// A parameter: `{params.NAME}`.
    Param(Id),
    /// The files of an input: `{in.NAME}`.
    Input(Id),
    /// An output of the stage itself, as a path in its folder: `{out.NAME}`.
    Own(Id),
    /// A file from the iteration before: `{carry.NAME}`.
    Carry(Id),
    /// The outputs of another stage: `{STAGE.NAME}`.
    Output(Id, Id),
    /// The output of one instance of another stage: `{STAGE.NAME[index]}` of that with the same place in its fan-out,
    /// `{STAGE.NAME[2]}` of instance 2.
    At(Id, Id, Option<u32>),
    /// The case that a decision chose, or the option that won a vote: `{STAGE}`.
    Choice(Id),
    /// What the instance stands for: `{item}`.
    Item,
    /// The place of the instance, from 0 on: `{index}`.
    Index,
    /// The number of instances: `{count}`.
    Count,
    /// The number of the shard, from 1 on: `{shard}`.
    Shard,
    /// The number of shards: `{shards}`.
    Shards,
    /// The number of the iteration, from 1 on: `{k}`.
    Iteration,
    /// The key of the work, equal in each attempt: `{key}`.
    Key,
    /// The folder of the plan, as an absolute path: `{plan.dir}`.
    PlanFolder,
    /// Nothing, as the last alternative: `{STAGE.NAME?}`.
    Nothing,
}

/// Why a text is no template.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("`{text}`: {why}")]
pub struct TemplateError {
    /// The text.
    pub text: String,
    /// The reason.
    pub why: String,
}

impl Template {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// When a brace is not closed, or a reference is none.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fault = |why: String| TemplateError { text: text.to_owned(), why };
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let behind = &rest[at + 1..];
            if let Some(after) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(fault("found `}` without `{`; write `}}` for a brace".to_owned()));
            }
            let Some((inside, after)) = behind.split_once('}') else {
                return Err(fault("found `{` without `}`; write `{{` for a brace".to_owned()));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            let (named, nothing) = match inside.strip_suffix('?') {
                Some(named) => (named, Some(Ok(Reference::Nothing))),
                None => (inside, None),
            };
            let alternatives = named.split('|').map(str::parse).chain(nothing);
            let alternatives = alternatives.collect::<Result<Vec<Reference>, _>>();
            let with_braces =
                |why| format!("{why}; write `{{{{` and `}}}}` for braces that are no reference");
            parts.push(Part::Ref(alternatives.map_err(with_braces).map_err(fault)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The references, with all alternatives.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().flat_map(|part| match part {
            Part::Text(_) => &[],
            Part::Ref(alternatives) => alternatives.as_slice(),
        })
    }

    /// The reference, if the text is one reference alone.
    pub fn alone(&self) -> Option<&[Reference]> {
        match self.parts.as_slice() {
            [Part::Ref(alternatives)] => Some(alternatives),
            _ => None,
        }
    }

    /// The text with each reference replaced by its value.
    ///
    /// # Errors
    ///
    /// The first error of `value`.
    pub fn fill<E>(&self, mut value: impl FnMut(&[Reference]) -> Result<String, E>) -> Result<String, E> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Ref(alternatives) => text.push_str(&value(alternatives)?),
            }
        }
        Ok(text)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |name: &str| name.parse::<Id>().map_err(|why| format!("`{{{text}}}`: {why}"));
        Ok(match text.split_once('.') {
            Some(("params", name)) => Self::Param(id(name)?),
            Some(("in", name)) => Self::Input(id(name)?),
            Some(("out", name)) => Self::Own(id(name)?),
            Some(("carry", name)) => Self::Carry(id(name)?),
            Some(("plan", "dir")) => Self::PlanFolder,
            Some((stage, name)) => match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
                None => Self::Output(id(stage)?, id(name)?),
                Some((name, "index")) => Self::At(id(stage)?, id(name)?, None),
                Some((name, place)) => {
                    let wrong = |_| format!("`{{{text}}}`: found [{place}], expected [index] or a number");
                    Self::At(id(stage)?, id(name)?, Some(place.parse().map_err(wrong)?))
                }
            },
            None => match text {
                "item" => Self::Item,
                "index" => Self::Index,
                "count" => Self::Count,
                "shard" => Self::Shard,
                "shards" => Self::Shards,
                "k" => Self::Iteration,
                "key" => Self::Key,
                stage => Self::Choice(id(stage)?),
            },
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(name) => write!(f, "{{params.{name}}}"),
            Self::Input(name) => write!(f, "{{in.{name}}}"),
            Self::Own(name) => write!(f, "{{out.{name}}}"),
            Self::Carry(name) => write!(f, "{{carry.{name}}}"),
            Self::Output(stage, name) => write!(f, "{{{stage}.{name}}}"),
            Self::At(stage, name, None) => write!(f, "{{{stage}.{name}[index]}}"),
            Self::At(stage, name, Some(place)) => write!(f, "{{{stage}.{name}[{place}]}}"),
            Self::Choice(stage) => write!(f, "{{{stage}}}"),
            Self::Item => f.write_str("{item}"),
            Self::Index => f.write_str("{index}"),
            Self::Count => f.write_str("{count}"),
            Self::Shard => f.write_str("{shard}"),
            Self::Shards => f.write_str("{shards}"),
            Self::Iteration => f.write_str("{k}"),
            Self::Key => f.write_str("{key}"),
            Self::PlanFolder => f.write_str("{plan.dir}"),
            Self::Nothing => f.write_str("?"),
        }
    }
}

/// Visits the texts in a JSON value, with their places.
pub fn each_text<'v>(value: &'v Value, at: &str, visit: &mut dyn FnMut(String, &'v str)) {
    match value {
        Value::String(text) => visit(at.to_owned(), text),
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(place, value)| each_text(value, &format!("{at}[{place}]"), visit));
        }
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| each_text(value, &format!("{at}.{key}"), visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_references_filled() {
        let template =
            Template::parse("--x={params.f}, {{{krum.model|mean.model}}} {shard}/{shards}").unwrap();
        let filled = template.fill(|alternatives| Ok::<_, ()>(format!("<{}>", alternatives[0]))).unwrap();
        assert_eq!(filled, "--x=<{params.f}>, {<{krum.model}>} <{shard}>/<{shards}>");
        assert_eq!(template.references().count(), 5);
        assert!(Template::parse("{in.updates}").unwrap().alone().is_some());
        assert_eq!(Template::parse("").unwrap().parts, []);
        let optional = Template::parse("{a.b|c.d?}").unwrap();
        assert_eq!(optional.alone().unwrap()[2], Reference::Nothing);
    }

    #[test]
    fn a_text_that_is_no_template_is_refused() {
        for text in [
            "{",
            "}",
            "a{b",
            "{}",
            "{A.b}",
            "{a.b.c}",
            "{a|}",
            "{?}",
            "{a?|b}",
            "{a|?}",
            "{in.}",
            "{ a }",
            "{a.b[}",
            "{a.b[x]}",
            "{a.b[-1]}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
