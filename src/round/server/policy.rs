//! Which clients a round may select, and what its updates may claim and weigh.

use crate::config::sections::SentKind;
use crate::engine::decide::method::Method;
use crate::engine::intake::claims::{Claims, ClientIdFrom};
use crate::engine::intake::policy::{OnBadUpdate, Policy, TensorPolicy, control_prefix};
use crate::engine::intake::weights::{Weighting, read_table};
use crate::fleet::select::pool::NO_KEY;
use crate::fleet::select::{Constraints, Selection};
use crate::model::client_id::IdSource;
use crate::round::error::RoundError;
use crate::round::server::Server;
use crate::round::world::MergeOrder;
use crate::strategies::Strategy;
use crate::updates::metadata::UpdateKind;

impl Server {
    /// Which clients a round may select.
    pub(super) fn constraints(&self) -> Constraints {
        let (privacy, is_secure) = (&self.config.privacy, self.config.secure.enabled);
        Constraints {
            tiers: self.config.coordination.tiers.clone(),
            // Without privacy no client with a cap may take part.
            epsilon: Some(if privacy.enabled { privacy.epsilon } else { f64::INFINITY }),
            secure_aggregation: is_secure,
            secure_threshold: is_secure.then(|| self.threshold_share()).flatten(),
            signing_keys: is_secure,
        }
    }

    pub(super) fn weighting(&self, method: &Method) -> Result<Weighting, RoundError> {
        let is_private = self.config.privacy.enabled;
        if is_private || !method.rule.uses_weights() || method.strategy.weighs_alike().is_some() {
            return Ok(if is_private { Weighting::Default } else { Weighting::Uniform });
        }
        if self.config.secure.enabled {
            // The mean of a group states the sum of the weights of its clients.
            return Ok(Weighting::Examples);
        }
        match self.config.robustness.weights.as_deref() {
            None => Ok(Weighting::Default),
            Some("examples") => Ok(Weighting::Examples),
            Some("uniform") => Ok(Weighting::Uniform),
            Some(text) => match text.strip_prefix("metadata:") {
                Some(key) => Ok(Weighting::Metadata(key.to_owned())),
                None => read_table(&self.checked(self.path(text))?)
                    .map(Weighting::Table)
                    .map_err(RoundError::setting("robustness.weights")),
            },
        }
    }

    pub(super) fn policy(
        &self,
        order: &MergeOrder,
        strategy: &dyn Strategy,
        weighting: Weighting,
    ) -> Result<Policy, RoundError> {
        let is_private = self.config.privacy.enabled;
        let is_secure = self.config.secure.enabled;
        let sent = match self.config.strategy.update_kind {
            // The updates are means of what clients changed.
            _ if is_secure => Some(UpdateKind::Delta),
            Some(SentKind::Delta) => Some(UpdateKind::Delta),
            Some(SentKind::Weights) => Some(UpdateKind::Weights),
            None => None,
        };
        let min_clients = self.config.coordination.min_clients as usize;
        Ok(Policy {
            round: Some(order.round),
            // A secure round counts clients before their sum is frozen.
            min_clients: (!is_private && !is_secure).then_some(min_clients),
            // The round decides what a bad update means, once all of them are known.
            on_bad_update: OnBadUpdate::Skip,
            weighting,
            population: Some(order.population as usize),
            takes_stale: strategy.takes_stale(),
            claims: Claims {
                client_id_from: ClientIdFrom::Only(IdSource::Stem),
                max_examples: self.config.robustness.max_examples,
                judges_alone: is_private,
                round_by_place: true,
                kind: sent,
                ..Claims::default()
            },
            tensors: TensorPolicy {
                personal: self.personal()?,
                control_prefix: control_prefix(strategy),
                ..TensorPolicy::default()
            },
            ..Policy::default()
        })
    }
}

/// Warns of clients that a round leaves out, whatever they would send.
pub(super) fn tell_excluded(selection: &Selection, is_secure: bool) {
    let count = |why: &str| selection.excluded.get(why).copied().unwrap_or(0);
    let (demanding, keyless) = (count("secure aggregation"), count(NO_KEY));
    match is_secure {
        false if demanding > 0 => tracing::warn!(
            hint = "secure.enabled = true in fedmill.toml lets them take part",
            "{demanding} clients take part under secure aggregation only, and this round leaves them out"
        ),
        true if demanding > 0 => tracing::warn!(
            "{demanding} clients demand a larger share of helpers than secure.threshold, and this round leaves them out"
        ),
        _ => {}
    }
    if keyless > 0 {
        tracing::warn!(
            hint = "`fedmill clients add DIR FILE --update --key PUB` gives a client its key",
            "{keyless} clients have no key for secure aggregation, or an id that names no party of it: this round leaves them out"
        );
    }
}
