// Integers of deltas on a grid, computed as in `src/kernels/clip_integers.rs`.
//
// A delta is a value less the base in f64, rounded as the CPU rounds it. Its integer is the delta times the scale of its
// row, rounded toward zero. The code reads floats as words and computes in integers alone, so subnormal values count on
// every device.
//
// Defined outside: REFERENCES, the number of reference rows: one for the base, or none.

#import rows
#import limbs

struct GridRow {
    multiplier: u32,
    // The power of two beside the multiplier, an i32.
    exponent: u32,
    // Whether the base is subtracted.
    less_base: u32,
    unused: u32,
}

@group(0) @binding(4) var<storage, read> base: array<u32>;
@group(0) @binding(5) var<storage, read> grid: array<GridRow>;

struct Integer {
    magnitude: vec2<u32>,
    negative: bool,
}

// A float is its significand times two to the power of its exponent less 150.
fn exponent_of(bits: u32) -> u32 {
    return max((bits >> 23u) & 0xffu, 1u);
}

fn significand_of(bits: u32) -> u32 {
    return (bits & 0x7fffffu) | select(0x800000u, 0u, (bits & 0x7f800000u) == 0u);
}

// The magnitude of `large` plus `small`, whose magnitude is no larger: 61 or 62 bits, with 37 behind the last bit of
// `large`. The lowest bit is set if bits of `small` lie below it.
fn magnitude_of_sum(large: u32, small: u32) -> vec2<u32> {
    let apart = exponent_of(large) - exponent_of(small);
    let significand = significand_of(small);
    let within = wide_shifted(vec2<u32>(0u, significand << 5u), min(apart, 63u));
    let below = (1u << min(max(apart, 37u) - 37u, 31u)) - 1u;
    let term = vec2<u32>(within.x | u32((significand & below) != 0u), within.y);
    return wide_sum(vec2<u32>(0u, significand_of(large) << 5u), wide_signed(term, ((large ^ small) & SIGN) != 0u));
}

// A number of at most 64 bits, rounded to its first 53: to nearest, ties to even.
fn rounded(bits: vec2<u32>) -> vec2<u32> {
    let kept = wide_shifted(bits, 11u);
    let dropped = bits.x & 0x7ffu;
    let is_up = dropped > 0x400u || (dropped == 0x400u && (kept.x & 1u) != 0u);
    return wide_sum(kept, vec2<u32>(u32(is_up), 0u));
}

// The integer of a row's value less its base.
fn integer_of(bits: u32, less: u32, row: GridRow) -> Integer {
    let minus = less ^ SIGN;
    let swaps = (bits & MAGNITUDE) < (less & MAGNITUDE);
    let large = select(bits, minus, swaps);
    let sum = magnitude_of_sum(large, select(minus, bits, swaps));
    let zeros = min(select(countLeadingZeros(sum.y), 32u + countLeadingZeros(sum.x), sum.y == 0u), 63u);
    let significand = rounded(wide_shifted_left(sum, zeros));
    // The product has up to 86 bits. The lowest 32 are dropped before the rest of the shift.
    let low = vec2<u32>(multiplied_high(significand.x, row.multiplier), 0u);
    let product = wide_sum(wide_product(significand.y, row.multiplier), low);
    let shift = 144 + i32(zeros) - i32(exponent_of(large)) - bitcast<i32>(row.exponent);
    return Integer(wide_shifted(product, u32(clamp(shift, 0, 63))), (large & SIGN) != 0u);
}

fn integer_at(i: u32, column: u32) -> Integer {
    let row = grid[i];
    var less = 0u;
    if REFERENCES > 0u && row.less_base != 0u {
        less = base[column];
    }
    return integer_of(bits_at(i, column), less, row);
}
