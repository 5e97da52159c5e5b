//! Files of clients that are not sound, as the server finds them.

use super::{World, identity, name};
use fedmill::modes::he::packing;
use fedmill::modes::he::round::Round;
use fedmill::parties::identity::Stage;
use fedmill::parties::signed_lanes::LanesWriter;
use std::fs;

/// Writes a file of ciphertexts that a party signs, whatever they are.
pub(super) fn write_signed(
    world: &World,
    (party, stage): (&str, Stage),
    path: &str,
    words: &[u32],
    extra: &[u8],
) {
    let round = Round::read(&world.dir.path("round.json")).unwrap();
    let shape = if stage == Stage::HeAdd { round.sum_shape() } else { round.update_shape() };
    let statement = round.statement(stage, party);
    let mut writer = LanesWriter::create(&world.dir.path(path), &statement, shape).unwrap();
    writer.append(words).unwrap();
    writer.publish(extra, &identity(party)).unwrap();
}

/// The number of words of ciphertexts in a file.
pub(super) fn words(world: &World) -> usize {
    let round = Round::read(&world.dir.path("round.json")).unwrap();
    round.ciphertexts() * packing::words(&round.terms.params)
}

#[test]
fn clients_with_bad_files_are_left_out_by_name() {
    let world = World::new(8);
    world.encrypt_all();
    let dir = &world.dir;
    let change = |client: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let path = format!("c/{}.he", name(client));
        let mut bytes = dir.read(&path);
        change(&mut bytes);
        dir.write(&path, bytes);
    };
    change(1, &|bytes| bytes.truncate(bytes.len() - 1));
    change(2, &|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    change(3, &|bytes| bytes.extend([0; 4096]));
    fs::copy(dir.path("c/client-7.he"), dir.path("c/client-4.he")).unwrap();
    write_signed(
        &world,
        ("client-5", Stage::HeEncrypt),
        "c/client-5.he",
        &vec![u32::MAX; words(&world)],
        &[],
    );
    fs::copy(dir.path("c/client-7.he"), dir.path("c/mallory.he")).unwrap();
    fs::copy(dir.path("c/client-7.he"), dir.path("c/client-7.txt")).unwrap();
    dir.write("other/client-6.he", "");
    write_signed(&world, ("client-6", Stage::HeEncrypt), "other/client-6.he", &vec![0; words(&world)], &[]);
    fs::copy(dir.path("c/client-7.he"), dir.path("other/client-7.he")).unwrap();
    let run = world.run(&format!("{} --quiet c other c/client-7.txt", World::ADD));
    run.assert_fails(1, &["2 sound encrypted updates, expected at least 4", "left out, such as"]);
    assert!(!dir.exists("sum.he"));
    world.succeed(&format!("{} --min-clients 2 -o second.json", world.open()), "second.json");
    // The same files are none of another round.
    let line = World::ADD.replace("round.json", "second.json");
    let run = world.run(&format!("{line} c/client-7.he c/client-8.he"));
    run.assert_fails(1, &["0 sound encrypted updates", "2 left out", "metadata `session`"]);
}

#[test]
fn each_bad_file_has_its_reason() {
    let world = World::with_terms(6, 300, 1, "--min-clients 2");
    world.encrypt_all();
    let dir = &world.dir;
    let sound = dir.read("c/client-1.he");
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("client-1", sound[..sound.len() - 1].to_vec(), "left out `client-1`"),
        ("client-1", [sound.as_slice(), b"more"].concat(), "left out `client-1`"),
        ("client-1", dir.read("c/client-2.he"), "metadata `sender` is `client-2`, expected `client-1`"),
        ("mallory", sound.clone(), "sender `mallory` is no client of the manifest"),
    ];
    for (name, bytes, expected) in cases {
        let path = format!("c/{name}.he");
        let before = dir.exists(&path).then(|| dir.read(&path));
        dir.write(&path, bytes);
        let run = world.add("c");
        assert!(run.stderr.contains(expected) && run.stderr.contains(&format!("`{name}`")), "{}", run.stderr);
        let clients = if name == "mallory" { "6 clients" } else { "5 clients: client-2" };
        assert!(run.stderr.contains(clients), "{}", run.stderr);
        match before {
            Some(before) => dir.write(&path, before),
            None => fs::remove_file(dir.path(&path)).unwrap(),
        }
    }
    // A byte of the ciphertexts, of the digest, of the signature, of the header.
    for place in [sound.len() / 2, sound.len() - 90, sound.len() - 5, 60] {
        let mut flipped = sound.clone();
        flipped[place] ^= 1;
        dir.write("c/client-1.he", flipped);
        let run = world.add("c");
        assert!(run.stderr.contains("left out `client-1`"), "{place}: {}", run.stderr);
        assert!(run.stderr.contains("5 clients: client-2"), "{place}: {}", run.stderr);
    }
    write_signed(
        &world,
        ("client-1", Stage::HeEncrypt),
        "c/client-1.he",
        &vec![u32::MAX; words(&world)],
        &[],
    );
    let run = world.add("c");
    assert!(run.stderr.contains("left out `client-1`: ciphertext 0: residue 0 is"), "{}", run.stderr);
    dir.write("c/client-1.he", &sound);
    // The same file twice counts once; another one of the same client makes neither count.
    dir.write("again/client-1.he", &sound);
    assert!(world.add("c again").stderr.contains("6 clients"));
    write_signed(&world, ("client-1", Stage::HeEncrypt), "again/client-1.he", &vec![0; words(&world)], &[]);
    let run = world.add("c again");
    assert!(run.stderr.contains("left out `client-1`: found two different files"), "{}", run.stderr);
    assert!(run.stderr.contains("5 clients: client-2"), "{}", run.stderr);
}

#[test]
fn only_the_server_adds_up() {
    let world = World::with_terms(2, 100, 1, "");
    world.encrypt_all();
    let line = World::ADD.replace("keys/server.key", "keys/client-1.key");
    world.run(&format!("{line} c")).assert_fails(1, &["not that of the round's server"]);
}
