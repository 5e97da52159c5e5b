//! Compressed files that the library compressed-tensors decodes: names, packing, configuration.

use crate::harness::{Dir, Model, Update, fedmill};

const ROWS: usize = 6;
const COLUMNS: usize = 64;

/// Two layers, one of them too small to encode, and a tensor that is not a matrix.
fn write_update(dir: &Dir) {
    let values = |len: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1009) as f32 / 500.0 - 1.0) * (1 + i / COLUMNS) as f32).collect()
    };
    Update::new("update")
        .f32("layer.weight", &[ROWS, COLUMNS], &values(ROWS * COLUMNS))
        .f32("small.weight", &[2, 4], &values(8))
        .f32("layer.table", &[1000], &values(1000))
        .write(dir);
}

fn compress(dir: &Dir, codec: &str) -> (Model, serde_json::Value) {
    let args = ["compress", "update.safetensors", "-o", "small.safetensors", "--codec", codec];
    let run = fedmill(dir, &[&args[..], &["--emit-config", "config.json"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    (Model::read(dir, "small.safetensors"), dir.json("config.json"))
}

/// The matrix as the program decodes it.
fn decompressed(dir: &Dir) -> Vec<f32> {
    let run = fedmill(dir, &["decompress", "small.safetensors", "-o", "plain.safetensors"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    Model::read(dir, "plain.safetensors").f32("layer.weight")
}

/// A matrix as the library unpacks it: unsigned codes, lowest bits first, in rows of 32-bit words.
fn unpacked(file: &Model, bits: usize, group: usize) -> Vec<f32> {
    let (dtype, shape, packed) = &file.tensors["layer.weight_packed"];
    assert_eq!((dtype.as_str(), &shape[..]), ("I32", &[ROWS, COLUMNS * bits / 32][..]));
    let (dtype, shape, extents) = &file.tensors["layer.weight_shape"];
    assert_eq!((dtype.as_str(), &shape[..], extents[0], extents[8]), ("I64", &[2][..], 6, 64));
    let (dtype, shape, _) = &file.tensors["layer.weight_scale"];
    assert_eq!((dtype.as_str(), &shape[..]), ("F32", &[ROWS, COLUMNS / group][..]));
    let scales = file.f32("layer.weight_scale");
    let bit = |i: usize| u32::from(packed[i / 8] >> (i % 8) & 1);
    let value = |i: usize| {
        let code: u32 = (0..bits).map(|place| bit(i * bits + place) << place).sum();
        (f64::from(code) - f64::from(1u32 << (bits - 1))) * f64::from(scales[i / group])
    };
    (0..ROWS * COLUMNS).map(|i| value(i) as f32).collect()
}

#[test]
fn packed_matrices_are_decoded_by_its_rules() {
    for (codec, bits, group, strategy) in [
        ("i4:per=channel", 4, COLUMNS, "channel"),
        ("i4:block=32", 4, 32, "group"),
        ("i3:block=16", 3, 16, "group"),
    ] {
        let dir = Dir::new();
        write_update(&dir);
        let (file, config) = compress(&dir, codec);
        assert_eq!(unpacked(&file, bits, group), decompressed(&dir), "{codec}");
        assert_eq!(
            (&config["quant_method"], &config["format"]),
            (&"compressed-tensors".into(), &"pack-quantized".into())
        );
        let group = &config["config_groups"]["group_0"];
        assert_eq!(group["targets"], serde_json::json!(["layer"]), "{codec}");
        assert_eq!(
            (&group["weights"]["num_bits"], &group["weights"]["strategy"]),
            (&bits.into(), &strategy.into())
        );
    }
}

#[test]
fn codes_of_eight_bits_stand_by_the_tensors_name() {
    let dir = Dir::new();
    write_update(&dir);
    let (file, config) = compress(&dir, "i8:per=channel");
    let (dtype, shape, codes) = &file.tensors["layer.weight"];
    assert_eq!((dtype.as_str(), &shape[..]), ("I8", &[ROWS, COLUMNS][..]));
    let scales = file.f32("layer.weight_scale");
    let decoded: Vec<f32> =
        codes.iter().enumerate().map(|(i, code)| f32::from(*code as i8) * scales[i / COLUMNS]).collect();
    assert_eq!(decoded, decompressed(&dir));
    assert_eq!(config["format"], "int-quantized");

    let (file, config) = compress(&dir, "e4m3:per=channel,as=f8");
    assert_eq!((file.dtype("layer.weight"), &config["format"]), ("F8_E4M3", &"float-quantized".into()));
}

#[test]
fn what_it_could_not_decode_gets_no_config() {
    for args in [&["--codec", "u4"][..], &["--codec", "i4:block=0"], &["--codec", "i4", "--layout", "bundle"]]
    {
        let dir = Dir::new();
        write_update(&dir);
        let before = dir.contents();
        let all =
            ["compress", "update.safetensors", "-o", "small.safetensors", "--emit-config", "config.json"];
        let run = fedmill(&dir, &[&all[..], args].concat());
        run.assert_fails(
            2,
            &["has no matrix that compressed-tensors decodes", "hint: compressed-tensors decodes i2 to i8"],
        );
        dir.assert_unchanged_since(&before);
    }
}
