//! `decompress` on a GPU: its kernels to the bit, files to files, and no file if the GPU fails.

use super::codecs::{everywhere, first_other};
use super::compress::{SETTINGS, everywhere as adapters, with_shaders};
use super::devices;
use super::sample::Random;
use crate::harness::{Dir, Model, Update, fedmill};
use fedmill::codecs::device::AT_ONCE;
use fedmill::codecs::{self, Codec};
use fedmill::compress::decompress::Decompression;
use fedmill::compress::method::CompressionMethod;
use fedmill::compress::offload::Offload;
use fedmill::compress::run::Compression;
use fedmill::gpu::job::Options;
use fedmill::kernels::block_quantize::{self as cpu, BlockRun};
use fedmill::kernels::hadamard::{flipped_hadamard, flipped_products, hadamard};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::levels::levels_of;
use fedmill::kernels::philox::random_words;
use half::{bf16, f16};
use rayon::ThreadPoolBuilder;
use std::path::Path;
use std::sync::Arc;

/// Numbers of codes around a word and a workgroup of the kernels, and others.
const SIZES: [usize; 12] = [1, 3, 4, 5, 255, 257, 1023, 1024, 1025, 4095, 4097, 9001];
const BLOCKS: [usize; 5] = [8, 32, 100, 128, 4096];
/// Values of a rotated block.
const ROTATED: usize = 4096;
/// The ends of the steps for which a device has the CPU's bits: 2^-76 and 2^100.
const STEPS: [f32; 2] = [1.0 / (1u128 << 76) as f32, (1u128 << 100) as f32];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Codes of all values, and grids of many magnitudes. Some steps are zero, and some are the smallest and the largest
/// that a device takes; some starts cancel a product.
fn sample(len: usize, blocks: usize) -> (Vec<u8>, Vec<[f32; 2]>) {
    let mut random = Random((len * 31 + blocks) as u64);
    let mut unit = || (random.next() >> 40) as f32 / (1u64 << 24) as f32;
    let codes = (0..len).map(|_| (unit() * 256.0) as u8).collect();
    let grid = |i: usize| match i % 6 {
        0 => [-unit(), 0.0],
        1 => [-100.0 * STEPS[0], STEPS[0]],
        2 => [unit() * STEPS[1], STEPS[1]],
        3 => [0.0, unit() + 1e-3],
        4 => [-37.0 * unit(), 0.3],
        _ => [-unit(), (unit() + 0.1) / 255.0],
    };
    (codes, (0..blocks).map(grid).collect())
}

/// The values of unsigned codes and of the same bytes as codes of either sign, from the kernel.
fn values(codes: &[u8], block: usize, grids: &[[f32; 2]]) -> [Vec<f32>; 2] {
    let (mut unsigned, mut signed) = (vec![0.0; codes.len()], vec![0.0; codes.len()]);
    cpu::dequantize(Isa::detect(), codes, block, grids, &mut unsigned);
    let codes: &[i8] = bytemuck::cast_slice(codes);
    for ((codes, out), [_, step]) in codes.chunks(block).zip(signed.chunks_mut(block)).zip(grids) {
        cpu::dequantize_symmetric(Isa::detect(), codes, *step, out);
    }
    [unsigned, signed]
}

#[test]
fn values_of_codes_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (len, block) in SIZES.into_iter().flat_map(|len| BLOCKS.map(|block| (len, block))) {
            let (codes, grids) = sample(len, len.div_ceil(block));
            let steps: Vec<f32> = grids.iter().map(|grid| grid[1]).collect();
            let [unsigned, signed] = values(&codes, block, &grids);
            let found = gpu.dequantize(&codes, block, &grids).unwrap();
            let what = format!("{len} codes in blocks of {block} on {gpu:?}");
            assert_eq!(first_other(&bits(&found), &bits(&unsigned)), None, "{what}");
            let codes = bytemuck::cast_slice(&codes);
            let found = gpu.dequantize_symmetric(codes, block, &steps).unwrap();
            assert_eq!(first_other(&bits(&found), &bits(&signed)), None, "signed: {what}");
        }
    });
}

/// The sample shows a product and a sum that are rounded once instead of twice.
#[test]
fn a_sum_rounded_once_is_noticed() {
    let (codes, grids) = sample(4097, 33);
    let [want, _] = values(&codes, 128, &grids);
    let grids = codes.iter().enumerate().map(|(i, code)| (f32::from(*code), grids[i / 128]));
    let fused: Vec<f32> = grids.map(|(code, [low, step])| code.mul_add(step, low)).collect();
    assert!(first_other(&bits(&fused), &bits(&want)).is_some());
}

/// A run that starts inside a block, as a part of the rows of a matrix does.
#[test]
fn a_run_may_start_inside_a_block() {
    everywhere(|gpu| {
        for (len, block, skipped) in [(5000, 100, 37), (1025, 7, 3), (300, 5000, 4999), (77, 1, 0)] {
            let (codes, grids) = sample(skipped + len, (skipped + len).div_ceil(block));
            let [unsigned, signed] = values(&codes, block, &grids);
            let (run, codes) = (BlockRun { block, skipped }, &codes[skipped..]);
            let found = gpu.dequantize(codes, run, &grids).unwrap();
            assert_eq!(first_other(&bits(&found), &bits(&unsigned[skipped..])), None, "{len} in {run:?}");
            let steps: Vec<f32> = grids.iter().map(|grid| grid[1]).collect();
            let found = gpu.dequantize_symmetric(bytemuck::cast_slice(codes), run, &steps).unwrap();
            assert_eq!(
                first_other(&bits(&found), &bits(&signed[skipped..])),
                None,
                "signed: {len} in {run:?}"
            );
        }
    });
}

#[test]
fn rotations_back_have_the_bits_of_the_kernel() {
    let isa = Isa::detect();
    everywhere(|gpu| {
        for (number_bits, blocks) in (1..=8).zip([1, 3].into_iter().cycle()) {
            let side = 1usize << (number_bits - 1);
            // Multiples of a half have exact sums, of which some are zeros of both signs.
            let [first, step] = if number_bits == 1 { [0.5; 2] } else { [0.013, 0.021] };
            let positive: Vec<f32> = (0..side).map(|i| first + step * i as f32).collect();
            let levels: Vec<f32> =
                positive.iter().copied().chain(positive.iter().map(|level| -level)).collect();
            let below = |code: u8| (usize::from(code) % levels.len()) as u8;
            let codes: Vec<u8> = sample(blocks * ROTATED, 0).0.into_iter().map(below).collect();
            let scales = &[STEPS[0], 0.0, STEPS[1]][..blocks];
            let flips = [1, 2].map(|purpose| {
                let mut words = vec![0; codes.len() / 32];
                random_words(isa, 5, purpose, 0, &mut words);
                words
            });
            let found = gpu.rotate_back(&codes, &levels, [&flips[0], &flips[1]], scales).unwrap();
            let mut want = vec![0.0; codes.len()];
            levels_of(isa, &codes, &levels, &mut want);
            for (i, block) in want.chunks_mut(ROTATED).enumerate() {
                let signs = i * ROTATED / 32..(i + 1) * ROTATED / 32;
                hadamard(isa, block);
                flipped_hadamard(isa, &flips[0][signs.clone()], block);
                let turned = block.to_vec();
                flipped_products(isa, &flips[1][signs], &turned, [1.0 / ROTATED as f32, scales[i]], block);
            }
            let what = format!("{blocks} blocks of {number_bits} bits on {gpu:?}");
            assert!(number_bits > 1 || want.iter().any(|x| x.to_bits() == (-0.0f32).to_bits()), "{what}");
            assert_eq!(first_other(&bits(&found), &bits(&want)), None, "{what}");
            // The negative control: the streams in the other order.
            let other = gpu.rotate_back(&codes, &levels, [&flips[1], &flips[0]], scales).unwrap();
            assert!(first_other(&bits(&other), &bits(&want)).is_some(), "{what}");
        }
    });
}

#[test]
fn nothing_is_made_of_nothing() {
    for gpu in devices(&Options::default()) {
        assert!(gpu.dequantize(&[], 8, &[]).unwrap().is_empty());
        assert!(gpu.dequantize_symmetric(&[], 8, &[]).unwrap().is_empty());
        assert!(gpu.rotate_back(&[], &[1.0], [&[], &[]], &[]).unwrap().is_empty());
    }
}

fn compress(dir: &Dir, codec: &str, output: &str) {
    let how = CompressionMethod::Codec(codecs::parse(codec).unwrap().into());
    let output = Some(dir.path(output));
    let compression = Compression { as_is: true, output, ..Compression::new(dir.path("a.safetensors"), how) };
    compression.run(&ThreadPoolBuilder::new().num_threads(2).build().unwrap()).unwrap();
}

/// Decompresses, and returns the file, or the error.
fn decompress(dir: &Dir, update: &Path, device: Option<Arc<Offload>>) -> Result<Vec<u8>, String> {
    let (update, output) = (update.to_owned(), dir.path("out.safetensors"));
    let max_bytes = Some(1 << 30);
    let how = Decompression { update, base: None, max_bytes, output, isa: Isa::detect(), device };
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let path = how.run(&pool).map_err(|why| why.to_string())?;
    let found = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    Ok(found)
}

fn assert_same_bytes(dir: &Dir, codec: &str, devices: &[Arc<Offload>]) {
    compress(dir, codec, "encoded.safetensors");
    let encoded = dir.path("encoded.safetensors");
    let want = decompress(dir, &encoded, None).unwrap();
    for device in devices {
        let found = decompress(dir, &encoded, Some(Arc::clone(device))).unwrap();
        assert!(found == want, "{codec} on {device:?}");
    }
    std::fs::remove_file(encoded).unwrap();
}

/// The codecs that `compress` runs on a device and that a device decodes.
fn decoded() -> Vec<String> {
    let found: Vec<String> = with_shaders().into_iter().filter(|text| !text.starts_with("topk")).collect();
    assert!(found.len() > SETTINGS.len());
    found
}

fn open_all() -> Vec<Arc<Offload>> {
    adapters().iter().map(|options| Offload::open(options).unwrap()).collect()
}

/// Tensors of every float dtype: odd sizes, several chunks, zeros, subnormal and huge values, ranges at the ends of
/// what a device takes, rows that cross chunks, one value only, none, and integers.
fn update(dir: &Dir) {
    let alike = |len: usize| (0..len as u32).map(|i: u32| (i * 7_919 % 997) as f32 / 499.0 - 1.0);
    let mut all = Update::new("a");
    let plain: [(&str, Vec<usize>, Vec<f32>); 9] = [
        ("long", vec![140_001], alike(140_001).collect()),
        ("matrix", vec![300, 701], alike(300 * 701).map(|x| x / 3.0).collect()),
        ("words", vec![40, 72], alike(40 * 72).collect()),
        ("subnormal", vec![301], (0..301).map(|i| f32::from_bits(i * 31 + 1)).collect()),
        ("from subnormal", vec![5_000], (0..5_000).map(|i| 1e-39 + (i % 64) as f32).collect()),
        ("tiny", vec![4_099], alike(4_099).map(|x| x * 1e-24).collect()),
        ("huge", vec![4_097], alike(4_097).map(|x| x * 3e38).collect()),
        ("zeros", vec![399], (0..399).map(|i| if i == 300 { -3.0 } else { 0.0 }).collect()),
        ("alone", vec![400], vec![0.25; 400]),
    ];
    for (name, shape, values) in &plain {
        all = all.f32(name, shape, values);
    }
    let halves: Vec<u16> = alike(70_001).map(|x| f16::from_f32(x).to_bits()).collect();
    let shorts: Vec<u16> = alike(8_193).map(|x| bf16::from_f32(x * 1e-3).to_bits()).collect();
    let ints: Vec<i64> = (0..300).collect();
    all.half("f16", "F16", &[70_001], &halves)
        .half("bf16", "BF16", &[3, 2731], &shorts)
        .f32("none", &[0], &[])
        .f32("few", &[7], &[1.0; 7])
        .i64("counter", &[300], &ints)
        .write(dir);
}

#[test]
fn bytes_are_those_of_the_cpu() {
    let (dir, devices) = (Dir::new(), open_all());
    update(&dir);
    for codec in decoded() {
        assert_same_bytes(&dir, &codec, &devices);
    }
}

/// Tensors of just under 16 MiB, of 16 MiB, and of more, which a device takes in two parts.
#[test]
fn bytes_of_long_tensors_are_those_of_the_cpu() {
    let devices = open_all();
    let value = |i: usize| ((i * 7_919 + i / 611) % 100_003) as f32 / 5e4 - 1.0;
    for (shape, codec) in [
        (vec![AT_ONCE - 1], "u4"),
        (vec![AT_ONCE], "i8"),
        (vec![AT_ONCE + 1], "eden2"),
        (vec![1_450, 2_901], "u3:per=channel"),
        (vec![2, AT_ONCE / 2 + 8], "i4:per=channel"),
        (vec![AT_ONCE + 4_097], "u8:block=0"),
    ] {
        let dir = Dir::new();
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        Update::new("a").f32("w", &shape, &values).write(&dir);
        assert_same_bytes(&dir, codec, &devices);
    }
}

/// If the GPU fails, nothing is published, although the CPU could finish.
#[test]
fn nothing_is_published_where_the_device_fails() {
    for options in adapters() {
        for (codec, runs) in [("u8", 0), ("u8", 3), ("i4", 0), ("i4:per=channel", 2), ("eden1", 0)] {
            let dir = Dir::new();
            update(&dir);
            compress(&dir, codec, "encoded.safetensors");
            let before = dir.contents();
            let device = Offload::open(&Options { lose_after: Some(runs), ..options.clone() }).unwrap();
            let failed = decompress(&dir, &dir.path("encoded.safetensors"), Some(device)).unwrap_err();
            assert!(failed.contains("was lost"), "{codec} after {runs} runs: {failed}");
            dir.assert_unchanged_since(&before);
        }
    }
}

#[test]
fn what_has_no_shaders_is_refused() {
    for options in adapters() {
        let dir = Dir::new();
        update(&dir);
        let adapter = options.adapter.as_deref().unwrap();
        for (codec, found) in
            [("f16", "f16"), ("bf16", "bf16"), ("topk:k=9", "topk"), ("eden1:block=512", "eden1:block=512")]
        {
            compress(&dir, codec, "encoded.safetensors");
            let before = dir.contents();
            let args = ["decompress", "--backend", "gpu", "--adapter", adapter, "encoded.safetensors"];
            let why = format!(
                "encoded by {found}, expected a codec with shaders, with its default blocks: u1 to u8, i2 to i8, \
                 eden1 to eden8"
            );
            let run = fedmill(&dir, &[&args[..], &["-o", "out.safetensors"]].concat());
            run.assert_fails(
                2,
                &["--backend gpu: tensor `", &why, "hint: --backend cpu decodes every codec"],
            );
            dir.assert_unchanged_since(&before);
        }
    }
}

/// A message calls a coding as users call its codec.
#[test]
fn codings_are_called_as_their_codecs() {
    let dir = Dir::new();
    update(&dir);
    let names = codecs::CODECS.iter().flat_map(|family| family.names());
    for name in names.filter(|name| !["sketch", "randk", "ecsq"].contains(name)) {
        let codec: Box<dyn Codec> = codecs::parse(name).unwrap();
        let seeds = codecs::Seeds { own: 1, shared: 2 };
        let vector = codecs::Vector { len: 300_000, shape: vec![600, 500] };
        let coding = codec.encoder(Isa::detect(), &vector, seeds).coding();
        let called = coding.to_string();
        assert_eq!(called.split(':').next().unwrap(), name);
    }
}

/// The program itself: the option, its message with `--verbose`, and a patch, which no GPU applies.
#[test]
fn the_program_takes_a_gpu() {
    for options in adapters() {
        let dir = Dir::new();
        update(&dir);
        compress(&dir, "u4", "encoded.safetensors");
        let adapter = options.adapter.as_deref().unwrap();
        let gpu = ["--backend", "gpu", "--adapter", adapter];
        let decompress = |output: &str, more: &[&str]| {
            let args = [&["decompress", "encoded.safetensors", "-o", output], more].concat();
            let run = fedmill(&dir, &args);
            assert_eq!(run.code, Some(0), "{run:#?}");
            run.stderr
        };
        decompress("gpu.safetensors", &gpu);
        assert!(!decompress("cpu.safetensors", &[]).contains("runs on the CPU"));
        assert!(dir.read("gpu.safetensors") == dir.read("cpu.safetensors"));
        assert_eq!(Model::read(&dir, "gpu.safetensors").f32("few"), [1.0; 7]);
        assert!(decompress("cpu.safetensors", &["--verbose"]).contains("decompress runs on the CPU"));
        assert!(
            !decompress("cpu.safetensors", &["--verbose", "--backend", "cpu"]).contains("runs on the CPU")
        );
    }
}

#[test]
fn a_patch_is_refused() {
    let dir = Dir::new();
    update(&dir);
    std::fs::copy(dir.path("a.safetensors"), dir.path("b.safetensors")).unwrap();
    let args = ["compress", "--exact", "--base", "b.safetensors", "a.safetensors", "-o", "patch"];
    assert_eq!(fedmill(&dir, &args).code, Some(0));
    let args =
        ["decompress", "--backend", "gpu", "--base", "b.safetensors", "patch", "-o", "out.safetensors"];
    let why = "--backend gpu: decompress of a patch runs on the CPU, expected auto or cpu";
    fedmill(&dir, &args).assert_fails(2, &[why]);
    assert!(!dir.exists("out.safetensors"));
}
