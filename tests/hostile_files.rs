//! Files that ask for more than they may, act on the terminal, or are not what they seem.

use crate::harness::{Dir, Update, fedmill, fedmill_after};
use std::fs;

/// Memory of any run here, in KiB of address space: threads, the program itself, and 256 MiB of data.
const MEMORY: &str = "ulimit -v 1500000";

fn sound(name: &str, value: f32) -> Update {
    Update::new(name).f32("w", &[4], &[value; 4]).meta("num_examples", "10")
}

/// Two sound updates of different values, and a base.
fn round() -> Dir {
    let dir = Dir::new();
    sound("base", 0.0).write(&dir);
    sound("updates/a", 0.5).write(&dir);
    sound("updates/b", 1.5).write(&dir);
    dir
}

const MERGE: [&str; 8] =
    ["aggregate", "--threads", "2", "--on-bad-update", "skip", "updates", "-o", "merged.safetensors"];

fn merge(dir: &Dir, more: &[&str]) -> crate::harness::Run {
    fedmill_after(dir, MEMORY, &[&MERGE, more].concat())
}

/// A header of `entries`, which the file holds `times` times.
fn header_bomb(dir: &Dir, entry: &str, times: usize) {
    let header = format!("{{{}{entry}}}", format!("{entry},").repeat(times - 1));
    Update::new("updates/evil").header(&header).write(dir);
}

#[test]
fn headers_that_are_too_long_for_the_layout_are_not_read() {
    for base in [&["--base", "base.safetensors"][..], &[]] {
        let dir = round();
        header_bomb(&dir, r#""":0"#, 2_000_000);
        let run = merge(&dir, &[base, &["--report", "report.json"]].concat());
        run.assert_merged("merged.safetensors");
        assert!(run.stderr.len() < 10_000, "{} bytes of messages", run.stderr.len());
        assert!(run.stderr.contains("header claims 10000"), "{}", run.stderr);
        assert!(fs::metadata(dir.path("report.json")).unwrap().len() < 100_000);
    }
}

#[test]
fn at_most_twenty_faults_of_a_file_are_kept() {
    let dir = round();
    header_bomb(&dir, r#""":0"#, 60);
    let run = merge(&dir, &["--base", "base.safetensors", "--report", "report.json"]);
    run.assert_merged("merged.safetensors");
    assert_eq!(run.stderr.matches("skipped updates/evil").count(), 21, "{}", run.stderr);
    // Every entry is bad, and all but the first are duplicates.
    assert!(run.stderr.contains("and 99 more faults"), "{}", run.stderr);
    let errors = dir.json("report.json")["rejected"][0]["errors"].as_array().unwrap().len();
    assert_eq!(errors, 21);
}

/// Data of a run here, in KiB: 256 MiB less the stacks of its threads.
const DATA: &str = "ulimit -d 262144";

/// The faults of many small files together are bounded too: each bad file then has one line.
#[test]
fn faults_of_many_files_are_bounded_together() {
    let dir = round();
    let header = format!("{{{}}}", (0..60).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(","));
    for i in 0..3000 {
        Update::new(&format!("updates/evil{i:04}")).header(&header).write(&dir);
    }
    for base in [&["--base", "base.safetensors"][..], &[]] {
        let run = fedmill_after(&dir, DATA, &[&MERGE, base, &["--report", "report.json"]].concat());
        run.assert_merged("merged.safetensors");
        let lines = run.stderr.lines().filter(|line| line.contains("skipped updates/evil")).count();
        // 95 updates with 20 faults, and all with their first and the number of the others.
        assert!((6000..=8100).contains(&lines), "{lines}");
        let rejected = dir.json("report.json")["rejected"].as_array().unwrap().clone();
        assert_eq!(rejected.len(), 3000);
        assert_eq!(rejected[0]["errors"].as_array().unwrap().len(), 21);
        assert_eq!(rejected[2999]["errors"].as_array().unwrap().len(), 2);
        assert_eq!(rejected[2999]["errors"][1], "and 59 more faults");
    }
}

/// Tensors that take more memory than text end the update, before many such updates fill the memory.
#[test]
fn tensors_that_cost_more_than_their_text_are_refused() {
    let dir = round();
    let entry = |i: usize| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    for file in 0..4 {
        let entries: Vec<String> = (file..file + 60_000).map(entry).collect();
        let header = format!("{{{}}}", entries.join(","));
        Update::new(&format!("updates/evil{file}")).header(&header).write(&dir);
    }
    let run = fedmill_after(&dir, DATA, &MERGE);
    run.assert_merged("merged.safetensors");
    let fault = "header lists 60000 tensors without values beside 0 others";
    assert_eq!(run.stderr.matches(fault).count(), 4, "{}", run.stderr);
}

#[test]
fn many_metadata_keys_are_refused() {
    let dir = round();
    let keys: Vec<String> = (0..3000).map(|i| format!("\"{i}\":\"\"")).collect();
    Update::new("updates/evil").header(&format!("{{\"__metadata__\":{{{}}}}}", keys.join(","))).write(&dir);
    let run = merge(&dir, &["--base", "base.safetensors"]);
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains("metadata has 3000 keys, expected at most 1024"), "{}", run.stderr);
}

/// An encoded update of one value, repeated.
fn constant(name: &str, extent: u64) -> Update {
    let directory = format!(
        r#"{{"tensors":{{"here":[["w","F32",[{extent}]]]}},"parts":[{{"coding":{{"constant":"3f800000"}},"tensors":[0],"chunks":[]}}],"metadata":[],"base":null}}"#
    );
    Update::new(name)
        .meta("fedmill.codec", &directory)
        .meta("fedmill.format", "fedmill-update/1")
        .meta("kind", "delta")
}

#[test]
fn sizes_are_held_against_the_base_or_a_limit_before_disk_is_used() {
    let dir = round();
    constant("bomb", 1 << 28).write(&dir);
    let decompress = |more: &[&str]| {
        fedmill(&dir, &[&["decompress", "bomb.safetensors", "-o", "out.safetensors"], more].concat())
    };
    let parts = ["it decodes to 268435456, expected at most 65544 values"];
    decompress(&["--base", "base.safetensors"]).assert_fails(2, &parts);
    decompress(&[]).assert_fails(2, &["it decodes to 1073741824, expected at most 67108864 bytes"]);
    decompress(&["--max-size", "1GB"]).assert_fails(2, &["expected at most 1000000000 bytes"]);
    assert!(!dir.exists("out.safetensors"));
    constant("small", 1 << 10).write(&dir);
    let run =
        fedmill(&dir, &["decompress", "small.safetensors", "-o", "out.safetensors", "--max-size", "4096"]);
    run.assert_merged("out.safetensors");
}

#[test]
fn parts_of_a_bundle_are_counted_before_they_are_built() {
    let dir = round();
    let parts = 20_000u32;
    let mut bundle = vec![1, b'a', b'b', b'c', b'd'];
    let mut left = parts;
    while left > 127 {
        bundle.push(left as u8 | 128);
        left >>= 7;
    }
    bundle.push(left as u8);
    bundle.extend(vec![0; 3 * parts as usize + 2]);
    bundle.extend((bundle.len() as u32).to_le_bytes());
    let update = Update::new("updates/evil").raw("fedmill.bundle", "U8", &[bundle.len()], &bundle);
    update.meta("fedmill.format", "fedmill-update/1").write(&dir);
    let run = merge(&dir, &["--base", "base.safetensors"]);
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains("lists 20000 parts, expected at most 1"), "{}", run.stderr);
}

const OSC: &str = "\u{1b}]0;P\u{7}\u{1b}[2J\r\nerror: forged line\u{202e}\u{9b}m";

#[test]
fn text_of_clients_does_not_act_on_the_terminal() {
    let dir = round();
    sound("updates/evil", 1.0).meta("client_id", &format!("evil{OSC}")).write(&dir);
    Update::new("updates/evil2").f32(&format!("w{OSC}"), &[1], &[0.0]).write(&dir);
    let runs = [
        fedmill(&dir, &["inspect", "updates"]),
        fedmill(&dir, &["inspect", "--json", "--base", "base.safetensors", "updates"]),
        fedmill(&dir, &["aggregate", "updates", "-o", "merged.safetensors", "--base", "base.safetensors"]),
        merge(&dir, &["--base", "base.safetensors"]),
        merge(&dir, &["--base", "base.safetensors", "--log-format", "json"]),
    ];
    for run in runs {
        let text = format!("{}{}", run.stdout, run.stderr);
        let acts = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{2069}').contains(&c));
        assert!(!text.contains(acts), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{text}");
    }
}

#[test]
fn inspect_has_a_row_for_each_update_and_never_ends_at_a_bad_one() {
    let dir = round();
    fs::remove_dir_all(dir.path("updates")).unwrap();
    dir.write("updates/garbage.safetensors", "garbage garbage\n");
    constant("updates/bomb", 1 << 59).write(&dir);
    header_bomb(&dir, r#""":0"#, 1_000_000);
    sound("updates/stale", 1.0).meta("round", "6").write(&dir);
    for base in [&["--base", "base.safetensors"][..], &[]] {
        let run = fedmill(&dir, &[&["inspect", "--round", "7", "updates"], base].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        for (client, fault) in [
            ("garbage", "header claims"),
            ("bomb", "it decodes to"),
            ("evil", "header claims"),
            ("stale", "update is of round 6, expected round 7"),
        ] {
            assert!(run.stdout.lines().any(|line| line.starts_with(&format!(" {client}"))), "{}", run.stdout);
            let says = |line: &str| line.starts_with(&format!("updates/{client}")) && line.contains(fault);
            assert!(run.stdout.lines().any(says), "{client}: {}", run.stdout);
        }
        let check = fedmill(&dir, &[&["inspect", "--check", "--round", "7", "updates"], base].concat());
        assert_eq!(check.code, Some(1));
        assert!(check.stderr.contains("refused: 4 of 4 updates have faults"), "{}", check.stderr);
    }
}

#[test]
fn no_output_replaces_an_input() {
    let dir = round();
    Update::new("m").f32("fc.weight", &[8, 64], &[0.5; 512]).f32("b", &[8], &[0.1; 8]).write(&dir);
    fs::hard_link(dir.path("m.safetensors"), dir.path("link.safetensors")).unwrap();
    fs::write(dir.path("x"), "").unwrap();
    let run = fedmill(&dir, &["compress", "--codec", "u8", "m.safetensors", "-o", "c.safetensors"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let before = dir.contents();
    let plain = ["compress", "--layout", "plain", "--codec", "i8:per=channel", "m.safetensors", "-o"];
    for more in [
        &["d.safetensors", "--emit-config", "m.safetensors"][..],
        &["d.safetensors", "--emit-config", "./link.safetensors"],
        &["d.safetensors", "--emit-config", "./d.safetensors"],
        &["m.safetensors"],
    ] {
        fedmill(&dir, &[&plain[..], more].concat()).assert_fails(2, &["is also an"]);
    }
    for output in ["m.safetensors", "link.safetensors", "c.safetensors"] {
        let args = ["decompress", "c.safetensors", "--base", "m.safetensors", "-o", output];
        fedmill(&dir, &args).assert_fails(2, &["is also an input"]);
    }
    dir.assert_unchanged_since(&before);
}

#[test]
fn files_of_other_formats_are_named() {
    for (start, what, hint) in [
        (&b"PK\x03\x04 and so on"[..], "a ZIP archive", "safetensors.torch.save_file"),
        (b"\x80\x02}q\x00and so on", "a Python pickle", "safetensors.torch.save_file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer", "git lfs pull"),
    ] {
        let dir = round();
        dir.write("updates/evil.safetensors", start);
        let run = fedmill(&dir, &["aggregate", "updates", "-o", "merged.safetensors"]);
        run.assert_fails(2, &[&format!("updates/evil.safetensors: file is {what}"), hint]);
        assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    }
}

#[test]
fn a_shard_without_its_index_is_no_update() {
    let dir = round();
    sound("updates/model-00001-of-00002", 9.0).write(&dir);
    let run = merge(&dir, &[]);
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains("file is one shard of model, expected the index"), "{}", run.stderr);
}

/// Two shards and their index, in a folder.
fn sharded(dir: &Dir, folder: &str, shard: [&str; 2], index: &str, metadata: &str) {
    Update::new(&format!("{folder}/{}", shard[0])).f32("w", &[4], &[1.0; 4]).write(dir);
    Update::new(&format!("{folder}/{}", shard[1])).f32("v", &[4], &[1.0; 4]).write(dir);
    let [one, two] = shard;
    let json = format!(
        r#"{{"metadata":{metadata},"weight_map":{{"w":"{one}.safetensors","v":"{two}.safetensors"}}}}"#
    );
    dir.write(&format!("{folder}/{index}"), json);
}

#[test]
fn an_index_may_name_consolidated_shards_and_variants() {
    for (shards, index) in [
        (["consolidated-00001-of-00002", "consolidated-00002-of-00002"], "model.safetensors.index.json"),
        (["model-00001-of-00002.fp16", "model-00002-of-00002.fp16"], "model.fp16.safetensors.index.json"),
        (["model.fp16-00001-of-00002", "model.fp16-00002-of-00002"], "model.safetensors.index.fp16.json"),
        (["model-00001-of-000002", "model-00002-of-000002"], "model.safetensors.index.json"),
    ] {
        let dir = Dir::new();
        sharded(&dir, "updates", shards, index, "{}");
        let run = fedmill(&dir, &["aggregate", "updates", "-o", "merged.safetensors", "--report", "r.json"]);
        run.assert_merged("merged.safetensors");
        assert_eq!(dir.json("r.json")["clients"].as_array().unwrap().len(), 1, "{index}");
    }
    // Not where another model has an index: the shards could be those of another client.
    let dir = Dir::new();
    let shards = ["consolidated-00001-of-00002", "consolidated-00002-of-00002"];
    sharded(&dir, "updates", shards, "model.safetensors.index.json", "{}");
    dir.write("updates/other.safetensors.index.json", r#"{"weight_map":{}}"#);
    let run = fedmill(&dir, &["aggregate", "updates", "-o", "merged.safetensors"]);
    run.assert_fails(2, &["shard index names `consolidated-00001-of-00002.safetensors`"]);
}

#[test]
fn numbers_in_the_metadata_of_an_index_count() {
    let dir = Dir::new();
    let metadata = r#"{"total_size":32,"client_id":"site-1","num_examples":7,"round":4}"#;
    let shards = ["model-00001-of-00002", "model-00002-of-00002"];
    sharded(&dir, "updates", shards, "model.safetensors.index.json", metadata);
    let run = fedmill(&dir, &["inspect", "--round", "5", "--check", "--json", "updates"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("update is of round 4, expected round 5"), "{}", run.stdout);
    assert!(!run.stdout.contains("is not expected"), "no layout to compare it with: {}", run.stdout);
    assert!(run.stdout.contains(r#""examples":7.0"#), "{}", run.stdout);
}

#[test]
fn a_base_may_be_a_folder_and_metadata_null() {
    let dir = round();
    let shards = ["model-00001-of-00002", "model-00002-of-00002"];
    sharded(&dir, "hub", shards, "model.safetensors.index.json", "{}");
    let two = |name: &str| Update::new(name).f32("w", &[4], &[1.0; 4]).f32("v", &[4], &[2.0; 4]);
    two("updates/a").write(&dir);
    two("updates/b").write(&dir);
    let run = fedmill(&dir, &["aggregate", "--base", "hub", "updates", "-o", "merged.safetensors"]);
    run.assert_merged("merged.safetensors");
    fs::write(dir.path("hub/other.safetensors"), sound("x", 0.0).bytes()).unwrap();
    fedmill(&dir, &["aggregate", "--base", "hub", "updates", "-o", "m2.safetensors"])
        .assert_merged("m2.safetensors");
    let null = Update::new("null/a")
        .header(r#"{"__metadata__":null,"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
    null.behind(&[1]).write(&dir);
    fedmill(&dir, &["aggregate", "null", "-o", "m3.safetensors"]).assert_merged("m3.safetensors");
}

#[test]
fn capitals_are_an_ending_and_an_empty_update_is_a_fault() {
    let dir = round();
    fs::rename(dir.path("updates/a.safetensors"), dir.path("updates/a.SafeTensors")).unwrap();
    Update::new("updates/empty").header("{}").write(&dir);
    let run = merge(&dir, &["--report", "report.json"]);
    run.assert_merged("merged.safetensors");
    let report = dir.json("report.json");
    assert_eq!(report["clients"][0]["id"], "a");
    assert_eq!(report["clients"].as_array().unwrap().len(), 2);
    assert!(
        report["rejected"][0]["error"].as_str().unwrap().contains("update holds no tensor"),
        "{report:#}"
    );
}

#[test]
fn a_signal_ends_the_wait_for_a_silent_pipe() {
    let dir = round();
    for option in ["--weights", "--files-from", "--tiers"] {
        let script = "rm -f pipe; mkfifo pipe; timeout -k 5 1 \"$0\" \"$@\"; echo $? > status";
        let args =
            ["aggregate", "--base", "base.safetensors", option, "pipe", "updates", "-o", "m.safetensors"];
        let program = crate::harness::program();
        let done = std::process::Command::new("sh")
            .current_dir(dir.path(""))
            .args([&["-c", script, &program], &args[..]].concat())
            .status()
            .unwrap();
        assert!(done.success());
        // 124 is the status of `timeout` itself: it ended the run by SIGTERM, and did not need SIGKILL (137).
        assert_eq!(String::from_utf8(dir.read("status")).unwrap().trim(), "124", "{option}");
        assert!(!dir.exists("m.safetensors"));
    }
}

#[test]
fn factors_of_adapters_are_not_merged_one_by_one() {
    let dir = Dir::new();
    let (down, up) = ("q.lora_A.weight", "q.lora_B.weight");
    for (client, value) in [("a", 1.0), ("b", 2.0)] {
        let update = Update::new(&format!("updates/{client}"));
        update.f32(down, &[2, 4], &[value; 8]).f32(up, &[3, 2], &[value; 6]).write(&dir);
    }
    let args = ["aggregate", "updates", "-o", "merged.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["LoRA adapters", down, up, "--allow-lora-factors"]);
    fedmill(&dir, &[&args[..], &["--allow-lora-factors"]].concat()).assert_merged("merged.safetensors");
    // Another rank, under either policy.
    Update::new("updates/c").f32(down, &[4, 4], &[1.0; 16]).f32(up, &[3, 4], &[1.0; 12]).write(&dir);
    for policy in ["fail", "skip"] {
        let run = fedmill(&dir, &[&args[..], &["--on-bad-update", policy]].concat());
        run.assert_fails(2, &["LoRA adapters"]);
    }
    // One factor alone averages as it should.
    for client in ["a", "b", "c"] {
        Update::new(&format!("one/{client}")).f32(up, &[3, 2], &[1.0; 6]).write(&dir);
    }
    fedmill(&dir, &["aggregate", "one", "-o", "one.safetensors"]).assert_merged("one.safetensors");
}

#[test]
fn names_tell_of_wrappers_and_tied_weights() {
    for prefix in ["module.", "_orig_mod."] {
        let dir = round();
        Update::new("updates/evil").f32(&format!("{prefix}w"), &[4], &[9.0; 4]).write(&dir);
        let run =
            fedmill(&dir, &["aggregate", "updates", "--base", "base.safetensors", "-o", "m.safetensors"]);
        let part = format!("the name of every tensor starts with `{prefix}`");
        run.assert_fails(
            2,
            &[&part, "as in the base, without it", "hint: save the model inside its wrapper"],
        );
        assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    }
    let dir = Dir::new();
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let tied = |name: &str| Update::new(name).f32(embedding, &[4, 2], &[1.0; 8]);
    tied("t").f32(head, &[4, 2], &[1.0; 8]).write(&dir);
    tied("updates/a").f32(head, &[4, 2], &[1.0; 8]).write(&dir);
    for client in ["b", "c"] {
        tied(&format!("updates/{client}")).write(&dir);
    }
    let run = fedmill(&dir, &["aggregate", "updates", "-o", "m.safetensors"]);
    run.assert_fails(
        2,
        &["tensor `lm_head.weight` is not expected", "ties it to `model.embed_tokens.weight`"],
    );
    let run = fedmill(&dir, &["aggregate", "updates", "--base", "t.safetensors", "-o", "m.safetensors"]);
    run.assert_fails(2, &["tensor `lm_head.weight` is missing: the update ties it to"]);
}
