//! What merging gained over the clients' own models.

/// The gains of a merged model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gain {
    /// Over the best of the clients' own models.
    pub over_best: f64,
    /// Over their mean.
    pub over_mean: f64,
}

/// The gain of a merged model's score over those of clients' own models, on the same data; above 0 if the merged model is
/// better. `minimize` says that less is better. `None` without a client.
pub fn gain(merged: f64, alone: &[f64], minimize: bool) -> Option<Gain> {
    let sign = if minimize { -1.0 } else { 1.0 };
    let best = alone.iter().map(|score| sign * score).reduce(f64::max)?;
    let mean = alone.iter().map(|score| sign * score).sum::<f64>() / alone.len() as f64;
    Some(Gain { over_best: sign * merged - best, over_mean: sign * merged - mean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_direction_counts() {
        let accuracy = gain(0.9, &[0.5, 0.75], false).unwrap();
        assert!((accuracy.over_best - 0.15).abs() < 1e-15 && (accuracy.over_mean - 0.275).abs() < 1e-15);
        let loss = gain(0.5, &[0.25, 0.75], true).unwrap();
        assert_eq!(loss, Gain { over_best: -0.25, over_mean: 0.0 });
        assert_eq!(gain(1.0, &[], false), None);
    }
}
