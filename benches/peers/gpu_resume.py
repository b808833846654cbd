"""Whether a training that is killed and resumed ends with equal bits: python gpu_resume.py CLIPOOD DEVICE FOLDER [--kills N]

Trains LoCoOp on the demo once without interruption, and once with SIGKILL after each of N new checkpoints, and compares the tensors of the
prompt sets byte by byte (the metadata has no order, and a seal over it). A JSON object.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path


def prompts(store):
    """The tensors of the finished prompt sets of a store."""
    return {path.parent.name: tensors(path.read_bytes()) for path in store.glob("prompts/*/prompt.safetensors")}


def tensors(file):
    """Names, types and places of the tensors of a safetensors file, and their bytes."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header.pop("__metadata__", None)
    return header, file[end:]


def checkpoints(store):
    """When the checkpoints of a store were written; they are removed when a training is finished."""
    found = {}
    for path in store.glob("prompts/**/checkpoint.safetensors"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            pass
    return found


def recipe(clipood, folder):
    """The demo's recipe with LoCoOp alone and a checkpoint after every second step."""
    shown = subprocess.run([clipood, "recipes", "--show", "demo"], check=True, capture_output=True, text=True).stdout
    text = shown.replace('methods = ["zero-shot", "coop", "locoop"]', 'methods = ["locoop"]').replace("[engine]", "[engine]\ncheckpoint_steps = 2")
    if text.count("checkpoint_steps") != 1 or '"zero-shot"' in text:
        sys.exit("the demo's recipe has another form")
    path = folder / "resume.toml"
    path.write_text(text)
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clipood")
    parser.add_argument("device")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    path = recipe(args.clipood, args.folder)

    def command(name):
        places = ["--run", str(args.folder / f"run-{name}"), "--store", str(args.folder / name)]
        return [args.clipood, "run", str(path), "--devices", args.device, *places]

    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(command("whole"), check=True, stdout=subprocess.DEVNULL)
    cut, kills = args.folder / "cut", 0
    while kills < args.kills:
        before = checkpoints(cut)
        process = subprocess.Popen(command("cut"), **quiet)
        while process.poll() is None and checkpoints(cut) == before:
            time.sleep(0.001)
        if process.poll() is not None:
            break  # it ended before it wrote another checkpoint
        process.kill()
        process.wait()
        kills += 1
    subprocess.run(command("cut"), check=True, stdout=subprocess.DEVNULL)
    whole, resumed = prompts(args.folder / "whole"), prompts(cut)
    why = ""
    if kills == 0:
        why = "no training was killed"
    elif not whole or whole.keys() != resumed.keys():
        why = f"prompt sets {sorted(whole)} and {sorted(resumed)}"
    elif whole != resumed:
        why = "the prompt sets differ"
    print(json.dumps(dict(bench="resume", device=args.device, kills=kills, equal=not why, why=why)))
    sys.exit(1 if why else 0)


if __name__ == "__main__":
    main()
