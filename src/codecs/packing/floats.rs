//! Floats in streams, and the checks of their decoders.

use crate::codecs::Invalid;

/// `len` finite f32. `what` names them in messages.
///
/// # Errors
///
/// When the number of bytes is wrong, or a float is not finite.
pub(crate) fn finite(bytes: &[u8], len: usize, what: &str) -> Result<Vec<f32>, Invalid> {
    expect_bytes(bytes, 4 * len, what)?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
    expect_finite(&values, what).map(|()| values)
}

/// Checks the number of bytes.
pub(crate) fn expect_bytes(bytes: &[u8], expected: usize, what: &str) -> Result<(), Invalid> {
    match bytes.len() == expected {
        true => Ok(()),
        false => Err(Invalid(format!("{what} have {} bytes, expected {expected}", bytes.len()))),
    }
}

/// Checks that all values are finite.
pub(crate) fn expect_finite(values: &[f32], what: &str) -> Result<(), Invalid> {
    match values.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => Err(Invalid(format!("{what} hold {x}, expected finite numbers"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_finite_or_wrong_lengths_are_errors() {
        let bytes: Vec<u8> = [1.5f32, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(finite(&bytes[..4], 1, "scales").unwrap(), [1.5]);
        assert_eq!(finite(&bytes, 2, "scales").unwrap_err().0, "scales hold NaN, expected finite numbers");
        assert_eq!(finite(&bytes, 1, "scales").unwrap_err().0, "scales have 8 bytes, expected 4");
    }
}
