//! The WGSL that is embedded in the program, and the assembly of a kernel's text.
//!
//! A shader file is plain WGSL with one addition: a line `#import NAME` stands for `shaders/shared/NAME.wgsl`, and
//! counts once in a text. `#import lanes` is `lanes_subgroup` or `lanes_workgroup`, as the constant `SUBGROUPS` says.
//! Constants that differ between the variants of a kernel are defined in front of the text, from Rust. The build script
//! lists the files of the folder.

use std::fmt::Write as _;

/// The value of a constant of a variant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Value {
    /// A `u32`.
    Number(u32),
    /// A `bool`.
    Flag(bool),
}

/// A variant of a kernel's shader: its file, its constants, the sorting network that it imports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Variant {
    /// The stem of the file.
    pub kernel: &'static str,
    /// The constants that are defined in front.
    pub defines: Vec<(&'static str, Value)>,
    /// The network behind `#import network`: its number of wires, and those that the kernel reads.
    pub network: Option<(usize, SortedPlaces)>,
}

/// The places of a sorted column that a kernel reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SortedPlaces {
    /// The two middle places.
    Middle,
    /// Every place.
    All,
}

// `FILES` and `PROBES`: the text of every file by stem. Nothing else is ever compiled.
include!(concat!(env!("OUT_DIR"), "/shader_files.rs"));
// `NETWORKS`: sorting networks.
include!(concat!(env!("OUT_DIR"), "/shader_networks.rs"));

/// The text of every kernel's shader and of every piece they import, by stem.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// The text of every probe by stem: shaders that measure a device or spoil its memory for tests.
pub fn probes() -> &'static [(&'static str, &'static str)] {
    PROBES
}

impl Variant {
    /// A variant without a network.
    pub fn new(kernel: &'static str, defines: &[(&'static str, Value)]) -> Self {
        Self { kernel, defines: defines.to_vec(), network: None }
    }

    /// Returns the WGSL.
    ///
    /// # Errors
    ///
    /// Names a file that is imported and does not exist.
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

    /// Appends a file's text, with each of its imports once.
    ///
    /// # Errors
    ///
    /// Names a file that is imported and does not exist.
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
            let found = NETWORKS
                .iter()
                .find(|(size, all, _)| (*size, *all) == (wanted.0, wanted.1 == SortedPlaces::All));
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
