//! Journals that were lost, restored or changed: the files of the session are then the witnesses.

use super::{Session, VALUES, done, mask_command, sums, update};
use crate::harness::Model;
use std::fs;

const MASKED: &str = "session/masked/client-1.safetensors";

/// Takes the journal of a party away.
fn forget(session: &Session, key: &str) {
    fs::remove_dir_all(session.dir.path(&format!("{key}.journal"))).unwrap();
}

#[test]
fn a_client_whose_journal_was_set_back_masks_nothing() {
    let session = Session::masked(3, 3, &[1], "");
    update("other", &[8; VALUES], 1).write(&session.dir);
    let masked = session.dir.read(MASKED);
    forget(&session, "clients/client-1");
    let told = ["you masked an update in this session, and your journal does not know it", "hint:"];
    for update in ["other.safetensors", "in/client-1.safetensors"] {
        // Not to another path either: the file of the session is the witness.
        for more in ["", "-o elsewhere.safetensors", "--allow-again"] {
            session.run(&mask_command("session", 1, update, more)).assert_fails(1, &told);
        }
    }
    assert!(session.dir.read(MASKED) == masked && !session.dir.exists("elsewhere.safetensors"));
    // A file at another path that the client wrote.
    let elsewhere = |client| mask_command("session", client, "in/client-2.safetensors", "-o two.safetensors");
    done(&session.run(&elsewhere(2)));
    forget(&session, "clients/client-2");
    session.run(&elsewhere(2)).assert_fails(1, &told);
    // A file there that is not the client's is no witness.
    session.dir.write("session/masked/client-3.safetensors", masked);
    done(&session.mask(3));
    done(&session.sum());
    assert_eq!(session.client_set().members().count(), 2);
}

#[test]
fn a_client_whose_secret_is_gone_is_told_so() {
    let session = Session::masked(3, 3, &[1], "");
    let journal = session.dir.path("clients/client-1.journal");
    let secret = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let secret = secret.into_iter().find(|path| path.extension().is_some_and(|end| end == "secret")).unwrap();
    fs::remove_file(&secret).unwrap();
    let masked = session.dir.read(MASKED);
    session
        .mask(1)
        .assert_fails(1, &["the secret of session", "is gone, so the same file cannot be made again"]);
    assert!(session.dir.read(MASKED) == masked && !secret.exists());
}

#[test]
fn a_helper_whose_journal_was_set_back_answers_nothing() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    done(&session.help(1));
    let answer = session.dir.read("session/answers/helper-1.safetensors");
    forget(&session, "helpers/helper-1");
    session
        .help(1)
        .assert_fails(1, &["answers/helper-1.safetensors: is there, and your journal does not", "hint:"]);
    assert!(session.dir.read("session/answers/helper-1.safetensors") == answer);
    // The others and the answer that is there suffice.
    session.assert_ends_with(&[3], &[1, 2, 3]);
}

/// Any byte of a journal changed: the party does nothing, or nothing that it did not do before.
#[test]
fn a_changed_journal_is_refused() {
    let session = Session::summed(4, 3, &[1, 2, 3], "");
    (1..3).for_each(|helper| done(&session.help(helper)));
    update("other", &[8; VALUES], 1).write(&session.dir);
    let other = mask_command("session", 1, "other.safetensors", "");
    for (key, command, must_refuse) in [
        ("clients/client-1", other.as_str(), true),
        ("keys/server", "sum session --key keys/server", false),
        ("helpers/helper-1", "help session --key helpers/helper-1", false),
    ] {
        let name = format!("{key}.journal/journal.jsonl");
        let sound = session.dir.read(&name);
        let before = session.files();
        // A few bytes of each field, and the end of the line.
        for at in (0..sound.len()).step_by(7).chain([sound.len() - 2, sound.len() - 1]) {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            session.dir.write(&name, changed);
            let run = session.run(command);
            assert!(run.code == Some(2) || run.code == Some(1), "{key}, byte {at}: {run:#?}");
            assert!(session.files() == before, "{key}, byte {at}");
        }
        session.dir.write(&name, &sound);
        let run = session.run(command);
        assert_eq!(run.code, Some(if must_refuse { 1 } else { 0 }), "{run:#?}");
        assert!(session.files() == before);
    }
    done(&session.unmask());
    assert_eq!(session.published(), sums(&[1, 2, 3], false));
}

/// A journal without its last line, and no file in the session: the client cannot know. Its mask is a new one.
#[test]
fn no_two_updates_have_one_mask() {
    let session = Session::masked(3, 3, &[1], "");
    let update_of = |name: &str, by: f32| {
        let zeros = crate::harness::Update::new(name).meta("kind", "delta").i64("steps", &[1], &[0]);
        zeros.f32("a.weight", &[3, 4], &[by; 12]).f32("b", &[5], &[by; 5]).write(&session.dir);
    };
    update_of("other", 0.5);
    let lanes = || Model::read(&session.dir, MASKED).bytes("lanes").to_vec();
    let first = lanes();
    fs::remove_file(session.dir.path(MASKED)).unwrap();
    let name = "clients/client-1.journal/journal.jsonl";
    let sound = session.dir.read(name);
    for journal in [&sound[..sound.len() - 1], &[]] {
        session.dir.write(name, journal);
        done(&session.run(&mask_command("session", 1, "other.safetensors", "")));
        let second = lanes();
        // Under the same mask each difference would be a whole number of steps, at most two clips.
        let words = |bytes: &[u8]| -> Vec<i64> {
            bytes.chunks_exact(4).map(|x| i64::from(u32::from_le_bytes(x.try_into().unwrap()))).collect()
        };
        let is_near = |(a, b): (&i64, &i64)| {
            let apart = (a - b).rem_euclid(4_294_967_291);
            apart.min(4_294_967_291 - apart) <= 2048
        };
        let near = words(&first).iter().zip(&words(&second)).filter(|pair| is_near(*pair)).count();
        assert!(near <= 1, "{near} lanes of both files have one mask");
        fs::remove_file(session.dir.path(MASKED)).unwrap();
    }
}
