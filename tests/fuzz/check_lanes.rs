//! The properties of the reader of signed lanes for every input.
//!
//! The fuzz target and the test of its seeds share them.

use fedmill::kernels::lanes::Isa;
use fedmill::modes::secure::answers::audit;
use fedmill::parties::identity::{Identity, Stage};
use fedmill::parties::signed_lanes::{LanesReader, Shape, Statement};
use fedmill::record::sha256::Sha256;

/// The secret of the helper that signs the seeds.
const HELPER: [u8; 32] = [8; 32];

/// The shape of the seeds.
const SHAPE: Shape = Shape { rows: 2, lanes: 5, extra: 8 };

/// What the seeds say of themselves.
fn statement() -> Statement {
    let (session, set) = (Sha256::of("session"), Some(Sha256::of("set")));
    Statement { session, stage: Stage::Help, sender: "helper-1".to_owned(), set }
}

/// Reads `file` as the lanes of a helper. Returns whether they are.
pub(super) fn check(file: &[u8]) -> bool {
    let thread = std::thread::current().id();
    let path = std::env::temp_dir().join(format!("fedmill-lanes-{}-{thread:?}", std::process::id()));
    std::fs::write(&path, file).expect("a temporary file can be written");
    let key = Identity::of(HELPER).verifying();
    let opened = LanesReader::default().open(&path, &statement(), SHAPE, &key);
    let is_sound = opened.is_ok_and(|lanes| {
        assert_eq!((lanes.shape(), lanes.extra().len()), (SHAPE, SHAPE.extra));
        audit(&lanes, Isa::detect()).is_ok()
    });
    std::fs::remove_file(&path).expect("a temporary file can be removed");
    is_sound
}
