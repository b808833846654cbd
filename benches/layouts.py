"""Time and peak memory of plans of large datasets, on stand-ins of tiny images.

`benches/layouts.py [--images N] [--archives N] [--folder DIR]` makes N images of 2 x 2 pixels as files in 1,000 class folders, and the
same number in N tar files, unless they are there, and plans each of them twice: first from nothing, then compared with the plan.
"""

import argparse
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

CLASSES = 1000
ROOT = Path(__file__).resolve().parent.parent
CLIPOOD = ROOT / "target/release/clipood"
RECIPE = """name = "{0}"
model = "demo"
methods = ["zero-shot"]
detectors = ["mcm"]

[data]
id = "{0}"
ood = ["few"]
"""


def image(number: int) -> bytes:
    return b"P6\n2 2\n255\n" + number.to_bytes(12, "little")


def make_files(folder: Path, images: int) -> None:
    for label in range(CLASSES):
        to = folder / f"class_{label:04d}"
        to.mkdir(parents=True)
        for number in range(label, images, CLASSES):
            (to / f"{number:07d}.ppm").write_bytes(image(number))


def make_archives(folder: Path, images: int, archives: int) -> None:
    folder.mkdir(parents=True)
    for shard in range(archives):
        with tarfile.open(folder / f"train-{shard:04d}.tar", "w") as tar:
            for number in range(shard, images, archives):
                for ending, data in [("ppm", image(number)), ("cls", str(number % CLASSES).encode())]:
                    info = tarfile.TarInfo(f"{number:07d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "classnames.txt").write_text("".join(f"class {label:04d}\n" for label in range(CLASSES)))


def measured(command: list[str], log: Path) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and MiB of peak memory of a command."""
    start = time.monotonic()
    with open(log, "w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}:\n{log.read_text()[-2000:]}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--archives", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=ROOT / "target/bench-layouts")
    given = parser.parse_args()
    work = given.folder / f"{given.images}"
    if not (work / "files").exists():
        make_files(work / "files", given.images)
    tars = f"tars-{given.archives}"
    if not (work / tars).exists():
        make_archives(work / tars, given.images, given.archives)
    (work / "few").mkdir(exist_ok=True)
    (work / "few/a.ppm").write_bytes(image(given.images))
    names = {
        "files": 'layout = "image-folder"\nroot = "files"\n',
        "tars": f'layout = "webdataset"\nroot = "{tars}"\nclass_list = "classnames.txt"\n',
    }
    manifests = work / "manifests"
    manifests.mkdir(exist_ok=True)
    (manifests / "few.toml").write_text('name = "few"\nrole = "ood"\nlayout = "flat-folder"\nroot = "few"\n')
    print(f"{'layout':<8} {'what':<22} {'seconds':>8} {'CPU s':>8} {'peak MiB':>9}")
    for name, rest in names.items():
        (manifests / f"{name}.toml").write_text(f'name = "{name}"\nrole = "id"\n{rest}')
        recipe = work / f"{name}.toml"
        recipe.write_text(RECIPE.format(name))
        run = work / f"run-{os.getpid()}-{name}"
        command = [str(CLIPOOD), "plan", str(recipe), "--manifests", str(manifests), "--data", str(work), "--run", str(run)]
        for what in (f"plan {given.images:,}", "compare with the plan"):
            seconds, cpu, peak = measured(command, work / "log")
            print(f"{name:<8} {what:<22} {seconds:8.1f} {cpu:8.1f} {peak:9.0f}", flush=True)
        subprocess.run(["rm", "-rf", str(run)], check=True)


if __name__ == "__main__":
    main()
