"""Makes src/kernels/discrete_gaussian/table.rs: thresholds of the discrete Gaussian N_Z(0, 64^2).

P(x) is proportional to exp(-x^2 / 8192) over the integers (Canonne, Kamath and Steinke, 2020, definition 1). The script
computes with 120 decimal digits. It stops if 240 digits give another threshold. Needs only Python:

    python3 data/vectors/make_discrete_gaussian.py
"""

from decimal import Decimal, getcontext
from pathlib import Path

SIGMA = 64
LARGEST = 860
BITS = 127
# From here on the weights are below 2^-1400.
FAR = 2800
# For each level of noise the factors of the draws that it adds, and its variance.
LEVELS = [
    ([1, 32, 1024, 32768], 4402345676800),
    ([1, 32, 1024, 32768, 1024, 32768, 1048576, 33554432], 4616198422741913600),
]

HEAD = """//! The magnitudes of N_Z(0, 64^2): `THRESHOLDS[m]` is floor(2^127 P(|X| <= m)).
//!
//! The last is 2^127: it includes the probability beyond 860, less than 2^-134.
//!
//! `data/vectors/make_discrete_gaussian.py` makes the table; the tests beside it compute it anew.

/// Number of magnitudes.
pub(crate) const MAGNITUDES: usize = 861;

#[rustfmt::skip]
pub(crate) static THRESHOLDS: [u128; MAGNITUDES] = [
"""


def weights(digits):
    getcontext().prec = digits
    return [(Decimal(-x * x) / (2 * SIGMA * SIGMA)).exp() for x in range(FAR)]


def cumulative(digits):
    weight = weights(digits)
    total = weight[0] + 2 * sum(weight[1:])
    sums, so_far = [], weight[0]
    for x in range(LARGEST + 1):
        sums.append(so_far / total)
        so_far += 2 * weight[x + 1]
    return sums


def thresholds(digits):
    table = [int(Decimal(2) ** BITS * share) for share in cumulative(digits)]
    return table[:-1] + [2**BITS]


def table_file(table):
    rows = [table[i : i + 2] for i in range(0, len(table), 2)]
    lines = ["    " + " ".join(f"0x{threshold:032x}," for threshold in row) for row in rows]
    return HEAD + "\n".join(lines) + "\n];\n"


def check_variances():
    """Checks that the variances in src/kernels/discrete_gaussian.rs are those of the added draws."""
    weight = weights(120)
    base = 2 * sum(w * x**2 for x, w in enumerate(weight)) / (weight[0] + 2 * sum(weight[1:]))
    assert abs(base - 4096) < Decimal(10) ** -100, base
    for factors, variance in LEVELS:
        assert 4096 * sum(f**2 for f in factors) == variance


def main():
    table = thresholds(120)
    assert table == thresholds(240), "120 digits are too few"
    assert table[0] == 0x00CC42299EA1B284687E59E2805D5C71
    assert table[1] == 0x0264B9B8EC5B2FAEAE38942518B836AB
    assert table[64] == 0x57DDEF8759E03A116D0A277009852EF0
    check_variances()
    root = Path(__file__).parents[2]
    (root / "src/kernels/discrete_gaussian/table.rs").write_text(table_file(table))


main()
