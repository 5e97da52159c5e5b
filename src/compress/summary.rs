//! The summary of a compressed update: measured on its file and on the decoded values.

use crate::codecs::Coding;
use crate::compress::attempt::Attempt;
use crate::compress::encode::PartEncoder;
use crate::compress::goal::Cost;
use crate::compress::inputs::Inputs;
use crate::compress::method::CompressionMethod;
use crate::compress::quality::{Measures, white_bound};
use crate::model::dtype::Kind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What `compress` reports: measured on the file and on the values that it decodes to.
#[derive(Clone, Serialize, Debug)]
pub struct Summary {
    /// Path of the input.
    pub input: String,
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Path of the compressed file; `None` in a dry run.
    pub output: Option<String>,
    /// Bytes of the compressed file, with its header.
    pub output_bytes: u64,
    /// Input bytes over output bytes.
    pub ratio: f64,
    /// Bytes of the header and the directory.
    pub header_bytes: u64,
    /// Float values of the update.
    pub parameters: u64,
    /// Bits of the compressed file for each float value.
    pub bits_per_parameter: f64,
    /// The error.
    #[serde(flatten)]
    pub measures: Measures,
    /// The least NMSE of any code with this number of bits, on white Gaussian data.
    pub white_nmse_bound: f64,
    /// Values beyond the range of their codec or dtype, which decode as its end.
    pub values_cut: u64,
    /// Values that are not zero, and are sent as zero because they are too small for the dtype.
    pub values_lost: u64,
    /// Values by codec.
    pub codecs: BTreeMap<String, u64>,
    /// How the file misses its targets; `None` if it meets them.
    pub missed: Option<String>,
}

impl Summary {
    /// Warns of values that did not fit.
    pub fn warn_of_range(&self) {
        let Self { input, parameters, values_cut, values_lost, .. } = self;
        if *values_cut > 0 {
            tracing::warn!(
                hint = "bf16, u8 and ecsq send values of any size",
                "{input}: {values_cut} of {parameters} values are beyond the range of the codec and are cut to its end"
            );
        }
        if *values_lost > 0 {
            tracing::warn!(
                hint = "multiply the update by a constant, and divide the merged delta by it",
                "{input}: {values_lost} of {parameters} values are lost: they are too small for the codec and become zero"
            );
        }
    }

    /// The measurements in a sentence.
    pub fn text(&self) -> String {
        let measures = &self.measures;
        let values = |(codec, values): (&String, &u64)| format!("{codec} {values}");
        let codecs = self.codecs.iter().map(values).collect::<Vec<_>>().join(", ");
        format!(
            "{}: {} bytes, {:.2}x ({:.3} bits per parameter); NMSE {:.3e}, cosine {:.4}, norm ratio {:.4}; \
             least NMSE of white data {:.3e}; values by codec: {codecs}",
            self.input,
            self.output_bytes,
            self.ratio,
            self.bits_per_parameter,
            measures.nmse,
            measures.cosine,
            measures.norm_ratio,
            self.white_nmse_bound
        )
    }

    /// The summary of an attempt.
    pub(crate) fn of(
        inputs: &Inputs,
        attempt: &Attempt,
        method: &CompressionMethod,
        output: Option<&Path>,
    ) -> Self {
        let (input_bytes, output_bytes) = (inputs.update.bytes(), attempt.file.bytes);
        let mut codecs = BTreeMap::new();
        for part in &attempt.parts {
            *codecs.entry(name(part)).or_insert(0) += part.plan.vector.len as u64;
        }
        let floats = inputs.update.table.iter().filter(|place| place.spec.dtype.kind() == Kind::Float);
        let parameters: u64 = floats.map(|place| place.spec.len as u64).sum();
        let quality = attempt.quality();
        let bits = 8.0 * output_bytes as f64 / parameters.max(1) as f64;
        Self {
            input: inputs.update.path.display().to_string(),
            input_bytes,
            output: output.map(|path| path.display().to_string()),
            output_bytes,
            ratio: input_bytes as f64 / output_bytes as f64,
            header_bytes: attempt.file.header_bytes,
            parameters,
            bits_per_parameter: bits,
            measures: quality.measures(),
            values_cut: quality.cut,
            values_lost: quality.lost,
            white_nmse_bound: white_bound(bits),
            codecs,
            missed: missed(method, input_bytes, &attempt.cost()),
        }
    }
}

/// The name of the codec that encoded a part.
fn name(part: &PartEncoder) -> String {
    match (&part.plan.codec, &part.coding) {
        (_, Coding::Constant(_)) => "const".to_owned(),
        // Also where the named codec leaves a vector to f16.
        (_, Coding::Half(half)) => half.to_string(),
        (Some(codec), _) => codec.to_string(),
        (None, _) => "raw".to_owned(),
    }
}

/// How a file misses its targets; `None` if it meets them.
fn missed(method: &CompressionMethod, input_bytes: u64, cost: &Cost) -> Option<String> {
    let CompressionMethod::Targets(targets) = method else { return None };
    let goal = targets.goal(input_bytes);
    let bytes = goal.bytes.filter(|most| cost.bytes > *most);
    let nmse = goal.nmse.filter(|most| cost.nmse > *most);
    let bytes = bytes.map(|most| format!("{} bytes, expected at most {most}", cost.bytes));
    let nmse = nmse.map(|most| format!("NMSE {:.4e}, expected at most {most:e}", cost.nmse));
    let missed: Vec<String> = bytes.into_iter().chain(nmse).collect();
    (!missed.is_empty()).then(|| format!("the best file found has {}", missed.join("; ")))
}
