// Sums weighted rows in row order: 64 rows at a time, then these sums.
//
// Close: |error| <= (64 + rows / 64 + 2) * 2^-24 * sum |weight * value|. Weights and products are rounded to f32, and
// each value takes part in at most 64 + rows / 64 additions.

#import rows
#import status

const GROUP: u32 = 256u;
const PART: u32 = 64u;

@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    var largest = 0u;
    if column < shape.columns {
        var sum = 0.0;
        for (var first = 0u; first < shape.rows; first += PART) {
            var part = 0.0;
            let end = min(first + PART, shape.rows);
            var i = first;
            // Starts four loads before the first value is needed.
            for (; i + 4u <= end; i += 4u) {
                let bits =
                    vec4<u32>(bits_at(i, column), bits_at(i + 1u, column), bits_at(i + 2u, column), bits_at(i + 3u, column));
                let magnitudes = bits & vec4<u32>(MAGNITUDE);
                largest = max(largest, max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w)));
                let values = bitcast<vec4<f32>>(bits);
                part += weights[i] * values.x;
                part += weights[i + 1u] * values.y;
                part += weights[i + 2u] * values.z;
                part += weights[i + 3u] * values.w;
            }
            for (; i < end; i += 1u) {
                let bits = bits_at(i, column);
                largest = max(largest, bits & MAGNITUDE);
                part += weights[i] * bitcast<f32>(bits);
            }
            sum += part;
        }
        sums[column] = sum;
    }
    finish(lane, largest);
}
