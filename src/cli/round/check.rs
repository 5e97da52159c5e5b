//! `fedmill round check`: findings about the settings of a federation.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::budget::books::Books;
use crate::budget::directory::Directory;
use crate::cli::cells::row;
use crate::fleet::registry::{self, Registry};
use crate::io::{journal, source};
use crate::privacy::ledger::plan::BudgetPlan;
use crate::round::budget_plan;
use crate::round::config::{self, Config};
use crate::round::lint::{Facts, Finding, Level, lint};
use clap::Args;
use std::path::PathBuf;

/// The link to the current model.
const CURRENT: &str = "current.safetensors";

/// Check the settings of a federation.
///
/// Prints a line for each finding. The exit status is 1 if a finding is an error.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The number of clients that could take part [default: those in the registry].
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    population: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let config = Config::read(&self.directory.join(config::FILE)).map_err(Failure::of)?;
        let findings = lint(&config, &self.facts(&config)?);
        let text = match self.json {
            true => format!("{}\n", serde_json::json!({ "findings": findings })),
            false => table(&findings),
        };
        print(&text)?;
        let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
        Ok(match errors {
            0 => Outcome::Done,
            1 => Outcome::Refused("1 error in the settings".to_owned()),
            errors => Outcome::Refused(format!("{errors} errors in the settings")),
        })
    }

    fn facts(&self, config: &Config) -> Result<Facts, Failure> {
        let population = match self.population {
            Some(population) => Some(population),
            None => self.registered()?,
        };
        Ok(Facts { population, model_bytes: self.model_bytes(config), plan: self.plan()? })
    }

    /// The clients in the registry, if there is one.
    fn registered(&self) -> Result<Option<u64>, Failure> {
        let path = self.directory.join(registry::FILE);
        if !journal::exists(&path) {
            return Ok(None);
        }
        let registry = Registry::open(&path).map_err(Failure::of)?;
        registry.active().map(Some).map_err(Failure::of)
    }

    /// The bytes of the current model, or of the first one.
    fn model_bytes(&self, config: &Config) -> Option<u64> {
        let current = self.directory.join(CURRENT);
        let first = config.model.initial.as_ref().map(|path| self.directory.join(path));
        let bytes = |path| source::open_regular(path).and_then(|file| file.metadata()).ok();
        bytes(&current).or_else(|| bytes(first.as_deref()?)).map(|meta| meta.len())
    }

    /// The frozen plan of the budget, if there is one.
    fn plan(&self) -> Result<Option<BudgetPlan>, Failure> {
        let directory = self.directory.join(budget_plan::FOLDER);
        if !journal::exists(&Directory::new(&directory).ledger()) {
            return Ok(None);
        }
        let books = Books::read(&directory).map_err(|why| {
            let (hint, signal) = (why.hint(), why.signal());
            Failure { hint, signal, ..Failure::from(why) }
        })?;
        Ok(Some(books.state.plan().clone()))
    }
}

fn table(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "no finding\n".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["level", "key", "found", "why", "remedy"]);
    for Finding { level, key, found, why, remedy } in findings {
        table.add_row(row([level.to_string(), key.to_string(), found.clone(), why.clone(), remedy.clone()]));
    }
    format!("{}\n", table.trim_fmt())
}
