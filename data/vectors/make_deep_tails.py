"""Makes deep_tails.json: delta of the Gaussian mechanism far in its tail, exact to 50 digits.

With noise z on a sum of sensitivity 1 and T releases, mu = sqrt(T) / z. Then (Balle and Wang 2018, theorem 8)
delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).
"""

import json

import mpmath

POINTS = [
    (1, 1, 5),
    (1, 1, 6),
    (1, 1, 7),
    (2, 1, 3),
    (4, 1, 1.5),
    (2, 9, 10),
    (10, 100, 6.5),
    (1, 1, 8.5),
    (1, 1, 12),
    (4, 1, 5),
    (1, 1, 30),
]


def delta(z, rounds, epsilon):
    mu = mpmath.sqrt(rounds) / z
    epsilon = mpmath.mpf(epsilon)
    return mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)


mpmath.mp.dps = 50
lines = [
    json.dumps(dict(z=z, rounds=rounds, epsilon=epsilon, delta=float(delta(z, rounds, epsilon))))
    for z, rounds, epsilon in POINTS
]
with open("deep_tails.json", "w") as file:
    file.write('{\n"made_with": ' + json.dumps({"mpmath": mpmath.__version__}) + ',\n"gaussian": [\n  ')
    file.write(",\n  ".join(lines) + "\n]\n}\n")
