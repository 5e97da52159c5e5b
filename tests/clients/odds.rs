//! How often each client is selected, against exact probabilities.

use super::selection::{ids, request};
use super::{now, part, profile, registry};
use crate::harness::Dir;
use fedmill::fleet::client::Profile;
use fedmill::fleet::history::{Outcome, Participation};
use fedmill::fleet::registry::Registry;
use fedmill::fleet::select::{self, Request};
use std::collections::BTreeMap;

/// Selections of a test.
const SEEDS: u64 = 4000;

/// How often each set of clients is selected.
fn frequencies(registry: &Registry, make: impl Fn(u64) -> Request) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for seed in 0..SEEDS {
        let selection = select::select(registry, &make(seed)).unwrap();
        let mut chosen = ids(&selection);
        chosen.sort_unstable();
        *found.entry(chosen.concat()).or_default() += 1.0 / SEEDS as f64;
    }
    found
}

/// Fails unless each set comes as often as it should, within five standard deviations, and no other set comes.
#[track_caller]
fn assert_odds(found: &BTreeMap<String, f64>, exact: &BTreeMap<String, f64>) {
    assert!((exact.values().sum::<f64>() - 1.0).abs() < 1e-12, "{exact:?}");
    for (set, probability) in exact {
        let found = found.get(set).copied().unwrap_or(0.0);
        let deviation = (probability * (1.0 - probability) / SEEDS as f64).sqrt();
        assert!((found - probability).abs() <= 5.0 * deviation, "{set}: {found}, expected {probability}");
    }
    let strange: Vec<&String> = found.keys().filter(|set| !exact.contains_key(*set)).collect();
    assert!(strange.is_empty(), "{strange:?} cannot come");
}

/// The probability of each set of `count` clients, drawn one after the other in proportion to their weights.
fn drawn(weights: &[(&str, f64)], count: usize) -> BTreeMap<String, f64> {
    let mut sets = BTreeMap::new();
    draw_on(weights, count, &mut Vec::new(), 1.0, &mut sets);
    sets
}

fn draw_on<'w>(
    left: &[(&'w str, f64)],
    count: usize,
    chosen: &mut Vec<&'w str>,
    probability: f64,
    sets: &mut BTreeMap<String, f64>,
) {
    if chosen.len() == count {
        let mut set = chosen.clone();
        set.sort_unstable();
        *sets.entry(set.concat()).or_default() += probability;
        return;
    }
    let total: f64 = left.iter().map(|(_, weight)| weight).sum();
    for (place, (id, weight)) in left.iter().enumerate().filter(|(_, (_, weight))| *weight > 0.0) {
        let mut rest = left.to_vec();
        rest.remove(place);
        chosen.push(id);
        draw_on(&rest, count, chosen, probability * weight / total, sets);
        chosen.pop();
    }
}

#[test]
fn uniform_takes_every_pair_equally_often() {
    let dir = Dir::new();
    let registry = registry(&dir, &["a", "b", "c", "d", "e"].map(profile));
    let exact = drawn(&["a", "b", "c", "d", "e"].map(|id| (id, 1.0)), 2);
    assert_eq!(exact.len(), 10);
    assert_odds(&frequencies(&registry, |seed| request("uniform", seed)), &exact);
    let reported = select::select(&registry, &request("uniform", 1)).unwrap();
    assert!(reported.choices.iter().all(|choice| choice.probability == Some(0.4)));
}

#[test]
fn weighted_draws_in_proportion_to_the_scaled_sum() {
    let dir = Dir::new();
    let hour = 3600;
    let rows = [
        ("a", 1.0, 0.0, 0.2, 0),
        ("b", 2.0, 9.0, 0.6, 24),
        ("c", 3.0, 99.0, 1.0, 48),
        ("d", 5.0, 999.0, 0.4, 12),
        ("e", 1.0, 0.0, 0.2, 48),
    ];
    let clients = rows.map(|(id, compute_capability, data_size, connection_quality, hours)| Profile {
        compute_capability,
        data_size,
        connection_quality,
        last_update: Some(now().as_second() - hours * hour),
        ..profile(id)
    });
    let registry = registry(&dir, &clients);
    // Freshness with a half-life of a day, from 1 to 1/4, scaled to [0, 1].
    let fresh = |hours: i64| (0.5_f64.powf(hours as f64 / 24.0) - 0.25) / 0.75;
    let weights = rows.map(|(id, compute, data, quality, hours): (_, f64, f64, f64, i64)| {
        let scaled = [(compute - 1.0) / 4.0, (data + 1.0).log10() / 3.0, (quality - 0.2) / 0.8, fresh(hours)];
        (id, 0.3 * scaled[0] + 0.3 * scaled[1] + 0.2 * scaled[2] + 0.2 * scaled[3])
    });
    assert_eq!(weights[4].1, 0.0);
    assert_odds(&frequencies(&registry, |seed| request("weighted", seed)), &drawn(&weights, 2));
    let scores = select::select(&registry, &Request { count: 5, ..request("weighted", 1) }).unwrap();
    assert_eq!(scores.choices[4].id, "e", "a client of weight 0 fills up");
    for choice in &scores.choices {
        let (_, weight) = weights.iter().find(|(id, _)| *id == choice.id).unwrap();
        assert!((choice.score.unwrap() - weight).abs() < 1e-12);
    }
    let data = rows.map(|(id, _, data, ..): (_, _, f64, _, _)| (id, (data + 1.0).log10() / 3.0));
    let only = "weighted:compute=0,data=2,quality=0,freshness=0";
    assert_odds(&frequencies(&registry, |seed| request(only, seed)), &drawn(&data, 2));
}

#[test]
fn poisson_takes_each_client_independently() {
    let dir = Dir::new();
    let registry = registry(&dir, &["a", "b", "c"].map(profile));
    for (strategy, rate) in [("poisson", 2.0_f64 / 3.0), ("poisson:rate=0.25", 0.25)] {
        let mut exact = BTreeMap::new();
        for mask in 0..8_u32 {
            let set: String =
                "abc".chars().enumerate().filter(|(n, _)| mask >> n & 1 == 1).map(|(_, c)| c).collect();
            let taken = mask.count_ones() as i32;
            exact.insert(set, rate.powi(taken) * (1.0 - rate).powi(3 - taken));
        }
        assert_odds(&frequencies(&registry, |seed| request(strategy, seed)), &exact);
        let selection = select::select(&registry, &request(strategy, 1)).unwrap();
        assert_eq!(selection.rate, Some(rate));
    }
}

/// Clients with a loss in round 1, seen in round 5, and one without.
fn with_losses(dir: &Dir, losses: &[(&str, f64, f64, f64)]) -> Registry {
    let client =
        |(id, data_size, ..): &(&str, f64, f64, f64)| Profile { data_size: *data_size, ..profile(id) };
    let mut registry = registry(dir, &losses.iter().map(client).collect::<Vec<_>>());
    let did = losses.iter().filter(|(_, _, loss, _)| !loss.is_nan()).map(|(id, _, loss, seconds)| {
        Participation { loss: Some(*loss), duration_s: Some(*seconds), ..part(id, Outcome::Merged) }
    });
    registry.record(2, &did.collect::<Vec<_>>(), now()).unwrap();
    registry
}

#[test]
fn oort_draws_among_those_above_its_cut_off() {
    let dir = Dir::new();
    let rows = [
        ("a", 10.0, 1.0, 1.0),
        ("b", 10.0, 9.0, 1.0),
        ("c", 10.0, 10.0, 1.0),
        ("d", 10.0, 11.0, 4.0),
        ("e", 40.0, 2.5, 1.0),
    ];
    let registry = with_losses(&dir, &rows);
    // All but the slow one of the largest utility, 110; clipped at 100: the 0.6-quantile of 10, 90, 100, 100, 110.
    let bonus = (0.1 * 5_f64.ln() / 2.0).sqrt();
    let scaled = |utility: f64| (utility.min(100.0) - 10.0) / 90.0 + bonus;
    let scores = [
        ("a", scaled(10.0)),
        ("b", scaled(90.0)),
        ("c", scaled(100.0)),
        ("d", scaled(110.0) / 4.0),
        ("e", scaled(100.0)),
    ];
    let make = |count: usize, cut: &str, seed| {
        let text = format!("oort:explore=0,floor=0,cut={cut},clip=0.6,alpha=1");
        Request { count, round: 5, ..request(&text, seed) }
    };
    let exact = |from: &[(&'static str, f64)], count| drawn(from, count);
    // The best is c or e; b is above 0.9 of their score, and d and a below.
    assert!(scaled(90.0) > 0.9 * scaled(100.0) && scaled(110.0) / 4.0 < 0.9 * scaled(100.0));
    let near = [scores[1], scores[2], scores[4]];
    assert_odds(&frequencies(&registry, |seed| make(1, "0.9", seed)), &exact(&near, 1));
    assert_odds(&frequencies(&registry, |seed| make(2, "0.9", seed)), &exact(&near, 2));
    // A cut-off at nothing lets all of them in.
    assert_odds(&frequencies(&registry, |seed| make(2, "0", seed)), &exact(&scores, 2));
    // One without slack leaves the best alone.
    let best = [scores[2], scores[4]];
    assert_odds(&frequencies(&registry, |seed| make(1, "0.999999", seed)), &exact(&best, 1));
}

#[test]
fn oort_explores_new_clients_in_proportion_to_their_data() {
    let dir = Dir::new();
    let new = f64::NAN;
    let registry = with_losses(
        &dir,
        &[("a", 1.0, 1.0, 1.0), ("x", 1.0, new, new), ("y", 2.0, new, new), ("z", 5.0, new, new)],
    );
    let make = |text: &str, count, seed| Request { count, round: 3, ..request(text, seed) };
    // Half of two clients are new.
    let mut exact = BTreeMap::new();
    for (set, part) in [("ax", 0.125), ("ay", 0.25), ("az", 0.625)] {
        exact.insert(set.to_owned(), part);
    }
    let half = "oort:explore=0.5,decay=0.999999,floor=0.5";
    assert_odds(&frequencies(&registry, |seed| make(half, 2, seed)), &exact);
    // With one known client, new ones fill up.
    let selection = select::select(&registry, &make("oort:explore=0,floor=0", 4, 1)).unwrap();
    assert_eq!(selection.choices.len(), 4);
    assert_eq!(selection.choices[0].id, "a");
}

#[test]
fn oort_takes_clients_that_were_picked_too_often_last() {
    let dir = Dir::new();
    let mut registry = with_losses(&dir, &[("a", 1.0, 9.0, 1.0), ("b", 1.0, 1.0, 1.0), ("c", 1.0, 1.0, 1.0)]);
    registry.record(3, &[part("a", Outcome::Merged)], now()).unwrap();
    let choose = |count| {
        let request = Request { count, ..request("oort:explore=0,floor=0,cut=0,picks=1", 1) };
        let selection = select::select(&registry, &request).unwrap();
        let mut chosen: Vec<String> = ids(&selection).into_iter().map(str::to_owned).collect();
        chosen.sort_unstable();
        chosen.concat()
    };
    assert_eq!((choose(2), choose(3)), ("bc".to_owned(), "abc".to_owned()));
}

#[test]
fn power_of_choice_takes_the_highest_loss_of_candidates_in_proportion_to_data() {
    let dir = Dir::new();
    let rows = [("a", 1.0, 4.0, 1.0), ("b", 2.0, 3.0, 1.0), ("c", 3.0, 2.0, 1.0), ("d", 4.0, f64::NAN, 1.0)];
    let registry = with_losses(&dir, &rows);
    let weights = rows.map(|(id, size, ..)| (id, size));
    // Of each set of candidates the one with the highest loss; d has none and comes before all.
    let mut exact: BTreeMap<String, f64> = BTreeMap::new();
    for (set, probability) in drawn(&weights, 2) {
        let best = if set.contains('d') { "d" } else { &set[..1] };
        *exact.entry(best.to_owned()).or_default() += probability;
    }
    let make = |text: &str, count, seed| Request { count, least: 1, ..request(text, seed) };
    let found = frequencies(&registry, |seed| make("power-of-choice:candidates=2", 1, seed));
    assert_odds(&found, &exact);
    // Twice as many candidates as clients, if the operator does not say.
    assert_odds(&frequencies(&registry, |seed| make("power-of-choice", 1, seed)), &exact);
    let all = select::select(&registry, &make("power-of-choice", 4, 1)).unwrap();
    assert_eq!(ids(&all), ["d", "a", "b", "c"]);
}
