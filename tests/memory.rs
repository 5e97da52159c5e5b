//! What lists of tensors take in memory: one table a layout, and a bound on all together.

use crate::harness::{Dir, Update, fedmill, fedmill_after};
use fedmill::io::limits::Limits;
use fedmill::io::model_file::{ModelFile, TablePool};
use fedmill::io::source::OpenFiles;
use std::sync::Arc;

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A bundle with many tensors that no other file has, each of one value that is one: 22 bytes a tensor.
fn bundle(file: usize, tensors: usize) -> Update {
    let (mut specs, mut parts) = (Vec::new(), Vec::new());
    for tensor in 0..tensors {
        let name = format!("{file}_{tensor}");
        specs.extend([varint(name.len()), name.into_bytes(), b"\x03F32\x01\x01".to_vec()].concat());
        parts.extend([b"\x01\x00\x00\x80\x3f\x01".to_vec(), varint(tensor), vec![0]].concat());
    }
    let mut bytes = [vec![0], varint(tensors), specs, varint(tensors), parts, vec![0, 0]].concat();
    bytes.extend((bytes.len() as u32).to_le_bytes());
    Update::new(&format!("updates/evil{file:02}"))
        .raw("fedmill.bundle", "U8", &[bytes.len()], &bytes)
        .meta("fedmill.format", "fedmill-update/1")
        .meta("num_examples", "1")
}

/// Sixty hostile files of 0.2 MB, which would take 250 MB of memory, and two sound updates behind them.
#[test]
fn lists_of_tensors_are_bounded_together() {
    let dir = Dir::new();
    (0..60).for_each(|file| bundle(file, 8000).write(&dir));
    for (name, value) in [("updates/sound_a", 0.5), ("updates/sound_b", 1.5)] {
        Update::new(name).f32("w", &[4], &[value; 4]).meta("num_examples", "1").write(&dir);
    }
    let args = ["--threads", "2", "--on-bad-update", "skip", "updates", "-o", "merged.safetensors"];
    let more = ["--report", "report.json"];
    let run = fedmill_after(&dir, "ulimit -d 163840", &[&["aggregate"], &args[..], &more].concat());
    run.assert_merged("merged.safetensors");
    let refused = run.stderr.matches("update lists 8000 tensors in 1").count();
    assert!((30..60).contains(&refused), "{refused}");
    let clients = dir.json("report.json")["clients"].as_array().unwrap().clone();
    assert_eq!(clients.iter().map(|client| client["id"].clone()).collect::<Vec<_>>(), ["sound_a", "sound_b"]);
    let run = fedmill_after(&dir, "ulimit -d 163840", &["inspect", "--threads", "2", "updates"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// Metadata of another length moves the values of a file, and changes nothing in the table.
#[test]
fn updates_of_one_layout_share_a_table() {
    let dir = Dir::new();
    let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let open = |name: &str, note: &str, tensor: &str| {
        Update::new(name).f32(tensor, &[2], &[1.0; 2]).meta("note", note).write(&dir);
        let path = dir.path(&format!("{name}.safetensors"));
        ModelFile::open(&path, &files, &tables, &Limits::UNKNOWN).unwrap()
    };
    let [a, b, c] = [open("a", "", "w"), open("b", "a longer note", "w"), open("c", "", "v")];
    assert!(Arc::ptr_eq(&a.table, &b.table));
    assert!(!Arc::ptr_eq(&a.table, &c.table));
    let mut values = [0; 8];
    b.files[0].read_values_at(&mut values, b.table[0].offset).unwrap();
    assert_eq!(values, [0, 0, 0x80, 0x3f, 0, 0, 0x80, 0x3f]);
}

#[test]
fn an_update_to_compress_has_a_limit_of_tensors() {
    let dir = Dir::new();
    let entry = |i: usize| format!(r#""{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1);
    let entries: Vec<String> = (0..131_073).map(entry).collect();
    let header = format!("{{{}}}", entries.join(","));
    Update::new("many").header(&header).behind(&vec![0; 131_073]).write(&dir);
    let run = fedmill(&dir, &["compress", "many.safetensors", "--codec", "u8", "--as-is", "-o", "m"]);
    run.assert_fails(2, &["many.safetensors: header lists 131073 tensors, expected at most 131072"]);
}
