//! What the server refuses, and others of a lying server: second sets, small sums, changed sets.

use super::{ClientSet, Session, SetMember, SignedText, Stage, UNMASK, done, identity, mask_command, sums};
use crate::harness::Contents;
use std::fs;

/// Signs a set as the server and puts it in place.
pub(super) fn show(session: &Session, set: &ClientSet) {
    SignedText::sign(set, Stage::Set, &identity("server")).unwrap().publish(&session.folder().set()).unwrap();
}

/// The files of the session that the set and all after it are.
fn after_masks(session: &Session) -> Contents {
    let mut files = session.files();
    files.retain(|name, _| !name.starts_with("session/masked/"));
    files
}

#[test]
fn masked_updates_after_the_set_is_frozen_are_not_in_the_sum() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    let before = after_masks(&session);
    session.mask_late(4);
    done(&session.sum());
    assert!(after_masks(&session) == before, "the set or the sum changed");
    session.assert_ends_with(&[1, 2], &[1, 2, 3]);
    done(&session.run("verify session"));
}

#[test]
fn a_second_set_is_never_frozen() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    let before = after_masks(&session);
    session.mask_late(4);
    fs::remove_file(session.dir.path("session/set.json")).unwrap();
    fs::remove_file(session.dir.path("session/masked-sum.safetensors")).unwrap();
    done(&session.sum());
    assert!(after_masks(&session) == before, "one client more changed the set or the sum");
    // One client less.
    let third = session.dir.read("session/masked/client-3.safetensors");
    fs::remove_file(session.dir.path("session/masked/client-3.safetensors")).unwrap();
    fs::remove_file(session.dir.path("session/set.json")).unwrap();
    session.sum().assert_fails(2, &["session/masked/client-3.safetensors"]);
    assert!(after_masks(&session) == before);
    session.dir.write("session/masked/client-3.safetensors", third);
    // A set that the server signed elsewhere.
    let mut other = session.client_set();
    other.groups[0].remove(0);
    show(&session, &other);
    session.sum().assert_fails(1, &["set.json: is another set than the one that you froze", "hint:"]);
    fs::remove_file(session.dir.path("session/set.json")).unwrap();
    done(&session.sum());
    assert!(after_masks(&session) == before);
    session.assert_ends_with(&[2, 3], &[1, 2, 3]);
}

#[test]
fn a_lost_journal_freezes_no_second_set() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    done(&session.help(1));
    session.mask_late(4);
    fs::remove_dir_all(session.dir.path("keys/server.journal")).unwrap();
    for left in ["set.json", "masked-sum.safetensors", "answers"] {
        session.sum().assert_fails(1, &[left, "your journal does not know it", "hint:"]);
        let path = session.dir.path(&format!("session/{left}"));
        let kept = session.dir.path(&format!("kept-{left}"));
        fs::rename(path, kept).unwrap();
    }
    // Without any trace the server may freeze another set. No helper answers twice, so it gets no second sum.
    done(&session.sum());
    assert_eq!(session.client_set().members().count(), 4);
    fs::rename(session.dir.path("kept-answers"), session.dir.path("session/answers")).unwrap();
    session.help(1).assert_fails(1, &["two answers would tell the difference of two sums"]);
}

#[test]
fn too_few_answers_or_clients_give_no_sum() {
    let session = Session::summed(3, 3, &[1, 2], "");
    session.unmask().assert_fails(1, &["0 answers of helpers over this set, expected at least 2", "hint:"]);
    done(&session.help(3));
    session.unmask().assert_fails(1, &["1 answers of helpers over this set, expected at least 2"]);
    session.assert_nothing_published();
    session.assert_ends_with(&[1], &[1, 2]);

    let small = Session::masked(3, 3, &[2], "");
    small.sum().assert_fails(1, &["1 sound masked updates, expected at least 2", "the set is not frozen"]);
    assert_eq!(after_masks(&small).keys().filter(|name| !name.ends_with('/')).count(), 1, "the manifest");
    // More clients come: the refusal froze nothing.
    done(&small.mask(3));
    done(&small.sum());
    small.assert_ends_with(&[1, 3], &[2, 3]);
}

#[test]
fn groups_below_the_minimum_have_no_sum() {
    let session = Session::opened(6, 3, "--groups 2");
    let group = |number: usize| -> Vec<usize> {
        let terms = session.manifest().terms;
        let clients = terms.clients.iter().zip(1..).filter(|(client, _)| client.group == number);
        clients.map(|(_, number)| number).collect()
    };
    let (full, small) = (group(0), group(1));
    assert_eq!((full.len(), small.len()), (3, 3));
    for client in full.iter().chain(&small[..1]) {
        done(&session.mask(*client));
    }
    let run = session.sum();
    done(&run);
    let alone = format!("client-{}", small[0]);
    assert!(run.stderr.contains(&format!("in groups that are too small: {alone}")), "{run:#?}");
    assert_eq!(session.client_set().in_small_groups, [alone.as_str()]);
    (1..3).for_each(|helper| done(&session.help(helper)));
    session.unmask().assert_fails(2, &["--sums", "several sums, expected one"]);
    done(&session.run("unmask session --key keys/server -o means"));
    let mut means = session.dir.contents();
    means.retain(|name, _| name.starts_with("means/") && !name.ends_with('/'));
    assert_eq!(means.keys().collect::<Vec<_>>(), ["means/group-1.safetensors"]);
    let transcript = session.dir.read("session/transcript.json");
    let json = transcript.split(|byte| *byte == b'\n').next().unwrap();
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    let bytes: Vec<u8> = sums(&full, false).iter().flat_map(|sum| sum.to_le_bytes()).collect();
    assert_eq!(json["groups"][0]["sums"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!((&json["groups"][0]["clients"], &json["groups"][1]["clients"]), (&3.into(), &0.into()));
    // The sum of no client has no values.
    assert_eq!(json["groups"][1]["sums"], blake3::hash(&[]).to_hex().as_str());
    done(&session.run("verify session"));
}

/// Every party refuses a set that was changed after the server signed it.
#[test]
fn a_set_that_was_changed_is_refused_by_all() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    session.mask_late(4);
    (1..3).for_each(|helper| done(&session.help(helper)));
    let whole = session.files();
    let text = String::from_utf8(session.dir.read("session/set.json")).unwrap();
    let (json, signature) = text.split_once('\n').unwrap();
    let edited = |edit: &dyn Fn(&mut ClientSet)| {
        let mut set: ClientSet = serde_json::from_str(json).unwrap();
        edit(&mut set);
        format!("{}\n{signature}", serde_json::to_string(&set).unwrap())
    };
    let more = SetMember { client: "client-4".to_owned(), ..session.client_set().groups[0][0].clone() };
    let cases = [
        ("stripped", edited(&|set| drop(set.groups[0].pop()))),
        ("reordered", edited(&|set| set.groups[0].reverse())),
        ("added", edited(&|set| set.groups[0].push(more.clone()))),
        ("spaced", text.replacen("\":", "\": ", 1)),
        ("no signature", format!("{json}\n{}\n", "0".repeat(128))),
        ("signed by a helper", {
            let set: ClientSet = serde_json::from_str(json).unwrap();
            let signed = SignedText::sign(&set, Stage::Set, &identity("helper-1")).unwrap();
            String::from_utf8(signed.bytes().to_vec()).unwrap()
        }),
        ("of another stage", {
            let set: ClientSet = serde_json::from_str(json).unwrap();
            let signed = SignedText::sign(&set, Stage::Sum, &identity("server")).unwrap();
            String::from_utf8(signed.bytes().to_vec()).unwrap()
        }),
    ];
    for (what, changed) in cases {
        println!("{what}");
        session.dir.write("session/set.json", changed);
        let fault = ["session/set.json: signature is not one of `server`"];
        session.sum().assert_fails(2, &fault);
        session.help(1).assert_fails(2, &fault);
        session.help(3).assert_fails(2, &fault);
        session.unmask().assert_fails(2, &fault);
        let verify = session.run("verify session");
        assert!(verify.code == Some(2) && verify.stdout.contains("FAULT  set.json"), "{verify:#?}");
        session.dir.write("session/set.json", &text);
        assert!(session.files() == whole, "{what}: something was written");
    }
    session.assert_nothing_published();
}

/// Sets that break the terms, signed by the server itself.
#[test]
fn sets_that_break_the_terms_are_refused() {
    let session = Session::summed(6, 3, &[1, 2, 3, 4, 5, 6], "--groups 2");
    let sound = session.client_set();
    let edited = |edit: &dyn Fn(&mut ClientSet)| {
        let mut set = sound.clone();
        edit(&mut set);
        set
    };
    let twice = sound.groups[0][0].clone();
    let stranger = SetMember { client: "client-9".to_owned(), ..twice.clone() };
    let cases = [
        (edited(&|set| set.groups[1].truncate(1)), "group 1 has 1 clients, expected none or at least 2"),
        (edited(&|set| set.groups.iter_mut().for_each(Vec::clear)), "it has no client"),
        (edited(&|set| set.groups[0].push(twice.clone())), "is in it twice"),
        (edited(&|set| set.groups[1].push(twice.clone())), "is no client of group 1"),
        (edited(&|set| set.groups[0].push(stranger.clone())), "sender `client-9` is no client of group 0"),
        (edited(&|set| drop(set.groups.pop())), "found 1 groups, expected 2"),
        (edited(&|set| set.groups.push(Vec::new())), "found 3 groups, expected 2"),
        (
            edited(&|set| set.session = fedmill::record::sha256::Sha256::of("other")),
            "session is d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
        ),
    ];
    for (set, why) in cases {
        show(&session, &set);
        session.help(1).assert_fails(2, &["session/set.json", why]);
        session.run(UNMASK.split(" --sums").next().unwrap()).assert_fails(2, &["session/set.json", why]);
        assert!(!session.dir.exists("session/answers"), "{why}");
    }
    // A digest that is not that of the client's file.
    let mut set = sound.clone();
    set.groups[0][0].file = set.groups[0][1].file;
    show(&session, &set);
    session.help(1).assert_fails(2, &["its digest is", "that of the frozen set"]);
    assert!(!session.dir.exists("session/answers"));
    show(&session, &sound);
    done(&session.help(1));
}

#[test]
fn only_the_server_adds_up_and_unmasks() {
    let session = Session::masked(3, 3, &[1, 2, 3], "");
    session
        .run("sum session --key helpers/helper-1")
        .assert_fails(1, &["the key is not that of the session's server `server`", "hint:"]);
    done(&session.sum());
    (1..3).for_each(|helper| done(&session.help(helper)));
    session
        .run(&UNMASK.replace("keys/server", "clients/client-1"))
        .assert_fails(1, &["the key is not that of the session's server `server`"]);
    session.assert_nothing_published();
    session.run("sum session --key keys/missing").assert_fails(2, &["keys/missing: is not there", "keygen"]);
}

/// The sum is read again with its digest: another one that the server signed, or a changed one, unmasks nothing.
#[test]
fn the_sum_is_that_of_the_set() {
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    (1..3).for_each(|helper| done(&session.help(helper)));
    let (manifest, frozen) = (session.manifest(), session.frozen());
    let statement = manifest.statement(Stage::Sum, "server", Some(frozen.digest));
    let shape = manifest.sums_shape();
    let path = "session/masked-sum.safetensors";
    let (mut lanes, _) = session.lanes(path, &statement, shape, "server");
    let last = lanes.last_mut().unwrap();
    *last = if *last > 0 { *last - 1 } else { 1 };
    session.write_lanes(path, &statement, shape, (&lanes, &[]), "server");
    let verify = session.run("verify session");
    assert_eq!(verify.code, Some(2), "{verify:#?}");
    assert!(verify.stdout.contains("lane 16 is not the sum of the masked updates"), "{verify:#?}");
    for (signer, set) in [("helper-1", Some(frozen.digest)), ("server", None)] {
        let other = manifest.statement(Stage::Sum, "server", set);
        session.write_lanes(path, &other, shape, (&lanes, &[]), signer);
        session.unmask().assert_fails(2, &[path]);
    }
    fs::remove_file(session.dir.path(path)).unwrap();
    session.unmask().assert_fails(2, &[path]);
    session.assert_nothing_published();
}

#[test]
fn a_session_is_opened_once_and_with_terms_that_can_be() {
    let session = Session::opened(4, 3, "");
    let before = session.files();
    session.open("session", "").assert_fails(1, &["manifest.json: is there already", "hint:"]);
    assert!(session.files() == before);
    for (more, why) in [
        ("--threshold 1", "expected 1 to 10 helpers and a threshold above half"),
        ("--threshold 4", "expected 1 to 10 helpers and a threshold above half"),
        ("--min-survivors 1", "min_survivors is 1, expected 2 to 4"),
        ("--min-survivors 5", "min_survivors is 5, expected 2 to 4"),
        ("--groups 3", "4 clients in 3 groups: found a group of 1, expected at least 2"),
        ("--groups 0", "found 0, expected 1 to 4"),
        ("--groups 5", "found 5, expected 1 to 4"),
        ("--values-per-lane 9", "found 9 values in a lane, expected 1 to 8"),
        ("--weights examples:cap=4000000000", "so that no sum overflows"),
    ] {
        session.open("new", more).assert_fails(2, &[why]);
        assert!(!session.dir.exists("new"), "{more}");
    }
    // An overflow cannot be seen afterwards: the grid counts every eligible client.
    let most = 2_147_483_645 / 4;
    let opened = |levels: u64| {
        let command = session.open_command(&format!("new-{levels}"), "");
        session.run(&command.replace("--levels 1024", &format!("--levels {levels}")))
    };
    done(&opened(most));
    opened(most + 1).assert_fails(2, &["4 clients", &format!("expected 1 to {most}")]);
}

/// No output replaces a message of the session.
#[test]
fn outputs_are_no_messages() {
    let session = Session::opened(3, 3, "");
    let mask = |output: &str| {
        session.run(&mask_command("session", 1, "in/client-1.safetensors", &format!("-o {output}")))
    };
    let why = "is the place of a message of the session";
    for place in ["manifest.json", "set.json", "masked/client-2.safetensors"] {
        fs::create_dir_all(session.dir.path("session/masked")).unwrap();
        mask(&format!("session/{place}")).assert_fails(2, &[place, why]);
    }
    fs::remove_dir(session.dir.path("session/masked")).unwrap();
    done(&mask("./session/masked/client-1.safetensors"));
    done(&session.mask(1));
    done(&session.mask(2));
    mask("session/answers/new/masked.safetensors").assert_fails(2, &["answers/new", why]);
    done(&session.sum());
    (1..3).for_each(|helper| done(&session.help(helper)));
    let before = session.files();
    for place in
        ["manifest.json", "masked-sum.safetensors", "transcript.json", "answers/helper-3.safetensors"]
    {
        for command in ["-o session/PLACE", "-o new.safetensors --sums other/../session/PLACE"] {
            fs::create_dir_all(session.dir.path("other")).unwrap();
            let command = command.replace("PLACE", place);
            session
                .run(&format!("unmask session --key keys/server {command}"))
                .assert_fails(2, &[place, why]);
        }
    }
    assert!(session.files() == before && !session.dir.exists("new.safetensors"));
    done(&session.run("unmask session --key keys/server -o session/mean.safetensors"));
    done(&session.run("verify session"));
}

#[test]
fn deadlines_and_cohorts_that_cannot_be_are_refused() {
    let session = Session::new(3, 3);
    for (deadline, why) in
        [("=-5s", "a second or more"), (" 0s", "a second or more"), (" soon", "45m, 2h or 1d")]
    {
        session.open("session", &format!("--deadline{deadline}")).assert_fails(2, &["--deadline", why]);
    }
    assert!(!session.dir.exists("session"));
    for (command, option) in [("--clients 0 --values 9", "--clients"), ("--clients 9 --values 0", "--values")]
    {
        session.run(&format!("params {command}")).assert_fails(2, &[option]);
    }
    let command = session.open_command("session", "--values-per-lane 9").replace("--levels 2048", "");
    session.run(&command).assert_fails(2, &["--values-per-lane: found 9 values in a lane"]);
}

#[test]
fn a_sum_without_checks_and_after_the_deadline_says_so() {
    let session = Session::masked(3, 3, &[1], "--deadline 2s");
    session.sum().assert_fails(1, &["no helper checked the seeds", "hint: wait for more clients"]);
    done(&session.check(1));
    std::thread::sleep(std::time::Duration::from_millis(3100));
    let late = session.sum();
    late.assert_fails(1, &["hint: the deadline of the session passed"]);
    assert!(!late.stderr.contains("no helper checked"), "{late:#?}");
}

#[test]
fn the_status_tells_how_far_a_session_is() {
    let session = Session::masked(4, 3, &[1, 2], "");
    let status = |found: &[&str]| {
        let run = session.run("status session");
        done(&run);
        for text in found {
            assert!(run.stdout.contains(text), "expected {text}: {run:#?}");
        }
    };
    status(&[
        "masked     2 updates\n",
        "checked    0 of 3",
        "set        not frozen yet",
        "answered   0 of 3",
    ]);
    done(&session.check(2));
    status(&["checked    1 of 3 helpers saw them all: helper-2"]);
    session.dir.write("session/masked/client-3.safetensors", "junk");
    status(&["masked     2 updates\n", "bad file   client-3: "]);
    done(&session.sum());
    done(&session.help(3));
    status(&["set        2 clients, summed", "answered   1 of 3 helpers, 2 suffice: helper-3"]);
    let json = session.run("status session --json");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["masked"], &json["frozen"], &json["bad"][0]["client"]),
        (&2.into(), &2.into(), &"client-3".into())
    );
}
