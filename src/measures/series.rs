//! Statistics of numbers in order of time: slopes, noise and changes of the mean.

/// The median; `None` of no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(values[half - 1], values[half])),
        _ => Some(values[half]),
    }
}

/// The median of the slopes of all pairs (Sen, 1968); `None` of fewer than two values.
pub fn slope(values: &[f64]) -> Option<f64> {
    let pairs = (0..values.len()).flat_map(|a| (a + 1..values.len()).map(move |b| (a, b)));
    median(pairs.map(|(a, b)| (values[b] - values[a]) / (b - a) as f64).collect())
}

/// The place at which the mean of the values is first higher than before (Page, 1954): the sum of `x - mean - drift` rises
/// more than `threshold` above its least value. 0 if it never does.
pub fn page_hinkley(values: &[f64], drift: f64, threshold: f64) -> usize {
    let (mut mean, mut sum, mut least) = (0.0, 0.0, 0.0_f64);
    for (place, value) in values.iter().enumerate() {
        mean += (value - mean) / (place + 1) as f64;
        sum += value - mean - drift;
        least = least.min(sum);
        if sum - least > threshold {
            return place + 1;
        }
    }
    0
}

/// The standard deviation of the noise of a series, from the median absolute deviation of its steps: a few jumps and a
/// steady trend do not count. `None` of fewer than three values.
pub fn noise(values: &[f64]) -> Option<f64> {
    let steps: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = median(steps.clone()).filter(|_| steps.len() > 1)?;
    let deviation = median(steps.iter().map(|step| (step - middle).abs()).collect())?;
    // 1.4826 makes it that of a normal distribution; a step has the noise of two values.
    Some(deviation * 1.4826 / 2f64.sqrt())
}

/// How large a change of the mean counts, in standard deviations of the noise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sensitivity {
    /// A change smaller than this does not count.
    pub drift: f64,
    /// The sum of what goes beyond it that raises the alarm.
    pub threshold: f64,
}

impl Default for Sensitivity {
    /// In series of 10 to 100 normal values without a change, 2 to 4 in 100 raise a false alarm.
    fn default() -> Self {
        Self { drift: 0.5, threshold: 8.0 }
    }
}

/// The places, from 1 on, at which the mean is first higher and first lower than before; 0 for never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Higher.
    pub rose_at: usize,
    /// Lower.
    pub fell_at: usize,
}

/// The changes of a series' mean; `None` of fewer than three values.
pub fn changes(values: &[f64], sensitivity: Sensitivity) -> Option<Changes> {
    let noise = noise(values)?;
    let (drift, threshold) = (sensitivity.drift * noise, sensitivity.threshold * noise);
    let negated: Vec<f64> = values.iter().map(|value| -value).collect();
    Some(Changes {
        rose_at: page_hinkley(values, drift, threshold),
        fell_at: page_hinkley(&negated, drift, threshold),
    })
}

/// The metrics of a series and their names, in the order of [`super::METRICS`].
pub fn named(values: &[f64], sensitivity: Sensitivity) -> [(&'static str, Option<f64>); 4] {
    let changes = changes(values, sensitivity);
    [
        ("last", values.last().copied()),
        ("slope", slope(values)),
        ("rose_at", changes.map(|changes| changes.rose_at as f64)),
        ("fell_at", changes.map(|changes| changes.fell_at as f64)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_list_by_hand() {
        assert_eq!(median(vec![3.0, 1.0, 2.0, 9.0]), Some(2.5));
        // Slopes of all pairs of 1, 2, 10: 1, 4.5 and 8.
        assert_eq!(slope(&[1.0, 2.0, 10.0]), Some(4.5));
        assert_eq!(slope(&[1.0]), None);
        // Steps 1, 3, 1, 3 and 1 have median 1 and deviations 0, 2, 0, 2 and 0.
        assert_eq!(noise(&[0.0, 1.0, 4.0, 5.0, 8.0, 9.0]), Some(0.0));
        assert_eq!(noise(&[0.0, 1.0]), None);
    }

    #[test]
    fn a_jump_of_the_mean_is_found_where_it_happens() {
        let steady = [1.0; 20];
        assert_eq!(page_hinkley(&steady, 0.1, 1.0), 0);
        let jump: Vec<f64> = (0..20).map(|at| if at < 10 { 1.0 } else { 3.0 }).collect();
        assert_eq!(page_hinkley(&jump, 0.1, 1.0), 11);
        let changes = |values: &[f64]| changes(values, Sensitivity::default()).unwrap();
        assert_eq!(changes(&steady), Changes { rose_at: 0, fell_at: 0 });
        assert_eq!(changes(&jump), Changes { rose_at: 11, fell_at: 0 });
        let fall: Vec<f64> = jump.iter().map(|value| -value).collect();
        assert_eq!(changes(&fall), Changes { rose_at: 0, fell_at: 11 });
    }
}
