//! Findings of `round check` about files, and not about settings alone.

use super::federation::{Federation, STATE};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const FOUR: &str = "[coordination]\nmin_clients = 2\nclients = 4\n\
                    [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n";

/// The one error of a federation with these settings, as JSON.
#[track_caller]
fn finding(federation: &Federation, settings: &str) -> serde_json::Value {
    federation.configure(&format!("{FOUR}{settings}"));
    let run = federation.round("check", &["--json"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let errors = json["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "error");
    let errors: Vec<_> = errors.collect();
    assert_eq!(errors.len(), 1, "{json}");
    errors[0].clone()
}

#[track_caller]
fn assert_says(finding: &serde_json::Value, key: &str, texts: &[&str]) {
    assert_eq!(finding["key"], key, "{finding}");
    let text = finding.to_string();
    texts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
}

#[test]
fn a_sound_federation_has_no_error() {
    let federation =
        Federation::new(4, &format!("{FOUR}[evaluation]\ncommand = [\"sh\", \"-c\", \"true\"]\n"));
    assert_eq!(federation.round("check", &[]).code, Some(0));
}

#[test]
fn a_registry_that_is_missing_or_damaged_is_a_finding() {
    let federation = Federation::new(4, FOUR);
    let registry = federation.dir.path(&format!("{STATE}/clients.db"));
    federation.dir.write(&format!("{STATE}/clients.db"), "no database");
    assert_says(&finding(&federation, ""), "clients.db", &["a damaged file", "backup"]);
    fs::remove_file(registry).unwrap();
    assert_says(
        &finding(&federation, ""),
        "clients.db",
        &["no round can open", "fedmill clients import fed"],
    );
}

#[test]
fn a_file_of_tiers_that_cannot_be_used_is_a_finding() {
    let federation = Federation::new(4, FOUR);
    let settings = "[tiers]\nfile = \"tiers.json\"\n";
    let missing = finding(&federation, settings);
    assert_says(&missing, "tiers.file", &["tiers.json: cannot be read", "fedmill clients tiers fed"]);
    federation.dir.write(&format!("{STATE}/tiers.json"), "{\"tiers\": 3}");
    assert_says(&finding(&federation, settings), "tiers.file", &["is not a file of tiers"]);
}

#[test]
fn an_evaluation_that_cannot_start_is_a_finding() {
    let federation = Federation::new(4, FOUR);
    let command = |name: &str| format!("[evaluation]\ncommand = [\"{name}\"]\n");
    let found = finding(&federation, &command("no-such-program"));
    assert_says(&found, "evaluation.command", &["no folder of PATH has this program", "whole path"]);
    let found = finding(&federation, &command("./measure.sh"));
    assert_says(&found, "evaluation.command", &["there is no such file"]);
    let script = format!("{STATE}/measure.sh");
    federation.dir.write(&script, "#!/bin/sh\necho '{}'\n");
    let found = finding(&federation, &command("./measure.sh"));
    assert_says(&found, "evaluation.command", &["no program that this account may run", "chmod +x"]);
    fs::set_permissions(federation.dir.path(&script), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(federation.round("check", &[]).code, Some(0));
}

#[test]
fn a_current_model_that_is_no_link_is_named_with_the_remedy() {
    let federation = Federation::new(4, FOUR);
    let (link, model) = (format!("{STATE}/current.safetensors"), federation.model());
    fs::remove_file(federation.dir.path(&link)).unwrap();
    federation.dir.write(&link, &model);
    assert_says(
        &finding(&federation, ""),
        "current.safetensors",
        &["a file, expected a link", "ln -s models/"],
    );
    let run = federation.round("run", &[]);
    run.assert_fails(
        2,
        &["current.safetensors: found a file, expected a link to models/", "hint: ", "ln -s models/"],
    );
    let hint = run.stderr.split('`').nth(1).unwrap();
    fs::remove_file(federation.dir.path(&link)).unwrap();
    let (target, _) = hint.strip_prefix("ln -s ").unwrap().split_once(' ').unwrap();
    std::os::unix::fs::symlink(target, federation.dir.path(&link)).unwrap();
    federation.advance();
    federation.assert_sound();
}

#[test]
fn a_tier_too_small_for_its_tolerance_is_a_finding() {
    let federation = Federation::new(7, FOUR);
    let ids =
        |range: std::ops::Range<u32>| range.map(|i| format!("\"client-{i}\"")).collect::<Vec<_>>().join(",");
    let tiers = |optional: bool| {
        format!(
            "{{\"schema\":\"fedmill.tiers/1\",\"tiers\":[{{\"name\":\"small\",\"clients\":[{}],\
             \"rule\":\"median\",\"byzantine\":0.2,\"optional\":{optional}}},\
             {{\"name\":\"rest\",\"clients\":[\"*\"],\"rule\":\"median\",\"byzantine\":0}}]}}",
            ids(0..3)
        )
    };
    federation.dir.write(&format!("{STATE}/tiers.json"), tiers(false));
    let found = finding(&federation, "[tiers]\nfile = \"tiers.json\"\n");
    assert_says(&found, "tiers.file", &["3 clients in tier small", "every round is refused"]);
    federation.dir.write(&format!("{STATE}/tiers.json"), tiers(true));
    let check = federation.round("check", &["--json"]);
    assert_eq!(check.code, Some(0), "{check:#?}");
    assert!(check.stdout.contains("every round drops its updates"), "{check:#?}");
}
