//! Plan files: what they say, and what the runner does, on the real program.

mod changed;
mod claims;
mod endpoints;
mod engines;
mod flow;
mod found;
mod gates;
mod hostile;
mod jobserver;
mod killed;
mod lint;
mod metrics;
mod nested;
mod new;
mod next;
mod once;
mod outputs;
mod parsers;
mod programs;
mod reduce;
mod render;
mod reuse;
mod show;
mod simulator;
mod swarm;
mod tolerance;
mod tune;
mod votes;
mod watch;

use crate::harness::{Dir, Run, fedmill};
use serde_json::{Value, json};

/// A plan of commands that a shell runs, in a fresh folder.
pub(crate) struct Workflow {
    pub(crate) dir: Dir,
    plan: Value,
}

impl Workflow {
    /// A plan with these stages; each `sh` in a stage is a command of the agent `shell`.
    pub(crate) fn new(stages: &Value) -> Self {
        let workflow = Self {
            dir: Dir::new(),
            plan: json!({
                "schema": "fedmill.plan/1",
                "id": "test",
                "agents": {"shell": {"kind": "command", "argv": ["sh", "-c"]}},
                "limits": {"timeout": {"run": "30s", "kill_after": "1s"}, "max_parallel": 2},
                "stages": [],
            }),
        };
        let stages = stages.as_array().unwrap().iter().map(|stage| {
            let mut stage = stage.clone();
            if let Some(command) = stage.as_object_mut().unwrap().remove("sh") {
                stage["agent"] = json!("shell");
                stage["argv"] = json!([command]);
            }
            stage
        });
        let stages: Vec<Value> = stages.collect();
        workflow.with("stages", json!(stages))
    }

    /// The same plan with another value at a place.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        let place = key.split('.').fold(&mut self.plan, |at, key| match key.parse::<usize>() {
            Ok(place) => &mut at[place],
            Err(_) => &mut at[key],
        });
        *place = value;
        self
    }

    /// Writes the plan.
    pub(crate) fn write(&self) {
        self.dir.write("plan.json", serde_json::to_vec_pretty(&self.plan).unwrap());
    }

    /// Writes a program into the folder of the plan.
    pub(crate) fn script(&self, name: &str, text: &str) {
        self.dir.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(name), mode).unwrap();
    }

    /// Writes the plan and runs it.
    pub(crate) fn run(&self) -> Run {
        self.write();
        fedmill(&self.dir, &["plan", "run", "plan.json"])
    }

    /// The state of each stage in each iteration, in the order of the plan: `a ok, b@1 failed`.
    pub(crate) fn states(&self) -> String {
        let run = fedmill(&self.dir, &["plan", "status", "--json", "plan.run"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let status: Value = serde_json::from_str(&run.stdout).unwrap();
        let stages = status["stages"].as_array().unwrap().iter();
        let words = stages
            .map(|stage| format!("{} {}", stage["name"].as_str().unwrap(), stage["state"].as_str().unwrap()));
        words.collect::<Vec<_>>().join(", ")
    }

    /// The text of an output.
    pub(crate) fn output(&self, path: &str) -> String {
        String::from_utf8(self.dir.read(&format!("plan.run/out/{path}"))).unwrap()
    }
}
