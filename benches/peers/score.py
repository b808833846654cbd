"""Seconds of a pass of detectors over features, clipood beside numpy, PyTorch and faiss: python score.py SCORE_SPEED METRICS_SPEED

SCORE_SPEED and METRICS_SPEED are clipood's examples of that name. Every program scores the same number of random images in
chunks that stay in memory, in float32, with all cores; faiss answers the search of `knn` alone, scikit-learn the metrics.
Fitting is not timed. The peers are written the plain way: one product a bank of vectors, then the formula of each detector.
"""

import os
import re
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch
from torch.nn import functional as F

IMAGES, CLASSES, DIM, SHOTS = (int(n) for n in os.environ.get("SIZES", "100000 1000 512 4000").split())
ROUNDS, CHUNK, K, VIM = int(os.environ.get("ROUNDS", "3")), 4096, 50, 256
SETS = ["mcm", "detectors on cosines", "knn", "detectors on other texts", "all but one_class_svm"]
COSINES, NEAREST, TEXTS, ALL = SETS[1:]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def data():
    rng = np.random.default_rng(1)
    rows = lambda n: rng.standard_normal((n, DIM), dtype=np.float32) + np.arange(DIM, dtype=np.float32) % 7 * 0.2
    images, text, negative, train = rows(IMAGES), unit(rows(CLASSES)), unit(rows(2 * CLASSES)), unit(rows(SHOTS))
    other = unit(rows(CLASSES))
    means = train.reshape(-1, CLASSES, DIM).mean(0)
    centred = train - np.tile(means, (SHOTS // CLASSES, 1))
    precision = np.linalg.inv(centred.T @ centred / SHOTS + 1e-4 * np.eye(DIM)).astype(np.float32)
    values, vectors = np.linalg.eigh(train.T @ train)
    c = train @ text.T / 0.1
    q = np.exp(c - c.max(1, keepdims=True))
    q = (q / q.sum(1, keepdims=True)).reshape(-1, CLASSES, CLASSES).mean(0)
    return dict(
        images=images, text=text, negative=negative, other=other, train=train, means=means, mean=train.mean(0), precision=precision,
        null=np.ascontiguousarray(vectors[:, : DIM - VIM]).astype(np.float32), patterns=q, entropy=(q * np.log(q)).sum(1),
    )


def numpy_pass(d, what):
    def softmax(x):
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def lse(x):
        m = x.max(1)
        return m + np.log(np.exp(x - m[:, None]).sum(1))

    out = []
    for at in range(0, IMAGES, CHUNK):
        f = unit(d["images"][at : at + CHUNK])
        scores = []
        if what != NEAREST:
            c = f @ d["text"].T
            scores.append(softmax(c).max(1))
        if what in (COSINES, ALL):
            p = softmax(100 * c)
            top = np.sort(p, axis=1)[:, -100:]
            scores += [softmax(c / 0.1).max(1), p.max(1), 100 * c.max(1), c.max(1), lse(100 * c), lse(c)]
            scores += [(p * np.log(p + 1e-30)).sum(1), -(top**0.1 * (1 - top) ** 0.1).sum(1)]
        if what in (NEAREST, ALL):
            near = np.partition(2 - 2 * f @ d["train"].T, K - 1, axis=1)[:, K - 1]
            scores.append(-np.sqrt(np.maximum(near, 0)))
        if what == ALL:
            fp, mp = f @ d["precision"], d["means"] @ d["precision"]
            own = (f * fp).sum(1)
            scores.append(-(own[:, None] - 2 * fp @ d["means"].T + (mp * d["means"]).sum(1)).min(1))
            g = f - d["mean"]
            scores.append(scores[-1] + (g @ d["precision"] * g).sum(1))
            residual = np.linalg.norm(f @ d["null"], axis=1)
            scores += [-residual, lse(100 * c) - 30 * residual]
            n = f @ d["negative"].T
            top = c.max(1, keepdims=True)
            id_mass = np.exp(100 * (c - top)).sum(1)
            groups = np.exp(100 * (n - top)).reshape(len(f), 10, -1).sum(2)
            scores.append((id_mass[:, None] / (id_mass[:, None] + groups)).mean(1))
            scores.append(-(d["entropy"] - np.log(softmax(c / 0.1)) @ d["patterns"].T).min(1))
        if what in (TEXTS, ALL):
            n = f @ d["negative"].T
            top = c.max(1, keepdims=True)
            id_mass = np.exp(100 * (c - top)).sum(1)[:, None]
            groups = np.exp(100 * (n - top)).reshape(len(f), 5, -1)
            scores.append((id_mass / (id_mass + groups.sum((1, 2))[:, None])).mean(1))
            scores.append((id_mass / (id_mass + CLASSES * groups.mean(2))).mean(1))
            p = softmax(np.concatenate([c, n], 1))
            scores += [p[:, :CLASSES].max(1) - 0.25 * p[:, CLASSES:].max(1), p[:, :CLASSES].max(1)]
            scores.append((softmax(100 * c) / 2 + softmax(100 * f @ d["other"].T) / 2).max(1))
        out.append(np.stack(scores))
    return out


def torch_pass(d, what):
    out = []
    for at in range(0, IMAGES, CHUNK):
        f = F.normalize(d["images"][at : at + CHUNK])
        scores = []
        if what != NEAREST:
            c = f @ d["text"].T
            scores.append(c.softmax(1).amax(1))
        if what in (COSINES, ALL):
            p = (100 * c).softmax(1)
            top = p.topk(100, dim=1, sorted=False).values
            scores += [(c / 0.1).softmax(1).amax(1), p.amax(1), 100 * c.amax(1), c.amax(1), (100 * c).logsumexp(1)]
            scores += [c.logsumexp(1), torch.special.xlogy(p, p).sum(1), -(top**0.1 * (1 - top) ** 0.1).sum(1)]
        if what in (NEAREST, ALL):
            near = (2 - 2 * f @ d["train"].T).topk(K, dim=1, largest=False).values[:, -1]
            scores.append(-near.clamp(min=0).sqrt())
        if what == ALL:
            fp, mp = f @ d["precision"], d["means"] @ d["precision"]
            own = (f * fp).sum(1)
            scores.append(-(own[:, None] - 2 * fp @ d["means"].T + (mp * d["means"]).sum(1)).amin(1))
            g = f - d["mean"]
            scores.append(scores[-1] + (g @ d["precision"] * g).sum(1))
            residual = (f @ d["null"]).norm(dim=1)
            scores += [-residual, (100 * c).logsumexp(1) - 30 * residual]
            n = f @ d["negative"].T
            top = c.amax(1, keepdim=True)
            id_mass = (100 * (c - top)).exp().sum(1)
            groups = (100 * (n - top)).exp().view(len(f), 10, -1).sum(2)
            scores.append((id_mass[:, None] / (id_mass[:, None] + groups)).mean(1))
            scores.append(-(d["entropy"] - (c / 0.1).log_softmax(1) @ d["patterns"].T).amin(1))
        if what in (TEXTS, ALL):
            n = f @ d["negative"].T
            top = c.amax(1, keepdim=True)
            id_mass = (100 * (c - top)).exp().sum(1)[:, None]
            groups = (100 * (n - top)).exp().view(len(f), 5, -1)
            scores.append((id_mass / (id_mass + groups.sum((1, 2))[:, None])).mean(1))
            scores.append((id_mass / (id_mass + CLASSES * groups.mean(2))).mean(1))
            p = torch.cat([c, n], 1).softmax(1)
            scores += [p[:, :CLASSES].amax(1) - 0.25 * p[:, CLASSES:].amax(1), p[:, :CLASSES].amax(1)]
            scores.append(((100 * c).softmax(1) / 2 + (100 * f @ d["other"].T).softmax(1) / 2).amax(1))
        out.append(torch.stack(scores))
    return out


def faiss_pass(d):
    import faiss

    index = faiss.IndexFlatL2(DIM)
    index.add(d["train"])
    images = unit(d["images"])
    start = time.perf_counter()
    for at in range(0, IMAGES, CHUNK):
        index.search(images[at : at + CHUNK], K)
    return time.perf_counter() - start


def sklearn_metrics(n):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.random(n // 2) + 0.25, rng.random(n - n // 2)]).astype(np.float32)
    labels = np.arange(n) < n // 2
    start = time.perf_counter()
    roc_auc_score(labels, scores)
    roc_curve(labels, scores)
    average_precision_score(labels, scores)
    average_precision_score(~labels, -scores)
    return time.perf_counter() - start


def clipood(command, pattern):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    found = {name.strip(): float(seconds) for name, seconds in re.findall(pattern, text)}
    return found, usage.ru_maxrss / 2**20


def main():
    score_speed, metrics_speed = sys.argv[1:3]
    d = data()
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)).float() for name, x in d.items()}
    seconds = {}
    note = lambda what, who, value: seconds.setdefault((what, who), []).append(value)
    peak = 0.0
    for _ in range(ROUNDS):
        sizes = [str(n) for n in (IMAGES, CLASSES, DIM, SHOTS // CLASSES)]
        pattern = r"(?m)^(?:\d+ x \d+ x \d+, )?(.+?)(?: \(\d+\)| alone): ([\d.]+) s"
        found, peak = clipood([score_speed, *sizes], pattern)
        for what in SETS:
            note(what, "clipood", found[what])
        for what in SETS:
            for who, run, given in (("numpy", numpy_pass, d), ("PyTorch", torch_pass, tensors)):
                start = time.perf_counter()
                with torch.inference_mode():
                    run(given, what)
                note(what, who, time.perf_counter() - start)
        note("knn", "faiss IndexFlatL2", faiss_pass(d))
        scores = 10_000_000
        found, _ = clipood([metrics_speed, str(scores)], r"(\d+ f32 scores), every figure: ([\d.]+) s")
        note("metrics of 10^7 scores", "clipood", found[f"{scores} f32 scores"])
    note("metrics of 10^7 scores", "scikit-learn", sklearn_metrics(scores))
    print(f"median of {ROUNDS} rounds in turns, {os.cpu_count()} cores; {IMAGES} images, {CLASSES} classes, {DIM} dimensions, {SHOTS} shots")
    print(f"{'what':26}{'program':20}{'seconds':>9}{'x clipood':>11}")
    for (what, who), values in sorted(seconds.items(), key=lambda item: [*SETS, "metrics of 10^7 scores"].index(item[0][0])):
        own = median(seconds[what, "clipood"])
        print(f"{what:26}{who:20}{median(values):9.2f}{median(values) / own:11.2f}")
    print(f"peak memory of clipood, all features included: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
