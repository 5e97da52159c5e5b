//! Tests of `ecsq`: round trips, goals, damaged bytes, settings.

use super::*;
use crate::codecs::parse;
use crate::codecs::trial::{self, Encoded, SIZES};

fn encode(text: &str, values: &[f32]) -> Encoded {
    trial::encode(parse(text).unwrap().as_ref(), &[values.len()], values)
}

fn quantized(encoded: &Encoded) -> &EcsqScheme {
    let Coding::Ecsq(quantized) = &encoded.coding else { panic!("{:?}", encoded.coding) };
    quantized
}

/// Bytes of the streams and of the coding.
fn bytes(encoded: &Encoded) -> usize {
    let streams: usize = encoded.chunks.iter().flatten().map(Vec::len).sum();
    streams + postcard::to_allocvec(&encoded.coding).unwrap().len()
}

fn samples(len: usize) -> Vec<f32> {
    trial::normal(len, 5)
}

fn assert_near(text: &str, values: &[f32], step: f32) {
    let encoded = encode(text, values);
    let step = f64::from(Step::nearest(step).value());
    for (x, y) in values.iter().zip(encoded.decode()) {
        let far = (f64::from(*x) - f64::from(y)).abs();
        // The widest dead zone bounds the error, besides the precision of f32.
        assert!(far <= 2.0 * step + 3e-7 * f64::from(x.abs()), "{text}: {x} became {y}");
    }
}

#[test]
fn values_come_back_within_steps_at_every_size() {
    for len in SIZES {
        let values = samples(len);
        for (text, step) in [("ecsq:step=1", 1.0), ("ecsq:step=0.05,rounding=0.5", 0.05)] {
            assert_near(text, &values, step);
        }
        assert_near("ecsq:step=5", &values, 5.0);
    }
    for step in [1e-3, 1e-6] {
        assert_near(&format!("ecsq:step={step}"), &samples(3000), step);
    }
}

#[test]
fn values_that_are_hard_come_back() {
    let mut one_huge = samples(2000);
    one_huge[777] = -3e30;
    let extremes: Vec<f32> = (0..600).map(|i| if i % 3 == 0 { 3e38 } else { -3e38 }).collect();
    let denormals: Vec<f32> = (0..600).map(f32::from_bits).collect();
    for values in [vec![0.0; 70_000], vec![1.5; 300], vec![-7.0; 300], one_huge, extremes, denormals] {
        for text in ["ecsq:step=0.01", "ecsq:step=1e30", "ecsq:step=1e-45", "ecsq:bits=1", "ecsq:nmse=0.01"] {
            let encoded = encode(text, &values);
            assert_eq!(encoded.decode().len(), values.len());
            assert!(encoded.decode().iter().all(|x| x.is_finite()), "{text}");
        }
        assert_near("ecsq:step=0.01", &values, 0.01);
    }
}

#[test]
fn chunks_of_zeros_take_no_bytes() {
    let mut values = vec![0.0; 3 * CHUNK];
    values[2 * CHUNK + 5] = 1.0;
    let encoded = encode("ecsq:step=0.1", &values);
    let sizes: Vec<usize> = encoded.chunks.iter().flatten().map(Vec::len).collect();
    assert_eq!(sizes[..2], [0, 0]);
    assert!(bytes(&encoded) < 20, "{} bytes", bytes(&encoded));
    assert!((encoded.decode()[2 * CHUNK + 5] - 1.0).abs() < 0.01);
}

#[test]
fn goals_are_met() {
    for len in [1000, 70_000] {
        let values = samples(len);
        for bits in [0.32, 1.0, 3.0] {
            let found = 8.0 * bytes(&encode(&format!("ecsq:bits={bits}"), &values)) as f64 / len as f64;
            assert!((0.9 * bits..1.01 * bits).contains(&found), "{len} values: {found} bits for {bits}");
        }
        for nmse in [0.5, 0.01] {
            let found = encode(&format!("ecsq:nmse={nmse}"), &values).nmse(&values);
            assert!((0.9 * nmse..1.0001 * nmse).contains(&found), "{len} values: {found} for {nmse}");
        }
    }
}

#[test]
fn the_best_zone_has_less_error_for_its_bytes_than_plain_rounding() {
    let values: Vec<f32> = samples(50_000).iter().map(|x| x * x * x).collect();
    let best = encode("ecsq:bits=0.5", &values);
    let plain = encode("ecsq:bits=0.5,rounding=0.5", &values);
    assert!(best.nmse(&values) < 0.97 * plain.nmse(&values));
}

#[test]
fn broken_bytes_are_refused_or_finite() {
    let mut values = samples(3000);
    values[100] = 1e20;
    values[200] = -40.0;
    for text in ["ecsq:step=0.25", "ecsq:step=0.03,rounding=0.5", "ecsq:bits=0.4"] {
        let encoded = encode(text, &values);
        let whole = &encoded.chunks[0][0];
        let (mut refused, mut tried) = (0, 0);
        for at in (0..whole.len()).step_by(1 + whole.len() / 200) {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            let longer = [whole.clone(), vec![at as u8; 1 + at % 5]].concat();
            for bytes in [whole[..at.max(1)].to_vec(), broken, longer] {
                match encoded.decode_chunk(0, &[bytes]) {
                    Err(_) => refused += 1,
                    Ok(found) => assert!(found.iter().all(|x| x.is_finite())),
                }
                tried += 1;
            }
        }
        // The others decode to other values.
        assert!(refused * 10 > tried * 8, "{text}: {refused} of {tried}");
    }
}

#[test]
fn models_that_are_broken_are_refused_or_read() {
    let mut values = samples(5000);
    values[7] = 1e9;
    let encoded = encode("ecsq:step=0.1", &values);
    let Packed(model) = &quantized(&encoded).model;
    for at in 0..model.len() {
        assert!(Model::from_bytes(&model[..at]).is_err(), "{at} bytes");
        for bit in 0..8 {
            let mut broken = model.clone();
            broken[at] ^= 1 << bit;
            let coding = Coding::Ecsq(EcsqScheme { model: Packed(broken), ..quantized(&encoded).clone() });
            let found = Encoded { coding, vector: encoded.vector.clone(), chunks: Vec::new() }
                .decode_chunk(0, &encoded.chunks[0]);
            assert!(found.is_err() || found.unwrap().iter().all(|x| x.is_finite()));
        }
    }
    let more = [model.clone(), vec![0]].concat();
    assert!(Model::from_bytes(&more).is_err());
    for json in [r#"{"step":"7f000000","model":"00"}"#, r#"{"step":"3f800001","model":"00"}"#] {
        assert!(serde_json::from_str::<EcsqScheme>(json).is_err(), "{json}");
    }
}

#[test]
fn texts_say_what_is_wrong() {
    for text in ["ecsq:step=0.01", "ecsq:bits=0.32", "ecsq:nmse=0.01,rounding=0.4"] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Ecsq::with_step(0.01).to_string(), "ecsq:step=0.01");
    for (text, part) in [
        ("ecsq:bits=1,step=1", "one of step, bits and nmse"),
        ("ecsq:bits=0", "expected a number above zero"),
        ("ecsq:bits=1,rounding=1", "from 0 to 0.95"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
