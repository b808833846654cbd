"""The engine at 1 and 10 times the data: `make bench-engine` (IMAGES=100000 by default, FACTOR=10).

Draws IMAGES and FACTOR * IMAGES small PNG files (hard links of a few hundred drawings, half of them in-distribution), runs the real
command over each with a simulated device, and prints for each: images planned, wall time, peak resident memory of the run,
then wall time and memory of the same command once nothing is left to do. Nothing here is a result: a simulated device computes
made-up features. Python's standard library is enough.
"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

CLASSES = 16
DRAWINGS = 512


def png(seed: int, side: int = 16) -> bytes:
    """A coloured square of noise."""
    rng = random.Random(seed)
    rows = b"".join(b"\0" + rng.randbytes(3 * side) for _ in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def draw(folder: Path, images: int) -> None:
    """`images` files: half of them under `id`, in 16 classes, half under `ood`."""
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(DRAWINGS):
        (originals / f"{number}.png").write_bytes(png(number))
    for name, count in (("id", images - images // 2), ("ood", images // 2)):
        for label in range(CLASSES):
            (folder / name / "test" / f"class-{label:02}").mkdir(parents=True)
        for number in range(count):
            target = folder / name / "test" / f"class-{number % CLASSES:02}" / f"image-{number:08}.png"
            os.link(originals / f"{number % DRAWINGS}.png", target)


def configure(folder: Path, rate: int) -> list[str]:
    """Manifests and recipe; returns the arguments of the command."""
    manifests = folder / "manifests"
    manifests.mkdir()
    for name in ("id", "ood"):
        keys = ["layout = \"image-folder\"", f'root = "{folder / name / "test"}"']
        (manifests / f"{name}.toml").write_text(f'name = "{name}"\nrole = "{name}"\n' + "\n".join(keys) + "\n")
    recipe = folder / "engine.toml"
    recipe.write_text(
        'name = "engine"\nmodel = "demo"\nmethods = ["zero-shot"]\ndetectors = ["mcm", "max_logit", "energy"]\n'
        '[data]\nid = "id"\nood = ["ood"]\n[metrics]\nbootstrap = 0\n'
    )
    return [
        "run", str(recipe), "--manifests", str(manifests), "--devices", f"sim:{rate},sim:{rate}",
        "--store", str(folder / "store"), "--run", str(folder / "run"),
    ]


def measure(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident MB and output of a command that must succeed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}\nended with status {status}:\n{output}")
    return time.monotonic() - start, usage.ru_maxrss / 1024, output


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clipood", default="target/release/clipood")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--rate", type=int, default=100_000, help="images a second of each of two simulated devices")
    parser.add_argument("--work", default="target/bench-engine")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    print(f"{'images':>9} {'plan MB':>8} {'plan s':>7} {'run MB':>8} {'run s':>7} {'again MB':>9} {'again s':>8}")
    for images in (options.images, options.images * options.factor):
        folder = Path(options.work).resolve() / str(images)
        shutil.rmtree(folder, ignore_errors=True)
        draw(folder, images)
        run = [options.clipood, *configure(folder, options.rate)]
        plan = [run[0], "plan", *run[2:]]
        plan_seconds, plan_memory, plan_output = measure(plan)
        seconds, memory, output = measure(run)
        again = sorted(measure(run)[:2] for _ in range(5))[2]
        if options.verbose:
            print(plan_output, output)
        print(
            f"{images:>9} {plan_memory:>8.0f} {plan_seconds:>7.1f} {memory:>8.0f} {seconds:>7.1f} {again[1]:>9.0f} {again[0]:>8.2f}",
            flush=True,
        )
        shutil.rmtree(folder)


main()
