//! Templates: plans for common goals, made from a few settings.
//!
//! [`settings`] reads the settings, and `parts` has what plans share. [`shards`] merges a round in shards, [`round`]
//! merges and evaluates one, [`sweep`] compares rules on one round, [`refine`] repeats a proposal and its review,
//! [`map_reduce`] does work for each of many files or values, [`secagg`] merges a sum of masked updates, and in [`swarm`] agents
//! propose and vote. [`resolve`]
//! finds agents for what a plan needs, and [`next`] makes the plan of the next round.

pub mod map_reduce;
pub mod next;
mod parts;
pub mod refine;
pub mod resolve;
pub mod round;
pub mod secagg;
pub mod settings;
pub mod shards;
pub mod swarm;
pub mod sweep;

use crate::plan::error::PlanError;
use crate::plan::read;
use crate::schema::Plan;
use crate::schema::agent::{Agent, able};
use crate::schema::name::Name;
use serde_json::Value;
use settings::{Given, Setting, TemplateError};
use std::collections::BTreeMap;
use std::path::Path;

/// A template.
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// What its plan does.
    pub about: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
    build: fn(&Given) -> Result<Value, TemplateError>,
}

/// All templates.
pub const TEMPLATES: &[Template] = &[
    Template { name: "round", about: round::ABOUT, settings: round::SETTINGS, build: round::build },
    Template { name: "sweep", about: sweep::ABOUT, settings: sweep::SETTINGS, build: sweep::build },
    Template { name: "swarm", about: swarm::ABOUT, settings: swarm::SETTINGS, build: swarm::build },
    Template { name: "refine", about: refine::ABOUT, settings: refine::SETTINGS, build: refine::build },
    Template {
        name: "map-reduce",
        about: map_reduce::ABOUT,
        settings: map_reduce::SETTINGS,
        build: map_reduce::build,
    },
    Template { name: "secagg", about: secagg::ABOUT, settings: secagg::SETTINGS, build: secagg::build },
    Template { name: "shards", about: shards::ABOUT, settings: shards::SETTINGS, build: shards::build },
];

/// The plan of a template with these settings, each `key=value`, and the agents of a registry.
///
/// # Errors
///
/// When there is no such template or setting, or a value is wrong.
pub fn plan(name: &str, given: &[String], registered: &BTreeMap<Name, Agent>) -> Result<Plan, TemplateError> {
    let template = TEMPLATES.iter().find(|template| template.name == name);
    let template = template.ok_or_else(|| TemplateError::Unknown {
        found: name.to_owned(),
        known: TEMPLATES.iter().map(|template| template.name).collect::<Vec<_>>().join(", "),
    })?;
    let given = Given::read(template.name, template.settings, given, registered)?;
    let plan = (template.build)(&given)?;
    let unfit = |why| match why {
        // No file has the text whose places these are.
        PlanError::Malformed { faults, .. } => {
            let lines = faults.iter().map(|(_, fault)| format!("{}: {}", fault.at, fault.why));
            format!("template {name}: {}", lines.collect::<Vec<_>>().join("; "))
        }
        other => other.to_string(),
    };
    let plan =
        read::parse(&plan.to_string(), Path::new(name)).map_err(|why| TemplateError::Plan(unfit(why)))?;
    match wanted(&plan) {
        // With a registry, `resolve` knows more.
        Some(capability) if registered.is_empty() => {
            let settings = template.settings.iter().map(|setting| setting.key).collect();
            Err(TemplateError::NoAgent { template: template.name, capability, settings })
        }
        _ => Ok(plan),
    }
}

/// A capability that a stage needs and that no agent of the plan has.
fn wanted(plan: &Plan) -> Option<String> {
    let needed = plan.stages.iter().flat_map(|stage| {
        let pool = stage.pool().map(|(capability, _)| capability);
        stage.needs_capability.iter().chain(pool)
    });
    let missing = |capability: &&Name| able(&plan.agents, std::slice::from_ref(*capability)).is_empty();
    needed.into_iter().find(missing).map(ToString::to_string)
}
