//! An adaptive clip bound, round by round, from files to files.

use super::*;

const CLIENTS: usize = 20;

/// Clients whose updates have the norms 1 to 20, each in one of four coordinates.
fn folder(clip: &str, quantile: &str) -> Dir {
    let dir = Dir::new();
    Update::new("base").f64("w", &[4], &[0.0; 4]).write(&dir);
    for client in 0..CLIENTS {
        let mut delta = [0.0; 4];
        delta[client % 4] = (client + 1) as f64;
        Update::new(&format!("updates/client-{client:02}"))
            .f64("w", &[4], &delta)
            .meta("kind", "delta")
            .write(&dir);
    }
    let adaptive = ["--adaptive-clip", "--clip-rate", "2", "--quantile", quantile, "--count-noise", "0.5"];
    let noise = ["--noise-multiplier", "0.5", "--denominator", "20", "--rounds", "20", "--accountant", "rdp"];
    start_budget(&dir, &[&["--clip", clip], &adaptive[..], &noise].concat());
    dir
}

/// The clip bound of the next round, from the model's metadata.
fn next_clip(model: &Model) -> f64 {
    model.metadata["fedmill.privacy.next_clip"].parse().unwrap()
}

/// Runs rounds. Returns the bound of each.
fn bounds(dir: &Dir, first: f64, rounds: usize) -> Vec<f64> {
    let mut bounds = vec![first];
    for round in 0..rounds {
        let seed = round.to_string();
        release_to(dir, "released.safetensors", &["-q", "--test-seed", &seed])
            .assert_merged("released.safetensors");
        bounds.push(next_clip(&Model::read(dir, "released.safetensors")));
        let state = books(dir).state;
        let charge = &state.charges.last().unwrap().charge;
        assert_eq!(
            charge.mechanism.as_ref().unwrap().clip,
            bounds[round],
            "the bound that was applied is charged"
        );
        assert_eq!(state.clip, bounds[round + 1], "the ledger and the model agree");
        assert!(state.follows_plan());
    }
    bounds
}

#[test]
fn the_bound_reaches_the_quantile_from_a_thousand_times_below_and_above() {
    for (clip, quantile) in [("0.01", 0.5), ("10000", 0.5), ("0.02", 0.8)] {
        let dir = folder(clip, &quantile.to_string());
        let bounds = bounds(&dir, clip.parse().unwrap(), 16);
        let expected = quantile * CLIENTS as f64;
        // The noise on the count is half a client, which moves the bound by a few norms.
        for bound in &bounds[13..] {
            assert!((bound - expected).abs() <= 3.5, "{bound}, expected {expected}: {bounds:?}");
        }
        // One round moves the bound by at most the rate.
        for pair in bounds.windows(2) {
            let moved = (pair[1] / pair[0]).ln();
            assert!((-2.0 * (1.0 - quantile) - 1e-9..=2.0 * quantile + 1e-9).contains(&moved), "{bounds:?}");
        }
    }
}

/// A round uses the bound that the previous round computed, for clipping and for noise.
#[test]
fn values_are_clipped_to_the_bound_that_is_charged() {
    let dir = folder("2", "0.5");
    let bound = bounds(&dir, 2.0, 1)[1];
    let second = released(&dir, &["-q"]).f64("w");
    // A budget that starts with that bound has the same release in its first round.
    let fresh = folder(&bound.to_string(), "0.5");
    let with = released(&fresh, &["-q"]).f64("w");
    assert_eq!(with, second, "the same bound, clients and noise");
    let again = folder(&bound.to_string(), "0.5");
    std::fs::remove_file(again.path("updates/client-19.safetensors")).unwrap();
    let without = released(&again, &["-q"]).f64("w");
    let difference: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    let expected = bound.min(20.0) / 20.0;
    assert!((difference[3] - expected).abs() < 1e-6 * expected, "{difference:?}, expected {expected}");
    assert_eq!(difference[..3], [0.0; 3]);
}

/// Without clients only noise moves the bound, and within the rate.
#[test]
fn without_clients_the_bound_hardly_moves() {
    let dir = folder("3", "0.5");
    std::fs::remove_dir_all(dir.path("updates")).unwrap();
    std::fs::create_dir(dir.path("updates")).unwrap();
    for bound in bounds(&dir, 3.0, 3) {
        assert!((2.0..4.5).contains(&bound), "{bound}");
    }
}
