// Subtracts the tile's middle from its points.
//
// Points are the rows, the zero delta, and optionally the coordinate median and the centre of an earlier round. The
// kernel records the largest magnitude of every point. A device may take subnormal differences for zero. So a point that
// differs from the middle in some bits has a magnitude above zero.
//
// Ulp(1), for the coordinate median Ulp(2): one subtraction.
//
// Defined outside: HAS_MEDIAN, whether the coordinate median is a point; ORIGIN_IS_BASE, whether the zero delta is the
// base's value or zero.

#import rows
#import references
#import status

const GROUP: u32 = 256u;

// The lower middle value of every column, then the upper.
@group(0) @binding(5) var<storage, read> middle: array<u32>;
// The points, one behind the other.
@group(0) @binding(6) var<storage, read_write> panel: array<f32>;
@group(0) @binding(7) var<storage, read_write> largest_of_point: array<atomic<u32>>;

var<workgroup> group_peak: atomic<u32>;

fn origin_at(column: u32) -> f32 {
    if ORIGIN_IS_BASE {
        return reference_at(0u, column);
    }
    return 0.0;
}

fn reference_point(place: u32, column: u32) -> f32 {
    if place == 0u {
        return origin_at(column);
    }
    if HAS_MEDIAN && place == 1u {
        let lower = bitcast<f32>(middle[column]);
        let upper = bitcast<f32>(middle[shape.columns + column]);
        return lower * 0.5 + upper * 0.5;
    }
    // The centre is a delta, and the last reference.
    return origin_at(column) + reference_at(REFERENCES - 1u, column);
}

// Whether two floats, given as bits, are different numbers.
fn differ(a: u32, b: u32) -> bool {
    return a != b && ((a | b) & MAGNITUDE) != 0u;
}

// Whether a reference may differ from the middle.
fn reference_differs(place: u32, column: u32) -> bool {
    if HAS_MEDIAN && place == 1u {
        return differ(middle[column], middle[shape.columns + column]);
    }
    var origin = 0u;
    if ORIGIN_IS_BASE {
        origin = bitcast<u32>(reference_at(0u, column));
    }
    // The centre is a delta.
    let is_moved = place > 0u && (bitcast<u32>(reference_at(REFERENCES - 1u, column)) & MAGNITUDE) != 0u;
    return is_moved || differ(origin, middle[column]);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = group.x * GROUP + lane;
    let point = group.y;
    if lane == 0u {
        atomicStore(&group_peak, 0u);
    }
    workgroupBarrier();
    var largest = 0u;
    if column < shape.columns {
        var value: f32;
        var is_other: bool;
        if point < shape.rows {
            let bits = bits_at(point, column);
            largest = bits & MAGNITUDE;
            value = bitcast<f32>(bits);
            is_other = differ(bits, middle[column]);
        } else {
            value = reference_point(point - shape.rows, column);
            is_other = reference_differs(point - shape.rows, column);
        }
        let centred = value - bitcast<f32>(middle[column]);
        panel[point * shape.columns + column] = centred;
        atomicMax(&group_peak, max(bitcast<u32>(centred) & MAGNITUDE, u32(is_other)));
    }
    workgroupBarrier();
    if lane == 0u {
        atomicMax(&largest_of_point[point], atomicLoad(&group_peak));
    }
    finish(lane, largest);
}
