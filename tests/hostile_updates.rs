//! Encoded updates from attackers: cut off at every byte, changed at random, and made up.
//!
//! Each is refused, or decoded to the shapes that it claims. No file may cause a panic, a hang, or an allocation that
//! only its claims justify.

use crate::harness::{Dir, Update, fedmill_after, le};
use fedmill::codecs::directory::{CODEC_KEY, Directory, Most, Tensors};
use fedmill::codecs::tried;
use fedmill::compress::method::CompressionMethod;
use fedmill::compress::run::Compression;
use fedmill::compress::writer::FileLayout;
use fedmill::io::model_file::{ENCODED, ModelFile, TablePool};
use fedmill::io::source::OpenFiles;
use fedmill::model::dtype::Dtype;
use fedmill::model::sparsity::Sparsity;
use fedmill::updates;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changed files, over all codecs and layouts. `FEDMILL_MUTATIONS` sets another number.
const MUTATIONS: usize = 10_000;

/// The time limit for a file of these sizes, on the slowest machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Longer tensors are decoded only at their ends.
const MOST_DECODED: usize = 1 << 14;

/// A directory of any length.
const ANY: Most = Most { tensors: usize::MAX, of_base: Some(usize::MAX) };

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A small update with tensors that are encoded, tensors of one value, and raw tensors.
fn trained() -> Update {
    let values = |seed: u64, len: usize| -> Vec<f32> {
        let mut random = Random(seed);
        (0..len).map(|_| (random.below(2001) as f32 - 1000.0) / 5000.0).collect()
    };
    let bits: Vec<u16> = values(2, 300).iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
    Update::new("trained")
        .f32("w", &[15, 40], &values(1, 600))
        .half("v", "F16", &[300], &bits)
        .f32("c", &[256], &[0.5; 256])
        .f32("s", &[3], &values(3, 3))
        .i64("n", &[2], &[1, -7])
        .meta("client_id", "eve")
}

/// The bytes of the update by a codec, in a layout.
fn encoded(dir: &Dir, codec: &str, layout: FileLayout) -> Vec<u8> {
    trained().write(dir);
    let how = CompressionMethod::Codec(Arc::from(fedmill::codecs::parse(codec).unwrap()));
    let compression = Compression {
        seed: 1,
        as_is: true,
        layout: Some(layout),
        output: Some(dir.path("encoded.safetensors")),
        ..Compression::new(dir.path("trained.safetensors"), how)
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    compression.run(&pool).unwrap();
    dir.read("encoded.safetensors")
}

/// Every codec in both layouts.
pub(crate) fn everything(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    let layouts = [("plain", FileLayout::Plain), ("bundle", FileLayout::Bundle)];
    let files = tried().flat_map(|codec| {
        layouts.map(|(name, layout)| (format!("{codec} {name}"), encoded(dir, &codec, layout)))
    });
    files.collect()
}

fn open(path: &Path) -> Option<ModelFile> {
    updates::open(path, &OpenFiles::raise_limit(), &TablePool::default(), None).ok()
}

/// Overwrites a file, which is faster than a new file.
fn put(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

/// Opens and decodes a file. Returns whether all of it decodes.
fn look(path: &Path, bytes: &[u8], random: &mut Random) -> bool {
    put(path, bytes);
    let started = Instant::now();
    let is_good = open(path).is_some_and(|model| decode_all(&model, random));
    assert!(started.elapsed() < LONGEST, "took {:?}", started.elapsed());
    is_good
}

/// Decodes all encoded tensors. A run that decodes must have the values of the whole tensor.
fn decode_all(model: &ModelFile, random: &mut Random) -> bool {
    let Some(decoder) = &model.decoder else { return true };
    let mut is_good = true;
    for (number, place) in model.table.iter().enumerate().filter(|(_, place)| place.file == ENCODED) {
        let len = place.spec.len;
        let run = |start: usize, values: usize| {
            let mut out = vec![f32::NAN; values];
            decoder.decode(&model.files, number, start, &mut out).ok().map(|()| out)
        };
        if len > MOST_DECODED {
            is_good &= run(0, 100).is_some() && run(len - 100, 100).is_some();
            continue;
        }
        let Some(whole) = run(0, len) else {
            is_good = false;
            continue;
        };
        if len > 0 {
            let start = random.below(len);
            let end = start + 1 + random.below(len - start);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let part = run(start, end - start).map(|part| bits(&part));
            assert_eq!(part, Some(bits(&whole[start..end])), "{} from {start} to {end}", place.spec.name);
        }
    }
    is_good
}

#[test]
fn files_that_are_cut_off() {
    let dir = Dir::new();
    let path = dir.path("cut.safetensors");
    let mut random = Random(1);
    for (name, file) in everything(&dir) {
        assert!(look(&path, &file, &mut random), "{name}: the whole file is good");
        put(&path, &file);
        for end in (0..file.len()).rev() {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(end as u64).unwrap();
            assert!(open(&path).is_none(), "{name}: cut off behind {end} bytes");
        }
    }
}

/// The header and the data of a safetensors file.
fn split(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (file[8..8 + length].to_vec(), file[8 + length..].to_vec())
}

fn joined(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&le([(header.len() as u64).to_le_bytes()])[..], header, data].concat()
}

/// Bytes with a random change, insertion or deletion.
pub(crate) fn edited(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(6)).min(bytes.len());
    match random.below(5) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8),
        2 => bytes[at..end].fill(random.one_of(&[0x00, 0x01, 0x7f, 0x80, 0xff])),
        3 => drop(bytes.drain(at..end)),
        _ => drop(bytes.splice(at..at, vec![random.one_of(&[0xff, 0x80, 0x00, b'9']); random.below(10)])),
    }
    bytes
}

/// JSON with one number or word replaced.
pub(crate) fn edited_json(json: &[u8], random: &mut Random) -> Vec<u8> {
    let numbers =
        ["0", "1", "-1", "255", "65537", "4294967295", "1152921504606846976", "18446744073709551615", "1e9"];
    let words = ["F32", "U8", "I64", "raw", "constant", "w", "fedmill-update/1", "", "null"];
    let text = String::from_utf8_lossy(json).into_owned();
    let digits = random.below(3) > 0;
    let letters: Vec<char> = text.chars().collect();
    let starts: Vec<usize> = (1..letters.len())
        .filter(|at| match digits {
            true => letters[*at].is_ascii_digit() && !letters[at - 1].is_ascii_digit(),
            false => letters[*at].is_ascii_alphabetic() && !letters[at - 1].is_ascii_alphanumeric(),
        })
        .collect();
    if starts.is_empty() {
        return json.to_vec();
    }
    let start = random.one_of(&starts);
    let is_same = |letter: &&char| letter.is_ascii_alphanumeric() && letter.is_ascii_digit() == digits;
    let len = letters[start..].iter().take_while(is_same).count();
    let other = if digits { random.one_of(&numbers) } else { random.one_of(&words) };
    let changed: String = letters[..start]
        .iter()
        .chain(&other.chars().collect::<Vec<_>>())
        .chain(&letters[start + len..])
        .collect();
    changed.into_bytes()
}

/// A file with a change that mostly passes the first checks.
pub(crate) fn mutated(file: &[u8], random: &mut Random) -> Vec<u8> {
    let (header, data) = split(file);
    match random.below(6) {
        0 => edited(file.to_vec(), random),
        1 => joined(&edited(header, random), &data),
        2 | 3 => joined(&edited_json(&header, random), &data),
        // Changes the data, and keeps its length.
        4 => {
            let mut data = data;
            let at = random.below(data.len());
            data[at] ^= random.one_of(&[0x01, 0x80, 0xff]);
            joined(&header, &data)
        }
        _ => {
            let long = edited(data.clone(), random);
            let old = format!("{}", data.len());
            let header = String::from_utf8_lossy(&header).replace(&old, &long.len().to_string());
            joined(header.as_bytes(), &long)
        }
    }
}

#[test]
fn files_that_are_changed_at_random() {
    let dir = Dir::new();
    let path = dir.path("changed.safetensors");
    let asked = std::env::var("FEDMILL_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let files = everything(&dir);
    let each = asked.unwrap_or(MUTATIONS) / files.len();
    let (mut good, mut bad) = (0, 0);
    for (number, (name, file)) in files.iter().enumerate() {
        for mutation in 0..each {
            let mut random = Random((number * 1_000_003 + mutation) as u64);
            let changed = mutated(file, &mut random);
            let looked = || look(&path, &changed, &mut Random(mutation as u64));
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(looked)) {
                Ok(true) => good += 1,
                Ok(false) => bad += 1,
                Err(_) => panic!("{name}: mutation {mutation}"),
            }
        }
    }
    assert!(good > each && bad > each, "{good} good, {bad} bad: nothing is tested");
}

/// The parts of a plain file: its directory, and the rest.
fn directory(file: &[u8]) -> (Directory, serde_json::Value, Vec<u8>) {
    let (header, data) = split(file);
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let text = header["__metadata__"][CODEC_KEY].as_str().unwrap();
    (Directory::from_json(text, ANY).unwrap(), header, data)
}

/// The streams of a file under another directory.
fn with_directory(file: &[u8], directory: &Directory) -> Vec<u8> {
    let (_, mut header, data) = self::directory(file);
    header["__metadata__"][CODEC_KEY] = directory.to_json().unwrap().into();
    joined(header.to_string().as_bytes(), &data)
}

/// A claim of a tensor far larger than the file is refused when the file is opened, unless the tensor needs no bytes.
#[test]
fn claims_of_what_is_not_there() {
    let dir = Dir::new();
    let path = dir.path("claims.safetensors");
    let mut random = Random(5);
    for codec in tried() {
        let file = encoded(&dir, &codec, FileLayout::Plain);
        let (honest, ..) = directory(&file);
        assert!(look(&path, &with_directory(&file, &honest), &mut random), "{codec}: an honest directory");
        // A vector of zeros with a few other values takes few bytes, whatever its length.
        let sparsity = open(&path).unwrap().decoder.unwrap().sparsity();
        let may_be_short = sparsity != Sparsity::Dense;
        let Tensors::Here(tensors) = &honest.tensors else { panic!("names are in the file") };
        let encoded: Vec<usize> =
            (0..tensors.len()).filter(|tensor| ["w", "v"].contains(&&*tensors[*tensor].0)).collect();
        for tensor in encoded {
            for extents in [
                vec![1 << 60],
                vec![1 << 31, 1 << 31],
                vec![1 << 62, 4],
                vec![u64::MAX],
                vec![1 << 40],
                vec![1 << 32; 3],
            ] {
                let mut tensors = tensors.clone();
                tensors[tensor].2 = extents.clone();
                let claims = Directory { tensors: Tensors::Here(tensors), ..honest.clone() };
                let is_good = look(&path, &with_directory(&file, &claims), &mut random);
                assert!(may_be_short || !is_good, "{codec}: {extents:?} is refused");
            }
        }
        let mut doubled = honest.clone();
        doubled.parts.extend(honest.parts.clone());
        assert!(!look(&path, &with_directory(&file, &doubled), &mut random), "{codec}: tensors in two parts");
        let mut fewer = honest.clone();
        fewer.parts.pop();
        fewer.parts.iter_mut().for_each(|part| part.tensors.retain(|tensor| *tensor != 0));
        assert!(!look(&path, &with_directory(&file, &fewer), &mut random), "{codec}: tensors in none");
        let mut chunks = honest.clone();
        chunks.parts.iter_mut().for_each(|part| part.chunks = vec![u32::MAX; 3]);
        assert!(
            !look(&path, &with_directory(&file, &chunks), &mut random),
            "{codec}: chunks that are not there"
        );
        let mut joined = honest.clone();
        joined.parts.iter_mut().for_each(|part| part.tensors = vec![u32::MAX, 7, 7]);
        assert!(
            !look(&path, &with_directory(&file, &joined), &mut random),
            "{codec}: tensors that are not there"
        );
    }
}

/// A few bytes can claim many values, so every sum of lengths is checked before memory is allocated.
#[test]
fn a_constant_may_be_long_but_not_too_long() {
    let dir = Dir::new();
    let path = dir.path("constant.safetensors");
    let file = |extents: &[u64]| {
        let tensors = extents
            .iter()
            .enumerate()
            .map(|(at, len)| (format!("t{at}"), Dtype::F32.to_string(), vec![*len]));
        let part = |at: usize| serde_json::json!({"coding": {"constant": "3f800000"}, "tensors": [at], "chunks": []});
        let parts: Vec<_> = (0..extents.len()).map(part).collect();
        let tensors = serde_json::json!({"here": tensors.collect::<Vec<_>>()});
        let directory = serde_json::json!({"tensors": tensors, "parts": parts, "metadata": [], "base": null});
        let metadata =
            serde_json::json!({"fedmill.format": "fedmill-update/1", "fedmill.codec": directory.to_string()});
        joined(serde_json::json!({"__metadata__": metadata}).to_string().as_bytes(), &[])
    };
    let mut random = Random(7);
    assert!(look(&path, &file(&[300]), &mut random));
    assert!(look(&path, &file(&[1 << 20, 5]), &mut random));
    // Without its base an update may decode to 64 MiB, or to 1,024 times its bytes.
    assert!(!look(&path, &file(&[1 << 40, 5]), &mut random));
    for extents in [&[1 << 61][..], &[1 << 60, 1 << 60], &[1 << 59; 16], &[u64::MAX]] {
        assert!(!look(&path, &file(extents), &mut random), "{extents:?}");
    }
}

/// The program refuses large claims with little memory, and leaves nothing.
#[test]
fn the_program_on_claims_with_little_memory() {
    let dir = Dir::new();
    for codec in ["f16", "u8"] {
        let file = encoded(&dir, codec, FileLayout::Plain);
        let (honest, ..) = directory(&file);
        let Tensors::Here(tensors) = &honest.tensors else { panic!("names are in the file") };
        let mut tensors = tensors.clone();
        tensors.iter_mut().filter(|tensor| tensor.0 == "c").for_each(|tensor| tensor.2 = vec![1 << 45]);
        let claims = Directory { tensors: Tensors::Here(tensors), ..honest };
        dir.write("in/claims.safetensors", with_directory(&file, &claims));
        dir.write("in/honest.safetensors", dir.read("trained.safetensors"));
        let before = dir.contents();
        let limited =
            |args: &[&str]| fedmill_after(&dir, "export RUST_MIN_STACK=2000000 && ulimit -v 2000000", args);
        let threads = ["--threads", "2", "-o", "out.safetensors"];
        let merge = |more: &[&str]| limited(&[&["aggregate", "in"], more, &threads[..]].concat());
        merge(&["--base", "trained.safetensors"])
            .assert_fails(2, &["in/claims.safetensors: update is encoded, but it decodes to"]);
        dir.assert_unchanged_since(&before);
        let run = limited(&[&["decompress", "in/claims.safetensors"], &threads[..]].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:#?}");
        dir.assert_unchanged_since(&before);
    }
}
