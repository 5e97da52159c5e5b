//! Parties killed before every durable step, and run again: the same bytes, and no second message.

use super::{Identity, Session, UNMASK, VALUES, done, mask_command, sums, update};
use crate::harness::{Contents, Run};
use std::fs;

/// Runs a command that dies before each durable step in turn, and then to its end. `check` sees the session after the
/// kill, and may run it again.
fn each_step(session: &Session, command: &str, least: usize, check: impl Fn(usize, &Contents)) {
    let before = Before::of(session);
    for step in 1.. {
        before.restore(session);
        let run = session.run_until(step, command);
        if run.code == Some(0) {
            assert!(step > least, "{command}: {step} steps");
            return;
        }
        assert_eq!(run.code, None, "{command}, step {step}: {run:#?}");
        check(step, &session.files());
    }
}

/// All that is there before an act.
struct Before(Contents);

impl Before {
    fn of(session: &Session) -> Self {
        Self(session.dir.contents())
    }

    /// Makes the folder as it was, without files and folders that came.
    fn restore(&self, session: &Session) {
        let now = session.dir.contents();
        let new = now.keys().rev().filter(|name| !self.0.contains_key(*name));
        for name in new {
            let path = session.dir.path(name);
            if name.ends_with('/') { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        session.dir.restore(&self.0);
    }
}

/// What a command does that is the same in every run: a kill before any step, and a run to the end, give the bytes of an
/// undisturbed run.
pub(super) fn assert_same_bytes(session: &Session, command: &str, least: usize, outputs: &[&str]) {
    let before = Before::of(session);
    done(&session.run(command));
    let (whole, published): (_, Vec<_>) =
        (session.files(), outputs.iter().map(|path| session.dir.read(path)).collect());
    before.restore(session);
    each_step(session, command, least, |step, killed| {
        for (name, bytes) in killed.iter().filter(|(name, _)| !name.ends_with('/')) {
            assert!(whole.get(name) == Some(bytes), "{command}, step {step}: {name} is half a file");
        }
        done(&session.run(command));
        assert!(session.files() == whole, "{command}, step {step}: the session differs");
        for (path, bytes) in outputs.iter().zip(&published) {
            assert!(session.dir.read(path) == *bytes, "{command}, step {step}: {path} differs");
        }
        let left: Vec<String> =
            session.dir.contents().into_keys().filter(|name| name.ends_with(".fedmill-tmp")).collect();
        assert!(left.is_empty(), "{command}, step {step}: {left:?}");
    });
}

#[test]
fn the_server_and_helpers_end_in_the_same_bytes() {
    let session = Session::masked(3, 3, &[1, 2, 3], "");
    assert_same_bytes(&session, "check session --key helpers/helper-1", 3, &[]);
    done(&session.check(1));
    // A journal, the set in it, the set, and the sum.
    let sum = "sum session --key keys/server";
    done(&session.run(sum));
    let whole = session.files();
    fs::remove_dir_all(session.dir.path("keys/server.journal")).unwrap();
    fs::remove_file(session.dir.path("session/set.json")).unwrap();
    fs::remove_file(session.dir.path("session/masked-sum.safetensors")).unwrap();
    assert_same_bytes(&session, sum, 8, &[]);
    done(&session.run(sum));
    assert!(session.files() == whole);
    assert_same_bytes(&session, "help session --key helpers/helper-1", 5, &[]);
    (1..3).for_each(|helper| done(&session.help(helper)));
    assert_same_bytes(&session, UNMASK, 5, &["mean.safetensors", "sums.safetensors"]);
    done(&session.unmask());
    assert_eq!(session.published(), sums(&[1, 2, 3], false));
}

#[test]
fn helpers_that_sign_the_set_end_in_the_same_bytes() {
    let session = Session::summed(3, 3, &[1, 2, 3], "--helpers-sign-set");
    session.help(1).assert_fails(1, &["waiting"]);
    assert_same_bytes(&session, "help session --key helpers/helper-2", 8, &[]);
}

/// The set is frozen from the first durable note of it on: clients that come after a kill are in it only if the server had
/// not decided.
#[test]
fn a_killed_server_freezes_one_set() {
    let session = Session::masked(4, 3, &[1, 2, 3], "");
    let fourth = {
        done(&session.mask(4));
        let path = session.dir.path("session/masked/client-4.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    };
    let mut sizes = std::cell::Cell::new([0, 0]);
    each_step(&session, "sum session --key keys/server", 8, |step, killed| {
        let frozen = killed.get("session/set.json").cloned();
        session.dir.write("session/masked/client-4.safetensors", &fourth);
        done(&session.sum());
        let set = session.dir.read("session/set.json");
        assert!(frozen.is_none_or(|frozen| frozen == set), "step {step}: two sets");
        let members = session.client_set().members().count();
        let mut counts = sizes.get();
        counts[members - 3] += 1;
        sizes.set(counts);
        let again = session.files();
        done(&session.sum());
        assert!(session.files() == again, "step {step}");
    });
    assert!(sizes.get_mut().iter().all(|count| *count > 0), "{sizes:?}");
}

/// A client that was killed masks the same update again, and another one only if no file was published and its journal
/// did not know of one.
#[test]
fn a_killed_client_masks_one_update() {
    let session = Session::masked(3, 3, &[2, 3], "");
    update("other", &[8; VALUES], 1).write(&session.dir);
    let command = mask_command("session", 1, "in/client-1.safetensors", "");
    let other = mask_command("session", 1, "other.safetensors", "");
    let masked = "session/masked/client-1.safetensors";
    let refused = std::cell::Cell::new(0);
    each_step(&session, &command, 6, |step, killed| {
        let published = killed.get(masked).cloned();
        let run: Run = session.run(&other);
        if run.code == Some(0) {
            assert!(published.is_none(), "step {step}: two updates under one mask");
            session.run(&command).assert_fails(1, &["has another update of yours already"]);
            return;
        }
        refused.set(refused.get() + 1);
        run.assert_fails(1, &["has another update of yours already"]);
        done(&session.run(&command));
        let bytes = session.dir.read(masked);
        assert!(published.is_none_or(|published| published == bytes), "step {step}: the bytes differ");
        done(&session.run(&command));
        assert!(session.dir.read(masked) == bytes, "step {step}");
        done(&session.sum());
        session.assert_ends_with(&[1, 2], &[1, 2, 3]);
    });
    assert!(refused.get() > 2, "{refused:?}");
}

#[test]
fn a_killed_server_opens_a_whole_session_or_none() {
    let session = Session::new(3, 3);
    let command = session.open_command("session", "");
    each_step(&session, &command, 3, |step, killed| {
        match killed.get("session/manifest.json") {
            Some(manifest) => {
                session.run(&command).assert_fails(1, &["is there already"]);
                assert!(session.dir.read("session/manifest.json") == *manifest);
            }
            None => done(&session.run(&command)),
        }
        assert_eq!(session.manifest().terms.clients.len(), 3, "step {step}");
        done(&session.mask(1));
    });
}

/// A key is never replaced: a killed `keygen` leaves none, or one that is refused and kept.
#[test]
fn a_killed_keygen_loses_no_key() {
    let session = Session::new(0, 0);
    let command = "keygen --id new -o new/key";
    fs::create_dir(session.dir.path("new")).unwrap();
    each_step(&session, command, 4, |step, _| {
        let read = || session.dir.exists("new/key").then(|| session.dir.read("new/key"));
        let kept = read();
        let run = session.run(command);
        match kept {
            None => {
                done(&run);
                let key = fedmill::io::secret::read_key::<32>(&session.dir.path("new/key")).unwrap().unwrap();
                let public = Identity::of(key).verifying().to_string();
                assert_eq!(session.dir.json("new/key.pub")["ed25519"], public.as_str(), "step {step}");
            }
            Some(_) => {
                run.assert_fails(2, &["is there already, and keys are never replaced"]);
                assert!(read() == kept, "step {step}: the key changed");
            }
        }
    });
}
