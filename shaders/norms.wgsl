// Sums the squares of the rows' deltas over chunks of CHUNK columns.
//
// The host adds the chunks in f64. A chunk whose squares may vanish in f32 has the sum -1: it is below 2^-90, and some
// delta is not zero.
//
// Close: |error| <= (16 + 8 + 3) * 2^-24 * sum delta^2. An invocation adds 16 squares, the tree eight; the delta and
// its square are rounded.

#import rows
#import references
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
const LEAST: f32 = 0x1p-90;

// Of each row whether the base is to be subtracted.
@group(0) @binding(5) var<storage, read> less_base: array<u32>;
// The sums of each row's chunks; `parameter` chunks per row.
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;

var<workgroup> parts: array<f32, GROUP>;
// Whether some delta of the chunk is not zero.
var<workgroup> differs: atomic<u32>;

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    var sum = 0.0;
    var is_some = false;
    for (var i = 0u; i < CHUNK / GROUP; i += 1u) {
        let column = group.x * CHUNK + i * GROUP + lane;
        if column < shape.columns {
            let bits = bits_at(row, column);
            var delta = bitcast<f32>(bits);
            var less = 0u;
            if REFERENCES > 0u && less_base[row] != 0u {
                delta -= reference_at(0u, column);
                less = bitcast<u32>(reference_at(0u, column));
            }
            // By bits: a device may take a subnormal delta for zero.
            is_some = is_some || (bits != less && ((bits | less) & MAGNITUDE) != 0u);
            sum += delta * delta;
        }
    }
    parts[lane] = sum;
    if lane == 0u {
        atomicStore(&differs, 0u);
    }
    workgroupBarrier();
    atomicOr(&differs, u32(is_some));
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[lane] += parts[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        let vanishes = parts[0] < LEAST && atomicLoad(&differs) != 0u;
        sums[row * shape.parameter + group.x] = select(parts[0], -1.0, vanishes);
    }
    finish(lane, 0u);
}
