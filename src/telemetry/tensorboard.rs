//! Event files of TensorBoard: records in TFRecord framing, each with an `Event` message.
//!
//! Source: TensorFlow, `lib/io/record_writer.h`, `lib/hash/crc32c.h`, `util/event.proto`, `framework/summary.proto`. Only
//! scalars are written. A file starts with its version; a torn last record is ignored by TensorBoard.

use super::derived::Derived;
use super::figures::FIGURES;
use super::metrics::RoundRecord;

/// The version that the first record of a file names.
const FILE_VERSION: &str = "brain.Event:2";

/// The records of one round, to be appended to the event file. With `first` they start a file.
pub fn events(first: bool, record: &RoundRecord, derived: &Derived) -> Vec<u8> {
    let mut bytes = Vec::new();
    if first {
        let mut event = header(record.closed_at, None);
        put_bytes(&mut event, 3, FILE_VERSION.as_bytes());
        put_record(&mut bytes, &event);
    }
    let mut summary = Vec::new();
    for (tag, value) in scalars(record, derived) {
        let mut scalar = Vec::new();
        put_bytes(&mut scalar, 1, tag.as_bytes());
        put_key(&mut scalar, 2, FIXED32);
        scalar.extend((value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &scalar);
    }
    let mut event = header(record.closed_at, Some(record.round));
    put_bytes(&mut event, 5, &summary);
    put_record(&mut bytes, &event);
    bytes
}

/// The scalars of a round by tag: the group, the name, and the value of the label.
pub fn scalars(record: &RoundRecord, derived: &Derived) -> Vec<(String, f64)> {
    let mut scalars = Vec::new();
    for figure in FIGURES {
        for (of, value) in figure.values(record, derived) {
            let of = of.map(|of| format!("/{of}")).unwrap_or_default();
            scalars.push((format!("{}/{}{of}", figure.group, figure.name), value));
        }
    }
    scalars
}

/// An event with its time, in seconds since 1970, and its step.
fn header(wall_time: f64, step: Option<u64>) -> Vec<u8> {
    let mut event = Vec::new();
    put_key(&mut event, 1, FIXED64);
    event.extend(wall_time.to_le_bytes());
    if let Some(step) = step {
        put_key(&mut event, 2, VARINT);
        put_varint(&mut event, step);
    }
    event
}

// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

fn put_key(message: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(message, field << 3 | wire_type);
}

/// A field of bytes, of text, or of a message.
fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(message, field, LENGTH);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// A record of the file: its length, the checksum of the length, the data, the checksum of the data.
fn put_record(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(data);
    file.extend(masked(crc32c(data)).to_le_bytes());
}

/// The checksum as it is stored: a checksum over data that holds its own checksum would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a round has a few kilobytes.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !data.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into its records. Fails on a wrong checksum.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let end = 12 + word(0) as usize;
            assert_eq!((word(4), word(8)), (0, masked(crc32c(&file[..8]))));
            assert_eq!(word(end), masked(crc32c(&file[12..end])));
            found.push(file[12..end].to_vec());
            file = &file[end + 4..];
        }
        found
    }

    #[test]
    fn crc32c_gives_the_published_checksums() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn only_a_file_that_starts_names_its_version() {
        let record = RoundRecord::new(300, 0.0, 2.0);
        let derived = Derived::of(std::slice::from_ref(&record), 10).unwrap();
        let first = records(&events(true, &record, &derived));
        let wall_time = [&[0x09][..], &2f64.to_le_bytes()].concat();
        assert_eq!(first[0], [&wall_time, &[0x1a, 13][..], b"brain.Event:2"].concat());
        // Step 300 as a varint.
        assert!(first[1].starts_with(&[&wall_time, &[0x10, 0xac, 0x02, 0x2a][..]].concat()));
        assert_eq!(records(&events(false, &record, &derived)), first[1..]);
    }

    #[test]
    fn tags_name_the_group_and_the_label() {
        let mut record = RoundRecord::new(1, 0.0, 2.0);
        record.metrics = [("accuracy".to_owned(), 0.5), ("loss".to_owned(), f64::NAN)].into();
        let derived = Derived::of(std::slice::from_ref(&record), 10).unwrap();
        let scalars = scalars(&record, &derived);
        let tags: Vec<&str> = scalars.iter().map(|(tag, _)| tag.as_str()).collect();
        assert!(tags.contains(&"model/model_accuracy") && tags.contains(&"model/evaluation/accuracy"));
        assert!(tags.contains(&"clients/clients/merged") && !tags.contains(&"model/evaluation/loss"));
    }
}
