//! Advice on what to install if no GPU is found.

use crate::gpu::job::Adapter;
use crate::io::system::Vulkan;

const NO_FEATURE: &str = "this build has no GPU support: build it with the `gpu` feature";
const ONLY_SOFTWARE: &str =
    "a software adapter computes on the processor: fedmill uses it only if --adapter names it";
const NO_LOADER: &str = "the Vulkan loader, libvulkan.so.1, is missing: install libvulkan1";
const NO_DRIVER: &str = "no Vulkan driver is installed: install mesa-vulkan-drivers for AMD, Intel and software, or \
     NVIDIA's own driver";
const NO_NVIDIA_DRIVER: &str = "NVIDIA's kernel module is loaded, but its Vulkan driver is missing: start the \
     container with NVIDIA_DRIVER_CAPABILITIES=graphics (or all), or install the part of the driver that contains \
     nvidia_icd.json";
const NO_LIBXEXT: &str = "NVIDIA's driver links to libXext.so.6, which is missing: install libxext6";
const NVIDIA_HEADLESS: &str = "NVIDIA's driver is installed, but shows no device: without a display, name a manifest \
     whose library is libEGL_nvidia.so.0 in VK_DRIVER_FILES";
const HIDDEN: &str =
    "a device whose first queue family cannot do graphics stays hidden: the driver must offer graphics";

/// The remedies in the order to try them; empty if a GPU was found.
pub(super) fn advice(vulkan: &Vulkan, adapters: &[Adapter]) -> Vec<String> {
    if !cfg!(feature = "gpu") {
        return vec![NO_FEATURE.to_owned()];
    }
    if adapters.iter().any(|adapter| !adapter.is_software()) {
        return Vec::new();
    }
    let mut advice = missing(vulkan);
    if !adapters.is_empty() {
        advice.push(ONLY_SOFTWARE.to_owned());
    }
    advice
}

fn missing(vulkan: &Vulkan) -> Vec<String> {
    let mut missing = Vec::new();
    let mut add = |is_so: bool, advice: &str| {
        if is_so {
            missing.push(advice.to_owned());
        }
    };
    add(!vulkan.has_loader, NO_LOADER);
    let (none, nvidia) = (vulkan.manifests.is_empty(), vulkan.has_nvidia_module);
    if let Some(variable) = vulkan.named_by {
        add(none, &format!("{variable} names no existing file: correct it, or unset it"));
    }
    add(none && !nvidia && vulkan.named_by.is_none(), NO_DRIVER);
    add(nvidia && !vulkan.has_nvidia_manifest, NO_NVIDIA_DRIVER);
    add(vulkan.has_nvidia_manifest && !vulkan.has_libxext, NO_LIBXEXT);
    add(nvidia && vulkan.has_nvidia_manifest && vulkan.has_libxext, NVIDIA_HEADLESS);
    add(vulkan.has_loader && !none && (nvidia || vulkan.has_render_node), HIDDEN);
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(kind: &'static str) -> Adapter {
        Adapter {
            name: kind.to_owned(),
            kind,
            driver: String::new(),
            interface: String::new(),
            subgroup: (0, 0),
            memory: None,
            limits: Vec::new(),
            features: Vec::new(),
        }
    }

    /// A machine with Mesa's drivers.
    fn mesa() -> Vulkan {
        Vulkan { has_loader: true, manifests: vec!["lvp_icd.json".into()], ..Vulkan::default() }
    }

    #[track_caller]
    fn assert_says(vulkan: &Vulkan, adapters: &[Adapter], expected: &[&str]) {
        assert_eq!(advice(vulkan, adapters), if cfg!(feature = "gpu") { expected } else { &[NO_FEATURE] });
    }

    #[test]
    fn a_gpu_needs_no_advice() {
        if cfg!(feature = "gpu") {
            assert_says(&Vulkan::default(), &[adapter("software"), adapter("discrete")], &[]);
        }
    }

    #[test]
    fn a_machine_with_nothing_needs_a_loader_and_a_driver() {
        assert_says(&Vulkan::default(), &[], &[NO_LOADER, NO_DRIVER]);
        assert_says(&Vulkan { has_loader: true, ..Vulkan::default() }, &[], &[NO_DRIVER]);
        assert_says(&Vulkan { has_loader: false, ..mesa() }, &[], &[NO_LOADER]);
    }

    #[test]
    fn software_alone_is_told_apart_from_a_gpu_that_is_hidden() {
        assert_says(&mesa(), &[adapter("software")], &[ONLY_SOFTWARE]);
        let vulkan = Vulkan { has_render_node: true, ..mesa() };
        assert_says(&vulkan, &[adapter("software")], &[HIDDEN, ONLY_SOFTWARE]);
    }

    #[test]
    fn a_container_with_nvidias_module_alone_needs_its_graphics_part() {
        let vulkan = Vulkan { has_nvidia_module: true, has_loader: true, ..Vulkan::default() };
        assert_says(&vulkan, &[], &[NO_NVIDIA_DRIVER]);
        let vulkan = Vulkan { has_nvidia_module: true, ..mesa() };
        assert_says(&vulkan, &[adapter("software")], &[NO_NVIDIA_DRIVER, HIDDEN, ONLY_SOFTWARE]);
    }

    #[test]
    fn nvidias_driver_may_lack_a_library_or_a_display() {
        let vulkan = Vulkan { has_nvidia_module: true, has_nvidia_manifest: true, ..mesa() };
        assert_says(&vulkan, &[], &[NO_LIBXEXT, HIDDEN]);
        assert_says(&Vulkan { has_libxext: true, ..vulkan }, &[], &[NVIDIA_HEADLESS, HIDDEN]);
    }

    #[test]
    fn a_variable_that_names_nothing_is_told() {
        let vulkan = Vulkan { has_loader: true, named_by: Some("VK_DRIVER_FILES"), ..Vulkan::default() };
        let expected = "VK_DRIVER_FILES names no existing file: correct it, or unset it";
        assert_says(&vulkan, &[], &[expected]);
    }
}
