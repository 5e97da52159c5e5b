// Finds the two middle values of every column of many rows.
//
// They are equal for an odd number of rows. The host computes their midpoint.
//
// Bits.

#import bisection

// The lower middle value of every column, then the upper.
@group(0) @binding(4) var<storage, read_write> middle: array<u32>;

fn reduce(seat: u32) {
    let lower = key_of_rank((shape.rows - 1u) / 2u);
    let upper = key_of_next_rank(lower, shape.rows / 2u);
    if lane == 0u && column < shape.columns {
        middle[column] = bits_of(lower);
        middle[shape.columns + column] = bits_of(upper);
    }
}
