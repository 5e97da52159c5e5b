//! The layout of a model: its tensors in order, and the flat coordinates they cover.
//!
//! The concatenated tensors of a layout are one long vector. Rules, tiles and reports name its coordinates; the order
//! of tensors in a file does not matter.

use crate::model::class::TensorClass;
use crate::model::dtype::Dtype;
use std::ops::Range;

/// Name, dtype and shape of one tensor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Dtype in the file.
    pub dtype: Dtype,
    /// Extent of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// Number of values, the product of `shape`.
    pub len: usize,
}

impl TensorSpec {
    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }
}

/// The tensors of a model in the order of their flat coordinates.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    /// First coordinate of each tensor, and the end of the last.
    starts: Vec<usize>,
    classes: Vec<TensorClass>,
}

/// A run of values within one tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Index of the tensor in the layout.
    pub tensor: usize,
    /// First value, counted within the tensor.
    pub start: usize,
    /// Number of values, at least one.
    pub len: usize,
}

impl Layout {
    /// The layout of these tensors in this order. Their dtypes decide their classes.
    pub fn new(tensors: Vec<TensorSpec>) -> Self {
        Self::classified(tensors, |spec| TensorClass::of_dtype(spec.dtype))
    }

    /// The layout of these tensors in this order, with the class of each.
    pub fn classified(tensors: Vec<TensorSpec>, class: impl Fn(&TensorSpec) -> TensorClass) -> Self {
        let classes = tensors.iter().map(class).collect();
        let mut starts = vec![0];
        let mut end = 0;
        for tensor in &tensors {
            end += tensor.len;
            starts.push(end);
        }
        Self { tensors, starts, classes }
    }

    /// The layout of other tensors, of the same classes in the same order.
    #[must_use]
    pub fn of_same_classes(&self, tensors: Vec<TensorSpec>) -> Self {
        assert_eq!(tensors.len(), self.tensors.len(), "a tensor for each class");
        Self { classes: self.classes.clone(), ..Self::new(tensors) }
    }

    /// Changes the dtypes of tensors.
    pub fn convert(&mut self, dtype_of: impl Fn(&TensorSpec) -> Dtype) {
        self.tensors.iter_mut().for_each(|spec| spec.dtype = dtype_of(spec));
    }

    /// The tensors in order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The class of each tensor.
    pub fn classes(&self) -> &[TensorClass] {
        &self.classes
    }

    /// Number of coordinates.
    pub fn parameters(&self) -> usize {
        self.starts[self.tensors.len()]
    }

    /// Bytes of the values at these coordinates.
    pub fn bytes_of(&self, coordinates: Range<usize>) -> u64 {
        self.pieces(coordinates)
            .map(|piece| (piece.len * self.tensors[piece.tensor].dtype.bytes()) as u64)
            .sum()
    }

    /// The coordinates of one tensor.
    pub fn coordinates(&self, tensor: usize) -> Range<usize> {
        self.starts[tensor]..self.starts[tensor + 1]
    }

    /// The pieces of tensors in a range of coordinates, in order.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece> {
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        (first..self.tensors.len())
            .take_while({
                let end = range.end;
                move |tensor| self.starts[*tensor] < end
            })
            .filter_map(move |tensor| {
                let within = self.coordinates(tensor);
                let (start, end) = (range.start.max(within.start), range.end.min(within.end));
                (start < end).then(|| Piece { tensor, start: start - within.start, len: end - start })
            })
    }

    /// The tensor of a coordinate, and the flat index within it.
    pub fn locate(&self, coordinate: usize) -> (&TensorSpec, usize) {
        let tensor = self.starts.partition_point(|start| *start <= coordinate) - 1;
        (&self.tensors[tensor], coordinate - self.starts[tensor])
    }
}
