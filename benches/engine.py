"""The engine around the model, measured on the real command: `make bench-engine` (IMAGES=100000, FACTOR=10).

1. Memory and resume: draws IMAGES and FACTOR * IMAGES small PNG files (hard links of a few hundred drawings, half of them
   in-distribution) and prints for each number wall time and peak resident memory of `clipood plan`, of the run, and of the same
   run once nothing is left to do (median of five).
2. Flow: larger PNG files and two simulated devices whose rate is a share of what decoding alone delivers, so that either step
   is the slowest; prints how far the extraction's wall time is above that of the slowest step alone. Decoding alone is a loop
   over the same files on all cores (`clipood-data`'s example `decode_alone`).

Nothing here is a result: a simulated device waits and makes features up. Python's standard library is enough.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

CLASSES = 16
# Of the images of the second table.
SIDE = 320
# Of the demo model's input.
MODEL_SIDE = 96
# A device so many times as fast as decoding never holds anything up.
FREE = 10**4


def png(seed: int, side: int = 16) -> bytes:
    """A coloured square of coarse noise: a photograph's file is a third of its pixels or less, too."""
    rng = random.Random(seed)
    coarse = bytes(i & 0b111 for i in range(256))
    rows = b"".join(b"\0" + rng.randbytes(3 * side).translate(coarse) for _ in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def draw(folder: Path, images: int, side: int = 16, drawings: int = 512) -> None:
    """`images` files: half of them under `id`, in 16 classes, half under `ood`."""
    shutil.rmtree(folder, ignore_errors=True)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(drawings):
        (originals / f"{number}.png").write_bytes(png(number, side))
    for name, count in (("id", images - images // 2), ("ood", images // 2)):
        for label in range(CLASSES):
            (folder / name / "test" / f"class-{label:02}").mkdir(parents=True)
        for number in range(count):
            target = folder / name / "test" / f"class-{number % CLASSES:02}" / f"image-{number:08}.png"
            os.link(originals / f"{number % drawings}.png", target)


def configure(folder: Path, rate: int) -> list[str]:
    """Manifests and recipe; returns the arguments of the command. `rate` is that of each of two devices."""
    manifests = folder / "manifests"
    manifests.mkdir(exist_ok=True)
    for name in ("id", "ood"):
        keys = ["layout = \"image-folder\"", f'root = "{folder / name / "test"}"']
        (manifests / f"{name}.toml").write_text(f'name = "{name}"\nrole = "{name}"\n' + "\n".join(keys) + "\n")
    recipe = folder / "engine.toml"
    recipe.write_text(
        'name = "engine"\nmodel = "demo"\nmethods = ["zero-shot"]\ndetectors = ["mcm", "max_logit", "energy"]\n'
        '[data]\nid = "id"\nood = ["ood"]\n[metrics]\nbootstrap = 0\n'
        # Small shards, so that a run of the smaller size has as many as it takes for memory to settle.
        "[engine]\nshard_bytes = 8_000_000\n"
    )
    return [
        "run", str(recipe), "--manifests", str(manifests), "--devices", f"sim:{rate},sim:{rate}",
        "--store", str(folder / "store"), "--run", str(folder / "run"),
    ]


def measure(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Seconds, peak resident MB and output of a command that must succeed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}\nended with status {status}:\n{output}")
    return time.monotonic() - start, usage.ru_maxrss / 1024, output


def at_size(clipood: str, folder: Path, images: int, rate: int) -> None:
    """A line of the first table."""
    draw(folder, images)
    run = [clipood, *configure(folder, rate)]
    plan = measure([clipood, "plan", *run[2:]])
    first = measure(run)
    again = sorted(measure(run)[:2] for _ in range(5))[2]
    figures = [f"{memory:>8.0f} {seconds:>7.2f}" for seconds, memory, *_ in (plan, first, again)]
    print(f"{images:>9} {' '.join(figures)}", flush=True)
    shutil.rmtree(folder)


def extraction(clipood: str, folder: Path, rate: int) -> float:
    """Seconds of the stage `extract` of a run from nothing."""
    for made in ("store", "run"):
        shutil.rmtree(folder / made, ignore_errors=True)
    _, _, output = measure([clipood, *configure(folder, rate), "--json-log"])
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    ends = [line for line in lines if line.get("stage") == "extract" and line.get("done") == line.get("total")]
    return ends[-1]["seconds"]


def decoding(decode_alone: str, folder: Path) -> float:
    """Seconds to read, hash, decode and resize the same images on all cores, with nothing around it."""
    folders = [str(folder / name / "test") for name in ("id", "ood")]
    # glibc keeps memory for the next image once a program has freed something large, as the command has. This one has not,
    # and lost up to a third of its time to page faults; it shall be as fast as it can be.
    keep = {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=268435456:glibc.malloc.mmap_threshold=33554432"}
    return float(measure([decode_alone, str(MODEL_SIDE), *folders], os.environ | keep)[2])


def flow(clipood: str, decode_alone: str, folder: Path, images: int, rounds: int) -> None:
    """The second table."""
    draw(folder, images, side=SIDE, drawings=64)
    before = decoding(decode_alone, folder)
    decoded = images / before
    print(f"\n{images} images of {SIDE}x{SIDE}; decoding alone: {decoded:.0f} images/s; medians of {rounds}")
    print("devices' images/s  slowest step  alone s  extraction s  above  (of the single rounds)")
    for share in (0.5, 0.75, 0.9, 1.25, 2.0, FREE):
        rate = round(decoded * share / 2)
        devices = images / (2 * rate)
        results = []
        for _ in range(rounds):
            # Between two runs of decoding alone, whose mean counts: other work on the machine comes and goes.
            whole, after = extraction(clipood, folder, rate), decoding(decode_alone, folder)
            slowest = max((before + after) / 2, devices)
            results.append((whole / slowest - 1, slowest, whole))
            before = after
        above, slowest, whole = (statistics.median(column) for column in zip(*results))
        name = "devices" if slowest == devices else "decoding"
        free = "wait for nothing" if share == FREE else str(2 * rate)
        each = " ".join(f"{100 * ratio:.1f}" for ratio, *_ in sorted(results))
        print(f"{free:>17} {name:>13} {slowest:>8.2f} {whole:>13.2f} {100 * above:>5.1f}%  ({each})", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clipood", default="target/release/clipood")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--flow-images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--decode-alone", default="target/release/examples/decode_alone")
    parser.add_argument("--work", default="target/bench-engine")
    options = parser.parse_args()
    work = Path(options.work).resolve()
    print(f"{'images':>9} {'plan MB':>8} {'s':>7} {'run MB':>8} {'s':>7} {'again MB':>8} {'s':>7}")
    for images in (options.images, options.images * options.factor):
        at_size(options.clipood, work / "memory", images, 100_000)
    flow(options.clipood, options.decode_alone, work / "flow", options.flow_images, options.rounds)


main()
