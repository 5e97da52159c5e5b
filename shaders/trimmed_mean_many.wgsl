// Sums every column of many rows without its smallest and largest values.
//
// `parameter` values at each end do not count. The host divides.
//
// Close: |error| <= (KEYS + log2(LANES) + 5) * 2^-24 * sum |kept value|. See `interval_sum`. The choice of values is
// exact.

#import interval_sum

@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

fn reduce(seat: u32) {
    let sum = sum_of_ranks(shape.parameter, shape.rows - shape.parameter, seat);
    if lane == 0u && column < shape.columns {
        sums[column] = sum;
    }
}
