//! The properties of the readers of signed texts and manifests for every input.
//!
//! The fuzz target and the test of its seeds share them.

use fedmill::modes::secure::manifest::Manifest;
use fedmill::parties::identity::{Identity, Stage};
use fedmill::parties::signed_text::SignedText;

/// The secret of the server that signs the seeds.
const SERVER: [u8; 32] = [7; 32];

/// Reads `file` as the manifest of a session. Returns whether it is one. Its first line, signed anew, is read too: a
/// change of it would else never get past the signature.
pub(super) fn check(file: &[u8]) -> bool {
    let end = file.iter().position(|byte| *byte == b'\n').unwrap_or(file.len());
    let signature = Identity::of(SERVER).sign(Stage::Open, &file[..end]);
    let digits: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    let again = read(&[&file[..end], b"\n", digits.as_bytes(), b"\n"].concat());
    let is_manifest = read(file);
    assert!(again || !is_manifest, "signatures do not depend on chance");
    is_manifest
}

fn read(file: &[u8]) -> bool {
    let Ok(text) = SignedText::parse(file.to_vec()) else { return false };
    assert_eq!(text.bytes(), file, "the text is that of the file");
    let Ok(manifest) = Manifest::of(&text) else { return false };
    let (terms, committee) = (&manifest.terms, manifest.committee);
    assert!(2 * committee.threshold() > committee.helpers(), "two halves cannot both answer");
    let sizes = terms.group_sizes();
    assert!(sizes.iter().all(|size| *size >= terms.min_survivors && terms.min_survivors >= 2));
    let most = sizes.iter().max().copied().unwrap_or(0) as u64 * u64::from(terms.grid.levels);
    assert!(most <= u64::from(u32::MAX / 2), "no sum overflows");
    assert_eq!(manifest.masked_shape().lanes, manifest.sums_shape().lanes);
    assert!(terms.clients.iter().all(|client| manifest.client(&client.id) == Some(client)));
    true
}
