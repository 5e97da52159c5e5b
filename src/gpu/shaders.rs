//! The shaders that are embedded in the program, and how a kernel's text is put together.
//!
//! A shader file is plain WGSL with one addition: a line `#import NAME` stands for `shaders/shared/NAME.wgsl`, once
//! however often it is named; `lanes` is that of subgroups or of workgroups, as `SUBGROUPS` says. Constants that differ between variants of a kernel are defined in front, from Rust.

use std::fmt::Write as _;

/// The value of a constant that a shader leaves open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Value {
    /// A `u32`.
    Number(u32),
    /// A `bool`.
    Flag(bool),
}

/// A variant of a kernel: its stem, the constants it leaves open, the sorting network it imports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Variant {
    /// The stem of its file.
    pub kernel: &'static str,
    /// Constants.
    pub defines: Vec<(&'static str, Value)>,
    /// What `#import network` stands for: a number of wires, and which of them are wanted.
    pub network: Option<(usize, Wanted)>,
}

/// Which places of a sorted column a kernel reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wanted {
    /// The two in the middle.
    Middle,
    /// All.
    All,
}

macro_rules! embedded {
    ($($folder:literal: $($name:literal)*;)*) => {
        &[$($(($name, include_str!(concat!("../../shaders/", $folder, $name, ".wgsl"))),)*)*]
    };
}

/// The files of kernels, by stem. Nothing but these and the probes is ever compiled.
const FILES: &[(&str, &str)] = embedded! {
    "": "block_dequantize" "block_ends" "block_quantize" "bucketize" "centre" "coordinate_median"
        "coordinate_median_many" "discrete_gaussian" "gram" "gram_reduce" "hadamard" "integer_sum" "mean_near_median" "mean_near_median_many" "mixing"
        "norms" "select_histogram" "select_output" "server_step" "signs" "trimmed_mean" "trimmed_mean_many"
        "weighted_sum";
    "shared/": "bisection" "chacha20" "floats" "interval_sum" "lanes_subgroup" "lanes_workgroup" "limbs" "nearness" "packed" "philox"
        "references" "rows" "shape" "sorted" "status";
};

/// Shaders that are no kernels: they measure a device, or spoil its memory for tests.
const PROBES: &[(&str, &str)] = embedded! { "probes/": "peak" "poison"; };

include!(concat!(env!("OUT_DIR"), "/shader_networks.rs"));

/// The text of every file that is embedded, by stem.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// The text of every shader that is no kernel, by stem.
pub fn probes() -> &'static [(&'static str, &'static str)] {
    PROBES
}

impl Variant {
    /// A variant that imports no network.
    pub fn new(kernel: &'static str, defines: &[(&'static str, Value)]) -> Self {
        Self { kernel, defines: defines.to_vec(), network: None }
    }

    /// Its WGSL.
    ///
    /// # Errors
    ///
    /// Names an import that there is not.
    pub fn source(&self) -> Result<String, String> {
        let mut text = String::new();
        for (name, value) in &self.defines {
            let _ = match value {
                Value::Number(number) => writeln!(text, "const {name}: u32 = {number}u;"),
                Value::Flag(flag) => writeln!(text, "const {name}: bool = {flag};"),
            };
        }
        self.expand(self.file(self.kernel)?, &mut text, &mut Vec::new())?;
        Ok(text)
    }

    /// Appends a file's text with what it imports, each import once.
    ///
    /// # Errors
    ///
    /// Names an import that there is not.
    pub fn expand(&self, file: &str, text: &mut String, imported: &mut Vec<String>) -> Result<(), String> {
        for line in file.lines() {
            match line.strip_prefix("#import ") {
                Some(import) if imported.iter().any(|name| name == import) => {}
                Some(import) => {
                    imported.push(import.to_owned());
                    self.expand(self.file(import)?, text, imported)?;
                }
                None => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Result<&'static str, String> {
        if name == "network" {
            let wanted = self.network.ok_or_else(|| format!("{}: no network was chosen", self.kernel))?;
            let found =
                NETWORKS.iter().find(|(size, all, _)| (*size, *all) == (wanted.0, wanted.1 == Wanted::All));
            return found
                .map(|(_, _, text)| *text)
                .ok_or_else(|| format!("no network of {} wires", wanted.0));
        }
        let name = match name {
            "lanes" if self.defines.contains(&("SUBGROUPS", Value::Flag(true))) => "lanes_subgroup",
            "lanes" => "lanes_workgroup",
            name => name,
        };
        let found = FILES.iter().chain(PROBES).find(|(stem, _)| *stem == name);
        found.map(|(_, text)| *text).ok_or_else(|| format!("no shader is called `{name}`"))
    }
}
