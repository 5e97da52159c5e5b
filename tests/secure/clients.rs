//! What clients refuse: second updates, reused updates, and manifests that they do not accept.

use super::{PublicIdentity, Session, VALUES, done, mask_command, update};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_second_update_in_a_session_is_refused() {
    let session = Session::masked(3, 3, &[1], "");
    update("other", &[8; VALUES], 1).write(&session.dir);
    let before = session.dir.contents();
    for more in ["", "--allow-again", "-o elsewhere.safetensors"] {
        session.run(&mask_command("session", 1, "other.safetensors", more)).assert_fails(
            1,
            &["has another update of yours already", "would tell their difference", "hint:"],
        );
    }
    session.dir.assert_unchanged_since(&before);
    // The same one under another name gives the same bytes, at any path.
    session.dir.write("renamed.safetensors", session.dir.read("in/client-1.safetensors"));
    done(&session.run(&mask_command("session", 1, "renamed.safetensors", "-o elsewhere.safetensors")));
    let masked = session.dir.read("session/masked/client-1.safetensors");
    assert!(session.dir.read("elsewhere.safetensors") == masked);
}

#[test]
fn an_update_is_masked_with_the_base_of_the_session() {
    let session = Session::opened(3, 3, "");
    let command = mask_command("session", 1, "in/client-1.safetensors", "");
    session
        .run(&command.replace("--base base.safetensors", "--base other-base.safetensors"))
        .assert_fails(1, &["other-base.safetensors: its digest is", "the base of the session", "hint:"]);
    session.run(&command.replace("--base base.safetensors", "")).assert_fails(2, &["--base"]);
    session.run(&command.replace("--base base", "--base missing")).assert_fails(2, &["missing.safetensors"]);
    assert!(!session.dir.exists("session/masked"));
    // None of these used the session up.
    done(&session.mask(1));
}

#[test]
fn an_update_that_does_not_fit_the_base_is_refused() {
    let session = Session::opened(3, 3, "--weights examples:cap=8");
    let sound = update("odd", &[8; VALUES], 1);
    sound.clone().without_meta("num_examples").write(&session.dir);
    let mask = || session.run(&mask_command("session", 1, "odd.safetensors", ""));
    mask().assert_fails(2, &["odd.safetensors", "`num_examples` is missing"]);
    sound.clone().f32("more", &[1], &[0.0]).write(&session.dir);
    mask().assert_fails(2, &["odd.safetensors", "more"]);
    let mut values = [0.0; 12];
    values[7] = f32::NAN;
    crate::harness::Update::new("odd")
        .meta("kind", "delta")
        .meta("num_examples", "1")
        .f32("a.weight", &[3, 4], &values)
        .f32("b", &[5], &[0.0; 5])
        .i64("steps", &[1], &[0])
        .write(&session.dir);
    mask().assert_fails(2, &["tensor `a.weight`", "not finite"]);
    assert!(!session.dir.exists("session/masked/client-1.safetensors"));
}

#[test]
fn an_update_of_another_session_is_refused_unless_asked_for() {
    let session = Session::masked(3, 3, &[1], "");
    done(&session.open("next", ""));
    let again = |more| session.run(&mask_command("next", 1, "in/client-1.safetensors", more));
    again("").assert_fails(1, &["the same update was masked in session", "--allow-again"]);
    assert!(!session.dir.exists("next/masked/client-1.safetensors"));
    done(&again("--allow-again"));
    // The session remembers: the same bytes without asking again.
    let masked = session.dir.read("next/masked/client-1.safetensors");
    done(&again(""));
    assert!(session.dir.read("next/masked/client-1.safetensors") == masked);
    assert!(masked != session.dir.read("session/masked/client-1.safetensors"));
}

#[test]
fn parties_that_a_client_does_not_know_are_refused() {
    let session = Session::opened(3, 3, "");
    let trusting = |trust: &str| {
        let command = mask_command("session", 1, "in/client-1.safetensors", "");
        session.run(&command.replace("--trust keys helpers clients", &format!("--trust {trust}")))
    };
    trusting("helpers clients")
        .assert_fails(1, &["server `server` has a key that is not among the trusted ones", "hint:"]);
    trusting("keys clients helpers/helper-1.pub helpers/helper-3.pub")
        .assert_fails(1, &["helper `helper-2` has a key that is not among the trusted ones"]);
    // Another party's keys under the trusted name: for signatures, or for envelopes alone.
    let mine = super::public("helper-2");
    let signs = super::identity("evil").verifying();
    let seals = super::public("evil").seal;
    for other in [PublicIdentity { ed25519: signs, ..mine.clone() }, PublicIdentity { seal: seals, ..mine }] {
        session.dir.write("pinned/helper-2.pub", serde_json::to_string(&other).unwrap());
        trusting("keys clients pinned helpers/helper-1.pub helpers/helper-3.pub")
            .assert_fails(1, &["helper `helper-2` has a key that is not among the trusted ones"]);
    }
    let other = super::public("client-9");
    session.dir.write("pinned/server.pub", serde_json::to_string(&other).unwrap());
    trusting("pinned/server.pub helpers clients").assert_fails(1, &["server `server` has a key"]);
    assert!(!session.dir.exists("session/masked"));
}

#[test]
fn cohorts_that_hide_too_little_are_refused() {
    let session = Session::opened(4, 3, "");
    let mask = |more: &str| session.run(&mask_command("session", 1, "in/client-1.safetensors", more));
    mask("--min-cohort 3")
        .assert_fails(1, &["sums of 2 clients may be published, expected at least 3 (--min-cohort)"]);
    mask("--require-known 5").assert_fails(
        1,
        &["4 eligible clients have trusted keys, expected at least 5 (--require-known)", "hint:"],
    );
    // Clients that the server made up do not count.
    let command = mask_command("session", 1, "in/client-1.safetensors", "--require-known 3");
    session
        .run(&command.replace("helpers clients", "helpers clients/client-1.pub clients/client-2.pub"))
        .assert_fails(1, &["2 eligible clients have trusted keys, expected at least 3"]);
    assert!(!session.dir.exists("session/masked"));
    done(&mask("--min-cohort 2 --require-known 4"));
}

#[test]
fn strangers_and_late_clients_are_refused() {
    let session = Session::opened(3, 3, "--deadline 1s");
    session.write_key("keys/stranger");
    let command = mask_command("session", 1, "in/client-1.safetensors", "");
    session
        .run(&command.replace("clients/client-1", "keys/stranger"))
        .assert_fails(1, &["the manifest has no client with this key", "hint:"]);
    sleep(Duration::from_millis(2100));
    session.mask(1).assert_fails(1, &["the session's deadline passed"]);
    assert!(!session.dir.exists("session/masked"));
}

#[test]
fn values_beyond_the_clip_are_clipped_and_weights_capped() {
    let session = Session::opened(3, 3, "--weights examples:cap=4");
    let mut integers = [4096; VALUES];
    integers[0] = -5000;
    integers[1] = 8;
    update("wild", &integers, 9).write(&session.dir);
    let run = session.run(&mask_command("session", 1, "wild.safetensors", ""));
    done(&run);
    assert!(run.stderr.contains("16 of 17 values (94.12 %) were clipped"), "{run:#?}");
    assert!(run.stderr.contains("your weight is 4, the cap of the session"), "{run:#?}");
    update("nothing", &[0; VALUES], 4).write(&session.dir);
    done(&session.run(&mask_command("session", 2, "nothing.safetensors", "")));
    done(&session.sum());
    (1..3).for_each(|helper| done(&session.help(helper)));
    done(&session.unmask());
    let mut expected = [1024; VALUES];
    expected[0] = -1024;
    expected[1] = 8;
    assert_eq!(session.published(), expected);
    let mean = crate::harness::Model::read(&session.dir, "mean.safetensors");
    assert_eq!(mean.metadata["num_examples"], "8");
    assert_eq!(mean.f32("a.weight")[..3], [-0.5, 8.0 / 2048.0, 0.5]);
}

#[test]
fn a_client_after_the_freeze_is_told() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    session
        .mask(4)
        .assert_fails(1, &["session/set.json", "froze the set of clients already", "next session"]);
    assert!(!session.dir.exists("session/masked/client-4.safetensors"));
    // One that masked in time and did not send it is not in the sum either.
    let early = Session::masked(4, 3, &[1, 2, 3, 4], "");
    std::fs::remove_file(early.dir.path("session/masked/client-4.safetensors")).unwrap();
    done(&early.sum());
    early.mask(4).assert_fails(1, &["and it is without you"]);
    // A client that masked before makes its file again.
    let masked = session.dir.read("session/masked/client-1.safetensors");
    done(&session.mask(1));
    assert!(session.dir.read("session/masked/client-1.safetensors") == masked);
}

#[test]
fn updates_that_may_be_a_mistake_are_masked_with_a_warning() {
    let session = Session::opened(4, 3, "--steps-cap 2");
    let doubts = ["has the values of the base", "is of client `client-2`", "more local steps than the cap"];
    for (client, values, id, steps, doubt) in [
        (1, [0; VALUES], "client-1", "2", doubts[0]),
        (2, [8; VALUES], "client-2", "3", doubts[2]),
        (3, [8; VALUES], "client-2", "1", doubts[1]),
        (4, [8; VALUES], "client-4", "2", ""),
    ] {
        let sent = format!("sent-{client}");
        update(&sent, &values, 4).meta("client_id", id).meta("local_steps", steps).write(&session.dir);
        let run = session.run(&mask_command("session", client, &format!("{sent}.safetensors"), ""));
        done(&run);
        for other in doubts {
            assert_eq!(run.stderr.contains(other), other == doubt, "client {client}: {run:#?}");
        }
    }
}

#[test]
fn keys_of_the_other_kind_are_named() {
    let session = Session::opened(3, 3, "");
    let command = mask_command("session", 1, "in/client-1.safetensors", "");
    let swapped = command.replace("--key clients/client-1", "--key clients/client-1.pub");
    session
        .run(&swapped)
        .assert_fails(2, &["clients/client-1.pub: found a public key", "the file without .pub"]);
    let swapped = command.replace("--trust keys", "--trust keys/server");
    session.run(&swapped).assert_fails(2, &["keys/server: found bytes that are no text", "ends in .pub"]);
    session
        .run(&mask_command("nowhere", 1, "in/client-1.safetensors", ""))
        .assert_fails(2, &["nowhere/manifest.json: is not there", "hint: fedmill secagg open"]);
}

#[test]
fn an_update_that_cannot_be_masked_uses_no_session_up() {
    let session = Session::opened(3, 3, "");
    let broken = |value: f32| {
        let values = [vec![0.0; 11], vec![value]].concat();
        let update = crate::harness::Update::new("odd").meta("kind", "delta").meta("num_examples", "1");
        update.f32("a.weight", &[3, 4], &values).f32("b", &[5], &[0.0; 5]).i64("steps", &[1], &[0])
    };
    broken(f32::INFINITY).write(&session.dir);
    let mask = || session.run(&mask_command("session", 1, "odd.safetensors", ""));
    mask().assert_fails(2, &["tensor `a.weight`", "value 11 is not finite"]);
    broken(0.5).write(&session.dir);
    done(&mask());
}
