"""Prints every sample of a Prometheus textfile as JSON, by name and labels, as prometheus_client reads it.

Fails on a timestamp, on a family without help or type, and on two samples with equal labels.
"""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

samples = {}
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    families = list(text_string_to_metric_families(file.read()))
for family in families:
    assert family.documentation and family.type in ("gauge", "counter"), family
    for name, labels, value, timestamp, *_ in family.samples:
        assert timestamp is None, f"{name} has a timestamp"
        key = name + " " + json.dumps(labels, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        assert key not in samples, f"{key} is there twice"
        samples[key] = value
json.dump(samples, sys.stdout)
