// Sums the squares of the rows' deltas over chunks of CHUNK columns.
//
// The host adds the chunks in f64.
//
// Close: |error| <= (16 + 8 + 3) * 2^-24 * sum delta^2. An invocation adds 16 squares, the tree eight; the delta and
// its square are rounded.

#import rows
#import references
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;

// Of each row whether the base is to be subtracted.
@group(0) @binding(5) var<storage, read> less_base: array<u32>;
// The sums of each row's chunks; `parameter` chunks per row.
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;

var<workgroup> parts: array<f32, GROUP>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    var sum = 0.0;
    for (var i = 0u; i < CHUNK / GROUP; i += 1u) {
        let column = group.x * CHUNK + i * GROUP + lane;
        if column < shape.columns {
            var delta = bitcast<f32>(bits_at(row, column));
            if REFERENCES > 0u && less_base[row] != 0u {
                delta -= reference_at(0u, column);
            }
            sum += delta * delta;
        }
    }
    parts[lane] = sum;
    workgroupBarrier();
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[lane] += parts[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        sums[row * shape.parameter + group.x] = parts[0];
    }
    finish(lane, 0u);
}
