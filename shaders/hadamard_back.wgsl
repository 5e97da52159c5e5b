// Turns the codes of rotated blocks into values.
//
// Each workgroup looks up the levels of the CHUNK codes of a block, transforms them twice in its memory, flips signs
// after each transform, and multiplies by the block's scale over CHUNK. `columns` codes, which are whole blocks.
//
// Bits, where no level is below 2^-14, and no scale below 2^-76 unless it is zero. Then no sum and no product is
// subnormal.

#import shape
#import packed
#import transform
#import status

const SIGN: u32 = 0x80000000u;

@group(0) @binding(2) var<storage, read> codes: array<u32>;
// The level of each code.
@group(0) @binding(3) var<storage, read> levels: array<f32>;
// One bit per value: whether its sign flips after the first transform, and after the second.
@group(0) @binding(4) var<storage, read> flips: array<u32>;
@group(0) @binding(5) var<storage, read> last_flips: array<u32>;
// Scale of each block.
@group(0) @binding(6) var<storage, read> scales: array<f32>;
@group(0) @binding(7) var<storage, read_write> values: array<u32>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = column_of(group, groups, CHUNK, 0u);
    // The blocks are whole, so all of a workgroup's values are there or none is.
    let is_there = start < shape.columns;
    for (var i = lane; i < CHUNK; i += GROUP) {
        var level = 0.0;
        if is_there {
            level = levels[code_of(codes[(start + i) / 4u], i % 4u)];
        }
        shared_values[place_of(i)] = level;
    }
    transform(lane);
    for (var i = lane; i < CHUNK; i += GROUP) {
        if is_there {
            let flip = flips[(start + i) / 32u] >> (i % 32u);
            let bits = bitcast<u32>(shared_values[place_of(i)]) ^ (flip << 31u);
            shared_values[place_of(i)] = bitcast<f32>(bits);
        }
    }
    transform(lane);
    for (var i = lane; i < CHUNK; i += GROUP) {
        if is_there {
            let flip = last_flips[(start + i) / 32u] >> (i % 32u);
            let x = shared_values[place_of(i)];
            let sign = (bitcast<u32>(x) ^ (flip << 31u)) & SIGN;
            // The sign is set as a bit, since a device may drop that of a zero.
            values[start + i] = bitcast<u32>(abs(x) * (1.0 / f32(CHUNK)) * scales[start / CHUNK]) | sign;
        }
    }
    finish(lane, 0u);
}
