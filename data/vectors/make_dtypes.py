#!/usr/bin/env python3
"""Make the golden vectors for dtype conversion beside this script.

    python3 make_dtypes.py [FOLDER]

Decoding tables come from `ml_dtypes` and NumPy. The script rounds float64 in
exact rational arithmetic, because casts of libraries may pass through float32
and round twice. If a library rounds once, the script compares its result. The
random source has a fixed seed, so the output is the same every time.
"""

import json
import math
import random
import struct
import sys
from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np

# mant: stored mantissa bits; emin: exponent of the smallest normal number;
# max: code of the largest finite number; over: code of an overflow.
Format = namedtuple("Format", "bits mant emin max over numpy")
FORMATS = {
    "f32": Format(32, 23, -126, 0x7F7FFFFF, 0x7F800000, np.float32),
    "f16": Format(16, 10, -14, 0x7BFF, 0x7C00, np.float16),
    "bf16": Format(16, 7, -126, 0x7F7F, 0x7F80, ml_dtypes.bfloat16),
    "e4m3": Format(8, 3, -6, 0x7E, 0x7F, ml_dtypes.float8_e4m3fn),  # over: NaN, no infinity
    "e5m2": Format(8, 2, -14, 0x7B, 0x7C, ml_dtypes.float8_e5m2),
}


def f64_hex(x):
    if math.isnan(x):
        return "nan"
    return "0x%016x" % struct.unpack("<Q", struct.pack("<d", x))[0]


def f64_from_bits(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def round_to(fmt, x):
    """Code of the number of `fmt` nearest to x, ties to even. x is not NaN."""
    sign = (1 << (fmt.bits - 1)) if math.copysign(1, x) < 0 else 0
    if math.isinf(x):
        return sign | fmt.over
    if x == 0:
        return sign
    exact = abs(Fraction(x))
    exponent = max(math.frexp(x)[1] - 1, fmt.emin)
    steps = round(exact / Fraction(2) ** (exponent - fmt.mant))  # Fraction rounds ties to even
    # Codes are in the order of the numbers, so a carry into the next binade
    # (or into overflow) needs no special case.
    code = steps + ((exponent - fmt.emin) << fmt.mant)
    return sign | min(code, fmt.over)


def value(fmt, code):
    """Value of a positive code. Beyond fmt.max the exponents continue."""
    field, mantissa = code >> fmt.mant, code & ((1 << fmt.mant) - 1)
    if field == 0:
        return math.ldexp(mantissa, fmt.emin - fmt.mant)
    return math.ldexp((1 << fmt.mant) | mantissa, field - 1 + fmt.emin - fmt.mant)


def decode_table(fmt, codes):
    unsigned = np.array(codes, dtype=f"u{fmt.bits // 8}")
    return [float(x) for x in unsigned.view(fmt.numpy).astype(np.float64)]


def f16_codes(rng):
    """Around every boundary, a step through all exponents, and random ones."""
    positive = {0x7C00, 0x7C01, 0x7DFF, 0x7E00, 0x7FFF}
    for edge in (0x0000, 0x0200, 0x0400, 0x3C00, 0x7C00):
        positive |= {c for c in range(edge - 5, edge + 6) if 0 <= c <= 0x7FFF}
    positive |= {1 << bit for bit in range(15)}
    for field in range(31):
        positive |= {field << 10, (field << 10) | 0x3FF}
    codes = positive | {code | 0x8000 for code in positive}
    while len(codes) < 600:
        codes.add(rng.randrange(0x10000))
    return sorted(codes)


def around_midpoint(low, high):
    """The tie between two neighbours, and values close to it that are no ties.

    float32 loses 2^-40 of the value, so a second rounding sees a tie again.
    """
    tie = (low + high) / 2
    yield low
    yield tie
    yield from (math.nextafter(tie, 0), math.nextafter(tie, math.inf))
    yield from (tie * (1 - 2.0 ** -40), tie * (1 + 2.0 ** -40))


def tie_cases(rng):
    for fmt in FORMATS.values():
        one = (-fmt.emin + 1) << fmt.mant
        first_normal = 1 << fmt.mant
        codes = {0, 1, 2, 3, first_normal - 2, first_normal - 1, first_normal, first_normal + 1,
                 one - 1, one, one + 1, fmt.max - 1, fmt.max}
        codes |= {rng.randrange(first_normal) for _ in range(4)}
        codes |= {rng.randrange(first_normal, fmt.max) for _ in range(14)}
        for code in sorted(codes):
            for x in around_midpoint(value(fmt, code), value(fmt, code + 1)):
                yield x if rng.random() < 0.6 else -x


def fixed_cases():
    smallest, largest = f64_from_bits(1), sys.float_info.max
    for x in (0.0, 1.0, 1 + 2.0 ** -8, 1 + 2.0 ** -8 + 2.0 ** -40, 1 + 3 * 2.0 ** -8,
              1 + 3 * 2.0 ** -8 - 2.0 ** -40, smallest, sys.float_info.min, largest, math.inf,
              1 / 3, math.pi, 448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0, 65519.0, 65520.0):
        yield from (x, -x)
    for fmt in FORMATS.values():  # the numbers at the edges, with their signs
        for code in (1, (1 << fmt.mant) - 1, 1 << fmt.mant, fmt.max):
            yield from (value(fmt, code), -value(fmt, code))
        half = value(fmt, 1) / 2  # up to and including half the smallest number: zero
        for x in (half / 1024, half * 0.999, half, math.nextafter(half, math.inf), half * 1.001):
            yield from (x, -x)


def random_cases(rng):
    # Exponent ranges: float64's own, float32's, float16's, that of the 8-bit formats.
    for low, high, count in ((-1074, 1023, 40), (-152, 129, 150), (-27, 17, 140), (-12, 10, 140)):
        for _ in range(count):
            x = rng.choice((-1, 1)) * math.ldexp(rng.uniform(1, 2), rng.randint(low, high))
            yield x
            if rng.random() < 0.4:  # and its float32 rounding, which libraries can check
                with np.errstate(over="ignore"):
                    yield float(np.float32(x))


def cases(rng):
    """All inputs, each once, compared by bits, since 0.0 == -0.0."""
    found = {}
    for source in (fixed_cases(), tie_cases(rng), random_cases(rng)):
        for x in source:
            found.setdefault(f64_hex(x), x)
    return list(found.values())


def library_code(fmt, x):
    return int(np.array(x).astype(fmt.numpy).view(f"u{fmt.bits // 8}"))


def cross_check(xs):
    """Check the results against the libraries, where these round only once.

    Returns for each format the number of cases that rounding through float32 gets wrong.
    """
    traps = dict.fromkeys(FORMATS, 0)
    for x in xs:
        x32 = np.float32(x)
        for name, fmt in FORMATS.items():
            mine, through_f32 = round_to(fmt, x), library_code(fmt, x32)
            if name in ("f32", "f16"):  # NumPy casts these straight from float64
                assert mine == library_code(fmt, np.float64(x)), (name, x)
            if float(x32) == x:
                assert mine == through_f32, (name, x)
            traps[name] += mine != through_f32
    return traps


def check_values():
    """Check `value`, which only picks inputs, against the tables."""
    for fmt in FORMATS.values():
        step = max(1, fmt.max // 5000)
        codes = list(range(0, fmt.max + 1, step)) + [fmt.max]
        assert decode_table(fmt, codes) == [value(fmt, code) for code in codes]
        assert all(round_to(fmt, value(fmt, code)) == code for code in codes)


def write(path, items):
    lines = [json.dumps(item, separators=(",", ":")) for item in items]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii", newline="\n")
    print(f"{path.name}: {len(lines)} entries")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    check_values()
    for name, key in (("f8_e4m3", "e4m3"), ("f8_e5m2", "e5m2")):
        write(folder / f"{name}.json", map(f64_hex, decode_table(FORMATS[key], range(256))))

    codes = f16_codes(random.Random(16))
    values = map(f64_hex, decode_table(FORMATS["f16"], codes))
    write(folder / "f16_decode.json", zip(codes, values))

    xs = cases(random.Random(64))
    with np.errstate(all="ignore"):
        traps = cross_check(xs)
    write(folder / "round_f64.json",
          ({"x": f64_hex(x)} | {name: round_to(fmt, x) for name, fmt in FORMATS.items()}
           for x in xs))
    print("wrong if rounded through float32:",
          ", ".join(f"{name} {count}" for name, count in traps.items()))


if __name__ == "__main__":
    main()
