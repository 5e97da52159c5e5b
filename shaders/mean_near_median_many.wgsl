// Sums the values nearest to the median of every column of many rows.
//
// `parameter` values count. Of two values at the same distance the smaller one counts. The host divides.
//
// Close: |error| <= (KEYS + log2(LANES) + 5) * 2^-24 * sum |kept value|. See `interval_sum`. The choice of values is
// exact.

#import interval_sum
#import nearness

@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

// How many values are farther from the median than the one `kept` ranks up; those come first. As many steps in every
// column: lanes of others wait for barriers.
fn farther_below(kept: u32) -> u32 {
    let middle = keys_of_ranks(vec2<u32>((shape.rows - 1u) / 2u, shape.rows / 2u));
    let most_below = shape.rows - kept;
    var first = 0u;
    for (var step = 32u - countLeadingZeros(most_below); step > 0u; step -= 1u) {
        let next = first + (1u << (step - 1u));
        // The value before is farther than the value `kept` ranks above, and so are all before it.
        let rank = min(next, most_below) - 1u;
        let pair = keys_of_ranks(vec2<u32>(rank, rank + kept));
        let is_next = next <= most_below && is_farther(pair.x, pair.y, middle.x, middle.y);
        first = select(first, next, is_next);
    }
    return first;
}

fn reduce(seat: u32) {
    let first = farther_below(shape.parameter);
    let sum = sum_of_ranks(first, first + shape.parameter, seat);
    if lane == 0u && column < shape.columns {
        sums[column] = sum;
    }
}
