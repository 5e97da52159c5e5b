//! Whose update a file is: what names a client, and what updates may claim of themselves.

mod claims;
mod kinds;

use crate::harness::{Dir, Model, Update, fedmill};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Writes an update of two values.
fn write(dir: &Dir, path: &str, values: [f32; 2], metadata: &[(&str, &str)]) {
    let update = Update::new(path).f32("w", &[2], &values);
    metadata.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(dir);
}

/// Merges with a report, skips bad updates, and returns the merged values and the kept ids.
#[track_caller]
fn merged(dir: &Dir, args: &[&str]) -> (Vec<f32>, Vec<String>, String) {
    let to = ["-o", "m.safetensors", "--report", "r.json", "--on-bad-update", "skip"];
    let got = fedmill(dir, &[&["aggregate"], args, &to].concat());
    got.assert_merged("m.safetensors");
    let report = dir.json("r.json");
    let id = |client: &serde_json::Value| client["id"].as_str().unwrap().to_owned();
    let ids = report["clients"].as_array().unwrap().iter().map(id).collect();
    (Model::read(dir, "m.safetensors").f32("w"), ids, got.stderr)
}

const FOLDERS: [&str; 3] = ["site-0/adapter_model", "site-1/adapter_model", "site-2/adapter_model"];

fn folders(dir: &Dir) -> Vec<String> {
    for (i, name) in FOLDERS.iter().enumerate() {
        write(dir, name, [i as f32, 1.0], &[("format", "pt")]);
    }
    FOLDERS.map(|name| format!("{name}.safetensors")).to_vec()
}

#[test]
fn folders_name_clients_whose_files_have_one_name() {
    let dir = Dir::new();
    let files = folders(&dir);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for args in [&[][..], &["--client-id-from", "parent"]] {
        let (values, ids, _) = merged(&dir, &[&files[..], args].concat());
        assert_eq!(
            (values, ids),
            (vec![1.0, 1.0], ["site-0", "site-1", "site-2"].map(str::to_owned).to_vec())
        );
        assert_eq!(dir.json("r.json")["clients"][0]["id_from"], "parent");
    }
    assert_eq!(dir.json("r.json")["settings"]["client_id_from"], "parent");
    let (_, ids, _) = merged(&dir, &[&files[..], &["--client-id-from", "path"]].concat());
    assert_eq!(ids, files);
    let stem = [&["aggregate"], &files[..], &["--client-id-from", "stem", "-o", "m.safetensors"]].concat();
    fedmill(&dir, &stem)
        .assert_fails(2, &["client id `adapter_model` is also the id of site-0/adapter_model"]);
    let none =
        [&["aggregate"], &files[..], &["--client-id-from", "metadata", "-o", "m.safetensors"]].concat();
    fedmill(&dir, &none).assert_fails(2, &["metadata `client_id` is missing"]);
}

/// Neither the names of files nor those of folders tell the clients apart.
#[test]
fn a_collision_of_folders_suggests_paths() {
    let dir = Dir::new();
    let paths = ["x/in/update", "y/in/update"];
    for (i, path) in paths.iter().enumerate() {
        write(&dir, path, [i as f32, 1.0], &[]);
    }
    let run = ["aggregate", "x/in", "y/in", "-o", "m.safetensors"];
    fedmill(&dir, &run).assert_fails(2, &["client id `in` is also the id of", "--client-id-from path"]);
    let (_, ids, _) = merged(&dir, &["x/in", "y/in", "--client-id-from", "path"]);
    assert_eq!(ids, paths.map(|path| format!("{path}.safetensors")));
    // Flat folders: each folder has the files of several clients.
    for path in ["p/1", "p/2", "q/1", "q/2"] {
        write(&dir, path, [1.0, 1.0], &[]);
    }
    let run = ["aggregate", "p", "q", "-o", "m.safetensors"];
    fedmill(&dir, &run).assert_fails(2, &["client id `p` is also the id of", "--client-id-from path"]);
}

#[test]
fn folders_in_an_inbox_are_counted() {
    let dir = Dir::new();
    write(&dir, "in/a", [1.0, 1.0], &[]);
    for path in ["in/late/b", "in/more/c", "in/.hidden/d"] {
        write(&dir, path, [9.0, 9.0], &[]);
    }
    let (values, _, stderr) = merged(&dir, &["in"]);
    assert_eq!(values, [1.0, 1.0]);
    let warning = "in: updates in its folders are not read: it has 2, among them in/late";
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
    fs::remove_file(dir.path("in/a.safetensors")).unwrap();
    fedmill(&dir, &["aggregate", "in", "-o", "m.safetensors"])
        .assert_fails(2, &["not in folders below it: name in/late and 1 more"]);
    let quorum = fedmill(&dir, &["aggregate", "in", "-o", "m.safetensors", "--min-clients", "1"]);
    assert_eq!(quorum.code, Some(1), "{quorum:#?}");
    assert!(quorum.stderr.contains(warning), "{quorum:#?}");
}

/// The server's own models in the folder of updates count as clients, and are named.
#[test]
fn models_of_the_server_among_updates_are_named() {
    let dir = Dir::new();
    for (i, value) in [1.0, 2.0, 3.0].into_iter().enumerate() {
        write(&dir, &format!("in/c{i}"), [value, value], &[("num_examples", "2")]);
    }
    write(&dir, "in/base", [1.0, 1.0], &[]);
    let run =
        ["aggregate", "in", "--base", "in/base.safetensors", "--rule", "median", "-o", "in/next.safetensors"];
    let got = fedmill(&dir, &run);
    got.assert_merged("in/next.safetensors");
    assert!(got.stderr.contains("in/base.safetensors: is the base, and counts as an update"), "{got:#?}");
    assert!(!got.stderr.contains("fedmill merged it"), "{got:#?}");
    let (_, ids, stderr) = merged(&dir, &["in", "--rule", "median", "--max-examples", "7"]);
    assert_eq!(ids.len(), 5);
    assert!(stderr.contains("in/next.safetensors: its metadata says that fedmill merged it"), "{stderr}");
    assert!(stderr.contains("--max-examples changes nothing"), "{stderr}");
    write(&dir, "in/base", [1.0, 1.0], &[("fedmill.privacy.release", "3")]);
    let (.., stderr) = merged(&dir, &["in/c0.safetensors", "--base", "in/base.safetensors"]);
    assert!(
        stderr.contains("in/base.safetensors: comes from a private round; this run adds no noise"),
        "{stderr}"
    );
}

#[test]
fn files_of_other_formats_in_an_inbox_are_counted() {
    let dir = Dir::new();
    write(&dir, "in/a", [1.0, 1.0], &[]);
    for name in ["in/b.pt", "in/c.NPZ", "in/notes.txt", "in/a.safetensors.sha256"] {
        dir.write(name, b"x");
    }
    let (values, _, stderr) = merged(&dir, &["in"]);
    assert_eq!(values, [1.0, 1.0]);
    let warning = "in: 2 files of other formats are not read, among them in/b.pt";
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
    fs::remove_file(dir.path("in/a.safetensors")).unwrap();
    fedmill(&dir, &["aggregate", "in", "-o", "m.safetensors"])
        .assert_fails(2, &["it holds 2 files of other formats, among them in/b.pt"]);
}

#[test]
fn unknown_keys_of_fedmill_are_one_warning() {
    let dir = Dir::new();
    for i in 0..3 {
        let key = format!("fedmill.trust-{i}");
        write(&dir, &format!("in/c{i}"), [i as f32, 1.0], &[(&key, "all")]);
    }
    write(&dir, "in/d", [1.0, 1.0], &[("fedmill.version", "0.1"), ("fedmillion", "x")]);
    let (_, ids, stderr) = merged(&dir, &["in"]);
    assert_eq!(ids.len(), 4);
    let warning = "metadata `fedmill.trust-0`: fedmill knows no such key";
    assert_eq!(stderr.matches("fedmill knows no such key").count(), 1, "{stderr}");
    assert!(stderr.contains(warning) && stderr.contains("3 updates have such keys"), "{stderr}");
    // What fedmill itself writes is known.
    let args =
        ["aggregate", "in", "--rule", "median", "--pre", "nnm", "--byzantine", "1", "--allow-unprotected"];
    fs::create_dir(dir.path("next")).unwrap();
    let got = fedmill(&dir, &[&args[..], &["-o", "next/m.safetensors"]].concat());
    got.assert_merged("next/m.safetensors");
    let (.., stderr) = merged(&dir, &["next"]);
    assert!(!stderr.contains("no such key"), "{stderr}");
}

/// The server cannot tell which of two files is the client's, and the names of the files decide nothing.
#[test]
fn two_files_of_one_id_are_both_left_out() {
    for attacker in ["in/a", "in/z"] {
        let dir = Dir::new();
        for i in 0..3 {
            write(&dir, &format!("in/c{i}"), [1.0, 1.0], &[("client_id", &format!("site-{i}"))]);
        }
        write(&dir, attacker, [9.0, 9.0], &[("client_id", "site-1")]);
        let (values, ids, stderr) = merged(&dir, &["in", "--weights", "uniform"]);
        assert_eq!((values, ids), (vec![1.0, 1.0], vec!["site-0".to_owned(), "site-2".to_owned()]));
        for file in [&format!("{attacker}.safetensors"), "in/c1.safetensors"] {
            assert!(
                stderr.contains(&format!("skipped {file}: client id `site-1` is also the id of")),
                "{stderr}"
            );
        }
        let run = ["aggregate", "in", "-o", "m.safetensors"];
        fedmill(&dir, &run).assert_fails(2, &["client id `site-1`", "--client-id-from"]);
    }
}

#[test]
fn a_claim_that_differs_from_the_collectors_name_is_a_fault() {
    let dir = Dir::new();
    write(&dir, "in/site-1", [1.0, 1.0], &[("client_id", "site-1")]);
    write(&dir, "in/site-2", [1.0, 1.0], &[]);
    write(&dir, "in/site-3", [9.0, 9.0], &[("client_id", "site-2")]);
    let (values, ids, stderr) = merged(&dir, &["in", "--client-id-from", "stem"]);
    assert_eq!((values, ids.len()), (vec![1.0, 1.0], 2));
    let fault = "skipped in/site-3.safetensors: metadata `client_id` is `site-2`, expected `site-3` by --client-id-from stem";
    assert!(stderr.contains(fault), "{stderr}");
    let inspected = fedmill(&dir, &["inspect", "in", "--client-id-from", "stem"]);
    assert!(inspected.stdout.contains("expected `site-3`"), "{inspected:#?}");
}

#[test]
fn one_file_given_twice_counts_once() {
    let dir = Dir::new();
    write(&dir, "in/a", [0.0, 0.0], &[("client_id", "a")]);
    write(&dir, "in/b", [3.0, 3.0], &[("client_id", "b")]);
    std::os::unix::fs::symlink(dir.path("in/a.safetensors"), dir.path("in/link.safetensors")).unwrap();
    fs::hard_link(dir.path("in/a.safetensors"), dir.path("in/hard.safetensors")).unwrap();
    let (values, ids, stderr) = merged(&dir, &["in", "in/b.safetensors"]);
    assert_eq!((values, ids.len()), (vec![1.5, 1.5], 2));
    for file in ["in/hard.safetensors", "in/link.safetensors", "in/b.safetensors"] {
        assert!(stderr.contains(&format!("{file}: is the same file as in/")), "{stderr}");
    }
}

#[test]
fn the_same_tensors_under_two_ids_are_reported() {
    let dir = Dir::new();
    write(&dir, "in/a", [0.0, 0.0], &[("client_id", "a")]);
    write(&dir, "in/b", [3.0, 3.0], &[("client_id", "b"), ("num_examples", "7")]);
    write(&dir, "in/c", [3.0, 3.0], &[("client_id", "a-longer-name"), ("num_examples", "12")]);
    let uniform = ["in", "--weights", "uniform"];
    let copies = "in/b.safetensors, in/c.safetensors hold the same tensors under different client ids";
    let (values, _, stderr) = merged(&dir, &uniform);
    assert_eq!(values, [2.0, 2.0]);
    assert!(stderr.contains(copies), "{stderr}");
    let (values, _, stderr) = merged(&dir, &[&uniform[..], &["--on-duplicate-content", "reject"]].concat());
    assert_eq!(values, [0.0, 0.0]);
    for file in ["b", "c"] {
        assert!(
            stderr.contains(&format!("skipped in/{file}.safetensors: its tensors hold the same bytes")),
            "{stderr}"
        );
    }
    // A link to another client's file is a copy too.
    fs::remove_file(dir.path("in/c.safetensors")).unwrap();
    write(&dir, "in/d", [5.0, 5.0], &[]);
    std::os::unix::fs::symlink(dir.path("in/d.safetensors"), dir.path("in/e.safetensors")).unwrap();
    let (_, _, stderr) = merged(&dir, &uniform);
    let link = "in/d.safetensors, in/e.safetensors are links to the same file under different client ids";
    assert!(stderr.contains(link), "{stderr}");
    // Compressed copies, whose metadata stands among their data.
    for (i, layout) in ["plain", "bundle"].into_iter().enumerate() {
        fs::create_dir(dir.path(layout)).unwrap();
        for name in ["a", "longer"] {
            let values: Vec<f32> = (0..4000).map(|x| (x as f32).sin()).collect();
            Update::new("u").f32("w", &[4000], &values).meta("client_id", name).write(&dir);
            let output = format!("{layout}/{name}.safetensors");
            let args = [
                "compress",
                "-q",
                "--codec",
                "u8",
                "--seed",
                "1",
                "--layout",
                layout,
                "u.safetensors",
                "-o",
                &output,
            ];
            assert_eq!(fedmill(&dir, &args).code, Some(0), "{i}");
        }
        let (_, _, stderr) = {
            let args = ["aggregate", layout, "-o", "m.safetensors", "--weights", "uniform"];
            let got = fedmill(&dir, &args);
            (0, 0, got.stderr)
        };
        assert!(stderr.contains("hold the same tensors under different client ids"), "{layout}: {stderr}");
    }
}

/// One letter in two spellings is one id, in metadata, names of files, weights, tiers and rules.
#[test]
fn ids_are_compared_in_nfc() {
    let dir = Dir::new();
    let (composed, decomposed) = ("Universit\u{e0}", "Universita\u{300}");
    write(&dir, "in/a", [2.0, 2.0], &[("client_id", decomposed)]);
    write(&dir, "in/b", [4.0, 4.0], &[]);
    dir.write("w.txt", format!("{composed} 3\nb 1\n"));
    let (values, ids, _) = merged(&dir, &["in", "--weights", "w.txt"]);
    assert_eq!((values, ids), (vec![2.5, 2.5], vec![composed.to_owned(), "b".to_owned()]));
    let trusted = format!("monna:trusted={decomposed}");
    merged(&dir, &["in", "--rule", &trusted, "--byzantine", "0"]);
    let tiers = format!(
        r#"{{"schema": "fedmill.tiers/1", "tiers": [{{"name": "x", "clients": ["{decomposed}"], "rule": "mean"}}, {{"name": "y", "clients": ["*"], "rule": "mean"}}]}}"#
    );
    dir.write("t.json", tiers);
    merged(&dir, &["in", "--tiers", "t.json"]);
    assert_eq!(dir.json("r.json")["tiers"][0]["clients"], 1);
    write(&dir, "in/c", [9.0, 9.0], &[("client_id", composed)]);
    let (values, ..) = merged(&dir, &["in", "--weights", "uniform"]);
    assert_eq!(values, [4.0, 4.0]);
}

#[test]
fn ids_that_forge_lines_or_look_like_others_are_faults() {
    let dir = Dir::new();
    write(&dir, "in/a", [1.0, 1.0], &[]);
    let forging = ["evil\u{1b}[8m", "evil\r\nerror: forged", "\u{202e}live", "evil\u{9b}2J"];
    let invisible = ["a\u{200b}", "a\u{200d}", "\u{feff}a", "a\u{2060}", "a\u{ad}", "a\u{e0061}"];
    let long = "x".repeat(1025);
    for id in forging.into_iter().chain(invisible).chain([long.as_str()]) {
        write(&dir, "in/evil", [9.0, 9.0], &[("client_id", id)]);
        let (values, ids, stderr) = merged(&dir, &["in"]);
        assert_eq!((values, ids), (vec![1.0, 1.0], vec!["a".to_owned()]));
        assert!(stderr.contains("expected a name without control or invisible characters"), "{stderr}");
        assert!(!stderr.contains(id), "the message shows what no one sees: {stderr}");
    }
    write(&dir, "in/evil", [9.0, 9.0], &[]);
    fs::rename(dir.path("in/evil.safetensors"), dir.path("in/ev\nil.safetensors")).unwrap();
    let (values, ..) = merged(&dir, &["in"]);
    assert_eq!(values, [1.0, 1.0]);
}

/// Names of files need not be UTF-8. Two such names are two clients.
#[test]
fn names_that_are_not_utf_8_are_told_apart() {
    let dir = Dir::new();
    let mut list = "\u{feff}".as_bytes().to_vec();
    for (byte, value) in [(0xfe, 1.0), (0xff, 3.0)] {
        let name = [b"in/site-", &[byte][..], b".safetensors"].concat();
        Update::new("one").f32("w", &[1], &[value]).write(&dir);
        std::fs::create_dir_all(dir.path("in")).unwrap();
        std::fs::rename(dir.path("one.safetensors"), dir.path("").join(OsStr::from_bytes(&name))).unwrap();
        list.extend([&name[..], b"\r\n"].concat());
    }
    dir.write("list", list);
    for inputs in [&["in"][..], &["--files-from", "list"], &["in", "--client-id-from", "path"]] {
        let args = ["aggregate", "-o", "m.safetensors", "--report", "report.json"];
        fedmill(&dir, &[&args[..], inputs].concat()).assert_merged("m.safetensors");
        assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [2.0], "{inputs:?}");
        let report = dir.json("report.json");
        let id = |client: usize| report["clients"][client]["id"].as_str().unwrap().to_owned();
        assert!(id(0).contains("site-\\xfe") && id(1).contains("site-\\xff"), "{} {}", id(0), id(1));
    }
}

/// Editors of some systems put a byte order mark before the text.
#[test]
fn a_byte_order_mark_is_no_part_of_a_table() {
    let dir = Dir::new();
    for (name, value) in [("a", 1.0), ("b", 4.0)] {
        Update::new(&format!("updates/{name}")).f32("w", &[1], &[value]).write(&dir);
    }
    for table in ["\u{feff}a 2\r\nb 1\r\n", "\u{feff}{\"a\": 2, \"b\": 1}"] {
        dir.write("weights", table);
        let args = ["aggregate", "updates", "--weights", "weights", "-o", "m.safetensors"];
        fedmill(&dir, &args).assert_merged("m.safetensors");
        assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [2.0], "{table:?}");
    }
}

/// Where every update is bad, no advice speaks of others.
#[test]
fn no_hint_speaks_of_others_where_there_are_none() {
    let dir = Dir::new();
    let base = Update::new("base").f32("w", &[1], &[1.0]).f32("v", &[1], &[1.0]);
    base.write(&dir);
    let lacks = Update::new("updates/lacks").f32("w", &[1], &[1.0]);
    lacks.write(&dir);
    let args = ["aggregate", "updates", "--base", "base.safetensors", "-o", "m.safetensors"];
    let run = fedmill(&dir, &args);
    run.assert_fails(2, &["lacks.safetensors: tensor `v` is missing", "hint: --missing base or present"]);
    assert!(!run.stderr.contains("others"), "{}", run.stderr);
    lacks.f32("v", &[1], &[f32::NAN]).write(&dir);
    let run = fedmill(&dir, &args);
    run.assert_fails(2, &["holds NaN"]);
    assert!(!run.stderr.contains("hint"), "{}", run.stderr);
}
