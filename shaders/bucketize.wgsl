// Finds the bucket of each magnitude among ascending thresholds.
//
// `stride` thresholds; negative values get the codes behind theirs. `rows` values in blocks of `parameter`, each block
// with a factor; four values per invocation.
//
// Bits, where no product is subnormal. The kernel multiplies and compares, and adds nothing.

#import shape
#import packed
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> values: array<f32>;
// Factor of each block's values.
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> thresholds: array<f32>;
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;

fn code_at(i: u32) -> u32 {
    let x = values[i];
    let scaled = abs(x) * factors[i / shape.parameter];
    var code = select(0u, shape.stride + 1u, x < 0.0);
    for (var j = 0u; j < shape.stride; j += 1u) {
        code += select(0u, 1u, scaled > thresholds[j]);
    }
    return code;
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let four = column_of(group, groups, GROUP, lane);
    if four < shape.columns {
        var word = 0u;
        for (var place = 0u; place < 4u; place += 1u) {
            if 4u * four + place < shape.rows {
                word = with_code(word, place, code_at(4u * four + place));
            }
        }
        codes[four] = word;
    }
    finish(lane, 0u);
}
