//! Agents in the registry: what they are, what their attempts came to, and plans that get them.

use crate::harness::{Dir, Run, fedmill};
use serde_json::{Value, json};

fn agent(capabilities: &[&str], script: &str) -> Value {
    json!({"kind": "command", "argv": ["sh", "-c", script], "capabilities": capabilities})
}

fn add(dir: &Dir, agents: &Value, more: &[&str]) -> Run {
    dir.write("agents.json", agents.to_string());
    fedmill(dir, &[&["agents", "add", "state", "agents.json"], more].concat())
}

fn show(dir: &Dir, name: &str) -> Value {
    let run = fedmill(dir, &["agents", "show", "state", name, "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    serde_json::from_str(&run.stdout).unwrap()
}

fn listed(dir: &Dir, more: &[&str]) -> Vec<String> {
    let run = fedmill(dir, &[&["agents", "list", "state", "--json"], more].concat());
    let name = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["name"].as_str().unwrap().to_owned()
    };
    run.stdout.lines().map(name).collect()
}

#[test]
fn agents_are_added_listed_and_retired() {
    let dir = Dir::new();
    let both = json!({"a": agent(&["review", "merge"], "true"), "b": agent(&["merge"], "true")});
    assert_eq!(add(&dir, &both, &["--seconds", "2"]).stdout, "a\nb\n");
    add(&dir, &both, &[]).assert_fails(2, &["state/clients.db: an agent is named `a` already", "--update"]);
    assert_eq!(listed(&dir, &[]), ["a", "b"]);
    assert_eq!(listed(&dir, &["--capability", "review"]), ["a"]);
    let shown = show(&dir, "a");
    assert_eq!(shown["agent"], both["a"]);
    assert_eq!((&shown["succeeded"], &shown["expected_seconds"]), (&json!(0), &json!(2.0)));
    assert_eq!(fedmill(&dir, &["agents", "retire", "state", "a"]).stdout, "1 agent retired\n");
    fedmill(&dir, &["agents", "retire", "state", "b", "c"]).assert_fails(2, &["no agent is named `c`"]);
    assert_eq!(listed(&dir, &[]), ["b"]);
    assert_eq!(listed(&dir, &["--retired"]), ["a", "b"]);
    // A retired agent comes back with a new description, and keeps what the description does not say.
    assert_eq!(add(&dir, &json!({"a": agent(&["paint"], "true")}), &["--update"]).code, Some(0));
    assert_eq!(
        (show(&dir, "a")["retired_at"].clone(), show(&dir, "a")["expected_seconds"].clone()),
        (Value::Null, json!(2.0))
    );
    let table = fedmill(&dir, &["agents", "list", "state"]).stdout;
    assert!(table.contains("paint") && table.contains("0.050"), "{table}");
}

#[test]
fn what_is_no_agent_is_refused() {
    let dir = Dir::new();
    for (text, expected) in [
        ("{", "agents.json: is no JSON"),
        (
            r#"{"a": {"kind": "robot"}}"#,
            "$.agents.a.kind: unknown value `robot`, expected one of `command`, `http`, `ollama`",
        ),
        (
            r#"{"a": {"kind": "command", "argv": ["x"], "capabilities": []}}"#,
            "$.agents.a.capabilities: found no capability",
        ),
        (
            r#"{"a": {"kind": "command", "argv": ["x"], "capabilities": ["c"]}, "a": {}}"#,
            "found the key `a` twice",
        ),
        (
            r#"{"a": {"kind": "http", "url": "http://h/", "headers": {"Authorization": "Bearer x"}, "capabilities": ["c"]}}"#,
            "$.agents.a.headers.Authorization",
        ),
        (r#"{}, "stages": [{"id": "x"}], "x-y": {}"#, "agents.json: is no JSON: trailing characters"),
    ] {
        dir.write("agents.json", text);
        fedmill(&dir, &["agents", "add", "state", "agents.json"]).assert_fails(2, &[expected]);
    }
}

#[test]
fn agents_without_names_are_refused_with_the_smallest_right_file() {
    let dir = Dir::new();
    let one = agent(&["review"], "true");
    let mut smallest = Value::Null;
    for (found, file) in [("one agent without a name", one.clone()), ("a list", json!([one]))] {
        let run = add(&dir, &file, &[]);
        let expected = format!("agents.json: $: found {found}, expected an object of agents by name");
        run.assert_fails(2, &[&expected]);
        let example = run.stderr.split("the smallest file is ").nth(1).unwrap_or_default();
        smallest = serde_json::Deserializer::from_str(example).into_iter().next().unwrap().unwrap();
    }
    assert_eq!(add(&dir, &smallest, &[]).stdout, "NAME\n", "{smallest}");
    // An agent may have the name `kind`.
    assert_eq!(add(&dir, &json!({"kind": agent(&["review"], "true")}), &[]).stdout, "kind\n");
}

#[test]
fn a_template_makes_agents() {
    let dir = Dir::new();
    let template = json!({"kind": "ollama", "url": "http://127.0.0.1:{params.port}", "model": "{params.model}",
        "options": {"seed": "{params.seed}", "num_ctx": 4096}, "capabilities": ["think"]});
    dir.write("t.json", template.to_string());
    let new = |settings: &[&str]| {
        let mut args = vec!["agents", "new", "state", "judge-7", "--from", "t.json"];
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        fedmill(&dir, &args)
    };
    assert_eq!(new(&["port=11434", "model=m:1", "seed=7"]).stdout, "judge-7\n");
    let expected = json!({"kind": "ollama", "url": "http://127.0.0.1:11434", "model": "m:1",
        "options": {"seed": 7, "num_ctx": 4096}, "capabilities": ["think"]});
    let found = show(&dir, "judge-7")["agent"].clone();
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value);
    }
    new(&["port=1", "model=m"])
        .assert_fails(2, &["t.json: $.options.seed: found {params.seed}, expected --set seed=VALUE"]);
    new(&["port=1", "model=m", "seed=1", "sed=2"])
        .assert_fails(2, &["t.json: has no reference {params.sed}"]);
    new(&["port=1", "port=2", "model=m", "seed=1"]).assert_fails(2, &["--set port is given twice"]);
}

/// A plan of the template `refine` with agents of the registry.
fn refine(dir: &Dir) -> Run {
    dir.write("start", "x");
    let args =
        ["plan", "new", "--template", "refine", "--set", "start=start", "-o", "p.json", "--agents", "state"];
    fedmill(dir, &args)
}

#[test]
fn a_plan_gets_the_agents_that_it_needs() {
    let dir = Dir::new();
    assert_eq!(
        add(&dir, &json!({"r": agent(&["reviw"], "true"), "p": agent(&["propose"], "true")}), &[]).code,
        Some(0)
    );
    refine(&dir).assert_fails(
        2,
        &["stage `review` needs an agent with review, and no registered agent has it; the nearest is `reviw`, which r can do",
          "fedmill agents list"],
    );
    assert_eq!(
        add(&dir, &json!({"q": agent(&["review"], "true"), "s": agent(&["review"], "true")}), &[]).code,
        Some(0)
    );
    assert_eq!(fedmill(&dir, &["agents", "retire", "state", "s"]).code, Some(0));
    assert_eq!(refine(&dir).code, Some(0));
    let plan = dir.json("p.json");
    let names: Vec<&String> = plan["agents"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["p", "q"], "a retired agent is in no plan");
    assert_eq!(plan["agents"]["q"]["score"], 0.05);
}

/// A plan whose stages ask for a capability.
fn work(dir: &Dir, stages: &Value, agents: &Value) {
    let plan = json!({"schema": "fedmill.plan/1", "id": "p", "agents": agents, "stages": stages,
        "limits": {"timeout": {"run": "20s"}, "on_failure": "keep_going", "max_parallel": 1}});
    dir.write("p.json", plan.to_string());
}

#[test]
fn attempts_count_once_whatever_happens_to_the_run() {
    let dir = Dir::new();
    let agents =
        json!({"good": agent(&["a"], "true"), "bad": agent(&["b"], "exit 1"), "own": agent(&["c"], "true")});
    assert_eq!(add(&dir, &json!({"good": agents["good"], "bad": agents["bad"]}), &[]).code, Some(0));
    let stages = json!([
        {"id": "one", "agent": "good", "for_each": {"range": 3}},
        {"id": "two", "agent": "bad", "retry": {"max_attempts": 2, "on": ["any"], "backoff": {"initial": "1ms"}}},
        {"id": "three", "agent": "own"},
    ]);
    work(&dir, &stages, &agents);
    let counts = |name: &str| {
        let row = show(&dir, name);
        (row["succeeded"].as_u64().unwrap(), row["failed"].as_u64().unwrap())
    };
    let run = |args: &[&str]| fedmill(&dir, &[&["plan"], args, &["--agents", "state"]].concat());
    run(&["run", "p.json"]).assert_fails(2, &["stage `two`: exited with status 1"]);
    assert_eq!((counts("good"), counts("bad")), ((3, 0), (0, 2)));
    // The failed stage is tried again, twice; the others are not.
    run(&["resume", "p.run"]).assert_fails(2, &["stage `two`"]);
    assert_eq!((counts("good"), counts("bad")), ((3, 0), (0, 4)));
    // A run without the registry counts in the next one with it.
    fedmill(&dir, &["plan", "resume", "p.run"]).assert_fails(2, &["stage `two`"]);
    run(&["resume", "p.run"]).assert_fails(2, &["stage `two`"]);
    assert_eq!(counts("bad"), (0, 8));
    // Another run of the same plan counts, too.
    run(&["run", "p.json", "--dir", "other"]).assert_fails(2, &["stage `two`"]);
    assert_eq!((counts("good"), counts("bad")), ((6, 0), (0, 10)));
    // Beta(7, 1): the sixth root of uniform values.
    let score = show(&dir, "good")["score"].as_f64().unwrap();
    assert!((score - 0.05_f64.powf(1.0 / 7.0)).abs() < 1e-9, "{score}");
    assert_eq!(show(&dir, "bad")["recent"], 0.0);
}

#[test]
fn a_weak_agent_is_retired_and_named() {
    let dir = Dir::new();
    let agents = json!({"weak": agent(&["a"], "exit 1")});
    assert_eq!(add(&dir, &agents, &[]).code, Some(0));
    work(&dir, &json!([{"id": "one", "agent": "weak", "for_each": {"range": 19}}]), &agents);
    let run = fedmill(&dir, &["plan", "run", "p.json", "--agents", "state"]);
    assert!(!run.stderr.contains("retired"), "{run:#?}");
    assert_eq!(listed(&dir, &[]), ["weak"]);
    let run = fedmill(&dir, &["plan", "run", "p.json", "--dir", "second", "--agents", "state"]);
    assert!(
        run.stderr.contains("agent `weak` is retired: score 0.001 is below 0.3 after 38 attempts"),
        "{run:#?}"
    );
    assert_eq!(listed(&dir, &[]), [""; 0]);
    assert_eq!(show(&dir, "weak")["retired_because"], "score 0.001 is below 0.3 after 38 attempts");
    // An agent is retired once, though its attempts go on counting.
    let before = show(&dir, "weak");
    let run = fedmill(&dir, &["plan", "run", "p.json", "--dir", "third", "--agents", "state"]);
    assert!(!run.stderr.contains("is retired"), "{run:#?}");
    assert_eq!(fedmill(&dir, &["agents", "retire", "state", "weak"]).stdout, "0 agents retired\n");
    let after = show(&dir, "weak");
    assert_eq!(
        (&after["retired_at"], &after["retired_because"]),
        (&before["retired_at"], &before["retired_because"])
    );
    assert_eq!(after["failed"], 57);
    // It comes back with its counts, so that the next run retires it again, with a new reason.
    assert_eq!(add(&dir, &agents, &["--update"]).code, Some(0));
    let back = show(&dir, "weak");
    assert_eq!(
        (&back["retired_at"], &back["retired_because"], &back["failed"]),
        (&Value::Null, &Value::Null, &json!(57))
    );
    let run = fedmill(&dir, &["plan", "run", "p.json", "--dir", "fourth", "--agents", "state"]);
    let why = "score 0.001 is below 0.3 after 76 attempts";
    assert!(run.stderr.contains(&format!("agent `weak` is retired: {why}")), "{run:#?}");
    assert_eq!((listed(&dir, &[]), show(&dir, "weak")["retired_because"].as_str()), (vec![], Some(why)));
    // What an operator retires has no reason of the score.
    assert_eq!(add(&dir, &agents, &["--update"]).code, Some(0));
    assert_eq!(fedmill(&dir, &["agents", "retire", "state", "weak"]).stdout, "1 agent retired\n");
    assert_eq!(show(&dir, "weak")["retired_because"], Value::Null);
}

#[test]
fn slow_attempts_lower_the_recent_score() {
    let dir = Dir::new();
    let agents = json!({"slow": agent(&["a"], "sleep 0.4")});
    assert_eq!(add(&dir, &agents, &["--seconds", "0.1"]).code, Some(0));
    work(&dir, &json!([{"id": "one", "agent": "slow"}]), &agents);
    assert_eq!(fedmill(&dir, &["plan", "run", "p.json", "--agents", "state"]).code, Some(0));
    let recent = show(&dir, "slow")["recent"].as_f64().unwrap();
    assert!(recent > 0.0 && recent <= 0.25, "{recent}");
    assert_eq!(show(&dir, "slow")["succeeded"], 1);
}

#[test]
fn the_best_idle_agent_takes_the_work() {
    let dir = Dir::new();
    let tell = |name: &str, score: f64, most: u32| {
        let mut agent = agent(&["a"], &format!("echo {name}; sleep 0.6"));
        agent["score"] = json!(score);
        agent["max_parallel"] = json!(most);
        agent
    };
    let agents = json!({"a": tell("a", 0.4, 9), "b": tell("b", 0.9, 1), "c": tell("c", 0.7, 1)});
    let stage = |id: &str| json!({"id": id, "needs_capability": ["a"], "out": [{"name": "o", "path": "-"}]});
    let stages = json!([stage("s1"), stage("s2"), stage("s3"), stage("s4")]);
    work(&dir, &stages, &agents);
    let mut plan = dir.json("p.json");
    plan["limits"]["max_parallel"] = json!(3);
    dir.write("p.json", plan.to_string());
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let who = |id: &str| String::from_utf8(dir.read(&format!("p.run/out/{id}/o"))).unwrap();
    assert_eq!([who("s1"), who("s2"), who("s3")], ["b\n", "c\n", "a\n"]);
}
