//! The hooks by which a mode changes an aggregate run. The default of each hook is the plain run.

use crate::engine::aggregate::culprits::Faulty;
use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::publish::Complete;
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::session::Session;
use crate::engine::decide::judge::Judgement;
use crate::engine::intake::sparse::Comparer;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::compile::compile;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::error::PassError;
use crate::io::interrupt::Section;
use crate::io::publish::turn::Turn;
use crate::telemetry::report::Report;
use std::collections::BTreeMap;

/// The hooks of a mode. The default of each is the step of the plain run.
pub trait Mode {
    /// Checks the request before anything is read.
    ///
    /// # Errors
    ///
    /// The first option that the mode does not support.
    fn check(&self, request: &Request) -> Result<(), Unsupported> {
        let _ = request;
        Ok(())
    }

    /// Takes updates into the run.
    ///
    /// # Errors
    ///
    /// When updates are bad and may not be skipped, or too few are left.
    fn take(&mut self, session: &mut Session) -> Result<Taken, Error> {
        loop {
            let updates = std::mem::take(&mut session.updates);
            let mut taken = session.admit(updates)?;
            session.settle(&mut taken)?;
            let comparer = session.request.method.comparer();
            let of = |_: &str| comparer.clone();
            match session.count(&mut taken, &Comparer { of: &of, refuses_sketches: None })? {
                faults if faults.is_empty() => {
                    session.check_quorum(&taken)?;
                    return Ok(taken);
                }
                faults => session.updates = taken.dissolve(faults),
            }
        }
    }

    /// Judges the clients.
    ///
    /// # Errors
    ///
    /// When an update is bad or cannot be read, or the rule, a step or the strategy cannot be used.
    fn judge(&mut self, session: &mut Session, taken: &Taken) -> Result<Judgement, Stopped> {
        session.judge(taken)
    }

    /// Compiles the judgement into the reducer of the second pass. With `skips`, the pass does not read clients of
    /// weight 0.
    #[expect(clippy::expect_used, reason = "a mode whose judgement has no recipe overrides this method")]
    fn reducer<'t>(
        &'t self,
        taken: &'t Taken,
        judgement: &'t Judgement,
        skips: bool,
    ) -> Box<dyn Reducer + 't> {
        let recipe = judgement.recipe.as_ref().expect("a judgement by a rule has a recipe");
        let members: Vec<usize> = (0..taken.set.clients.len()).collect();
        compile(recipe, &taken.set, &members, skips)
    }

    /// The faults of inputs that only the mode reads and that stopped a pass, by index: the clients, then the others.
    ///
    /// # Errors
    ///
    /// When an input cannot be read.
    fn culprits(&self, session: &Session, why: &Error, taken: &Taken) -> Result<Faulty, PassError> {
        let _ = (session, why, taken);
        Ok(Vec::new())
    }

    /// Checks that no input changed while the run read it: the merged model would mix two versions.
    ///
    /// # Errors
    ///
    /// The updates that changed; or the error of another file that did.
    fn check_unchanged(&self, session: &Session, taken: &Taken) -> Result<(), Stopped> {
        session.check_unchanged(taken)
    }

    /// Adds to the metadata of the merged model.
    fn describe(&self, taken: &Taken, metadata: &mut BTreeMap<String, String>) {
        let _ = (taken, metadata);
    }

    /// Gives the outputs their names.
    ///
    /// # Errors
    ///
    /// When a file cannot be renamed.
    fn publish(&self, outputs: Complete) -> Result<(), Error> {
        let _turn = Turn::take(outputs.model.path());
        let _whole = Section::enter();
        outputs.publish()
    }

    /// Adds to the report.
    fn report(&self, taken: &Taken, report: &mut Report) {
        let _ = (taken, report);
    }
}

/// The plain run.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Mode for Plain {}
