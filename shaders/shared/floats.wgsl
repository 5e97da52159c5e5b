// Floats as bits, and as unsigned integers (keys) in the same order.
//
// Kernels find values that are not finite, and order values, by integers alone: WGSL may assume that floats are finite,
// and devices differ in their treatment of subnormals.

const MAGNITUDE: u32 = 0x7fffffffu;
const SIGN: u32 = 0x80000000u;

const F32: u32 = 0u;
const BF16: u32 = 1u;
const F16: u32 = 2u;

fn key_of(bits: u32) -> u32 {
    return select(bits | SIGN, ~bits, (bits & SIGN) != 0u);
}

fn bits_of(key: u32) -> u32 {
    return select(~key, key & MAGNITUDE, (key & SIGN) != 0u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(bits_of(key));
}

// The bits, as f32, of the value of a column in its word; `dtype` has 32 or 16 bits.
fn widened(dtype: u32, word: u32, column: u32) -> u32 {
    if dtype == F32 {
        return word;
    }
    let half = (word >> ((column & 1u) * 16u)) & 0xffffu;
    if dtype == BF16 {
        return half << 16u;
    }
    return widened_f16(half);
}

// The number of words of a row before the word of a column.
fn word_of(dtype: u32, column: u32) -> u32 {
    return select(column >> 1u, column, dtype == F32);
}

// Exact, also for subnormals: their bits are an integer times 2^-24.
fn widened_f16(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let magnitude = half & 0x7fffu;
    if magnitude < 0x400u {
        return sign | bitcast<u32>(f32(magnitude) * 5.9604644775390625e-8);
    }
    if magnitude >= 0x7c00u {
        return sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13u);
    }
    return sign | ((magnitude << 13u) + 0x38000000u);
}
