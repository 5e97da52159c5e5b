"""Compares an unmasked sum with the plain sum of the clients' integers: equal in every value, or the exit status is 1.

    same_sum.py SUMS INTEGERS...

All are files of `fedmill secagg`: `unmask --sums` and `mask --integers`. Needs NumPy.
"""

import json
import struct
import sys

import numpy as np


def read(path):
    whole = open(path, "rb").read()
    behind = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:behind])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(whole[behind + at["data_offsets"][0] : behind + at["data_offsets"][1]], "<i8")
        for name, at in header.items()
    }


sums = read(sys.argv[1])
clients = [read(path) for path in sys.argv[2:]]
for name, found in sums.items():
    expected = sum(client[name] for client in clients)
    if not np.array_equal(found, expected):
        place = int(np.argmax(found != expected))
        sys.exit(f"{name}: value {place} is {found[place]}, expected {expected[place]}")
values = sum(len(found) for found in sums.values())
print(f"the sum equals the plain sum of {len(clients)} clients in all {values} values")
