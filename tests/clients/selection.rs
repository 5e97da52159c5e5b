//! Who is selected: constraints, long waits, over-selection, refusals, the same choice again.

use super::{now, part, profile, registry};
use crate::harness::{Dir, fedmill, shortest};
use fedmill::fleet::client::{PrivacyRequirements, Profile};
use fedmill::fleet::history::{Outcome, Participation};
use fedmill::fleet::registry::Registry;
use fedmill::fleet::select::{self, Constraints, Request, STRATEGIES, SelectError, Selection};
use std::collections::BTreeMap;

/// A selection of two clients.
pub(super) fn request(strategy: &str, seed: u64) -> Request {
    Request {
        strategy: select::parse(strategy).unwrap(),
        count: 2,
        dropout: 0.0,
        most: usize::MAX,
        round: 1,
        seed,
        max_wait: None,
        constraints: Constraints::default(),
        now: now(),
        least: 2,
    }
}

pub(super) fn ids(selection: &Selection) -> Vec<&str> {
    selection.choices.iter().map(|choice| choice.id.as_str()).collect()
}

/// Twenty clients of many kinds, after three rounds.
fn fleet(dir: &Dir, order: &[usize]) -> Registry {
    let client = |n: &usize| Profile {
        compute_capability: (n * 7 % 11) as f64,
        data_size: (n * 31 % 17 * 100) as f64,
        connection_quality: (n % 5) as f64 / 4.0,
        last_update: Some(now().as_second() - (n * 3600) as i64),
        ..profile(&format!("client-{n:02}"))
    };
    let mut registry = registry(dir, &order.iter().map(client).collect::<Vec<_>>());
    for round in 1..=3 {
        let did = |n: usize| Participation {
            loss: Some((n * 13 % 7) as f64),
            duration_s: Some((n % 4) as f64),
            ..part(&format!("client-{n:02}"), Outcome::Merged)
        };
        let did: Vec<Participation> = (0..4).map(|n| did(n * 3 + round)).collect();
        registry.record(round as u64, &did, now()).unwrap();
    }
    registry
}

#[test]
fn a_selection_depends_on_the_seed_and_the_round_and_not_on_the_order_of_clients() {
    let orders: [Vec<usize>; 3] =
        [(0..20).collect(), (0..20).rev().collect(), (0..20).map(|n| n * 7 % 20).collect()];
    let dirs = orders.each_ref().map(|_| Dir::new());
    let registries: Vec<Registry> = orders.iter().zip(&dirs).map(|(order, dir)| fleet(dir, order)).collect();
    for entry in STRATEGIES {
        let text = shortest(entry, "");
        let make = |registry: &Registry, seed, round| {
            let request = Request { count: 6, round, max_wait: None, ..request(&text, seed) };
            select::select(registry, &request).unwrap()
        };
        let first = make(&registries[0], 1, 4);
        assert!(registries.iter().all(|registry| make(registry, 1, 4) == first), "{text}");
        let others: Vec<Selection> =
            (2..12).map(|seed| make(&registries[0], seed, 4)).chain([make(&registries[0], 1, 5)]).collect();
        assert!(others.iter().filter(|other| ids(other) != ids(&first)).count() > 8, "{text}");
        if first.rate.is_none() {
            let mut chosen = ids(&first);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 6, "{text}");
        }
        assert!(first.choices.iter().all(|choice| !choice.why.is_empty()), "{text}");
    }
}

#[test]
fn constraints_exclude_and_are_counted() {
    let dir = Dir::new();
    let tier = |id: &str, tier: &str| Profile { tier: Some(tier.to_owned()), ..profile(id) };
    let demands = |id: &str, epsilon, secure_aggregation, min_secagg_threshold| Profile {
        privacy_requirements: PrivacyRequirements { epsilon, secure_aggregation, min_secagg_threshold },
        ..tier(id, "high")
    };
    let mut registry = registry(
        &dir,
        &[
            tier("a", "high"),
            tier("b", "low"),
            demands("c", Some(1.0), false, None),
            demands("d", Some(3.0), false, None),
            demands("e", None, true, None),
            demands("f", None, false, Some(0.8)),
            profile("g"),
            tier("h", "high"),
        ],
    );
    registry.retire(&["h".to_owned()], now()).unwrap();
    let excluded = |constraints: Constraints| {
        let request = Request { count: 99, least: 1, constraints, ..request("uniform", 1) };
        let selection = select::select(&registry, &request).unwrap();
        let mut chosen: Vec<String> = ids(&selection).into_iter().map(str::to_owned).collect();
        chosen.sort_unstable();
        (chosen.concat(), selection.excluded)
    };
    let counts = |counts: &[(&str, usize)]| -> BTreeMap<String, usize> {
        counts.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect()
    };
    let constraints = Constraints::default;
    assert_eq!(
        excluded(constraints()),
        ("abcdg".into(), counts(&[("retirement", 1), ("secure aggregation", 2)]))
    );
    let secure = Constraints { secure_aggregation: true, ..constraints() };
    assert_eq!(excluded(secure.clone()), ("abcdefg".into(), counts(&[("retirement", 1)])));
    let weak = Constraints { secure_threshold: Some(0.6), ..secure };
    assert_eq!(excluded(weak), ("abcdeg".into(), counts(&[("retirement", 1), ("secure aggregation", 1)])));
    let all = Constraints { tiers: vec!["high".into(), "mid".into()], epsilon: Some(2.0), ..constraints() };
    let expected = counts(&[("epsilon", 1), ("retirement", 1), ("secure aggregation", 2), ("tier", 2)]);
    assert_eq!(excluded(all), ("ad".into(), expected));
}

#[test]
fn too_few_clients_are_a_refusal() {
    let dir = Dir::new();
    drop(registry(&dir, &["a", "b"].map(profile)));
    for entry in STRATEGIES {
        let text = shortest(entry, "");
        let select = [
            "clients",
            "select",
            "state",
            "--count",
            "3",
            "--round",
            "1",
            "--seed",
            "1",
            "--strategy",
            &text,
        ];
        let run = fedmill(&dir, &[&select[..], &["--min-clients", "3"]].concat());
        run.assert_fails(
            1,
            &["refused: 2 clients may be selected, the round needs 3", "register more clients"],
        );
        if entry.name != "poisson" {
            fedmill(&dir, &select)
                .assert_fails(1, &["refused: 2 clients may be selected, the round needs 3"]);
            let run = fedmill(&dir, &[&select[..], &["--min-clients", "2", "--json"]].concat());
            let selection: Selection = serde_json::from_str(&run.stdout).unwrap();
            assert_eq!((run.code, selection.choices.len()), (Some(0), 2), "{run:#?}");
        }
    }
}

#[test]
fn more_are_selected_if_some_drop_out() {
    let asked = |count, dropout, most| Request { count, dropout, most, ..request("uniform", 1) }.asked();
    for (count, dropout, most, expected) in [
        (10, 0.0, 99, 10),
        (10, 0.2, 99, 13),
        (8, 0.2, 99, 10),
        (1, 0.9, 99, 10),
        (7, 0.3, 99, 10),
        (9, 0.1, 99, 10),
        (10, 0.5, 15, 15),
        (10, 0.5, 5, 5),
    ] {
        assert_eq!(asked(count, dropout, most), expected, "{count} {dropout} {most}");
    }
    let dir = Dir::new();
    let registry = fleet(&dir, &(0..20).collect::<Vec<_>>());
    let selected = |request: &Request| select::select(&registry, request).unwrap().choices.len();
    assert_eq!(selected(&Request { count: 5, dropout: 0.5, ..request("weighted", 1) }), 10);
    assert_eq!(selected(&Request { count: 15, dropout: 0.5, ..request("oort", 1) }), 20);
    let short = select::select(&registry, &Request { least: 21, ..request("uniform", 1) });
    assert!(matches!(short, Err(SelectError::TooFew { eligible: 20, needed: 21, .. })));
    for dropout in [1.0, -0.1, f64::NAN] {
        let refused = select::select(&registry, &Request { dropout, ..request("uniform", 1) });
        assert!(matches!(refused, Err(SelectError::Value { .. })));
    }
}

#[test]
fn poisson_refuses_what_breaks_its_promise() {
    let dir = Dir::new();
    let registry = registry(&dir, &["a", "b", "c"].map(profile));
    let refused =
        |request: Request| matches!(select::select(&registry, &request), Err(SelectError::Uneven { .. }));
    assert!(refused(Request { dropout: 0.1, ..request("poisson", 1) }));
    assert!(refused(Request { max_wait: Some(3), ..request("poisson:rate=0.5", 1) }));
    assert!(!refused(request("poisson", 1)));
    let run = fedmill(
        &dir,
        &[
            "clients",
            "select",
            "state",
            "--strategy",
            "poisson",
            "--count",
            "1",
            "--round",
            "1",
            "--seed",
            "1",
        ],
    );
    assert!(run.stderr.contains("--sampling-rate 0.3333333333333333"), "{run:#?}");
}

#[test]
fn clients_that_waited_come_first() {
    let dir = Dir::new();
    let mut registry = registry(&dir, &["a", "b", "c", "d", "e"].map(profile));
    registry.record(1, &[part("c", Outcome::Merged)], now()).unwrap();
    registry.record(2, &[part("b", Outcome::Missing), part("d", Outcome::Merged)], now()).unwrap();
    let chosen = |round, count, most| {
        let request = Request { round, count, max_wait: Some(most), ..request("uniform", 1) };
        let selection = select::select(&registry, &request).unwrap();
        let floor = selection.choices.iter().filter(|choice| choice.why.starts_with("waited"));
        floor.map(|choice| choice.id.clone()).collect::<Vec<_>>().concat()
    };
    assert_eq!(chosen(3, 5, 2), "ae");
    assert_eq!(chosen(3, 2, 1), "ae");
    assert_eq!(chosen(3, 4, 1), "aec");
    assert_eq!(chosen(4, 5, 2), "aec");
    assert_eq!(chosen(3, 5, 3), "");
}

/// With five clients and two a round, no client needs to wait for more than three rounds.
#[test]
fn no_client_waits_longer_than_the_floor() {
    for entry in STRATEGIES.iter().filter(|entry| entry.name != "poisson") {
        let dir = Dir::new();
        let skewed = |n: usize| Profile { data_size: (10_f64).powi(n as i32), ..profile(&n.to_string()) };
        let mut registry = registry(&dir, &[0, 1, 2, 3, 4].map(skewed));
        let mut last = [0; 5];
        for round in 1..=30 {
            let request = Request { round, max_wait: Some(3), ..request(&shortest(entry, ""), 9) };
            let selection = select::select(&registry, &request).unwrap();
            assert_eq!(selection.choices.len(), 2);
            for id in ids(&selection) {
                last[id.parse::<usize>().unwrap()] = round;
            }
            let did: Vec<Participation> =
                ids(&selection).iter().map(|id| part(id, Outcome::Merged)).collect();
            registry.record(round, &did, now()).unwrap();
            // Two of those that waited for three rounds come at once, the others a round later.
            assert!(last.iter().all(|last| round - last <= 4), "{}: {last:?} at {round}", entry.name);
        }
    }
}

/// A tier that no client has is named, with those that clients have.
#[test]
fn a_tier_without_clients_is_named() {
    let dir = Dir::new();
    let of = |id: &str, tier: &str| Profile { tier: Some(tier.to_owned()), ..profile(id) };
    let mut registry = registry(&dir, &[of("a", "high"), of("b", "low"), of("c", "gone")]);
    registry.retire(&["c".to_owned()], now()).unwrap();
    let select = |tiers: &[&str]| {
        let options: Vec<&str> = tiers.iter().flat_map(|tier| ["--tier", *tier]).collect();
        let base = ["clients", "select", "state", "--count", "1", "--round", "1", "--seed", "1"];
        fedmill(&dir, &[&base[..], &options].concat())
    };
    let said = "no client has tier `hihg`, did you mean `high`; clients have high, low";
    select(&["hihg"]).assert_fails(1, &["0 clients may be selected", said]);
    select(&["gone"]).assert_fails(1, &["no client has tier `gone`; clients have high, low"]);
    let run = select(&["hihg", "low"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains(&format!("warning: {said}")), "{run:#?}");
    assert_eq!(select(&["low"]).stderr, "");
}
