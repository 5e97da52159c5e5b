//! Files that often stand where a safetensors file should, told by their first bytes.

/// Bytes that tell every format apart.
pub const BYTES: usize = 64;

/// Another format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookalike {
    /// What the file is.
    pub what: &'static str,
    /// The remedy.
    pub hint: &'static str,
    start: &'static [u8],
}

const SAVE: &str = "write the tensors with safetensors.torch.save_file, not torch.save";
const DOWNLOAD: &str = "download the file again";

const KNOWN: &[Lookalike] = &[
    Lookalike { start: b"PK\x03\x04", what: "a ZIP archive, as torch.save writes it", hint: SAVE },
    Lookalike { start: b"\x80\x02", what: "a Python pickle, as old torch.save writes it", hint: SAVE },
    Lookalike { start: b"\x80\x03", what: "a Python pickle", hint: SAVE },
    Lookalike { start: b"\x80\x04", what: "a Python pickle", hint: SAVE },
    Lookalike { start: b"\x80\x05", what: "a Python pickle", hint: SAVE },
    Lookalike {
        start: b"version https://git-lfs",
        what: "a Git LFS pointer, not the file itself",
        hint: "fetch the file itself with git lfs pull",
    },
    Lookalike { start: b"GGUF", what: "a GGUF file", hint: SAVE },
    Lookalike { start: b"\x89HDF\r\n", what: "an HDF5 file, as Keras writes it", hint: SAVE },
    Lookalike { start: b"\x93NUMPY", what: "a NumPy file", hint: SAVE },
    Lookalike { start: b"\x1f\x8b", what: "gzip data", hint: "decompress it with gunzip" },
    Lookalike { start: b"<!DOCTYPE", what: "a web page", hint: DOWNLOAD },
    Lookalike { start: b"<html", what: "a web page", hint: DOWNLOAD },
];

/// The other format that a file starts as. A sound safetensors file may start like any of them, so ask only about a
/// file whose header is refused. One with a length of less than 4 GiB and a brace behind it is a damaged safetensors
/// file.
pub fn told_by(first: &[u8]) -> Option<Lookalike> {
    if first.get(4..9) == Some(b"\0\0\0\0{") {
        return None;
    }
    KNOWN.iter().find(|known| first.starts_with(known.start)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_640_bytes_does_not_make_a_pickle() {
        assert!(told_by(b"\x80\x02\0\0\0\0\0\0{\"w\":").is_none());
        assert!(told_by(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").is_some());
    }
}
