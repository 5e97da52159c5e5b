//! Findings about private rounds: what they cannot do, and a budget that ends too early.

use super::finding::Lint;
use crate::config::sections::Mode;
use crate::lint::budget_plan::{budget_plan, is_poisson, poisson_at};
use crate::modes::dp::release::STEPS_AFTER_NOISE;
use crate::privacy::ledger::budget::{self, VerdictError};
use crate::privacy::ledger::plan::{BudgetPlan, Sampling};

pub(super) fn check(lint: &mut Lint) {
    if !lint.config.privacy.enabled {
        return;
    }
    check_mean_only(lint);
    check_mode(lint);
    check_seed(lint);
    check_population(lint);
}

/// A seed below this number is found by trying all.
const LEAST_SECRET_SEED: u64 = 1 << 40;

/// Poisson sampling hides who takes part only from those who cannot guess its seed.
fn check_seed(lint: &mut Lint) {
    let coordination = &lint.config.coordination;
    if is_poisson(&coordination.selection) && coordination.seed < LEAST_SECRET_SEED {
        let why = "a client that guesses the seed knows who takes part, which voids the guarantee of Poisson sampling";
        lint.warning(
            "coordination.seed",
            coordination.seed,
            why,
            "the seed that `round init` writes, or 15 random digits",
        );
    }
}

/// A private round releases the mean, and steps after the noise.
fn check_mean_only(lint: &mut Lint) {
    let robustness = &lint.config.robustness;
    if robustness.rule != "mean" {
        let why = "a private round releases the noised mean alone: what another rule does with one update depends on others";
        lint.error("robustness.rule", &robustness.rule, why, "rule = \"mean\": every update is clipped");
    }
    if !robustness.pre.is_empty() {
        let why = "a private round releases the noised mean alone: what a step does with one update depends on others";
        lint.error("robustness.pre", robustness.pre.join(", "), why, "pre = []");
    }
    if robustness.byzantine_tolerance > 0.0 {
        let why = "the noised mean leaves out no hostile client: the clip bounds each";
        lint.error(
            "robustness.byzantine_tolerance",
            robustness.byzantine_tolerance,
            why,
            "byzantine_tolerance = 0",
        );
    }
    if robustness.weights.is_some() || robustness.max_examples.is_some() {
        let found = robustness.weights.clone().or(robustness.max_examples.map(|most| most.to_string()));
        let why = "all clients weigh the same in the noised mean";
        lint.warning(
            "robustness.weights",
            found.unwrap_or_default(),
            why,
            "leave out weights and max_examples",
        );
    }
    let name = &lint.config.strategy.name;
    let bare = name.split(':').next().unwrap_or(name);
    if !STEPS_AFTER_NOISE.contains(&bare) {
        let why = "the strategy needs reports or lengths of single updates";
        lint.error("strategy.name", name, why, format!("one of {}", STEPS_AFTER_NOISE.join(", ")));
    }
}

fn check_mode(lint: &mut Lint) {
    let config = lint.config;
    if let Some(file) = &config.tiers.file {
        let why = "a private round merges all clients as one tier";
        lint.error("tiers.file", file.display(), why, "leave it out");
    }
    if config.coordination.mode == Mode::Async {
        let why = "the budget counts each client once a round, and a buffer holds updates of several rounds";
        lint.error("coordination.mode", "async", why, "mode = \"sync\"");
    }
    let bounds = &config.adaptation;
    let any = bounds.server_learning_rate.is_some()
        || bounds.quorum.is_some()
        || bounds.round_timeout.is_some()
        || bounds.compression_target.is_some()
        || bounds.tier_codecs
        || bounds.clients.is_some()
        || bounds.local_steps.is_some();
    if any {
        let why = "adaptation looks at what single clients did, so it changes nothing in private rounds";
        lint.warning("privacy.enabled", true, why, "leave out the bounds in [adaptation]");
    }
}

fn check_population(lint: &mut Lint) {
    let Some(population) = lint.facts.population.filter(|population| *population > 0) else { return };
    let privacy = &lint.config.privacy;
    let bound = 1.0 / population as f64;
    if privacy.delta >= bound {
        let why =
            format!("it is not below 1 / {population}: it allows a release of one client's data as they are");
        lint.error("privacy.delta", privacy.delta, why, format!("a delta below {bound:.1e}"));
    }
    let plan = budget_plan(lint.config, population, None);
    check_sampling(lint, &plan);
    if let Some(frozen) = &lint.facts.plan {
        check_frozen(lint, frozen, &plan);
    }
    let result = check_rounds(lint, &plan);
    if let Err(why) = result {
        lint.error(
            "privacy.noise_multiplier",
            lint.config.privacy.noise_multiplier,
            why,
            "other settings in [privacy]",
        );
    }
}

/// Sampling amplifies only if each client takes part independently.
fn check_sampling(lint: &mut Lint, plan: &BudgetPlan) {
    let coordination = &lint.config.coordination;
    if plan.sampling == Sampling::All && coordination.clients < plan.population {
        let why = "the selection is not Poisson sampling, so the budget pays as if every client took part in every round";
        lint.warning("coordination.selection", &coordination.selection, why, "selection = \"poisson\"");
    }
}

/// How an operator starts a new budget while that forgets nothing.
const NEW_BUDGET: &str = "; before the first private model, removing the folder privacy/ starts a new budget";

/// The frozen plan against the settings.
fn check_frozen(lint: &mut Lint, frozen: &BudgetPlan, plan: &BudgetPlan) {
    let privacy = &lint.config.privacy;
    let numbers = [
        ("privacy.epsilon", privacy.epsilon, frozen.epsilon),
        ("privacy.delta", privacy.delta, frozen.delta),
        ("privacy.noise_multiplier", privacy.noise_multiplier, frozen.noise_multiplier),
        ("privacy.clip", privacy.clip, frozen.first_clip()),
        ("coordination.selection", plan.sampling_rate, frozen.sampling_rate),
    ];
    for (key, found, expected) in numbers.into_iter().filter(|(_, found, expected)| found != expected) {
        let found = match key {
            "coordination.selection" => format!("{} (rate {found})", lint.config.coordination.selection),
            _ => found.to_string(),
        };
        let why = format!("the frozen plan of the budget has {expected}, and the plan decides");
        let remedy = match key {
            "coordination.selection" if frozen.sampling == Sampling::Poisson => {
                format!("selection = \"{}\"", poisson_at(frozen.sampling_rate))
            }
            _ => format!("set what the plan has{NEW_BUDGET}"),
        };
        lint.error(key, found, why, remedy);
    }
    if frozen.population < plan.population {
        let why =
            format!("the registry has {} clients, the frozen plan {}", plan.population, frozen.population);
        lint.error("privacy.enabled", true, why, format!("retire clients{NEW_BUDGET}"));
    }
}

/// The rounds that the budget allows against the rounds planned.
fn check_rounds(lint: &mut Lint, plan: &BudgetPlan) -> Result<(), VerdictError> {
    let privacy = &lint.config.privacy;
    let (epsilon, accountant) = (privacy.epsilon, plan.accountant);
    let Some(rounds) = lint.config.coordination.rounds else {
        let most = budget::most_rounds(plan)?;
        let why = format!(
            "epsilon {epsilon} is spent after {most} rounds, and rounds has no end: no round opens after them"
        );
        lint.warning("privacy.epsilon", epsilon, why, format!("rounds = {most}"));
        return Ok(());
    };
    let plan = BudgetPlan { rounds, ..plan.clone() };
    let spent = budget::planned(&plan)?.epsilon(accountant);
    if spent > epsilon {
        let most = budget::most_rounds(&plan)?;
        let text = budget::epsilon_text(spent);
        let why = format!("{rounds} rounds cost epsilon {text}: the budget ends after about {most} rounds");
        let remedy = match budget::least_noise(&plan) {
            Ok(noise) => format!("rounds = {most}, or noise_multiplier = {noise}"),
            Err(_) => format!("rounds = {most}"),
        };
        lint.error("privacy.epsilon", epsilon, why, remedy);
    }
    Ok(())
}
