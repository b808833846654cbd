"""Seconds and peak memory of a prompt step, clipood beside PyTorch: python prompt_step.py CLIPOOD CLASSES...

Every program runs in a process of its own, in turns. PyTorch's `reference` and `text` (see gpu_prompt.py) are left out
above 250 classes, where one step takes minutes and more memory than a workstation has.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROUNDS = int(os.environ.get("ROUNDS", "3"))
HERE = Path(__file__).parent


def run(command):
    """The JSON lines that a program prints, and its peak memory in GiB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], usage.ru_maxrss / 2**20


def main():
    clipood, counts = sys.argv[1], [int(n) for n in sys.argv[2:]]
    torch = [sys.executable, HERE / "gpu_prompt.py", "--device", "cpu", "--dtypes", "f32"]
    print(f"median of {ROUNDS} rounds in turns, {os.cpu_count()} cores, ViT-B/16, batch 32, context 16, float32")
    print(f"{'classes':>7}  {'method':8}{'program':38}{'s/step':>8}{'x clipood':>11}{'peak GiB':>10}")
    for classes in counts:
        for method in ("coop", "locoop"):
            common = ["--methods", method, "--classes", str(classes)]
            programs = {"clipood": ([clipood, "bench", "prompt", "--devices", "cpu", *common, "--steps", "7"], ROUNDS)}
            programs["PyTorch, cut and shared as clipood"] = (
                [*torch, *common, "--programs", "same", "--warm", "2", "--steps", "5"],
                ROUNDS,
            )
            if classes <= 250:
                short = ["--warm", "1", "--steps", "1"]
                programs["PyTorch, 77 tokens, text alone"] = ([*torch, *common, "--programs", "text", *short], 1)
                programs["PyTorch, 77 tokens, and 32 views"] = ([*torch, *common, "--programs", "reference", *short], 1)
            seconds = {name: [] for name in programs}
            memory = dict.fromkeys(programs, 0.0)
            for turn in range(ROUNDS):
                for name, (command, rounds) in programs.items():
                    if turn < rounds:
                        lines, peak = run(command)
                        seconds[name] += [line["median_ms"] / 1e3 for line in lines if "median_ms" in line]
                        memory[name] = max(memory[name], peak)
            own = median(seconds["clipood"])
            for name, values in seconds.items():
                found = median(values)
                print(f"{classes:7}  {method:8}{name:38}{found:8.3f}{found / own:11.2f}{memory[name]:10.2f}", flush=True)


if __name__ == "__main__":
    main()
