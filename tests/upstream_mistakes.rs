//! Tests for mistakes with block codes in widely used code.

use crate::quality::{decoded, nmse};

/// Every codec of blocks, in every form.
const CODECS: [&str; 14] = [
    "u8",
    "u4:block=0",
    "u1",
    "u8:rounding=stochastic",
    "u3:per=channel",
    "i8",
    "i4:block=0",
    "i2:rounding=stochastic",
    "i5:per=channel",
    "e4m3",
    "mxfp8",
    "mxfp8:scale=floor",
    "eden1",
    "eden4:scale=min-error",
];

/// Whether a codec decodes the values to finite numbers, with a smaller error than all zeros.
fn is_near(codec: &str, values: &[f32]) -> bool {
    let decoded = decoded(codec, values, 3);
    decoded.iter().all(|x| x.is_finite()) && nmse(values, &decoded) < 1.0
}

/// A range of values below 2.25e-4 left no level to NVFlare's adaptive quantizer, and decoded to NaN.
#[test]
fn tiny_ranges_keep_their_levels() {
    for codec in CODECS {
        for size in [2e-4f32, 1e-7, 1e-20, 1e-30] {
            let values: Vec<f32> = (0..512).map(|i| (i * 37 % 101) as f32 / 50.0 * size - size).collect();
            assert!(is_near(codec, &values), "{codec} at {size}");
        }
    }
}

/// A constant of zero gave compressed-tensors a zero point of 0 / 0, and QSGD a bucket of it.
#[test]
fn zeros_stay_zeros_alone_and_beside_others() {
    for codec in CODECS {
        assert!(decoded(codec, &[0.0; 600], 3).iter().all(|x| *x == 0.0), "{codec}");
        let mut values = vec![0.0; 8192];
        values[4096..].iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32 - 3.0);
        let decoded = decoded(codec, &values, 3);
        assert!(decoded.iter().all(|x| x.is_finite()), "{codec}");
        if !codec.contains("block=0") && !codec.contains("channel") {
            assert!(decoded[..4096].iter().all(|x| *x == 0.0), "{codec}");
        }
    }
}

/// The deviation of one value, over n - 1, was 0 / 0 in hivemind.
#[test]
fn one_value_comes_back() {
    for codec in CODECS {
        for value in [1.0f32, -3e38, 1e-30] {
            assert!(is_near(codec, &[value]), "{codec}: {value}");
        }
    }
}

/// A cast of 200 to eight signed bits is -56.
#[test]
fn large_codes_do_not_wrap() {
    let values: Vec<f32> = (0..256).map(|i| i as f32).collect();
    assert_eq!(decoded("u8:block=0", &values, 3), values);
    assert_eq!(decoded("u8:block=256", &values, 3), values);
    let signed: Vec<f32> = (-127..=127).map(|i| i as f32).collect();
    assert_eq!(decoded("i8:block=0", &signed, 3), signed);
}
