// Finds the smallest and the largest value of each block.
//
// `columns` blocks of `parameter` values, `rows` values in total; the last block may be shorter.
//
// Bits. The kernel compares integer keys, so subnormals keep their order on every device.

#import shape
#import floats
#import status

const GROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> values: array<u32>;
// Bits of each block's smallest value, then of its largest.
@group(0) @binding(3) var<storage, read_write> ends: array<u32>;

var<workgroup> low: array<u32, GROUP>;
var<workgroup> high: array<u32, GROUP>;

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // `stride` invocations read a block. It is a power of two, so a workgroup reads whole blocks.
    let lanes = shape.stride;
    let block = column_of(group, groups, GROUP / lanes, lane / lanes);
    low[lane] = 0xffffffffu;
    high[lane] = 0u;
    if block < shape.columns {
        let start = block * shape.parameter;
        let end = min(start + shape.parameter, shape.rows);
        for (var i = start + lane % lanes; i < end; i += lanes) {
            let key = key_of(values[i]);
            low[lane] = min(low[lane], key);
            high[lane] = max(high[lane], key);
        }
    }
    workgroupBarrier();
    for (var half = lanes / 2u; half > 0u; half /= 2u) {
        if lane % lanes < half {
            low[lane] = min(low[lane], low[lane + half]);
            high[lane] = max(high[lane], high[lane + half]);
        }
        workgroupBarrier();
    }
    if lane % lanes == 0u && block < shape.columns {
        ends[2u * block] = bits_of(low[lane]);
        ends[2u * block + 1u] = bits_of(high[lane]);
    }
    finish(lane, 0u);
}
