// Adds up the masks of `rows` seeds, modulo the prime 2^32 - 5: `columns` blocks of 16 lanes, one per invocation, from
// block `parameter` on.
//
// Bits. Words at or above the prime are replaced here too; one in 859 million is.

#import shape
#import chacha20
#import modulo
#import status

const GROUP: u32 = 256u;
// The domains of a seed: the words of the lanes, and those that replace words at or above the prime.
const FIRST: u32 = 0u;
const AGAIN: u32 = 1u;

// The words of each seed.
@group(0) @binding(2) var<storage, read> seeds: array<array<vec4<u32>, 2>>;
@group(0) @binding(3) var<storage, read_write> sums: array<array<vec4<u32>, 4>>;

// The first word below the prime among the blocks of AGAIN with the lane's number, in the order of segments.
fn replacement(seed: array<vec4<u32>, 2>, lane: vec2<u32>) -> u32 {
    for (var segment = 0u; segment < 0xffffffffu; segment += 1u) {
        var again = block_of(seed[0], seed[1], vec4<u32>(lane, AGAIN, segment));
        for (var place = 0u; place < 16u; place += 1u) {
            let word = again.words[place / 4u][place % 4u];
            if word < P {
                return word;
            }
        }
    }
    return 0u;
}

// Four lanes from `place` on, with replaced words.
fn replaced(seed: array<vec4<u32>, 2>, block: u32, place: u32, words: vec4<u32>) -> vec4<u32> {
    var masks = words;
    for (var i = 0u; i < 4u; i += 1u) {
        if masks[i] >= P {
            // The lane's number takes 36 bits.
            masks[i] = replacement(seed, vec2<u32>((block << 4u) | (place + i), block >> 28u));
        }
    }
    return masks;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        let block = shape.parameter + column;
        var sum = array<vec4<u32>, 4>();
        for (var i = 0u; i < shape.rows; i += 1u) {
            let seed = seeds[i];
            var masks = block_of(seed[0], seed[1], vec4<u32>(block, 0u, FIRST, 0u)).words;
            let largest = max(max(masks[0], masks[1]), max(masks[2], masks[3]));
            if any(largest >= vec4<u32>(P)) {
                for (var part = 0u; part < 4u; part += 1u) {
                    masks[part] = replaced(seed, block, 4u * part, masks[part]);
                }
            }
            sum[0] = sum_modulo(sum[0], masks[0]);
            sum[1] = sum_modulo(sum[1], masks[1]);
            sum[2] = sum_modulo(sum[2], masks[2]);
            sum[3] = sum_modulo(sum[3], masks[3]);
        }
        sums[column] = sum;
    }
    finish(lane, 0u);
}
