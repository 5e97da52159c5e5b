//! Costs for people: each line a name, a number and a remark.

use super::{Cost, Deltas, RESOLUTION};

/// A name, a number and a remark.
pub type Line = (&'static str, String, String);

impl Cost {
    /// The cost, line by line.
    pub fn lines(&self) -> Vec<Line> {
        let known = |epsilon: Option<f64>| epsilon.map_or("-".to_owned(), rounded_up);
        let order = |order: f64| if order.is_finite() { format!("order {order}") } else { String::new() };
        let planned = "for a plan fixed in advance".to_owned();
        let mut rows = vec![
            ("epsilon, Renyi divergences", known(Some(self.epsilon_rdp)), order(self.order)),
            ("epsilon, integer orders", known(Some(self.epsilon_rdp_integer)), order(self.integer_order)),
            ("epsilon, loss distribution", known(self.epsilon_pld), planned),
        ];
        if self.epsilon_zcdp.is_some() {
            rows.push(("epsilon, concentrated", known(self.epsilon_zcdp), "best real order".to_owned()));
        }
        if let Some(slack) = self.slack {
            rows.push(("slack of discrete noise", format!("{slack:.3e}"), String::new()));
        }
        rows.push(("delta", format!("{:e}", self.delta), String::new()));
        rows.push(("releases", self.releases.to_string(), String::new()));
        rows
    }
}

impl Deltas {
    /// The deltas, line by line.
    pub fn lines(&self) -> Vec<Line> {
        let by_distribution = match self.below_resolution {
            true => (format!("below {RESOLUTION:e}"), "the resolution of this grid".to_owned()),
            false => (format!("{:.6e}", self.delta_pld), "for a plan fixed in advance".to_owned()),
        };
        let by_divergences = match self.is_below_floats() {
            true => ("below 1e-307".to_owned(), "the resolution of a float".to_owned()),
            false => (format!("{:.6e}", self.delta_rdp), format!("order {}", self.order)),
        };
        vec![
            ("delta, Renyi divergences", by_divergences.0, by_divergences.1),
            ("delta, loss distribution", by_distribution.0, by_distribution.1),
            ("epsilon", self.epsilon.to_string(), String::new()),
        ]
    }
}

/// An epsilon as text, rounded up to six decimals.
pub fn rounded_up(epsilon: f64) -> String {
    match epsilon.is_finite() {
        true => format!("{:.6}", (epsilon * 1e6).ceil() / 1e6),
        false => "infinite".to_owned(),
    }
}
