//! Krum chooses clients one after the other; then the middle of their values counts.
//!
//! - Paper: El Mhamdi et al., The hidden vulnerability of distributed learning in Byzantium, 2018, section 4.
//! - Cost: the distances of all updates, and a sorting network over the updates chosen.
//! - Tolerates: F where n >= 4F + 3.
//! - Details: Krum chooses n - 2F times, each time among the clients that are left. So the number of neighbours that
//!   count shrinks. Then each coordinate is the mean of the n - 4F chosen values nearest to their median.
//! - Elsewhere: Flower's current version takes the n - 2F best scores of one round of Krum.

use crate::rules::krum;
use crate::rules::mixing::Mixing;
use crate::rules::ranking::{Score, lowest, ranked};
use crate::rules::succession::Succession;
use crate::rules::{
    Decision, Needs, OrderStatistic, Recipe, Reduction, Rule, RuleError, Statistics, Verdict, Warning,
    mean_of_kept,
};
use crate::settings::{Definition, RegistryEntry, Settings, SpecError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "bulyan",
    summary: "Krum chooses n - 2F updates one after the other; then every coordinate is the mean of the \
              n - 4F of their values nearest to their median.",
    settings: &[],
    parse: Bulyan::parse,
};

/// Bulyan over Krum.
#[derive(Clone, Copy, Debug)]
pub struct Bulyan {
    definition: Definition,
}

impl Bulyan {
    fn parse(settings: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        let definition = match settings.definition() {
            Definition::Flower => Definition::Flower,
            // Flower's first API runs Krum again for each update, as the paper does.
            Definition::Paper | Definition::Byzfl | Definition::FlowerLegacy | Definition::Tff => {
                Definition::Paper
            }
        };
        Ok(Box::new(Self { definition }))
    }
}

impl fmt::Display for Bulyan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bulyan")
    }
}

/// The clients that Krum chooses.
struct Selection {
    /// Indices of clients, in the order in which Krum chooses them.
    chosen: Vec<usize>,
    /// The last score of each client.
    scores: Vec<f64>,
    warnings: Vec<Warning>,
}

impl Rule for Bulyan {
    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn definition(&self) -> Definition {
        self.definition
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn least_clients(&self) -> usize {
        3
    }

    fn tolerates(&self, clients: usize) -> usize {
        clients.saturating_sub(3) / 4
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let (n, f) = (statistics.clients(), statistics.hostile());
        let Selection { chosen, scores, warnings } = match self.definition {
            Definition::Flower => choose_at_once(statistics, n - 2 * f)?,
            Definition::Paper | Definition::Byzfl | Definition::FlowerLegacy | Definition::Tff => {
                choose_one_by_one(statistics, n - 2 * f)?
            }
        };
        let mut places: Vec<Option<usize>> = vec![None; n];
        for (place, client) in chosen.iter().enumerate() {
            places[*client] = Some(place + 1);
        }
        let kept: Vec<bool> = places.iter().map(Option::is_some).collect();
        let verdict = |verdict: Verdict, place: &Option<usize>| match place {
            Some(place) => {
                Verdict { weight: None, reason: format!("Krum chose it as number {place}"), ..verdict }
            }
            None => Verdict { weight: None, ..verdict },
        };
        let plain = mean_of_kept(&kept, &scores, ("", "Krum never chose it")).verdicts;
        let verdicts = plain.into_iter().zip(&places).map(|(v, place)| verdict(v, place)).collect();
        let in_order: Vec<usize> = (0..n).filter(|client| kept[*client]).collect();
        let recipe = Recipe {
            mixing: Some(Mixing::choose(n, &in_order)),
            reduction: Reduction::Select(OrderStatistic::MeanNearMedian { kept: n - 4 * f }),
            statistics: None,
        };
        Ok(Decision { recipe, verdicts, warnings })
    }
}

/// Chooses `count` times by Krum among the clients that are left.
fn choose_one_by_one(statistics: &Statistics, count: usize) -> Result<Selection, RuleError> {
    let mut clients = Succession::new(statistics.geometry()?, statistics.hostile());
    let mut choice =
        Selection { chosen: Vec::new(), scores: vec![0.0; statistics.clients()], warnings: Vec::new() };
    while choice.chosen.len() + 1 < count {
        let (client, score) = clients.lowest();
        choice.scores[client] = score;
        choice.chosen.push(client);
        clients.leave(client);
    }
    // Earlier close calls change the order alone; the last decides which client is left out.
    let (left, scores) = (clients.left(), clients.scores());
    let ids: Vec<String> = left.iter().map(|client| statistics.ids[*client].clone()).collect();
    choice.warnings.extend(lowest(&scores, 1, &ids).1);
    choice.chosen.push(left[ranked(&scores)[0]]);
    left.iter().zip(&scores).for_each(|(client, score)| choice.scores[*client] = score.value);
    Ok(choice)
}

/// Chooses the `count` best scores of one round of Krum.
fn choose_at_once(statistics: &Statistics, count: usize) -> Result<Selection, RuleError> {
    let scores = krum::scores(Definition::Flower, statistics)?;
    let chosen = ranked(&scores)[..count].to_vec();
    let warnings = lowest(&scores, count, &statistics.ids).1.into_iter().collect();
    let scores = scores.iter().map(|score: &Score| score.value).collect();
    Ok(Selection { chosen, scores, warnings })
}
