"""The short table of scripts/gpu-check.sh from the lines its steps wrote: python gpu_table.py FOLDER. Ends with 1 where a check failed."""

import json
import re
import sys
from pathlib import Path

AUROC_LIMIT = 0.2  # percent


def lines(folder):
    found = []
    for file in sorted(folder.glob("*.jsonl")):
        for text in file.read_text().splitlines():
            try:
                found.append(json.loads(text) | {"file": file.stem})
            except json.JSONDecodeError:
                print(f"{file.name}: not a measurement: {text[:100]}")
    return found


def figures(path):
    """The numbers of the AUROC table that `clipood run` prints."""
    text = path.read_text()
    start, end = text.find("AUROC of every detector"), text.find("accuracy on the ID images")
    return [float(n) for n in re.findall(r"(?<![\w.])\d+\.\d+", text[start:end])] if 0 <= start < end else []


def compare_runs(folder):
    ours, cpu = (figures(folder / f"demo-{name}.txt") if (folder / f"demo-{name}.txt").exists() else [] for name in ("device", "cpu"))
    if not cpu or len(ours) != len(cpu):
        return False, f"no table to compare: {len(ours)} and {len(cpu)} figures"
    off = max(abs(a - b) for a, b in zip(ours, cpu))
    # The figures are rounded to one decimal, so two of them may be 0.1 further apart than they are.
    return off <= AUROC_LIMIT + 0.1001, f"AUROC of a run on the device and on the CPU: {len(cpu)} figures, at most {off:.1f} percent points apart"


def main():
    folder = Path(sys.argv[1])
    found = lines(folder)
    good = True

    def of(bench, steps=None):
        """Lines of one kind, of some steps only."""
        return [line for line in found if line.get("bench") == bench and (not steps or re.fullmatch(steps, line["file"]))]

    def check(passed, text):
        nonlocal good
        good &= passed
        print(f"{'ok    ' if passed else 'FAILED'} {text}")

    print("correctness")
    for bench in ("agreement", "prompt-agreement", "torch-agreement"):
        if not of(bench):
            check(False, f"{bench}: no result")
        for line in of(bench):
            name = " ".join(str(line[key]) for key in ("bench", "model", "device", "dtype", "method") if key in line)
            keys = ("relative_difference", "smallest_cosine", "loss_difference", "gradient_difference", "gradient_cosine", "context_difference")
            values = ", ".join(f"{key} {line[key]:.3g}" if line[key] < 0.9 else f"{key} {line[key]:.6f}" for key in keys if key in line)
            passed = "error" not in line and line.get("relative_difference", 0) < (1e-4 if line.get("dtype", "f32") == "f32" else 1)
            check(passed, f"{name}: {line.get('error', values)}")
    check(*compare_runs(folder))
    for line in of("resume"):
        check(line["equal"], f"training of the demo on {line['device']}, killed {line['kills']} times and resumed: " + ("equal bits" if line["equal"] else line["why"]))
    if not of("resume"):
        check(False, "a killed and resumed training: no result")
    print("\nfirst features after the process starts, s")
    for line in of("start"):
        print(f"{line['model']:10} {line['dtype']:5} {line['cache']:5} {line['seconds']:6.1f}")

    peaks = {line["dtype"]: line["tflops"] for line in of("peak")}
    print(f"\npeak of a large product, TFLOP/s: {', '.join(f'{k} {v:.1f}' for k, v in peaks.items()) or 'not measured'}")
    print("\nimages/s, from bytes in memory to features")
    print(f"{'model':10} {'dtype':5} {'batch':>5} {'workers':>7} {'clipood':>9} {'sdpa':>9} {'compiled':>9} {'ratio':>6} {'of peak':>8} {'MB':>7}")
    torch_rates = {(r["model"], r["dtype"], r["batch"], r["variant"]): r.get("images_per_s") for r in of("torch-extract")}
    for line in of("extract", "extract-.*"):
        if line.get("source", "memory") != "memory":
            continue
        if "error" in line:
            check(False, f"{line['model']} {line['dtype']}: {line['error'][:200]}")
            continue
        key = (line["model"], line["dtype"], line["batch"])
        peers = [torch_rates.get((*key, variant)) for variant in ("sdpa", "compiled")]
        best = max((p for p in peers if p), default=None)
        shown = [f"{p:.0f}" if p else "-" for p in peers]
        ratio = f"{line['images_per_s'] / best:.2f}" if best else "-"
        share = f"{100 * line['tflops'] / peaks['bf16']:.0f}%" if line.get("tflops") and "bf16" in peaks else "-"
        memory = line.get("memory_in_use_mb") or "-"
        print(
            f"{key[0]:10} {key[1]:5} {key[2]:5} {line['workers']:7} {line['images_per_s']:9.0f} {shown[0]:>9} {shown[1]:>9} {ratio:>6} {share:>8} {memory:>7}"
        )
    files = [line for line in of("extract", "extract-.*") if line.get("source") == "files"]
    print("\nimages/s, decoded from JPEG files")
    for line in files:
        print(f"{line['model']:10} {line['dtype']:5} {line['batch']:5} {line.get('images_per_s', 0):9.0f} {line.get('error', '')[:200]}")
    if not files:
        print("not measured (no Pillow to make the files, or no time)")

    print("\nms a prompt step: ours, and PyTorch's with the prefix shared, the same as a graph, and 77 tokens with images encoded anew")
    print(
        f"{'method':8} {'dtype':5} {'classes':>7} {'clipood':>9} {'same':>9} {'graph':>9} {'reference':>9} {'x same':>7} {'x reference':>11} {'MB':>7} {'same MB':>8}"
    )
    measured = {(r["method"], r["dtype"], r["classes"], r["program"]): r for r in of("torch-prompt")}
    steps = {key: r.get("median_ms") for key, r in measured.items()}
    for line in of("prompt", "prompt"):
        if "error" in line:
            check(False, f"prompt {line['dtype']}: {line['error'][:200]}")
            continue
        key = (line["method"], line["dtype"], line["classes"])
        same, graph, reference = (steps.get((*key, program)) for program in ("same", "graph", "reference"))
        shown = [f"{p:.1f}" if p else "-" for p in (same, graph, reference)]
        gains = [f"{p / line['median_ms']:.1f}" if p else "-" for p in (same, reference)]
        memory = line.get("memory_in_use_mb") or "-"
        peer = measured.get((*key, "same"), {}).get("peak_memory_mb") or "-"
        print(
            f"{key[0]:8} {key[1]:5} {key[2]:7} {line['median_ms']:9.1f} {shown[0]:>9} {shown[1]:>9} {shown[2]:>9} {gains[0]:>7} {gains[1]:>11} {memory:>7} {peer:>8}"
        )
    for line in of("stand-in"):
        print(f"\nrecipe imagenet-mos, {line['images']} made-up images, {line['model']}, {line['methods']}: {line['seconds']:.0f} s")
    failed = [line for line in (folder / "steps.txt").read_text().splitlines() if not line.startswith("ok")]
    for line in failed:
        check(False, line)
    print(f"\n{'everything agrees' if good else 'something FAILED, see above'}; logs in {folder}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
