"""From the start of a process to the similarity of one image and three texts: python start.py FOLDER ROUNDS CLIPOOD

CLIPOOD is the command. A ViT-B/16 with random parameters is written once as an open_clip folder and as ONNX; then the programs take turns. Seconds are of the whole
process, with what it imports; peak memory is the operating system's account of the finished process (Linux, macOS).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NAME = "ViT-B-16-quickgelu"
TEXTS = ["a photo of a dog", "a photo of a red bird", "noise"]


def commands(model, image, clipood):
    peer = [sys.executable, HERE / "start_peer.py"]
    texts = [word for text in TEXTS for word in ("--text", text)]
    return {
        "clipood": [clipood, "similarity", "--model", model, image, *texts, "--json"],
        "open_clip (PyTorch)": [*peer, "torch", model, image, *TEXTS],
        "onnxruntime": [*peer, "onnx", model, image, *TEXTS],
    }


def run(command):
    """Seconds, peak MiB and the three cosines."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command} failed")
    found = json.loads(printed)
    if isinstance(found[0], dict):
        found = [text["cosine"] for text in found[0]["texts"]]
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return seconds, usage.ru_maxrss // unit, np.array(found)


def main():
    folder, rounds, clipood = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    model, image = folder / NAME, folder / "image.png"
    subprocess.run([sys.executable, HERE / "start_model.py", model, image, NAME, *TEXTS], check=True, capture_output=True)
    results = {name: [] for name in commands(model, image, clipood)}
    for _ in range(rounds + 1):
        for name, command in commands(model, image, clipood).items():
            results[name].append(run(command))
    print(f"{NAME}, {rounds} rounds in turns after one that reads the files into memory, {os.cpu_count()} cores")
    print(f"{'program':20} {'median s':>9} {'fastest':>8} {'MiB':>6}  largest difference of a cosine")
    expected = results["open_clip (PyTorch)"][0][2]
    for name, runs in results.items():
        seconds = [run[0] for run in runs[1:]]
        off = np.abs(runs[0][2] - expected).max()
        if not off < 1e-4:
            sys.exit(f"{name} computes other cosines: {runs[0][2]} and {expected}")
        print(f"{name:20} {statistics.median(seconds):9.2f} {min(seconds):8.2f} {max(run[1] for run in runs):6}  {off:.1e}")


if __name__ == "__main__":
    main()
