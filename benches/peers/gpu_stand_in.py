"""The recipe `imagenet-mos` from pictures to the report on a share of the ImageNet stand-in: python gpu_stand_in.py CLIPOOD DEVICES FOLDER.
Zero-shot, CoOp and LoCoOp with one shot, MCM and GL-MCM. Needs numpy, Pillow and Python 3.11. A JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

FLAGSHIP = Path(__file__).parents[1] / "flagship"
sys.path.insert(0, str(FLAGSHIP))

from run import manifests  # noqa: E402

METHODS = "zero-shot,coop,locoop"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clipood")
    parser.add_argument("devices")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--val", type=int, default=5, help="ID images of each class, of 50")
    parser.add_argument("--ood", type=float, default=0.1, help="share of the OOD images")
    args = parser.parse_args()
    data = args.folder / "data"
    made = [sys.executable, str(FLAGSHIP / "stand_in.py"), str(data), "--train", "1", "--val", str(args.val), "--ood", str(args.ood)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    images = sum(1 for path in data.rglob("*") if path.is_file())
    recipe = ["imagenet-mos", "--model", args.model, "--methods", METHODS, "--shots", "1", "--seeds", "1", "--detectors", "mcm,gl_mcm"]
    places = ["--data", str(data), "--manifests", str(manifests(args.folder / "manifests", args.ood))]
    places += ["--store", str(args.folder / "store"), "--run", str(args.folder / "run")]
    start = time.perf_counter()
    subprocess.run([args.clipood, "run", *recipe, *places, "--devices", args.devices, "--dtype", args.dtype], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    model = Path(args.model).name.removeprefix("model-")
    print(json.dumps(dict(bench="stand-in", model=model, methods=METHODS, images=images, seconds=seconds)))


if __name__ == "__main__":
    main()
