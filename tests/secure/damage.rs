//! Damaged, replayed, swapped and foreign files: named, and the round goes on without them.

use super::{LaneTensor, Session, SessionTerms, SignedText, Stage, done, mask_command, pool, sums};
use crate::harness::Update;
use crate::rng::Rng;
use rustix::fs::{FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::symlink;

/// Every byte of every file of a small session, one bit of it flipped: the audit finds it.
#[test]
fn an_audit_finds_a_change_of_any_byte() {
    let session = Session::new(2, 1);
    for name in ["base", "in/client-1", "in/client-2"] {
        let update = Update::new(name).f32("w", &[2], &[0.25, 0.5]);
        let kind = if name == "base" { update } else { update.meta("kind", "delta") };
        kind.write(&session.dir);
    }
    done(&session.open("session", ""));
    (1..3).for_each(|client| done(&session.mask(client)));
    done(&session.check(1));
    done(&session.sum());
    done(&session.help(1));
    done(&session.run("unmask session --key keys/server -o mean.safetensors"));
    let pool = pool(1);
    assert_eq!(session.faults(&pool), Some(0));
    let files = session.files();
    let files: Vec<_> = files.into_iter().filter(|(name, _)| !name.ends_with('/')).collect();
    assert_eq!(files.len(), 8, "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, sound) in files {
        for at in 0..sound.len() {
            let mut changed = sound.clone();
            changed[at] ^= 1 << (at % 8);
            session.dir.write(&name, changed);
            assert_ne!(session.faults(&pool), Some(0), "{name}: byte {at} of {}", sound.len());
        }
        for cut in [0, 1, sound.len() / 2, sound.len() - 1] {
            session.dir.write(&name, &sound[..cut]);
            assert_ne!(session.faults(&pool), Some(0), "{name}: cut at {cut}");
        }
        session.dir.write(&name, [&sound[..], b"\n"].concat());
        assert_ne!(session.faults(&pool), Some(0), "{name}: longer");
        session.dir.write(&name, &sound);
    }
    assert_eq!(session.faults(&pool), Some(0));
}

/// The same at random in longer files, whose lanes are most of them.
#[test]
fn an_audit_finds_changes_of_long_files() {
    let session = Session::new(3, 3);
    let mut random = Rng::new(1);
    for name in ["base", "in/client-1", "in/client-2", "in/client-3"] {
        let values: Vec<f32> = (0..9_001).map(|_| random.number() as f32).collect();
        let update = Update::new(name).f32("w", &[9_001], &values);
        let kind = if name == "base" { update } else { update.meta("kind", "delta") };
        kind.write(&session.dir);
    }
    done(&session.open("session", ""));
    (1..4).for_each(|client| done(&session.mask(client)));
    done(&session.sum());
    (1..4).for_each(|helper| done(&session.help(helper)));
    done(&session.run("unmask session --key keys/server -o mean.safetensors"));
    let pool = pool(2);
    assert_eq!(session.faults(&pool), Some(0));
    for (name, sound) in session.files().into_iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        assert!(sound.len() > 36_000);
        for _ in 0..5 {
            let at = random.place(sound.len());
            let mut changed = sound.clone();
            changed[at] ^= 1 << random.below(8);
            session.dir.write(&name, changed);
            assert_ne!(session.faults(&pool), Some(0), "{name}: byte {at} of {}", sound.len());
        }
        session.dir.write(&name, sound);
    }
}

/// A witness of a session whose helpers sign the set is audited too.
#[test]
fn an_audit_finds_a_change_of_a_witness() {
    let session = Session::summed(3, 3, &[1, 2, 3], "--helpers-sign-set");
    session.help(1).assert_fails(1, &["waiting: 1 helpers signed the set, expected 2"]);
    [2, 1].iter().for_each(|helper| done(&session.help(*helper)));
    done(&session.unmask());
    let pool = pool(1);
    assert_eq!(session.faults(&pool), Some(0));
    let name = "session/witnesses/helper-1.json";
    let sound = session.dir.read(name);
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        session.dir.write(name, changed);
        assert_ne!(session.faults(&pool), Some(0), "byte {at}");
    }
}

/// A file in the place of a client's masked update, and what is said of it.
type Case<'c> = (&'static str, &'static str, &'c dyn Fn(&Session, &str));

/// Files of other sessions, senders and stages, and files that are no message at all.
#[test]
fn bad_files_of_clients_are_named_and_left_out() {
    let session = Session::opened(20, 3, "");
    (1..4).for_each(|client| done(&session.mask(client)));
    // Another session with the same parties, and one of other lanes.
    done(&session.open("other", ""));
    done(&session.run(&mask_command("other", 4, "in/client-4.safetensors", "")));
    done(&session.open("packed", "--values-per-lane 2"));
    done(&session.run(&mask_command("packed", 5, "in/client-5.safetensors", "")));
    done(&session.run(&mask_command(
        "session",
        6,
        "in/client-6.safetensors",
        "-o elsewhere/six.safetensors",
    )));
    let elsewhere = |session: &Session| session.dir.read("elsewhere/six.safetensors");
    fs::create_dir_all(session.dir.path("outside")).unwrap();
    let copy =
        |from: &'static str| move |session: &Session, to: &str| session.dir.write(to, session.dir.read(from));
    let bytes = |bytes: &'static [u8]| move |session: &Session, to: &str| session.dir.write(to, bytes);
    let changed = |change: &'static dyn Fn(Vec<u8>) -> Vec<u8>| {
        move |session: &Session, to: &str| {
            // Of the same client, as it would be without the change.
            let client = to.trim_end_matches(".safetensors").rsplit('-').next().unwrap().parse().unwrap();
            done(&session.mask(client));
            session.dir.write(to, change(session.dir.read(to)));
        }
    };
    let (replayed, packed) =
        (copy("other/masked/client-4.safetensors"), copy("packed/masked/client-5.safetensors"));
    let (sender, plain, key) =
        (copy("session/masked/client-1.safetensors"), copy("in/client-7.safetensors"), copy("keys/server"));
    let pickle = bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.");
    let (empty, huge) = (bytes(b""), bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"));
    let truncated = changed(&|bytes| bytes[..bytes.len() - 1].to_vec());
    let oversized = changed(&|bytes| [bytes, vec![0; 1 << 20]].concat());
    let in_lanes = changed(&|mut bytes| {
        let header = 8 + usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
        bytes[header + 9] ^= 0x10;
        bytes
    });
    let in_seeds = changed(&|mut bytes| {
        let place = bytes.len() - 100;
        bytes[place] ^= 0x10;
        bytes
    });
    let link = |session: &Session, to: &str| {
        session.dir.write("outside/six.safetensors", elsewhere(session));
        symlink(session.dir.path("outside/six.safetensors"), session.dir.path(to)).unwrap();
    };
    let pipe = |session: &Session, to: &str| {
        let (folder, mode) = (rustix::fs::CWD, Mode::RUSR | Mode::WUSR);
        mknodat(folder, session.dir.path(to), FileType::Fifo, mode, 0).unwrap();
    };
    let folder = |session: &Session, to: &str| fs::create_dir(session.dir.path(to)).unwrap();
    let stated = |session: &Session, to: &str| {
        let headers = ["sender", "stage", "session"].map(|key| (key, "x"));
        let update = Update::new(to.trim_end_matches(".safetensors")).raw("lanes", "U32", &[17], &[0; 68]);
        headers.into_iter().fold(update, |update, (key, value)| update.meta(key, value)).write(&session.dir);
    };
    let cases: [Case; 16] = [
        ("client-4.safetensors", "metadata `session`", &replayed),
        ("client-5.safetensors", "metadata `session`", &packed),
        ("client-6.safetensors", "cannot be read: not a regular file", &link),
        ("client-7.safetensors", "header lists 3 tensors, expected at most 2", &plain),
        ("client-8.safetensors", "metadata `sender`", &sender),
        ("client-9.safetensors", "file is a Python pickle", &pickle),
        ("client-10.safetensors", "file has 0 bytes", &empty),
        ("client-11.safetensors", "header", &huge),
        ("client-12.safetensors", "truncated", &truncated),
        ("client-13.safetensors", "the rest belongs to no tensor", &oversized),
        ("client-14.safetensors", "the lanes do not have the digest that `client-14` signed", &in_lanes),
        ("client-15.safetensors", "signature is not one of `client-15`", &in_seeds),
        ("client-16.safetensors", "cannot be read: not a regular file", &pipe),
        ("client-17.safetensors", "cannot be read: not a regular file", &folder),
        ("client-18.safetensors", "metadata `sender` is `x`, expected `client-18`", &stated),
        ("client-99.safetensors", "sender `client-99` is no client", &key),
    ];
    for (name, _, make) in &cases {
        make(&session, &format!("session/masked/{name}"));
    }
    // Names that are no client's, hidden ones, and text that acts on a terminal.
    for name in ["README", "client-1.safetensors.part", "\u{1b}[2J.safetensors"] {
        session.dir.write(&format!("session/masked/{name}"), b"x");
    }
    session.dir.write("session/masked/.client-2.safetensors.1.fedmill-tmp", b"x");
    let check = session.check(1);
    done(&check);
    let run = session.sum();
    done(&run);
    for (name, why, _) in &cases {
        let client = name.trim_end_matches(".safetensors");
        let is_told = |line: &str| line.contains(client) && line.contains(why);
        assert!(run.stderr.lines().any(is_told), "{name}: no `{why}` in {}", run.stderr);
        // Helpers look at signatures, and the server at lanes too.
        assert!(check.stderr.lines().any(is_told) || client == "client-14", "{name}: {}", check.stderr);
    }
    assert!(!run.stderr.contains('\u{1b}') && !check.stderr.contains('\u{1b}'));
    let set = session.client_set();
    let members: Vec<&str> = set.members().map(|member| member.client.as_str()).collect();
    assert_eq!(members, ["client-1", "client-2", "client-3"]);
    assert_eq!(set.left_out.len(), cases.len() + 3, "{:#?}", set.left_out);
    session.assert_ends_with(&[1, 2], &[1, 2, 3]);
}

/// With the quorum lost, the refusal names a bad file.
#[test]
fn a_bad_file_that_costs_the_quorum_is_named() {
    let session = Session::masked(3, 3, &[1], "");
    session.dir.write("session/masked/client-2.safetensors", b"");
    session
        .sum()
        .assert_fails(1, &["1 sound masked updates, expected at least 2; 1 left out, such as client-2:"]);
    assert!(!session.dir.exists("session/set.json"));
    done(&session.mask(2));
    done(&session.sum());
}

/// Links, pipes and folders in the place of the texts of server and helpers.
#[test]
fn texts_that_are_no_files_are_refused() {
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    done(&session.check(1));
    (1..3).for_each(|helper| done(&session.help(helper)));
    let texts = ["session/manifest.json", "session/set.json", "session/checks/helper-1.json"];
    for path in texts {
        let sound = session.dir.read(path);
        let put = |kind: usize| {
            let at = session.dir.path(path);
            match kind {
                0 => mknodat(rustix::fs::CWD, &at, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                1 => fs::create_dir(&at).unwrap(),
                _ => fs::write(&at, b"not a text\xff\n").unwrap(),
            }
        };
        for kind in 0..3 {
            let at = session.dir.path(path);
            fs::remove_file(&at).unwrap();
            put(kind);
            let verify = session.run("verify session");
            assert_eq!(verify.code, Some(2), "{path} {kind}: {verify:#?}");
            if path.contains("checks") {
                let run = session.sum();
                done(&run);
            } else {
                for run in [session.sum(), session.help(1), session.unmask()] {
                    run.assert_fails(2, &[path]);
                }
            }
            if kind == 1 {
                fs::remove_dir(&at).unwrap()
            } else {
                fs::remove_file(&at).unwrap()
            }
            session.dir.write(path, &sound);
        }
    }
    session.assert_nothing_published();
    session.assert_ends_with(&[1, 2], &[1, 2, 3]);
}

/// A manifest of a stranger, with numbers that would ask for all memory, or none.
#[test]
fn manifests_that_ask_for_too_much_are_refused() {
    let session = Session::opened(3, 3, "");
    let sound = session.manifest().terms;
    let edited = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut terms = serde_json::to_value(&sound).unwrap();
        edit(&mut terms);
        SignedText::sign(&terms, Stage::Open, &super::identity("server")).unwrap().bytes().to_vec()
    };
    let huge = serde_json::json!(1u64 << 60);
    let cases: [(&str, Vec<u8>); 9] = [
        ("groups", edited(&|terms| terms["groups"] = huge.clone())),
        ("groups", edited(&|terms| terms["groups"] = 0.into())),
        ("min_survivors", edited(&|terms| terms["min_survivors"] = huge.clone())),
        ("min_survivors", edited(&|terms| terms["min_survivors"] = 1.into())),
        ("expected 1 to 10 helpers", edited(&|terms| terms["threshold"] = huge.clone())),
        ("grid", edited(&|terms| terms["grid"]["contributors"] = huge.clone())),
        ("a client is in a group", edited(&|terms| terms["clients"][0]["group"] = huge.clone())),
        ("clip is", edited(&|terms| terms["clip"] = (-1.0).into())),
        ("unknown field `more`", edited(&|terms| terms["more"] = 1.into())),
    ];
    for (why, manifest) in cases {
        session.dir.write("session/manifest.json", manifest);
        for run in [session.mask(1), session.run("verify session"), session.check(1), session.sum()] {
            run.assert_fails(2, &["session/manifest.json", why]);
        }
    }
    let large = edited(&|terms| {
        terms["tensors"][0]["shape"] = serde_json::json!([1u64 << 40, 1u64 << 40]);
        let tensors: Vec<LaneTensor> = serde_json::from_value(terms["tensors"].clone()).unwrap();
        let digest = SessionTerms::digest_of(&tensors);
        terms["tensors_sha256"] = digest.to_string().into();
    });
    session.dir.write("session/manifest.json", large);
    session.mask(1).assert_fails(2, &["session/manifest.json", "values, expected 1 to"]);
    assert!(!session.dir.exists("session/masked"));
}

/// A file of another stage, sender or session in each other place.
#[test]
fn files_swapped_within_a_session_are_found() {
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    (1..4).for_each(|helper| done(&session.check(helper)));
    (1..4).for_each(|helper| done(&session.help(helper)));
    done(&session.unmask());
    let pool = pool(1);
    assert_eq!(session.faults(&pool), Some(0));
    let whole = session.files();
    let names: Vec<&String> = whole.keys().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(names.len(), 3 + 3 + 3 + 4);
    for one in &names {
        for other in &names {
            if one != other {
                session.dir.write(one, &whole[*other]);
                assert_ne!(session.faults(&pool), Some(0), "{other} as {one}");
            }
        }
        fs::remove_file(session.dir.path(one)).unwrap();
        // Checks may be missing: helpers need not check.
        if !one.contains("/checks/") && !one.ends_with("/transcript.json") {
            assert_ne!(session.faults(&pool), Some(0), "without {one}");
        }
        session.dir.write(one, &whole[*one]);
    }
    assert_eq!(session.published(), sums(&[1, 2, 3], false));
}
