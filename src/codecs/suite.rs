//! Tests of every codec in the registry: a new codec gets them with its line in [`CODECS`].

use super::trial::{SEEDS, SIZES, back_with, encode, encode_on, hard, normal, shapes};
use super::{CHUNK, CODECS, Family, parse};
use crate::kernels::lanes::Isa;
use crate::settings::SpecError;
use std::collections::BTreeSet;

/// Every codec with its defaults, and with each value of each of its settings.
fn examples() -> impl Iterator<Item = String> {
    CODECS.iter().flat_map(|family| family.examples())
}

#[test]
fn names_are_unique_and_texts_come_back() {
    let names: Vec<&str> = CODECS.iter().flat_map(|family| family.names()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for text in examples().chain(super::tried()) {
        let shown = parse(&text).unwrap_or_else(|why| panic!("{text}: {why}")).to_string();
        assert_eq!(parse(&shown).unwrap().to_string(), shown, "{text}");
    }
}

/// The registry lists exactly the settings that the codecs take.
#[test]
fn settings_are_those_that_parsers_take() {
    for family in CODECS {
        let listed: BTreeSet<&str> = family.settings.iter().map(|(key, _)| *key).collect();
        for name in family.names() {
            let Err(SpecError::UnknownSetting { known, .. }) = parse(&format!("{name}:none=1")) else {
                panic!("{name} takes a setting `none`")
            };
            let taken: BTreeSet<&str> = known.split(", ").filter(|key| !key.is_empty()).collect();
            assert_eq!(taken, listed, "{name}");
        }
    }
}

#[test]
fn summaries_are_short() {
    for Family { summary, .. } in CODECS {
        assert!((10..70).contains(&summary.len()) && !summary.ends_with('.'), "{summary}");
    }
}

/// Values of every size, and values that trip codecs, decode to finite values, as a whole and unit by unit.
#[test]
fn every_codec_comes_back() {
    for text in examples() {
        let codec = parse(&text).unwrap();
        let sizes: &[usize] = if text.contains(':') { &[1, 65, 257, CHUNK + 1] } else { &SIZES };
        let sized = sizes.iter().map(|len| normal(*len, 1));
        for values in sized.chain(hard(300).map(|(_, values)| values)) {
            for vector in shapes(values.len()) {
                back_with(codec.as_ref(), &vector, &values, SEEDS.own);
            }
        }
    }
}

/// No instruction set changes a byte.
#[test]
fn every_codec_has_the_same_bytes_on_every_instruction_set() {
    let values = normal(CHUNK + 300, 4);
    for text in examples() {
        let codec = parse(&text).unwrap();
        for vector in shapes(values.len()) {
            let best = encode_on(Isa::detect(), codec.as_ref(), &vector, &values, SEEDS);
            for isa in Isa::available() {
                let found = encode_on(isa, codec.as_ref(), &vector, &values, SEEDS);
                assert_eq!(found.coding, best.coding, "{text} on {isa:?}");
                assert!(found.chunks == best.chunks, "{text} on {isa:?}");
            }
        }
    }
}

/// A decoder refuses a changed byte or decodes other values.
#[test]
fn no_decoder_panics_at_a_changed_byte() {
    for text in examples() {
        let encoded = encode(parse(&text).unwrap().as_ref(), &[20, 50], &normal(1000, 1));
        let whole = &encoded.chunks[0];
        for (stream, bytes) in whole.iter().enumerate() {
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
                for flip in [1u8, 0x80, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[stream][at] ^= flip;
                    let _ = encoded.decode_chunk(0, &damaged);
                }
            }
        }
    }
}
