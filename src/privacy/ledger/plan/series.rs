//! The plan of a series: one charge pays for all rounds.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::correlated::factor::Factor;
use crate::privacy::correlated::{MOST_BANDS, MOST_ROUNDS};
use crate::privacy::event::{Event, Module};
use crate::privacy::ledger::plan::correlated::Correlated;
use crate::privacy::ledger::plan::{BudgetPlan, ClipBound, PlanError, Sampling, in_range, noise};

impl BudgetPlan {
    /// Number of charges of the plan's event: one for each round, or one for a series.
    pub fn charges(&self) -> u64 {
        if self.correlated.is_some() { 1 } else { self.rounds }
    }

    /// The cost of a round. In a series only the first round that is charged costs anything.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn event_of_round(&self, is_first: bool) -> Result<Event, PlanError> {
        if self.correlated.is_some() && !is_first {
            return Ok(Event::NoOp { module_name: Module::Standard });
        }
        self.event()
    }

    /// Standard deviation of the noise that is drawn, divided by the bound of a client's integers. Correlated noise is
    /// wider by the sensitivity of its matrix and by the unit of its coefficients.
    ///
    /// # Errors
    ///
    /// When a count uses the whole budget.
    pub fn drawn_multiplier(&self) -> Result<f64, PlanError> {
        Ok(self.value_multiplier()? * self.spread())
    }

    /// Factor by which correlated noise is wider than independent noise; 1 for independent noise.
    pub(super) fn spread(&self) -> f64 {
        let spread = |correlated: &Correlated| {
            correlated.factor.unit() * correlated.factor.sensitivity(&correlated.schedule(self.rounds))
        };
        self.correlated.as_ref().map_or(1.0, spread)
    }

    /// The integer noise of a charge: of one round, or of all rounds of a series.
    pub fn noise_of(&self, level: Level, dimension: u64) -> IntegerNoise {
        let draws = self.correlated.map_or(1, |correlated| correlated.factor.draws(self.rounds));
        noise(level, dimension.saturating_mul(draws))
    }

    pub(super) fn check_correlated(&self) -> Result<(), PlanError> {
        let Some(Correlated { factor, participations, separation }) = self.correlated else { return Ok(()) };
        let count = "a count above 0";
        in_range("participations", participations as f64, participations > 0, count)?;
        in_range("separation", separation as f64, separation > 0, count)?;
        in_range(
            "rounds",
            self.rounds as f64,
            self.rounds <= MOST_ROUNDS,
            "at most 1048576 with correlated noise",
        )?;
        if let Factor::Banded { bands } = factor {
            in_range("bands", f64::from(bands), (1..=MOST_BANDS).contains(&bands), "from 1 to 256")?;
        }
        let refused = |why| Err(PlanError::Correlated { why });
        if self.sampling != Sampling::All {
            return refused(
                "found sampled clients, expected sampling all: sampling does not lower epsilon here",
            );
        }
        if !matches!(self.clip, ClipBound::Fixed(_)) {
            return refused(
                "found a clip bound that follows the norms, expected the same bound in all rounds",
            );
        }
        if self.dimension.is_none() {
            return refused("found no dimension, expected that of the model: all rounds are of one model");
        }
        Ok(())
    }
}
