//! `fedmill plan new`: a plan from a template.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, is_stdout, print_path};
use super::run::base_of;
use crate::cli::agents::registry::registered;
use crate::io::collision;
use crate::io::source::identity_of;
use crate::plan::run::prepare::{Place, paths};
use crate::telemetry::manual::Named;
use crate::templates::resolve::resolve;
use crate::templates::{TEMPLATES, plan};
use crate::watch::export::check_outside;
use clap::Args;
use std::path::PathBuf;

/// Make a plan from a template.
///
/// Paths in the settings are those of the plan's folder.
#[derive(Args, Debug)]
#[command(after_long_help = list())]
pub(in crate::cli) struct Arguments {
    /// The template: round, sweep, swarm, refine, map-reduce, secagg or shards.
    #[arg(long, value_name = "NAME", value_parser = template_parser(), hide_possible_values = true, help_heading = INPUTS)]
    template: String,
    /// A setting of the template. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = INPUTS)]
    settings: Vec<String>,
    /// Take agents from the registry of this state directory for what the plan needs.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    agents: Option<PathBuf>,
    /// Write the plan to this file; `-` is standard output.
    #[arg(short, long, value_name = "PLAN", default_value = "-", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let agents = self.agents.as_deref().map(registered).transpose()?;
        let known = agents.clone().unwrap_or_default();
        let mut plan = plan(&self.template, &self.settings, &known).map_err(Failure::of)?;
        if let Some(agents) = &agents {
            resolve(&mut plan, agents).map_err(Failure::of)?;
        }
        let text = serde_json::to_string_pretty(&plan)? + "\n";
        if is_stdout(&self.output) {
            collision::write_output(&self.output, text.as_bytes())?;
            return Ok(Outcome::Done);
        }
        check_outside(&self.output).map_err(Failure::of)?;
        let base = base_of(&self.output);
        let place = Place { root: base.clone(), base: base.clone(), ..Place::default() };
        // Inputs that are not there yet are no fault of the template.
        let read = plan.inputs.iter().filter_map(|input| paths(input, &place).ok()).flatten();
        let read: Vec<_> = read.filter_map(|path| identity_of(&base.join(path))).collect();
        collision::check(std::slice::from_ref(&self.output), &read)?;
        collision::write_output(&self.output, text.as_bytes())?;
        print_path(&self.output);
        Ok(Outcome::Done)
    }
}

/// The template is sought later, by the one message that names them all.
fn template_parser() -> Named<String> {
    Named::new(TEMPLATES.iter().map(|template| template.name), |text| Ok(text.to_owned()))
}

/// The templates with their settings.
fn list() -> String {
    let mut text = String::from("Templates:\n");
    for template in TEMPLATES {
        text.push_str(&format!("  {}: {}\n", template.name, template.about));
        for setting in template.settings {
            let default = match (setting.default, setting.required) {
                (Some(default), _) => format!(" [default: {default}]"),
                (None, true) => " [required]".to_owned(),
                (None, false) => String::new(),
            };
            text.push_str(&format!("    {}: {}{default}\n", setting.key, setting.about));
        }
    }
    text
}
