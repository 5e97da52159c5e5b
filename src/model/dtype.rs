//! The dtypes of tensors that fedmill can merge.

use safetensors::Dtype as StoredDtype;
use std::fmt;
use std::ops::RangeInclusive;

/// The dtype of a tensor in a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the safetensors format's own")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// The kind of a dtype's values. Values convert within a kind and never between kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Floats, which count in distances and norms.
    Float,
    /// Integers, merged in f64 and rounded; they do not count in distances.
    Integer,
    /// Booleans, merged as 0 and 1 and rounded; they do not count in distances.
    Bool,
}

/// The float in which kernels compute a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Working {
    /// Bf16, if every client sends bf16.
    BF16,
    /// F16, if every client sends f16.
    F16,
    /// F32, for floats of up to 32 bits.
    F32,
    /// F64, for 64-bit floats and integers.
    F64,
}

impl Working {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::BF16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The narrowest working float that holds the values of both exactly.
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }
}

impl Dtype {
    /// The dtype of floats of this name, in capitals or not.
    ///
    /// # Errors
    ///
    /// When there is none; the error names all.
    pub fn float_named(text: &str) -> Result<Self, String> {
        let floats = || Self::ALL.into_iter().filter(|dtype| dtype.kind() == Kind::Float);
        let named = floats().find(|dtype| dtype.to_string().eq_ignore_ascii_case(text));
        named.ok_or_else(|| "expected f64, f32, f16, bf16, f8_e4m3 or f8_e5m2".to_owned())
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The kind of its values.
    pub fn kind(self) -> Kind {
        match self {
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2 => Kind::Float,
            Self::Bool => Kind::Bool,
            _ => Kind::Integer,
        }
    }

    /// Whether it is a float of fewer than 32 bits.
    pub fn is_narrow_float(self) -> bool {
        self.kind() == Kind::Float && self.bytes() < Self::F32.bytes()
    }

    /// The wider of two dtypes: the one of more bytes, then of the larger range; of equal ones the first.
    #[must_use]
    pub fn wider(self, other: Self) -> Self {
        let width = |dtype: Self| (dtype.bytes(), *dtype.limits().end());
        if width(other) > width(self) { other } else { self }
    }

    /// Whether values of this dtype convert to `other`.
    pub fn converts_to(self, other: Self) -> bool {
        self.kind() == other.kind()
    }

    /// The narrowest working float that holds every value exactly; f64 for 64-bit integers, of which it holds most up
    /// to 2^53 and few beyond.
    pub fn working(self) -> Working {
        match self {
            Self::BF16 => Working::BF16,
            Self::F16 => Working::F16,
            Self::F32 | Self::F8E4M3 | Self::F8E5M2 => Working::F32,
            _ => Working::F64,
        }
    }

    /// The range of merged values that this dtype can hold. Beyond it, rounding gives infinity or NaN, or clamps an
    /// integer.
    pub fn limits(self) -> RangeInclusive<f64> {
        // The limit of a float is its largest finite value plus just under half a step.
        let float = |exponent: i32, mantissa_bits: i32| {
            let limit = (2.0 - 2f64.powi(-mantissa_bits - 1)).next_down() * 2f64.powi(exponent);
            -limit..=limit
        };
        // The limits of an integer are the last values that round to its ends.
        let integer = |low: f64, high: f64| low - 0.5..=(high + 0.5).next_down().max(high);
        match self {
            Self::F64 => f64::MIN..=f64::MAX,
            Self::F32 => float(127, 23),
            Self::F16 => float(15, 10),
            Self::BF16 => float(127, 7),
            // The top code of e4m3 is NaN. Its largest value is 448, and half a step above is a tie that rounds to 448.
            Self::F8E4M3 => -464.0..=464.0,
            Self::F8E5M2 => float(15, 2),
            Self::I64 => integer(i64::MIN as f64, i64::MAX as f64),
            Self::U64 => integer(0.0, u64::MAX as f64),
            Self::I32 => integer(i32::MIN.into(), i32::MAX.into()),
            Self::U32 => integer(0.0, u32::MAX.into()),
            Self::I16 => integer(i16::MIN.into(), i16::MAX.into()),
            Self::U16 => integer(0.0, u16::MAX.into()),
            Self::I8 => integer(i8::MIN.into(), i8::MAX.into()),
            Self::U8 => integer(0.0, u8::MAX.into()),
            Self::Bool => integer(0.0, 1.0),
        }
    }

    /// The largest finite value.
    pub fn largest(self) -> f64 {
        match self {
            Self::F64 => f64::MAX,
            Self::F32 => f32::MAX.into(),
            Self::F16 => half::f16::MAX.into(),
            Self::BF16 => half::bf16::MAX.into(),
            Self::F8E4M3 => 448.0,
            Self::F8E5M2 => 57_344.0,
            _ => self.limits().end().floor(),
        }
    }

    /// Whether every value of `other` is within the [`limits`](Self::limits).
    pub fn holds_all_of(self, other: Self) -> bool {
        let (own, others) = (self.limits(), other.limits());
        self == other || (own.start() <= others.start() && others.end() <= own.end())
    }

    /// The dtype as the safetensors crate names it.
    pub fn stored(self) -> StoredDtype {
        match self {
            Self::F64 => StoredDtype::F64,
            Self::F32 => StoredDtype::F32,
            Self::F16 => StoredDtype::F16,
            Self::BF16 => StoredDtype::BF16,
            Self::F8E4M3 => StoredDtype::F8_E4M3,
            Self::F8E5M2 => StoredDtype::F8_E5M2,
            Self::I64 => StoredDtype::I64,
            Self::I32 => StoredDtype::I32,
            Self::I16 => StoredDtype::I16,
            Self::I8 => StoredDtype::I8,
            Self::U64 => StoredDtype::U64,
            Self::U32 => StoredDtype::U32,
            Self::U16 => StoredDtype::U16,
            Self::U8 => StoredDtype::U8,
            Self::Bool => StoredDtype::BOOL,
        }
    }

    /// The dtype of that name in the safetensors crate, if fedmill can merge it.
    pub fn from_stored(stored: StoredDtype) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.stored() == stored)
    }

    /// Every dtype.
    pub const ALL: [Self; 15] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
    ];
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.stored())
    }
}
