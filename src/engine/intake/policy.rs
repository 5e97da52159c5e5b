//! What the operator asks of updates: which take part, what each must say and hold, and how many must come.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::Personal;
use crate::engine::intake::weights::Weighting;
use crate::updates::metadata::{UpdateKind, UpdateMetadata};

/// What the server does about an update that cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBadUpdate {
    /// Ends the run with an error.
    Fail,
    /// Goes on without the update.
    Skip,
}

/// Conditions for taking part in a run.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The number of the round. An update that names the round it was made in must name this one.
    pub round: Option<u64>,
    /// The fewest clients that make a run.
    pub min_clients: usize,
    /// What happens to a bad update.
    pub on_bad_update: OnBadUpdate,
    /// How much each client counts.
    pub weighting: Weighting,
    /// Layers that stay with the clients: updates may hold them or not, in any shape.
    pub personal: Personal,
    /// How many clients there are in all, if the operator says.
    pub population: Option<usize>,
    /// Whether updates of other rounds take part, as deltas.
    pub takes_stale: bool,
    /// Whether updates take part under any rule if their client chose few values to send.
    pub allows_sparse: bool,
    /// The prefix of control tensors, if updates must hold one for each float tensor of the layout.
    pub control_prefix: Option<&'static str>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            round: None,
            min_clients: 1,
            on_bad_update: OnBadUpdate::Fail,
            weighting: Weighting::Default,
            personal: Personal::default(),
            population: None,
            takes_stale: false,
            allows_sparse: false,
            control_prefix: None,
        }
    }
}

impl Policy {
    /// The fault of an update that names another round.
    pub(super) fn round_fault(&self, update: &UpdateMetadata) -> Option<Fault> {
        let (found, expected) = (update.round?, self.round?);
        match (found == expected, self.takes_stale, update.kind) {
            (true, ..) | (false, true, UpdateKind::Delta) => None,
            (false, true, UpdateKind::Weights) => Some(Fault::StaleWeights { found, expected }),
            (false, false, _) => Some(Fault::OtherRound { found, expected }),
        }
    }

    /// Whether an update started from the model that is merged onto, as far as rounds tell.
    pub(super) fn starts_here(&self, update: &UpdateMetadata) -> bool {
        let is_other = update.round.zip(self.round).is_some_and(|(found, expected)| found != expected);
        !(self.takes_stale && is_other)
    }
}
