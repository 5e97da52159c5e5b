// Codes of a byte each, four to a word. An invocation makes a word, or takes one: `columns` words are `rows` codes.

// The word of an invocation, with the code of its `place`-th value put in.
fn with_code(word: u32, place: u32, code: u32) -> u32 {
    return word | ((code & 0xffu) << (8u * place));
}

// The code of the `place`-th value of a word.
fn code_of(word: u32, place: u32) -> u32 {
    return (word >> (8u * place)) & 0xffu;
}
