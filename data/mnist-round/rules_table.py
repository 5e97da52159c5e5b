#!/usr/bin/env python3
"""The result of every rule and every step on this round, as a Markdown table.

    python3 rules_table.py FEDMILL [--runs N] [--write PAGE]

FEDMILL is the program, preferably a release build. Every line of the table is a merge
of the 20 updates on the base with --byzantine 4 (the mean takes no such number). Its
columns are the kept clients, the distance of the merged floats to the plain mean of
the 16 honest clients, accuracy.py's accuracy, the time of the whole process, and its
peak memory. Time and memory differ between machines, and so may the last digit of an
accuracy. --write replaces the lines between `<!-- table -->` and `<!-- /table -->` of
PAGE. Without it the script prints the table.

Needs only NumPy.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True  # no folder of it beside the data
import accuracy  # noqa: E402

HERE = Path(__file__).resolve().parent
BASE = HERE / "base.safetensors"
UPDATES = HERE / "updates"
HOSTILE = {"client-16", "client-17", "client-18", "client-19"}
BEGIN, END = "<!-- table -->", "<!-- /table -->"

# Each has steps and a rule. They follow the cases of every rule alone.
MORE_CASES = [
    ([], "centered-clipping:iterations=10"),
    (["nnm"], "trimmed-mean"),
    (["nnm"], "median"),
    (["nnm"], "krum"),
    (["bucketing:s=2"], "median"),
    (["clip:norm=5"], "mean"),
    (["arc"], "mean"),
    (["arc"], "geometric-median"),
    (["outliers"], "mean"),
    (["outliers"], "median"),
]

Measured = namedtuple("Measured", "kept hostile distance accuracy ms mib")


class Failed(Exception):
    """A merge failed, or the page cannot be written."""


class Judge:
    """Compares models with the honest mean, and scores them on the test images."""

    def __init__(self):
        self.images = accuracy.read_idx(HERE / "t10k-images-idx3-ubyte.gz")
        self.labels = accuracy.read_idx(HERE / "t10k-labels-idx1-ubyte.gz")
        paths = sorted(UPDATES.glob("*.safetensors"))
        honest = [accuracy.read_model(path) for path in paths if path.stem not in HOSTILE]
        self.honest_mean = {
            name: sum(model[name].astype(np.float64) for model in honest) / len(honest)
            for name in accuracy.SHAPES
        }

    def distance(self, model):
        """L2 over all floats. The base cancels, so the distance of deltas is that of models."""
        return np.sqrt(sum(((model[name].astype(np.float64) - mean) ** 2).sum()
                           for name, mean in self.honest_mean.items()))

    def judged(self, model, kept, hostile="", ms="", mib=""):
        model = {name: values.astype(np.float32) for name, values in model.items()}
        percent = accuracy.accuracy(model, self.images, self.labels)
        return Measured(kept, hostile, f"{self.distance(model):.3f}", f"{percent:.1f} %", ms, mib)


def rules(fedmill):
    """Every rule with its required settings, from the program's help."""
    run = subprocess.run([fedmill, "aggregate", "--help"], capture_output=True, text=True)
    found = re.search(r"--rule <RULE>\s(.*?)\[default", run.stdout, re.DOTALL)
    usages = re.findall(r"^ +- (\S+): ", found[1], re.MULTILINE) if found else []
    if not usages:
        raise Failed(f"{fedmill}: the help of --rule lists no rules")
    usages = [re.sub(r"\[.*?\]", "", usage) for usage in usages]
    return [usage.replace("=ID", "=client-00") for usage in usages]


def merge(fedmill, steps, rule, folder):
    """One run: the seconds it took, and its report."""
    merged, report = folder / "merged.safetensors", folder / "report.json"
    command = [fedmill, "aggregate", "--quiet", "--rule", rule, "--base", BASE, UPDATES, "-o", merged,
               "--report", report, "--metrics", "none"]
    if steps or rule != "mean":
        command += ["--byzantine", "4"]
    for step in steps:
        command += ["--pre", step]
    started = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if run.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {run.stderr.strip()}")
    return seconds, json.loads(report.read_text())


def who(clients):
    """The number of clients that have a part in the model, and the hostile ones among them."""
    kept = [client for client in clients if client["kept"]]
    hostile = [client for client in kept if client["id"] in HOSTILE]
    if all(client["weight"] is None for client in clients):
        if len(kept) == len(clients):
            return "by coordinate", ""
        return f"{len(kept)}, then by coordinate", named(hostile)
    share = sum(client["weight"] for client in hostile)
    return str(len(kept)), named(hostile) + (f" ({100 * share:.1f} %)" if hostile else "")


def named(clients):
    return " ".join(client["id"].removeprefix("client-") for client in clients) or "none"


def measure(judge, fedmill, steps, rule, runs, folder):
    times, peaks = [], []
    for _ in range(runs):
        seconds, report = merge(fedmill, steps, rule, folder)
        times.append(1000 * seconds)
        peaks.append((report["peak_resident_bytes"] or 0) / 2**20)
    model = accuracy.read_model(folder / "merged.safetensors")
    time_and_memory = (f"{statistics.median(values):.0f}" for values in (times, peaks))
    return judge.judged(model, *who(report["clients"]), *time_and_memory), report


def machine(report):
    """The machine on which times and memory were measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.machine()
    return (f"fedmill {report['tool']['version']} on {report['settings']['threads']} threads of a machine with "
            f"{os.cpu_count()} processors ({name}), {report['backend']['instruction_set']}")


def table(fedmill, runs):
    judge = Judge()
    names = ["`--pre`", "`--rule`", "clients kept", "hostile among them (their weight)", "distance to the honest mean",
             "accuracy", "ms", "MiB"]
    yield row(names)
    yield row("---" for _ in names)
    yield row(["", "the base, nothing merged", *judge.judged(accuracy.read_model(BASE), "0", "none")])
    yield row(["", "the mean of the 16 honest clients, for comparison", *judge.judged(judge.honest_mean, "16", "none")])
    with tempfile.TemporaryDirectory() as folder:
        for steps, rule in [([], rule) for rule in rules(fedmill)] + MORE_CASES:
            found, report = measure(judge, fedmill, steps, rule, runs, Path(folder))
            yield row([" ".join(map(code, steps)), code(rule), *found])
    yield ""
    yield f"Time (median of {runs} runs of the whole process) and memory: {machine(report)}."


def code(text):
    return f"`{text}`"


def row(cells):
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def write(page, lines):
    old = page.read_text(encoding="utf-8").splitlines()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise Failed(f"{page}: expected one line `{BEGIN}` and behind it one line `{END}`")
    new = old[:old.index(BEGIN) + 1] + lines + old[old.index(END):]
    page.write_bytes(("\n".join(new) + "\n").encode("utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fedmill", type=Path, metavar="FEDMILL")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    args = parser.parse_args()
    try:
        lines = list(table(args.fedmill.resolve(), max(args.runs, 1)))
        if args.write:
            write(args.write, lines)
        else:
            print("\n".join(lines))
    except (Failed, accuracy.BadModel, OSError, ValueError) as problem:
        print(f"rules_table.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
