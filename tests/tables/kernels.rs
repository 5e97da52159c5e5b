//! The table of kernels with shaders: what each computes, and how its shaders agree with the CPU.

use super::{check, line};
use crate::gpu::shaders::{agreement, stems};
use crate::harness::source_tree;
use fedmill::kernels::KERNELS;

#[test]
fn the_table_of_kernels_is_the_registrys() {
    let Some(root) = source_tree() else { return };
    let stems = stems(&root.join("shaders"));
    let rows = KERNELS.iter().flat_map(|kernel| {
        let own = kernel.shaders.iter().filter(|stem| stems.contains(**stem)).enumerate();
        own.map(|(place, stem)| {
            let (name, computes) = if place == 0 {
                (format!("`{}`", kernel.name), kernel.computes)
            } else {
                (String::new(), "")
            };
            let agreement = agreement(stem);
            let bound = agreement.strip_prefix("Close: ").unwrap_or(&agreement);
            let is_formula = bound.starts_with('|') && !bound.contains('`');
            let bound = if is_formula { format!("`{bound}`") } else { bound.to_owned() };
            line([name, computes.to_owned(), format!("`{stem}`"), bound])
        })
    });
    let head = ["kernel", "computes", "shader", "agreement with the CPU"];
    check(&root.join("docs/gpu.md"), "kernels", &head, rows);
}
