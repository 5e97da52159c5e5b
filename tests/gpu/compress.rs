//! `compress` on a GPU, files to files: the bytes of the CPU, and no file if the GPU fails.

use super::REQUIRED;
use crate::harness::{Dir, Update, fedmill, skip};
use fedmill::codecs;
use fedmill::codecs::device::AT_ONCE;
use fedmill::compress::method::CompressionMethod;
use fedmill::compress::offload::Offload;
use fedmill::compress::run::Compression;
use fedmill::gpu::adapters;
use fedmill::gpu::job::Options;
use rayon::ThreadPoolBuilder;

/// Settings that take another path through a shader than the defaults.
pub(crate) const SETTINGS: [&str; 13] = [
    "u3:block=8,rounding=stochastic",
    "u4:block=0",
    "i4:rounding=stochastic",
    "i2:block=0",
    "u4:per=channel",
    "u6:per=channel,rounding=stochastic",
    "i8:per=channel",
    "i3:per=channel,rounding=stochastic",
    "eden2:scale=norm",
    "eden8:scale=min-error",
    "topk:fraction=0.3,values=ternary",
    "topk:k=7",
    "topk:fraction=0.05,values=u8",
];

/// Every codec in the registry that has shaders, with its defaults and with these settings.
pub(crate) fn with_shaders() -> Vec<String> {
    let names = codecs::CODECS.iter().flat_map(|family| family.names());
    let all = names.chain(SETTINGS).filter(|text| codecs::parse(text).unwrap().has_shaders());
    let found: Vec<String> = all.map(str::to_owned).collect();
    assert!(found.len() > SETTINGS.len());
    found
}

/// The options that open each adapter.
pub(crate) fn everywhere() -> Vec<Options> {
    let found = adapters();
    if found.is_empty() {
        assert!(std::env::var_os(REQUIRED).is_none(), "no adapter was found, and one is required");
        skip("no adapter was found; `fedmill doctor` says what is missing");
    }
    let named = |name: String| Options { adapter: Some(name), ..Options::default() };
    found.into_iter().map(|adapter| named(adapter.name)).collect()
}

/// A tensor of several chunks with many equal values, a short tensor, a tensor of zeros with one other value, and a
/// matrix whose rows cross chunks.
fn update(dir: &Dir) {
    let alike: Vec<f32> = (0..140_001).map(|i: u32| (i * 7_919 % 997) as f32 / 499.0 - 1.0).collect();
    let small: Vec<f32> = (0..300).map(|i| f32::from_bits(i * 31 + 1)).collect();
    let mut zeros = vec![0.0; 400];
    zeros[399] = -3.0;
    Update::new("a")
        .f32("alike", &[140_001], &alike)
        .f32("small", &[300], &small)
        .f32("zeros", &[400], &zeros)
        .f32(
            "matrix",
            &[300, 701],
            &alike.iter().cycle().take(300 * 701).map(|x| x / 3.0).collect::<Vec<f32>>(),
        )
        .write(dir);
}

#[test]
fn bytes_are_those_of_the_cpu() {
    for options in everywhere() {
        let dir = Dir::new();
        update(&dir);
        for codec in &with_shaders() {
            let compress = |backend: &[&str], output: &str| {
                let args =
                    ["compress", "--quiet", "--as-is", "--codec", codec, "a.safetensors", "-o", output];
                let run = fedmill(&dir, &[&args, backend].concat());
                assert_eq!(run.code, Some(0), "{run:#?}");
                dir.read(output)
            };
            let adapter = options.adapter.as_deref().unwrap();
            let found = compress(&["--backend", "gpu", "--adapter", adapter], "gpu.safetensors");
            assert!(found == compress(&["--backend", "cpu"], "cpu.safetensors"), "{codec} on {adapter}");
        }
    }
}

/// A tensor that a device takes in two parts, of which the first has 16 MiB.
#[test]
fn bytes_of_a_long_tensor_are_those_of_the_cpu() {
    let dir = Dir::new();
    let (rows, columns) = (1_450, 2_901);
    assert!(rows * columns > AT_ONCE);
    let value = |i: usize| ((i * 7_919 + i / 611) % 100_003) as f32 / 5e4 - 1.0;
    Update::new("a")
        .f32("w", &[rows, columns], &(0..rows * columns).map(value).collect::<Vec<f32>>())
        .write(&dir);
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for codec in ["u3:per=channel,rounding=stochastic", "i8", "eden2", "topk:fraction=0.01"] {
        let compress = |device, output: &str| {
            let how = CompressionMethod::Codec(codecs::parse(codec).unwrap().into());
            let output = Some(dir.path(output));
            let compression = Compression {
                as_is: true,
                output,
                device,
                ..Compression::new(dir.path("a.safetensors"), how)
            };
            compression.run(&pool).unwrap();
        };
        compress(None, "cpu.safetensors");
        for options in everywhere() {
            let device = Offload::open(&options).unwrap();
            compress(Some(device), "gpu.safetensors");
            assert!(dir.read("gpu.safetensors") == dir.read("cpu.safetensors"), "{codec} on {options:?}");
        }
    }
}

/// If the GPU fails in a run with `--backend gpu`, nothing is published, although the CPU could finish.
#[test]
fn nothing_is_published_where_the_device_fails() {
    for options in everywhere() {
        for (codec, runs) in [
            ("u8", 0),
            ("u8", 3),
            ("i4", 0),
            ("eden1", 0),
            ("topk:fraction=0.01", 1),
            ("topk:fraction=0.01", 12),
        ] {
            let dir = Dir::new();
            update(&dir);
            let before = dir.contents();
            let how = CompressionMethod::Codec(codecs::parse(codec).unwrap().into());
            let device = Offload::open(&Options { lose_after: Some(runs), ..options.clone() }).unwrap();
            let compression = Compression {
                as_is: true,
                output: Some(dir.path("out.safetensors")),
                device: Some(device),
                ..Compression::new(dir.path("a.safetensors"), how)
            };
            let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let failed = compression.run(&pool).unwrap_err();
            assert!(failed.to_string().contains("was lost"), "{codec} after {runs} runs: {failed}");
            dir.assert_unchanged_since(&before);
        }
    }
}

#[test]
fn what_has_no_shaders_is_refused() {
    let dir = Dir::new();
    update(&dir);
    let before = dir.contents();
    for (how, what) in [
        (["--codec", "f16"], "--codec f16"),
        (["--codec", "eden1:block=512"], "--codec eden1:block=512,scale=unbiased"),
        (["--target", "10x"], "no --codec"),
    ] {
        let args =
            [&["compress", "--backend", "gpu", "a.safetensors", "-o", "out.safetensors"], &how[..]].concat();
        let why = format!(
            "--backend gpu: found {what}, expected a codec with shaders, with its default blocks: topk, u1 to u8, i2 to i8, eden1 to eden8"
        );
        fedmill(&dir, &args).assert_fails(2, &[&why, "hint: --backend cpu runs every codec"]);
        dir.assert_unchanged_since(&before);
    }
}

#[test]
fn verbose_output_names_the_device() {
    let dir = Dir::new();
    update(&dir);
    let args = ["compress", "--as-is", "--codec", "topk:k=9", "a.safetensors", "-o", "out.safetensors"];
    let tells = |more: &[&str]| {
        let run = fedmill(&dir, &[&args, more].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stderr.contains("compress runs on the CPU")
    };
    assert!(tells(&["--verbose"]));
    assert!(!tells(&[]) && !tells(&["--verbose", "--backend", "cpu"]));
}
