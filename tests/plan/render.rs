//! Plans that Slurm and Snakemake run, task by task.
//!
//! The tests start a Slurm cluster of one node. Where it or Snakemake is missing they print that they are skipped, or fail
//! if `FEDMILL_REQUIRE_ENGINES` is set.

use super::Workflow;
use super::engines::{Node, random_graph, with_make};
use super::new::{make, round};
use crate::harness::{Dir, Run, fedmill, program, skip, source_tree};
use crate::rng::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The variable that makes a missing program a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_ENGINES";

/// Whether Slurm and Snakemake can be used. If not, prints that the test is skipped, or fails.
fn has_engines() -> bool {
    let runs = |program: &str, version: &str| {
        let mut command = Command::new(program);
        command.arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let missing = [("slurmctld", "-V"), ("slurmd", "-V"), ("sbatch", "-V"), ("snakemake", "--version")]
        .into_iter()
        .find(|(program, version)| !runs(program, version));
    let Some((program, _)) = missing else { return source_tree().is_some() };
    let how = "apt-get install slurmctld slurmd slurm-client; pip install -r data/slurm/requirements.txt";
    let why = format!("`{program}` is not installed ({how})");
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and {why}");
    skip(&why);
    false
}

/// A Slurm cluster, as long as the value lives.
struct Slurm {
    dir: Dir,
    script: PathBuf,
}

impl Slurm {
    /// Starts a cluster; `settings` is a line of its `slurm.conf`.
    fn start(settings: &str) -> Self {
        let script = source_tree().unwrap().join("data/slurm/start.sh");
        let slurm = Self { dir: Dir::new(), script };
        let started = slurm.command(&[]).env("SETTINGS", settings).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        slurm
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(&self.script).arg(self.dir.path("")).args(args);
        command
    }

    /// Starts `submit.sh --wait` of a rendered plan.
    fn submit(&self, workflow: &Dir) -> Child {
        self.submit_with(workflow, "6")
    }

    /// The same with the seconds after which jobs that cannot start are submitted again.
    fn submit_with(&self, workflow: &Dir, stuck: &str) -> Child {
        let mut command = Command::new("bash");
        command.arg(workflow.path("rendered/submit.sh")).arg("--wait");
        command.env("SLURM_CONF", self.dir.path("slurm.conf")).env("FEDMILL", program());
        command.envs([("POLL", "0.3"), ("STUCK", stuck), ("PATIENCE", "60")]);
        command.env("COUNTED", workflow.path("counted"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The reasons for which jobs wait, as Slurm names them.
    fn reasons(&self) -> String {
        let mut queue = Command::new("squeue");
        queue.args(["--noheader", "--format=%j %T %r"]).env("SLURM_CONF", self.dir.path("slurm.conf"));
        String::from_utf8(queue.output().unwrap().stdout).unwrap()
    }

    /// Runs `submit.sh --wait` to its end.
    fn run(&self, workflow: &Dir) -> Option<i32> {
        let output = self.submit(workflow).wait_with_output().unwrap();
        eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output.status.code()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let _ = self.command(&["--stop"]).output();
    }
}

/// Renders `p.json` into `rendered`.
fn render(dir: &Dir, target: &str, options: &[&str]) -> Run {
    fedmill(dir, &[&["plan", "render", "p.json", "--target", target, "-o", "rendered"], options].concat())
}

/// Runs a rendered plan with Snakemake.
fn snakemake(dir: &Dir) -> Run {
    let mut command = Command::new("bash");
    command.arg(dir.path("rendered/run.sh")).args(["--quiet", "all"]).env("FEDMILL", program());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A workflow written as `p.json`.
fn written(workflow: Workflow) -> Dir {
    workflow.write();
    let dir = workflow.dir;
    std::fs::rename(dir.path("plan.json"), dir.path("p.json")).unwrap();
    dir
}

/// How each task ended: from `done`, `failed`, or neither.
fn outcomes(dir: &Dir, tasks: &[String]) -> BTreeMap<String, &'static str> {
    let outcome = |task: &String| {
        let skipped =
            || String::from_utf8_lossy(&dir.read(&format!("rendered/done/{task}.json"))).contains("skipped");
        match dir.exists(&format!("rendered/done/{task}.json")) {
            true if skipped() => "skipped",
            true => "ok",
            false if dir.exists(&format!("rendered/failed/{task}.json")) => "failed",
            false => "blocked",
        }
    };
    tasks.iter().map(|task| (task.clone(), outcome(task))).collect()
}

#[test]
fn the_shards_template_gives_the_bytes_of_one_process_on_each_engine() {
    if !has_engines() {
        return;
    }
    // Arrays of at most four jobs, for six shards.
    let slurm = Slurm::start("MaxArraySize=4");
    for target in ["slurm", "snakemake"] {
        let dir = round();
        make(
            &dir,
            "shards",
            &["updates=in", "base=base.safetensors", "rule=krum", "byzantine=1", "shards=6"],
        );
        let rendered = render(&dir, target, &[]);
        assert_eq!(rendered.code, Some(0), "{rendered:#?}");
        assert!(rendered.stdout.contains("14 tasks") && !rendered.stdout.contains("lost"), "{rendered:#?}");
        if target == "slurm" {
            assert_eq!(slurm.run(&dir), Some(0));
        } else {
            let run = snakemake(&dir);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
        let whole = "aggregate -q in --rule krum --byzantine 1 --base base.safetensors -o w.safetensors";
        assert_eq!(fedmill(&dir, &whole.split(' ').collect::<Vec<_>>()).code, Some(0));
        assert_eq!(fedmill(&dir, &["plan", "run", "-q", "p.json"]).code, Some(0));
        let merged = "merge/out/merge/merged.safetensors";
        assert_eq!(dir.read(&format!("rendered/tasks/{merged}")), dir.read("w.safetensors"), "{target}");
        assert_eq!(dir.read("p.run/out/merge/merged.safetensors"), dir.read("w.safetensors"));
    }
}

/// A fan-out that another follows place by place, a decision, a loop with a carried file, and a stage that joins them.
fn workflow() -> Dir {
    let workflow = Workflow::new(&json!([
        {"id": "part", "sh": "echo {item} >> ${{COUNTED:-/dev/null}}; printf %s {item} > {out.o}", "for_each": {"range": 3},
         "out": [{"name": "o", "path": "o.txt"}]},
        {"id": "twice", "needs": ["part"], "agent": "shell", "argv": ["cat $0 $0", "{part.o[index]}"],
         "for_each": {"range": 3}, "out": [{"name": "o", "path": "-"}]},
        {"id": "choose", "kind": "decide", "needs": ["part"], "cases": [{"if": "inputs.start == 1", "to": "one"}],
         "else": "many"},
        {"id": "other", "branch": "many", "needs": ["choose"], "sh": "exit 1"},
        {"id": "step", "branch": "one", "needs": ["choose"], "agent": "shell",
         "argv": ["n=$(cat $0); echo $((n + 1)) > {out.n}; echo \"{{\\\"n\\\": $((n + 1))}}\"", "{carry.n}"],
         "out": [{"name": "n", "path": "n.txt"}, {"name": "m", "path": "-", "metrics": true}], "metrics": ["n"]},
        {"id": "join", "needs": ["twice", "step", "other"], "agent": "shell",
         "argv": ["cat \"$@\"", "sh", "{twice.o}", "{step.n}"], "out": [{"name": "all", "path": "-"}]},
    ]))
    .with("inputs", json!([{"name": "start", "path": "start.txt"}]))
    .with("agents.shell.env", json!(["COUNTED"]))
    .with(
        "loops",
        json!([{"id": "l", "over": ["step"], "carry": {"n": {"from": "step.n", "init": "start"}}, "until": "metrics.n >= 3.0",
            "max_iters": 5}]),
    );
    workflow.dir.write("start.txt", "1\n");
    written(workflow)
}

const TASKS: [&str; 10] =
    ["part.0", "part.1", "part.2", "twice.0", "twice.1", "twice.2", "choose", "other", "loop-l", "join"];

const JOINED: &str = "0011223\n";

fn task(dir: &Dir, name: &str) -> Run {
    fedmill(dir, &["plan", "task", "rendered", name])
}

#[test]
fn tasks_that_run_one_by_one_come_to_what_one_run_does() {
    let dir = workflow();
    assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
    task(&dir, "twice.1").assert_fails(1, &["task `part.1` is not done"]);
    task(&dir, "twice").assert_fails(2, &["has no task `twice`", "twice.0 to twice.2"]);
    // A task of a fan-out that is read place by place needs only the one with its place.
    assert_eq!(task(&dir, "part.1").stdout, "part.1: ok\n");
    assert_eq!(task(&dir, "twice.1").stdout, "twice.1: ok\n");
    task(&dir, "choose").assert_fails(1, &["task `part.0` is not done"]);
    for name in TASKS {
        let run = task(&dir, name);
        assert_eq!(run.code, Some(0), "{name}: {run:#?}");
    }
    assert_eq!(task(&dir, "part.1").stdout, "part.1: done before\n");
    let found = outcomes(&dir, &TASKS.map(str::to_owned));
    assert_eq!(found.values().filter(|outcome| **outcome == "ok").count(), 9, "{found:#?}");
    assert_eq!(found["other"], "skipped");
    assert_eq!(dir.read("rendered/tasks/join/out/join/all"), JOINED.as_bytes());
    assert_eq!(fedmill(&dir, &["plan", "run", "-q", "p.json"]).code, Some(0));
    assert_eq!(dir.read("p.run/out/join/all"), JOINED.as_bytes());
}

#[test]
fn a_task_aborted_at_any_durable_step_goes_on() {
    for step in 1.. {
        let dir = workflow();
        assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
        for name in ["part.0", "part.1", "part.2"] {
            assert_eq!(task(&dir, name).code, Some(0));
        }
        assert_eq!(task(&dir, "choose").code, Some(0));
        let fail = format!("export FEDMILL_FAIL_AT={step}");
        let run = crate::harness::fedmill_after(&dir, &fail, &["plan", "task", "rendered", "loop-l"]);
        let again = task(&dir, "loop-l");
        assert_eq!(again.code, Some(0), "step {step}: {again:#?}");
        assert_eq!(dir.read("rendered/tasks/loop-l/out/step@2/n.txt"), b"3\n");
        if run.code == Some(0) {
            assert!(step > 12, "a task has more durable steps than {step}");
            return;
        }
    }
}

#[test]
fn what_a_target_loses_is_refused_with_its_place() {
    let workflow = Workflow::new(&json!([
        {"id": "a", "sh": "exit 1", "when": "run.calls == 0"},
        {"id": "b", "depends": "stages.a.failed", "sh": "true"},
        {"id": "c", "needs": ["b"], "sh": "true", "gate": {"timeout": "1s", "default": "approve"}},
    ]))
    .with("limits.wall", json!("1h"))
    .with("limits.on_failure", json!("keep_going"))
    .with("loops", json!([{"id": "l", "over": ["c"], "max_iters": 2}]));
    let dir = written(workflow);
    for (target, script, expected) in [
        (
            "slurm",
            "submit.sh",
            vec!["lost $.limits.wall", "lost $.stages[0].when", "replaced $.limits.max_parallel"],
        ),
        (
            "snakemake",
            "Snakefile",
            vec!["lost $.limits.wall", "lost $.stages[0].when", "lost $.stages[1].depends"],
        ),
    ] {
        let refused = render(&dir, target, &[]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("--lossy"), "{refused:#?}");
        assert!(!dir.exists(&format!("rendered/{script}")), "{target}");
        let lossy = render(&dir, target, &["--lossy", "--json"]);
        assert_eq!(lossy.code, Some(0), "{lossy:#?}");
        assert!(dir.exists(&format!("rendered/{script}")));
        let report: Value = serde_json::from_str(&lossy.stdout).unwrap();
        assert_eq!(report, serde_json::from_slice::<Value>(&dir.read("rendered/report.json")).unwrap());
        let found = report["losses"].as_array().unwrap().iter();
        let word = |loss: &Value, key: &str| loss[key].as_str().unwrap().to_owned();
        let found: Vec<String> =
            found.map(|loss| format!("{} {}", word(loss, "level"), word(loss, "at"))).collect();
        let inside = ["inside $.stages[2].gate", "inside $.loops[0]"];
        let mut all: Vec<&str> = [expected, inside.to_vec()].concat();
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        all.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, all, "{target}");
    }
    // The directory keeps to its plan.
    let other = Workflow::new(&json!([{"id": "z", "sh": "true"}]));
    other.write();
    std::fs::copy(other.dir.path("plan.json"), dir.path("p.json")).unwrap();
    render(&dir, "slurm", &[]).assert_fails(2, &["another plan"]);
}

#[test]
fn a_failure_ends_the_tasks_of_a_plan_as_it_ends_a_run() {
    let dir = written(Workflow::new(&json!([
        {"id": "a", "sh": "exit 1"}, {"id": "b", "sh": "exit 3"}, {"id": "c", "sh": "true"},
        {"id": "d", "depends": "stages.b.failed", "sh": "true"}, {"id": "e", "needs": ["b"], "sh": "true"},
        {"id": "mail", "sh": "true"},
    ])).with("on", json!({"failure": ["mail"]})));
    assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
    // The failure that another stage waits for is a result.
    assert_eq!(task(&dir, "b").stdout, "b: failed: exited with status 3\n");
    assert_eq!(task(&dir, "d").stdout, "d: ok\n");
    task(&dir, "e").assert_fails(2, &["e: blocked: needs `b`, which failed"]);
    std::fs::remove_dir_all(dir.path("rendered/failed")).unwrap();
    task(&dir, "a").assert_fails(2, &["a: failed: exited with status 1"]);
    task(&dir, "c").assert_fails(1, &["does not start, since task `a` failed"]);
    assert_eq!(task(&dir, "mail").stdout, "mail: ok\n");
}

#[test]
fn random_graphs_run_on_slurm_as_with_make() {
    if !has_engines() {
        return;
    }
    let slurm = Slurm::start("");
    let mut failed = 0;
    let mut seeds = 40..;
    for _ in 0..3 {
        // Graphs of ten stages at most, of which some fail and some are blocked.
        let fails =
            |graph: &Vec<Node>| graph.iter().any(|(needs, _)| needs.iter().any(|need| graph[*need].1));
        let mut small = seeds.by_ref().map(|seed| (seed, random_graph(&mut Rng::new(seed))));
        let (seed, graph) = small.find(|(_, graph)| graph.len() <= 10 && fails(graph)).unwrap();
        let stages = graph.iter().enumerate().map(|(place, (needs, fails))| {
            let needs: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
            json!({"id": format!("s{place}"), "needs": needs, "sh": if *fails { "exit 1" } else { "true" }})
        });
        let stages: Vec<Value> = stages.collect();
        let workflow = Workflow::new(&json!(stages)).with("limits.on_failure", json!("keep_going"));
        let expected = with_make(&graph, &workflow);
        let dir = written(workflow);
        assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
        let any_fails = expected.values().any(|state| *state == "failed");
        assert_eq!(slurm.run(&dir), Some(if any_fails { 2 } else { 0 }), "seed {seed}");
        let tasks: Vec<String> = expected.keys().cloned().collect();
        assert_eq!(outcomes(&dir, &tasks), expected, "seed {seed}");
        failed += expected.values().filter(|state| **state != "ok").count();
    }
    assert!(failed >= 6, "only {failed} stages of all graphs failed or were blocked");
}

/// Slurm keeps a job whose dependency can no longer hold in the queue, unless the job says that it may be removed.
#[test]
fn jobs_that_can_never_start_are_submitted_again() {
    if !has_engines() {
        return;
    }
    let slurm = Slurm::start("");
    for stays in [true, false] {
        let began = Instant::now();
        let first = "test -e $MARK || {{ touch $MARK; sleep 60; }}; echo {key} >> $MARK";
        let stages = json!([
            {"id": "a", "sh": first, "env": {"MARK": "{params.mark}"}},
            {"id": "b", "needs": ["a"], "sh": "echo {key} >> $MARK", "env": {"MARK": "{params.mark}"}},
        ]);
        let workflow = Workflow::new(&stages);
        let mark = workflow.dir.path("mark").display().to_string();
        let dir = written(workflow.with("params", json!({"mark": mark})));
        assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
        if stays {
            let script = String::from_utf8(dir.read("rendered/jobs/b.sh")).unwrap();
            dir.write("rendered/jobs/b.sh", script.replace("#SBATCH --kill-on-invalid-dep=yes\n", ""));
        }
        let mut submit = slurm.submit_with(&dir, "2");
        let mut wait_for = |what: &str, holds: &mut dyn FnMut(&mut Child) -> bool| {
            while !holds(&mut submit) {
                if began.elapsed() > Duration::from_secs(60) {
                    submit.kill().unwrap();
                    panic!("{what} in 60 s: {}", slurm.reasons());
                }
                thread::sleep(Duration::from_millis(50));
            }
        };
        let is_waiting = || dir.exists("mark") && slurm.reasons().contains("PENDING Dependency");
        wait_for("no job runs while the other waits", &mut |_| is_waiting());
        // The task leaves no record: its process is killed, and not its command.
        let mut cancel = Command::new("scancel");
        cancel.args(["--batch", "--signal=KILL", "--state=RUNNING"]);
        assert!(cancel.env("SLURM_CONF", slurm.dir.path("slurm.conf")).status().unwrap().success());
        if stays {
            let reason = "DependencyNeverSatisfied";
            wait_for(reason, &mut |_| slurm.reasons().contains(reason));
        }
        wait_for("no end of submit.sh", &mut |submit| submit.try_wait().unwrap().is_some());
        let output = submit.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}");
        // Where Slurm ends the second job, submit.sh may see it a moment before.
        assert!(!stays || text.contains("no job can start: all are submitted again"), "{text}");
        assert_eq!(dir.read("mark"), b"a\nb\n", "{text}");
    }
}

#[test]
fn a_controller_that_is_killed_loses_no_task_and_runs_none_twice() {
    if !has_engines() {
        return;
    }
    let slurm = Slurm::start("");
    for pause in [500, 1500] {
        let dir = workflow();
        assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
        let mut submit = slurm.submit(&dir);
        thread::sleep(Duration::from_millis(pause));
        assert!(slurm.command(&["--kill"]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = submit.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(150), "submit.sh does not end");
            // As an operator would: the controller again, and the node that it drained.
            slurm.command(&[]).output().unwrap();
            thread::sleep(Duration::from_millis(500));
        };
        assert_eq!(status.code(), Some(0));
        assert_eq!(dir.read("rendered/tasks/join/out/join/all"), JOINED.as_bytes());
        let counted = String::from_utf8(dir.read("counted")).unwrap();
        let mut counted: Vec<&str> = counted.lines().collect();
        counted.sort_unstable();
        assert_eq!(counted, ["0", "1", "2"], "each task ran once");
    }
}

#[test]
fn stages_behind_a_loop_read_the_value_that_it_tuned() {
    let workflow = Workflow::new(&json!([
        {"id": "step", "agent": "measure", "argv": ["--rate", "{params.x}"], "metrics": ["loss"],
            "out": [{"name": "m", "path": "-", "metrics": true}]},
        {"id": "after", "needs": ["step"], "agent": "show", "argv": ["--rate", "{params.x}"],
            "out": [{"name": "o", "path": "-"}]},
        {"id": "grown", "needs": ["step"], "when": "params.x > 1.1", "sh": "true"},
        {"id": "last", "sh": "true", "when": "params.x > 1.1"},
    ]));
    let measure = r#"awk -v x="$2" 'BEGIN {printf "{\"loss\": %.6f}", 4 / x}'"#;
    workflow.script("measure.sh", &format!("#!/bin/sh\n{measure}\n"));
    workflow.script("show.sh", "#!/bin/sh\necho $2\n");
    let tune = json!({"param": "/params/x", "bounds": [0.5, 3.0], "every": 2, "max_ratio": 1.5,
        "validate": {"shadow": ["step"], "metric": "loss", "minimize": true, "replay_rounds": 2}});
    let dir = written(
        workflow
            .with("agents.measure", json!({"kind": "command", "argv": ["./measure.sh"]}))
            .with("agents.show", json!({"kind": "command", "argv": ["./show.sh"]}))
            .with("params", json!({"x": 1.0}))
            .with("on", json!({"exit": ["last"]}))
            .with("loops", json!([{"id": "l", "over": ["step"], "max_iters": 6, "tune": tune}])),
    );
    assert_eq!(fedmill(&dir, &["plan", "run", "-q", "p.json"]).code, Some(0));
    let expected = String::from_utf8(dir.read("p.run/out/after/o")).unwrap();
    assert_eq!(expected, "2.25\n");
    assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
    let status = fedmill(&dir, &["plan", "status", "rendered"]);
    assert!(status.stdout.contains("not started; 0 of 4 stages"), "{status:#?}");
    for name in ["loop-l", "after", "grown", "last"] {
        let run = task(&dir, name);
        assert_eq!(
            run.stdout.lines().last(),
            Some(format!("{}: ok", name.replace("loop-l", "step@6")).as_str()),
            "{run:#?}"
        );
    }
    assert_eq!(String::from_utf8(dir.read("rendered/tasks/after/out/after/o")).unwrap(), expected);
    let status = fedmill(&dir, &["plan", "status", "rendered"]);
    assert!(status.stdout.contains(" s of work; 4 of 4 stages"), "{status:#?}");
}

#[test]
fn names_for_snakemake_are_unique() {
    let dir = written(
        Workflow::new(&json!([
            {"id": "w", "agent": "a.b", "argv": ["true"]}, {"id": "loop_a", "agent": "a-b", "argv": ["true"]},
            {"id": "x", "agent": "a_b", "argv": ["true"]}, {"id": "y", "agent": "a_2eb", "argv": ["true"]},
        ]))
        .with("loops", json!([{"id": "a", "over": ["w"], "max_iters": 2}]))
        .with(
            "agents",
            ["a.b", "a-b", "a_b", "a_2eb"]
                .into_iter()
                .map(|name| (name, json!({"kind": "command", "argv": ["sh", "-c"], "max_parallel": 1})))
                .collect(),
        ),
    );
    assert_eq!(render(&dir, "snakemake", &[]).code, Some(0));
    let read = |path: &str| String::from_utf8(dir.read(path)).unwrap();
    let is_word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let (snakefile, start) = (read("rendered/Snakefile"), read("rendered/run.sh"));
    let rules = snakefile.lines().filter_map(|line| line.strip_prefix("rule ")?.strip_suffix(':'));
    let agents = start.split_whitespace().filter(|word| word.starts_with("agent_"));
    let agents = agents.filter_map(|word| Some(word.split_once('=')?.0));
    for (names, count) in [(rules.collect::<Vec<_>>(), 5), (agents.collect(), 4)] {
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!((unique.len(), names.len()), (count, count), "{names:?}");
        assert!(names.iter().all(|name| is_word(name)), "{names:?}");
    }
    if has_engines() {
        let run = snakemake(&dir);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
}

#[test]
fn a_directory_with_a_percent_sign_runs_on_slurm() {
    if !has_engines() {
        return;
    }
    let dir = written(Workflow::new(&json!([
        {"id": "a", "for_each": {"range": 3}, "sh": "echo {index}", "out": [{"name": "o", "path": "-"}]},
        {"id": "r", "kind": "reduce", "needs": ["a"], "reduce": {"by": "concat", "files": ["{a.o}"]},
            "out": [{"name": "all", "path": "all"}]},
    ])));
    let run = fedmill(&dir, &["plan", "render", "p.json", "--target", "slurm", "-o", "50%j %%x"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    // `submit.sh` follows the link, and gives sbatch the folder itself.
    std::os::unix::fs::symlink("50%j %%x", dir.path("rendered")).unwrap();
    assert_eq!(Slurm::start("").run(&dir), Some(0));
    assert_eq!(dir.read("rendered/tasks/r/out/r/all"), b"0\n1\n2\n");
    assert!(dir.exists("rendered/logs/a.1.log"));
}

/// A rendered plan: `b` waits for `a`, and `c` for `b`.
fn chain() -> Dir {
    let dir = written(Workflow::new(&json!([
        {"id": "a", "sh": "true"}, {"id": "b", "sh": "true", "needs": ["a"]},
        {"id": "c", "sh": "true", "needs": ["b"]}, {"id": "d", "sh": "true"},
    ])));
    assert_eq!(render(&dir, "slurm", &[]).code, Some(0));
    dir
}

/// Runs `submit.sh` of the plan [`chain`] with programs that stand in for those of Slurm. The job of `a` can never start.
fn submitted(dir: &Dir, ping: &str, wait: &[&str]) -> Run {
    for (name, script) in [
        (
            "scontrol",
            format!("case $1 in ping) {ping};; show) echo 'BOOT_TIME = t'; echo 'MaxArraySize = 9';; esac"),
        ),
        (
            "sbatch",
            "for word; do case $word in --job-name=*) job=${word#*=};; esac; done
             number=$(($(cat $HOME/jobs 2>/dev/null | wc -l) + 1))
             echo $job $number >> $HOME/jobs; echo $number"
                .to_owned(),
        ),
        (
            "squeue",
            "touch $HOME/jobs $HOME/cancelled; grep -vwf $HOME/cancelled $HOME/jobs | while read job number; do
                 case $job in *:a) why=PartitionConfig;; *:d) why=Resources;; *) why=Dependency;; esac
                 echo \"$job $number N/A PENDING $number $why\"; done"
                .to_owned(),
        ),
        ("scancel", "printf '%s\\n' \"$@\" >> $HOME/cancelled".to_owned()),
    ] {
        dir.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(&format!("bin/{name}")), mode).unwrap();
    }
    let path = format!("{}:{}", dir.path("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    command.args(["10", "bash", "rendered/submit.sh"]).args(wait).current_dir(dir.path(""));
    let output = command.env("PATH", path).env("HOME", dir.path("")).env("POLL", "1").output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_job_that_can_never_start_ends_submit_with_its_reason_and_without_jobs_that_wait_for_it() {
    for wait in [&[][..], &["--wait"]] {
        let dir = chain();
        let expected =
            ["job 1 (a) can never start as it was submitted: PartitionConfig", "`scancel 1`", "gives up"];
        let run = submitted(&dir, "echo 'Slurmctld(primary) at x is UP'", wait);
        assert!(expected.iter().all(|text| run.stderr.contains(text)), "{run:#?}");
        assert_eq!(run.code, Some(2), "{run:#?}");
        assert_eq!(run.stderr.matches("can never start").count(), 1, "{run:#?}");
        // `b` and `c` wait for `a`, and `d` waits for none.
        assert_eq!(dir.read("cancelled"), b"2\n3\n");
        assert_eq!(run.stdout.matches("submitted ").count(), 4, "{run:#?}");
        // The next run by cron finds the job still there, and submits nothing.
        let run = submitted(&dir, "echo 'Slurmctld(primary) at x is UP'", wait);
        run.assert_fails(2, &expected);
    }
}

#[test]
fn without_a_controller_nothing_is_submitted_and_the_message_says_so() {
    let began = Instant::now();
    let ping = "echo 'scontrol: error: no configuration source' >&2; exit 1";
    let run = submitted(&chain(), ping, &["--wait"]);
    run.assert_fails(
        1,
        &["no Slurm controller answers: scontrol: error: no configuration source", "SLURM_CONF"],
    );
    assert!(began.elapsed() < Duration::from_secs(60) && !run.stdout.contains("submitted"), "{run:#?}");
}
