//! Targets against every codec alone, on real deltas: never a larger error in the same bytes.

use super::{Distribution, VALUES};
use crate::harness::{Dir, Update};
use fedmill::codecs;
use fedmill::compress::method::{CompressionMethod, Targets};
use fedmill::compress::run::Compression;
use fedmill::compress::summary::Summary;
use std::path::PathBuf;
use std::sync::Arc;

/// Single codecs, from many bits a value to few.
const CODECS: [&str; 16] = [
    "f16",
    "bf16",
    "e4m3",
    "mxfp8",
    "u8:block=128",
    "u4:block=64",
    "i4:block=32",
    "u2:block=128",
    "eden4:scale=min-error",
    "eden1:scale=min-error",
    "sign",
    "topk:fraction=0.1,values=u4",
    "topk:fraction=0.02,values=ternary",
    "randk:fraction=0.05",
    "lowrank:rank=1",
    "ecsq:bits=1",
];

fn compressed(client: usize, how: CompressionMethod) -> Summary {
    let data = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round"));
    let update = data.join(format!("updates/client-{client:02}.safetensors"));
    let compression =
        Compression { base: Some(data.join("base.safetensors")), ..Compression::new(update, how) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    compression.run(&pool).unwrap()
}

fn of_bytes(client: usize, bytes: u64) -> Summary {
    compressed(client, CompressionMethod::Targets(Targets { bytes: Some(bytes), ..Targets::default() }))
}

#[test]
fn no_codec_is_better_in_as_many_bytes() {
    for codec in CODECS {
        let other = compressed(3, CompressionMethod::Codec(Arc::from(codecs::parse(codec).unwrap())));
        let chosen = of_bytes(3, other.output_bytes);
        assert_eq!(chosen.missed, None, "{codec}");
        assert!(
            chosen.measures.nmse <= other.measures.nmse,
            "{codec}: {} bytes of NMSE {}, but {} bytes of {} were chosen",
            other.output_bytes,
            other.measures.nmse,
            chosen.output_bytes,
            chosen.measures.nmse
        );
    }
}

#[test]
fn a_hundredth_of_the_bytes_is_met_to_the_byte() {
    for client in [0, 5, 17, 19] {
        let found = compressed(
            client,
            CompressionMethod::Targets(Targets { ratio: Some(100.0), ..Targets::default() }),
        );
        assert!(found.ratio >= 100.0 && found.ratio < 104.0, "{found:?}");
        // One of the clients sent noise; a third of a bit per value says little about it.
        assert!(found.measures.nmse < 0.9, "{found:?}");
    }
}

/// A file of one vector has the error of the codec alone, though the step is that of the whole model.
#[test]
fn a_file_of_gaussian_values_has_the_error_of_the_codec() {
    let dir = Dir::new();
    let values = Distribution::Gaussian.values(VALUES);
    Update::new("a").meta("kind", "delta").f32("w", &[512, 512], &values).write(&dir);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (bits, nmse) in [(0.32, 0.739), (1.0, 0.348), (2.0, 0.0895), (4.0, 0.0056)] {
        let codec = codecs::parse(&format!("ecsq:bits={bits}")).unwrap();
        let bytes = (bits * VALUES as f64 / 8.0) as u64 + 300;
        let wanted = Targets { bytes: Some(bytes), ..Targets::default() };
        for how in [CompressionMethod::Codec(Arc::from(codec)), CompressionMethod::Targets(wanted)] {
            let found = Compression::new(dir.path("a.safetensors"), how).run(&pool).unwrap();
            assert!(found.measures.nmse < 1.03 * nmse, "{bits}: {found:?}");
            assert!(found.output_bytes <= bytes + 700, "{bits}: {found:?}");
        }
    }
}
