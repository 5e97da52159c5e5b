// Turns codes into values on the grid of their block.
//
// `rows` codes in blocks of `parameter`, of whose first `stride` codes are left out; four codes per invocation.
//
// Bits, where no step is below 2^-76 unless it is zero, and no start is subnormal. Then no product is subnormal, and a
// sum only where it is the start. A bound between a product and the next sum keeps devices from rounding both at once.
//
// Defined outside: SIGNED, whether codes are -128 to 127 and the grid starts at zero.

#import shape
#import packed
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> codes: array<u32>;
// Start and step of each block's grid.
@group(0) @binding(3) var<storage, read> grids: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> values: array<vec4<u32>>;

fn value_of(i: u32, code: u32) -> u32 {
    let grid = grids[(i + shape.stride) / shape.parameter];
    if SIGNED {
        let sign = code & 0x80u;
        // The sign is set as a bit, since a device may drop that of a zero.
        return bitcast<u32>(f32(select(code, 256u - code, sign != 0u)) * grid.y) | (sign << 24u);
    }
    return bitcast<u32>(grid.x + max(f32(code) * grid.y, 0.0));
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let four = column_of(group, groups, GROUP, lane);
    if four < shape.columns {
        let word = codes[four];
        var found = vec4<u32>();
        for (var place = 0u; place < 4u; place += 1u) {
            let i = 4u * four + place;
            if i < shape.rows {
                found[place] = value_of(i, code_of(word, place));
            }
        }
        values[four] = found;
    }
    finish(lane, 0u);
}
