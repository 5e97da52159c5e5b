//! What helpers refuse: second answers, seeds that do not verify, sets that too few helpers saw.

use super::server::show;
use super::{ClientSet, Session, SignedText, Stage, done, draw, identity};
use std::fs;

#[test]
fn a_second_answer_over_another_set_is_refused() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    done(&session.help(1));
    let answer = session.dir.read("session/answers/helper-1.safetensors");
    done(&session.help(1));
    assert!(
        session.dir.read("session/answers/helper-1.safetensors") == answer,
        "the same set, the same bytes"
    );
    // The server forgot, and signed a subset.
    let sound = session.client_set();
    let mut other = sound.clone();
    other.groups[0].pop();
    show(&session, &other);
    let before = session.files();
    let refused = ["you answered session", "two answers would tell the difference of two sums", "hint:"];
    session.help(1).assert_fails(1, &refused);
    assert!(session.files() == before);
    // Not with the answer gone, nor with more clients or the same ones in another order.
    fs::remove_file(session.dir.path("session/answers/helper-1.safetensors")).unwrap();
    session.help(1).assert_fails(1, &refused);
    let mut reordered = sound.clone();
    reordered.groups[0].reverse();
    show(&session, &reordered);
    session.help(1).assert_fails(1, &refused);
    assert!(!session.dir.exists("session/answers/helper-1.safetensors"));
    show(&session, &sound);
    done(&session.help(1));
    assert!(session.dir.read("session/answers/helper-1.safetensors") == answer);
}

/// Replaces the signed bytes behind the lanes' digest of a client's file, signed by that client.
pub(super) fn forge(session: &Session, client: usize, edit: impl FnOnce(&mut Vec<u8>)) {
    let manifest = session.manifest();
    let (id, shape) = (format!("client-{client}"), manifest.masked_shape());
    let path = format!("session/masked/{id}.safetensors");
    let statement = manifest.statement(Stage::Mask, &id, None);
    let (lanes, mut extra) = session.lanes(&path, &statement, shape, &id);
    edit(&mut extra);
    session.write_lanes(&path, &statement, shape, (&lanes, &extra), &id);
}

#[test]
fn clients_whose_seeds_do_not_verify_get_no_answer() {
    // Three commitments, then an envelope for each helper.
    let last_byte = |extra: &mut Vec<u8>| *extra.last_mut().unwrap() ^= 1;
    let commitment = |extra: &mut Vec<u8>| extra[0] ^= 1;
    let swapped = |extra: &mut Vec<u8>| {
        let envelope = (extra.len() - 96) / 3;
        let (one, other) = extra[96..].split_at_mut(envelope);
        one.swap_with_slice(&mut other[..envelope]);
    };
    type Edit<'e> = &'e dyn Fn(&mut Vec<u8>);
    // The first commitment is that of the set {1}: helpers 2 and 3 hold its seed.
    let cases: [(Edit, usize, usize, &str); 3] = [
        (&last_byte, 3, 2, "the envelope for helper `helper-3` does not open"),
        (&commitment, 2, 1, "seed 1 in the envelope for helper `helper-2` does not have its commitment"),
        (&swapped, 1, 3, "the envelope for helper `helper-1` does not open"),
    ];
    for (edit, finds, other, why) in cases {
        let session = Session::masked(4, 3, &[1, 2, 3, 4], "");
        forge(&session, 2, edit);
        // Without a check the client is in the set, and the helper that finds it does not answer.
        let whole = session.dir.contents();
        done(&session.sum());
        session.help(finds).assert_fails(
            1,
            &["session/masked/client-2.safetensors", why, "the set names this client", "hint:"],
        );
        assert!(!session.dir.exists("session/answers"));
        done(&session.help(other));
        // With the helper's report the round goes on without the client.
        session.dir.restore(&whole);
        let run = session.check(finds);
        done(&run);
        assert!(run.stderr.contains(&format!("client `client-2`: {why}")), "{run:#?}");
        done(&session.check(other));
        let run = session.sum();
        done(&run);
        let told = format!("`client-2` is left out: helper `helper-{finds}` reported: {why}");
        assert!(run.stderr.contains(&told), "{run:#?}");
        session.assert_ends_with(&[finds, other], &[1, 3, 4]);
    }
}

/// A report counts for the file that it names, signed by its helper, in its session.
#[test]
fn reports_that_are_not_the_helpers_count_nothing() {
    let session = Session::masked(4, 3, &[1, 2, 3], "");
    let sound = session.dir.read("session/masked/client-2.safetensors");
    forge(&session, 2, |extra| extra[200] ^= 1);
    done(&session.check(1));
    let report = session.dir.read("session/checks/helper-1.json");
    // The report names the damaged file. The client's sound file is another one.
    session.dir.write("session/masked/client-2.safetensors", &sound);
    let reports = [
        ("helper-1", report.clone(), None),
        ("helper-2", report.clone(), Some("checks/helper-2.json: signature is not one of `helper-2`")),
        ("helper-2", report[..report.len() - 2].to_vec(), Some("checks/helper-2.json: the text is not in")),
        ("helper-3", Vec::new(), Some("checks/helper-3.json: the text is not in the form")),
    ];
    let before = session.dir.contents();
    for (helper, report, warning) in reports {
        session.dir.write(&format!("session/checks/{helper}.json"), &report);
        let run = session.sum();
        done(&run);
        assert!(warning.is_none_or(|warning| run.stderr.contains(warning)), "{warning:?}: {run:#?}");
        assert_eq!(session.client_set().members().count(), 3, "{helper}");
        session.dir.restore(&before);
        fs::remove_dir_all(session.dir.path("keys/server.journal")).unwrap();
    }
}

#[test]
fn strangers_and_early_helpers_are_refused() {
    let session = Session::masked(3, 3, &[1, 2], "");
    session.help(1).assert_fails(1, &["session/set.json: is not there yet", "hint:"]);
    session
        .run("help session --key clients/client-1")
        .assert_fails(1, &["the manifest has no helper with this key", "hint:"]);
    session
        .run("check session --key keys/server")
        .assert_fails(1, &["the manifest has no helper with this key"]);
    assert!(!session.dir.exists("session/answers") && !session.dir.exists("session/checks"));
}

/// A set whose client's file changed after it was frozen.
#[test]
fn a_member_whose_file_changed_gets_no_answer() {
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    let sound = session.dir.read("session/masked/client-3.safetensors");
    forge(&session, 3, |extra| *extra.last_mut().unwrap() ^= 1);
    session.help(1).assert_fails(2, &["client-3.safetensors: its digest is", "that of the frozen set"]);
    fs::remove_file(session.dir.path("session/masked/client-3.safetensors")).unwrap();
    session.help(1).assert_fails(2, &["session/masked/client-3.safetensors"]);
    session.sum().assert_fails(2, &["session/masked/client-3.safetensors"]);
    session.dir.write("session/masked/client-3.safetensors", sound);
    session.assert_ends_with(&[1, 3], &[1, 2, 3]);
}

/// Helpers that sign the set answer once a threshold of them signed the same one.
#[test]
fn a_server_that_shows_two_sets_gets_no_answer() {
    let session = Session::summed(4, 3, &[1, 2, 3], "--helpers-sign-set");
    let one = session.client_set();
    let mut other = one.clone();
    other.groups[0].pop();
    let see = |helper: usize, set: &ClientSet| {
        show(&session, set);
        session.help(helper)
    };
    for (helper, set) in [(1, &one), (2, &other)] {
        see(helper, set).assert_fails(1, &["1 helpers signed the set, expected 2"]);
    }
    // A helper signs one set alone.
    see(1, &other).assert_fails(1, &["you answered session"]);
    see(2, &one).assert_fails(1, &["you answered session"]);
    assert!(!session.dir.exists("session/answers"));
    // The third decides.
    done(&see(3, &one));
    see(2, &one).assert_fails(1, &["you answered session"]);
    done(&see(1, &one));
    done(&session.unmask());
    assert_eq!(session.published(), super::sums(&[1, 2, 3], false));
}

/// A witness is that of its helper, for this set: others do not count.
#[test]
fn witnesses_of_others_do_not_count() {
    let session = Session::summed(3, 3, &[1, 2, 3], "--helpers-sign-set");
    session.help(1).assert_fails(1, &["1 helpers signed the set, expected 2"]);
    let witness = String::from_utf8(session.dir.read("session/witnesses/helper-1.json")).unwrap();
    let (json, _) = witness.split_once('\n').unwrap();
    let json = json.replace("helper-1", "helper-2");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let signed = |signer: &str, stage| {
        let text = SignedText::sign(&value, stage, &identity(signer)).unwrap();
        text.bytes().to_vec()
    };
    let forged =
        [witness.into_bytes(), signed("helper-1", Stage::Witness), signed("helper-2", Stage::Check), vec![]];
    for forged in forged {
        session.dir.write("session/witnesses/helper-2.json", forged);
        session.help(1).assert_fails(1, &["1 helpers signed the set, expected 2"]);
    }
    assert!(!session.dir.exists("session/answers"));
}

/// Seeds and secrets of clients are in no file but the clients' own, and the keys of all are for their owners alone.
#[test]
fn seeds_are_kept_by_clients_alone() {
    use std::os::unix::fs::PermissionsExt;
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    (1..4).for_each(|helper| done(&session.check(helper)));
    (1..3).for_each(|helper| done(&session.run(&format!("help session -v --key helpers/helper-{helper}"))));
    done(&session.unmask());
    done(&session.run("verify session"));
    let (manifest, contents) = (session.manifest(), session.dir.contents());
    let mut hidden: Vec<Vec<u8>> = Vec::new();
    for client in 1..4 {
        let name = format!("clients/client-{client}.journal/{}.secret", manifest.session);
        let secret: [u8; 32] =
            fedmill::io::secret::read_key(&session.dir.path(&name)).unwrap().expect("the client keeps it");
        hidden.push(secret.to_vec());
        hidden.extend(draw(manifest.committee, &secret).iter().map(|seed| seed.to_vec()));
    }
    assert_eq!(hidden.len(), 3 * (1 + 3));
    for (name, bytes) in contents.iter().filter(|(name, _)| !name.starts_with("clients/")) {
        let text = String::from_utf8_lossy(bytes);
        for secret in &hidden {
            let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let is_there = bytes.windows(32).any(|window| window == secret.as_slice());
            assert!(!is_there && !text.contains(&digits), "{name} has a seed or a secret");
        }
    }
    let kept = contents.keys().filter(|name| name.starts_with("helpers/helper-1.journal/"));
    let kept: Vec<&str> = kept.filter_map(|name| name.strip_prefix("helpers/helper-1.journal/")).collect();
    assert_eq!(kept, ["", "journal.jsonl", "lock"], "a helper keeps nothing of a session but its deed");
    let is_private = |name: &String| {
        let mode = fs::metadata(session.dir.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: others may read it");
    };
    let parties = contents
        .keys()
        .filter(|name| !name.ends_with(".pub") && !name.ends_with(".set.json") && name.contains('/'));
    let parties =
        parties.filter(|name| ["clients/", "helpers/", "keys/"].iter().any(|at| name.starts_with(at)));
    parties.filter(|name| !["clients/", "helpers/", "keys/"].contains(&name.as_str())).for_each(is_private);
}
