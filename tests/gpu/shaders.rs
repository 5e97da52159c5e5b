//! Every shader, without a device.
//!
//! naga parses and validates each variant that a run may compile. The tests compare layouts and sizes in WGSL with
//! those in Rust, and rows of the registry with the files.

use crate::harness::source_tree;
use fedmill::gpu::selftest::{device_kernels, every_variant};
use fedmill::gpu::shaders::{Variant, files, probes};
use fedmill::gpu::variants;
use fedmill::kernels::{Agreement, KERNELS, Kernel};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Literal, Module, TypeInner};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest number of lines of a shader.
const MOST_LINES: usize = 150;
/// Shaders that may be longer, because they name their registers one by one.
const LONG: [(&str, usize); 1] = [("gram", 210)];

/// The faults in the text of a variant; empty if there is none.
fn faults(variant: &Variant, source: &str) -> Vec<String> {
    let module = match naga::front::wgsl::parse_str(source) {
        Ok(module) => module,
        Err(why) => return vec![why.emit_to_string(source)],
    };
    let capabilities = Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER;
    if let Err(why) = Validator::new(ValidationFlags::all(), capabilities).validate(&module) {
        return vec![why.emit_to_string(source)];
    }
    let mut faults = Vec::new();
    check_entry(variant, &module, &mut faults);
    check_bindings(&module, &mut faults);
    check_shape(&module, &mut faults);
    check_chunk(variant, &module, &mut faults);
    faults
}

fn check_entry(variant: &Variant, module: &Module, faults: &mut Vec<String>) {
    let entries: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    if entries != ["main"] {
        faults.push(format!("its entry points are {entries:?}"));
        return;
    }
    let (found, expected) =
        (module.entry_points[0].workgroup_size, variants::workgroup_size(variant.kernel) as u32);
    if found != [expected, 1, 1] {
        faults.push(format!("a workgroup is {found:?}, but {expected} invocations are dispatched"));
    }
}

/// Bindings 0 and 1 are the shape and the status. The others follow without a gap.
fn check_bindings(module: &Module, faults: &mut Vec<String>) {
    let mut bindings = Vec::new();
    for (_, global) in module.global_variables.iter() {
        if let Some(binding) = &global.binding {
            let name = module.types[global.ty].name.clone().unwrap_or_default();
            bindings.push((binding.group, binding.binding, name, global.space));
        }
    }
    bindings.sort_by_key(|(group, binding, ..)| (*group, *binding));
    let places: Vec<_> = bindings.iter().map(|(group, binding, ..)| (*group, *binding)).collect();
    if places != (0..bindings.len() as u32).map(|binding| (0, binding)).collect::<Vec<_>>() {
        faults.push(format!("its bindings are {places:?}"));
    }
    let is = |place: usize, name: &str, is_space: fn(AddressSpace) -> bool| {
        bindings.get(place).is_some_and(|(_, _, found, space)| found == name && is_space(*space))
    };
    if !is(0, "Shape", |space| space == AddressSpace::Uniform) {
        faults.push("binding 0 is not the uniform shape".to_owned());
    }
    if !is(1, "Status", |space| matches!(space, AddressSpace::Storage { .. })) {
        faults.push("binding 1 is not the status".to_owned());
    }
}

/// The members of a struct of the shader, with their offsets, and its size.
fn layout(module: &Module, name: &str) -> (Vec<(String, usize)>, usize) {
    let found = module.types.iter().find(|(_, kind)| kind.name.as_deref() == Some(name));
    match found.map(|(_, kind)| &kind.inner) {
        Some(TypeInner::Struct { members, span }) => {
            let member = |member: &naga::StructMember| {
                (member.name.clone().unwrap_or_default(), member.offset as usize)
            };
            (members.iter().map(member).collect(), *span as usize)
        }
        _ => (Vec::new(), 0),
    }
}

fn check_shape(module: &Module, faults: &mut Vec<String>) {
    let (members, size) = variants::shape_layout();
    let expected: Vec<_> = members.into_iter().map(|(name, offset)| (name.to_owned(), offset)).collect();
    let found = layout(module, "Shape");
    if found != (expected.clone(), size) {
        faults.push(format!("its shape is {found:?}, that of Rust {expected:?} of {size} bytes"));
    }
    let status = layout(module, "Status");
    if status.0 != [("finished".to_owned(), 0), ("largest".to_owned(), 4)] {
        faults.push(format!("its status is {status:?}"));
    }
}

/// The value of a constant of the shader.
fn constant(module: &Module, name: &str) -> Option<u32> {
    let found = module.constants.iter().find(|(_, constant)| constant.name.as_deref() == Some(name));
    match found.map(|(_, constant)| &module.global_expressions[constant.init]) {
        Some(Expression::Literal(Literal::U32(value))) => Some(*value),
        _ => None,
    }
}

fn check_chunk(variant: &Variant, module: &Module, faults: &mut Vec<String>) {
    let (found, expected) = (constant(module, "CHUNK"), variants::chunk(variant));
    if found.map(|chunk| chunk as usize) != expected {
        faults.push(format!("its chunk is {found:?}, but dispatches count {expected:?} columns"));
    }
}

#[test]
fn every_variant_is_valid_and_laid_out_as_rust_has_it() {
    let all = every_variant();
    assert!(all.len() > 100, "the variants were not found");
    for variant in all {
        let source = variant.source().unwrap();
        let faults = faults(&variant, &source);
        assert!(faults.is_empty(), "{variant:?}: {}", faults.join("; "));
    }
}

#[test]
fn no_variant_is_listed_twice() {
    let all = every_variant();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn faults_are_noticed() {
    let all = every_variant();
    let variant = all.iter().find(|variant| variant.kernel == "norms").unwrap();
    let source = variant.source().unwrap();
    let cases = [
        ("fn main", "fn entry", "entry points"),
        ("const GROUP: u32 = 256u;", "const GROUP: u32 = 128u;", "a workgroup is"),
        ("const CHUNK: u32 = 4096u;", "const CHUNK: u32 = 2048u;", "its chunk is"),
        ("    columns: u32,\n", "    wide: u32,\n    columns: u32,\n", "its shape is"),
        (
            "    finished: atomic<u32>,",
            "    ended: atomic<u32>,\n    finished: atomic<u32>,",
            "its status is",
        ),
        ("var<uniform>", "var<storage, read>", "not the uniform shape"),
        ("@binding(6)", "@binding(7)", "its bindings are"),
        ("finish(lane, 0u);", "finish(lane, 0i);", "error"),
        ("parts[lane] = sum;", "parts[lane] = missing;", "error"),
    ];
    for (from, to, expected) in cases {
        let broken = source.replace(from, to);
        assert_ne!(broken, source, "`{from}` is not in the source");
        let faults = faults(variant, &broken);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{to}: {faults:?}");
    }
    let two = format!("{source}\n@compute @workgroup_size(1)\nfn more() {{}}\n");
    assert!(faults(variant, &two)[0].contains("entry points"));
}

#[test]
fn an_import_that_there_is_not_is_an_error() {
    let variant = Variant::new("norms", &[]);
    let expanded = |text: &str| {
        let mut source = String::new();
        variant.expand(text, &mut source, &mut Vec::new()).map(|()| source)
    };
    assert_eq!(expanded("#import missing\n"), Err("no shader is called `missing`".to_owned()));
    assert_eq!(expanded("#import network\n"), Err("norms: no network was chosen".to_owned()));
    assert_eq!(Variant::new("missing", &[]).source(), Err("no shader is called `missing`".to_owned()));
    let twice = expanded("#import shape\n#import shape\n").unwrap();
    assert_eq!(twice.matches("struct Shape").count(), 1);
    // Text that is not an import by the rule stays in the output, where it is not valid WGSL.
    assert!(naga::front::wgsl::parse_str(&expanded("  #import shape\n").unwrap()).is_err());
}

/// The folder of the shaders. The tests run beside their source.
fn folder() -> Option<PathBuf> {
    source_tree().map(|root| root.join("shaders"))
}

/// The stems of the kernels and shared pieces in a folder.
fn stems(folder: &Path) -> BTreeSet<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_file())
        .inspect(|path| assert_eq!(path.extension().unwrap(), "wgsl", "{}", path.display()))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_file_is_embedded_and_reached() {
    let embedded: BTreeSet<String> = files().iter().map(|(stem, _)| (*stem).to_owned()).collect();
    let Some(folder) = folder() else { return };
    let (kernels, shared) = (stems(&folder), stems(&folder.join("shared")));
    assert_eq!(embedded, kernels.union(&shared).cloned().collect(), "the folder and the program differ");
    assert_eq!(embedded.len(), files().len(), "two files have one stem");

    let all = every_variant();
    let asked: BTreeSet<String> = all.iter().map(|variant| variant.kernel.to_owned()).collect();
    assert_eq!(asked, kernels, "kernels and the list of variants differ");
    let mut lines = BTreeSet::new();
    for variant in &all {
        lines.extend(variant.source().unwrap().lines().map(str::to_owned));
    }
    for (stem, text) in files() {
        // The first lines of the files all differ.
        let first = text.lines().next().unwrap();
        assert_eq!(files().iter().filter(|(_, text)| text.starts_with(first)).count(), 1, "{stem}");
        assert!(lines.contains(first), "{stem} is in no variant");
    }
}

#[test]
fn the_probes_are_valid() {
    for (stem, text) in probes() {
        let module = naga::front::wgsl::parse_str(text).unwrap();
        Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        let entries: Vec<_> =
            module.entry_points.iter().map(|entry| (&*entry.name, entry.workgroup_size)).collect();
        assert_eq!(entries, [("main", [variants::workgroup_size(stem) as u32, 1, 1])], "{stem}");
    }
    let Some(folder) = folder() else { return };
    let embedded: BTreeSet<String> = probes().iter().map(|(stem, _)| (*stem).to_owned()).collect();
    assert_eq!(embedded, stems(&folder.join("probes")));
}

#[test]
fn every_file_reads_well() {
    let Some(folder) = folder() else { return };
    for (stem, text) in files() {
        let is_kernel = folder.join(format!("{stem}.wgsl")).exists();
        assert!(text.starts_with("// "), "{stem}: it does not say what it is for");
        let head: String = text.lines().take_while(|line| line.starts_with("//")).collect();
        let agrees = ["// Bits", "// Ulp(", "// Close: "].iter().any(|class| head.contains(class));
        assert!(agrees || !is_kernel, "{stem}: it does not say how it agrees with the CPU");
        assert!(text.matches("@compute").count() <= 1, "{stem}: entry points");
        let most = LONG.iter().find(|(long, _)| long == stem).map_or(MOST_LINES, |(_, most)| *most);
        assert!(text.lines().count() < most, "{stem}: {} lines", text.lines().count());
        // naga accepts the builtins without `enable`, and refuses some of the directives.
        assert!(!text.lines().any(|line| line.trim_start().starts_with("enable")), "{stem}: enables");
    }
}

/// The shaders of a kernel that are compiled, not only imported.
fn shaders(kernel: &Kernel, all: &BTreeSet<String>) -> BTreeSet<String> {
    kernel.shaders.iter().map(|stem| (*stem).to_owned()).filter(|stem| all.contains(stem)).collect()
}

#[test]
fn every_kernel_with_shaders_is_compiled_and_tested_on_devices() {
    let all: BTreeSet<String> =
        every_variant().into_iter().map(|variant| variant.kernel.to_owned()).collect();
    for kernel in KERNELS {
        let rows: Vec<_> = device_kernels().filter(|row| row.kernel == kernel.name).collect();
        let compiled = rows.iter().flat_map(|row| (row.variants)());
        let compiled: BTreeSet<String> = compiled.map(|variant| variant.kernel.to_owned()).collect();
        assert_eq!(compiled, shaders(kernel, &all), "{}: its row and its variants differ", kernel.name);
        assert!(
            compiled.is_empty() || rows.iter().any(|row| !row.cases.is_empty()),
            "{}: no test",
            kernel.name
        );
    }
    for row in device_kernels() {
        assert!(KERNELS.iter().any(|kernel| kernel.name == row.kernel), "{} is in no row", row.kernel);
    }
}

#[test]
fn every_shader_is_in_the_row_of_a_kernel_and_agrees_as_that_says() {
    let Some(folder) = folder() else { return };
    let named: BTreeSet<String> =
        KERNELS.iter().flat_map(|row| row.shaders).map(|stem| (*stem).to_owned()).collect();
    let embedded: BTreeSet<String> = files().iter().map(|(stem, _)| (*stem).to_owned()).collect();
    assert!(named.is_subset(&embedded), "{:?} are no shaders", named.difference(&embedded));
    let kernels = stems(&folder);
    assert!(kernels.is_subset(&named), "{:?} are in no row", kernels.difference(&named));
    for kernel in KERNELS.iter().filter(|kernel| kernel.agreement == Agreement::Bits) {
        for stem in shaders(kernel, &kernels) {
            let agreement = agreement(&stem);
            assert!(agreement.starts_with("Bits"), "{}: {stem} agrees by {agreement}", kernel.name);
        }
    }
}

/// The first sentence of a shader's paragraph on its agreement with the CPU.
fn agreement(stem: &str) -> String {
    let (_, text) = files().iter().find(|(name, _)| *name == stem).unwrap();
    let head = text.lines().map_while(|line| line.strip_prefix("//")).map(str::trim).collect::<Vec<_>>();
    let is_class = |line: &&str| ["Bits", "Ulp(", "Close: "].iter().any(|class| line.starts_with(class));
    let start = head.iter().position(|line| is_class(line)).unwrap_or_else(|| panic!("{stem}: no agreement"));
    let paragraph =
        head[start..].iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_once(". ").map_or(paragraph.as_str(), |(first, _)| first);
    sentence.trim_end_matches('.').to_owned()
}

/// The table of docs/gpu.md: every kernel with shaders, and how each of them agrees.
fn agreement_table(all: &BTreeSet<String>) -> String {
    let mut table = "| kernel | computes | shader | agreement with the CPU |\n|---|---|---|---|\n".to_owned();
    for kernel in KERNELS {
        for (place, stem) in kernel.shaders.iter().filter(|stem| all.contains(**stem)).enumerate() {
            let (name, computes) = if place == 0 { (kernel.name, kernel.computes) } else { ("", "") };
            let agreement = match agreement(stem).strip_prefix("Close: ") {
                Some(bound) if !bound.contains('`') => format!("`{bound}`"),
                _ => agreement(stem),
            };
            table += &format!("| {name} | {computes} | `{stem}` | {} |\n", agreement.replace('|', "\\|"));
        }
    }
    table
}

#[test]
fn the_page_of_the_gpu_has_the_agreement_of_every_shader() {
    let Some(root) = source_tree() else { return };
    let path = root.join("docs/gpu.md");
    let page = fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- kernels: `just bless` writes this table -->\n", "<!-- end of kernels -->\n");
    let (before, rest) = page.split_once(start).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let expected = agreement_table(&stems(&root.join("shaders")));
    if std::env::var_os("FEDMILL_BLESS").is_some() {
        fs::write(&path, [before, start, &expected, end, after].concat()).unwrap();
    } else {
        assert_eq!(found, expected, "`just bless` writes the table anew");
    }
}
