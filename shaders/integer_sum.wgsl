// Rounds values to integers and sums them over rows.
//
// An integer is the value times its row's scale, rounded toward zero. `rows` rows of `columns` values; one column per
// invocation, two words per sum.
//
// Bits. The kernel reads values as words and computes in integers alone, so subnormal values count on every device.

#import shape
#import limbs
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> values: array<u32>;
// Of each row the multiplier, and the power of two beside it, an i32.
@group(0) @binding(3) var<storage, read> scales: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<u32>>;

// The integer of a value, computed as in `src/kernels/clip_integers.rs`.
fn integer(bits: u32, scale: vec2<u32>) -> vec2<u32> {
    let exponent = (bits >> 23u) & 0xffu;
    let significand = (bits & 0x7fffffu) | select(0x800000u, 0u, exponent == 0u);
    // Drops three bits first: every product is shifted by at least three.
    let product = wide_shifted(wide_product(significand, scale.x), 3u);
    let shift = clamp(147 - i32(max(exponent, 1u)) - bitcast<i32>(scale.y), 0, 63);
    return wide_signed(wide_shifted(product, u32(shift)), bits >> 31u == 1u);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        var sum = vec2<u32>();
        for (var row = 0u; row < shape.rows; row += 1u) {
            sum = wide_sum(sum, integer(values[row * shape.stride + column], scales[row]));
        }
        sums[column] = sum;
    }
    finish(lane, 0u);
}
