//! What a key holder refuses, and what it repeats.

use super::server::{words, write_signed};
use super::{World, name};
use fedmill::modes::he::packing;
use fedmill::modes::he::round::Round;
use fedmill::parties::identity::Stage;
use fedmill::parties::signed_lanes::LanesReader;
use std::os::unix::fs::PermissionsExt;

/// The words of a file of ciphertexts, and the bytes behind them.
fn read(world: &World, stage: Stage, party: &str, path: &str) -> (Vec<u32>, Vec<u8>) {
    let round = Round::read(&world.dir.path("round.json")).unwrap();
    let shape = if stage == Stage::HeAdd { round.sum_shape() } else { round.update_shape() };
    let key = super::identity(party).verifying();
    let file = LanesReader::default()
        .open(&world.dir.path(path), &round.statement(stage, party), shape, &key)
        .unwrap();
    let mut found = vec![0; words(world)];
    file.read(0, &mut found).unwrap();
    (found, file.extra().to_vec())
}

#[test]
fn a_sum_that_is_not_that_of_the_inputs_is_refused() {
    let world = World::added(3);
    let before = world.dir.contents();
    // One client's update as the sum of all.
    let (one, _) = read(&world, Stage::HeEncrypt, "client-2", "c/client-2.he");
    let (_, members) = read(&world, Stage::HeAdd, "server", "sum.he");
    write_signed(&world, ("server", Stage::HeAdd), "sum.he", &one, &members);
    let refused = world.run(&world.decrypt_line(2));
    refused.assert_fails(1, &["ciphertext 0 is not the sum of the clients' files"]);
    // A set of one client.
    let mut alone = vec![0; members.len()];
    alone[32..64].copy_from_slice(&members[32..64]);
    write_signed(&world, ("server", Stage::HeAdd), "sum.he", &one, &alone);
    world.run(&world.decrypt_line(0)).assert_fails(1, &["1 clients are in the sum, expected at least 2"]);
    // A sum that another party signed, and one that was changed.
    let sum = before["sum.he"].clone();
    let mut changed = sum.clone();
    changed[sum.len() / 2] ^= 1;
    world.dir.write("sum.he", changed);
    let run = world.run(&world.decrypt_line(2));
    assert!(
        matches!(run.code, Some(1 | 2)) && run.stdout.is_empty() && run.stderr.contains("sum.he"),
        "{run:#?}"
    );
    assert!(!world.dir.exists("mean.safetensors"));
    // No refusal is noted as a decryption.
    world.dir.write("sum.he", sum);
    assert!(world.decrypt(3).stderr.contains("rounds in your journal: 1"));
}

#[test]
fn inputs_that_changed_are_refused_by_name() {
    let world = World::added(3);
    let sound = world.dir.read("c/client-2.he");
    let line = world.decrypt_line(2);
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    world.dir.write("c/client-2.he", &flipped);
    world
        .run(&line)
        .assert_fails(2, &["c/client-2.he: the lanes do not have the digest that `client-2` signed"]);
    world.dir.write("c/client-2.he", world.dir.read("c/client-3.he"));
    world.run(&line).assert_fails(2, &["c/client-2.he: metadata `sender`"]);
    std::fs::remove_file(world.dir.path("c/client-2.he")).unwrap();
    world.run(&line).assert_fails(2, &["c/client-2.he"]);
    write_signed(&world, ("client-2", Stage::HeEncrypt), "c/client-2.he", &vec![0; words(&world)], &[]);
    world.run(&line).assert_fails(2, &["c/client-2.he: its digest is", "that of the file in the sum"]);
    world.dir.write("c/client-2.he", &sound);
    world.decrypt(3);
}

#[test]
fn another_set_of_clients_is_not_decrypted() {
    let world = World::added(4);
    world.decrypt(4);
    let first = world.dir.read("mean.safetensors");
    std::fs::remove_file(world.dir.path("mean.safetensors")).unwrap();
    let run = world.decrypt(2);
    assert!(world.dir.read("mean.safetensors") == first, "the same set gave other bytes");
    assert!(run.stderr.contains("rounds in your journal: 1"), "{}", run.stderr);
    let sum = world.dir.read("sum.he");
    world.add("c/client-1.he c/client-2.he c/client-3.he");
    let refused = world.run(&world.decrypt_line(2).replace("mean.", "second."));
    refused.assert_fails(1, &["the sum of another set of clients in round"]);
    assert!(!world.dir.exists("second.safetensors"));
    world.dir.write("sum.he", sum);
    world.decrypt(4);
}

#[test]
fn too_few_or_unknown_clients_are_refused() {
    let world = World::added(4);
    world
        .run(&world.decrypt_line(5))
        .assert_fails(1, &["4 of 4 clients in the sum have trusted keys, expected at least 5"]);
    let known = "--trust known/server.pub known/client-1.pub known/client-2.pub";
    let line = world.decrypt_line(3).replace("--trust known", known);
    world.run(&line).assert_fails(1, &["2 of 4 clients in the sum have trusted keys"]);
    let line = world.decrypt_line(3).replace("--trust known", "--trust pub");
    world.run(&line).assert_fails(1, &["server `server` has a key that is not among the trusted ones"]);
    assert!(!world.dir.exists("mean.safetensors"));
}

#[test]
fn wrong_keys_are_refused() {
    let world = World::added(2);
    let other =
        "he keygen --params he.json --key keys/holder.key --id holder --public other.he --secret other-sk.he";
    world.succeed(other, "other.he");
    let line = world.decrypt_line(2);
    let wrong = line.replace("--secret sk.he", "--secret other-sk.he");
    world.run(&wrong).assert_fails(1, &["other-sk.he: is not the secret key of this round's public key"]);
    let wrong =
        line.replace("--secret sk.he", "--secret other-sk.he").replace("--public pk.he", "--public other.he");
    world.run(&wrong).assert_fails(1, &["the key of the round"]);
    let wrong = line.replace("--key keys/holder.key", &format!("--key keys/{}.key", name(1)));
    world.run(&wrong).assert_fails(1, &["not that of the round's key holder"]);
    let mut secret = world.dir.read("sk.he");
    secret[0] ^= 1;
    world.dir.write("damaged.he", secret);
    let wrong = line.replace("--secret sk.he", "--secret damaged.he");
    world.run(&wrong).assert_fails(2, &["damaged.he: file was damaged"]);
    let mode = std::fs::metadata(world.dir.path("sk.he")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A client that encrypts by another program may send anything. The mean stays within what clients can make, and no message
/// tells what was wrong.
#[test]
fn ciphertexts_of_nothing_give_a_mean_within_the_clip() {
    let world = World::new(2);
    world.succeed(&world.encrypt_line(1), "c/client-1.he");
    // Residues of about 2^19 in each place: no encryption of anything.
    let round = Round::read(&world.dir.path("round.json")).unwrap();
    let params = &round.terms.params;
    let one = packing::pack(params, &vec![524_287; packing::residues(params)]);
    let all: Vec<u32> = std::iter::repeat_n(one, round.ciphertexts()).flatten().collect();
    write_signed(&world, ("client-2", Stage::HeEncrypt), "c/client-2.he", &all, &[]);
    world.add("c");
    let run = world.decrypt(2);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let mean = crate::harness::Model::read(&world.dir, "mean.safetensors").f32("weight");
    assert!(mean.iter().all(|value| value.abs() <= 32_767.0));
}
