//! Joins neighbouring pieces of tensors into runs of one file, so that one read covers them.

use crate::model::dtype::Dtype;
use crate::model::layout::Piece;
use crate::updates::source::Placement;

/// Consecutive values of one dtype in one file.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) dtype: Dtype,
    pub(super) len: usize,
}

/// Joins pieces into runs.
pub(super) struct Runs<'a, I> {
    placement: &'a Placement,
    pieces: I,
    next: Option<Run>,
}

impl<'a, I: Iterator<Item = Piece>> Runs<'a, I> {
    pub(super) fn new(placement: &'a Placement, pieces: I) -> Self {
        Self { placement, pieces, next: None }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for Runs<'_, I> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        for piece in self.pieces.by_ref() {
            let place = self.placement[piece.tensor];
            let run = Run {
                file: place.file,
                offset: place.offset + (piece.start * place.dtype.bytes()) as u64,
                dtype: place.dtype,
                len: piece.len,
            };
            match &mut self.next {
                Some(last) if last.continues_with(&run) => last.len += run.len,
                _ => {
                    if let Some(done) = self.next.replace(run) {
                        return Some(done);
                    }
                }
            }
        }
        self.next.take()
    }
}

impl Run {
    fn continues_with(&self, other: &Self) -> bool {
        (self.file, self.dtype) == (other.file, other.dtype)
            && self.offset + (self.len * self.dtype.bytes()) as u64 == other.offset
    }
}
