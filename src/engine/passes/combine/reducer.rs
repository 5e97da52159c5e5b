//! A recipe turned into what is done to every tile: who is read, and what becomes of their rows.

use crate::engine::intake::admit::{Frame, UpdateSet};
use crate::modes::dp::noised_sum::NoisedSum;
use crate::modes::tree::sums::Addends;
use crate::rules::mixing::Mixing;
use crate::rules::{OrderStatistic, Recipe, Reduction, TierRecipe};

/// What is done to every tile.
pub(crate) enum Method<'a> {
    Sum(Sum),
    Select(Select<'a>),
    /// A sum to which partials belong.
    Tree(Addends),
    Tiers(Tiers<'a>),
    /// The sum of clipped updates and noise.
    Noised(&'a NoisedSum),
}

/// The sum of what is made of each tier, times its share.
pub(crate) struct Tiers<'a> {
    pub(crate) parts: Vec<(f64, Method<'a>)>,
    clients: Vec<usize>,
}

/// `(sum_i weights[i] * row_i + base * base's row + centre * the earlier centre) / divisor`.
pub(crate) struct Sum {
    pub(crate) clients: Vec<usize>,
    pub(crate) weights: Vec<f64>,
    pub(crate) base: f64,
    pub(crate) centre: f64,
    pub(crate) divisor: f64,
}

/// An order statistic of rows.
pub(crate) struct Select<'a> {
    pub(crate) clients: Vec<usize>,
    /// The rows as combinations of the clients'; none for these themselves.
    pub(crate) mixing: Option<&'a Mixing>,
    pub(crate) statistic: OrderStatistic,
}

impl<'a> Method<'a> {
    /// What a recipe means for a set. Clients that have no part are not read if `skips`.
    pub(crate) fn of(recipe: &'a Recipe, set: &UpdateSet, skips: bool) -> Self {
        if let Some(addends) = Addends::of(recipe, set).filter(|_| !set.partials.is_empty()) {
            return Self::Tree(addends);
        }
        match &recipe.reduction {
            Reduction::WeightedMean { weights } => {
                Self::Sum(Sum { divisor: weights.iter().sum(), ..Sum::of(weights, skips) })
            }
            Reduction::WeightedSum { coefficients, centre } => {
                // Rows that are weights bring the base along, each by its coefficient.
                let brings_base = set.frame == Frame::AsSent && set.base.is_some();
                let rest = 1.0 - coefficients.iter().sum::<f64>();
                let base = if brings_base { rest } else { 0.0 };
                Self::Sum(Sum { base, centre: *centre, ..Sum::of(coefficients, skips) })
            }
            Reduction::Select(statistic) => {
                Self::Select(Select::of(*statistic, recipe.mixing.as_ref(), set.clients.len()))
            }
            Reduction::Tiers(tiers) => {
                let part = |tier: &'a TierRecipe| {
                    (tier.share, Self::of(&tier.recipe, set, skips).among(&tier.clients))
                };
                let parts: Vec<(f64, Self)> = tiers.iter().map(part).collect();
                let clients = parts.iter().flat_map(|(_, part)| part.clients().to_vec()).collect();
                Self::Tiers(Tiers { parts, clients })
            }
        }
    }

    /// The same with these clients alone, in order of their numbers.
    fn among(mut self, members: &[usize]) -> Self {
        let is_member = |client: &usize| members.binary_search(client).is_ok();
        match &mut self {
            Self::Sum(Sum { clients, weights, .. }) => {
                let mut keep = clients.iter().map(is_member).collect::<Vec<bool>>().into_iter();
                weights.retain(|_| keep.next().unwrap_or(false));
                clients.retain(is_member);
            }
            Self::Select(Select { clients, .. }) => clients.retain(is_member),
            Self::Tiers(_) | Self::Tree(_) | Self::Noised(_) => {}
        }
        self
    }

    /// Who is read.
    pub(crate) fn clients(&self) -> &[usize] {
        match self {
            Self::Sum(sum) => &sum.clients,
            Self::Select(select) => &select.clients,
            Self::Tiers(tiers) => &tiers.clients,
            Self::Tree(addends) => &addends.clients,
            Self::Noised(sum) => sum.sum().clients(),
        }
    }

    /// How many mixtures of rows are made first.
    pub(crate) fn mixtures(&self) -> usize {
        match self {
            Self::Select(Select { mixing: Some(mixing), .. }) => mixing.len(),
            _ => 0,
        }
    }

    /// Whether the base has a part in it, where rows are not deltas.
    pub(crate) fn uses_base(&self) -> bool {
        match self {
            Self::Sum(sum) => sum.base != 0.0,
            Self::Select(select) => select.mixing.is_some(),
            Self::Tiers(tiers) => tiers.parts.iter().any(|(_, part)| part.uses_base()),
            Self::Tree(_) => false,
            Self::Noised(_) => true,
        }
    }
}

impl Sum {
    fn of(weights: &[f64], skips: bool) -> Self {
        let used = |client: &usize| !skips || weights[*client] != 0.0;
        let clients: Vec<usize> = (0..weights.len()).filter(used).collect();
        let weights = clients.iter().map(|client| weights[*client]).collect();
        Self { clients, weights, base: 0.0, centre: 0.0, divisor: 1.0 }
    }

    /// The same weights divided by a power of two that brings their sum below one; exact but for numbers near zero.
    pub(crate) fn scaled_down(&self) -> Self {
        let scale = self.divisor.log2().floor().exp2() * 2.0;
        Self {
            clients: self.clients.clone(),
            weights: self.weights.iter().map(|weight| weight / scale).collect(),
            base: self.base / scale,
            centre: self.centre / scale,
            divisor: self.divisor / scale,
        }
    }
}

impl<'a> Select<'a> {
    fn of(statistic: OrderStatistic, mixing: Option<&'a Mixing>, clients: usize) -> Self {
        let Some(mixing) = mixing else {
            return Self { clients: (0..clients).collect(), mixing: None, statistic };
        };
        if let Some(clients) = mixing.all_chosen() {
            return Self { clients, mixing: None, statistic };
        }
        let has_part = |client: &usize| (0..mixing.len()).any(|row| mixing.row(row)[*client] != 0.0);
        Self { clients: (0..clients).filter(has_part).collect(), mixing: Some(mixing), statistic }
    }
}
