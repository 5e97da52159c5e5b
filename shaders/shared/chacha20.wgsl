// Computes a block of ChaCha20 by its number, as `src/kernels/chacha20.rs` does.

fn turned(x: vec4<u32>, left: u32) -> vec4<u32> {
    return (x << vec4<u32>(left)) | (x >> vec4<u32>(32u - left));
}

// Words 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
struct Block {
    words: array<vec4<u32>, 4>,
}

// A quarter round of each column.
fn quarter_rounds(block: Block) -> Block {
    var a = block.words[0];
    var b = block.words[1];
    var c = block.words[2];
    var d = block.words[3];
    a += b;
    d = turned(d ^ a, 16u);
    c += d;
    b = turned(b ^ c, 12u);
    a += b;
    d = turned(d ^ a, 8u);
    c += d;
    b = turned(b ^ c, 7u);
    return Block(array<vec4<u32>, 4>(a, b, c, d));
}

// The block of a key. `last` holds its number, low word first, the domain and the segment.
fn block_of(key_low: vec4<u32>, key_high: vec4<u32>, last: vec4<u32>) -> Block {
    let constants = vec4<u32>(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u);
    var block = Block(array<vec4<u32>, 4>(constants, key_low, key_high, last));
    for (var round = 0u; round < 10u; round += 1u) {
        block = quarter_rounds(block);
        let across = array<vec4<u32>, 4>(
            block.words[0],
            block.words[1].yzwx,
            block.words[2].zwxy,
            block.words[3].wxyz,
        );
        block = quarter_rounds(Block(across));
        let back = array<vec4<u32>, 4>(
            block.words[0],
            block.words[1].wxyz,
            block.words[2].zwxy,
            block.words[3].yzwx,
        );
        block = Block(back);
    }
    block.words[0] += constants;
    block.words[1] += key_low;
    block.words[2] += key_high;
    block.words[3] += last;
    return block;
}
