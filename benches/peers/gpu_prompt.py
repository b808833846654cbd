"""Milliseconds of a prompt step in PyTorch: python gpu_prompt.py --device cuda --methods coop,locoop --classes 1000

Programs for each method. `reference` does what LoCoOp's own training does for a batch of 32: the frozen image tower on fresh views, all 77
tokens of every class forward and backward. It is faster than LoCoOp's code, which takes the local branch in every layer of both towers and has no
fused attention. `text` is `reference` with the views' features cached. `same` does what clipood does: cached features, tokens cut, the shared prefix once;
`graph` is `same` captured as a CUDA graph, the fastest that PyTorch does here. A JSON object a line.
"""

import argparse
import json
import time

import torch
from torch.nn import functional as F

from gpu_models import CONTEXT, DTYPES, SIDE, TextTower, image_tower, normalised

IMAGES, N_CTX, OWN, LAMBDA, SCALE = 32, 16, 5, 0.25, 100.0


def loss_of(method, text, image, local, labels, top_k):
    """CoOp's cross entropy, LoCoOp's entropy of patches whose label is not among the first K classes, and SCT's weights of both."""
    text, image = (F.normalize(x.float(), dim=-1) for x in (text, image))
    own = -F.cross_entropy(SCALE * image @ text.T, labels, reduction="none")
    if method == "coop":
        return -own.mean()
    probability = own.exp()
    loss = -(own * (1.0000001 - probability)).mean() if method == "sct" else -own.mean()
    logits = SCALE * F.normalize(local.float(), dim=-1) @ text.T
    probabilities = logits.softmax(-1)
    own = logits.gather(-1, labels[:, None, None].expand(-1, logits.shape[1], 1))
    chosen = (logits > own).sum(-1) >= top_k
    entropy = (probabilities * (probabilities + 1e-5).log()).sum(-1)
    if method == "sct":
        entropy = entropy * (1e-7 + probability)[:, None]
    return loss + LAMBDA * (entropy * chosen).sum() / chosen.sum().clamp(min=1)


def captured(step):
    """The step as a CUDA graph; a call returns the loss, which the graph overwrites."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def run():
        graph.replay()
        return loss

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--dtypes", default="bf16,f16,f32")
    parser.add_argument("--methods", default="coop,locoop,sct")
    parser.add_argument("--programs", default="same,graph,reference")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm", type=int, default=3, help="steps before the first one that is timed")
    args = parser.parse_args()
    device, classes = args.device, args.classes
    # clipood's kernels take the tensor cores' TF32 for float32, too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(1)
    labels = torch.randint(0, classes, (IMAGES,), device=device)
    pixels = torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
    for kind in args.dtypes.split(","):
        dtype = DTYPES[kind]
        text = TextTower(args.model).to(device, dtype).requires_grad_(False)
        tower = image_tower(args.model).to(device, dtype).eval().requires_grad_(False)
        start, names = (torch.randn(n, text.width, device=device, dtype=dtype) * 0.01 for n in (1, classes * OWN))
        names = names.view(classes, OWN, -1)
        rest = torch.zeros(classes, CONTEXT - 1 - N_CTX - OWN, text.width, device=device, dtype=dtype)
        with torch.inference_mode():
            cached = [x.clone() for x in tower(normalised(pixels.to(device), dtype), local=True)]
        cached = [x.clone() for x in cached]
        for method in args.methods.split(","):
            for program in args.programs.split(","):
                if program == "graph" and device != "cuda":
                    continue
                context = (torch.randn(N_CTX, text.width, device=device) * 0.02).requires_grad_()
                optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9, weight_decay=5e-4)

                def step():
                    prefix = torch.cat([start, context.to(dtype)])
                    image, local = cached
                    if program == "reference":
                        with torch.no_grad():
                            views = normalised(pixels.to(device), dtype)
                            image, local = (tower(views), None) if method == "coop" else tower(views, local=True)
                    if program in ("reference", "text"):
                        prompts = torch.cat([prefix.expand(classes, -1, -1), names, rest], 1)
                        ends = torch.full((classes,), N_CTX + OWN, device=device)
                        features = text(prompts, ends)
                    else:
                        ends = torch.full((classes,), OWN - 1, device=device)
                        features = text.shared(prefix[None], names, ends)
                    loss = loss_of(method, features, image, local, labels, max(classes // 5, 1))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    return loss

                line = dict(bench="torch-prompt", model=args.model, dtype=kind, method=method, program=program, classes=classes)
                try:
                    if device == "cuda":
                        torch.cuda.reset_peak_memory_stats()
                    run = captured(step) if program == "graph" else step
                    times = []
                    for _ in range(args.warm + args.steps):
                        before = time.perf_counter()
                        last = run().item()
                        times.append(time.perf_counter() - before)
                    middle = sorted(times[args.warm :])[args.steps // 2]
                    memory = torch.cuda.max_memory_allocated() // 10**6 if device == "cuda" else None
                    print(json.dumps(line | dict(median_ms=1e3 * middle, last_loss=last, peak_memory_mb=memory)), flush=True)
                except RuntimeError as error:  # out of memory, most likely
                    print(json.dumps(line | dict(error=str(error)[:300])), flush=True)


if __name__ == "__main__":
    main()
