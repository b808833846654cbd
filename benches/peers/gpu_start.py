"""Seconds from the start of a process to its first features, with an empty cache of kernels and with a full one:
python gpu_start.py CLIPOOD DEVICE FOLDER --model ViT-B-16 --dtypes bf16. A JSON object a line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clipood")
    parser.add_argument("device")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True, help="a folder: random weights would be drawn anew, which takes longer than the rest")
    parser.add_argument("--image", required=True)
    parser.add_argument("--dtypes", default="bf16")
    args = parser.parse_args()
    cache = args.folder / "kernels"
    for dtype in args.dtypes.split(","):
        shutil.rmtree(cache, ignore_errors=True)
        for state in ("cold", "warm"):
            out = args.folder / "first.safetensors"
            command = [args.clipood, "encode", "--model", args.model, "--images", args.image, "--out", str(out)]
            command += ["--devices", args.device, "--dtype", dtype]
            start = time.perf_counter()
            done = subprocess.run(command, env=os.environ | {"CLIPOOD_CACHE": str(cache)}, capture_output=True, text=True)
            seconds = time.perf_counter() - start
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}\n{done.stderr}")
            print(json.dumps(dict(bench="start", model=Path(args.model).name, dtype=dtype, cache=state, seconds=seconds)), flush=True)


if __name__ == "__main__":
    main()
