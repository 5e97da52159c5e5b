//! Masked lanes look uniform, whatever the update is.

use super::{Session, done, mask_command};
use crate::harness::{Model, Update};

/// Values of the update.
const LEN: usize = 100_000;

fn lanes(session: &Session, path: &str) -> Vec<u32> {
    let model = Model::read(&session.dir, path);
    model.bytes("lanes").chunks_exact(4).map(|x| u32::from_le_bytes(x.try_into().unwrap())).collect()
}

/// The statistic of a chi-square test of 256 equally likely bytes.
fn chi_square(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0u32; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

/// With 255 degrees of freedom the statistic is beyond 400 in one of 10^7 tests.
#[test]
fn masked_zeros_are_uniform_and_differ_between_sessions() {
    let session = Session::new(2, 3);
    let zeros = |name: &str| Update::new(name).f32("w", &[LEN], &vec![0.0; LEN]).meta("kind", "delta");
    for name in ["base", "zeros"] {
        zeros(name).without_meta(if name == "base" { "kind" } else { "" }).write(&session.dir);
    }
    let mut masked = Vec::new();
    for folder in ["one", "two"] {
        done(&session.open(folder, ""));
        done(&session.run(&mask_command(folder, 1, "zeros.safetensors", "--allow-again")));
        masked.push(lanes(&session, &format!("{folder}/masked/client-1.safetensors")));
    }
    done(&session.run(&mask_command("one", 2, "zeros.safetensors", "")));
    masked.push(lanes(&session, "one/masked/client-2.safetensors"));
    for lanes in &masked {
        assert_eq!(lanes.len(), LEN);
        let top = chi_square(lanes.iter().map(|lane| (lane >> 24) as u8));
        let bottom = chi_square(lanes.iter().map(|lane| *lane as u8));
        assert!((150.0..400.0).contains(&top) && (150.0..400.0).contains(&bottom), "{top}, {bottom}");
        // Neighbours have nothing to do with each other.
        let steps = lanes.windows(2).map(|pair| (pair[0].wrapping_sub(pair[1]) >> 24) as u8);
        assert!(chi_square(steps) < 400.0);
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let same = masked[one].iter().zip(&masked[other]).filter(|(a, b)| a == b).count();
        assert!(same <= 2, "{same} lanes of files {one} and {other} are equal");
        let differences =
            masked[one].iter().zip(&masked[other]).map(|(a, b)| (a.wrapping_sub(*b) >> 24) as u8);
        assert!(chi_square(differences) < 400.0, "files {one} and {other} share a mask");
    }
}
