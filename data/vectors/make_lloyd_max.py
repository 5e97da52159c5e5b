"""Makes src/codecs/quantize/lloyd_max.rs: the best quantizers of a standard Gaussian with 2^b levels.

Each level is the mean of its bin, and each boundary is midway between two levels (Lloyd, 1982; Max, 1960). Newton's
method finds the positive levels. It starts from the levels of the density's cube root (Panter and Dite, 1951). Needs
only Python:

    python3 data/vectors/make_lloyd_max.py > src/codecs/quantize/lloyd_max.rs
"""

import math
import struct
from statistics import NormalDist

HEAD = """//! The best quantizers of a standard Gaussian, for one to eight bits (Lloyd, 1982; Max, 1960).
//!
//! Each has the levels above zero, ascending; the levels below zero are their negatives. The thresholds lie midway
//! between levels.
//!
//! `data/vectors/make_lloyd_max.py` makes the table; the tests of [`eden`](super::eden) check these conditions.

/// Levels of one to eight bits.
pub(crate) const LEVELS: [&[f32]; 8] = ["""


def density(t):
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def above(t):
    return math.erfc(t / math.sqrt(2)) / 2


def newton_step(levels):
    """Solves the tridiagonal system of level * mass - (density below - density above) = 0 in each bin."""
    count = len(levels)
    bounds = [0.0] + [(a + b) / 2 for a, b in zip(levels, levels[1:])] + [math.inf]
    lower, middle, upper, residual = [], [], [], []
    for i, level in enumerate(levels):
        a, b = bounds[i], bounds[i + 1]
        mass = above(a) - above(b)
        at_a = density(a) if i > 0 else 0.0
        at_b = density(b) if i + 1 < count else 0.0
        lower.append(-(level - a) * at_a / 2)
        upper.append(-(b - level) * at_b / 2 if at_b else 0.0)
        middle.append(mass + lower[-1] + upper[-1])
        residual.append(level * mass - (density(a) - density(b)))
    for i in range(1, count):
        factor = lower[i] / middle[i - 1]
        middle[i] -= factor * upper[i - 1]
        residual[i] -= factor * residual[i - 1]
    step = [0.0] * (count + 1)
    for i in reversed(range(count)):
        step[i] = (residual[i] - upper[i] * step[i + 1]) / middle[i]
    return step[:count]


def means(levels):
    """A round of Lloyd's own method, which gets close from any start."""
    bounds = [0.0] + [(a + b) / 2 for a, b in zip(levels, levels[1:])] + [math.inf]
    return [(density(a) - density(b)) / (above(a) - above(b)) for a, b in zip(bounds, bounds[1:])]


def levels_of(bits):
    count = 2 ** (bits - 1)
    wide = NormalDist(0, math.sqrt(3))
    levels = [wide.inv_cdf(0.5 + (i + 0.5) / (2 * count)) for i in range(count)]
    for _ in range(20 * count):
        levels = means(levels)
    for _ in range(100):
        step = newton_step(levels)
        # The first steps are shorter, so that levels stay in order.
        longest = max(map(abs, step))
        if longest < 1e-14:
            break
        damping = min(1.0, 0.1 / longest)
        levels = [level - damping * change for level, change in zip(levels, step)]
    assert max(map(abs, newton_step(levels))) < 1e-11, "no convergence"
    assert all(a < b for a, b in zip(levels, levels[1:]))
    return levels


def as_f32(number):
    """The fewest digits that read back as the nearest f32."""
    single = struct.unpack("f", struct.pack("f", number))[0]
    texts = (f"{single:.{digits}g}" for digits in range(6, 10))
    return next(text for text in texts if struct.unpack("f", struct.pack("f", float(text)))[0] == single)


print(HEAD)
for bits in range(1, 9):
    print("    &[")
    texts = [as_f32(level) for level in levels_of(bits)]
    for first in range(0, len(texts), 8):
        print("        " + ", ".join(texts[first : first + 8]) + ",")
    print("    ],")
print("];")
