// Adds discrete Gaussian noise of some of `rows` streams to integers: `columns` coordinates, one per invocation, two
// words each.
//
// Bits. The kernel computes in integers alone and does the same work for every draw: no branch depends on a draw. Ten
// halvings of the table in workgroup memory find a magnitude.
//
// Defined outside: BLOCKS, the number of blocks of random words per coordinate, one or two; DRAWS, the number of draws of a
// block that count, three or four.

#import shape
#import limbs
#import chacha20
#import status

const GROUP: u32 = 256u;
const MAGNITUDES: u32 = 861u;

struct Stream {
    key_low: vec4<u32>,
    key_high: vec4<u32>,
    domain: u32,
    segment: u32,
    // Whether its noise is subtracted.
    is_negative: u32,
    unused: u32,
}

// The number of the first coordinate's first block of random words, the range of the streams, then the integers.
@group(0) @binding(2) var<storage, read> integers: array<vec2<u32>>;
// Thresholds of 128 bits, the lowest word first.
@group(0) @binding(3) var<storage, read> thresholds: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> streams: array<Stream>;
@group(0) @binding(5) var<storage, read_write> noised: array<vec2<u32>>;

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

// The sum of the first draws of a stream's block with this number.
fn of_block(stream: Stream, number: vec2<u32>) -> i32 {
    let last = vec4<u32>(number, stream.domain, stream.segment);
    let block = block_of(stream.key_low, stream.key_high, last);
    let narrow = value(block.words[0]) + 32 * value(block.words[1]);
    var wide = value(block.words[2]);
    if DRAWS == 4u {
        wide += 32 * value(block.words[3]);
    }
    return narrow + 1024 * wide;
}

fn widened(x: i32) -> vec2<u32> {
    return vec2<u32>(bitcast<u32>(x), bitcast<u32>(x >> 31u));
}

// A stream's noise of the coordinate whose first block has this number.
fn noise_of(stream: Stream, number: vec2<u32>) -> vec2<u32> {
    var sum = widened(of_block(stream, number));
    if BLOCKS == 2u {
        let second = of_block(stream, wide_sum(number, vec2<u32>(1u, 0u)));
        sum = wide_sum(sum, vec2<u32>(bitcast<u32>(second) << 10u, bitcast<u32>(second >> 22u)));
    }
    return wide_signed(sum, stream.is_negative != 0u);
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
        let number = wide_sum(integers[0], wide_product(BLOCKS, column));
        let chosen = integers[1];
        var sum = integers[column + 2u];
        for (var i = chosen.x; i < min(chosen.y, shape.rows); i += 1u) {
            sum = wide_sum(sum, noise_of(streams[i], number));
        }
        noised[column] = sum;
    }
    finish(lane, 0u);
}
