"""Images per second of the streams of OODD, AdaNeg and TANL in PyTorch, the plain way: python stream.py STREAM_SPEED

STREAM_SPEED is clipood's example of that name, which scores whole streams; PyTorch scores the first BATCHES batches of each
and is scaled up. Both use all cores and float32. SIZES are those of STREAM_SPEED.
"""

import os
import subprocess
import sys
import time

import torch

ID, OOD, CLASSES, DIM, WORDS = (int(n) for n in os.environ.get("SIZES", "50000 10000 1000 512 10000").split())
BATCHES = int(os.environ.get("BATCHES", "12"))
torch.manual_seed(0)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def rows(n, centres=None):
    x = 2 * torch.rand(n, DIM) - 1
    return unit(x + (torch.arange(DIM) % 7 * 0.2 if centres is None else centres[torch.randint(len(centres), (n,))]))


def groups(logits, order, count):
    own, negative = logits[:, :CLASSES], logits[:, CLASSES:][:, order]
    size = negative.shape[1] // count
    parts = negative[:, : size * count].reshape(len(own), count, size)
    return torch.stack([torch.cat([own, parts[:, g]], 1).softmax(1)[:, :CLASSES].sum(1) for g in range(count)]).mean(0)


def oodd(batches, text, _):
    queue, scores = torch.empty(0, DIM), torch.empty(0)
    for f in batches:
        mcm = (f @ text.T).softmax(1).amax(1)
        queue, scores = torch.cat([queue, f]), torch.cat([scores, mcm])
        keep = scores.argsort()[:2048]
        queue, scores = queue[keep], scores[keep]
        yield mcm - (f @ queue.T).topk(5, dim=1).values[:, -1]


def adaneg(batches, text, words):
    everything = torch.cat([text, words])
    memory = torch.zeros(len(everything), 11, DIM)
    memory[:, 0] = everything
    fill, entropies = [1] * len(everything), torch.zeros(len(everything), 11)
    order = torch.randperm(len(words))
    for f in batches:
        logits = 100 * f @ everything.T
        plain = groups(logits, order, 5)
        for part, first, chosen in ((logits[:, :CLASSES], 0, plain > 0.75), (logits[:, CLASSES:], CLASSES, plain < 0.25)):
            p = part.softmax(1)
            h = -(p * (p + 1e-8).log()).sum(1)
            for i in chosen.nonzero().flatten().tolist():
                place = first + int(part[i].argmax())
                slot = fill[place]
                if slot == 10:
                    slot = int(entropies[place].argmax())
                    if h[i] >= entropies[place, slot]:
                        continue
                else:
                    fill[place] += 1
                memory[place, slot], entropies[place, slot] = f[i], h[i]
        yield groups(100 * f @ unit(memory.mean(1)).T, order, 5) + 0.1 * plain


def tanl(batches, text, words):
    everything = torch.cat([text, words])
    active = lambda f: (100 * f @ everything.T).softmax(1)[:, CLASSES:]
    positive, negative = active(text)[-300:], active(rows(15))

    def mass(f, chosen):
        own, out = 100 * f @ text.T, 100 * f @ words[chosen].T
        top = own.amax(1, keepdim=True)
        inside = (own - top).exp().sum(1, keepdim=True)
        return (inside / (inside + (out - top).exp().cumsum(1))).mean(1)

    seen = torch.empty(0)
    for f in batches:
        act = active(f)
        before = mass(f, (negative.mean(0) - positive.mean(0)).argsort(descending=True)[:1000])
        seen = torch.cat([seen, before])[-20000:]
        spread = []
        for t in torch.arange(0, 1, 0.01):
            low, high = seen[seen < t], seen[seen >= t]
            inside = len(low) * low.var(unbiased=False) + len(high) * high.var(unbiased=False)
            spread.append(inside if len(low) and len(high) else torch.tensor(float("inf")))
        t = 0.01 * int(torch.stack(spread).argmin())
        chosen = before > t + 0.5 * (1 - t), before < 0.5 * t
        p = act[chosen[0]].mean(0) if chosen[0].any() else positive.mean(0)
        n = act[chosen[1]].mean(0) if chosen[1].any() else negative.mean(0)
        yield mass(f, (n - p).argsort(descending=True)[:1000])
        positive, negative = torch.cat([positive, act[chosen[0]]])[-300:], torch.cat([negative, act[chosen[1]]])[-300:]


def main():
    subprocess.run([sys.argv[1], *map(str, (ID, OOD, CLASSES, DIM, WORDS))], check=True)
    text, words = rows(CLASSES), rows(WORDS)
    images = torch.cat([rows(ID, text)[: 256 * BATCHES], rows(OOD, words)[: 64 * BATCHES]])
    images = images[torch.randperm(len(images))]
    with torch.inference_mode():
        for run, size in ((oodd, 64), (adaneg, 256), (tanl, 256)):
            batches = images[: size * BATCHES].split(size)
            start = time.perf_counter()
            for _ in run(batches, text, words):
                pass
            seconds = time.perf_counter() - start
            scaled = seconds * (ID + OOD) / sum(len(b) for b in batches)
            print(f"PyTorch {run.__name__}: {scaled:.1f} s (scaled up from {len(batches)} batches)")


main()
