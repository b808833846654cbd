"""Images a second of CLIP's image tower in PyTorch: python gpu_encode.py --device cuda --models ViT-B-16 --dtypes bf16 --batches 256

What `clipood bench extract` does: bytes in host memory, sent, normalised on the device, encoded with fused attention, features read back; as it
is and through `torch.compile`. With --export FOLDER (of `clipood bench extract --export`) only the features are compared. A JSON object a line.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from gpu_models import DTYPES, RESNETS, SIDE, image_tower, load_safetensors, normalised


def say(**line):
    print(json.dumps(line), flush=True)


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device):
    """The rate of one large product: what a perfect program could reach."""
    size = 8192 if device == "cuda" else 512
    for name in ("bf16", "f16", "f32"):
        a, b = (torch.randn(size, size, device=device, dtype=DTYPES[name]) for _ in range(2))
        for _ in range(3):
            a @ b
        synchronise(device)
        rounds = 20 if device == "cuda" else 2
        start = time.perf_counter()
        for _ in range(rounds):
            a @ b
        synchronise(device)
        seconds = (time.perf_counter() - start) / rounds
        say(bench="peak", dtype=name, tflops=2 * size**3 / seconds * 1e-12)


def compare(folder, device, name):
    """clipood's features from the CPU beside PyTorch's from this device, on the same parameters."""
    tensors = load_safetensors(folder / "open_clip_model.safetensors")
    tower = image_tower(name)
    # A file has no `num_batches_tracked`, which nothing reads.
    tower.load_state_dict({key.removeprefix("visual."): v for key, v in tensors.items() if key.startswith("visual.")}, strict=name not in RESNETS)
    tower = tower.to(device).eval()
    pixels = torch.frombuffer(bytearray((folder / "pixels.u8").read_bytes()), dtype=torch.uint8).view(-1, SIDE, SIDE, 3)
    expected = torch.frombuffer(bytearray((folder / "features.f32").read_bytes()), dtype=torch.float32).view(len(pixels), -1)
    with torch.inference_mode():
        found = tower(normalised(pixels.to(device), torch.float32)).cpu()
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    say(bench="torch-agreement", model=name, relative_difference=difference)
    return difference < 1e-3


def measure(tower, pixels, dtype, device, seconds):
    """Images a second and the middle pass."""

    def run():
        with torch.inference_mode():
            sent = pixels.to(device, non_blocking=True)
            return tower(normalised(sent, dtype)).float().cpu()

    for _ in range(3):
        run()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 2:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    total = time.perf_counter() - start
    return len(pixels) * len(times) / total, sorted(times)[len(times) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="ViT-B-16")
    parser.add_argument("--dtypes", default="bf16,f16,f32")
    parser.add_argument("--batches", default="256")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--export", type=Path)
    args = parser.parse_args()
    device, models = args.device, args.models.split(",")
    # Features are compared with full float32; rates with the tensor cores' TF32, which clipood's kernels take for float32, too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not args.export
    if args.export:
        sys.exit(0 if compare(args.export, device, models[0]) else 1)
    peak(device)
    for name in models:
        for kind in args.dtypes.split(","):
            dtype = DTYPES[kind]
            for variant in ["sdpa"] + ["compiled"] * args.compile:
                tower = image_tower(name).to(device, dtype).eval()
                if name in RESNETS:
                    tower = tower.to(memory_format=torch.channels_last)
                if variant == "compiled":
                    tower = torch.compile(tower)
                for batch in map(int, args.batches.split(",")):
                    pixels = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
                    line = dict(bench="torch-extract", model=name, dtype=kind, variant=variant, batch=batch)
                    try:
                        if device == "cuda":
                            pixels = pixels.pin_memory()
                            torch.cuda.reset_peak_memory_stats()
                        rate, middle = measure(tower, pixels, dtype, device, args.seconds)
                        memory = torch.cuda.max_memory_allocated() // 10**6 if device == "cuda" else None
                        say(**line, images_per_s=rate, median_ms=1e3 * middle, peak_memory_mb=memory)
                    except Exception as error:  # a compiler that does not work here is no reason to stop
                        say(**line, error=str(error)[:300])


if __name__ == "__main__":
    main()
