//! Synthetic updates for measurements: valid files in a new folder, removed when they are dropped.

use crate::model::dtype::Dtype;
use half::{bf16, f16};
use safetensors::tensor::TensorInfo;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of synthetic updates.
#[derive(Debug)]
pub struct SyntheticUpdates {
    folder: PathBuf,
    updates: PathBuf,
    files: Vec<PathBuf>,
}

impl SyntheticUpdates {
    /// Writes `clients` updates of `parameters` parameters into a new folder in `parent`, or in the system's folder for
    /// temporary files. The dtype is `F32`, `BF16` or `F16`.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(parent: Option<&Path>, clients: usize, parameters: usize, dtype: Dtype) -> io::Result<Self> {
        let folder = new_folder(&parent.map_or_else(std::env::temp_dir, Path::to_owned))?;
        let mut made = Self { updates: folder.join("updates"), folder, files: Vec::new() };
        fs::create_dir(&made.updates)?;
        for client in 0..clients {
            let path = made.updates.join(format!("client-{client:05}.safetensors"));
            write_update(&path, client, parameters, dtype)?;
            made.files.push(path);
        }
        Ok(made)
    }

    /// The folder that holds the updates and nothing else.
    pub fn updates(&self) -> &Path {
        &self.updates
    }

    /// The files, in order of client.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The path of a folder that there is not, after a folder of this name was removed. It is removed with the updates.
    ///
    /// # Errors
    ///
    /// When the folder cannot be removed.
    pub fn emptied(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        match fs::remove_dir_all(&folder) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(folder),
        }
    }

    /// A path for a merged model, which is removed with the updates.
    pub fn output(&self) -> PathBuf {
        self.beside("merged.safetensors")
    }

    /// A path for another file, which is removed with the updates.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for SyntheticUpdates {
    fn drop(&mut self) {
        // A drop cannot report failure; leftovers stay in a folder for temporary files, or in one that the user named.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn new_folder(parent: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("fedmill-bench-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
}

fn write_update(path: &Path, client: usize, parameters: usize, dtype: Dtype) -> io::Result<()> {
    let header = header(client, parameters, dtype);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for value in values(client as u64).take(parameters) {
        match dtype {
            Dtype::BF16 => file.write_all(&bf16::from_f32(value).to_le_bytes())?,
            Dtype::F16 => file.write_all(&f16::from_f32(value).to_le_bytes())?,
            _ => file.write_all(&value.to_le_bytes())?,
        }
    }
    file.flush()
}

fn header(client: usize, parameters: usize, dtype: Dtype) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    let (mut begin, mut left, mut layer) = (0, parameters, 0);
    while left > 0 {
        // Tensors of a real model differ in size by orders of magnitude.
        let len = if layer % 2 == 0 { 512 } else { 1_000_003 << (layer % 4) }.min(left);
        let data_offsets = (begin, begin + len * dtype.bytes());
        let tensor = TensorInfo { dtype: dtype.stored(), shape: vec![len], data_offsets };
        begin = data_offsets.1;
        tensors.insert(format!("layer.{layer:03}"), tensor);
        (left, layer) = (left - len, layer + 1);
    }
    let mut header = serde_json::json!(tensors);
    header["__metadata__"] = serde_json::json!({ "num_examples": (100 + client).to_string() });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// Values like those of a client's update. The sum of four uniform numbers is close enough to a normal one.
pub fn values(client: u64) -> impl Iterator<Item = f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(client + 1);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let sum: u64 = (0..4).map(|i| (state >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 0.05
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_valid_files_and_go_away() {
        let parent = tempfile::tempdir().unwrap();
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
            let made = SyntheticUpdates::write(Some(parent.path()), 2, 1000, dtype).unwrap();
            assert_eq!(made.files().len(), 2);
            for file in made.files() {
                let bytes = fs::read(file).unwrap();
                let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                let lens: usize = tensors.tensors().iter().map(|(_, tensor)| tensor.shape()[0]).sum();
                assert_eq!((lens, tensors.len()), (1000, 2));
            }
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
