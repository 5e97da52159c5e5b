//! Sums of encrypted updates against sums of plain integers.

use super::{VALUES, World, change, name};
use crate::harness::{Model, fedmill};
use fedmill::modes::he::params::Params;

/// The integer sums in a mean of `divisor` equal parts.
fn sums(mean: &Model, divisor: f64) -> Vec<i64> {
    mean.f32("weight").iter().map(|value| (f64::from(*value) * divisor).round() as i64).collect()
}

#[test]
fn means_are_those_of_plain_integers() {
    for clients in 2..=6 {
        let values = if clients == 3 { VALUES } else { 500 + clients };
        let world = World::with_terms(clients, values, 1, "--number 4");
        world.encrypt_all();
        world.add("c");
        let run = world.decrypt(clients);
        assert!(run.stderr.contains("There is no threshold decryption"), "{}", run.stderr);
        let mean = Model::read(&world.dir, "mean.safetensors");
        let expected: Vec<i64> =
            (0..values).map(|value| (1..=clients).map(|client| change(client, value)).sum()).collect();
        assert_eq!(sums(&mean, clients as f64), expected, "{clients}");
        assert_eq!(mean.bytes("steps"), [0; 8]);
        let origin: serde_json::Value = serde_json::from_str(&mean.metadata["fedmill.he"]).unwrap();
        assert_eq!((&origin["clients"], &origin["key_holder"]), (&clients.into(), &"holder".into()));
        assert!(origin["trust"].as_str().unwrap().contains("must not collude"));
        assert_eq!((mean.metadata["kind"].as_str(), mean.metadata["round"].as_str()), ("delta", "4"));
        let run = fedmill(
            &world.dir,
            &["aggregate", "--base", "base.safetensors", "mean.safetensors", "-o", "merged.safetensors"],
        );
        run.assert_merged("merged.safetensors");
        let (merged, base) =
            (Model::read(&world.dir, "merged.safetensors"), Model::read(&world.dir, "base.safetensors"));
        for ((merged, base), mean) in
            merged.f32("weight").iter().zip(base.f32("weight")).zip(mean.f32("weight"))
        {
            assert_eq!(*merged, (f64::from(base) + f64::from(mean)) as f32);
        }
        assert_eq!(merged.bytes("steps"), base.bytes("steps"));
    }
}

#[test]
fn weighted_means_are_those_of_plain_integers() {
    // Client k has 3 k - 1 examples, and at most 8 count. Changes are multiples of 8: no weight leaves a fraction.
    for (clients, values) in [(2, 12_288), (3, 300), (5, 4_097)] {
        let world = World::with_terms(clients, values, 8, "--weights examples:cap=8");
        world.encrypt_all();
        world.add("c");
        world.decrypt(2);
        let mean = Model::read(&world.dir, "mean.safetensors");
        let weight = |client: usize| (3 * client as i64 - 1).min(8);
        let total: i64 = (1..=clients).map(weight).sum();
        let of = |value: usize| {
            (1..=clients).map(|client| change(client, value) / 8 * weight(client)).sum::<i64>()
        };
        assert_eq!(sums(&mean, total as f64 / 8.0), (0..values).map(of).collect::<Vec<_>>(), "{clients}");
        assert_eq!(mean.metadata["num_examples"], total.to_string());
    }
}

#[test]
fn a_client_that_did_not_send_is_left_out() {
    let world = World::new(4);
    for client in [1, 2, 4] {
        world.succeed(&world.encrypt_line(client), &format!("c/{}.he", name(client)));
    }
    let run = world.add("c/client-4.he c/client-1.he c/client-2.he");
    assert!(run.stderr.contains("3 clients: client-1, client-2, client-4"), "{}", run.stderr);
    world.decrypt(3);
    let mean = Model::read(&world.dir, "mean.safetensors");
    let of = |value| [1, 2, 4].iter().map(|client| change(*client, value)).sum();
    assert_eq!(sums(&mean, 3.0), (0..VALUES).map(of).collect::<Vec<i64>>());
}

#[test]
fn files_have_the_bytes_that_params_states() {
    let world = World::new(3);
    world.succeed(&world.encrypt_line(1), "c/client-1.he");
    let params = Params::new(3, 16).unwrap();
    let ciphertexts = VALUES.div_ceil(params.per_coefficient as usize).div_ceil(params.degree);
    assert!(ciphertexts > 1);
    let bytes = world.dir.read("c/client-1.he").len();
    let data = ciphertexts * params.ciphertext_bytes();
    assert!((data..data + 1024).contains(&bytes), "{bytes} {data}");
    let run = world.run("he params --clients 3");
    let printed: Params = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed, params);
    assert!(
        run.stderr.contains(&format!("{:.2} bytes per value", params.bytes_per_value())),
        "{}",
        run.stderr
    );
}

#[test]
fn more_clients_than_the_numbers_are_for_are_refused() {
    let world = World::without_round(3, 100, 1);
    super::write_keys(&world.dir, "pub", "client-4");
    let run = world.run(&format!("{} -o round.json", world.open()));
    run.assert_fails(2, &["found 4 clients, expected at most 3"]);
    world
        .run("he params --clients 1000000000000 --qbits 31")
        .assert_fails(2, &["found no numbers with 128 bits of security"]);
    world.run("he params --clients 1").assert_fails(2, &["found 1 clients, expected at least 2"]);
    let mut params = world.dir.json("he.json");
    params["clients"] = 4.into();
    world.dir.write("more.json", params.to_string());
    let line = "he keygen --params more.json --key keys/holder.key --id holder --public p --secret s";
    world.run(line).assert_fails(2, &["more.json: plaintext_modulus is"]);
    assert!(!world.dir.exists("p") && !world.dir.exists("s"));
}
