// Rows as combinations of the rows of a tile, and of the base as one row more.
//
// Close: |error| <= (64 + rows / 64 + 3) * 2^-24 * sum |coefficient * value|, as for a weighted sum.

#import rows
#import references
#import status

const GROUP: u32 = 256u;
const PART: u32 = 64u;

// For each mixture a coefficient for every row that is taken, then one for the base.
@group(0) @binding(5) var<storage, read> coefficients: array<f32>;
// The mixtures, one behind the other.
@group(0) @binding(6) var<storage, read_write> mixed: array<f32>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = group.x * GROUP + lane;
    let mixture = group.y;
    let own = mixture * (shape.rows + 1u);
    var largest = 0u;
    if column < shape.columns {
        var sum = 0.0;
        if REFERENCES > 0u {
            sum = coefficients[own + shape.rows] * reference_at(0u, column);
        }
        for (var first = 0u; first < shape.rows; first += PART) {
            var part = 0.0;
            let end = min(first + PART, shape.rows);
            for (var i = first; i < end; i += 1u) {
                let bits = bits_at(i, column);
                largest = max(largest, bits & MAGNITUDE);
                part += coefficients[own + i] * bitcast<f32>(bits);
            }
            sum += part;
        }
        mixed[mixture * shape.columns + column] = sum;
    }
    finish(lane, largest);
}
