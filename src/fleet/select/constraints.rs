//! Which clients may be selected.

/// Which clients may be selected.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Constraints {
    /// Clients of these tiers; empty for all.
    pub tiers: Vec<String>,
    /// The epsilon that the federation may spend: clients with a smaller cap are excluded.
    pub epsilon: Option<f64>,
    /// Whether updates are summed by secure aggregation. If not, clients that demand it are excluded.
    pub secure_aggregation: bool,
    /// The threshold of secure aggregation: clients that demand a larger one are excluded.
    pub secure_threshold: Option<f64>,
    /// Whether clients sign masked updates: those without a key and an id for that are excluded.
    pub signing_keys: bool,
}
