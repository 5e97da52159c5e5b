//! Every dtype, alone and mixed, against values computed by hand; deltas; dtypes of a merged file.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, le, merge};

/// Client `number` with one tensor `w`, which has these bytes.
fn client(number: usize, dtype: &str, shape: &[usize], bytes: &[u8]) -> Update {
    Update::new(&format!("updates/client-{number}")).raw("w", dtype, shape, bytes)
}

/// Bits as values of `width` bytes.
fn stored(bits: &[u64], width: usize) -> Vec<u8> {
    bits.iter().flat_map(|bits| bits.to_le_bytes()[..width].to_vec()).collect()
}

/// Merges three clients that hold these values of one dtype: all three by median, the first two by mean.
#[track_caller]
fn assert_merges(dtype: &str, width: usize, clients: [&[u64]; 3], median: &[u64], mean: &[u64]) {
    let dir = Dir::new();
    let shape = [median.len()];
    for (number, bits) in clients.iter().enumerate() {
        client(number, dtype, &shape, &stored(bits, width)).write(&dir);
    }
    let merged = merge(&dir, &["--rule", "median"]);
    assert_eq!(merged.dtype("w"), dtype);
    assert_eq!(merged.bytes("w"), stored(median, width), "median of {dtype}");
    std::fs::remove_file(dir.path("updates/client-2.safetensors")).unwrap();
    let merged = merge(&dir, &["--rule", "mean"]);
    assert_eq!((merged.dtype("w"), merged.bytes("w")), (dtype, &*stored(mean, width)), "mean of {dtype}");
}

/// A float dtype by its codes. Codes of one sign are in the order of their values. A value half way between two
/// neighbours rounds to the even code.
struct Float {
    dtype: &'static str,
    width: usize,
    one: u64,
    largest: u64,
    minus_one: u64,
    minus_one_and_a_half: u64,
    minus_two: u64,
}

const FLOATS: [Float; 6] = [
    Float {
        dtype: "F64",
        width: 8,
        one: 0x3ff0_0000_0000_0000,
        largest: 0x7fdf_ffff_ffff_ffff, // Half of the largest: the sum must fit f64.
        minus_one: 0xbff0_0000_0000_0000,
        minus_one_and_a_half: 0xbff8_0000_0000_0000,
        minus_two: 0xc000_0000_0000_0000,
    },
    Float {
        dtype: "F32",
        width: 4,
        one: 0x3f80_0000,
        largest: 0x7f7f_ffff,
        minus_one: 0xbf80_0000,
        minus_one_and_a_half: 0xbfc0_0000,
        minus_two: 0xc000_0000,
    },
    Float {
        dtype: "F16",
        width: 2,
        one: 0x3c00,
        largest: 0x7bff,
        minus_one: 0xbc00,
        minus_one_and_a_half: 0xbe00,
        minus_two: 0xc000,
    },
    Float {
        dtype: "BF16",
        width: 2,
        one: 0x3f80,
        largest: 0x7f7f,
        minus_one: 0xbf80,
        minus_one_and_a_half: 0xbfc0,
        minus_two: 0xc000,
    },
    Float {
        dtype: "F8_E4M3",
        width: 1,
        one: 0x38,
        largest: 0x7e,
        minus_one: 0xb8,
        minus_one_and_a_half: 0xbc,
        minus_two: 0xc0,
    },
    Float {
        dtype: "F8_E5M2",
        width: 1,
        one: 0x3c,
        largest: 0x7b,
        minus_one: 0xbc,
        minus_one_and_a_half: 0xbe,
        minus_two: 0xc0,
    },
];

#[test]
fn float_of_every_width() {
    for float in FLOATS {
        let Float { dtype, width, one, largest, .. } = float;
        // Subnormals 1 and 2 are the smallest steps there are.
        let clients: [&[u64]; 3] = [
            &[one, one + 1, largest, 1, 1, float.minus_two],
            &[one + 1, one + 2, largest, 2, 0, float.minus_one],
            &[one + 2, one, 0, 0, 2, float.minus_one_and_a_half],
        ];
        let median = [one + 1, one + 1, largest, 1, 1, float.minus_one_and_a_half];
        let mean = [one, one + 2, largest, 2, 0, float.minus_one_and_a_half];
        assert_merges(dtype, width, clients, &median, &mean);
    }
}

#[test]
fn float_of_every_code_survives() {
    // Every finite code of the narrow dtypes; for the wider ones, some codes of every binade.
    for (dtype, width, step) in
        [("F8_E4M3", 1, 1), ("F8_E5M2", 1, 1), ("F16", 2, 1), ("BF16", 2, 1), ("F32", 4, 99_991)]
    {
        let infinity: u64 = match dtype {
            "F8_E4M3" => 0x7f,
            "F8_E5M2" => 0x7c,
            "F16" => 0x7c00,
            "BF16" => 0x7f80,
            _ => 0x7f80_0000,
        };
        let sign = 1 << (8 * width - 1);
        let codes: Vec<u64> = (0..infinity).step_by(step).flat_map(|code| [code, code | sign]).collect();
        let dir = Dir::new();
        for number in 0..3 {
            client(number, dtype, &[codes.len()], &stored(&codes, width)).write(&dir);
        }
        let bytes = stored(&codes, width);
        assert!(merge(&dir, &["--rule", "median"]).bytes("w") == bytes, "median of {dtype}");
        for rule in ["mean", "trimmed-mean:cut=1"] {
            let merged = merge(&dir, &["--rule", rule]);
            for (i, (got, sent)) in merged.bytes("w").chunks(width).zip(bytes.chunks(width)).enumerate() {
                // Sums start at 0, and 0 plus -0 is 0.
                assert!(got == sent || codes[i] == sign, "{rule} of {dtype} code {:#x}: {got:x?}", codes[i]);
            }
        }
    }
}

#[test]
fn integer_of_every_width() {
    let signed = [
        ("I64", 8, i64::MIN, i64::MAX),
        ("I32", 4, i32::MIN.into(), i32::MAX.into()),
        ("I16", 2, i16::MIN.into(), i16::MAX.into()),
        ("I8", 1, i8::MIN.into(), i8::MAX.into()),
    ];
    for (dtype, width, lowest, highest) in signed {
        let clients: [&[i64]; 3] = [
            &[1, 2, -1, 5, highest, lowest],
            &[2, 3, -2, -3, highest, lowest],
            &[7, 0, -9, 9, highest, lowest],
        ];
        let bits = clients.map(|values| values.iter().map(|x| *x as u64).collect::<Vec<_>>());
        let of = |values: [i64; 6]| values.map(|x| x as u64);
        let median = of([2, 2, -2, 5, highest, lowest]);
        // 1.5, 2.5, -1.5 and 1 round half to even.
        let mean = of([2, 2, -2, 1, highest, lowest]);
        assert_merges(dtype, width, [&bits[0], &bits[1], &bits[2]], &median, &mean);
    }
}

#[test]
fn unsigned_integer_of_every_width() {
    for (dtype, width) in [("U64", 8), ("U32", 4), ("U16", 2), ("U8", 1)] {
        let highest = u64::MAX >> (64 - 8 * width);
        let clients: [&[u64]; 3] =
            [&[1, 2, 0, highest, 200], &[2, 3, 1, highest, 100], &[7, 0, 0, highest, 201]];
        assert_merges(dtype, width, clients, &[2, 2, 0, highest, 200], &[2, 2, 0, highest, 150]);
    }
}

/// f64 holds 2^63 and 2^53 + 2, and neither 2^63 + 5 nor 2^53 + 1: merging would change those without a word.
#[test]
fn integer_that_f64_does_not_hold_is_a_fault() {
    let odd = [((1u64 << 63) + 5, "U64"), ((1 << 53) + 1, "I64"), (u64::MAX - (1 << 53), "I64")];
    for (value, dtype) in odd {
        let dir = Dir::new();
        for number in 0..2 {
            client(number, dtype, &[2], &stored(&[7, (1 << 53) + 2], 8)).write(&dir);
        }
        client(2, dtype, &[2], &stored(&[7, value], 8)).write(&dir);
        let part = "client-2.safetensors: tensor `w` holds an integer beyond 2^53 at flat index 1";
        for rule in ["mean", "median", "trimmed-mean:cut=1"] {
            aggregate(&dir, &["--rule", rule]).assert_fails(2, &[part, "--opaque PATTERN"]);
            let rule = rule.replace("cut=1", "cut=0");
            let merged = merge(&dir, &["--rule", &rule, "--on-bad-update", "skip"]);
            assert_eq!(merged.bytes("w"), stored(&[7, (1 << 53) + 2], 8), "{rule} of {dtype}");
        }
        let inspected = fedmill(&dir, &["inspect", "updates", "--json"]);
        assert!(inspected.stdout.contains("holds an integer beyond 2^53"), "{inspected:#?}");
    }
}

/// The largest I64 is 2^63 in f64. A U64 of 2^63 is another number, which an I64 cannot hold.
#[test]
fn integer_of_another_dtype_that_does_not_fit_is_a_fault() {
    for (value, sent, dtype, width) in [
        (1u64 << 63, "U64", "I64", 8),
        (1 << 31, "U32", "I32", 4),
        (1 << 15, "U16", "I16", 2),
        (1 << 7, "U8", "I8", 1),
        (u64::MAX, "I64", "U64", 8),
        (u64::MAX, "I32", "U32", 4),
        (u64::MAX, "I16", "U16", 2),
        (u64::MAX, "I8", "U8", 1),
        (1 << 32, "I64", "I32", 8),
    ] {
        let dir = Dir::new();
        let own = if dtype == "I32" { 4 } else { width };
        let write = |name: &str, dtype: &str, width: usize, value: u64| {
            Update::new(name).raw("n", dtype, &[2], &stored(&[7, value], width)).write(&dir);
        };
        write("base", dtype, own, 5);
        for i in 0..3 {
            write(&format!("updates/client-{i}"), dtype, own, 9);
        }
        write("updates/client-9", sent, width, value);
        let base = ["--base", "base.safetensors", "--kind", "weights"];
        for rule in ["mean", "median", "trimmed-mean:cut=1"] {
            let args = [&base[..], &["--rule", rule]].concat();
            aggregate(&dir, &args).assert_fails(2, &["client-9.safetensors: tensor `n`"]);
            let merged = merge(&dir, &[&args[..], &["--on-bad-update", "skip"]].concat());
            assert_eq!(merged.bytes("n"), stored(&[7, 9], own), "{sent} onto {dtype} by {rule}");
        }
    }
}

/// A delta that takes an integer past the largest I64 is a fault, although f64 rounds both to 2^63.
#[test]
fn delta_past_the_largest_integer_is_a_fault() {
    let dir = Dir::new();
    let write = |name: &str, kind: &str, n: i64| {
        Update::new(name).f32("w", &[1], &[1.0]).i64("n", &[1], &[n]).meta("kind", kind).write(&dir);
    };
    write("base", "weights", (1 << 62) + (1 << 61));
    (0..3).for_each(|i| write(&format!("updates/client-{i}"), "delta", 1 << 60));
    write("updates/client-9", "delta", 1 << 61);
    let base = ["--base", "base.safetensors"];
    aggregate(&dir, &base).assert_fails(2, &["client-9.safetensors: tensor `n`"]);
    let merged = merge(&dir, &[&base[..], &["--on-bad-update", "skip"]].concat());
    let expected: i64 = (1 << 62) + (1 << 61) + (1 << 60);
    assert_eq!(merged.bytes("n"), expected.to_le_bytes());
}

/// A base may hold such an integer: weights replace it, and deltas cannot be added to it.
#[test]
fn integer_of_the_base_that_f64_does_not_hold() {
    let dir = Dir::new();
    let pair = |name: &str, n: i64| Update::new(name).f32("x", &[1], &[1.0]).i64("n", &[1], &[n]);
    pair("base", (1 << 60) + 1).write(&dir);
    for i in 0..3 {
        pair(&format!("updates/client-{i}"), 7).meta("kind", "weights").write(&dir);
    }
    for strategy in ["fedavg", "fedavg:lr=2"] {
        let merged = merge(&dir, &["--base", "base.safetensors", "--strategy", strategy]);
        assert_eq!(merged.bytes("n"), 7i64.to_le_bytes(), "{strategy}");
    }
    pair("updates/client-1", 0).meta("kind", "delta").write(&dir);
    let part = "base.safetensors: tensor `n` of the base holds an integer beyond 2^53 at flat index 0";
    aggregate(&dir, &["--base", "base.safetensors", "--strategy", "fedavg:lr=2"]).assert_fails(2, &[part]);
}

/// The remedy that the fault names.
#[test]
fn opaque_integers_are_copied_exactly() {
    let dir = Dir::new();
    let seed = stored(&[(1 << 63) + 5], 8);
    for number in 0..3 {
        client(number, "U64", &[1], &seed).f32("x", &[1], &[1.0]).write(&dir);
    }
    assert_eq!(merge(&dir, &["--rule", "mean", "--opaque", "w"]).bytes("w"), seed);
}

#[test]
fn bool_rounds_half_to_false() {
    assert_merges("BOOL", 1, [&[0, 1, 1, 0], &[1, 1, 0, 0], &[1, 0, 0, 0]], &[1, 1, 0, 0], &[0, 1, 0, 0]);
    let dir = Dir::new();
    for (number, bytes) in [[1, 1], [1, 0], [0, 0]].iter().enumerate() {
        client(number, "BOOL", &[2], bytes).write(&dir);
    }
    // Two thirds and one third.
    assert_eq!(merge(&dir, &["--rule", "mean"]).bytes("w"), [1, 0]);
}

#[test]
fn mean_weighs_every_dtype() {
    for (dtype, low, high, expected) in
        [("I8", 0u8, 4u8, 3u8), ("U8", 0, 4, 3), ("BOOL", 0, 1, 1), ("F8_E4M3", 0x00, 0x48, 0x44)]
    {
        let dir = Dir::new();
        client(0, dtype, &[1], &[low]).meta("num_examples", "1").write(&dir);
        client(1, dtype, &[1], &[high]).meta("num_examples", "3").write(&dir);
        // In E4M3: 0 and 4, weighted one to three, give 3.
        assert_eq!(merge(&dir, &[]).bytes("w"), [expected], "{dtype}");
    }
}

#[test]
fn shape_of_any_kind() {
    let shapes: [&[usize]; 9] =
        [&[], &[0], &[1], &[0, 3], &[3, 0, 2], &[1, 1, 1, 1, 1], &[2, 3, 5], &[65], &[17_389]];
    let dtypes =
        [("F64", 8), ("F32", 4), ("BF16", 2), ("F16", 2), ("F8_E5M2", 1), ("I64", 8), ("U8", 1), ("BOOL", 1)];
    let dir = Dir::new();
    let mut update = Update::new("updates/client-0");
    for (i, shape) in shapes.iter().enumerate() {
        for (dtype, width) in dtypes {
            let len: usize = shape.iter().product();
            let bytes: Vec<u8> =
                (0..len * width).map(|at| u8::from(at % width == 0 && at % 3 == 0)).collect();
            update = update.raw(&format!("{dtype}.{i}"), dtype, shape, &bytes);
        }
    }
    update.write(&dir);
    dir.write("updates/client-1.safetensors", update.bytes());
    let sent = Model::read(&dir, "updates/client-0.safetensors");
    for rule in ["mean", "median", "trimmed-mean"] {
        assert!(merge(&dir, &["--rule", rule]).tensors == sent.tensors, "{rule}");
    }
}

#[test]
fn model_of_no_values() {
    let dir = Dir::new();
    Update::new("updates/a").write(&dir);
    Update::new("updates/b").write(&dir);
    let run = fedmill(&dir, &["aggregate", "updates", "-o", "merged.safetensors"]);
    run.assert_fails(2, &["updates/a.safetensors: update holds no tensor"]);
    Update::new("updates/a").f32("none", &[0, 4], &[]).write(&dir);
    Update::new("updates/b").f32("none", &[0, 4], &[]).write(&dir);
    for rule in ["mean", "median"] {
        let merged = merge(&dir, &["--rule", rule, "--report", "report.json"]);
        assert_eq!(merged.tensors["none"], ("F32".to_owned(), vec![0, 4], vec![]));
    }
}

/// Four clients, each with a different float dtype.
fn mixed(dir: &Dir) {
    client(0, "F32", &[2], &le([1.5f32, -0.25].map(f32::to_le_bytes))).write(dir);
    client(1, "BF16", &[2], &le([0x4000u16, 0x3f80].map(u16::to_le_bytes))).write(dir);
    client(2, "F16", &[2], &le([0xc400u16, 0x3800].map(u16::to_le_bytes))).write(dir);
    client(3, "F64", &[2], &le([2.5f64, -1.0].map(f64::to_le_bytes))).write(dir);
}

#[test]
fn mixed_dtypes_take_that_of_the_base() {
    // Medians of (1.5, 2, -4, 2.5) and (-0.25, 1, 0.5, -1) are 1.75 and 0.125; means are 0.5 and 0.0625.
    let cases: [(&str, usize, [u64; 2], [u64; 2]); 4] = [
        ("F64", 8, [0x3ffc << 48, 0x3fc0 << 48], [0x3fe0 << 48, 0x3fb0 << 48]),
        ("F32", 4, [0x3fe0_0000, 0x3e00_0000], [0x3f00_0000, 0x3d80_0000]),
        ("F16", 2, [0x3f00, 0x3000], [0x3800, 0x2c00]),
        ("BF16", 2, [0x3fe0, 0x3e00], [0x3f00, 0x3d80]),
    ];
    for (dtype, width, median, mean) in cases {
        let dir = Dir::new();
        mixed(&dir);
        Update::new("base").raw("w", dtype, &[2], &stored(&[0, 0], width)).write(&dir);
        for (rule, expected) in [("median", median), ("mean", mean)] {
            let merged = merge(&dir, &["--rule", rule, "--base", "base.safetensors"]);
            assert_eq!((merged.dtype("w"), merged.bytes("w")), (dtype, &*stored(&expected, width)), "{rule}");
        }
    }
}

#[test]
fn mixed_dtypes_without_a_base_take_that_of_most() {
    let dir = Dir::new();
    mixed(&dir);
    assert_eq!(merge(&dir, &["--rule", "median"]).f64("w"), [1.75, 0.125], "all differ: the widest");
    client(4, "BF16", &[2], &[0; 4]).write(&dir);
    let merged = merge(&dir, &["--rule", "median"]);
    assert_eq!((merged.dtype("w"), merged.bytes("w")), ("BF16", &[0xc0, 0x3f, 0, 0][..]));
}

#[test]
fn mixed_dtypes_round_once() {
    // 1 + 2^-9 + 2^-40 rounds up to the next bf16 (1 + 2^-7) only in one step. Rounded to f32 first it would be 1 +
    // 2^-8, which is half way and rounds to the even code.
    let dir = Dir::new();
    let x = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
    for number in 0..3 {
        client(number, "F64", &[1], &x.to_le_bytes()).write(&dir);
    }
    Update::new("base").half("w", "BF16", &[1], &[0]).write(&dir);
    for rule in ["mean", "median", "trimmed-mean:cut=1"] {
        let merged = merge(&dir, &["--rule", rule, "--base", "base.safetensors"]);
        assert_eq!(merged.bytes("w"), 0x3f81u16.to_le_bytes(), "{rule}");
    }
}

#[test]
fn mixed_integers_convert() {
    let dir = Dir::new();
    client(0, "I8", &[1], &[0xfe]).write(&dir);
    client(1, "I64", &[1], &1000i64.to_le_bytes()).write(&dir);
    client(2, "U16", &[1], &300u16.to_le_bytes()).write(&dir);
    Update::new("base").raw("w", "I32", &[1], &[0; 4]).write(&dir);
    let merged = merge(&dir, &["--rule", "median", "--base", "base.safetensors"]);
    assert_eq!((merged.dtype("w"), merged.bytes("w")), ("I32", &300i32.to_le_bytes()[..]));
}

#[test]
fn integer_that_does_not_fit_the_base() {
    let dir = Dir::new();
    client(0, "I64", &[3], &le([1i64, 2, 256].map(i64::to_le_bytes))).write(&dir);
    Update::new("base").raw("w", "U8", &[3], &[0; 3]).write(&dir);
    let part = "client-0.safetensors: tensor `w` holds 256 at flat index 2, which does not fit U8";
    aggregate(&dir, &["--base", "base.safetensors"]).assert_fails(2, &[part]);
    assert!(!dir.exists("merged.safetensors"));
}

#[test]
fn integer_below_an_unsigned_base() {
    let dir = Dir::new();
    client(0, "I16", &[2], &le([5i16, -5].map(i16::to_le_bytes))).write(&dir);
    Update::new("base").raw("w", "U8", &[2], &[0; 2]).write(&dir);
    let part = "client-0.safetensors: tensor `w` holds -5 at flat index 1, which does not fit U8";
    aggregate(&dir, &["--base", "base.safetensors"]).assert_fails(2, &[part]);
}

#[test]
fn mean_of_the_largest_doubles() {
    let dir = Dir::new();
    for number in 0..2 {
        client(number, "F64", &[1], &f64::MAX.to_le_bytes()).write(&dir);
    }
    assert_eq!(merge(&dir, &["--rule", "mean"]).f64("w"), [f64::MAX]);
}

/// Distances of f64 that vanish in f32 decide all the same: the first client is far from the others, and so not chosen.
/// The median is zero, as the model is.
#[test]
fn differences_of_doubles_that_f32_takes_for_zero() {
    for scale in [1e-50, 1e-140] {
        let dir = Dir::new();
        for (number, value) in [90.0, 0.0, 0.1, -0.1, -0.2].into_iter().enumerate() {
            let values = [scale * value, -scale * value];
            client(number, "F64", &[2], &le(values.map(f64::to_le_bytes))).write(&dir);
        }
        let merged = merge(&dir, &["--rule", "krum", "--byzantine", "1"]).f64("w");
        assert!(merged[0].abs() < scale, "{merged:?}");
    }
}
