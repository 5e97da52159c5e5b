//! What the inputs of a leaf say alike, so that its partial can say it too: their round.

use crate::engine::aggregate::error::{Error, Unsupported};
use crate::engine::intake::agreed::{Agreement, agreed};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::update::Update;
use crate::modes::tree::admission::describe;
use std::collections::BTreeSet;

/// The round that most inputs state, without `--round`; `None` if most state none. Those of another round get a fault.
///
/// # Errors
///
/// When as many inputs state one round as another.
pub fn round(updates: &mut [Update], partials: &mut [Update]) -> Result<Option<u64>, Error> {
    let of_partial = |partial: &Update| describe(partial).ok().and_then(|(_, description)| description.round);
    let of_update = |update: &Update| update.metadata.round;
    let stated: Vec<Option<u64>> =
        updates.iter().map(of_update).chain(partials.iter().map(of_partial)).collect();
    let mut seen = BTreeSet::new();
    let inputs = updates.iter().chain(partials.iter()).zip(&stated);
    // Several files with one id have one vote.
    let sound = inputs.filter(|(input, _)| input.faults.is_empty() && seen.insert(input.id.as_str()));
    let expected = match agreed(sound.map(|(_, round)| *round)) {
        Agreement::None => return Ok(None),
        Agreement::On(round) => round,
        Agreement::Tied(one, other) => {
            return Err(Unsupported {
                option: format!("--partial over updates of round {one} and as many of round {other}"),
                mode: None,
                why: "has no round to state".to_owned(),
                hint: Some("pass --round N, and the updates of other rounds are bad updates"),
            }
            .into());
        }
    };
    for (input, found) in updates.iter_mut().chain(partials).zip(stated) {
        let other = found.filter(|found| *found != expected);
        input.faults.extend(other.map(|found| Fault::OtherRound { found, expected }));
    }
    Ok(Some(expected))
}
