//! Finds programs, and what a GPU needs, among the installed files; runs nothing.

use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders in which the Vulkan loader searches for the drivers' manifests.
const MANIFEST_FOLDERS: [&str; 4] = [
    "/etc/vulkan/icd.d",
    "/usr/local/etc/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/usr/share/vulkan/icd.d",
];
/// Variables that name manifests, or folders of manifests, instead; the first that is set counts.
const MANIFEST_VARIABLES: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
/// Folders of libraries, for libraries that are not in the linker's cache.
const LIBRARY_FOLDERS: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"];

/// The parts of Vulkan that are installed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Vulkan {
    /// Whether the loader, `libvulkan.so.1`, is installed.
    pub has_loader: bool,
    /// The drivers' manifests that the loader reads.
    pub manifests: Vec<PathBuf>,
    /// The variable that names them, if one is set.
    pub named_by: Option<&'static str>,
    /// Whether NVIDIA's kernel module is loaded, or its device exists.
    pub has_nvidia_module: bool,
    /// Whether one of the manifests is NVIDIA's.
    pub has_nvidia_manifest: bool,
    /// Whether `libXext.so.6`, which NVIDIA's driver links to, is installed.
    pub has_libxext: bool,
    /// Whether a device of the kernel's graphics drivers exists.
    pub has_render_node: bool,
}

/// Finds the installed parts of Vulkan.
pub fn vulkan() -> Vulkan {
    vulkan_under(Path::new("/"), |name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

/// Finds the parts of Vulkan of a system with its root directory at `root`.
fn vulkan_under(root: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Vulkan {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let named_by = MANIFEST_VARIABLES.into_iter().find(|name| variable(name).is_some());
    let named: Vec<PathBuf> = match named_by.and_then(&variable) {
        Some(paths) => std::env::split_paths(&paths).collect(),
        None => MANIFEST_FOLDERS.iter().map(|folder| below(folder)).collect(),
    };
    let manifests: Vec<PathBuf> = named.iter().flat_map(|path| json_files(path)).collect();
    let has_library = |name: &str| {
        let cached = fs::read(below("/etc/ld.so.cache"))
            .is_ok_and(|cache| cache.windows(name.len()).any(|found| found == name.as_bytes()));
        let searched = variable("LD_LIBRARY_PATH").map(|paths| std::env::split_paths(&paths).collect());
        let searched: Vec<PathBuf> = searched.unwrap_or_default();
        let folders = LIBRARY_FOLDERS.iter().map(|folder| below(folder)).chain(searched);
        cached || folders.map(|folder| folder.join(name)).any(|path| path.exists())
    };
    Vulkan {
        has_loader: has_library("libvulkan.so.1"),
        has_nvidia_module: ["/proc/driver/nvidia/version", "/dev/nvidia0"]
            .iter()
            .any(|path| below(path).exists()),
        has_nvidia_manifest: manifests.iter().any(|path| is_nvidia(path)),
        has_libxext: has_library("libXext.so.6"),
        has_render_node: fs::read_dir(below("/dev/dri")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
        }),
        manifests,
        named_by,
    }
}

/// Whether a program can be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// It can.
    Found,
    /// There is a file that this account may not run, or a folder.
    NotExecutable(PathBuf),
    /// There is nothing of this name.
    Missing,
}

/// Finds a program as a process that works in `directory` does: a name with a slash from there on, another one in the
/// folders of the variable PATH.
pub fn program(name: &str, directory: &Path) -> Program {
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    program_among(name, directory, &folders)
}

fn program_among(name: &str, directory: &Path, folders: &OsStr) -> Program {
    let paths: Vec<PathBuf> = match name.contains('/') {
        true => vec![directory.join(name)],
        false => std::env::split_paths(folders).map(|folder| directory.join(folder).join(name)).collect(),
    };
    let is_program = |path: &&PathBuf| path.is_file() && access(path.as_path(), Access::EXEC_OK).is_ok();
    match (paths.iter().find(is_program), paths.iter().find(|path| path.exists())) {
        (Some(_), _) => Program::Found,
        (None, Some(found)) => Program::NotExecutable(found.clone()),
        (None, None) => Program::Missing,
    }
}

/// The file itself, or the JSON files of a folder in order of their names.
fn json_files(path: &Path) -> Vec<PathBuf> {
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(is_json).collect(),
        Err(_) => Some(path.to_owned()).filter(|path| path.is_file()).into_iter().collect(),
    };
    files.sort();
    files
}

/// Whether a manifest names NVIDIA's library: `libGLX_nvidia`, or `libEGL_nvidia` where there is no display.
fn is_nvidia(manifest: &Path) -> bool {
    fs::read_to_string(manifest).is_ok_and(|text| text.contains("_nvidia.so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_process_in_its_folder_finds_it() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, mode: u32| {
            fs::write(root.path().join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write("run", 0o755);
        write("text", 0o644);
        let find = |name: &str, folders: &str| program_among(name, root.path(), OsStr::new(folders));
        assert_eq!(find("./run", ""), Program::Found);
        assert_eq!(find("./text", ""), Program::NotExecutable(root.path().join("./text")));
        assert_eq!(find("./none", ""), Program::Missing);
        assert_eq!(find("run", "/nowhere:."), Program::Found);
        assert_eq!(find("run", "/nowhere"), Program::Missing, "the folder itself is not searched");
        assert_eq!(find("/", ""), Program::NotExecutable(PathBuf::from("/")), "a folder is no program");
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn an_empty_system_has_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(vulkan_under(root.path(), |_| None), Vulkan::default());
    }

    #[test]
    fn what_is_installed_is_found() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/share/vulkan/icd.d/lvp_icd.json", r#"{"library_path": "libvulkan_lvp.so"}"#);
        write(root.path(), "usr/share/vulkan/icd.d/README", "");
        write(root.path(), "etc/vulkan/icd.d/nvidia_icd.json", r#"{"library_path": "libGLX_nvidia.so.0"}"#);
        write(root.path(), "etc/ld.so.cache", "ld.so-1.7.0\0libvulkan.so.1\0");
        write(root.path(), "usr/lib/libXext.so.6", "");
        write(root.path(), "dev/dri/renderD128", "");
        write(root.path(), "proc/driver/nvidia/version", "");
        let found = vulkan_under(root.path(), |_| None);
        assert!(found.has_loader && found.has_libxext && found.has_render_node, "{found:?}");
        assert!(found.has_nvidia_module && found.has_nvidia_manifest, "{found:?}");
        assert_eq!((found.manifests.len(), found.named_by), (2, None));
    }

    #[test]
    fn a_variable_that_names_manifests_is_followed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/share/vulkan/icd.d/nvidia_icd.json", "libGLX_nvidia.so.0");
        write(root.path(), "mine/a.json", "");
        write(root.path(), "mine/b.json", "");
        let (folder, missing) = (root.path().join("mine"), root.path().join("missing.json"));
        let named = std::env::join_paths([&folder, &missing]).unwrap();
        let found = vulkan_under(root.path(), |name| (name == "VK_ICD_FILENAMES").then(|| named.clone()));
        assert_eq!(found.manifests, [folder.join("a.json"), folder.join("b.json")]);
        assert!(found.named_by == Some("VK_ICD_FILENAMES") && !found.has_nvidia_manifest);
    }
}
