// Flips signs and applies the Walsh-Hadamard transform, not normalised.
//
// Each workgroup transforms a block of CHUNK values in its memory. `columns` values, which are whole blocks.
//
// Bits, where no value and no sum is subnormal. The stages add neighbours first, as in `src/kernels/hadamard.rs`;
// nothing is multiplied.

#import shape
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
// Values that an invocation holds: four stages of a transform.
const HELD: u32 = 16u;

@group(0) @binding(2) var<storage, read> values: array<u32>;
// One bit per value: whether its sign flips.
@group(0) @binding(3) var<storage, read> flips: array<u32>;
@group(0) @binding(4) var<storage, read_write> transformed: array<f32>;

var<workgroup> shared_values: array<f32, CHUNK>;

// The place of a value of the block, chosen so that values sixteen apart are in different banks.
fn place_of(i: u32) -> u32 {
    return i ^ ((i >> 4u) & 15u);
}

// Four stages, on values `stride` to `8 * stride` apart.
fn stages(lane: u32, stride: u32) {
    let start = (lane / stride) * stride * HELD + lane % stride;
    var held: array<f32, HELD>;
    for (var i = 0u; i < HELD; i += 1u) {
        held[i] = shared_values[place_of(start + i * stride)];
    }
    for (var apart = 1u; apart < HELD; apart *= 2u) {
        for (var pair = 0u; pair < HELD / 2u; pair += 1u) {
            let first = (pair / apart) * 2u * apart + pair % apart;
            let a = held[first];
            let b = held[first + apart];
            held[first] = a + b;
            held[first + apart] = a - b;
        }
    }
    for (var i = 0u; i < HELD; i += 1u) {
        shared_values[place_of(start + i * stride)] = held[i];
    }
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = column_of(group, groups, CHUNK, 0u);
    for (var i = lane; i < CHUNK; i += GROUP) {
        var bits = 0u;
        if start + i < shape.columns {
            let flip = (flips[(start + i) / 32u] >> (i % 32u)) & 1u;
            bits = values[start + i] ^ (flip << 31u);
        }
        shared_values[place_of(i)] = bitcast<f32>(bits);
    }
    workgroupBarrier();
    stages(lane, 1u);
    workgroupBarrier();
    stages(lane, HELD);
    workgroupBarrier();
    stages(lane, HELD * HELD);
    workgroupBarrier();
    for (var i = lane; i < CHUNK; i += GROUP) {
        if start + i < shape.columns {
            transformed[start + i] = shared_values[place_of(i)];
        }
    }
    finish(lane, 0u);
}
