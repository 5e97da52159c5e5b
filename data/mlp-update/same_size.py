#!/usr/bin/env python3
"""Compare the choice of `fedmill compress` for a number of bytes with every codec.

    python3 same_size.py FEDMILL FOLDER

FOLDER holds base.safetensors and update.safetensors from make.py. The script
compresses the update by every codec. Then it asks for the same number of bytes,
and the error must not be larger. It also compares codecs that need at most a
hundredth of the bytes with `--target 100`. The exit status is 1 if one is worse.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CODECS = [
    "f16", "e4m3", "mxfp8", "u8", "u4", "u2", "i4", "eden4:scale=min-error", "eden2:scale=min-error",
    "eden1:scale=min-error", "sign", "ecsq:bits=1", "ecsq:bits=0.25", "topk:fraction=0.1,values=f16",
    "topk:fraction=0.01", "topk:fraction=0.01,values=u4", "topk:fraction=0.02,values=ternary",
    "topk:fraction=0.03,values=ternary", "randk:fraction=0.01", "randk:fraction=0.02,values=f16",
    "lowrank:rank=1", "lowrank:rank=4",
]

# Steps have nine bits, so two files of equal size may differ by 1 % in their error.
NEAR = 1.01


def main():
    fedmill, folder = sys.argv[1], Path(sys.argv[2])

    def compress(*how):
        with tempfile.TemporaryDirectory() as out:
            command = [fedmill, "compress", "--quiet", "--json", *how, "--base", folder / "base.safetensors",
                       folder / "update.safetensors", "-o", Path(out) / "compressed.safetensors"]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            return json.loads(found.stdout)

    hundredth = compress("--target", "100")
    print(f"{'--target 100':<36} {hundredth['output_bytes']:>9} bytes  NMSE {hundredth['nmse']:.4e}")
    worse = hundredth["ratio"] < 100
    for codec in CODECS:
        alone = compress("--codec", codec)
        chosen = compress("--max-bytes", str(alone["output_bytes"]))
        rivals = [chosen] + [hundredth] * (alone["output_bytes"] <= hundredth["output_bytes"])
        bad = any(rival["nmse"] > NEAR * alone["nmse"] for rival in rivals)
        worse |= bad
        print(f"{codec:<36} {alone['output_bytes']:>9} bytes  NMSE {alone['nmse']:.4e}"
              f"  chosen {chosen['nmse']:.4e}{'  WORSE' if bad else ''}")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
