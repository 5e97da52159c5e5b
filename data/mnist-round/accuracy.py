#!/usr/bin/env python3
"""Accuracy of one or more models of this round on MNIST's 10,000 test images.

    python3 accuracy.py MODEL.safetensors [MODEL...] [--min PERCENT] [--max PERCENT]
    python3 accuracy.py --json [MODEL.safetensors]

Prints one line per model. With --json it prints the accuracy, from 0 to 1, and
the mean cross-entropy loss of one model as fedmill's `evaluation.command` must;
the model is then that of the variable FEDMILL_MODEL if none is named. Exit status: 0; 1 if an accuracy lies outside
--min/--max; 2 if a model cannot be read or is not the model of this round.

Needs only NumPy. It has its own reader of safetensors, so that it notices a
file that only one particular reader accepts.
"""

import argparse
import gzip
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

HERE = Path(__file__).resolve().parent
BATCH = 1000  # images at a time: keeps the unrolled patches small
BN_EPS = 1e-5

SHAPES = {
    "conv1.weight": (8, 1, 5, 5), "conv1.bias": (8,),
    "bn1.weight": (8,), "bn1.bias": (8,),
    "bn1.running_mean": (8,), "bn1.running_var": (8,),
    "conv2.weight": (16, 8, 5, 5), "conv2.bias": (16,),
    "bn2.weight": (16,), "bn2.bias": (16,),
    "bn2.running_mean": (16,), "bn2.running_var": (16,),
    "fc1.weight": (32, 256), "fc1.bias": (32,),
    "fc2.weight": (10, 32), "fc2.bias": (10,),
}

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


class BadModel(Exception):
    """The file is not safetensors, or not a model of this round."""


def decode(raw, dtype, shape):
    if dtype not in DTYPES:
        raise BadModel(f"dtype {dtype} is not supported")
    array = np.frombuffer(raw, DTYPES[dtype])
    if dtype == "BF16":  # NumPy has no bfloat16, but it is the top half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array.reshape(shape)


def read_safetensors(path):
    """All tensors of the file: 8 bytes of header length, JSON header, data."""
    blob = Path(path).read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", blob)
        header = json.loads(blob[8:8 + length].decode("utf-8"))
        data = blob[8 + length:]
        header.pop("__metadata__", None)
        return {
            name: decode(data[slice(*entry["data_offsets"])], entry["dtype"], entry["shape"])
            for name, entry in header.items()
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadModel(f"not a readable safetensors file ({error})") from error


def read_model(path):
    """The weights as float32, checked to be this round's architecture."""
    tensors = read_safetensors(path)
    for name, shape in SHAPES.items():
        if name not in tensors:
            raise BadModel(f"tensor {name} is missing")
        if tensors[name].shape != shape:
            raise BadModel(f"tensor {name} has shape {tensors[name].shape}, not {shape}")
    return {name: tensors[name].astype(np.float32) for name in SHAPES}


def read_idx(path):
    """An array of bytes in MNIST's own format: magic, sizes, then the bytes."""
    blob = gzip.decompress(Path(path).read_bytes())
    ndim = blob[3]
    shape = struct.unpack_from(f">{ndim}I", blob, 4)
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def conv(x, weight, bias):
    """5x5 convolution, stride 2, no padding; x is (batch, channel, y, x)."""
    patches = sliding_window_view(x, (5, 5), axis=(2, 3))[:, :, ::2, ::2]
    batch, _, height, width = patches.shape[:4]
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(batch * height * width, -1)
    out = rows @ weight.reshape(len(weight), -1).T + bias
    return out.reshape(batch, height, width, -1).transpose(0, 3, 1, 2)


def batch_norm(x, model, name):
    """Batch normalisation with the stored statistics, as at inference."""
    scale = model[f"{name}.weight"] / np.sqrt(model[f"{name}.running_var"] + np.float32(BN_EPS))
    shift = model[f"{name}.bias"] - model[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def forward(model, x):
    x = relu(batch_norm(conv(x, model["conv1.weight"], model["conv1.bias"]), model, "bn1"))
    x = relu(batch_norm(conv(x, model["conv2.weight"], model["conv2.bias"]), model, "bn2"))
    x = x.reshape(len(x), -1)
    x = relu(x @ model["fc1.weight"].T + model["fc1.bias"])
    return x @ model["fc2.weight"].T + model["fc2.bias"]


def measure(model, images, labels):
    """The number of images that the model classifies right, and the mean loss."""
    right, loss = 0, 0.0
    for start in range(0, len(images), BATCH):
        x = images[start:start + BATCH, None].astype(np.float32) / 255
        label = labels[start:start + BATCH]
        # A poisoned merge may hold huge weights or NaN. It should get a low score without a warning.
        with np.errstate(all="ignore"):
            logits = forward(model, x).astype(np.float64)
            top = logits.max(axis=1)
            log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            loss += float((log_sum - logits[np.arange(len(label)), label]).sum())
        right += int((logits.argmax(axis=1) == label).sum())
    return right, loss / len(images)


def accuracy(model, images, labels):
    """The accuracy in percent."""
    return 100 * measure(model, images, labels)[0] / len(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--min", type=float, default=0.0, metavar="PERCENT")
    parser.add_argument("--max", type=float, default=100.0, metavar="PERCENT")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.json and not args.models and "FEDMILL_MODEL" in os.environ:
        args.models = [os.environ["FEDMILL_MODEL"]]
    if not args.models or args.json and len(args.models) > 1:
        parser.error("expected a model, and with --json no more than one")

    images = read_idx(HERE / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(HERE / "t10k-labels-idx1-ubyte.gz")
    status = 0
    for path in args.models:
        try:
            right, loss = measure(read_model(path), images, labels)
        except (BadModel, OSError) as error:
            print(f"accuracy.py: {path}: {error}", file=sys.stderr)
            return 2
        percent = 100 * right / len(images)
        if args.json:
            # JSON has no NaN: a model without a finite loss has none.
            finite = {"loss": loss} if np.isfinite(loss) else {}
            print(json.dumps({"accuracy": right / len(images), **finite}))
        else:
            print(f"{percent:.1f}%  {path}")
        if not args.min <= percent <= args.max:
            print(f"accuracy.py: {path}: {percent:.2f}% is outside "
                  f"{args.min:g}..{args.max:g}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
