//! The root of a tree: merges updates and partials into the model.

use crate::engine::aggregate::culprits::Faulty;
use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::mode::{Mode, Plain};
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::run::run_as;
use crate::engine::aggregate::session::Session;
use crate::engine::decide::judge::Judgement;
use crate::engine::decide::method::Reporting;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::sparse::Comparer;
use crate::engine::intake::taken::Taken;
use crate::engine::intake::weights::Weighting;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::modes::tree::Partial;
use crate::modes::tree::admission::{add_members, apart, join};
use crate::modes::tree::agreed;
use crate::modes::tree::alone::EachPartial;
use crate::modes::tree::purpose::Purpose;
use crate::modes::tree::sums::{CPU_ONLY, TreeSum};
use crate::rules::Recipe;
use crate::telemetry::report::Report;

/// Merges updates and partials into the model. Without partials, this is the plain run.
///
/// # Errors
///
/// The errors of an aggregate run, and an option that partials do not support.
pub fn run(request: Request, machine: Machine) -> Result<Report, Error> {
    run_as(&mut Node::default(), request, machine)
}

/// Why a report of a tree's node has no metrics.
const NO_METRICS: &str = "no norms and no metrics: partials hold sums, not the values of each client";

/// A node of a tree.
#[derive(Default)]
pub struct Node {
    /// The partials below, in the order of [`Taken::others`].
    pub(super) partials: Vec<Partial>,
    /// The purpose of the sums, if this node writes a partial.
    pub(super) writes: Option<Purpose>,
    /// The round that its inputs state, if this node writes a partial without `--round`.
    pub(super) round: Option<u64>,
}

impl Mode for Node {
    fn take(&mut self, session: &mut Session) -> Result<Taken, Error> {
        loop {
            let (mut partials, mut updates) = apart(std::mem::take(&mut session.updates));
            if self.writes.is_some() && session.request.policy.round.is_none() {
                self.round = agreed::round(&mut updates, &mut partials)?;
            }
            let mut taken = session.admit(updates)?;
            self.partials = match (self.writes, partials.is_empty()) {
                (None, true) => Vec::new(),
                (writes, _) => {
                    let purpose = writes.map_or_else(|| Purpose::of(&session.request), Ok)?;
                    let joined = join(&mut taken, partials, purpose, &session.request.policy);
                    taken.cpu_only = Some(CPU_ONLY);
                    joined.map_err(|why| session.unread_base(why))?
                }
            };
            session.settle(&mut taken)?;
            match self.count(session, &mut taken)? {
                faults if faults.is_empty() => {
                    session.check_quorum(&taken)?;
                    return Ok(taken);
                }
                faults => session.updates = taken.dissolve(faults),
            }
        }
    }

    fn judge(&mut self, session: &mut Session, taken: &Taken) -> Result<Judgement, Stopped> {
        if !self.partials.is_empty() {
            session.request.reporting = Reporting::default();
        }
        session.judge(taken)
    }

    fn reducer<'t>(
        &'t self,
        taken: &'t Taken,
        judgement: &'t Judgement,
        skips: bool,
    ) -> Box<dyn Reducer + 't> {
        let sum = |recipe: &Recipe| TreeSum::of(recipe, &taken.set, &self.partials);
        match judgement.recipe.as_ref().filter(|_| !self.partials.is_empty()).and_then(sum) {
            Some(sum) => Box::new(sum),
            None => Plain.reducer(taken, judgement, skips),
        }
    }

    fn culprits(&self, session: &Session, why: &Error, taken: &Taken) -> Result<Faulty, PassError> {
        match why {
            Error::Pass(why) if !self.partials.is_empty() => self.alone(session, taken).overflowing(why),
            _ => Ok(Vec::new()),
        }
    }

    fn report(&self, _: &Taken, report: &mut Report) {
        if self.writes.is_some() || !self.partials.is_empty() {
            report.clients.sort_by(|a, b| a.id.cmp(&b.id));
            report.warnings.push(NO_METRICS.to_owned());
        }
    }
}

impl Node {
    /// Reads the weights of the updates and of the partials' members.
    fn count(&self, session: &Session, taken: &mut Taken) -> Result<Vec<(usize, Fault)>, Error> {
        let (policy, method) = (&session.request.policy, &session.request.method);
        let comparer = method.comparer();
        let of = |_: &str| comparer.clone();
        let refuses_sketches = self.writes.map(|_| "a partial");
        let faults = session.count(taken, &Comparer { of: &of, refuses_sketches })?;
        if !faults.is_empty() {
            return Ok(faults);
        }
        let mut faults = add_members(taken, &self.partials, policy.weighting != Weighting::Default);
        if policy.claims.kind.is_none() {
            faults.extend(self.alone(session, taken).likely_deltas()?);
        }
        let clients = taken.cohort.clients.len();
        taken.byzantine = method.byzantine.as_ref().map(|share| share.of(clients));
        Ok(faults)
    }

    fn alone<'a>(&'a self, session: &'a Session, taken: &'a Taken) -> EachPartial<'a> {
        EachPartial { machine: &session.machine, set: &taken.set, partials: &self.partials }
    }
}
