//! The properties of the update reader for every input.
//!
//! The fuzz target and the test of its seeds share them.

use fedmill::io::model_file::{ENCODED, ModelFile, TablePool};
use fedmill::io::source::OpenFiles;
use fedmill::updates;

/// Longer tensors are decoded only at their ends: a few bytes may encode many values.
const MOST_DECODED: usize = 1 << 14;

/// Opens `file` as an update and decodes its tensors. Returns whether all of them decode.
pub(super) fn check(file: &[u8]) -> bool {
    let thread = std::thread::current().id();
    let path = std::env::temp_dir().join(format!("fedmill-fuzz-{}-{thread:?}", std::process::id()));
    std::fs::write(&path, file).expect("a temporary file can be written");
    let model = updates::open(&path, &OpenFiles::raise_limit(), &TablePool::default(), None);
    let is_good = model.is_ok_and(|model| decodes(&model));
    std::fs::remove_file(&path).expect("a temporary file can be removed");
    is_good
}

fn decodes(model: &ModelFile) -> bool {
    let Some(decoder) = &model.decoder else { return true };
    let encoded = model.table.iter().enumerate().filter(|(_, place)| place.file == ENCODED);
    encoded.fold(true, |is_good, (number, place)| {
        let len = place.spec.len;
        let run = |start: usize, values: usize| {
            decoder.decode(&model.files, number, start, &mut vec![0.0; values]).is_ok()
        };
        let most = len.min(MOST_DECODED);
        run(0, most) & run(len - most, most) & is_good
    })
}
