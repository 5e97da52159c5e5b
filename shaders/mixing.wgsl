// Combines the rows of a tile, and the base as one more row, into mixtures.
//
// An invocation computes a column of four mixtures, and so reads each value once for all four.
//
// Close: |error| <= (64 + rows / 64 + 3) * 2^-24 * sum |coefficient * value|. The terms are those of a weighted sum.

#import rows
#import references
#import status

const GROUP: u32 = 256u;
const PART: u32 = 64u;

// For each mixture a coefficient for every row that is taken, then one for the base.
@group(0) @binding(5) var<storage, read> coefficients: array<f32>;
// The `parameter` mixtures, row by row.
@group(0) @binding(6) var<storage, read_write> mixed: array<f32>;

// The coefficients of a row in four mixtures; zero for missing mixtures.
fn four_coefficients(mixture: u32, row: u32) -> vec4<f32> {
    let last = shape.parameter - 1u;
    let mixtures = min(vec4<u32>(mixture, mixture + 1u, mixture + 2u, mixture + 3u), vec4<u32>(last));
    let places = mixtures * (shape.rows + 1u) + row;
    return vec4<f32>(
        coefficients[places.x],
        coefficients[places.y],
        coefficients[places.z],
        coefficients[places.w],
    );
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = group.x * GROUP + lane;
    let mixture = group.y * 4u;
    var largest = 0u;
    if column < shape.columns {
        var sum = vec4<f32>();
        if REFERENCES > 0u {
            sum = four_coefficients(mixture, shape.rows) * reference_at(0u, column);
        }
        for (var first = 0u; first < shape.rows; first += PART) {
            var part = vec4<f32>();
            let end = min(first + PART, shape.rows);
            for (var i = first; i < end; i += 1u) {
                let bits = bits_at(i, column);
                largest = max(largest, bits & MAGNITUDE);
                part += four_coefficients(mixture, i) * bitcast<f32>(bits);
            }
            sum += part;
        }
        for (var k = 0u; k < min(4u, shape.parameter - mixture); k += 1u) {
            mixed[(mixture + k) * shape.columns + column] = sum[k];
        }
    }
    finish(lane, largest);
}
