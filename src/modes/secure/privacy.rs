//! Differential privacy of a session: clients bound their norm, and noise comes into the sum.
//!
//! A client scales its update to a norm of at most S, and truncates the values to integers whose squares add up to at most
//! B^2, by an exact check. So one client changes the sum of integers by at most B.
//!
//! - [`NoiseFrom::Distributed`]: each client adds a discrete Gaussian of deviation s to each integer before it masks it. Of
//!   the `min_survivors` clients of a sum, `colluders` may tell the server their noise, and the draws of the m others stay:
//!   B = sqrt(m) s / z for the noise multiplier z. The sum of m discrete Gaussians is not one, but its distance, 10 times the
//!   sum of exp(-2 pi^2 s^2 k / (k + 1)) for k below m, is 0 for the s here: 2^21, or 2^16 where the noise of many clients
//!   would fill the field.
//! - [`NoiseFrom::Central`]: the server adds one draw to the sum that it sees: B = s / z.
//!
//! Paper: Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism for federated learning with secure
//! aggregation", 2021, theorem 1 and section 4. Their randomised rounding may raise a norm; truncation does not.

use crate::budget::books::Books;
use crate::budget::error::BudgetError;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::field::P;
use crate::modes::secure::manifest::SessionTerms;
use crate::parties::error::SecureError;
use crate::parties::tensors::ClientWeights;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::ledger::budget::{self, Verdict};
use crate::privacy::ledger::plan::{BudgetPlan, ClipBound};
use crate::privacy::ledger::record::NoiseFrom;
use crate::record::Head;
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The widths of one draw that a session may have, the widest first.
const LEVELS: [Level; 2] = [Level::L2, Level::L1];

/// A part of the norm that the largest integer of one coordinate must have at least, for the wider draws: larger values of
/// a coordinate are clipped.
const LARGEST_COORDINATE: u64 = 8;

/// Standard deviations of the noise of a sum for which the field has room. A coordinate exceeds them with a probability of
/// 2^-107; its sum is then wrong, and no less private.
const ROOM: f64 = 12.0;

/// How a server wants a session to be private.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrivacyRequest {
    /// The state directory of the budget.
    pub budget: PathBuf,
    /// Who draws the noise.
    pub mode: NoiseFrom,
    /// Clients of a sum that may tell the server their noise.
    pub colluders: usize,
}

/// How a session is private.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct PrivacyTerms {
    /// Who draws the noise.
    pub mode: NoiseFrom,
    /// The largest norm of a client's change, S.
    pub clip_norm: f64,
    /// The width of one draw.
    pub level: Level,
    /// The largest norm of a client's integers, B.
    pub norm_bound: u64,
    /// The least deviation of the noise of a sum, divided by B: z.
    pub noise_multiplier: f64,
    /// Clients of a sum that may tell the server their noise; 0 with central noise.
    pub colluders: usize,
    /// The divisor of sums, which the plan of the budget fixes.
    pub denominator: u64,
    /// The digest of the plan of the budget.
    pub plan_sha256: Sha256,
    /// The end of the ledger when the session was opened.
    pub ledger: Head,
}

impl PrivacyTerms {
    /// The terms by the plan of a budget, for sums of `clients` clients at most, and `min_survivors` at least.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or its plan is for another kind of rounds.
    pub fn of_request(
        request: &PrivacyRequest,
        (clients, min_survivors): (u64, usize),
        (values, names): (usize, Sha256),
    ) -> Result<Self, SecureError> {
        let books = Books::read(&request.budget).map_err(of_budget(&request.budget))?;
        let plan = books.state.plan();
        let refused = |(why, hint): (String, &str)| {
            SecureError::refused(format!("{}: {why}", request.budget.display()), Some(hint))
        };
        check_plan(plan).map_err(refused)?;
        books.terms(values as u64).map_err(of_budget(&request.budget))?;
        books.check_tensors(&names).map_err(of_budget(&request.budget))?;
        let honest = match request.mode {
            NoiseFrom::Central => 1,
            NoiseFrom::Distributed => min_survivors.saturating_sub(request.colluders),
        };
        if honest == 0 || (request.mode == NoiseFrom::Central && request.colluders > 0) {
            let why = format!(
                "found {} colluders, expected fewer than the {min_survivors} clients of a sum, and none with central noise",
                request.colluders
            );
            return Err(SecureError::terms("--colluders", why));
        }
        let mut terms = Self {
            mode: request.mode,
            clip_norm: plan.first_clip(),
            level: Level::L2,
            norm_bound: 0,
            noise_multiplier: plan.noise_multiplier,
            colluders: request.colluders,
            denominator: plan.denominator,
            plan_sha256: plan.sha256(),
            ledger: books.state.head,
        };
        (terms.level, terms.norm_bound) = terms.widest(clients, honest);
        if terms.levels(clients) == 0 {
            return Err(SecureError::terms("--dp", no_room(clients)));
        }
        // Who reads the session's folder can compute the sum once helpers answered, so `unmask` is late to refuse.
        let noise = IntegerNoise::of_draws(terms.level, honest as u64, values as u64);
        if let Some(verdict) = over_budget(&books, noise).map_err(of_budget(&request.budget))? {
            return Err(SecureError::refused(format!("over the privacy budget: {verdict}"), None));
        }
        Ok(terms)
    }

    /// The widest draws that leave room for the values of `clients` clients, and the largest norm of a client's integers.
    fn widest(&self, clients: u64, honest: usize) -> (Level, u64) {
        let of = |level: Level| (level, norm_bound(level, honest, self.noise_multiplier));
        let [widest, narrow] = LEVELS.map(of);
        let room = Self { level: widest.0, norm_bound: widest.1, ..self.clone() };
        let is_wide = u64::from(room.levels(clients)) * LARGEST_COORDINATE >= widest.1;
        if is_wide { widest } else { narrow }
    }

    /// Draws in a sum that the server does not know, at least.
    pub fn honest(&self, min_survivors: usize) -> usize {
        match self.mode {
            NoiseFrom::Central => 1,
            NoiseFrom::Distributed => min_survivors.saturating_sub(self.colluders),
        }
    }

    /// The largest noise of a sum of `clients` clients for which the field has room.
    pub fn room(&self, clients: u64) -> u64 {
        match self.mode {
            NoiseFrom::Central => 0,
            NoiseFrom::Distributed => (ROOM * (clients as f64).sqrt() * self.level.sigma()).ceil() as u64,
        }
    }

    /// The largest integer of a value, so that no sum of `clients` clients overflows; 0 if there is none.
    pub fn levels(&self, clients: u64) -> u32 {
        let room = u64::from(P / 2).saturating_sub(self.room(clients)) / clients.max(1);
        u32::try_from(room.min(self.norm_bound)).unwrap_or(0)
    }

    /// The magnitude of a value that becomes the largest integer.
    pub fn clip(&self, levels: u32) -> f64 {
        f64::from(levels) * (self.clip_norm / self.norm_bound as f64)
    }

    /// Checks that the numbers fit each other and the other terms of the session.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn check(&self, terms: &SessionTerms) -> Result<(), String> {
        let others = [
            ("weights", terms.weights != ClientWeights::Uniform),
            ("steps_cap", terms.steps_cap.is_some()),
            ("statistics_clip", terms.statistics_clip.is_some()),
            ("control_clip", terms.control_clip.is_some()),
            ("several values in a lane", terms.grid.per_lane > 1),
            ("several groups", terms.groups > 1),
        ];
        if let Some((what, _)) = others.iter().find(|(_, is_found)| *is_found) {
            return Err(format!(
                "privacy: found {what}, expected none: the noise is for one clipped sum of equal clients"
            ));
        }
        let honest = self.honest(terms.min_survivors);
        let is_sound =
            self.clip_norm.is_normal() && self.clip_norm > 0.0 && self.noise_multiplier.is_normal();
        if !is_sound || self.noise_multiplier <= 0.0 || self.denominator == 0 || honest == 0 {
            return Err("privacy: expected a clip norm, a noise multiplier and a divisor above 0, and fewer colluders than \
                        min_survivors".to_owned());
        }
        let (level, bound) = self.widest(terms.grid.contributors, honest);
        if self.level != level {
            return Err(format!("privacy: level is {:?}, expected {level:?}", self.level));
        }
        if self.norm_bound != bound || bound == 0 {
            return Err(format!("privacy: norm_bound is {}, expected {bound}, above 0", self.norm_bound));
        }
        let most = self.levels(terms.grid.contributors);
        if terms.grid.levels != most || most == 0 {
            let found = terms.grid.levels;
            return Err(format!("privacy: the grid has {found} levels, expected {most}, above 0"));
        }
        match terms.clip == self.clip(most) {
            true => Ok(()),
            false => Err(format!("clip is {}, expected {}", terms.clip, self.clip(most))),
        }
    }
}

/// Why a sum of this number of clients has no room for their values.
fn no_room(clients: u64) -> String {
    format!(
        "the noise of {clients} clients fills the field of 2^32 numbers, expected fewer clients in a session, or central noise"
    )
}

/// The largest norm of a client's integers, for `draws` draws and a noise multiplier.
fn norm_bound(level: Level, draws: usize, noise_multiplier: f64) -> u64 {
    ((draws as f64).sqrt() * level.sigma() / noise_multiplier) as u64
}

/// Checks that a plan is one whose cost holds against the server of a session.
fn check_plan(plan: &BudgetPlan) -> Result<(), (String, &'static str)> {
    let another = "make another budget with `fedmill privacy init`";
    if plan.sampling_rate < 1.0 {
        let why = "its plan counts on sampling, which the server of a session sees: it knows who took part";
        return Err((why.to_owned(), "make a budget with --sampling all"));
    }
    if plan.correlated.is_some() || matches!(plan.clip, ClipBound::Adaptive(_)) {
        return Err((
            "its plan has correlated noise or an adaptive clip, expected neither".to_owned(),
            another,
        ));
    }
    if plan.level.is_some_and(|level| level != Level::L2) {
        return Err(("its plan has noise of level L3, expected L2: fewer coordinates".to_owned(), another));
    }
    Ok(())
}

/// The verdict on one more sum if the budget does not hold it; `None` if it does.
fn over_budget(books: &Books, noise: IntegerNoise) -> Result<Option<Verdict>, BudgetError> {
    let plan = books.state.plan();
    let verdict = budget::would(&books.state, &plan.event()?, Some(noise), None)?;
    Ok((!verdict.fits()).then_some(verdict))
}

/// The error of a budget.
pub fn of_budget(path: &Path) -> impl Fn(BudgetError) -> SecureError + '_ {
    |why| {
        let (hint, path) = (why.hint(), path.display().to_string());
        let text = why.to_string();
        // Most of its messages begin with the path.
        match text.strip_prefix(&format!("{path}: ")) {
            Some(why) => SecureError::Terms { what: path, hint, why: why.to_owned() },
            None => SecureError::Terms { what: "--dp".to_owned(), hint, why: text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(mode: NoiseFrom, draws: usize, z: f64) -> PrivacyTerms {
        PrivacyTerms {
            mode,
            clip_norm: 2.0,
            level: Level::L2,
            norm_bound: norm_bound(Level::L2, draws, z),
            noise_multiplier: z,
            colluders: 0,
            denominator: 10,
            plan_sha256: Sha256::of("plan"),
            ledger: Head { seq: 0, sha256: Sha256::of("init") },
        }
    }

    #[test]
    fn the_bound_is_the_deviation_of_the_sum_over_the_multiplier() {
        // sqrt(100) * 2098176.75 / 2, worked out by hand.
        assert_eq!(norm_bound(Level::L2, 100, 2.0), 10_490_883);
        assert_eq!(norm_bound(Level::L2, 1, 1.0), 2_098_176);
        assert_eq!(norm_bound(Level::L1, 100, 2.0), 327_840);
    }

    #[test]
    fn sums_with_their_noise_fit_the_field() {
        for clients in [2, 10, 100, 1_000, 5_000] {
            for mode in [NoiseFrom::Distributed, NoiseFrom::Central] {
                let terms = terms(mode, 10, 1.0);
                let levels = u64::from(terms.levels(clients));
                assert!(levels > 0 && levels <= terms.norm_bound, "{clients}");
                assert!(clients * levels + terms.room(clients) <= u64::from(P / 2));
            }
        }
        assert_eq!(terms(NoiseFrom::Distributed, 10, 1.0).levels(10_000), 0, "no room is left");
    }

    /// The draws are narrower once an eighth of the norm does not fit one coordinate beside the noise.
    #[test]
    fn many_clients_draw_narrower_noise() {
        for (mode, draws, clients, expected) in [
            (NoiseFrom::Distributed, 5, 10, Level::L2),
            (NoiseFrom::Distributed, 150, 300, Level::L2),
            (NoiseFrom::Distributed, 500, 1_000, Level::L1),
            (NoiseFrom::Distributed, 5_000, 10_000, Level::L1),
            (NoiseFrom::Distributed, 50_000, 100_000, Level::L1),
            (NoiseFrom::Central, 1, 1_000, Level::L2),
            (NoiseFrom::Central, 1, 10_000, Level::L1),
        ] {
            let (level, norm_bound) = terms(mode, draws, 1.0).widest(clients, draws);
            assert_eq!(level, expected, "{clients} clients");
            let found = PrivacyTerms { level, norm_bound, ..terms(mode, draws, 1.0) };
            let levels = u64::from(found.levels(clients));
            assert!(
                clients * levels + found.room(clients) <= u64::from(P / 2) && levels * 1_000 > norm_bound
            );
            assert_eq!(norm_bound, norm_bound_of(level, draws), "{clients} clients");
        }
    }

    fn norm_bound_of(level: Level, draws: usize) -> u64 {
        let sigma: f64 = if level == Level::L2 { 2_098_176.750_6 } else { 65_568.022_2 };
        (sigma * (draws as f64).sqrt()) as u64
    }
}
