//! The tables of codecs: their streams and inputs, and the bits and errors that the tests measure.

use super::{check, line};
use crate::harness::source_tree;
use crate::quality::{Distribution, VALUES, nmse};
use fedmill::codecs::{self, CODECS, Codec, Coding, Extent, Family, Seeds, Vector};
use fedmill::kernels::lanes::Isa;
use fedmill::model::sparsity::Sparsity;

fn quoted(texts: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    texts.map(|text| format!("`{}`", text.as_ref())).collect()
}

fn names(family: &Family) -> String {
    match &quoted(family.names())[..] {
        [first, _, .., last] => format!("{first} to {last}"),
        few => few.join(", "),
    }
}

fn settings(family: &Family) -> String {
    let values = |(key, values): &(&str, &[&str])| {
        let first = format!("{key}={}", values[0]);
        quoted(std::iter::once(first.as_str()).chain(values[1..].iter().copied())).join(", ")
    };
    let settings: Vec<String> = family.settings.iter().map(values).collect();
    if settings.is_empty() { "none".to_owned() } else { settings.join("; ") }
}

/// Whether a family is unbiased, or the setting that makes it so.
fn unbiased(family: &Family) -> String {
    let name = family.names().next().unwrap();
    let is_unbiased = |text: &str| codecs::parse(text).unwrap().is_unbiased();
    let by_default = is_unbiased(name);
    for (key, values) in family.settings {
        let with = |value: &&&str| is_unbiased(&format!("{name}:{key}={value}"));
        if values.iter().any(|value| with(&value) != by_default) {
            let found: Vec<&&str> = values.iter().filter(with).collect();
            return found.iter().map(|value| format!("with `{key}={value}`")).collect::<Vec<_>>().join(", ");
        }
    }
    if by_default { "yes" } else { "no" }.to_owned()
}

/// An encoded matrix: the coding, its bytes and those of its streams, and the decoded values.
fn encoded(codec: &dyn Codec, values: &[f32], shape: [usize; 2]) -> (Coding, usize, Vec<f32>) {
    let vector = Vector { len: values.len(), shape: shape.to_vec() };
    let mut encoder = codec.encoder(Isa::detect(), &vector, Seeds { own: 1, shared: 2 });
    codecs::settle(encoder.as_mut(), values);
    let coding = encoder.coding();
    let scheme = coding.scheme().unwrap();
    let streams = scheme.streams(&vector).unwrap();
    let (of_chunks, known): (Vec<_>, Vec<_>) =
        streams.into_iter().partition(|stream| stream.extent == Extent::Chunks);
    let known: usize = known.iter().map(|stream| stream.spec("", 0).unwrap().bytes()).sum();
    let mut bytes = postcard::to_allocvec(&coding).unwrap().len() + known;
    let mut decoded = vec![f32::NAN; values.len()];
    for ((start, chunk), decoded) in codecs::chunks(values).zip(decoded.chunks_mut(codecs::CHUNK)) {
        let streams = encoder.encode(start, chunk);
        bytes += streams.last().filter(|_| !of_chunks.is_empty()).map_or(0, Vec::len);
        let streams: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        scheme.decode(Isa::detect(), &vector, start, &streams, decoded).unwrap();
    }
    (coding, bytes, decoded)
}

/// The rules that accept updates of a family.
fn merged_by(family: &Family) -> &'static str {
    let codec = codecs::parse(family.names().next().unwrap()).unwrap();
    let shape = [8, 64];
    let (coding, ..) = encoded(codec.as_ref(), &Distribution::Gaussian.values(512), shape);
    let vector = Vector { len: 512, shape: shape.to_vec() };
    match coding.scheme().unwrap().sparsity(&vector) {
        _ if codec.is_linear() => "`mean`",
        Sparsity::Dense => "every rule",
        Sparsity::Own { .. } => "`mean`; every rule from half of the values on",
        Sparsity::Shared { .. } => "every rule, if all clients make the same choice",
    }
}

#[test]
fn the_table_of_codecs_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let row = |family: &&Family| {
        let merged_by = merged_by(family).to_owned();
        line([names(family), family.summary.to_owned(), settings(family), unbiased(family), merged_by])
    };
    let head = ["codec", "what it sends", "settings", "unbiased", "merged by"];
    check(&root.join("docs/compression.md"), "codecs", &head, CODECS.iter().map(row));
}

/// A figure with two significant digits.
fn figure(x: f64) -> String {
    let scientific = format!("{x:.1e}");
    let exponent: i32 = scientific.split_once('e').unwrap().1.parse().unwrap();
    match exponent {
        _ if x == 0.0 => "0".to_owned(),
        ..-3 => scientific,
        _ => format!("{x:.*}", (1 - exponent).max(0) as usize),
    }
}

#[test]
fn figures_have_two_digits() {
    let figures = [
        (0.0, "0"),
        (3.44e-5, "3.4e-5"),
        (0.00804, "0.0080"),
        (0.2, "0.20"),
        (0.00998, "0.010"),
        (2.71, "2.7"),
        (99.4, "99"),
    ];
    for (x, text) in figures {
        assert_eq!(figure(x), text);
    }
}

/// Every codec as `--table` uses it, and each setting of codecs with their own file.
#[test]
fn the_table_of_errors_is_what_is_measured() {
    let Some(root) = source_tree() else { return };
    let mut texts: Vec<String> = Vec::new();
    for family in CODECS {
        let examples = family.examples().filter(|_| family.codecs.len() == 1);
        for text in family.tried().chain(examples) {
            let text = codecs::parse(&text).unwrap().to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    let vectors = [Distribution::Gaussian, Distribution::StudentT3].map(|of| of.values(VALUES));
    let row = |text: &String| {
        let codec = codecs::parse(text).unwrap();
        let [gaussian, tails] = vectors.each_ref().map(|values| {
            let (_, bytes, decoded) = encoded(codec.as_ref(), values, [512, VALUES / 512]);
            (8.0 * bytes as f64 / VALUES as f64, nmse(values, &decoded))
        });
        line([format!("`{text}`"), format!("{:.2}", gaussian.0), figure(gaussian.1), figure(tails.1)])
    };
    let head = ["codec", "bits a value", "NMSE, Gaussian", "NMSE, heavy tails"];
    check(&root.join("docs/compression-tables.md"), "errors", &head, texts.iter().map(row));
}
