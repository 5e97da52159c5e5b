//! A fresh folder for each test, good and broken update files, and the real program run in it.

use fedmill::settings::RegistryEntry;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The variable that names the program if the tests were built on another machine.
const FEDMILL_BIN: &str = "FEDMILL_BIN";

/// The program under test.
pub(crate) fn program() -> String {
    match std::env::var(FEDMILL_BIN) {
        // Each run starts in its own folder.
        Ok(path) => std::path::absolute(path).unwrap().into_os_string().into_string().unwrap(),
        Err(_) => env!("CARGO_BIN_EXE_fedmill").to_owned(),
    }
}

/// Prints that a test skips something. The line is visible even though the test passes.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or_default());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The source tree. `None` if the tests were built on another machine; tests of the source then print that they are
/// skipped.
pub(crate) fn source_tree() -> Option<&'static Path> {
    if std::env::var_os(FEDMILL_BIN).is_some() {
        skip(&format!("{FEDMILL_BIN} is set, so there is no source tree"));
        return None;
    }
    Some(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// The text of a registry entry with its required settings. `client` is the client that a setting names.
pub(crate) fn shortest<T>(entry: &RegistryEntry<T>, client: &str) -> String {
    let required = entry.settings.iter().filter(|setting| setting.is_required);
    let value = |example: &'static str| if example == "ID" { client.to_owned() } else { example.to_owned() };
    let settings: Vec<String> = required.map(|s| format!("{}={}", s.key, value(s.example))).collect();
    if settings.is_empty() { entry.name.to_owned() } else { format!("{}:{}", entry.name, settings.join(",")) }
}

/// The time limit of a run: longer than any run takes here. A run that hangs fails its test.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The folder of one test, removed when the test ends.
pub(crate) struct Dir(TempDir);

/// Every file in a folder and the folders below it, by relative path. The paths of folders end in `/`. Entries that are
/// neither file nor folder have no content.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("fedmill-test-").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        collect(self.0.path(), "", &mut contents);
        contents
    }

    /// The names of all entries of the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Gives all files the content that they had.
    pub(crate) fn restore(&self, before: &Contents) {
        let is_file = |name: &&String| !name.ends_with('/');
        let now = self.contents();
        let new = now.keys().filter(is_file).filter(|name| !before.contains_key(*name));
        new.for_each(|name| fs::remove_file(self.path(name)).unwrap());
        before.keys().filter(is_file).for_each(|name| self.write(name, &before[name]));
    }

    /// Fails if a file was added, removed or changed. The report of a failed run may be new: it must say that nothing
    /// was published.
    #[track_caller]
    pub(crate) fn assert_unchanged_since(&self, before: &Contents) {
        let mut now = self.contents();
        now.retain(|name, bytes| {
            before.contains_key(name) || !name.ends_with(".json") || !is_report_of_failure(bytes)
        });
        let names = |contents: &Contents| contents.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(before), "files came or went");
        assert!(now == *before, "a file changed");
    }
}

fn is_report_of_failure(bytes: &[u8]) -> bool {
    let report: Value = serde_json::from_slice(bytes).unwrap_or_default();
    report["schema"] == "fedmill.report/1" && report["published"] == false && report["error"].is_string()
}

fn collect(folder: &Path, prefix: &str, contents: &mut Contents) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let below = format!("{name}/");
            collect(&entry.path(), &below, contents);
            contents.insert(below, Vec::new());
        } else {
            let bytes = if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            contents.insert(name, bytes);
        }
    }
}

/// A safetensors file from a sound or a hostile client: header and length can be anything.
#[derive(Clone)]
pub(crate) struct Update {
    name: String,
    tensors: Vec<Tensor>,
    metadata: Vec<(String, String)>,
    header: Option<String>,
    length: Option<u64>,
    cut_to: Option<usize>,
    behind: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Update {
    /// An update. [`write`](Self::write) puts it into `<name>.safetensors`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tensors: Vec::new(),
            metadata: Vec::new(),
            header: None,
            length: None,
            cut_to: None,
            behind: Vec::new(),
        }
    }

    /// Adds a tensor after the tensors before it.
    pub(crate) fn raw(mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> Self {
        let (name, dtype) = (name.to_owned(), dtype.to_owned());
        self.tensors.push(Tensor { name, dtype, shape: shape.to_vec(), bytes: bytes.to_vec() });
        self
    }

    pub(crate) fn f32(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.raw(name, "F32", shape, &le(values.iter().map(|x| x.to_le_bytes())))
    }

    pub(crate) fn f64(self, name: &str, shape: &[usize], values: &[f64]) -> Self {
        self.raw(name, "F64", shape, &le(values.iter().map(|x| x.to_le_bytes())))
    }

    pub(crate) fn i64(self, name: &str, shape: &[usize], values: &[i64]) -> Self {
        self.raw(name, "I64", shape, &le(values.iter().map(|x| x.to_le_bytes())))
    }

    /// F16 or BF16, as bits.
    pub(crate) fn half(self, name: &str, dtype: &str, shape: &[usize], bits: &[u16]) -> Self {
        self.raw(name, dtype, shape, &le(bits.iter().map(|x| x.to_le_bytes())))
    }

    pub(crate) fn meta(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Takes metadata away.
    pub(crate) fn without_meta(mut self, key: &str) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self
    }

    /// Replaces the header that the tensors give.
    pub(crate) fn header(mut self, json: &str) -> Self {
        self.header = Some(json.to_owned());
        self
    }

    /// Replaces the length of the header.
    pub(crate) fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Keeps only the first bytes of the file.
    pub(crate) fn cut_to(mut self, bytes: usize) -> Self {
        self.cut_to = Some(bytes);
        self
    }

    /// Adds bytes at the end of the file.
    pub(crate) fn behind(mut self, bytes: &[u8]) -> Self {
        self.behind = bytes.to_vec();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = self.header.clone().unwrap_or_else(|| self.header_json());
        let mut bytes = self.length.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        for tensor in &self.tensors {
            bytes.extend(&tensor.bytes);
        }
        bytes.extend(&self.behind);
        bytes.truncate(self.cut_to.unwrap_or(usize::MAX));
        bytes
    }

    pub(crate) fn write(&self, dir: &Dir) {
        dir.write(&format!("{}.safetensors", self.name), self.bytes());
    }

    fn header_json(&self) -> String {
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            let metadata: BTreeMap<_, _> = self.metadata.iter().cloned().collect();
            header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
        }
        let mut begin = 0;
        for tensor in &self.tensors {
            let end = begin + tensor.bytes.len();
            let entry = serde_json::json!({
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end],
            });
            header.insert(tensor.name.clone(), entry);
            begin = end;
        }
        serde_json::Value::Object(header).to_string()
    }
}

/// The bytes of a safetensors file without the digest that it carries, as a program of another make could write it.
pub(crate) fn without_digest(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for key in ["\"fedmill.digest\"", "\"fedmill.sealed\""] {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect("a digest");
        bytes[at + 1..at + 8].copy_from_slice(b"removed");
    }
    bytes
}

/// The values in little-endian bytes, one after the other.
pub(crate) fn le<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    values.into_iter().flatten().collect()
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit status; `None` if a signal ended the run.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program in the folder.
pub(crate) fn fedmill(dir: &Dir, args: &[&str]) -> Run {
    fedmill_with_stdin(dir, args, "")
}

/// Merges the folder's `updates` into `merged.safetensors`.
pub(crate) fn aggregate(dir: &Dir, args: &[&str]) -> Run {
    fedmill(dir, &[&["aggregate", "updates", "-o", "merged.safetensors"], args].concat())
}

/// The model that [`aggregate`] merges.
#[track_caller]
pub(crate) fn merge(dir: &Dir, args: &[&str]) -> Model {
    aggregate(dir, args).assert_merged("merged.safetensors");
    Model::read(dir, "merged.safetensors")
}

pub(crate) fn fedmill_with_stdin(dir: &Dir, args: &[&str], stdin: &str) -> Run {
    run(dir, &program(), args, stdin)
}

/// Runs the program in the folder from a shell that first runs `setup`, such as `ulimit -f 8`.
pub(crate) fn fedmill_after(dir: &Dir, setup: &str, args: &[&str]) -> Run {
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    let program = program();
    let args: Vec<&str> = ["-c", &script, &program].into_iter().chain(args.iter().copied()).collect();
    run(dir, "sh", &args, "")
}

/// The width of lines in which tables and help of runs wrap, as on a terminal.
pub(crate) const COLUMNS: usize = 100;

fn run(dir: &Dir, program: &str, args: &[&str], stdin: &str) -> Run {
    let mut command = assert_cmd::Command::new(program);
    command.current_dir(dir.path("")).args(args).write_stdin(stdin).timeout(TIMEOUT);
    for variable in ["CLICOLOR_FORCE", "CLICOLOR", "NO_COLOR", "RUST_LOG", "TMPDIR"] {
        command.env_remove(variable);
    }
    let output = command.env("COLUMNS", COLUMNS.to_string()).env("NODEVICE_SELECT", "1").output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Fails unless the run succeeded, printed the path of the merged model, and printed nothing else.
    #[track_caller]
    pub(crate) fn assert_merged(&self, path: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(0), format!("{path}\n").as_str()), "{self:#?}");
    }

    /// Fails unless the run ended with this status, printed no data, and printed each of these messages.
    #[track_caller]
    pub(crate) fn assert_fails(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        }
    }
}

/// A model as the `safetensors` crate reads it.
#[derive(PartialEq, Debug)]
pub(crate) struct Model {
    pub(crate) metadata: BTreeMap<String, String>,
    /// Dtype, shape and bytes of each tensor.
    pub(crate) tensors: BTreeMap<String, (String, Vec<usize>, Vec<u8>)>,
}

impl Model {
    pub(crate) fn read(dir: &Dir, name: &str) -> Self {
        let bytes = dir.read(name);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
            (name, (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec()))
        };
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(tensor).collect();
        Self { metadata: metadata.into_iter().collect(), tensors }
    }

    #[track_caller]
    pub(crate) fn bytes(&self, tensor: &str) -> &[u8] {
        &self.tensors[tensor].2
    }

    #[track_caller]
    pub(crate) fn dtype(&self, tensor: &str) -> &str {
        &self.tensors[tensor].0
    }

    #[track_caller]
    pub(crate) fn f32(&self, tensor: &str) -> Vec<f32> {
        assert_eq!(self.dtype(tensor), "F32");
        self.bytes(tensor).chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    }

    #[track_caller]
    pub(crate) fn f64(&self, tensor: &str) -> Vec<f64> {
        assert_eq!(self.dtype(tensor), "F64");
        self.bytes(tensor).chunks_exact(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect()
    }
}
