//! What a client refuses, and what it repeats.

use super::World;
use crate::harness::Dir;

#[test]
fn a_client_encrypts_one_update_in_a_round() {
    let world = World::new(2);
    let line = world.encrypt_line(1);
    world.succeed(&line, "c/client-1.he");
    let first = world.dir.read("c/client-1.he");
    world.succeed(&line, "c/client-1.he");
    assert!(world.dir.read("c/client-1.he") == first, "the same update gave other bytes");
    let other = line.replace("in/client-1", "in/client-2");
    world.run(&other).assert_fails(1, &["has another update of yours already"]);
    assert!(world.dir.read("c/client-1.he") == first);
    // Without its journal the client cannot know; the file that is there tells.
    let lost = format!("{other} --journal elsewhere");
    world.run(&lost).assert_fails(1, &["your journal does not know it"]);
    // The next round.
    world.succeed(&format!("{} -o next.json", world.open()), "next.json");
    let next = line.replace("round.json", "next.json").replace("c/client-1.he", "d/client-1.he");
    world.run(&next).assert_fails(1, &["the same update was encrypted in round"]);
    world.succeed(&format!("{next} --allow-again"), "d/client-1.he");
    assert!(world.dir.read("d/client-1.he") != first);
}

#[test]
fn a_client_refuses_rounds_that_it_does_not_trust() {
    let world = World::new(3);
    let line = world.encrypt_line(1);
    let alone = line.replace("--trust known", "--trust known/server.pub");
    world.run(&alone).assert_fails(1, &["key holder `holder` has a key that is not among the trusted ones"]);
    let alone = line.replace("--trust known", "--trust known/holder.pub");
    world.run(&alone).assert_fails(1, &["server `server` has a key that is not"]);
    world.run(&format!("{line} --min-cohort 3")).assert_fails(1, &["sums of 2 clients may be decrypted"]);
    let few = line.replace("--trust known", "--trust known/holder.pub known/server.pub known/client-1.pub");
    world.run(&format!("{few} --require-known 2")).assert_fails(1, &["1 eligible clients have trusted keys"]);
    let stranger = line.replace("keys/client-1.key", "keys/server.key");
    world.run(&stranger).assert_fails(1, &["no client with this key"]);
    let other_base = line.replace("--base base", "--base in/client-2");
    world.run(&other_base).assert_fails(1, &["the base of the session"]);
    let misnamed = line.replace("c/client-1.he", "c/client-2.he");
    world.run(&misnamed).assert_fails(2, &["a file named client-1.he"]);
    assert!(!world.dir.exists("c") && !world.dir.exists("keys/client-1.key.journal/journal.jsonl"));
}

#[test]
fn another_public_key_is_refused() {
    let world = World::new(2);
    let again =
        "he keygen --params he.json --key keys/holder.key --id holder --public other.he --secret other-sk.he";
    world.succeed(again, "other.he");
    world.run(again).assert_fails(1, &["other.he: is there already"]);
    let line = world.encrypt_line(1).replace("--public pk.he", "--public other.he");
    world.run(&line).assert_fails(1, &["the key of the round"]);
}

#[test]
fn signed_files_that_were_changed_are_refused() {
    let world = World::new(2);
    let line = world.encrypt_line(1);
    let damage = |dir: &Dir, file: &str| {
        let mut bytes = dir.read(file);
        let place = bytes.len() / 2;
        bytes[place] = if bytes[place] == b'3' { b'4' } else { b'3' };
        dir.write(&format!("bad-{file}"), bytes);
    };
    for file in ["round.json", "pk.he"] {
        damage(&world.dir, file);
        let run = world.run(&line.replace(file, &format!("bad-{file}")));
        run.assert_fails(2, &[&format!("bad-{file}: ")]);
    }
    assert!(!world.dir.exists("c"));
}

#[test]
fn the_server_cannot_hold_the_key() {
    let world = World::without_round(2, 100, 1);
    let line = world.open().replace("keys/server.key", "keys/holder.key --id holder");
    world.run(&format!("{line} -o round.json")).assert_fails(2, &["the server holds the key"]);
    let line = format!("{} --min-clients 3 -o round.json", world.open());
    world.run(&line).assert_fails(2, &["min_clients is 3, expected 2 to 2"]);
    assert!(!world.dir.exists("round.json"));
}
