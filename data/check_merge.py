#!/usr/bin/env python3
"""Check a merged model against NumPy and the public `safetensors` library.

    python3 check_merge.py RULE MERGED UPDATES_DIR [--base BASE] [--cut K]

RULE is mean (weighted by num_examples), median or trimmed-mean (unweighted,
without the K smallest and K largest values of every coordinate). The script
computes the rule again in float64, rounds the result to the dtype of the base
(without --base, of the first update) and compares. Names, shapes and dtypes
must be the same, floats within 1 ulp, integers equal. The exit status is 1 on
any difference.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

# Both sides round from float64, but their float64 values may differ in the last
# bits. For float64 tensors only the order of the sum may differ, so updates are
# added in the order of their client_id.
MAX_ULP = 1


class Mismatch(Exception):
    """The merged file differs from the rule's result, or the inputs are unusable."""


def load(path):
    """Tensors and metadata, read in both ways of the library."""
    try:
        tensors = load_file(path)
        with safe_open(path, framework="np") as file:
            names, metadata = set(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: not a NumPy dtype
        raise Mismatch(f"{path}: {error}") from error
    if names != set(tensors):
        raise Mismatch(f"{path}: safe_open and load_file see different tensors")
    return tensors, metadata


def load_updates(folder):
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise Mismatch(f"{folder}: holds no .safetensors file")
    updates = [load(path) for path in paths]
    for path, (_, metadata) in zip(paths, updates):
        for key in ("client_id", "num_examples"):
            if key not in metadata:
                raise Mismatch(f"{path}: metadata lacks {key}")
    return sorted(updates, key=lambda update: update[1]["client_id"])


def add_up(rows):
    """Plain sum in the given order; NumPy's own sums may pair or reorder."""
    total = np.zeros_like(rows[0])
    for row in rows:
        total = total + row
    return total


def weighted_mean(stack, weights):
    return add_up([weight * row for weight, row in zip(weights, stack)]) / weights.sum()


def trimmed_mean(stack, cut):
    kept = np.sort(stack, axis=0)[cut:len(stack) - cut]
    return add_up(kept) / len(kept)


def merge(rule, stack, weights, cut):
    """One tensor; `stack` is float64 with the clients along its first axis."""
    if rule == "mean":
        return weighted_mean(stack, weights)
    if rule == "median":
        return np.median(stack, axis=0)
    return trimmed_mean(stack, cut)


def cast(values, dtype):
    if dtype.kind in "iu":
        values = np.rint(values)
    with np.errstate(over="ignore"):  # overflow to infinity is the right result
        return np.asarray(values).astype(dtype)


def expected_tensors(rule, updates, base, cut):
    weights = np.array([float(metadata["num_examples"]) for _, metadata in updates])
    expected = {}
    for name, like in base.items():
        for tensors, metadata in updates:
            if name not in tensors or tensors[name].shape != like.shape:
                raise Mismatch(f"update of {metadata['client_id']}: {name} is missing "
                               "or has another shape")
        stack = np.stack([tensors[name].astype(np.float64) for tensors, _ in updates])
        expected[name] = cast(merge(rule, stack, weights, cut), like.dtype)
    return expected


def ordered_bits(array):
    """Integers in the order of the floats, adjacent floats 1 apart, -0 = +0 = 0."""
    bits = array.view(f"i{array.itemsize}").astype(object)  # Python ints: no overflow
    sign = 1 << (8 * array.itemsize - 1)
    return np.where(bits < 0, -(bits + sign), bits)


def distances(found, want):
    """Per value: ulps for floats, plain difference for integers."""
    if found.dtype.kind in "iu":
        return np.abs(found.astype(object) - want.astype(object))
    if found.dtype.kind != "f":
        raise Mismatch(f"dtype {found.dtype} is not supported")
    apart = np.abs(ordered_bits(found) - ordered_bits(want))
    found_nan, want_nan = np.isnan(found), np.isnan(want)
    apart[found_nan & want_nan] = 0  # any NaN is as good as another
    apart[found_nan ^ want_nan] = 1 << 64
    return apart


def compare_tensor(name, found, want):
    """The worst distance in ulps; raises if a value is too far off."""
    for what in ("dtype", "shape"):
        if getattr(found, what) != getattr(want, what):
            raise Mismatch(f"{name}: {what} is {getattr(found, what)}, "
                           f"expected {getattr(want, what)}")
    if found.size == 0:
        return 0
    found, want = np.atleast_1d(found), np.atleast_1d(want)
    apart = distances(found, want)
    allowed = MAX_ULP if found.dtype.kind == "f" else 0
    bad = np.argwhere(apart > allowed)
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise Mismatch(f"{name}{list(index)}: found {found[index]!r}, expected {want[index]!r} "
                       f"({len(bad)} of {found.size} values of this tensor differ)")
    return int(apart.max())


def compare(found, want):
    missing, extra = sorted(set(want) - set(found)), sorted(set(found) - set(want))
    if missing or extra:
        raise Mismatch(f"tensor names differ: missing {missing}, unexpected {extra}")
    return max((compare_tensor(name, found[name], want[name]) for name in sorted(want)), default=0)


def check(args):
    updates = load_updates(args.updates)
    if args.rule == "trimmed-mean" and not 0 <= 2 * args.cut < len(updates):
        raise Mismatch(f"--cut {args.cut} leaves nothing of {len(updates)} updates")
    base = load(args.base)[0] if args.base else updates[0][0]
    merged, _ = load(args.merged)
    worst = compare(merged, expected_tensors(args.rule, updates, base, args.cut))
    values = sum(tensor.size for tensor in merged.values())
    print(f"ok: {len(merged)} tensors, {values} values, worst difference {worst} ulp")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rule", metavar="RULE", choices=["mean", "median", "trimmed-mean"])
    parser.add_argument("merged", metavar="MERGED")
    parser.add_argument("updates", metavar="UPDATES_DIR")
    parser.add_argument("--base")
    parser.add_argument("--cut", type=int, metavar="K", help="needed by trimmed-mean")
    args = parser.parse_args()
    if (args.rule == "trimmed-mean") != (args.cut is not None):
        parser.error("--cut goes with trimmed-mean, and only with it")
    try:
        check(args)
    except Mismatch as problem:
        print(f"FAIL: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
