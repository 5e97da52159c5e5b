//! The phases of a round as a machine: the last event of the journal says which phase acts next.
//!
//! Every phase may be killed at any moment and acts again: what it changes on disk it changes once. The event of the
//! next phase holds what the phase found, and is on disk before the next phase acts.

use crate::config::Config;
use crate::round::error::RoundError;
use crate::round::evaluate::Evaluated;
use crate::round::journal::{Ending, Event, Version};
use crate::round::layout;
use crate::round::secure::Ready;
use crate::round::state::{State, charges, sound};
use crate::round::world::{Merged, World};
use crate::round::{
    adapt, aggregate, collect, evaluate, fates, open, publish, report, rollback, secure, validate,
};
use std::collections::BTreeMap;
use std::path::Path;

/// The phases, in order.
pub const PHASES: [&str; 8] =
    ["open", "collect", "validate", "aggregate", "evaluate", "publish", "adapt", "report"];

/// What one step did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It began the next phase.
    Advanced,
    /// The round waits, for this reason.
    Waiting(String),
    /// The round is over and published a model.
    Published,
    /// The round is over and published nothing, for this reason.
    Refused(String),
    /// No further round opens, for this reason.
    Finished(String),
}

/// A federation and its world.
pub struct Machine<'w, W> {
    world: &'w mut W,
    config: &'w Config,
    /// Whether this run compared what rounds start from with its digests.
    is_checked: bool,
    /// Whether this run found the ledger of all charges.
    has_ledger: bool,
    /// The state of the federation.
    pub state: State,
}

impl<'w, W: World> Machine<'w, W> {
    /// Reads the state of a federation, and checks that its parts belong together.
    ///
    /// # Errors
    ///
    /// When there is none, or it is damaged, or a part of it is from a backup.
    pub fn open(world: &'w mut W, config: &'w Config, directory: &Path) -> Result<Self, RoundError> {
        let state = State::read(world, directory)?;
        state.check_whole(world)?;
        Ok(Self { world, config, is_checked: false, has_ledger: false, state })
    }

    /// Mends what a run finds before its first phase: a rollback that was killed, a lost link to the current model, and
    /// a registry that is older than the journals.
    ///
    /// # Errors
    ///
    /// When the current model is missing, or a file cannot be read or written.
    pub fn mend(&mut self) -> Result<(), RoundError> {
        rollback::finish(self.world, &self.state)?;
        sound::present(self.world, &self.state)?;
        sound::mend_link(self.world, &self.state)?;
        fates::record_missing(self.world, &self.state)
    }

    /// Checks that the round that goes on, or else the next one, starts from the model with this BLAKE3.
    ///
    /// # Errors
    ///
    /// When it starts from another one.
    pub fn check_start(&self, expected: &str) -> Result<(), RoundError> {
        let found = &self.state.carry.current.file.blake3;
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (layout::model(found), layout::model(expected));
        Err(RoundError::Refused(format!(
            "the next round starts from {found}, and --only-from asks for {expected}: another round ran since, or a rollback"
        )))
    }

    /// Compares what rounds start from with its digests, once in a run.
    fn check_base(&mut self) -> Result<(), RoundError> {
        if !self.is_checked {
            sound::base(self.world, self.config, &self.state)?;
            self.is_checked = true;
        }
        Ok(())
    }

    /// Refuses to go on without the ledger of earlier charges, once in a run.
    fn check_ledger(&mut self) -> Result<(), RoundError> {
        if self.config.privacy.enabled && !self.has_ledger {
            charges::check_ledger(self.world, self.state.carry.published)?;
            self.has_ledger = true;
        }
        Ok(())
    }

    /// Makes a kept version the current model. `restarts` leaves the state of its strategy behind.
    ///
    /// # Errors
    ///
    /// When a round merges its updates, the version is not kept or is damaged, or a file cannot be written.
    pub fn roll_back(&mut self, version: u64, restarts: bool) -> Result<Version, RoundError> {
        rollback::run(self.world, &mut self.state, version, restarts)
    }

    /// What the next step would do.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or there are too few clients.
    pub fn foresee(&mut self) -> Result<String, RoundError> {
        let Self { world, config, state, .. } = self;
        sound::present(*world, state)?;
        let round = state.next_round();
        match (state.last(), state.opening()) {
            (Some(Event::Collect { .. }), Some(opening)) => collect::look(*world, config, state, opening),
            (Some(event), _) if event.carry().is_none() => {
                Ok(format!("would go on with round {round} in the phase {}", event.name()))
            }
            _ => {
                if let Some(why) = charges::over(config, round, world.budget()?.as_ref()) {
                    return Ok(format!("would do nothing: {why}"));
                }
                charges::check(config, *world, state.carry.published)?;
                let opening = open::decide(*world, config, state)?;
                let ids: Vec<&str> =
                    opening.selection.choices.iter().map(|choice| choice.id.as_str()).collect();
                Ok(format!("would open round {round} with {} clients: {}", ids.len(), ids.join(", ")))
            }
        }
    }

    /// The name of the phase that acts next.
    pub fn phase(&self) -> &'static str {
        match self.state.last() {
            Some(event) if event.carry().is_none() => event.name(),
            _ => "open",
        }
    }

    /// Lets the next phase act.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or a command fails. The phase then acts again at the next call.
    pub fn step(&mut self) -> Result<Step, RoundError> {
        self.check_ledger()?;
        if matches!(self.state.last(), Some(Event::Aggregate(_))) {
            self.check_base()?;
        }
        let Self { world, config, state, .. } = self;
        let event = match state.last().filter(|event| event.carry().is_none()).cloned() {
            None => return self.begin(),
            Some(Event::Open(opening)) => {
                let (patches, session) = open::act(*world, config, state, &opening)?;
                Event::Collect { patches, session }
            }
            Some(Event::Collect { .. }) => return self.collect(),
            Some(Event::Validate(collected)) => {
                let validated = match state.is_secure() {
                    true => secure::validate(*world, state, &collected)?,
                    false => validate::act(*world, config, state, &collected)?,
                };
                Event::Aggregate(Box::new(validated))
            }
            Some(Event::Aggregate(validated)) => {
                let ready = secure::ready(*world, config, state, &validated);
                let ready = ready.and_then(|ready| secure::in_time(*world, config, state, ready));
                if let Ok(Ready::Waits(why)) = ready {
                    return Ok(Step::Waiting(why));
                }
                let merged =
                    ready.and_then(|ready| aggregate::act(*world, config, state, &validated, &ready));
                ended(merged, |merged| Event::Evaluate(Box::new(merged)))?
            }
            Some(Event::Evaluate(merged)) => self.evaluate(*merged)?,
            Some(Event::Publish { metrics }) => self.publish(&metrics)?,
            Some(Event::Adapt(ending)) => {
                let budget = world.budget()?;
                let base = state.opening().map(|opening| layout::model(&opening.base.file.blake3));
                let tiers = match base.filter(|_| !config.privacy.enabled) {
                    Some(base) => world.tiers(&base)?,
                    None => BTreeMap::new(),
                };
                let (settings, changes) = adapt::act(config, state, &ending, budget.as_ref(), &tiers);
                Event::Report { settings: Box::new(settings), changes }
            }
            Some(Event::Report { settings, changes }) => {
                let carry = report::act(*world, config, state, &settings, &changes)?;
                Event::Close(Box::new(carry))
            }
            Some(Event::Init(_) | Event::Close(_) | Event::Rollback(_)) => return self.begin(),
        };
        self.append(event)
    }

    fn append(&mut self, event: Event) -> Result<Step, RoundError> {
        let closes = matches!(event, Event::Close(_));
        self.state.append(self.world, self.state.round, event)?;
        match self.state.ending() {
            Some(Ending::Published(_)) if closes => Ok(Step::Published),
            Some(Ending::Refused { why, .. }) if closes => Ok(Step::Refused(why.clone())),
            _ => Ok(Step::Advanced),
        }
    }

    /// Opens the next round, if one is planned.
    fn begin(&mut self) -> Result<Step, RoundError> {
        let round = self.state.next_round();
        if let Some(why) = charges::over(self.config, round, self.world.budget()?.as_ref()) {
            return Ok(Step::Finished(why));
        }
        self.check_base()?;
        if !self.config.privacy.enabled {
            charges::check_stays(self.world)?;
        }
        fates::record_missing(self.world, &self.state)?;
        let population = self.world.population()?;
        self.world.prepare(population)?;
        let opening = open::decide(self.world, self.config, &self.state)?;
        self.state.append(self.world, round, Event::Open(Box::new(opening)))?;
        Ok(Step::Advanced)
    }

    fn collect(&mut self) -> Result<Step, RoundError> {
        let Self { world, config, state, .. } = self;
        let opening = state.opening().ok_or_else(|| RoundError::Refused(NO_OPENING.to_owned()))?;
        open::restore(*world, config, state, opening)?;
        let event = match collect::act(*world, config, state, opening)? {
            collect::Collecting::Waiting(why) => return Ok(Step::Waiting(why)),
            collect::Collecting::Closed(collected) => Event::Validate(collected),
        };
        self.append(event)
    }

    fn evaluate(&mut self, merged: Merged) -> Result<Event, RoundError> {
        let Self { world, config, state, .. } = self;
        let refused = match merged.refused {
            None => {
                let restored = aggregate::restore(*world, config, state, &merged);
                restored.err().map(RoundError::refusal).transpose()?
            }
            why => why,
        };
        Ok(match evaluate::act(*world, config, state, &Merged { refused, ..merged })? {
            Evaluated { metrics, refusal: None } => Event::Publish { metrics },
            Evaluated { metrics, refusal: Some(why) } => {
                Event::Adapt(Box::new(Ending::Refused { why, metrics }))
            }
        })
    }

    fn publish(&mut self, metrics: &BTreeMap<String, f64>) -> Result<Event, RoundError> {
        let Self { world, config, state, .. } = self;
        let merged = state.merged().ok_or_else(|| RoundError::Refused(NO_OPENING.to_owned()))?;
        let is_stored = world.holds(&layout::model(&merged.model.blake3), &merged.model);
        let restored = if is_stored { Ok(()) } else { aggregate::restore(*world, config, state, merged) };
        let done = restored.and_then(|()| publish::act(*world, config, state, merged, metrics));
        ended(done, |version| Event::Adapt(Box::new(Ending::Published(version))))
    }
}

const NO_OPENING: &str = "the journal of the round lacks an event of an earlier phase";

/// The event of the next phase; or the end of the round, if the policy refused it.
fn ended<T>(done: Result<T, RoundError>, next: impl FnOnce(T) -> Event) -> Result<Event, RoundError> {
    match done {
        Ok(found) => Ok(next(found)),
        Err(why) => {
            let (why, metrics) = (why.refusal()?, BTreeMap::new());
            Ok(Event::Adapt(Box::new(Ending::Refused { why, metrics })))
        }
    }
}
