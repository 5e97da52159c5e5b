#!/usr/bin/env python3
"""Make rules.json, the golden vectors for aggregation rules beside this script.

    python3 make_rules.py [FOLDER]

The vectors of other libraries come from their packages, byzfl and flwr, run in
float64. The vectors of the papers' definitions and of the round metrics come
from NumPy code below. It shares nothing with these libraries or with fedmill.
The script stops if two of the three define the same thing and disagree. It also
stops if a vector depends on a near tie, because another order of additions could
then choose another client.
"""

import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
import random
import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"


def import_byzfl():
    """byzfl's aggregators and pre-aggregators, for NumPy arrays, without PyTorch.

    byzfl imports torch everywhere, but for NumPy arrays it only checks whether
    an object is a `torch.Tensor`. Without torch, a stub answers that. The script
    skips byzfl's `__init__`, because that imports the training benchmark too.
    """
    if importlib.util.find_spec("torch") is None:
        torch, linalg = types.ModuleType("torch"), types.ModuleType("torch.linalg")
        torch.Tensor, torch.linalg = type("Tensor", (), {}), linalg
        sys.modules.update({"torch": torch, "torch.linalg": linalg})
    package = types.ModuleType("byzfl")
    package.__path__ = list(importlib.util.find_spec("byzfl").submodule_search_locations)
    sys.modules["byzfl"] = package
    return (importlib.import_module("byzfl.aggregators.aggregators"),
            importlib.import_module("byzfl.aggregators.preaggregators"))


byzfl, byzfl_pre = import_byzfl()

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict  # noqa: E402
from flwr.server.strategy import aggregate as flower_legacy  # noqa: E402
from flwr.serverapp import strategy as flower  # noqa: E402

logging.getLogger("flwr").setLevel(logging.WARNING)

# ---------------------------------------------------------------------------
# Rounds: what the clients send
# ---------------------------------------------------------------------------

# drift: size of the honest clients' common part; spread: of their differences.
# attackers: kind by client; claims: the example count that a client states.
Plan = namedtuple("Plan", "n d drift spread attackers claims")
PLANS = [
    Plan(3, 5, 0.5, 1.0, {1: "far"}, {}),
    Plan(7, 5, 0.5, 1.0, {3: "flip", 5: "far"}, {2: 9000}),  # one honest client outweighs the rest
    Plan(7, 33, 0.02, 0.01, {2: "far", 6: "edge"}, {2: 50000}),  # distances below byzfl's nu
    Plan(11, 5, 3.0, 0.7, {1: "twin", 4: "twin", 8: "edge"}, {1: 1, 4: 5000}),
    Plan(11, 33, 0.6, 1.0, {}, {}),
    Plan(15, 5, 0.0, 1.0, {2: "twin", 7: "twin", 9: "far", 14: "edge"}, {9: 4000}),
    Plan(15, 33, 0.3, 0.05, {4: "flip", 5: "far", 11: "edge"}, {5: 100000}),  # and here a hostile one
    Plan(20, 5, 0.4, 0.5, {3: "far", 8: "flip", 13: "edge", 19: "edge"}, {8: 6000}),
    Plan(20, 33, 0.2, 1.0, {1: "flip", 6: "far", 12: "twin", 17: "twin"}, {6: 8000, 12: 8000}),
]
# Hostile clients assumed, by number of clients.
BYZANTINE = {3: (0, 1), 7: (0, 1, 2, 3), 11: (1, 2, 5), 15: (3, 5), 20: (2, 4, 5)}
FLOWER_ONLY = {7: (5,)}  # Flower asks nothing of f: no neighbour would be left, so it takes one

Round = namedtuple("Round", "name n d x examples")


def normal(rng):
    """Nearly normal numbers from sums alone, the same on every machine."""
    return sum(rng.random() for _ in range(12)) - 6


def make_round(seed, plan):
    rng = random.Random(seed)
    drift = [plan.drift * normal(rng) for _ in range(plan.d)]
    x = np.array([[m + plan.spread * normal(rng) for m in drift] for _ in range(plan.n)])
    honest = x[[i for i in range(plan.n) if i not in plan.attackers]]
    twin = honest.mean(axis=0) + [30 * plan.spread * normal(rng) for _ in range(plan.d)]
    for i, kind in plan.attackers.items():
        x[i] = {
            "far": [100 * normal(rng) for _ in range(plan.d)],
            "flip": -10 * honest.mean(axis=0),
            "twin": twin,
            "edge": honest.mean(axis=0) + 1.5 * honest.std(axis=0) * (1 + 0.01 * i),
        }[kind]
    examples = [plan.claims.get(i, rng.randrange(20, 1500)) for i in range(plan.n)]
    x = x.astype(np.float32).astype(np.float64)
    return Round(f"n{plan.n:02}-d{plan.d:02}", plan.n, plan.d, x, examples)


# ---------------------------------------------------------------------------
# Cases
# ---------------------------------------------------------------------------

# by: the author of the result; merge: a function of rows and examples;
# tolerance: if not the usual one; the others are fedmill's options.
Case = namedtuple("Case", "by compat byzantine rule pre weights merge tolerance")


def case(by, merge, rule, *, compat=None, f=None, pre=(), weights="uniform", tolerance=None):
    return Case(by, compat, f, rule, list(pre), weights, merge, tolerance)


# ---------------------------------------------------------------------------
# byzfl
# ---------------------------------------------------------------------------


def chain(*steps):
    """Steps one after the other, on a copy, because byzfl's steps clip in place."""
    def merge(x, _examples):
        x = x.copy()
        for step in steps:
            x = step(x)
        return x
    return merge


def byzfl_case(by, steps, rule, **asked):
    return case(f"byzfl {by}", chain(*steps), rule, compat="byzfl", **asked)


def byzfl_cases(r):
    yield byzfl_case("Median()", [byzfl.Median()], "median")
    yield byzfl_case("GeometricMedian()", [byzfl.GeometricMedian()], "geometric-median")
    # A CenteredClipping object continues from its last call, so each case gets a new one.
    yield byzfl_case("CenteredClipping()", [lambda x: byzfl.CenteredClipping()(x)], "centered-clipping")
    yield byzfl_case("CenteredClipping(L=3, tau=1.0)", [lambda x: byzfl.CenteredClipping(L=3, tau=1.0)(x)],
                     "centered-clipping:tau=1,iterations=3")
    yield byzfl_case("Clipping(c=2.0), Average()", [byzfl_pre.Clipping(c=2.0), byzfl.Average()],
                     "mean", pre=["clip:norm=2"])
    for f in BYZANTINE[r.n]:
        yield from byzfl_robust_cases(f)


def byzfl_robust_cases(f):
    for name, rule in [("Krum", "krum"), ("MultiKrum", "multi-krum"), ("MDA", "mda"), ("Meamed", "meamed"),
                       ("TrMean", "trimmed-mean")]:
        yield byzfl_case(f"{name}(f={f})", [getattr(byzfl, name)(f=f)], rule, f=f)
    yield byzfl_case(f"MoNNA(f={f}, idx=0)", [byzfl.MoNNA(f=f, idx=0)], "monna:trusted=client-00", f=f)
    nnm, arc, clip = byzfl_pre.NNM(f=f), byzfl_pre.ARC(f=f), byzfl_pre.Clipping(c=2.0)
    trmean, meamed = byzfl.TrMean(f=f), byzfl.Meamed(f=f)
    yield byzfl_case(f"NNM(f={f}), TrMean(f={f})", [nnm, trmean], "trimmed-mean", f=f, pre=["nnm"])
    yield byzfl_case(f"NNM(f={f}), Meamed(f={f})", [nnm, meamed], "meamed", f=f, pre=["nnm"])
    yield byzfl_case(f"ARC(f={f}), Average()", [arc, byzfl.Average()], "mean", f=f, pre=["arc"])
    yield byzfl_case(f"ARC(f={f}), Median()", [arc, byzfl.Median()], "median", f=f, pre=["arc"])
    yield byzfl_case(f"Clipping(c=2.0), NNM(f={f}), TrMean(f={f})", [clip, nnm, trmean],
                     "trimmed-mean", f=f, pre=["clip:norm=2", "nnm"])


# ---------------------------------------------------------------------------
# Flower
# ---------------------------------------------------------------------------


def split(row):
    """A client's model of two arrays, in Flower's form."""
    third = len(row) // 3
    return [row[:third], row[third:].reshape(2, -1)]


def joined(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


class Reply:
    """The parts of a client's message that Flower's strategies read."""

    def __init__(self, row, examples):
        arrays = ArrayRecord({name: Array(a.copy()) for name, a in zip("ab", split(row))})
        self.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": examples})})

    def has_error(self):
        return False


def current(strategy, **settings):
    """A strategy of `flwr.serverapp`, through the method that a server calls."""
    def merge(x, examples):
        replies = [Reply(row, e) for row, e in zip(x, examples)]
        arrays, _ = strategy(**settings).aggregate_train(1, replies)
        return joined(arrays.to_numpy_ndarrays())
    return merge


def legacy(function, **settings):
    """A function of `flwr.server.strategy.aggregate`."""
    def merge(x, examples):
        return joined(function([(split(row), e) for row, e in zip(x, examples)], **settings))
    return merge


def both(first, second):
    """Two implementations of one rule."""
    def merge(x, examples):
        return agreed(first(x, examples), second(x, examples))
    return merge


def evenly(merge):
    """Every client with one example."""
    return lambda x, _examples: merge(x, [1] * len(x))


def agreed(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())
    return a


def flower_cases(r):
    median = both(legacy(flower_legacy.aggregate_median), current(flower.FedMedian))
    yield case("flwr aggregate_median; FedMedian", median, "median", compat="flower")
    trimmed = both(legacy(flower_legacy.aggregate_trimmed_avg, proportiontocut=0.2),
                   current(flower.FedTrimmedAvg, beta=0.2))
    yield case("flwr aggregate_trimmed_avg(0.2); FedTrimmedAvg(beta=0.2)", trimmed,
               "trimmed-mean:cut=0.2", compat="flower")
    for f in BYZANTINE[r.n] + FLOWER_ONLY.get(r.n, ()):
        krum = both(legacy(flower_legacy.aggregate_krum, num_malicious=f, to_keep=0),
                    current(flower.Krum, num_malicious_nodes=f))
        yield case(f"flwr aggregate_krum({f}, to_keep=0); Krum", krum, "krum", compat="flower", f=f)
        yield from flower_multi_krum_cases(r, f)
        if r.n >= 4 * f + 3:
            yield case(f"flwr Bulyan(num_malicious_nodes={f})", current(flower.Bulyan, num_malicious_nodes=f),
                       "bulyan", compat="flower", f=f)


def flower_multi_krum_cases(r, f):
    for m in sorted({2, r.n - f} - {1}):
        merge = both(legacy(flower_legacy.aggregate_krum, num_malicious=f, to_keep=m),
                     current(flower.MultiKrum, num_malicious_nodes=f, num_nodes_to_select=m))
        by = f"flwr aggregate_krum({f}, to_keep={m}); MultiKrum(num_nodes_to_select={m})"
        yield case(by, merge, f"multi-krum:m={m}", compat="flower", f=f, weights="examples")


# ---------------------------------------------------------------------------
# The papers' definitions, in NumPy alone: x is one row a client
# ---------------------------------------------------------------------------


def krum_scores(x, neighbours):
    """For each row the sum of its least squared distances to other rows (Blanchard et al., 2017)."""
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)  # no row is its own neighbour
    return np.sort(squared, axis=1)[:, :neighbours].sum(axis=1)


def krum(x, f):
    return x[np.argmin(krum_scores(x, len(x) - f - 2))]


def multi_krum(x, f):
    m = len(x) - f - 2
    return x[np.argsort(krum_scores(x, m), kind="stable")[:m]].mean(axis=0)


def bulyan(x, f):
    """Krum again and again on the remaining clients, then by coordinate (El Mhamdi et al., 2018)."""
    left, chosen = list(range(len(x))), []
    while len(chosen) < len(x) - 2 * f:
        neighbours = min(max(len(left) - f - 2, 1), len(left) - 1)
        chosen.append(left.pop(np.argmin(krum_scores(x[left], neighbours))))
    picked = x[chosen]
    off = np.abs(picked - np.median(picked, axis=0))
    nearest = np.argsort(off, axis=0, kind="stable")[:len(x) - 4 * f]
    return np.take_along_axis(picked, nearest, axis=0).mean(axis=0)


def geometric_median(x, weights):
    """The minimum of sum_i weights[i] * |z - x_i|, to rounding: it is a row, or Newton's method finds it."""
    w = np.asarray(weights, float) / np.sum(weights)
    for i, row in enumerate(x):
        away = x - row
        norms = np.linalg.norm(away, axis=1)
        same = norms == 0
        pull = (w[~same, None] * away[~same] / norms[~same, None]).sum(axis=0)
        if np.linalg.norm(pull) <= w[same].sum():
            return x[i]
    z = np.median(x, axis=0)
    for _ in range(500):  # Weiszfeld's steps, until Newton's are safe
        inverse = w / np.linalg.norm(x - z, axis=1)
        z = inverse @ x / inverse.sum()
    return newton(x, w, z)


def newton(x, w, z):
    for _ in range(50):
        norms = np.linalg.norm(z - x, axis=1)
        unit = (z - x) / norms[:, None]
        gradient = w @ unit
        hessian = (w / norms).sum() * np.eye(len(z)) - (unit.T * (w / norms)) @ unit
        z = z - np.linalg.solve(hessian, gradient)
    assert np.linalg.norm(gradient) < 1e-12
    return z


def caf(x, f):
    """Allouah et al., 2025, with the exact top eigenvector instead of a random power iteration.

    The largest tau is that among clients with weight left. byzfl takes it among
    all clients. Then a far client without weight keeps the others from losing
    theirs, and such rounds take thousands of steps, or never end.
    """
    c, best, least = np.ones(len(x)), None, np.inf
    while c.sum() > len(x) - 2 * f:
        mean = c @ x / c.sum()
        off = x - mean
        values, vectors = np.linalg.eigh((off.T * c) @ off / c.sum())
        if values[-1] < least:
            best, least = mean, values[-1]
        tau = (off @ vectors[:, -1]) ** 2
        c = c * (1 - tau / tau[c > 0].max())
        c[c < 1e-9] = 0  # equal clients lose it together, whatever the rounding
    return best


def smea(x, f):
    """Allouah et al., 2023: the mean of the n-f rows whose covariance has the least top eigenvalue."""
    def spread(rows):
        off = x[list(rows)] - x[list(rows)].mean(axis=0)
        short = off.T @ off if x.shape[1] < len(rows) else off @ off.T
        return np.linalg.eigvalsh(short)[-1]
    rows = min(itertools.combinations(range(len(x)), len(x) - f), key=spread)
    return x[list(rows)].mean(axis=0)


def paper_cases(r):
    """Flower's older functions are the papers' own krum, multi-krum and bulyan, so they check these."""
    # If the median is a row, a median with smoothed distances differs by that much.
    for weights, merge in (("uniform", lambda x, e: geometric_median(x, [1] * len(x))),
                           ("examples", geometric_median)):
        yield case("geometric median", merge, "geometric-median", weights=weights, tolerance=1e-5)
    for f in BYZANTINE[r.n]:
        if r.n >= 2 * f + 3:
            one = legacy(flower_legacy.aggregate_krum, num_malicious=f, to_keep=0)
            yield case("krum", both(lambda x, e, f=f: krum(x, f), one), "krum", f=f)
            many = evenly(legacy(flower_legacy.aggregate_krum, num_malicious=f, to_keep=r.n - f - 2))
            yield case("multi-krum", both(lambda x, e, f=f: multi_krum(x, f), many), "multi-krum", f=f)
        if r.n >= 4 * f + 3:
            iterated = legacy(flower_legacy.aggregate_bulyan, num_malicious=f,
                              aggregation_rule=flower_legacy.aggregate_krum, to_keep=0)
            yield case("bulyan", both(lambda x, e, f=f: bulyan(x, f), iterated), "bulyan", f=f)
        if f > 0:
            yield case("caf", lambda x, e, f=f: caf(x, f), "caf", f=f)
            yield case("smea", lambda x, e, f=f: smea(x, f), "smea", f=f)


# ---------------------------------------------------------------------------
# Round metrics, in NumPy alone
# ---------------------------------------------------------------------------


def metrics(x, weights):
    n, gram = len(x), x @ x.T
    w = np.asarray(weights, float) / np.sum(weights)
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(norms, norms)
    own, mutual = np.trace(gram) / n, gram.sum() / n ** 2
    noise, signal = n * (own - mutual) / (n - 1), (n * mutual - own) / (n - 1)
    shares = np.linalg.eigvalsh(cosines)
    shares = shares[shares > 0] / shares.sum()
    return {
        "coherence": (cosines.sum() - n) / (n * (n - 1)),
        "alignment": np.sqrt(w @ gram @ w) / (w @ norms),
        "signal_fraction": np.clip(signal / (signal + noise / n), 0, 1),
        "noise_scale": noise / signal,  # below zero where noise drowns the signal
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
        "sign_agreement": (np.abs(np.sign(x).sum(axis=0)) / n).mean(),
        "influence": [influence(x, w, i) for i in range(n)],
    }


def influence(x, w, i):
    """The change of the weighted mean without client i: its distance, and 1 - cos of the angle."""
    mean = w @ x
    without = (mean - w[i] * x[i]) / (1 - w[i])
    cosine = mean @ without / (np.linalg.norm(mean) * np.linalg.norm(without))
    return {"distance": np.linalg.norm(mean - without), "angle": 1 - cosine}


# ---------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------


def check_stable(r, what, compute):
    """Check that relative changes of 1e-9 in the inputs change the result by little."""
    rng = np.random.default_rng(0)
    noise = 1 + 1e-9 * rng.standard_normal(r.x.shape)
    for twin in range(1, r.n):  # equal clients stay equal: that tie does not depend on rounding
        for first in range(twin):
            if (r.x[first] == r.x[twin]).all():
                noise[twin] = noise[first]
    plain, moved = compute(r.x), compute(r.x * noise)
    scale = max(np.abs(plain).max(), np.median(np.abs(r.x)))
    assert np.abs(plain - moved).max() <= 1e-7 * scale, f"{r.name}: {what} depends on a near tie"


def mda_ties(x, f):
    """The number of sets of n-f clients with the least diameter."""
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    sets = itertools.combinations(range(len(x)), len(x) - f)
    diameters = [distances[np.ix_(s, s)].max() for s in map(list, sets)]
    return diameters.count(min(diameters))


def check_ties(rounds):
    """Check that at least one vector has tied sets, of which MDA takes the first."""
    tied = [f"{r.name} f={f}" for r in rounds if r.n <= 11 for f in BYZANTINE[r.n] if mda_ties(r.x, f) > 1]
    assert tied
    print("several sets of least diameter:", ", ".join(tied))


# ---------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------


def plain(value):
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [plain(inner) for inner in value]
    return float(value) if isinstance(value, np.floating) else value


def merges(rounds):
    for r in rounds:
        for c in itertools.chain(byzfl_cases(r), flower_cases(r), paper_cases(r)):
            check_stable(r, c.by, lambda x: c.merge(x, r.examples))
            merged = c.merge(r.x.copy(), r.examples)
            assert np.isfinite(merged).all() and merged.shape == (r.d,)
            asked = c._asdict()
            del asked["merge"]
            if c.tolerance is None:
                del asked["tolerance"]
            yield {"round": r.name} | asked | {"merged": merged}


def mixes(rounds):
    """The rows that nearest-neighbour mixing makes, for rounds small enough to keep them."""
    for r in rounds:
        for f in BYZANTINE[r.n] if r.n <= 11 else ():
            def mix(x):
                return byzfl_pre.NNM(f=f)(x)
            check_stable(r, "NNM", mix)
            yield {"round": r.name, "by": f"byzfl NNM(f={f})", "byzantine": f, "rows": mix(r.x)}


def measures(rounds):
    for r in rounds:
        for weights, values in (("uniform", [1] * r.n), ("examples", r.examples)):
            yield {"round": r.name, "weights": weights} | metrics(r.x, values)


def lines(items):
    return ",\n".join(json.dumps(plain(item), separators=(",", ":"), allow_nan=False) for item in items)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    rounds = [make_round(seed, plan) for seed, plan in enumerate(PLANS)]
    check_ties(rounds)
    versions = {name: importlib.metadata.version(name) for name in ("byzfl", "flwr", "numpy", "scipy")}
    sections = {
        "rounds": [{"name": r.name, "examples": r.examples, "updates": r.x} for r in rounds],
        "merges": list(merges(rounds)),
        "mixes": list(mixes(rounds)),
        "metrics": list(measures(rounds)),
    }
    parts = [f'"made_with":{json.dumps(versions)}']
    parts += [f'"{name}":[\n{lines(items)}\n]' for name, items in sections.items()]
    path = folder / "rules.json"
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="ascii", newline="\n")
    print(f"{path.name}:", ", ".join(f"{len(items)} {name}" for name, items in sections.items()))


if __name__ == "__main__":
    main()
