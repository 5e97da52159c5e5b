// Sums the squares of each row's integers on a grid over chunks of CHUNK columns. A sum has four words, the lowest first.
//
// Integers of 2^51 and more are above every bound. A chunk with one of them has the largest sum, all ones.
//
// Bits.

#import grid
#import status

const GROUP: u32 = 256u;
const CHUNK: u32 = 4096u;
// The upper word of 2^51.
const BEYOND: u32 = 0x80000u;

// The sums of each row's chunks; `parameter` chunks per row.
@group(0) @binding(6) var<storage, read_write> squares: array<vec4<u32>>;

var<workgroup> parts: array<vec4<u32>, GROUP>;
var<workgroup> is_beyond: atomic<u32>;

// The sum of two numbers of four words.
fn sum_of(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    let low = wide_sum(a.xy, b.xy);
    let carries = low.y < a.y || (low.y == a.y && low.x < a.x);
    let high = wide_sum(wide_sum(a.zw, b.zw), vec2<u32>(u32(carries), 0u));
    return vec4<u32>(low, high);
}

fn square_of(x: vec2<u32>) -> vec4<u32> {
    let outer = vec4<u32>(wide_product(x.x, x.x), wide_product(x.y, x.y));
    let product = wide_product(x.x, x.y);
    // Twice the product, from the second word on.
    let middle = vec4<u32>(0u, product.x << 1u, (product.y << 1u) | (product.x >> 31u), product.y >> 31u);
    return sum_of(outer, middle);
}

@compute @workgroup_size(GROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&is_beyond, 0u);
    }
    workgroupBarrier();
    let row = group.y;
    var sum = vec4<u32>();
    for (var i = 0u; i < CHUNK / GROUP; i += 1u) {
        let column = group.x * CHUNK + i * GROUP + lane;
        if column < shape.columns {
            let magnitude = integer_at(row, column).magnitude;
            if magnitude.y >= BEYOND {
                atomicStore(&is_beyond, 1u);
            }
            sum = sum_of(sum, square_of(magnitude));
        }
    }
    parts[lane] = sum;
    workgroupBarrier();
    for (var half = GROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            parts[lane] = sum_of(parts[lane], parts[lane + half]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        let has_largest = atomicLoad(&is_beyond) != 0u;
        squares[row * shape.parameter + group.x] = select(parts[0], vec4<u32>(0xffffffffu), has_largest);
    }
    finish(lane, 0u);
}
