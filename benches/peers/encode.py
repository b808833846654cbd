"""Compares programs that encode the same images with the same parameters: python encode.py FOLDER ROUNDS CLIPOOD

CLIPOOD is the Rust example `encode_speed`; `BATCHES` and `MODELS` in the environment say what is encoded. Every program writes its features once,
which must be the first program's, then waits. The programs take turns, so that whatever else the machine does hits all of them; the median of each
one's rounds is printed. Peak memory is of the whole process (Linux), with what the program imports.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# Seconds before a turn. The threads of onnxruntime stay busy for 20 to 30 ms after their turn, in which they would take the cores from whoever is next.
PAUSE = 0.08
HERE = Path(__file__).parent
COLUMNS = f"{'model':20} {'batch':>5}  {'program':17} {'images/s':>9} {'x first':>8} {'slowest':>8} {'fastest':>8} {'MiB':>6}  1 - cosine"


def commands(model, batch, features, clipood):
    """What is compared, by name."""
    pixels = model / f"pixels-{batch}.f32"
    torch = [sys.executable, HERE / "encode_torch.py", model.name, model, pixels, features]
    programs = {
        "PyTorch fp32": [*torch, "float32"],
        "onnxruntime fp32": [sys.executable, HERE / "encode_onnx.py", model, pixels, features],
        "clipood f32": [clipood, model, pixels, features],
    }
    # On a CPU without the instructions PyTorch takes 8 (transformers) to 50 (ResNets) times as long in bf16, so that one image of a transformer
    # must do; clipood refuses it.
    if multiplies_bf16() or (batch == 1 and model.name.startswith("ViT")):
        programs["PyTorch bf16"] = [*torch, "bfloat16"]
    if multiplies_bf16():
        programs["clipood bf16"] = [clipood, model, pixels, features, "--bf16"]
    return programs


def multiplies_bf16():
    """Whether the CPU has AVX-512 BF16, which clipood needs to multiply in bf16 (Linux)."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()


def peak_mebibytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise ValueError(f"no peak memory of process {pid}")


def start(name, command):
    program = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if program.stdout.readline().strip() != "ready":
        sys.exit(f"{name} did not start: {command}")
    return program


def turn(program):
    time.sleep(PAUSE)
    program.stdin.write("\n")
    program.stdin.flush()
    return float(program.stdout.readline())


def compare(model, batch, rounds, clipood):
    """Prints a row for each program."""
    running, first, off = {}, None, {}
    file = model / "features.f32"
    for name, command in commands(model, batch, file, clipood).items():
        running[name] = start(name, command)
        features = np.fromfile(file, np.float32).reshape(batch, -1).astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        first = features if first is None else first
        off[name] = 1 - (features * first).sum(axis=1).min()
        if not off[name] < (1e-3 if "bf16" in name else 1e-6):
            sys.exit(f"{model.name}: {name} computes other features: 1 - smallest cosine is {off[name]}")
    seconds = {name: [] for name in running}
    for _ in range(rounds):
        for name, program in running.items():
            seconds[name].append(turn(program))
    base = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        memory = peak_mebibytes(running[name].pid)
        print(
            f"{model.name:20} {batch:5}  {name:17} {batch / median:9.2f} {base / median:8.2f} {batch / max(times):8.2f} {batch / min(times):8.2f}"
            f" {memory:6}  {off[name]:.1e}",
            flush=True,
        )
        running[name].stdin.close()
        running[name].wait()


def main():
    folder, rounds, clipood = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    batches, models = os.environ["BATCHES"].split(), os.environ["MODELS"].split()
    print(f"median of {rounds} rounds in turns, {os.cpu_count()} cores{'' if multiplies_bf16() else '; the CPU has no AVX-512 BF16'}")
    print(COLUMNS)
    for name in models:
        model = folder / name
        made = subprocess.run([sys.executable, HERE / "encode_model.py", model, name, *batches], capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"{name} was not made: {made.stdout}{made.stderr}")
        for batch in batches:
            compare(model, int(batch), rounds, clipood)
        shutil.rmtree(model)


if __name__ == "__main__":
    main()
