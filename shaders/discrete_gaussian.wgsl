// Draws discrete Gaussian noise: `columns` coordinates, one per invocation, two words each.
//
// Bits. The kernel computes in integers alone and does the same work for every draw: no branch depends on a draw. Ten
// halvings of the table in workgroup memory find a magnitude.
//
// Defined outside: BLOCKS, the number of blocks of random words per coordinate, one or two.

#import shape
#import limbs
#import chacha20
#import status

const GROUP: u32 = 256u;
const MAGNITUDES: u32 = 861u;

struct Numbers {
    key_low: vec4<u32>,
    key_high: vec4<u32>,
    // Number of the first coordinate's first block.
    first: vec2<u32>,
    domain: u32,
    segment: u32,
}

// Thresholds of 128 bits, the lowest word first.
@group(0) @binding(2) var<storage, read> thresholds: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> numbers: Numbers;
@group(0) @binding(4) var<storage, read_write> noise: array<vec2<u32>>;

var<workgroup> table: array<vec4<u32>, MAGNITUDES>;

// Whether a threshold is at or below `uniform`.
fn is_passed(threshold: vec4<u32>, uniform: vec4<u32>) -> bool {
    let below = threshold < uniform;
    let equal = threshold == uniform;
    let first = below.x || equal.x;
    let second = select(below.y, first, equal.y);
    let third = select(below.z, second, equal.z);
    return select(below.w, third, equal.w);
}

// The draw that 128 random bits select. The highest bit is the sign.
fn value(bits: vec4<u32>) -> i32 {
    let uniform = vec4<u32>(bits.xyz, bits.w & 0x7fffffffu);
    var magnitude = 0u;
    for (var left = MAGNITUDES; left > 1u; left -= left / 2u) {
        let next = magnitude + left / 2u;
        magnitude = select(magnitude, next, is_passed(table[next - 1u], uniform));
    }
    return select(i32(magnitude), -i32(magnitude), bits.w >> 31u == 1u);
}

// The sum of the four draws of the block with this number.
fn of_block(number: vec2<u32>) -> i32 {
    let block = block_of(numbers.key_low, numbers.key_high, vec4<u32>(number, numbers.domain, numbers.segment));
    let narrow = value(block.words[0]) + 32 * value(block.words[1]);
    return narrow + 1024 * (value(block.words[2]) + 32 * value(block.words[3]));
}

fn widened(x: i32) -> vec2<u32> {
    return vec2<u32>(bitcast<u32>(x), bitcast<u32>(x >> 31u));
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var i = lane; i < MAGNITUDES; i += GROUP) {
        table[i] = thresholds[i];
    }
    workgroupBarrier();
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        let number = wide_sum(numbers.first, vec2<u32>(BLOCKS * column, 0u));
        var sum = widened(of_block(number));
        if BLOCKS == 2u {
            let second = of_block(wide_sum(number, vec2<u32>(1u, 0u)));
            sum = wide_sum(sum, vec2<u32>(bitcast<u32>(second) << 10u, bitcast<u32>(second >> 22u)));
        }
        noise[column] = sum;
    }
    finish(lane, 0u);
}
