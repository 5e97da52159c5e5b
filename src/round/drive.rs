//! Drives the machine: once as far as it goes, or round after round.

use crate::io::interrupt;
use crate::io::journal::JournalError;
use crate::round::error::RoundError;
use crate::round::journal::Ending;
use crate::round::machine::{Machine, Step};
use crate::round::world::World;
use std::thread;
use std::time::Duration;

/// How far to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Until {
    /// As far as the state allows now.
    Waits,
    /// Until this number of rounds ended.
    Rounds(u64),
    /// Through this phase alone.
    Phase(String),
}

/// How it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Something was done, and the last step says what stopped it, if anything did.
    Progressed(Option<String>),
    /// Nothing is left to do, for this reason.
    Finished(String),
    /// Nothing could be done, for this reason.
    Waiting(String),
    /// A round published nothing, for this reason.
    Refused(String),
}

/// Pause between two looks at an inbox.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Drives the machine. `tell` hears of every event of a phase, and of the end of every round.
///
/// # Errors
///
/// When a phase fails, or a signal asks the run to stop.
pub fn drive<W: World>(
    machine: &mut Machine<'_, W>,
    until: &Until,
    mut tell: impl FnMut(&str, Option<&Ending>),
) -> Result<Outcome, RoundError> {
    let (mut progressed, mut ended) = (false, 0);
    interrupt::ends_itself();
    loop {
        interrupt::check().map_err(JournalError::from)?;
        let phase = machine.phase();
        if let Until::Phase(asked) = until
            && asked != phase
        {
            let why = format!("the next phase of round {} is {phase}", machine.state.next_round());
            return Ok(if progressed { Outcome::Progressed(Some(why)) } else { Outcome::Waiting(why) });
        }
        let step = machine.step()?;
        let is_end = matches!(step, Step::Published | Step::Refused(_));
        tell(phase, machine.state.ending().filter(|_| is_end));
        match step {
            Step::Advanced => progressed = true,
            Step::Finished(why) if progressed => return Ok(Outcome::Progressed(Some(why))),
            Step::Finished(why) => return Ok(Outcome::Finished(why)),
            Step::Waiting(_) if matches!(until, Until::Rounds(_)) => thread::sleep(LOOK_EVERY),
            Step::Waiting(why) if progressed => return Ok(Outcome::Progressed(Some(why))),
            Step::Waiting(why) => return Ok(Outcome::Waiting(why)),
            Step::Published | Step::Refused(_) => {
                ended += 1;
                progressed = true;
                match (until, step) {
                    (Until::Rounds(rounds), Step::Refused(why)) if ended == *rounds => {
                        return Ok(Outcome::Refused(why));
                    }
                    (Until::Rounds(rounds), _) if ended == *rounds => return Ok(Outcome::Progressed(None)),
                    (Until::Rounds(_), _) => {}
                    (_, Step::Refused(why)) => return Ok(Outcome::Refused(why)),
                    // The next round opens at once. Its end is for the next run.
                    _ if ended == 2 => return Ok(Outcome::Progressed(None)),
                    _ => {}
                }
            }
        }
    }
}
