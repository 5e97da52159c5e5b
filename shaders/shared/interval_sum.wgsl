// Sums the values of a column whose ranks lie in an interval.
//
// Each lane adds the values that it holds, a tree adds the lanes, and a product stands for the values equal to either
// end. So the order of additions depends on the lanes alone.
//
// |error| <= (KEYS + log2(LANES) + 5) * 2^-24 * sum |value|. A lane does at most KEYS additions, the tree log2(LANES). One
// addition joins both products, one adds them to the rest, and each product is rounded.

#import bisection

var<workgroup> parts: array<f32, 256>;

// The sum over the lanes of a column.
fn added(part: f32, seat: u32) -> f32 {
    parts[seat] = part;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[seat] += parts[seat + half];
        }
        workgroupBarrier();
    }
    return parts[seat - lane];
}

fn sum_of_ranks(first: u32, end: u32, seat: u32) -> f32 {
    let ends = keys_of_ranks(vec2<u32>(first, end - 1u));
    var part = 0.0;
    for (var k = 0u; k < KEYS; k += 1u) {
        let is_inside = keys[k] > ends.x && keys[k] < ends.y;
        // Selects bits, since those of padding are no number.
        part += bitcast<f32>(select(0u, bits_of(keys[k]), is_inside));
    }
    let counts = total(counted_below(ends.x + 1u) | (counted_below(ends.y) << 16u));
    let inside = added(part, seat);
    let low_ties = min(counts & 0xffffu, end) - first;
    let high_ties = select(end - (counts >> 16u), 0u, ends.x == ends.y);
    return inside + (f32(low_ties) * value_of(ends.x) + f32(high_ties) * value_of(ends.y));
}
