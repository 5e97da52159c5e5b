//! Finds the updates that stopped a pass.
//!
//! An update is at fault for its values, for what the server's step makes of them, or for its claim.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::geometry::faults_of_values;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::overflow::overflows;
use crate::engine::passes::reach::Reach;
use crate::engine::passes::survey::{Measured, measure};
use crate::strategies::{Cohort, Strategy};
use crate::updates::set::UpdateSet;

/// Faults of updates, by index: the clients, then the other inputs.
pub type Faulty = Vec<(usize, Fault)>;

/// A search among the updates of a run that stopped.
pub struct Search<'s, 'm> {
    /// The machine.
    pub machine: &'s Machine<'m>,
    /// The strategy of the run.
    pub strategy: &'s dyn Strategy,
    /// The bytes that the run read; the search adds its own.
    pub bytes_read: &'s mut u64,
}

impl Search<'_, '_> {
    /// The faults of the updates that stopped a pass.
    ///
    /// # Errors
    ///
    /// The error itself, if no update caused it.
    pub fn culprits(&mut self, why: Error, set: &UpdateSet, cohort: &Cohort) -> Result<Faulty, Error> {
        match why {
            Error::Pass(PassError::BadInput { input, fault }) => {
                Ok(vec![(set.clients.len() + input, Fault::Mode { fault, is_relative: false, hint: None })])
            }
            Error::Pass(why) if why.may_be_of_values() && !set.clients.is_empty() => {
                let found = self.of_values(&why, set, cohort)?;
                if found.is_empty() { Err(Error::of_step(why, self.strategy)) } else { Ok(found) }
            }
            Error::Pass(PassError::Read { input: Some(input), source, .. }) => {
                Ok(vec![(input, Fault::Read(source))])
            }
            other => Err(other),
        }
    }

    /// The updates with values, or a claim, that may have caused this end of a pass.
    fn of_values(&mut self, why: &PassError, set: &UpdateSet, cohort: &Cohort) -> Result<Faulty, Error> {
        self.machine.progress.start("looking for bad values", set.data_bytes());
        *self.bytes_read += set.data_bytes();
        let measured = measure(self.machine, set)?;
        let mut found = faults_of_values(set, &measured);
        if let (true, PassError::DoesNotFit { reach, .. }) = (found.is_empty(), why) {
            found = self.of_step(reach, set, cohort)?;
        }
        Ok(if found.is_empty() { too_large_to_sum(&measured, cohort) } else { found })
    }

    /// The updates that the server's step takes too far without a factor; else one whose claim stretches the deltas of
    /// others; else those that step and factors take too far.
    fn of_step(&mut self, reach: &Reach, set: &UpdateSet, cohort: &Cohort) -> Result<Faulty, Error> {
        let found = self.too_far(&reach.unstretched(), set)?;
        if !found.is_empty() || !reach.is_stretched() {
            return Ok(found);
        }
        match self.strategy.outlying_claim(cohort).filter(|(client, _)| *client < set.clients.len()) {
            Some((client, fault)) => Ok(vec![(client, fault.into())]),
            None => self.too_far(reach, set),
        }
    }

    fn too_far(&mut self, reach: &Reach, set: &UpdateSet) -> Result<Faulty, Error> {
        *self.bytes_read += set.data_bytes();
        let found = overflows(self.machine, set, reach)?.into_iter().enumerate();
        Ok(found.filter_map(|(client, found)| Some((client, found?.into()))).collect())
    }
}

/// The updates whose largest value does not fit f64 once all clients' weights multiply it: sums of such values
/// overflow.
fn too_large_to_sum(measured: &[Measured], cohort: &Cohort) -> Faulty {
    let weights: f64 = cohort.weights.iter().map(|weight| weight.max(1.0)).sum();
    let faults = measured.iter().enumerate().filter(|(_, of)| !(of.max_abs * weights).is_finite());
    faults.map(|(client, of)| (client, Fault::TooLargeToSum { value: of.max_abs, weights })).collect()
}
