"""Writes flower_steps.json: three rounds of Flower's FedAdam, FedYogi and FedAdagrad with their defaults.

`flower` is the message API, `flwr.serverapp.strategy`; `flower-legacy` is the first API, `flwr.server.strategy`.

    pip install flwr==1.42.0
    python make_flower_steps.py > flower_steps.json
"""
import json

import numpy as np
import flwr
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays, FitRes, Status, Code
from flwr.server import strategy as legacy
from flwr.serverapp import strategy as message
from flwr.app import ArrayRecord
from flwr.app import Array
import flwr.serverapp.strategy.fedavg as fedavg

BASE = np.array([1.0, -2.0, 0.5, 0.0])
MEANS = [np.array([1.25, -2.5, 0.5, 1e-4]), np.array([1.0, -3.0, 0.75, 2e-4]), np.array([2.0, -2.75, -1.0, 0.0])]

def first_api(name):
    made = getattr(legacy, name)(initial_parameters=ndarrays_to_parameters([BASE]))
    for number, mean in enumerate(MEANS, 1):
        result = FitRes(Status(Code.OK, ''), ndarrays_to_parameters([mean]), 1, {})
        merged, _ = made.aggregate_fit(number, [(None, result)], [])
        merged = parameters_to_ndarrays(merged)[0]
    return merged

def message_api(name):
    made = getattr(message, name)()
    now = BASE
    for number, mean in enumerate(MEANS, 1):
        made.current_arrays = {'w': now}
        fedavg.FedAvg.aggregate_train = lambda self, n, replies, mean=mean: (ArrayRecord({'w': Array(mean)}), None)
        merged, _ = made.aggregate_train(number, [])
        now = merged['w'].numpy()
    return now


def steps():
    for name in ["FedAdam", "FedYogi", "FedAdagrad"]:
        for api, run in [("flower", message_api), ("flower-legacy", first_api)]:
            yield {"strategy": name.lower(), "compat": api, "model": run(name).tolist()}


cases = {"flwr": flwr.__version__, "base": BASE.tolist(), "means": [x.tolist() for x in MEANS], "steps": list(steps())}
print(json.dumps(cases, indent=1))
