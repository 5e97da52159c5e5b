// The clients' rows of a tile as they are stored, and the choice of rows that the kernel reads.
//
// Defined outside: STORED, the dtype of the rows.

#import shape
#import floats

@group(0) @binding(2) var<storage, read> stored: array<u32>;
// The numbers of the chosen rows, in order.
@group(0) @binding(3) var<storage, read> chosen: array<u32>;

// The bits, as f32, of a value of the `i`-th chosen row.
fn bits_at(i: u32, column: u32) -> u32 {
    return widened(STORED, stored[chosen[i] * shape.stride + word_of(STORED, column)], column);
}
