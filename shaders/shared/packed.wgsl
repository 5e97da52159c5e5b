// Codes of one byte, four per word.
//
// An invocation writes or reads one word; `columns` words hold `rows` codes.

// The word with the code of its `place`-th value set.
fn with_code(word: u32, place: u32, code: u32) -> u32 {
    return word | ((code & 0xffu) << (8u * place));
}

// The code of the `place`-th value of a word.
fn code_of(word: u32, place: u32) -> u32 {
    return (word >> (8u * place)) & 0xffu;
}
