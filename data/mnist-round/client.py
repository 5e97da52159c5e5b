#!/usr/bin/env python3
"""Clients of a federation: read their tasks, fetch the model, train, deliver.

    client.py FEDERATION HOMES CLIENT... [--drop PLACE] [--again] [--step STEP] [--nan CLIENT] [--fedmill PROGRAM]
              [--keys DIR]

FEDERATION is the state directory, or what rsync reaches it by (host:/srv/federation). HOMES has a folder for each
client, with the model that the client holds. A client without a task, or whose update is delivered, does nothing. With
--drop the update goes into the folder PLACE, named after its round, in place of the inbox. With --again a client delivers
although it did before: for the round that is open after the server was restored from a backup.

A client prints a line for each update: what it trained, how it sent it, and where it put the update. If the task names
codecs, it sends the update by the first of them. If it names a session of secure aggregation, the client masks the
update: DIR has the secret key of each client, named by its id, and the public keys `server.pub` and `helpers/*.pub`. A task that keeps layers with the client ends it with a message.

Needs NumPy, safetensors and blake3 from PyPI; for patches and codecs the program `fedmill`. Only `train` knows that the
clients are those of this folder: it moves the model by STEP of the way to what the client trained once. Replace it by a
training.
With --nan a client is hostile: its update has a NaN.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

UPDATES = Path(__file__).resolve().parent / "updates"


class Federation:
    """The files of a federation: in a folder that client and server share, or behind rsync."""

    def __init__(self, place, drop):
        self.place, self.drop, self.is_remote = place, drop, ":" in place

    def fetch(self, path, to):
        """Whether there is such a file. It then lies at `to`."""
        source = f"{self.place}/{path}"
        if not self.is_remote:
            try:
                shutil.copyfile(source, to)
            except FileNotFoundError:
                return False
            return True
        # 23 is rsync's status for a file that is not there.
        status = subprocess.run(["rsync", "--quiet", source, str(to)], stderr=subprocess.DEVNULL).returncode
        if status not in (0, 23):
            sys.exit(f"client.py: {source}: rsync ended with status {status}")
        return status == 0

    def deliver(self, file, task):
        """Delivers an update and returns where. It appears whole: it has a name that fedmill skips until all of it is written."""
        target = f"{self.drop}/{task['round']:06}.safetensors" if self.drop else f"{self.place}/{task.get('secure', task)['put']}"
        if ":" in target:
            # rsync itself writes `.NAME.XXXXXX` and renames it. safetensors writes files that their owner alone may read.
            subprocess.run(["rsync", "--quiet", "--chmod=F644", str(file), target], check=True)
            return target
        folder, name = os.path.split(target)
        shutil.copyfile(file, f"{folder}/.{name}")
        os.rename(f"{folder}/.{name}", target)
        return target


def model_of(federation, source, home, fedmill):
    """The path of the model of a task, which the client then holds. `source` is the part `model` of the task."""
    held, new = home / "model.safetensors", home / "new.safetensors"
    if held.exists() and digest(held) == source["blake3"]:
        return held
    patch = source["patch"]
    if patch and held.exists() and digest(held) == patch["onto"]:
        federation.fetch(patch["path"], home / "patch.safetensors")
        command = [fedmill, "decompress", "--quiet", home / "patch.safetensors", "--base", held, "-o", new]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        federation.fetch(source["path"], new)
    if digest(new) != source["blake3"]:
        sys.exit(f"client.py: {new}: found blake3 {digest(new)}, expected {source['blake3']}")
    os.rename(new, held)
    return held


# The keys of a task that this program reads.
KEYS = ["client", "codecs", "metadata", "model", "personal", "round"]


def check(client, task):
    """Ends the program if a task lacks what it needs, or asks for what it cannot do."""
    needed = KEYS if "secure" in task else [*KEYS, "put"]
    missing = [key for key in needed if key not in task]
    if missing:
        sys.exit(f"client.py: {client}: the task lacks {', '.join(missing)}, expected a task of fedmill.task/1")
    if task["personal"]:
        layers = ", ".join(task["personal"])
        sys.exit(f"client.py: {client}: the task keeps layers with the client ({layers}), which this program cannot do")
    if task["metadata"].get("kind") == "delta":
        sys.exit(f"client.py: {client}: the task asks for deltas, and this program sends whole models")


def encoded(update, base, task, fedmill):
    """The file to send, and how it is encoded: by the first codec that the task names."""
    if not task["codecs"]:
        return update, "as it is"
    codec, to = task["codecs"][0], update.with_name("encoded.safetensors")
    command = [fedmill, "compress", "--quiet", update, "--base", base, "--codec", codec, "-o", to]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"client.py: {task['client']}: fedmill compress --codec {codec}: {done.stderr.strip()}")
    return to, f"by {codec}"


def masked(update, model, task, federation, home, options):
    """The masked update of a secure round."""
    if not options.keys:
        sys.exit(f"client.py: {task['client']}: the task asks for a masked update, expected --keys DIR")
    session, to = home / "session", home / "masked.safetensors"
    session.mkdir(exist_ok=True)
    federation.fetch(f"{task['secure']['folder']}/manifest.json", session / "manifest.json")
    command = [options.fedmill, "secagg", "mask", "--quiet", session, update, "--base", model, "-o", to]
    command += ["--key", options.keys / task["client"], "--trust", options.keys / "server.pub", options.keys / "helpers"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return to, "masked"


def digest(path):
    return blake3(Path(path).read_bytes()).hexdigest()


def train(client, model, step):
    """The trained tensors, and the number of examples."""
    with safe_open(UPDATES / f"{client}.safetensors", "numpy") as file:
        own, examples = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["num_examples"]
    trained = {}
    for name, start in model.items():
        is_float = start.dtype == np.float32
        trained[name] = start + np.float32(step) * (own[name] - start) if is_float else own[name]
    return trained, examples


def take_part(federation, client, home, options):
    """One round of one client."""
    home.mkdir(parents=True, exist_ok=True)
    if not federation.fetch("tasks/round.json", home / "round.json"):
        return
    number = json.loads((home / "round.json").read_text())["round"]
    if not federation.fetch(f"tasks/{number:06}/{client}.json", home / "task.json"):
        return
    # Not the number: a server that was restored from a backup opens a round of the same number again.
    done, asked = home / "delivered", digest(home / "task.json")
    if not options.again and done.exists() and done.read_text() == asked:
        return
    task = json.loads((home / "task.json").read_text())
    check(client, task)
    if options.keys and "secure" not in task:
        sys.exit(f"client.py: {client}: round {number} asks for the update in the clear, expected a masked one as --keys says; "
                 "leave --keys out to send it")
    model = model_of(federation, task["model"], home, options.fedmill)
    tensors, examples = train(client, load_file(model), options.step)
    if client in options.nan:
        tensors["fc2.bias"][0] = np.nan
    update = home / "update.safetensors"
    save_file(tensors, update, metadata={"num_examples": examples, **task["metadata"]})
    if "secure" in task:
        sent, how = masked(update, model, task, federation, home, options)
    else:
        sent, how = encoded(update, model, task, options.fedmill)
    place = federation.deliver(sent, task)
    done.write_text(asked)
    print(f"{client}: round {number}: {examples} examples, {sent.stat().st_size} bytes {how}, put at {place}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation", metavar="FEDERATION")
    parser.add_argument("homes", metavar="HOMES", type=Path)
    parser.add_argument("clients", metavar="CLIENT", nargs="+")
    parser.add_argument("--drop", metavar="PLACE")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--step", type=float, default=0.4)
    parser.add_argument("--nan", action="append", default=[], metavar="CLIENT")
    parser.add_argument("--fedmill", default="fedmill", metavar="PROGRAM")
    parser.add_argument("--keys", metavar="DIR", type=Path)
    options = parser.parse_args()
    for client in options.clients:
        take_part(Federation(options.federation, options.drop), client, options.homes / client, options)


if __name__ == "__main__":
    main()
