"""Compares programs that encode the same images with the same parameters: python encode.py FOLDER ROUNDS NAME=COMMAND...

Each command writes its features to the file that replaces `{features}`, then waits for turns. Features are compared with the first program's;
then the programs take turns, so that whatever else the machine does hits all of them, and the median of each one's rounds is printed.
"""

import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np


def main():
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    programs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    batch = (folder / "pixels.f32").stat().st_size // (4 * 3 * 224 * 224)
    running, first, cosines = {}, None, {}
    for name, command in programs.items():
        file = folder / "features.f32"
        command = shlex.split(command.replace("{features}", str(file)))
        running[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if running[name].stdout.readline().strip() != "ready":
            sys.exit(f"{name} did not start: {command}")
        features = np.fromfile(file, np.float32).reshape(batch, -1).astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        first = features if first is None else first
        cosines[name] = (features * first).sum(axis=1).min()
        if not cosines[name] > (0.999 if "bf16" in name else 0.999999):
            sys.exit(f"{name} computes other features: smallest cosine {cosines[name]}")

    def turn(program):
        program.stdin.write("\n")
        program.stdin.flush()
        return float(program.stdout.readline())

    seconds = {name: [] for name in running}
    for _ in range(rounds):
        for name, program in running.items():
            seconds[name].append(turn(program))
    for program in running.values():
        program.stdin.close()
        program.wait()
    print(f"batch {batch}, median of {rounds} rounds in turns")
    print(f"{'':24} {'images/s':>9} {'x first':>8} {'slowest':>8} {'fastest':>8}  1 - smallest cosine to the first")
    base = statistics.median(seconds[next(iter(seconds))])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:24} {batch / median:9.2f} {base / median:8.2f} {batch / max(times):8.2f} {batch / min(times):8.2f}  {1 - cosines[name]:.1e}"
        )


if __name__ == "__main__":
    main()
