//! The operator's policy: which updates take part, what each must hold, and how many must come.

use crate::engine::intake::claims::Claims;
use crate::engine::intake::classes::ClassPatterns;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::Personal;
use crate::engine::intake::weights::Weighting;
use crate::model::dtype::Dtype;
use crate::model::state::StateTensor;
use crate::strategies::Strategy;
use crate::updates::metadata::{SCAFFOLD_CONTROL, UpdateKind, UpdateMetadata};

/// What the server does about a bad update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBadUpdate {
    /// The run ends with an error.
    Fail,
    /// The run continues without the update.
    Skip,
}

/// What the server does about a tensor that an update lacks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Missing {
    /// The update is bad.
    #[default]
    Reject,
    /// The update stands at the base there.
    Base,
    /// The tensor is merged over the clients that have it.
    Present,
}

/// Conditions for taking part in a run.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The number of the round. An update whose metadata names a round must name this one. `None` accepts all rounds.
    pub round: Option<u64>,
    /// The fewest clients with a part in the result; `None` without `--min-clients`.
    pub min_clients: Option<usize>,
    /// What the server does about a bad update.
    pub on_bad_update: OnBadUpdate,
    /// The source of the clients' weights.
    pub weighting: Weighting,
    /// The number of all clients; `None` without `--population`.
    pub population: Option<usize>,
    /// Whether updates of other rounds take part, as deltas.
    pub takes_stale: bool,
    /// Whether rules that compare clients accept updates in which the client chose few values to send.
    pub allows_sparse: bool,
    /// What the run believes of what an update says of itself.
    pub claims: Claims,
    /// Which tensors an update must hold, and what they are.
    pub tensors: TensorPolicy,
}

/// Which tensors an update must hold, and what they are.
#[derive(Clone, Default, Debug)]
pub struct TensorPolicy {
    /// Layers that stay with the clients: updates may hold them or not, in any shape.
    pub personal: Personal,
    /// Tensors that are statistics or opaque, beyond those that their names tell.
    pub classes: ClassPatterns,
    /// What the server does about a tensor that an update lacks.
    pub missing: Missing,
    /// The dtype of the merged model's float tensors; `None` for the reference's.
    pub dtype: Option<Dtype>,
    /// Whether factors of LoRA adapters are merged one by one.
    pub allows_lora_factors: bool,
    /// The prefix of control tensors, if updates must hold one for each parameter of the layout.
    pub control_prefix: Option<&'static str>,
}

/// The prefix of the control tensors that updates must hold for a strategy; `None` if it keeps no control variate.
pub fn control_prefix(strategy: &dyn Strategy) -> Option<&'static str> {
    strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control).then_some(SCAFFOLD_CONTROL)
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            round: None,
            min_clients: None,
            on_bad_update: OnBadUpdate::Fail,
            weighting: Weighting::Default,
            population: None,
            takes_stale: false,
            allows_sparse: false,
            claims: Claims::default(),
            tensors: TensorPolicy::default(),
        }
    }
}

impl Policy {
    /// The reason to refuse a run in which only `parts` of the clients have a part in the model, if there is one.
    pub fn too_few(&self, parts: usize, clients: usize) -> Option<String> {
        let least = self.min_clients.filter(|least| parts < *least)?;
        Some(format!(
            "{parts} of {clients} clients have a part in the merged model, expected at least {least}"
        ))
    }

    /// The fewest clients of a run: one, unless the operator says more.
    pub fn least_clients(&self) -> usize {
        self.min_clients.unwrap_or(1).max(1)
    }

    /// The fault of an update that names another round; `None` if the round fits.
    pub(super) fn round_fault(&self, update: &UpdateMetadata) -> Option<Fault> {
        let (found, expected) = (update.round?, self.round?);
        match (found == expected, self.takes_stale, update.kind) {
            (true, ..) | (false, true, UpdateKind::Delta) => None,
            (false, true, UpdateKind::Weights) => Some(Fault::StaleWeights { found, expected }),
            (false, false, _) => Some(Fault::OtherRound { found, expected }),
        }
    }

    /// Whether an update started from the base, judged by its round.
    pub(super) fn starts_here(&self, update: &UpdateMetadata) -> bool {
        let is_other = update.round.zip(self.round).is_some_and(|(found, expected)| found != expected);
        !(self.takes_stale && is_other)
    }
}
