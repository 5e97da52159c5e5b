// Flips signs and applies the Walsh-Hadamard transform, not normalised.
//
// Each workgroup transforms a block of CHUNK values in its memory. `columns` values, which are whole blocks.
//
// Bits, where no value and no sum is subnormal.

#import shape
#import transform
#import status

@group(0) @binding(2) var<storage, read> values: array<u32>;
// One bit per value: whether its sign flips.
@group(0) @binding(3) var<storage, read> flips: array<u32>;
@group(0) @binding(4) var<storage, read_write> transformed: array<f32>;

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
    transform(lane);
    for (var i = lane; i < CHUNK; i += GROUP) {
        if start + i < shape.columns {
            transformed[start + i] = shared_values[place_of(i)];
        }
    }
    finish(lane, 0u);
}
