//! A Snakefile whose outputs are the records of tasks.

use super::File;
use super::needs::{agents, mebibytes, minutes};
use crate::schema::Plan;
use crate::schema::policy::FailureMode;
use crate::tasks::units::{Handler, How, Unit, Units};
use std::collections::BTreeMap;

/// The files: `Snakefile`, and `run.sh`, which starts Snakemake with the limits of the plan.
pub fn files(plan: &Plan, units: &Units) -> Vec<File> {
    let mut text = format!(
        "# The tasks of the plan `{}`; made by `fedmill plan render`. `run.sh` starts Snakemake.\nimport os\n\n\
         FEDMILL = os.environ.get(\"FEDMILL\", \"fedmill\")\n\n\n",
        plan.id
    );
    let work: Vec<&Unit> = units.all.iter().filter(|unit| unit.handler.is_none()).collect();
    let all: Vec<String> = work.iter().map(|unit| records(unit)).collect();
    text += &format!("rule all:\n    input:\n        {}\n", all.join(",\n        "));
    work.iter().for_each(|unit| text += &rule(plan, units, unit));
    text += &ends(units);
    vec![File { path: "Snakefile".to_owned(), text }, File { path: "run.sh".to_owned(), text: start(plan) }]
}

/// The records of all tasks of a unit, as Python.
fn records(unit: &Unit) -> String {
    match unit.count {
        None => format!("\"done/{}.json\"", unit.name),
        Some(count) => format!("*[f\"done/{}.{{index}}.json\" for index in range({count})]", unit.name),
    }
}

fn rule(plan: &Plan, units: &Units, unit: &Unit) -> String {
    let fans_out = unit.count.is_some();
    // No name of a stage has a hyphen, and each kind has a prefix.
    let name = match unit.name.strip_prefix("loop-") {
        Some(looped) => format!("loop_{looped}"),
        None => format!("stage_{}", unit.name),
    };
    let mut text = format!("\n\nrule {name}:\n");
    let inputs = unit.after.iter().map(|after| match after.how {
        How::Each => format!("\"done/{}.{{index}}.json\"", units.all[after.unit].name),
        How::Done | How::Over => records(&units.all[after.unit]),
    });
    let inputs: Vec<String> = inputs.collect();
    if !inputs.is_empty() {
        text += &format!("    input:\n        {}\n", inputs.join(",\n        "));
    }
    let place = if fans_out { ".{index}" } else { "" };
    text += &format!("    output:\n        \"done/{}{place}.json\"\n", unit.name);
    if fans_out {
        text += "    wildcard_constraints:\n        index=r\"\\d+\"\n";
    }
    let mut resources = BTreeMap::new();
    resources.extend(minutes(plan, unit).map(|minutes| ("runtime".to_owned(), minutes)));
    resources.extend(mebibytes(plan, unit).map(|mebibytes| ("mem_mb".to_owned(), mebibytes)));
    let limited = agents(plan, unit).into_iter().filter(|(_, agent)| agent.skills().max_parallel.is_some());
    resources.extend(limited.map(|(name, _)| (resource(name), 1)));
    if !resources.is_empty() {
        let lines: Vec<String> = resources.iter().map(|(name, value)| format!("{name}={value}")).collect();
        text += &format!("    resources:\n        {}\n", lines.join(",\n        "));
    }
    let place = if fans_out { ".{wildcards.index}" } else { "" };
    text + &format!("    shell:\n        \"{{FEDMILL:q}} plan task . {}{place}\"\n", unit.name)
}

/// The resource that counts the tasks of an agent. Characters that no word of Python has become `_` and their code, so
/// that two agents never share one.
fn resource(agent: &str) -> String {
    let word = agent.bytes().map(|byte| match byte {
        b'_' => "__".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("_{byte:02x}"),
    });
    format!("agent_{}", word.collect::<String>())
}

/// What runs at the end of the run.
fn ends(units: &Units) -> String {
    let line = |unit: &&Unit| {
        format!("    shell(\"rm -f done/{0}.json; {{FEDMILL:q}} plan task . {0}\")\n", unit.name)
    };
    let of = |kinds: &[Handler]| -> String {
        let named = kinds.iter().flat_map(|kind| units.all.iter().filter(|unit| unit.handler == Some(*kind)));
        named.collect::<Vec<_>>().iter().map(line).collect()
    };
    let mut text = String::new();
    for (when, lines) in
        [("onsuccess", of(&[Handler::Exit])), ("onerror", of(&[Handler::Failure, Handler::Exit]))]
    {
        if !lines.is_empty() {
            text += &format!("\n\n{when}:\n{lines}");
        }
    }
    text
}

/// The script that starts Snakemake.
fn start(plan: &Plan) -> String {
    let mut options = String::new();
    if plan.limits.on_failure == FailureMode::KeepGoing {
        options += " --keep-going";
    }
    let cores = plan.limits.max_parallel.map_or_else(|| "all".to_owned(), |most| most.to_string());
    let limited = plan.agents.iter().filter_map(|(name, agent)| {
        agent.skills().max_parallel.map(|most| format!(" {}={most}", resource(name.as_str())))
    });
    let memory = plan.limits.mem_bytes.map(|bytes| format!(" mem_mb={}", bytes >> 20));
    let resources: String = limited.chain(memory).collect();
    if !resources.is_empty() {
        options += &format!(" --resources{resources}");
    }
    format!(
        "#!/usr/bin/env bash\n\
         # Runs the tasks of the plan `{}` with Snakemake; made by `fedmill plan render`. Run it again after any crash.\n\
         #\n#     bash run.sh [OPTION OF SNAKEMAKE]...\n#\n\
         # FEDMILL is the program, by default `fedmill`.\n\
         set -euo pipefail\n\
         dir=$(cd \"$(dirname \"${{BASH_SOURCE[0]}}\")\" && pwd -P)\n\
         rm -rf \"$dir/failed\"\n\
         exec snakemake --snakefile \"$dir/Snakefile\" --directory \"$dir\" --cores {cores} --rerun-triggers mtime \
         --rerun-incomplete{options} \"$@\"\n",
        plan.id
    )
}
