//! A run over flat vectors as data: buffers, and the kernels that a device runs on them in order.

use crate::gpu::shaders::Variant;
use crate::gpu::shape::Shape;
use std::borrow::Cow;

/// Buffers and steps. A device submits the steps together. Not printable, since a buffer may hold the key of noise.
#[derive(Default)]
pub struct Run<'a> {
    /// The buffers, by number.
    pub buffers: Vec<Buffer<'a>>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// The number of a buffer in its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferId(pub usize);

/// A buffer of words.
pub struct Buffer<'a> {
    /// Its name in messages.
    pub label: &'static str,
    /// Its words before the run.
    pub contents: Contents<'a>,
}

/// The words of a buffer before the run.
pub enum Contents<'a> {
    /// Words that steps read.
    Words(Cow<'a, [u32]>),
    /// Words that steps read, and that make a run secret: all memory that steps read or write is overwritten after it.
    Secret(&'a [u32]),
    /// A number of words, every one of which a step writes.
    Unwritten(usize),
    /// A number of zeros, to which steps add.
    Zeros(usize),
}

/// One dispatch of a kernel.
pub struct Step {
    /// The kernel.
    pub variant: Variant,
    /// Binding 0.
    pub shape: Shape,
    /// Bindings from 2 on; 1 is the status.
    pub buffers: Vec<BufferId>,
    /// Workgroups in two dimensions.
    pub groups: [u32; 2],
}

impl<'a> Run<'a> {
    /// Adds a buffer that holds these words.
    pub(super) fn input(&mut self, label: &'static str, words: impl Into<Cow<'a, [u32]>>) -> BufferId {
        self.buffer(label, Contents::Words(words.into()))
    }

    /// Adds a buffer that holds these words, and makes the run secret.
    pub(super) fn secret(&mut self, label: &'static str, words: &'a [u32]) -> BufferId {
        self.buffer(label, Contents::Secret(words))
    }

    /// Adds a buffer of `words` words, every one of which a step writes.
    pub(super) fn output(&mut self, label: &'static str, words: usize) -> BufferId {
        self.buffer(label, Contents::Unwritten(words))
    }

    /// Adds a buffer of `words` zeros, to which steps add.
    pub(super) fn zeros(&mut self, label: &'static str, words: usize) -> BufferId {
        self.buffer(label, Contents::Zeros(words))
    }

    fn buffer(&mut self, label: &'static str, contents: Contents<'a>) -> BufferId {
        self.buffers.push(Buffer { label, contents });
        BufferId(self.buffers.len() - 1)
    }

    /// Adds a step after those before. The buffers are the bindings of its kernel from 2 on.
    pub(super) fn step(&mut self, variant: Variant, shape: Shape, buffers: &[BufferId], groups: [u32; 2]) {
        self.steps.push(Step { variant, shape, buffers: buffers.to_vec(), groups });
    }
}

impl Buffer<'_> {
    /// Number of words.
    pub fn words(&self) -> usize {
        match &self.contents {
            Contents::Words(words) => words.len(),
            Contents::Secret(words) => words.len(),
            Contents::Unwritten(words) | Contents::Zeros(words) => *words,
        }
    }
}
