#!/usr/bin/env python3
"""Make a real update of a larger network than that of mnist-round.

    python3 make.py FOLDER [--width 1024]

Trains a network of 784 - WIDTH - WIDTH/2 - 10 neurons on MNIST's test images
from ../mnist-round. The base gets two epochs. The update gets one more epoch, on
the half of the images that one client holds. Writes base.safetensors and
update.safetensors (weights, about 5.3 MB at the usual width). The same seed
gives the same files on one machine; elsewhere the last bits may differ.

Needs only NumPy.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "mnist-round"))
from accuracy import read_idx  # noqa: E402

SEED, BATCH, RATE, MOMENTUM = 7, 32, 0.05, 0.9


def data():
    folder = HERE.parent / "mnist-round"
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz").reshape(10_000, 784)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz")
    return (images.astype(np.float32) / 255 - 0.1307) / 0.3081, labels.astype(np.int64)


def make_model(rng, width):
    sizes = [784, width, width // 2, 10]
    model = {}
    for number, (before, after) in enumerate(zip(sizes, sizes[1:]), 1):
        bound = (6 / before) ** 0.5
        model[f"fc{number}.weight"] = rng.uniform(-bound, bound, (after, before)).astype(np.float32)
        model[f"fc{number}.bias"] = np.zeros(after, np.float32)
    return model


def step(model, speed, images, labels):
    """One step of SGD with momentum on the cross entropy of a batch."""
    inputs, layers = [images], len(model) // 2
    for layer in range(1, layers + 1):
        outputs = inputs[-1] @ model[f"fc{layer}.weight"].T + model[f"fc{layer}.bias"]
        inputs.append(np.maximum(outputs, 0) if layer < layers else outputs)
    scores = np.exp(inputs[-1] - inputs[-1].max(axis=1, keepdims=True))
    gradient = scores / scores.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1
    gradient /= len(labels)
    for layer in range(layers, 0, -1):
        weight = model[f"fc{layer}.weight"]
        gradients = {f"fc{layer}.weight": gradient.T @ inputs[layer - 1], f"fc{layer}.bias": gradient.sum(axis=0)}
        gradient = (gradient @ weight) * (inputs[layer - 1] > 0)
        for name, value in gradients.items():
            speed[name] = MOMENTUM * speed[name] + value
            model[name] -= np.float32(RATE) * speed[name]


def train(model, rng, images, labels, epochs):
    speed = {name: np.zeros_like(value) for name, value in model.items()}
    for _ in range(epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(order), BATCH):
            batch = order[start:start + BATCH]
            step(model, speed, images[batch], labels[batch])
    return len(labels) * epochs


def write(path, model, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, value in sorted(model.items()):
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in sorted(model.items()):
            file.write(np.ascontiguousarray(value).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=1024)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    images, labels = data()
    model = make_model(rng, asked.width)
    train(model, rng, images, labels, 2)
    write(asked.folder / "base.safetensors", model, {"format": "pt"})
    half = len(labels) // 2
    examples = train(model, rng, images[:half], labels[:half], 1)
    metadata = {"format": "pt", "client_id": "client-00", "num_examples": str(examples), "round": "1"}
    write(asked.folder / "update.safetensors", model, metadata)


if __name__ == "__main__":
    main()
