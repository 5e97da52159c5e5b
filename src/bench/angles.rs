//! Draws the norm of each update against its angle to the median of the sound updates.
//!
//! The median is that of each coordinate, as `inspect` measures it.

use super::BenchError;
use super::picture::{Format, Mark};
use super::scatter::{BLUE, Group, ORANGE, Point, Scale, Scatter};
use crate::rules::ranking::median;
use crate::telemetry::axis::Axis;

/// The distance from the median, in robust standard deviations, beyond which a value stands out (Iglewicz and Hoaglin).
const FAR: f64 = 3.5;

/// The standard deviation of normal values, in units of their median and of their mean absolute deviation.
const OF_MEDIAN: f64 = 1.4826;
const OF_MEAN: f64 = 1.2533;

/// The norm and direction of an update.
#[derive(Clone, PartialEq, Debug)]
pub struct Direction {
    /// The id of its client.
    pub id: String,
    /// The L2 norm; `None` if it is not finite or not measured.
    pub norm: Option<f64>,
    /// The cosine of the angle to the median; `None` if it has none.
    pub cosine: Option<f64>,
}

/// Draws updates as a file of this format. Their norms are those of deltas, or of values.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn draw(updates: &[Direction], are_deltas: bool, format: Format) -> Result<Vec<u8>, BenchError> {
    let degrees = |cosine: f64| cosine.acos().to_degrees();
    let place = |update: &Direction| Some((degrees(update.cosine?), update.norm?));
    let placed: Vec<(&Direction, (f64, f64))> =
        updates.iter().filter_map(|update| Some((update, place(update)?))).collect();
    let column = |of: fn(&(f64, f64)) -> f64| placed.iter().map(|(_, at)| of(at)).collect::<Vec<f64>>();
    let (angles, norms) = (column(|at| at.0), column(|at| at.1));
    let mut groups = [
        Group { mark: Mark::Triangle(ORANGE), name: "outlier".to_owned(), points: Vec::new() },
        Group { mark: Mark::Dot(BLUE), name: "update".to_owned(), points: Vec::new() },
    ];
    for ((update, at), (by_angle, by_norm)) in
        placed.iter().zip(outliers(&angles).into_iter().zip(outliers(&norms)))
    {
        let is_outlier = by_angle || by_norm;
        groups[usize::from(!is_outlier)].points.push(Point::of_client(&update.id, *at, is_outlier));
    }
    let norm = if are_deltas { "L2 norm of the delta (no unit)" } else { "L2 norm of the values (no unit)" };
    let mut notes = vec![format!("outlier: norm or angle more than {FAR} robust deviations from the median")];
    let absent = updates.len() - placed.len();
    if absent > 0 {
        notes.push(format!("without a norm or an angle, not drawn: {absent}"));
    }
    let scatter = Scatter {
        title: format!("Norm and direction of {} updates", updates.len()),
        across: Scale {
            name: "angle to the coordinate-wise median of the sound updates (degrees)".to_owned(),
            axis: Axis::spanning(angles.into_iter()),
        },
        up: Scale { name: norm.to_owned(), axis: Axis::of(norms.into_iter()) },
        groups: groups.into(),
        limit: None,
        notes,
    };
    scatter.render(format)
}

/// Which values are more than [`FAR`] robust standard deviations from their median. The deviation comes from the median
/// of the absolute deviations, or from their mean if more than half of the values are equal.
fn outliers(values: &[f64]) -> Vec<bool> {
    if values.is_empty() {
        return Vec::new();
    }
    let centre = median(values.to_vec());
    let away: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    let (by_median, mean) = (median(away.clone()), away.iter().sum::<f64>() / away.len() as f64);
    let deviation = if by_median > 0.0 { OF_MEDIAN * by_median } else { OF_MEAN * mean };
    away.into_iter().map(|away| away > FAR * deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_values_of_a_set_stand_out() {
        let mut values: Vec<f64> = (0..20).map(|n| 10.0 + 0.1 * f64::from(n % 5)).collect();
        assert_eq!(outliers(&values), [false; 20]);
        (values[3], values[7]) = (14.0, 6.0);
        let far: Vec<usize> = (0..20).filter(|i| outliers(&values)[*i]).collect();
        assert_eq!(far, [3, 7]);
        // More than half are equal: the median deviation is 0.
        let mut equal = vec![1.0; 20];
        assert_eq!(outliers(&equal), [false; 20]);
        equal[5] = 2.0;
        assert!(outliers(&equal)[5] && outliers(&equal).iter().filter(|far| **far).count() == 1);
        assert_eq!(outliers(&[]), [false; 0]);
    }
}
