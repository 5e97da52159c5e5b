// Decides exactly which of two values is farther from a median.
//
// Let `below` and `above` be the two middle values. `low` is farther from their midpoint than `high` if below + above >
// low + high, or below - low > high - above. A device computes each difference within one unit in its last place. So
// differences more than four units apart decide. Integers decide closer ones, and those that may overflow or that a
// device may flush.
//
// Bits.

#import floats

// Differences of magnitudes up to 2^126 do not overflow.
const MOST_SUBTRACTED: u32 = 0x7e800000u;
// A difference of 2^-100 has units of 2^-123: flushed subnormals change it by less.
const LEAST_DECISIVE: u32 = 0x0d800000u;
// A distance between two keys that rounding cannot bridge.
const ROUNDING: u32 = 4u;

// Whether `low` is farther from the midpoint of `below` and `above` than `high`; all are keys.
fn is_farther(low: u32, high: u32, below: u32, above: u32) -> bool {
    let terms = vec4<u32>(bits_of(below), bits_of(above), bits_of(low) ^ SIGN, bits_of(high) ^ SIGN);
    let magnitudes = terms & vec4<u32>(MAGNITUDE);
    let most = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    if most <= MOST_SUBTRACTED {
        let to_low = bitcast<u32>(value_of(below) - value_of(low));
        let to_high = bitcast<u32>(value_of(high) - value_of(above));
        if max(to_low & MAGNITUDE, to_high & MAGNITUDE) >= LEAST_DECISIVE {
            let a = key_of(to_low);
            let b = key_of(to_high);
            if max(a, b) - min(a, b) > ROUNDING {
                return a > b;
            }
        }
    }
    return is_positive_sum(terms);
}

// Whether the sum of four floats, given as bits, is positive. Adds 16 bits at a time, from the lowest bit of a term to
// the highest, with a carry.
fn is_positive_sum(terms: vec4<u32>) -> bool {
    let zero = (terms & vec4<u32>(MAGNITUDE)) == vec4<u32>();
    let least = select(scale_of(terms), vec4<u32>(255u), zero);
    let most = select(scale_of(terms), vec4<u32>(), zero);
    let first = min(min(least.x, least.y), min(least.z, least.w)) / 16u;
    let last = (max(max(most.x, most.y), max(most.z, most.w)) + 23u) / 16u;
    var carry = 0i;
    var rest = 0i;
    for (var i = first; i <= last; i += 1u) {
        let parts = part_of(terms, i);
        carry += parts.x + parts.y + parts.z + parts.w;
        rest |= carry & 0xffff;
        carry >>= 16u;
    }
    return carry > 0i || (carry == 0i && rest != 0i);
}

// A float is an integer below 2^24 times 2^(scale - 149).
fn scale_of(bits: vec4<u32>) -> vec4<u32> {
    let exponent = (bits & vec4<u32>(MAGNITUDE)) >> vec4<u32>(23u);
    return max(exponent, vec4<u32>(1u)) - 1u;
}

// The `i`-th 16 bits of floats as multiples of 2^-149, with their signs.
fn part_of(bits: vec4<u32>, i: u32) -> vec4<i32> {
    let is_normal = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>();
    let integer = (bits & vec4<u32>(0x7fffffu)) | select(vec4<u32>(), vec4<u32>(0x800000u), is_normal);
    let place = vec4<i32>(i32(16u * i)) - vec4<i32>(scale_of(bits));
    let down = vec4<u32>(clamp(place, vec4<i32>(), vec4<i32>(31)));
    // A shift by 16 moves all of it above these bits.
    let up = vec4<u32>(clamp(-place, vec4<i32>(), vec4<i32>(16)));
    let part = vec4<i32>(((integer >> down) << up) & vec4<u32>(0xffffu));
    return select(part, -part, (bits & vec4<u32>(SIGN)) != vec4<u32>());
}
