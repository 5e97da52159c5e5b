"""Makes privacy.json: the cost of plans, by dp_accounting.

The library's loss distributions are on a grid of fixed step, and slightly too large. The script halves the step until
epsilon changes by less than FINE. The library's Renyi divergences are exact to rounding at integer orders. At fractional
orders it leaves out signs of a series, and is too large by up to some percent. There the script integrates by mpmath.
"""

import json
import math
import random
from importlib.metadata import version

import dp_accounting
import mpmath
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

INTEGERS = list(range(2, 257)) + [320, 384, 512, 768, 1024]
PLANS = 60
FINE = 1e-4
SEED = 7


def event(z, q, rounds):
    once = dp_accounting.GaussianDpEvent(z)
    sampled = dp_accounting.PoissonSampledDpEvent(q, once) if q < 1 else once
    return dp_accounting.SelfComposedDpEvent(sampled, rounds)


def rdp(events, delta, orders, **more):
    accountant = RdpAccountant(orders, **more)
    for each in events:
        accountant.compose(each)
    epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
    return float(epsilon), float(order)


def pld_on(events, delta, step):
    accountant = PLDAccountant(value_discretization_interval=step)
    for each in events:
        accountant.compose(each)
    return float(accountant.get_epsilon(delta))


def pld(events, rounds, delta, guess, order):
    """Epsilon, and its change at the last halving of the step."""
    step = math.sqrt(12 * 1e-4 * guess / (rounds * order))
    before = pld_on(events, delta, 2 * step)
    for _ in range(6):
        after = pld_on(events, delta, step)
        if abs(before - after) <= FINE * after:
            return after, before - after
        before, step = after, step / 2
    return None


def log_uniform(low, high):
    return math.exp(random.uniform(math.log(low), math.log(high)))


def plans():
    random.seed(SEED)
    found = []
    while len(found) < PLANS:
        z = float(f"{log_uniform(0.3, 20):.3g}")
        q = float(f"{min(1.0, log_uniform(1e-4, 1.5)):.3g}")
        rounds = int(float(f"{log_uniform(1, 20000):.3g}"))
        delta = float(f"{log_uniform(1e-10, 1e-3):.2g}")
        events = [event(z, q, rounds)]
        guess, order = rdp(events, delta, None)
        if not 1e-3 < guess < 300:
            continue
        integer, integer_order = rdp(events, delta, INTEGERS)
        if q < 1:
            tight = pld(events, rounds, delta, guess, order)
        else:
            tight = exact(z / math.sqrt(rounds), delta), 0.0
        if tight is None or tight[0] < 1e-4:
            continue
        plan = dict(z=z, q=q, rounds=rounds, delta=delta)
        found.append(plan | dict(rdp=integer, order=integer_order, pld=tight[0], change=tight[1]))
        print(found[-1], flush=True)
    return found


def exact(z, delta):
    """Epsilon of one Gaussian (Balle & Wang 2018)."""
    mpmath.mp.dps = 40
    above = lambda e: mpmath.ncdf(0.5 / z - e * z) - mpmath.exp(e) * mpmath.ncdf(-0.5 / z - e * z) - delta
    low, high = mpmath.mpf(0), mpmath.mpf(1)
    while above(high) > 0:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 0 else (low, middle)
    return float(high)


def mixed():
    """Plans of several parts, each Poisson sampled."""
    for parts in [[(1.0, 0.01, 10), (3.0, 0.1, 400)], [(0.8, 0.001, 2000), (2.0, 1.0, 3), (5.0, 0.5, 100)]]:
        events = [event(*part) for part in parts]
        rounds = sum(part[2] for part in parts)
        guess, order = rdp(events, 1e-6, None)
        integer, integer_order = rdp(events, 1e-6, INTEGERS)
        tight = pld(events, rounds, 1e-6, guess, order)
        named = [dict(z=z, q=q, rounds=rounds) for z, q, rounds in parts]
        yield dict(parts=named, delta=1e-6, rdp=integer, order=integer_order, pld=tight[0], change=tight[1])


def tree(event):
    """An event as `privacy compose --events` reads it."""
    if hasattr(event, "_asdict"):
        return {key: tree(value) for key, value in event._asdict().items()}
    return [tree(each) for each in event] if isinstance(event, list) else event


def sampled_compositions():
    """Events that sample clients once for several Gaussians, which equal one. The library's loss distributions take
    that one only."""
    cases = [(0.01, [(2.0, 1), (3.0, 4)], 500), (0.1, [(4.0, 1), (6.0, 2), (10.0, 25)], 30), (0.5, [(8.0, 2)], 10)]
    for q, parts, rounds in cases:
        gaussians = [dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), n) for z, n in parts]
        sampled = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.ComposedDpEvent(gaussians))
        whole = dp_accounting.SelfComposedDpEvent(sampled, rounds)
        guess, order = rdp([whole], 1e-6, None)
        integer, integer_order = rdp([whole], 1e-6, INTEGERS)
        one = sum(n / z**2 for z, n in parts) ** -0.5
        tight = pld([event(one, q, rounds)], rounds, 1e-6, guess, order)
        row = dict(event=tree(whole.to_named_tuple()), delta=1e-6)
        yield row | dict(rdp=integer, order=integer_order, pld=tight[0], change=tight[1])


def divergence(z, q, order):
    """ln E[(1 - q + q r)^a] / (a - 1), for x of N(0, z^2) and r the ratio of noise about 1 and about 0."""
    mpmath.mp.dps = 40
    z, q, order = mpmath.mpf(z), mpmath.mpf(q), mpmath.mpf(order)
    ratio = lambda x: (1 - q) + q * mpmath.exp((2 * x - 1) / (2 * z * z))
    ends = [-16 * z, -8 * z, -4 * z, 0, 4 * z, 8 * z, order - 8 * z, order - 4 * z, order, order + 4 * z, order + 16 * z]
    crossing = z * z * mpmath.log(1 / q - 1) + 0.5
    ends = sorted(set(ends + ([crossing] if ends[0] < crossing < ends[-1] else [])))
    whole = mpmath.quad(lambda x: mpmath.npdf(x, 0, z) * ratio(x) ** order, ends, maxdegree=10)
    return float(mpmath.log(whole) / (order - 1))


def divergences():
    cases = [(2.5, 0.01), (0.7, 0.01), (1.0, 0.1), (0.3, 1e-4), (0.1, 1e-5), (0.05, 0.3), (20.0, 0.5), (10.0, 1e-4)]
    for z, q in cases:
        for order in [1.05, 1.5, 2.5, 4.4, 9.9]:
            yield dict(z=z, q=q, order=order, divergence=divergence(repr(z), repr(q), repr(order)))


def without_replacement():
    """The library's noise multiplier is relative to the sensitivity: twice the clip bound if one client is replaced."""
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    for z, size, sample, rounds in [(2.0, 1000, 10, 100), (1.0, 10000, 100, 500), (4.0, 100, 25, 50), (8.0, 50, 25, 10)]:
        once = dp_accounting.GaussianDpEvent(z / 2)
        sampled = dp_accounting.SampledWithoutReplacementDpEvent(size, sample, once)
        events = [dp_accounting.SelfComposedDpEvent(sampled, rounds)]
        epsilon, order = rdp(events, 1e-5, list(range(2, 65)), neighboring_relation=relation)
        yield dict(z=z, size=size, sample=sample, rounds=rounds, delta=1e-5, rdp=epsilon, order=order)


def main():
    packages = {name: version(name) for name in ["dp-accounting", "mpmath", "numpy", "scipy"]}
    made = dict(
        made_with=packages,
        divergences=list(divergences()),
        without_replacement=list(without_replacement()),
        mixed=list(mixed()),
        sampled_compositions=list(sampled_compositions()),
        plans=plans(),
    )
    lines = []
    for key, value in made.items():
        rows = [json.dumps(row) for row in value] if isinstance(value, list) else None
        text = "[\n  " + ",\n  ".join(rows) + "\n]" if rows else json.dumps(value)
        lines.append(f"{json.dumps(key)}: {text}")
    with open("privacy.json", "w") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
