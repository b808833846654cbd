"""The recipe `imagenet-mos` at its real shape, stage by stage: `make bench-flagship`.

Makes the stand-in of the data (`stand_in.py`), then plans the run and does one stage after the other, each in a process of its own,
as a cluster would: `clipood plan`, `clipood worker RUN --stages STAGE`. Prints time, peak resident memory and the bytes on disk
after each stage. The rows after it are the finished run called again, and the audit.

The second table is the same with random ViT-B/16 weights on fewer images, so that patch features of 196 x 512 flow.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

STAGES = ["extract", "negative", "train", "fit", "score", "aggregate", "report"]


def size(folder: Path) -> int:
    """Bytes of the files below a folder, each counted once."""
    seen, total = set(), 0
    for parent, _, names in os.walk(folder):
        for name in names:
            found = os.lstat(os.path.join(parent, name))
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_size
    return total


def measured(command: list[str], log: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of a command that must succeed; what it prints is appended to `log`."""
    with log.open("a") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
    if status != 0:
        sys.exit(f"{' '.join(command)}\nended with status {status}; see {log}")
    return seconds, usage.ru_maxrss / 1024


def table(title: str, clipood: str, work: Path, recipe: list[str], places: list[str]) -> None:
    """Runs the stages and prints one row for each."""
    run, store, log = work / "run", work / "store", work / "log"
    for made in (run, store):
        shutil.rmtree(made, ignore_errors=True)
    log.unlink(missing_ok=True)
    data = [*places, "--store", str(store)]
    commands = [("plan", [clipood, "plan", *recipe, *data, "--run", str(run)])]
    worker = [clipood, "worker", str(run), *data_of(data)]
    commands += [(stage, [*worker, "--stages", stage]) for stage in STAGES]
    commands.append(("again", [clipood, "run", *recipe, *data, "--run", str(run)]))
    commands.append(("audit", [clipood, "status", str(run), "--store", str(store), "--audit"]))
    print(f"\n{title}\n{'stage':<10} {'seconds':>8} {'peak MB':>8} {'run MB':>8} {'store MB':>9}")
    for name, command in commands:
        seconds, peak = measured(command, log)
        print(f"{name:<10} {seconds:>8.1f} {peak:>8.0f} {size(run) / 1e6:>8.1f} {size(store) / 1e6:>9.1f}", flush=True)


def data_of(arguments: list[str]) -> list[str]:
    """The options that a worker takes too: the run knows its manifests."""
    pairs = list(zip(arguments[::2], arguments[1::2]))
    return [word for option, value in pairs if option != "--manifests" for word in (option, value)]


def manifests(folder: Path, share: float) -> Path:
    """The shipped manifests, with the numbers of OOD images that a smaller tree has."""
    shipped = Path(__file__).parents[2] / "manifests" / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("imagenet", "inaturalist", "sun", "places", "textures"):
        lines = (shipped / f"{name}.toml").read_text().splitlines()
        kept = [line for line in lines if share == 1 or not line.startswith("expected_images")]
        (folder / f"{name}.toml").write_text("\n".join(kept) + "\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clipood", default="target/release/clipood")
    parser.add_argument("--work", default="target/bench-flagship")
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("--methods", default="zero-shot,coop,locoop")
    parser.add_argument("--only", choices=["demo", "vit"], help="one of the two tables")
    options = parser.parse_args()
    work = Path(options.work).resolve()
    clipood = str(Path(options.clipood).resolve())
    stand_in = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
    photographs = ["--photographs"] if options.photographs else []
    if options.only != "vit":
        data = work / "demo" / "data"
        subprocess.run([*stand_in, str(data), *photographs], check=True)
        recipe = ["imagenet-mos", "--model", "demo", "--methods", options.methods, "--shots", "1", "--seeds", "1"]
        places = ["--data", str(data), "--manifests", str(manifests(work / "demo" / "manifests", 1))]
        title = f"demo model, {options.methods}, 1 shot: 16,000 + 50,000 ID and 35,640 OOD images"
        table(title, clipood, work / "demo", recipe, places)
    if options.only != "demo":
        data, model = work / "vit" / "data", work / "vit" / "model"
        subprocess.run([*stand_in, str(data), "--train", "1", "--val", "2", "--ood", "0.03", *photographs], check=True)
        if not model.exists():
            export = [clipood, "bench", "extract", "--model", "ViT-B-16", "--batches", "1", "--seconds", "0.1", "--export", str(model)]
            subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        recipe = ["imagenet-mos", "--model", str(model), "--methods", "zero-shot", "--detectors", "mcm,gl_mcm"]
        places = ["--data", str(data), "--manifests", str(manifests(work / "vit" / "manifests", 0.03))]
        table("random ViT-B/16, zero-shot, MCM and GL-MCM: 2,000 ID and 1,088 OOD images", clipood, work / "vit", recipe, places)


if __name__ == "__main__":
    main()
