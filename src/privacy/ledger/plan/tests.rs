//! Tests of plans: valid ones, and ones that are refused.

use crate::privacy::ledger::plan::*;
use crate::privacy::ledger::trial::plan;

fn with(change: impl Fn(&mut BudgetPlan)) -> Result<(), PlanError> {
    let mut plan = plan();
    change(&mut plan);
    plan.level = plan.dimension.map(|dimension| plan.level_for(dimension));
    plan.check()
}

#[test]
fn numbers_out_of_range_are_refused() {
    assert!(with(|_| ()).is_ok());
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(with(|plan| plan.epsilon = bad).is_err());
        assert!(with(|plan| plan.delta = bad).is_err());
        assert!(with(|plan| plan.sampling_rate = bad).is_err());
        assert!(with(|plan| plan.noise_multiplier = bad).is_err());
        assert!(with(|plan| plan.clip = ClipBound::Fixed(bad)).is_err());
    }
    // A round could not clip to such norms.
    for bad in [1e300, 1e-300] {
        assert!(with(|plan| plan.clip = ClipBound::Fixed(bad)).is_err());
    }
    assert!(with(|plan| plan.delta = 1.0).is_err());
    assert!(with(|plan| plan.sampling_rate = 1.1).is_err());
    assert!(with(|plan| plan.population = 0).is_err());
    assert!(with(|plan| plan.rounds = 0).is_err());
    assert!(with(|plan| plan.denominator = 0).is_err());
    assert!(with(|plan| plan.dimension = Some(0)).is_err());
}

#[test]
fn sampling_must_fit_the_adjacency() {
    use Adjacency::{AddOrRemoveOne, ReplaceOne, ReplaceSpecial};
    let check = |sampling, adjacency, rate| {
        with(move |plan| {
            (plan.sampling, plan.adjacency, plan.sampling_rate) = (sampling, adjacency, rate);
        })
        .is_ok()
    };
    for adjacency in [AddOrRemoveOne, ReplaceSpecial, ReplaceOne] {
        assert_eq!(check(Sampling::Poisson, adjacency, 0.1), adjacency != ReplaceOne);
        assert_eq!(check(Sampling::Fixed, adjacency, 0.1), adjacency == ReplaceOne);
        assert!(!check(Sampling::All, adjacency, 0.1));
        assert!(check(Sampling::All, adjacency, 1.0));
    }
}

#[test]
fn a_round_costs_what_its_sampling_says() {
    let noise = || Event::gaussian(1.1).unwrap();
    let event = |sampling, rate| BudgetPlan { sampling, sampling_rate: rate, ..plan() }.event().unwrap();
    assert_eq!(event(Sampling::Poisson, 0.1), noise().poisson_sampled(0.1).unwrap());
    assert_eq!(event(Sampling::Fixed, 0.1), noise().sampled_without_replacement(1000, 100).unwrap());
    assert_eq!(event(Sampling::All, 1.0), noise());
    assert_eq!(event(Sampling::Poisson, 1.0), noise());
}

#[test]
fn a_count_uses_a_part_of_the_budget() {
    // Spec 1.4: z = 1, sigma_b = n / 20.
    for (clients, expected) in [(100.0, 1.005_037_815), (1000.0, 1.000_050_00)] {
        let adaptive = Adaptive { initial: 0.1, quantile: 0.5, rate: 0.2, count_noise: clients / 20.0 };
        let plan = BudgetPlan { noise_multiplier: 1.0, clip: ClipBound::Adaptive(adaptive), ..plan() };
        assert!((plan.value_multiplier().unwrap() - expected).abs() < 1e-8);
    }
    let adaptive = Adaptive { initial: 0.1, quantile: 0.5, rate: 0.2, count_noise: 0.5 };
    assert!(with(|plan| plan.clip = ClipBound::Adaptive(adaptive)).is_err());
}

#[test]
fn a_stored_plan_is_the_one_that_was_frozen() {
    let plan = plan();
    let text = plan.frozen();
    assert_eq!(BudgetPlan::thaw(&text).unwrap(), plan);
    assert!(matches!(BudgetPlan::thaw(&text.replacen("1.1", "0.1", 1)), Err(FrozenError::Changed { .. })));
    assert!(matches!(BudgetPlan::thaw("{}"), Err(FrozenError::Unreadable(_))));
}

#[test]
fn large_models_get_finer_noise() {
    let plan = plan();
    assert_eq!(plan.level_for(1000), Level::L2);
    assert_eq!(plan.level_for(100_000_000), Level::L3);
    // At a million coordinates truncation is negligible, but over 10,000 rounds the cost of the grid is not.
    assert_eq!(plan.level_for(1_000_000), Level::L2);
    assert_eq!(BudgetPlan { rounds: 10_000, ..plan }.level_for(1_000_000), Level::L3);
}

#[test]
fn plans_with_weak_protection_warn() {
    assert_eq!(plan().warnings(), [""; 0]);
    let weak = BudgetPlan { epsilon: 11.0, delta: 0.001, noise_multiplier: 0.29, ..plan() };
    let warnings = weak.warnings();
    for (warning, about) in warnings.iter().zip(["1/1000", "below 0.3", "above 10"]) {
        assert!(warning.contains(about), "{warning}");
    }
    assert_eq!(warnings.len(), 3);
    assert!(BudgetPlan { delta: 1e-13, ..plan() }.warnings()[0].contains("PLD"));
}

#[test]
fn the_ends_of_ranges_are_refused() {
    let fine = Adaptive { initial: 1.0, quantile: 0.5, rate: 0.2, count_noise: 5.0 };
    let check = |adaptive| with(move |plan| plan.clip = ClipBound::Adaptive(adaptive));
    assert!(check(fine).is_ok());
    assert!(check(Adaptive { quantile: 0.01, ..fine }).is_ok());
    for bad in [
        Adaptive { quantile: 0.0, ..fine },
        Adaptive { quantile: 1.0, ..fine },
        Adaptive { rate: 0.0, ..fine },
        Adaptive { count_noise: 0.0, ..fine },
    ] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
    assert!(with(|plan| plan.sampling_rate = 1.0).is_ok());
}

#[test]
fn the_grid_of_level_2_needs_256_units_a_coordinate() {
    // A bound of 256,000 units: over a million coordinates exactly 256 each.
    let plan = BudgetPlan { noise_multiplier: Level::L2.sigma() / 256_000.5, epsilon: 1e9, ..plan() };
    assert_eq!(plan.level_for(1_000_000), Level::L2);
    assert_eq!(plan.level_for(1_000_001), Level::L3);
}
