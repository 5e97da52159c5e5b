// Sums over every pair of points of a panel: products, or squared differences.
//
// A workgroup computes a square of SIDE * 8 by SIDE * 8 points over a chunk of columns. Its 256 invocations form SLICES
// layers of SIDE * SIDE. Each layer computes its share of the columns, each invocation eight points by eight. The
// workgroup stages STAGE columns at a time in its memory, and adds the layers as a tree. It skips squares below the
// diagonal.
//
// Close: |error| <= (256 + 6 + 2) * 2^-24 * sum |term|. An invocation adds 256 terms, the tree at most six, and a term
// carries its own rounding.
//
// Defined outside: SIDE, 2, 4 or 8; STAGE, columns staged at once; DIFFERENCES, whether to sum squared differences.

#import shape
#import status

const SLICES: u32 = 256u / (SIDE * SIDE);
const POINTS: u32 = SIDE * 8u;
// Vectors of four points, and one more as padding, so that neighbouring columns use different banks.
const PITCH: u32 = POINTS / 4u + 1u;
const CHUNK: u32 = 256u * SLICES;
const PER_SLICE: u32 = STAGE / SLICES;
const LOADS: u32 = STAGE * POINTS / 4u / 256u;

@group(0) @binding(2) var<storage, read> panel: array<f32>;
// A matrix of points by points for every chunk.
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

var<workgroup> near: array<vec4<f32>, STAGE * PITCH>;
var<workgroup> far: array<vec4<f32>, select(1u, STAGE * PITCH, SIDE == 8u)>;

// Four points at a column; missing points are zero.
fn four_at(point: u32, column: u32) -> vec4<f32> {
    var four = vec4<f32>();
    if column < shape.columns {
        let start = point * shape.stride + column;
        if point < shape.rows {
            four.x = panel[start];
        }
        if point + 1u < shape.rows {
            four.y = panel[start + shape.stride];
        }
        if point + 2u < shape.rows {
            four.z = panel[start + 2u * shape.stride];
        }
        if point + 3u < shape.rows {
            four.w = panel[start + 3u * shape.stride];
        }
    }
    return four;
}

fn add_terms(a: f32, b: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    if DIFFERENCES {
        let difference = a - b;
        return fma(difference, difference, sum);
    }
    return fma(vec4<f32>(a), b, sum);
}

// The sum of all layers, in the first layer.
fn folded(part: vec4<f32>, lane: u32, slice: u32) -> vec4<f32> {
    near[lane] = part;
    workgroupBarrier();
    for (var half = SLICES / 2u; half > 0u; half /= 2u) {
        if slice < half {
            near[lane] += near[lane + half * SIDE * SIDE];
        }
        workgroupBarrier();
    }
    let sum = near[lane];
    workgroupBarrier();
    return sum;
}

fn write_four(chunk: u32, row: u32, column: u32, four: vec4<f32>) {
    if row < shape.rows {
        let start = (chunk * shape.rows + row) * shape.rows + column;
        if column < shape.rows {
            sums[start] = four.x;
        }
        if column + 1u < shape.rows {
            sums[start + 1u] = four.y;
        }
        if column + 2u < shape.rows {
            sums[start + 2u] = four.z;
        }
        if column + 3u < shape.rows {
            sums[start + 3u] = four.w;
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The order of the pairs of squares is (0, 0), (0, 1), (1, 1), (0, 2), ..
    var across = u32((sqrt(8.0 * f32(group.x) + 1.0) - 1.0) * 0.5);
    across -= u32(across * (across + 1u) / 2u > group.x);
    across += u32((across + 1u) * (across + 2u) / 2u <= group.x);
    let down = group.x - across * (across + 1u) / 2u;
    let on_diagonal = SIDE < 8u || down == across;
    let slice = lane / (SIDE * SIDE);
    let row = (lane / SIDE) % SIDE;
    let column = lane % SIDE;
    let first = group.y * CHUNK;

    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    var t0 = vec4<f32>();
    var t1 = vec4<f32>();
    var t2 = vec4<f32>();
    var t3 = vec4<f32>();
    var t4 = vec4<f32>();
    var t5 = vec4<f32>();
    var t6 = vec4<f32>();
    var t7 = vec4<f32>();
    let end = min(first + CHUNK, shape.columns);
    for (var start = first; start < end; start += STAGE) {
        for (var i = 0u; i < LOADS; i += 1u) {
            let place = i * 256u + lane;
            let k = place % STAGE;
            let quad = place / STAGE;
            near[k * PITCH + quad] = four_at(down * POINTS + quad * 4u, start + k);
            if !on_diagonal {
                far[k * PITCH + quad] = four_at(across * POINTS + quad * 4u, start + k);
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < PER_SLICE; i += 1u) {
            let base = (slice * PER_SLICE + i) * PITCH;
            let a = near[base + row * 2u];
            let b = near[base + row * 2u + 1u];
            var c = near[base + column * 2u];
            var d = near[base + column * 2u + 1u];
            if !on_diagonal {
                c = far[base + column * 2u];
                d = far[base + column * 2u + 1u];
            }
            s0 = add_terms(a.x, c, s0);
            t0 = add_terms(a.x, d, t0);
            s1 = add_terms(a.y, c, s1);
            t1 = add_terms(a.y, d, t1);
            s2 = add_terms(a.z, c, s2);
            t2 = add_terms(a.z, d, t2);
            s3 = add_terms(a.w, c, s3);
            t3 = add_terms(a.w, d, t3);
            s4 = add_terms(b.x, c, s4);
            t4 = add_terms(b.x, d, t4);
            s5 = add_terms(b.y, c, s5);
            t5 = add_terms(b.y, d, t5);
            s6 = add_terms(b.z, c, s6);
            t6 = add_terms(b.z, d, t6);
            s7 = add_terms(b.w, c, s7);
            t7 = add_terms(b.w, d, t7);
        }
        workgroupBarrier();
    }

    s0 = folded(s0, lane, slice);
    s1 = folded(s1, lane, slice);
    s2 = folded(s2, lane, slice);
    s3 = folded(s3, lane, slice);
    s4 = folded(s4, lane, slice);
    s5 = folded(s5, lane, slice);
    s6 = folded(s6, lane, slice);
    s7 = folded(s7, lane, slice);
    t0 = folded(t0, lane, slice);
    t1 = folded(t1, lane, slice);
    t2 = folded(t2, lane, slice);
    t3 = folded(t3, lane, slice);
    t4 = folded(t4, lane, slice);
    t5 = folded(t5, lane, slice);
    t6 = folded(t6, lane, slice);
    t7 = folded(t7, lane, slice);
    if slice == 0u {
        let i = down * POINTS + row * 8u;
        let j = across * POINTS + column * 8u;
        write_four(group.y, i, j, s0);
        write_four(group.y, i, j + 4u, t0);
        write_four(group.y, i + 1u, j, s1);
        write_four(group.y, i + 1u, j + 4u, t1);
        write_four(group.y, i + 2u, j, s2);
        write_four(group.y, i + 2u, j + 4u, t2);
        write_four(group.y, i + 3u, j, s3);
        write_four(group.y, i + 3u, j + 4u, t3);
        write_four(group.y, i + 4u, j, s4);
        write_four(group.y, i + 4u, j + 4u, t4);
        write_four(group.y, i + 5u, j, s5);
        write_four(group.y, i + 5u, j + 4u, t5);
        write_four(group.y, i + 6u, j, s6);
        write_four(group.y, i + 6u, j + 4u, t6);
        write_four(group.y, i + 7u, j, s7);
        write_four(group.y, i + 7u, j + 4u, t7);
    }
    finish(lane, 0u);
}
