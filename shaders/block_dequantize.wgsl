// Turns codes into the values they stand for.
//
// `rows` values in blocks of `parameter`; four values per invocation.
//
// Close: |error| <= 2^-24 * (|code * step| + |value|). A device may round the product on its own, or with the sum.
//
// Defined outside: SIGNED, whether codes are signed and the grid starts at zero.

#import shape
#import packed
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> codes: array<u32>;
// Start and step of each block's grid.
@group(0) @binding(3) var<storage, read> grids: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let four = column_of(group, groups, GROUP, lane);
    if four < shape.columns {
        let word = codes[four];
        for (var place = 0u; place < 4u; place += 1u) {
            let i = 4u * four + place;
            if i < shape.rows {
                let code = code_of(word, place);
                let grid = grids[i / shape.parameter];
                if SIGNED {
                    values[i] = f32(bitcast<i32>(code << 24u) >> 24u) * grid.y;
                } else {
                    values[i] = grid.x + f32(code) * grid.y;
                }
            }
        }
    }
    finish(lane, 0u);
}
