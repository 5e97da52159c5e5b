//! The largest of many keys, without sorting them all.

/// The places with the largest keys, the largest first. Ties go to the smaller place.
pub fn largest(mut keys: Vec<(f64, usize)>, count: usize) -> Vec<(f64, usize)> {
    let order = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if count == 0 {
        return Vec::new();
    }
    if count < keys.len() {
        keys.select_nth_unstable_by(count - 1, order);
        keys.truncate(count);
    }
    keys.sort_unstable_by(order);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first() {
        let keys = vec![(1.0, 0), (3.0, 1), (3.0, 2), (2.0, 3), (f64::NEG_INFINITY, 4)];
        assert_eq!(largest(keys.clone(), 3), [(3.0, 1), (3.0, 2), (2.0, 3)]);
        assert_eq!(largest(keys.clone(), 9).len(), 5);
        assert_eq!(largest(keys, 0), []);
    }
}
