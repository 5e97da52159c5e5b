//! Sums and answers of several machines: the bytes of one machine, and no part of another message.

use super::helpers::forge;
use super::killed::assert_same_bytes;
use super::same_bytes::long;
use super::server::show;
use super::{Session, SessionFolder, Shape, Stage, done, sums};
use crate::harness::Contents;
use fedmill::kernels::field::P;
use fedmill::modes::secure::set::SetMember;
use std::fs;

const SUM: &str = "sum session --key keys/server --parts parts";
const HELP: &str = "help session --key helpers/helper-1 --parts own";

/// Runs a command for some of `of` shards, in this order.
fn shards(session: &Session, command: &str, numbers: impl IntoIterator<Item = usize>, of: usize) {
    for number in numbers {
        done(&session.run(&format!("{command} --shard {number}/{of}")));
    }
}

/// Removes what the server and the helpers made and remember.
fn forget(session: &Session) {
    for folder in ["session/answers", "session/witnesses", "keys/server.journal", "parts", "own"] {
        let _ = fs::remove_dir_all(session.dir.path(folder));
    }
    for helper in 1..=session.helpers {
        let _ = fs::remove_dir_all(session.dir.path(&format!("helpers/helper-{helper}.journal")));
    }
    for file in ["session/set.json", "session/masked-sum.safetensors"] {
        let _ = fs::remove_file(session.dir.path(file));
    }
}

/// The session after one machine of the server and one of the first helper did all.
fn alone(session: &Session) -> Contents {
    done(&session.sum());
    done(&session.help(1));
    let files = session.files();
    assert!(files.contains_key("session/answers/helper-1.safetensors"));
    forget(session);
    files
}

#[track_caller]
fn assert_same_in_shards(session: &Session, alone: &Contents, of: usize) {
    forget(session);
    let order: Vec<usize> = (1..=of).map(|number| (number * 5) % of + 1).collect();
    let order = if of.is_multiple_of(5) { (1..=of).rev().collect() } else { order };
    shards(session, SUM, order.iter().copied(), of);
    assert!(!session.dir.exists("session/set.json"), "a draft is no frozen set");
    done(&session.run(SUM));
    shards(session, HELP, order, of);
    assert!(!session.dir.exists("session/answers/helper-1.safetensors"));
    done(&session.run(HELP));
    let found = session.files();
    let differs: Vec<&String> = alone.keys().filter(|name| found.get(*name) != alone.get(*name)).collect();
    assert!(found.len() == alone.len() && differs.is_empty(), "{of} shards: {differs:?}");
}

#[test]
fn any_number_and_order_of_shards_gives_the_same_bytes() {
    let session = Session::masked(6, 3, &[1, 2, 3, 4, 6], "--groups 2 --weights examples:cap=8");
    let whole = alone(&session);
    for of in [1, 2, 3] {
        assert_same_in_shards(&session, &whole, of);
    }
    let session = Session::new(3, 3);
    long(&session);
    done(&session.run(&session.open_command("session", "")));
    (1..=3).for_each(|client| done(&session.mask(client)));
    let whole = alone(&session);
    for of in [1, 2, 3, 7, 16] {
        assert_same_in_shards(&session, &whole, of);
    }
    (2..=3).for_each(|helper| done(&session.help(helper)));
    done(&session.run("unmask session --key keys/server -o mean.safetensors"));
    done(&session.run("verify session"));
}

#[test]
fn the_sum_of_shards_is_that_of_those_who_stayed() {
    let session = Session::masked(4, 3, &[1, 2, 4], "--helpers-sign-set");
    shards(&session, SUM, [2, 1], 2);
    // A client that comes after the draft is in no shard.
    done(&session.mask(3));
    done(&session.run(SUM));
    let own = format!("{HELP} --shard 1/2");
    session.run(&own).assert_fails(1, &["waiting", "1 helpers signed the set"]);
    assert!(!session.dir.exists("own"), "a part of a set that is not signed");
    done(&session.help(2));
    shards(&session, HELP, [1, 2], 2);
    done(&session.run(HELP));
    session.assert_ends_with(&[2], &[1, 2, 4]);
}

/// The command refuses, and names the file.
#[track_caller]
fn assert_refused(session: &Session, command: &str, code: i32, found: &[&str]) {
    let before = session.files();
    session.run(command).assert_fails(code, found);
    let after = session.files();
    let is_file = |name: &&String| !name.ends_with('/');
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let changed: Vec<&String> = before.keys().chain(after.keys()).filter(is_file).filter(differs).collect();
    assert!(changed.is_empty(), "{command} changed {changed:?}");
}

#[test]
fn parts_that_are_missing_or_changed_are_refused_with_their_names() {
    let session = Session::new(3, 3);
    long(&session);
    done(&session.run(&session.open_command("session", "")));
    (1..=3).for_each(|client| done(&session.mask(client)));
    session.run(SUM).assert_fails(1, &["parts: has no part", "sum --shard I/S"]);
    shards(&session, SUM, 1..=3, 3);
    let whole = {
        let kept = session.dir.contents();
        done(&session.run(SUM));
        shards(&session, HELP, 1..=3, 3);
        kept
    };
    for (command, folder, stem) in [(SUM, "parts", "sum"), (HELP, "own", "help")] {
        let [first, second, third] =
            [1, 2, 3].map(|number| format!("{folder}/{stem}-{number}-of-3.safetensors"));
        let sound = session.dir.read(&second);
        let other = session.dir.read(&third);
        let refused = |bytes: &[u8], found: &[&str]| {
            session.dir.write(&second, bytes);
            assert_refused(&session, command, 2, &[&[second.as_str()], found].concat());
        };
        // Of the header, the lanes, the digest, the numbers and findings, and the signature.
        for at in [9, 60, sound.len() / 2, sound.len() - 100, sound.len() - 70, sound.len() - 1] {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            refused(&changed, &[]);
        }
        for len in [0, 100, sound.len() / 2, sound.len() - 1] {
            refused(&sound[..len], &[]);
        }
        refused(&other, &[]);
        fs::remove_file(session.dir.path(&second)).unwrap();
        assert_refused(&session, command, 1, &[&second, "is not there yet", "--shard 2/3"]);
        session.dir.write(&second, &sound);
        // Twice, and of another number of shards.
        for (copy, found) in [("2-of-3 (1)", "is named"), ("1-of-2", "is there too"), ("02-of-3", "is named")]
        {
            let copy = format!("{folder}/{stem}-{copy}.safetensors");
            session.dir.write(&copy, session.dir.read(&first));
            let name = copy.rsplit('/').next().unwrap();
            let run = session.run(command);
            run.assert_fails(2, &[found]);
            assert!(run.stderr.contains(name), "{run:#?}");
            fs::remove_file(session.dir.path(&copy)).unwrap();
        }
        done(&session.run(command));
    }
    // A part of the helper is none of the server, and one of the helper's message is none of its answer.
    let sum = "parts/sum-2-of-3.safetensors";
    session.dir.write(sum, session.dir.read("own/help-2-of-3.safetensors"));
    assert_refused(&session, SUM, 2, &[sum]);
    session.dir.write(sum, &whole[sum]);
    done(&session.run(SUM));
    done(&session.run("verify session"));
}

/// A foreign part has the right numbers and lanes, and another signer, session or step.
#[test]
fn foreign_parts_are_refused() {
    let session = Session::summed(3, 3, &[1, 2, 3], "");
    done(&session.open("other", ""));
    shards(&session, HELP, [1], 1);
    let path = "own/help-1-of-1.safetensors";
    let (manifest, frozen) = (session.manifest(), session.frozen());
    let shape = Shape { extra: 16, ..manifest.sums_shape() };
    let sound = manifest.statement(Stage::HelpPart, "helper-1", Some(frozen.digest));
    let (lanes, extra) = session.lanes(path, &sound, shape, "helper-1");
    let other = SessionFolder::new(&session.dir.path("other"));
    let foreign = other.manifest().unwrap();
    let cases = [
        (sound.clone(), "helper-2", &lanes, "signature is not one of `helper-1`"),
        (manifest.statement(Stage::Help, "helper-1", sound.set), "helper-1", &lanes, "metadata `stage`"),
        (manifest.statement(Stage::HelpPart, "helper-2", sound.set), "helper-1", &lanes, "metadata `sender`"),
        (foreign.statement(Stage::HelpPart, "helper-1", sound.set), "helper-1", &lanes, "metadata `session`"),
        (manifest.statement(Stage::HelpPart, "helper-1", None), "helper-1", &lanes, "metadata `set`"),
        (sound.clone(), "helper-1", &vec![P; lanes.len()], "expected a number below"),
    ];
    for (statement, signer, lanes, found) in cases {
        session.write_lanes(path, &statement, shape, (lanes, &extra), signer);
        assert_refused(&session, HELP, 2, &[path, found]);
    }
    let numbers = [2u64, 2].iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    session.write_lanes(path, &sound, shape, (&lanes, &numbers), "helper-1");
    assert_refused(&session, HELP, 2, &[path, "is the part of another shard, expected shard 1/1"]);
    session.write_lanes(path, &sound, shape, (&lanes, &extra), "helper-1");
    done(&session.run(HELP));
    session.assert_ends_with(&[2], &[1, 2, 3]);
}

#[test]
fn parts_of_another_set_are_refused() {
    let session = Session::masked(4, 3, &[1, 2, 3], "");
    shards(&session, SUM, [1, 2], 2);
    fs::remove_file(session.dir.path("parts/draft.json")).unwrap();
    session.run(SUM).assert_fails(1, &["has no part"]);
    done(&session.mask(4));
    shards(&session, SUM, [1], 2);
    assert_refused(&session, SUM, 2, &["parts/sum-2-of-2.safetensors", "metadata `set`"]);
    shards(&session, SUM, [2], 2);
    done(&session.run(SUM));
    assert_eq!(session.client_set().members().count(), 4);
    // A part over the frozen set binds the helper.
    shards(&session, HELP, [1], 2);
    let sound = session.client_set();
    let mut smaller = sound.clone();
    let _: Option<SetMember> = smaller.groups[0].pop();
    show(&session, &smaller);
    for shard in ["1/2", "2/2"] {
        session.run(&format!("{HELP} --shard {shard}")).assert_fails(1, &["found the set"]);
    }
    session.run(HELP).assert_fails(1, &["own/help-2-of-2.safetensors: is not there yet"]);
    session.help(1).assert_fails(1, &["found the set"]);
    show(&session, &sound);
    shards(&session, HELP, [2], 2);
    done(&session.run(HELP));
    session.assert_ends_with(&[2], &[1, 2, 3, 4]);
    // With its journal lost, a server refuses shards as it refuses sums.
    fs::remove_dir_all(session.dir.path("keys/server.journal")).unwrap();
    for command in [format!("{SUM} --shard 1/2"), SUM.to_owned()] {
        assert_refused(&session, &command, 1, &["your journal does not know it"]);
    }
}

/// Clients whose lanes are not those that they signed, or outside the field: the same set as of one machine.
#[test]
fn bad_lanes_are_found_by_the_shards_together() {
    let session = Session::new(6, 3);
    long(&session);
    done(&session.run(&session.open_command("session", "")));
    (1..=6).for_each(|client| done(&session.mask(client)));
    let (manifest, path) = (session.manifest(), "session/masked/client-2.safetensors");
    let statement = manifest.statement(Stage::Mask, "client-2", None);
    let (mut lanes, extra) = session.lanes(path, &statement, manifest.masked_shape(), "client-2");
    let places = [lanes.len() - 9, lanes.len() / 3, lanes.len() / 3 + 1];
    places.iter().for_each(|place| lanes[*place] = P + 2);
    session.write_lanes(path, &statement, manifest.masked_shape(), (&lanes, &extra), "client-2");
    for (client, at) in [(3, 3_000), (5, 400_000)] {
        let path = format!("session/masked/client-{client}.safetensors");
        let mut bytes = session.dir.read(&path);
        bytes[at] ^= 1;
        session.dir.write(&path, bytes);
    }
    let whole = alone(&session);
    shards(&session, SUM, 1..=3, 3);
    let again = ["waiting", "3 bad clients", "run each shard again", "`client-2` is left out: lane"];
    session.run(SUM).assert_fails(1, &again);
    assert!(!session.dir.exists("session/set.json"));
    assert_refused(&session, SUM, 2, &["parts/sum-1-of-3.safetensors", "metadata `set`"]);
    shards(&session, SUM, 1..=3, 3);
    done(&session.run(SUM));
    assert_eq!(session.client_set().left_out.len(), 3);
    done(&session.help(1));
    assert!(session.files() == whole);
    // Lanes that change behind the freeze stop the join.
    let path = "session/masked/client-1.safetensors";
    let mut bytes = session.dir.read(path);
    bytes[5_000] ^= 1;
    session.dir.write(path, &bytes);
    shards(&session, SUM, 1..=3, 3);
    assert_refused(&session, SUM, 2, &[path, "the lanes do not have the digest that `client-1` signed"]);
}

#[test]
fn killed_machines_end_in_the_same_bytes() {
    let session = Session::masked(3, 3, &[1, 2, 3], "");
    let outputs = ["parts/sum-1-of-2.safetensors", "parts/draft.json"];
    assert_same_bytes(&session, &format!("{SUM} --shard 1/2"), 5, &outputs);
    shards(&session, SUM, 1..=2, 2);
    assert_same_bytes(&session, SUM, 8, &[]);
    done(&session.run(SUM));
    assert_same_bytes(&session, &format!("{HELP} --shard 2/2"), 5, &["own/help-2-of-2.safetensors"]);
    shards(&session, HELP, 1..=2, 2);
    assert_same_bytes(&session, HELP, 3, &[]);
    done(&session.run(HELP));
    session.assert_ends_with(&[2], &[1, 2, 3]);
    assert_eq!(session.published(), sums(&[1, 2, 3], false));
}

#[test]
fn shards_need_a_folder_of_their_own() {
    let session = Session::masked(3, 3, &[1, 2, 3], "");
    session.run("sum session --key keys/server --shard 1/2").assert_fails(2, &["--parts"]);
    session.run(&format!("{SUM} --shard 3/2")).assert_fails(2, &["expected I/S"]);
    let inside = "sum session --key keys/server --parts session/answers --shard 1/1";
    assert_refused(&session, inside, 2, &["is the place of a message of the session"]);
    for more in ["", " --shard 1/1"] {
        let command = format!("{}{more}", SUM.replace("keys/server", "helpers/helper-1"));
        assert_refused(&session, &command, 1, &["the key is not that of the session's server"]);
        let command = format!("{}{more}", HELP.replace("helpers/helper-1", "keys/server"));
        assert_refused(&session, &command, 1, &["has no helper with this key"]);
    }
}

#[test]
fn clients_that_turn_out_bad_after_the_draft_are_left_out() {
    let session = Session::masked(6, 3, &[1, 2, 3, 4, 5, 6], "");
    forge(&session, 5, |extra| *extra.last_mut().unwrap() ^= 1);
    shards(&session, SUM, [1], 2);
    // One file is gone, and a helper reports another.
    fs::remove_file(session.dir.path("session/masked/client-2.safetensors")).unwrap();
    let run = session.run(&format!("{SUM} --shard 2/2"));
    done(&run);
    assert!(run.stderr.contains("`client-2` is left out: the file is gone"), "{run:#?}");
    session.run(SUM).assert_fails(2, &["parts/sum-1-of-2.safetensors"]);
    shards(&session, SUM, [1], 2);
    done(&session.check(3));
    let run = session.run(SUM);
    run.assert_fails(
        1,
        &["waiting", "`client-5` is left out: helper `helper-3` reported", "run each shard again"],
    );
    shards(&session, SUM, [1, 2], 2);
    done(&session.run(SUM));
    session.assert_ends_with(&[2, 3], &[1, 3, 4, 6]);
    let inside = "sum session --key keys/server --parts ./session --shard 1/1";
    session.run(inside).assert_fails(2, &["--parts", "is the folder of the session"]);
}
