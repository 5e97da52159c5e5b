//! Inputs of the runs, from fixed seeds.
//!
//! Every operation here rounds correctly, so all machines make the same bytes.

use crate::harness::{Dir, Update, le};
use half::{bf16, f16};

/// A number from -1 to 1 that looks random, for each seed and index.
pub(super) fn value(seed: usize, place: usize) -> f64 {
    let mut bits = (seed as u64 * 1_000_003 + place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// `len` such numbers, in F32.
pub(super) fn f32s(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|place| value(seed, place) as f32).collect()
}

/// The kind of a round's updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Weights,
    Deltas,
    Mixed,
}

impl Kind {
    pub(super) const ALL: [(&str, Self); 3] =
        [("weights", Self::Weights), ("deltas", Self::Deltas), ("mixed", Self::Mixed)];

    fn is_delta(self, client: usize) -> bool {
        self == Self::Deltas || self == Self::Mixed && client.is_multiple_of(3)
    }
}

/// The seed of bases. Clients have lower seeds.
const BASE: usize = 1000;

/// A client that sends larger values than the others.
fn scale_of(client: usize) -> f64 {
    if client % 4 == 3 { 3.0 } else { 1.0 }
}

/// A tensor of each dtype, an empty one, and a scalar.
pub(super) fn every_dtype(name: &str, client: usize) -> Update {
    let scaled = |seed: usize, place: usize| scale_of(client) * value(client + 1000 * seed, place);
    let f32s = |seed, len| (0..len).map(|place| scaled(seed, place) as f32).collect::<Vec<f32>>();
    let f64s = |seed, len| (0..len).map(|place| scaled(seed, place) / 3.0).collect::<Vec<f64>>();
    let bf16s = |seed, len| (0..len).map(|i| bf16::from_f64(scaled(seed, i)).to_bits()).collect::<Vec<u16>>();
    let f16s = |seed, len| (0..len).map(|i| f16::from_f64(scaled(seed, i)).to_bits()).collect::<Vec<u16>>();
    let int = |seed: usize, place: usize, most: f64| (value(client + 1000 * seed, place) * most) as i64;
    Update::new(name)
        .f32("a.long", &[20, 50], &f32s(1, 1000))
        .half("b.bf16", "BF16", &[300], &bf16s(2, 300))
        .half("c.f16", "F16", &[16, 8], &f16s(3, 128))
        .f64("d.f64", &[7, 11], &f64s(4, 77))
        .i64("e.i64", &[], &[client as i64 * 3 - 5])
        .raw("f.i32", "I32", &[9], &le((0..9).map(|i| (int(5, i, 1e6) as i32).to_le_bytes())))
        .raw("g.u8", "U8", &[6], &le((0..6).map(|i| (int(6, i, 120.0).unsigned_abs() as u8).to_le_bytes())))
        // A base is false everywhere, so that deltas fit the dtype.
        .raw("h.bool", "BOOL", &[5], &le((0..5).map(|i| [u8::from(client < BASE && int(7, i, 10.0) > 0)])))
        // E4M3 codes from -1.75 to 1.75.
        .raw(
            "i.e4m3",
            "F8_E4M3",
            &[20],
            &le((0..20).map(|i| [(int(8, i, 63.0) as i8).to_le_bytes()[0] & 0xbf])),
        )
        .f32("j.empty", &[0, 4], &[])
        .f32("k.scalar", &[], &f32s(9, 1))
}

/// 305,000 values of several dtypes, in tensors that sections and tiles divide.
pub(super) fn five_sections(name: &str, client: usize) -> Update {
    let scaled = |place: usize| scale_of(client) * value(client, place);
    let long: Vec<f32> = (0..150_000).map(|i| scaled(i) as f32).collect();
    let half: Vec<u16> = (0..90_000).map(|i| bf16::from_f64(scaled(200_000 + i)).to_bits()).collect();
    let wide: Vec<f64> = (0..60_001).map(|i| scaled(300_000 + i) / 3.0).collect();
    let counts: Vec<i64> = (0..5_000).map(|i| (value(client, 400_000 + i) * 1000.0) as i64).collect();
    Update::new(name)
        .f32("a.long", &[300, 500], &long)
        .half("b.half", "BF16", &[1000, 90], &half)
        .i64("c.count", &[], &[client as i64 * 3])
        .f64("d.wide", &[60_001], &wide)
        .i64("e.counts", &[5, 1000], &counts)
        .f32("f.empty", &[0, 4], &[])
        .f32("z.short", &[3], &long[..3])
}

/// One float tensor of a dtype, which is then the working dtype.
pub(super) fn one_dtype(name: &str, dtype: &str, client: usize) -> Update {
    let values = (0..3000).map(|place| scale_of(client) * value(client, place));
    let bytes = match dtype {
        "BF16" => le(values.map(|x| bf16::from_f64(x).to_le_bytes())),
        "F16" => le(values.map(|x| f16::from_f64(x).to_le_bytes())),
        "F64" => le(values.map(|x| (x / 3.0).to_le_bytes())),
        _ => le(values.map(|x| (x as f32).to_le_bytes())),
    };
    Update::new(name).raw("w", dtype, &[60, 50], &bytes)
}

/// Updates of some clients in `in`, with fractional example counts; a base; and a file of weights.
pub(super) fn write_round(clients: usize, kind: Kind, model: impl Fn(&str, usize) -> Update) -> Dir {
    let dir = Dir::new();
    model("base", BASE).write(&dir);
    let mut weights = String::new();
    for client in 0..clients {
        let id = format!("client-{client:02}");
        let update =
            model(&format!("in/{id}"), client).meta("num_examples", &(10.1 + client as f64).to_string());
        if kind.is_delta(client) { update.meta("kind", "delta") } else { update }.write(&dir);
        weights.push_str(&format!("{id} {}\n", 0.1 + 1.0 / (client + 3) as f64));
    }
    dir.write("weights.txt", weights);
    dir
}
