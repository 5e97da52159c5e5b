//! The properties of the header reader for every input.
//!
//! The fuzz target and the test of its seeds share them.

use fedmill::io::header::{Header, LENGTH_BYTES, header_length};
use fedmill::io::limits::Limits;

/// Reads `file` as a safetensors file. An accepted header must describe exactly the bytes in the file, and the
/// `safetensors` crate must accept it too.
pub(super) fn check(file: &[u8]) -> bool {
    let Some((length, rest)) = file.split_first_chunk::<{ LENGTH_BYTES as usize }>() else { return false };
    let Ok(length) = header_length(*length, file.len() as u64, &Limits::TRUSTED) else { return false };
    let (json, data) = rest.split_at(length);
    let Ok(header) = Header::parse(json, data.len() as u64, &Limits::TRUSTED) else { return false };
    let mut end = 0;
    for tensor in &header.tensors {
        assert_eq!(tensor.offset, end, "tensors fill the data");
        end += tensor.spec.bytes() as u64;
    }
    assert_eq!(end, data.len() as u64, "tensors fill the data");
    if json.first() == Some(&b'{') {
        safetensors::SafeTensors::deserialize(file).expect("the safetensors crate accepts what we accept");
    }
    true
}
