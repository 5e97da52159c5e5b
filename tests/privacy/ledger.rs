//! A budget from the command line: charges, reports, refusals, and changes that are noticed.

use crate::harness::{Dir, Run, fedmill, fedmill_after, fedmill_with_stdin, program};
use std::process::Command;

/// The plan of these tests; its ten rounds cost an epsilon of about 1.8.
const PLAN: &str = "--population 1000 --epsilon 2 --delta 1e-5 --sampling poisson --sampling-rate 0.1 --clip 1.5 \
                    --noise-multiplier 1.2 --rounds 10";

fn privacy(dir: &Dir, args: &str) -> Run {
    let args: Vec<&str> = ["privacy"].into_iter().chain(args.split_whitespace()).collect();
    fedmill(dir, &args)
}

#[track_caller]
fn done(run: &Run) -> &str {
    assert_eq!(run.code, Some(0), "{run:#?}");
    &run.stdout
}

/// A folder with a ledger in `dp`.
fn started() -> Dir {
    let dir = Dir::new();
    assert_eq!(done(&privacy(&dir, &format!("init dp {PLAN}"))), "dp/plan.lock\n");
    dir
}

/// Charges rounds of the plan.
fn spend(dir: &Dir, rounds: u32) -> Run {
    privacy(dir, &format!("spend dp --noise-multiplier 1.2 --sampling-rate 0.1 --rounds {rounds}"))
}

fn status(dir: &Dir) -> serde_json::Value {
    serde_json::from_str(done(&privacy(dir, "status dp --json"))).unwrap()
}

fn lines(dir: &Dir) -> Vec<String> {
    String::from_utf8(dir.read("dp/ledger.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn write_lines(dir: &Dir, lines: &[String]) {
    dir.write("dp/ledger.jsonl", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

/// The text without digests, which differ between ledgers.
fn without_digests(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(['\n']) {
        if letter.is_ascii_hexdigit() {
            word.push(letter);
            continue;
        }
        let is_digest = word.len() == 64;
        out += if is_digest { "DIGEST" } else { &word };
        out.push(letter);
        word.clear();
    }
    out
}

/// A folder with a ledger that uses RDP only, whose epsilons have the same digits on every machine.
fn started_by_rdp() -> Dir {
    let dir = Dir::new();
    let plan = PLAN.replace("--rounds 10", "--rounds 4 --accountant rdp");
    done(&privacy(&dir, &format!("init dp {plan}")));
    dir
}

#[test]
fn status_before_and_after_a_charge() {
    let dir = started_by_rdp();
    insta::assert_snapshot!("status_at_the_start", done(&privacy(&dir, "status dp")));
    done(&spend(&dir, 4));
    insta::assert_snapshot!("status_after_four_rounds", done(&privacy(&dir, "status dp")));
    insta::assert_snapshot!("bar_after_four_rounds", done(&privacy(&dir, "status dp --bar")));
    insta::assert_snapshot!(
        "json_after_four_rounds",
        without_digests(done(&privacy(&dir, "status dp --json")))
    );
}

#[test]
fn exports_hold_no_inputs_and_no_times() {
    let dir = started_by_rdp();
    done(&spend(&dir, 4));
    done(&privacy(&dir, "spend dp --noise-multiplier 9 --round 7 --note statistics"));
    for format in ["dp-event", "csv", "model-card", "prometheus"] {
        let text = done(&privacy(&dir, &format!("export dp --format {format}"))).to_owned();
        assert!(
            !text.contains("\"ts\"") && !text.contains("sha256") && !text.contains("statistics"),
            "{text}"
        );
        insta::assert_snapshot!(format!("export_{format}"), text);
        let run = privacy(&dir, &format!("export dp --format {format} -o out.txt"));
        assert_eq!((done(&run), dir.read("out.txt")), ("out.txt\n", text.into_bytes()));
    }
}

#[test]
fn epsilon_by_rounds_is_drawn() {
    let dir = started();
    for rounds in [1, 1, 3] {
        done(&spend(&dir, rounds));
    }
    for (file, start) in [("plot.svg", &b"<svg"[..]), ("plot.png", b"\x89PNG")] {
        done(&privacy(&dir, &format!("export dp --format csv -o out.csv --plot {file}")));
        assert!(dir.read(file).starts_with(start), "{file}");
    }
    let svg = String::from_utf8(dir.read("plot.svg")).unwrap();
    for label in ["spent, PLD", "spent, RDP", "plan", "budget"] {
        assert!(svg.contains(label), "{label}");
    }
    privacy(&dir, "export dp --format csv --plot plot.gif").assert_fails(2, &["plot.gif"]);
}

#[test]
fn an_export_comes_to_what_was_spent() {
    let dir = started();
    done(&spend(&dir, 3));
    done(&privacy(&dir, "spend dp --noise-multiplier 5"));
    let event = done(&privacy(&dir, "export dp --format dp-event")).to_owned();
    let other = started();
    let args = ["privacy", "spend", "dp", "--event", "-"];
    done(&fedmill_with_stdin(&other, &args, &event));
    let [one, two] = [status(&dir), status(&other)];
    assert_eq!(one["epsilon_rdp"], two["epsilon_rdp"]);
    assert!(one["epsilon_rdp"].as_f64().unwrap() > 0.5);
}

#[test]
fn the_option_left_out_is_solved_for_within_the_budget() {
    let common =
        "--population 1000 --epsilon 1.5 --delta 1e-6 --sampling poisson --sampling-rate 0.05 --clip 1";
    for given in ["--noise-multiplier 1.3", "--rounds 50", "--rounds 50 --accountant rdp"] {
        let dir = Dir::new();
        done(&privacy(&dir, &format!("init dp {common} {given}")));
        let plan = &dir.json("dp/plan.lock")["plan"];
        let (noise, rounds) = (plan["noise_multiplier"].as_f64().unwrap(), plan["rounds"].as_u64().unwrap());
        let all = privacy(
            &dir,
            &format!("spend dp --noise-multiplier {noise} --sampling-rate 0.05 --rounds {rounds}"),
        );
        done(&all);
        let spent = status(&dir)["epsilon_spent"].as_f64().unwrap();
        assert!((1.4..=1.5).contains(&spent), "{given}: {spent}");
        let more = privacy(&dir, "spend dp --noise-multiplier 1.3 --sampling-rate 0.05 --rounds 20");
        more.assert_fails(1, &["refused"]);
    }
}

#[test]
fn a_plan_that_does_not_fit_is_refused_and_nothing_is_there() {
    let dir = Dir::new();
    let run = privacy(&dir, &format!("init dp {} --rounds 1000", PLAN.replace("--rounds 10", "")));
    run.assert_fails(1, &["1000 rounds cost epsilon", "the budget is 2"]);
    assert_eq!(dir.names(), [""; 0]);
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let dir = Dir::new();
    for (change, to, parts) in [
        ("--sampling poisson", "--sampling fixed", &["sampling fixed", "replace-one", "hint: "][..]),
        ("--sampling poisson", "--sampling all", &["sampling all with rate 0.1"]),
        ("--delta 1e-5", "--delta 0", &["delta: found 0"]),
        ("--epsilon 2", "--epsilon NaN", &["epsilon: found NaN"]),
        ("--clip 1.5", "--clip inf", &["clip bound: found inf"]),
        ("--clip 1.5", "--clip 1e300", &["clip bound: found 1e300", "from 1e-60 to 1e60"]),
        ("--clip 1.5", "--clip 1e-300", &["clip bound: found 1e-300", "from 1e-60 to 1e60"]),
        ("--noise-multiplier 1.2", "--noise-multiplier=-1", &["noise multiplier: found -1"]),
        ("--clip 1.5", "--clip 1 --adaptive-clip --count-noise 0.6", &["noise of 0.6 on the count"]),
    ] {
        let plan = PLAN.replace(change, to);
        assert_ne!(plan, PLAN);
        privacy(&dir, &format!("init dp {plan}")).assert_fails(2, parts);
    }
    assert_eq!(dir.names(), [""; 0]);
}

#[test]
fn plans_with_weak_protection_warn() {
    let dir = Dir::new();
    let plan = "--population 100 --epsilon 400 --delta 0.1 --clip 1 --noise-multiplier 0.2 --rounds 2";
    let run = privacy(&dir, &format!("init dp {plan}"));
    done(&run);
    for part in ["not below 1/100", "below 0.3", "above 10"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let run = privacy(&dir, &format!("init other {}", PLAN.replace("--sampling poisson ", "")));
    done(&run);
    assert!(run.stderr.contains("drawn independently"), "{}", run.stderr);
}

#[test]
fn charges_that_the_budget_does_not_hold_are_refused() {
    let dir = started();
    done(&spend(&dir, 10));
    let before = dir.contents();
    spend(&dir, 10).assert_fails(1, &["the budget is epsilon 2", "would be spent with this"]);
    privacy(&dir, "spend dp --noise-multiplier 0").assert_fails(1, &["infinite"]);
    let event = r#"{"class_name":"NonPrivateDpEvent"}"#;
    dir.write("event.json", event);
    privacy(&dir, "spend dp --event event.json").assert_fails(1, &["infinite"]);
    dir.write("event.json", event.replace("NonPrivate", "Laplace"));
    privacy(&dir, "spend dp --event event.json").assert_fails(2, &["LaplaceDpEvent"]);
    std::fs::remove_file(dir.path("event.json")).unwrap();
    dir.assert_unchanged_since(&before);
}

#[test]
fn pld_does_not_count_after_a_charge_outside_the_plan() {
    let dir = started();
    done(&spend(&dir, 4));
    assert!(status(&dir)["epsilon_pld"].is_number());
    let table = privacy(&dir, "status dp");
    assert!(done(&table).contains(", valid for plan "), "{table:#?}");
    let card = privacy(&dir, "export dp --format model-card");
    assert!(done(&card).contains("privacy loss distribution"), "{card:#?}");
    let run = privacy(&dir, "spend dp --noise-multiplier 8");
    done(&run);
    assert!(run.stderr.contains("only RDP counts"), "{}", run.stderr);
    let status = status(&dir);
    assert!(status["epsilon_pld"].is_null());
    assert_eq!(status["epsilon_spent"], status["epsilon_rdp"]);
}

#[test]
fn a_reserve_counts_until_it_is_settled_or_voided() {
    let dir = started();
    let run = privacy(&dir, "spend dp --noise-multiplier 4 --reserve --note evaluation");
    assert_eq!(done(&run), "1\n");
    let reserved = status(&dir)["epsilon_spent"].as_f64().unwrap();
    assert!(reserved > 0.1);
    let explained = privacy(&dir, "recover dp");
    assert!(done(&explained).contains("reserve 1, evaluation"), "{explained:#?}");
    privacy(&dir, "spend dp --noise-multiplier 5 --settle 1")
        .assert_fails(2, &["the event differs from that of reserve 1"]);
    assert_eq!(done(&privacy(&dir, "spend dp --noise-multiplier 4 --settle 1")), "2\n");
    assert_eq!(status(&dir)["epsilon_spent"].as_f64().unwrap(), reserved);
    done(&fedmill(&dir, &["privacy", "void", "dp", "--seq", "2", "--attest", "the study was called off"]));
    assert_eq!(status(&dir)["epsilon_spent"].as_f64().unwrap(), 0.0);
    assert!(lines(&dir).last().unwrap().contains("the study was called off"));
    let again = fedmill(&dir, &["privacy", "void", "dp", "--seq", "2", "--attest", "again"]);
    again.assert_fails(1, &["record 2", "was voided before: `the study was called off`"]);
}

#[test]
fn a_budget_starts_once() {
    let dir = started();
    let before = dir.contents();
    privacy(&dir, &format!("init dp {PLAN}")).assert_fails(2, &["holds a privacy ledger already", "hint: "]);
    dir.assert_unchanged_since(&before);
    // It does not start again without its ledger, because the head is still there.
    std::fs::remove_file(dir.path("dp/ledger.jsonl")).unwrap();
    privacy(&dir, &format!("init dp {PLAN}")).assert_fails(2, &["holds a privacy ledger already"]);
    privacy(&dir, "status elsewhere").assert_fails(2, &["holds no privacy ledger", "privacy init elsewhere"]);
}

#[test]
fn an_edit_anywhere_is_noticed_by_every_command() {
    let dir = started();
    done(&spend(&dir, 2));
    done(&spend(&dir, 2));
    let good = dir.read("dp/ledger.jsonl");
    // A few bytes only. The unit tests of the chain change every byte.
    for place in (0..good.len()).step_by(137) {
        let mut bad = good.clone();
        bad[place] ^= 1;
        dir.write("dp/ledger.jsonl", &bad);
        let line = good[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
        let run = privacy(&dir, "verify dp");
        run.assert_fails(2, &["dp/ledger.jsonl"]);
        let named = run.stderr.contains(&format!("line {line}:")) || run.stderr.contains("is no UTF-8");
        assert!(named || good[place] == b'\n', "byte {place}: {}", run.stderr);
    }
    for command in ["status dp", "spend dp --noise-multiplier 50", "recover dp", "export dp --format csv"] {
        privacy(&dir, command).assert_fails(2, &["dp/ledger.jsonl", "hint: "]);
    }
    dir.write("dp/ledger.jsonl", &good);
    done(&privacy(&dir, "verify dp"));
}

#[test]
fn missing_lines_are_noticed() {
    let dir = started();
    done(&spend(&dir, 1));
    done(&spend(&dir, 1));
    let good = lines(&dir);
    write_lines(&dir, &good[..2]);
    let missing = ["ends with record 1, expected record 2", "hint: "];
    privacy(&dir, "verify dp").assert_fails(2, &missing);
    spend(&dir, 1).assert_fails(2, &missing);
    // Half of the last line. The head shows that the whole line was on disk, so no write was interrupted.
    let text = format!("{}\n{}\n{}", good[0], good[1], &good[2][..100]);
    dir.write("dp/ledger.jsonl", text);
    privacy(&dir, "status dp").assert_fails(2, &missing);
    write_lines(&dir, &[]);
    privacy(&dir, "status dp").assert_fails(2, &["lines are missing"]);
    write_lines(&dir, &good);
    done(&privacy(&dir, "verify dp"));
    std::fs::remove_file(dir.path("dp/head")).unwrap();
    privacy(&dir, "verify dp").assert_fails(2, &["dp/head", "is missing"]);
}

#[test]
fn an_unfinished_line_does_not_count_and_is_noted() {
    let dir = started();
    done(&spend(&dir, 1));
    let good = dir.read("dp/ledger.jsonl");
    dir.write("dp/ledger.jsonl", [good.as_slice(), b"{\"seq\":2,\"prev_sha"].concat());
    let torn = dir.contents();
    let verified = privacy(&dir, "verify dp");
    assert!(done(&verified).contains("note   18 bytes after the last line"), "{verified:#?}");
    assert_eq!(status(&dir)["charges"], 1);
    dir.assert_unchanged_since(&torn);
    assert_eq!(done(&spend(&dir, 1)), "3\n", "the note is a separate record");
    let lines = lines(&dir);
    assert!(lines[2].contains("18 bytes of a line") && lines[2].contains("note"), "{}", lines[2]);
    assert_eq!(status(&dir)["charges"], 2);
    done(&privacy(&dir, "verify dp"));
}

#[test]
fn a_plan_that_was_changed_is_noticed() {
    let dir = started();
    let good = String::from_utf8(dir.read("dp/plan.lock")).unwrap();
    dir.write("dp/plan.lock", good.replace("\"epsilon\": 2.0", "\"epsilon\": 9.0"));
    privacy(&dir, "status dp").assert_fails(2, &["dp/plan.lock", "changed after `init` froze it"]);
    // A valid plan, but of another budget.
    done(&privacy(&dir, &format!("init other {}", PLAN.replace("--epsilon 2", "--epsilon 9"))));
    dir.write("dp/plan.lock", dir.read("other/plan.lock"));
    spend(&dir, 1).assert_fails(2, &["dp/plan.lock", "the plan's digest is"]);
}

#[test]
fn killed_before_every_durable_step_a_charge_is_there_or_not() {
    let args = ["privacy", "spend", "dp", "--noise-multiplier", "1.2", "--sampling-rate", "0.1"];
    let mut charged = Vec::new();
    for step in 1.. {
        let dir = started();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if run.code == Some(0) {
            break;
        }
        assert!(run.code != Some(1) && run.code != Some(2), "{run:#?}");
        charged.push(status(&dir)["charges"].as_u64().unwrap());
        done(&privacy(&dir, "verify dp"));
        done(&spend(&dir, 1));
        assert_eq!(status(&dir)["charges"].as_u64(), Some(charged[charged.len() - 1] + 1));
        done(&privacy(&dir, "verify dp"));
    }
    // The steps: the line is written; it is on disk; its name is on disk; the head is written; it has its name; its
    // name is on disk.
    assert_eq!(charged, [0, 1, 1, 1, 1, 1]);
}

#[test]
fn killed_before_every_durable_step_a_start_can_be_made_again() {
    let args: Vec<&str> = ["privacy", "init", "dp"].into_iter().chain(PLAN.split_whitespace()).collect();
    let mut started = Vec::new();
    for step in 1.. {
        let dir = Dir::new();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if run.code == Some(0) {
            break;
        }
        let is_there = privacy(&dir, "status dp").code == Some(0);
        started.push(is_there);
        if !is_there {
            done(&privacy(&dir, &format!("init dp {PLAN}")));
        }
        for _ in 0..2 {
            done(&spend(&dir, 1));
        }
        done(&privacy(&dir, "verify dp"));
    }
    assert!(started.contains(&false) && started.contains(&true) && started.is_sorted(), "{started:?}");
}

#[test]
fn processes_at_once_are_charged_only_as_the_budget_allows() {
    let dir = started();
    let spend = || {
        let args = "privacy spend dp -q --noise-multiplier 1.2 --sampling-rate 0.1 --rounds 3";
        Command::new(program()).current_dir(dir.path("")).args(args.split_whitespace()).spawn().unwrap()
    };
    let runs: Vec<_> = (0..6).map(|_| spend()).collect();
    let codes = runs.into_iter().map(|mut run| run.wait().unwrap().code());
    let mut codes: Vec<Option<i32>> = codes.collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(1)]);
    assert_eq!(status(&dir)["charges"], 3);
    done(&privacy(&dir, "verify dp"));
}
