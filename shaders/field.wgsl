// Adds up rows of elements modulo the prime 2^32 - 5, each times its factor: `columns` vectors of four, one per
// invocation. Rows are `stride` vectors apart.
//
// Bits.
//
// Defined outside: MULTIPLES, whether the rows have factors other than one.

#import shape
#import limbs
#import modulo
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> elements: array<vec4<u32>>;
// One per row.
@group(0) @binding(3) var<storage, read> factors: array<u32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<u32>>;

fn product_modulo(a: u32, b: u32) -> u32 {
    let product = wide_product(a, b);
    // The upper word counts 5 each, and so does what is above a word then: at most 5.
    let once = wide_sum(wide_product(CARRY, product.y), vec2<u32>(product.x, 0u));
    let twice = once.x + CARRY * once.y;
    return twice + select(0u, CARRY, twice < once.x || twice >= P);
}

fn multiple(factor: u32, row: vec4<u32>) -> vec4<u32> {
    if !MULTIPLES {
        return row;
    }
    return vec4<u32>(
        product_modulo(factor, row.x),
        product_modulo(factor, row.y),
        product_modulo(factor, row.z),
        product_modulo(factor, row.w),
    );
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = column_of(group, groups, GROUP, lane);
    if column < shape.columns {
        var sum = vec4<u32>();
        for (var i = 0u; i < shape.rows; i += 1u) {
            sum = sum_modulo(sum, multiple(factors[i], elements[i * shape.stride + column]));
        }
        sums[column] = sum;
    }
    finish(lane, 0u);
}
