//! The storage of updates changes no verdict: dtypes, shards, order, shapes, weights or deltas.

use super::id;
use crate::harness::{Dir, Model, Update, fedmill, le, shortest};
use fedmill::rules::{RULES, parse};
use fedmill::settings::Definition;
use half::{bf16, f16};
use serde_json::{Value, json};

const CLIENTS: usize = 11;

/// Two of the clients, and the factor of their values.
const HOSTILE: [usize; 2] = [3, 8];
const TIMES: f64 = 16.0;

/// Name and number of values of each float tensor. Together they are longer than one block.
const TENSORS: [(&str, usize); 4] = [("a", 1300), ("b", 1), ("c", 65), ("d", 210)];

/// Runs besides those of each rule alone: settings, and steps before a rule.
const MORE: [&[&str]; 4] = [
    &["centered-clipping:iterations=3"],
    &["distance-trim:keep=0.75"],
    &["trimmed-mean", "--pre", "nnm"],
    &["distance-trim:keep=0.75", "--pre", "arc"],
];

/// Every rule that tolerates two hostile clients, and more runs.
fn rules() -> Vec<Vec<String>> {
    let alone = RULES.iter().map(|entry| shortest(entry, &id(5)));
    let tolerant = alone.filter(|rule| parse(rule, Definition::Paper).unwrap().tolerates(CLIENTS) >= 2);
    let more = MORE.iter().map(|rule| rule.iter().map(|text| (*text).to_owned()).collect());
    tolerant.map(|rule| vec![rule]).chain(more).collect()
}

/// A number of sixteenths from -64 to 64, unlike its neighbours. Every float dtype holds it exactly, also times
/// [`TIMES`].
fn sixteenths(client: usize, tensor: usize, place: usize) -> f64 {
    let seed = ((client * 31 + tensor) * 1009 + place) as u64 + 1;
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits ^= bits >> 31;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((bits >> 40) % 129) as f64 - 64.0
}

fn weights(client: usize, tensor: usize) -> Vec<f64> {
    let times = if HOSTILE.contains(&client) { TIMES } else { 1.0 };
    (0..TENSORS[tensor].1).map(|place| times * sixteenths(client, tensor, place) / 16.0).collect()
}

fn base(tensor: usize) -> Vec<f64> {
    (0..TENSORS[tensor].1).map(|place| sixteenths(99, tensor, place) / 16.0).collect()
}

fn delta(client: usize, tensor: usize) -> Vec<f64> {
    weights(client, tensor).iter().zip(base(tensor)).map(|(x, base)| x - base).collect()
}

/// The values as a file of a dtype holds them, without rounding.
fn stored(dtype: &str, values: &[f64]) -> Vec<u8> {
    let values = values.iter().copied();
    match dtype {
        "F64" => le(values.map(f64::to_le_bytes)),
        "F32" => le(values.map(|x| (x as f32).to_le_bytes())),
        "BF16" => le(values.map(|x| bf16::from_f64(x).to_le_bytes())),
        "F16" => le(values.map(|x| f16::from_f64(x).to_le_bytes())),
        _ => panic!("no float is called {dtype}"),
    }
}

fn update(client: usize) -> Update {
    Update::new(&format!("in/{}", id(client))).meta("num_examples", &(client % 4 + 1).to_string())
}

/// The plain form: every tensor flat and F32.
fn plain(client: usize) -> Update {
    with_tensors(update(client), &[0, 1, 2, 3], |_| "F32", |tensor| weights(client, tensor))
}

/// These tensors in this order.
fn with_tensors(
    update: Update,
    order: &[usize],
    dtype: impl Fn(usize) -> &'static str,
    values: impl Fn(usize) -> Vec<f64>,
) -> Update {
    order.iter().fold(update, |update, tensor| {
        let (name, len) = TENSORS[*tensor];
        update.raw(name, dtype(*tensor), &[len], &stored(dtype(*tensor), &values(*tensor)))
    })
}

fn write_base(dir: &Dir) {
    with_tensors(Update::new("base"), &[0, 1, 2, 3], |_| "F32", base).write(dir);
}

fn round_of(write: impl Fn(&Dir, usize)) -> Dir {
    let dir = Dir::new();
    (0..CLIENTS).for_each(|client| write(&dir, client));
    write_base(&dir);
    dir
}

/// The report of a run, and the merged floats of the tensors that all forms have.
struct Outcome {
    report: Value,
    model: Vec<f64>,
}

fn run(dir: &Dir, rule: &[&str], more: &[&str]) -> Outcome {
    let fixed = ["aggregate", "-q", "in", "-o", "m.safetensors", "--byzantine", "2"];
    let report = ["--report", "r.json", "--metrics", "signs", "--shadow-rules", "krum,caf,bulyan", "--rule"];
    fedmill(dir, &[&fixed, &report, rule, more].concat()).assert_merged("m.safetensors");
    let model = Model::read(dir, "m.safetensors");
    let floats = TENSORS.iter().flat_map(|(name, _)| widened(&model, name)).collect();
    Outcome { report: dir.json("r.json"), model: floats }
}

fn widened(model: &Model, tensor: &str) -> Vec<f64> {
    let bytes = model.bytes(tensor);
    let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    match model.dtype(tensor) {
        "F64" => model.f64(tensor),
        "F32" => model.f32(tensor).into_iter().map(f64::from).collect(),
        "BF16" => bytes.chunks_exact(2).map(|x| bf16::from_bits(half(x)).to_f64()).collect(),
        "F16" => bytes.chunks_exact(2).map(|x| f16::from_bits(half(x)).to_f64()).collect(),
        other => panic!("{tensor} is {other}"),
    }
}

/// The report's numbers that depend on rounding in sums, and the other fields as they are.
fn compare(got: &Value, want: &Value, what: &str) {
    match (got, want) {
        (Value::Number(got), Value::Number(want)) => {
            let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
            let fine = (got - want).abs() <= 1e-6 * want.abs().max(1.0);
            assert!(fine, "{what}: got {got:e}, expected {want:e}");
        }
        (Value::Array(got), Value::Array(want)) => {
            assert_eq!(got.len(), want.len(), "{what}");
            got.iter().zip(want).enumerate().for_each(|(i, (a, b))| compare(a, b, &format!("{what}[{i}]")));
        }
        (Value::Object(got), Value::Object(want)) => {
            assert!(got.keys().eq(want.keys()), "{what}");
            for (key, want) in want.iter().filter(|(key, _)| !["file", "bytes"].contains(&key.as_str())) {
                compare(&got[key], want, &format!("{what}.{key}"));
            }
        }
        _ => assert_eq!(got, want, "{what}"),
    }
}

/// Fails unless every rule gives the report and the model of the plain round, up to `rounding` of the largest value.
fn assert_reports_the_same(dir: &Dir, args: &[&str], plain: &Dir, plain_args: &[&str], rounding: f64) {
    for rule in rules() {
        let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
        for distances in [&[][..], &["--distances", "gram"]] {
            let got = run(dir, &rule, &[args, distances].concat());
            let want = run(plain, &rule, &[plain_args, distances].concat());
            for part in ["clients", "metrics", "shadow", "pre"] {
                compare(&got.report[part], &want.report[part], &format!("{rule:?} {distances:?}: {part}"));
            }
            for (j, (got, want)) in got.model.iter().zip(&want.model).enumerate() {
                let fine = (got - want).abs() <= rounding * 64.0;
                assert!(fine, "{rule:?} {distances:?}: value {j}: got {got:e}, expected {want:e}");
            }
        }
    }
}

fn plain_round() -> Dir {
    round_of(|dir, client| plain(client).write(dir))
}

const WITH_BASE: [&str; 2] = ["--base", "base.safetensors"];

#[test]
fn dtypes_of_tensors() {
    let dtype = |tensor: usize| ["BF16", "F64", "F16", "F32"][tensor];
    let dir = round_of(|dir, client| {
        with_tensors(update(client), &[0, 1, 2, 3], dtype, |tensor| weights(client, tensor)).write(dir);
    });
    // The model has the same dtypes, and values differ by at most half of bf16's last bit.
    assert_reports_the_same(&dir, &[], &plain_round(), &[], 1.0 / 256.0);
    assert_reports_the_same(&dir, &WITH_BASE, &plain_round(), &WITH_BASE, 1e-7);
}

/// Each client with its own dtypes.
#[test]
fn dtypes_of_clients() {
    let dir = round_of(|dir, client| {
        let dtype = |tensor: usize| ["BF16", "F64", "F16", "F32"][(tensor + client) % 4];
        with_tensors(update(client), &[0, 1, 2, 3], dtype, |tensor| weights(client, tensor)).write(dir);
    });
    assert_reports_the_same(&dir, &WITH_BASE, &plain_round(), &WITH_BASE, 1e-7);
}

/// Rules merge integers but do not measure them, however far apart they are. The same holds for tensors without values.
#[test]
fn integers_and_empty_tensors() {
    let dir = round_of(|dir, client| {
        let counts = [client as i64 * 1_000_000_007, -5, 1 << (5 * client)];
        let update = update(client).i64("0.count", &[3], &counts).f32("0.none", &[0, 7], &[]);
        let update = with_tensors(update, &[0, 1], |_| "F32", |tensor| weights(client, tensor));
        let update = update.raw("b.flag", "BOOL", &[], &[u8::from(client.is_multiple_of(2))]);
        let update = with_tensors(update, &[2, 3], |_| "F32", |tensor| weights(client, tensor));
        update.raw("z.none", "F64", &[3, 0], &[]).write(dir);
    });
    assert_reports_the_same(&dir, &[], &plain_round(), &[], 1e-7);
}

/// The same values in other shapes: a scalar, and shapes with one more axis.
#[test]
fn shapes() {
    let shapes: [&[usize]; 4] = [&[13, 10, 10], &[], &[5, 13], &[1, 210, 1]];
    let dir = round_of(|dir, client| {
        let update = TENSORS.iter().enumerate().fold(update(client), |update, (tensor, (name, _))| {
            update.raw(name, "F32", shapes[tensor], &stored("F32", &weights(client, tensor)))
        });
        update.write(dir);
    });
    assert_reports_the_same(&dir, &[], &plain_round(), &[], 1e-7);
}

#[test]
fn order_of_tensors() {
    let orders = [[3, 2, 1, 0], [1, 0, 3, 2], [0, 1, 2, 3], [2, 3, 0, 1]];
    let of = |client: usize, order: &[usize]| {
        with_tensors(update(client), order, |_| "F32", |tensor| weights(client, tensor))
    };
    let all_alike = round_of(|dir, client| of(client, &orders[0]).write(dir));
    assert_reports_the_same(&all_alike, &[], &plain_round(), &[], 1e-7);
    let each_its_own = round_of(|dir, client| of(client, &orders[client % 4]).write(dir));
    assert_reports_the_same(&each_its_own, &[], &plain_round(), &[], 1e-7);
    assert_reports_the_same(&each_its_own, &WITH_BASE, &plain_round(), &WITH_BASE, 1e-7);
}

/// All clients but two are in shards, with different cuts.
#[test]
fn shards() {
    let dir = round_of(|dir, client| match client % 5 {
        0 => plain(client).write(dir),
        part if part < 3 => write_shards(dir, client, [&[0], &[1, 2, 3]]),
        _ => write_shards(dir, client, [&[2, 0], &[3, 1]]),
    });
    assert_reports_the_same(&dir, &[], &plain_round(), &[], 1e-7);
}

fn write_shards(dir: &Dir, client: usize, parts: [&[usize]; 2]) {
    let mut map = serde_json::Map::new();
    for (number, part) in parts.iter().enumerate() {
        let name = format!("{}-0000{}-of-00002", id(client), number + 1);
        let shard = Update::new(&format!("in/{name}")).meta("num_examples", &(client % 4 + 1).to_string());
        with_tensors(shard, part, |_| "F32", |tensor| weights(client, tensor)).write(dir);
        for tensor in *part {
            map.insert(TENSORS[*tensor].0.to_owned(), json!(format!("{name}.safetensors")));
        }
    }
    let index = json!({ "weight_map": map }).to_string();
    dir.write(&format!("in/{}.safetensors.index.json", id(client)), index);
}

/// A delta from the base is the same update as its weights, for some clients or all.
#[test]
fn deltas() {
    for every in [1, 2, 3] {
        let dir = round_of(|dir, client| {
            let of = |tensor: usize| delta(client, tensor);
            match client.is_multiple_of(every) {
                true => with_tensors(update(client).meta("kind", "delta"), &[0, 1, 2, 3], |_| "F32", of),
                false => plain(client),
            }
            .write(dir);
        });
        assert_reports_the_same(&dir, &WITH_BASE, &plain_round(), &WITH_BASE, 1e-6);
    }
}

/// Deltas without a base are judged as deltas.
#[test]
fn deltas_without_a_base() {
    let dir = round_of(|dir, client| plain(client).meta("kind", "delta").write(dir));
    assert_reports_the_same(&dir, &[], &plain_round(), &[], 1e-7);
}

/// All changes at once.
#[test]
fn everything_mixed() {
    let dir = round_of(|dir, client| {
        let (is_delta, order) = (client % 3 == 1, [[3, 0, 2, 1], [0, 1, 2, 3]][client % 2]);
        let dtype = |tensor: usize| if is_delta { "F64" } else { ["BF16", "F32", "F16", "F64"][tensor] };
        let update = if is_delta { update(client).meta("kind", "delta") } else { update(client) };
        let values = |tensor: usize| if is_delta { delta(client, tensor) } else { weights(client, tensor) };
        with_tensors(update, &order, dtype, values).write(dir);
    });
    assert_reports_the_same(&dir, &WITH_BASE, &plain_round(), &WITH_BASE, 1e-6);
}

/// The negative control: a changed value of one client shows in every rule with scores.
#[test]
fn another_value_is_noticed() {
    let other = round_of(|dir, client| {
        let twice = |tensor: usize| weights(client, tensor).iter().map(|x| x * 2.0).collect();
        let values = |tensor: usize| if client == 4 { twice(tensor) } else { weights(client, tensor) };
        with_tensors(update(client), &[0, 1, 2, 3], |_| "F32", values).write(dir);
    });
    let [got, want] = [&other, &plain_round()].map(|dir| run(dir, &["krum"], &[]).report["clients"].clone());
    assert!(std::panic::catch_unwind(|| compare(&got, &want, "clients")).is_err());
    compare(&want, &want, "clients");
}
