"""Makes frontier.safetensors: scores of the frontier's detectors in plain numpy, in f64.

python3 make_frontier.py frontier.safetensors     (numpy, safetensors, blake3)

The permutations before grouping and before a queue is filled are those of clipood's generator, `SplitMix64::keyed`.
"""

import sys

import numpy as np
from blake3 import blake3
from safetensors.numpy import save_file

MASK = (1 << 64) - 1


def permutation(seed, label, n):
    """`SplitMix64::keyed(seed, label, 0).shuffle(0..n)`."""
    text = label.encode()
    key = seed.to_bytes(8, "little") + len(text).to_bytes(8, "little") + text + bytes(8)
    state = int.from_bytes(blake3(key).digest()[:8], "little")
    items = list(range(n))
    for last in range(n - 1, 0, -1):
        bound = last + 1
        while True:
            state = (state + 0x9E3779B97F4A7C15) & MASK
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            product = (z ^ (z >> 31)) * bound
            if product & MASK >= (1 << 64) % bound:
                break
        other = product >> 64
        items[last], items[other] = items[other], items[last]
    return np.array(items)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def group_mass(own, negative, groups, order, mean_of_group=False):
    """NegLabel's score of logits, or TINS' with the mean of each group times the number of classes."""
    size = negative.shape[1] // groups
    scores = []
    for group in order[: size * groups].reshape(groups, size):
        out = np.exp(negative[:, group] - own.max(axis=1, keepdims=True))
        inside = np.exp(own - own.max(axis=1, keepdims=True)).sum(axis=1)
        out = own.shape[1] * out.mean(axis=1) if mean_of_group else out.sum(axis=1)
        scores.append(inside / (inside + out))
    return np.mean(scores, axis=0)


def oodd(images, text, order, t, queue, k, batch):
    mcm = softmax(images @ text.T / t).max(axis=1)
    kept = []  # (mcm, arrival, row)
    scores = np.zeros(len(images))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        for arrival, row in enumerate(rows, start):
            kept.append((mcm[row], arrival, row))
            if len(kept) > queue:
                kept.remove(max(kept))
        cosines = np.sort(images[rows] @ images[[row for _, _, row in kept]].T, axis=1)
        scores[rows] = mcm[rows] - cosines[:, -min(k, len(kept))]
    return scores


def adaneg(images, text, negative, order, groups, slots, threshold, gap, lam, beta, batch):
    classes = len(text)
    permuted = permutation(0, "neglabel groups", len(negative))
    memories = [[(row, 0.0)] for row in np.concatenate([text, negative])]
    scores = np.zeros(len(images))
    admitted = replaced = 0

    def entropy(logits):
        p = softmax(logits)
        return -(p * np.log(np.maximum(p, 1e-300))).sum()

    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        f = images[rows]
        own, neg = 100 * f @ text.T, 100 * f @ negative.T
        plain = group_mass(own, neg, groups, permuted)
        for i, s in enumerate(plain):
            if s > threshold + gap * (1 - threshold):
                place, h = own[i].argmax(), entropy(own[i])
            elif s < threshold - gap * threshold:
                place, h = classes + neg[i].argmax(), entropy(neg[i])
            else:
                continue
            memory = memories[place]
            if len(memory) < slots:
                memory.append((f[i], h))
                admitted += 1
            elif len(memory) > 1:
                largest = max(range(1, len(memory)), key=lambda j: memory[j][1])
                if h < memory[largest][1]:
                    memory[largest] = (f[i], h)
                    replaced += 1
        cosines = np.zeros((len(rows), len(memories)))
        for place, memory in enumerate(memories):
            m = np.array([row for row, _ in memory])
            weights = np.exp(-beta * (1 - f @ m.T))
            proxies = unit(weights @ m)
            cosines[:, place] = (f * proxies).sum(axis=1)
        adapted = group_mass(100 * cosines[:, :classes], 100 * cosines[:, classes:], groups, permuted)
        scores[rows] = adapted + lam * plain
    print(f"adaneg: {admitted} admitted, {replaced} replaced")
    assert admitted > 30 and replaced > 5
    return scores


def otsu(scores):
    grid = np.arange(100) * 0.01
    inside = np.full(100, np.inf)
    for i, t in enumerate(grid):
        low, high = scores[scores < t], scores[scores >= t]
        if len(low) and len(high):
            # Sorted, so that equal parts give equal sums.
            low, high = np.sort(low), np.sort(high)
            inside[i] = len(low) * low.var() + len(high) * high.var()
    best = np.flatnonzero(inside == inside.min())
    return grid[best[len(best) // 2]]


def tanl(images, text, words, noise, order, count, queue, gap, alpha, kept_scores, batch):
    classes = len(text)
    everything = np.concatenate([text, words])

    def activation(f):
        return softmax(100 * f @ everything.T)[:, classes:]

    def ranking(negative, positive):
        return np.argsort(-(negative - positive), kind="stable")[:count]

    def mass(f, chosen):
        own = 100 * f @ text.T
        top = own.max(axis=1, keepdims=True)
        inside = np.exp(own - top).sum(axis=1, keepdims=True)
        outside = np.cumsum(np.exp(100 * f @ words[chosen].T - top), axis=1)
        return (inside / (inside + outside)).mean(axis=1)

    shuffled = permutation(0, "tanl queue", classes)
    positive = list(activation(text)[shuffled])[-queue:]
    negative = list(activation(noise))[-queue:]
    first = ranking(np.mean(negative, axis=0), np.mean(positive, axis=0))
    seen = list(mass(text, first)) + list(mass(noise, first))
    scores = np.zeros(len(images))
    taken = [0, 0]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        f = images[rows]
        act = activation(f)
        p, n = np.mean(positive, axis=0), np.mean(negative, axis=0)
        before = mass(f, ranking(n, p))
        seen = (seen + list(before))[-kept_scores:]
        t = otsu(np.array(seen))
        inside, outside = before > t + gap * (1 - t), before < t - gap * t
        # No score may lie so near to a bound that rounding decides.
        for bound in (t + gap * (1 - t), t - gap * t):
            assert np.abs(before - bound).min() > 1e-6
        if inside.any():
            p = alpha * p + (1 - alpha) * act[inside].mean(axis=0)
        if outside.any():
            n = alpha * n + (1 - alpha) * act[outside].mean(axis=0)
        scores[rows] = mass(f, ranking(n, p))
        positive = (positive + list(act[inside]))[-queue:]
        negative = (negative + list(act[outside]))[-queue:]
        taken[0] += inside.sum()
        taken[1] += outside.sum()
    print(f"tanl: {taken} taken")
    assert min(taken) > 20
    return scores


def main():
    rng = np.random.default_rng(20261127)
    classes, words, dim, shots, patches = 7, 43, 24, 5, 6
    id_images, ood_images = 160, 90

    def texts(n):
        common = np.zeros(dim)
        common[0] = 3.0
        return common + rng.normal(size=(n, dim)) * 0.6

    text, negative, outliers = texts(classes), texts(words), texts(9)

    def pictures(of, sharpness):
        common = np.zeros(dim)
        common[1] = 3.0
        return (common + sharpness * 0.5 * (of - of.mean(axis=1, keepdims=True)) + 0.35 * rng.normal(size=of.shape)) * rng.uniform(
            5, 12, size=(len(of), 1)
        )

    labels = np.repeat(np.arange(classes), shots)
    arrays = {
        "text": text,
        "zero_shot": text + 0.2 * rng.normal(size=text.shape),
        "negative_text": negative,
        "outliers": outliers,
        # Words of all distances from the classes, for the inter-modal choice.
        "candidates": text[rng.integers(0, classes, size=60)] + rng.uniform(0.0, 1.2, size=(60, 1)) * rng.normal(size=(60, dim)),
        "noise": pictures(rng.normal(size=(15, dim)) * 0.6 + text.mean(axis=0), 0.3),
        "train": pictures(text[labels], 1.0),
        "probe_weights": 0.4 * rng.normal(size=(classes, dim)),
        "probe_biases": rng.normal(size=classes),
        "images": np.concatenate(
            [
                pictures(text[rng.integers(0, classes, size=id_images)], 1.0),
                pictures(negative[rng.integers(0, words, size=ood_images)], 1.0),
            ]
        ),
    }
    # Patches [images, patches, dim] are noisy copies of the image.
    images = arrays["images"]
    arrays["local"] = images[:, None] + 3.0 * rng.normal(size=(len(images), patches, dim))
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    f, t, n, o = (unit(wide[name]) for name in ("images", "text", "negative_text", "outliers"))
    zero, noise, local, train = (unit(wide[name]) for name in ("zero_shot", "noise", "local", "train"))
    order = rng.permutation(len(f))
    own, neg = 100 * f @ t.T, 100 * f @ n.T

    expected = {}
    permuted = permutation(0, "neglabel groups", words)
    expected["inter_modal:groups=3"] = group_mass(own, neg, 3, np.arange(words))
    expected["tins"] = group_mass(own, neg, 5, permuted, mean_of_group=True)
    for temperature, beta in ((1.0, 0.25), (0.05, 0.75)):
        p = softmax(np.concatenate([f @ t.T, f @ o.T], axis=1) / temperature)
        name = "eoe" if temperature == 1.0 else f"eoe:t={temperature}:beta={beta}"
        expected[name] = p[:, :classes].max(axis=1) - beta * p[:, classes:].max(axis=1)
    for temperature, topk, count in ((1.0, 10, 300), (0.05, 4, 11)):
        head = softmax(f @ t.T / temperature).max(axis=1)
        both = np.concatenate([local @ t.T, local @ n[:count].T], axis=2) / temperature
        share = softmax(both)[:, :, :classes].reshape(len(f), -1)
        name = "r_mcm" if temperature == 1.0 else f"r_mcm:t={temperature}:topk={topk}:count={count}"
        expected[name] = head + np.sort(share, axis=1)[:, -topk:].mean(axis=1)
    for temperature in (1.0, 0.05):
        p = softmax(np.concatenate([f @ t.T, f @ n.T], axis=1) / temperature)
        name = "negprompt" if temperature == 1.0 else f"negprompt:t={temperature}"
        expected[name] = p[:, :classes].max(axis=1)
    probe = wide["images"] @ wide["probe_weights"].T + wide["probe_biases"]
    mean = (softmax(own) + softmax(100 * f @ zero.T) + softmax(probe)) / 3
    expected["cooked"] = mean.max(axis=1)
    expected["cooked:score=neg_entropy"] = (mean * np.log(np.maximum(mean, 1e-300))).sum(axis=1)

    expected["oodd"] = oodd(f, t, order, 1.0, 2048, 5, 64)
    expected["oodd:t=0.1:queue=20:k=3:batch=16"] = oodd(f, t, order, 0.1, 20, 3, 16)
    adaneg_default = dict(groups=5, slots=10, threshold=0.5, gap=0.5, lam=0.1, beta=0.0, batch=256)
    for name, change in (
        ("adaneg:slots=4:batch=32", dict(slots=4, batch=32)),
        ("adaneg:groups=3:slots=4:threshold=0.6:gap=0.3:lambda=0.5:batch=16",
         dict(groups=3, slots=4, threshold=0.6, gap=0.3, lam=0.5, batch=16)),
        ("adaneg:slots=4:beta=5:batch=32", dict(slots=4, beta=5.0, batch=32)),
    ):
        expected[name] = adaneg(f, t, n, order, **{**adaneg_default, **change})
    tanl_default = dict(count=1000, queue=300, gap=0.5, alpha=0.0, kept_scores=20000, batch=256)
    for name, change in (
        ("tanl:words=12:batch=32", dict(count=12, batch=32)),
        ("tanl:words=9:queue=11:gap=0.2:alpha=0.95:scores=100:batch=16",
         dict(count=9, queue=11, gap=0.2, alpha=0.95, kept_scores=100, batch=16)),
    ):
        expected[name] = tanl(f, t, n, noise, order, **{**tanl_default, **change})

    # Inter-modal labels: rows of the candidates and their distances, the farthest first.
    prototypes = unit(np.array([train[labels == c].mean(axis=0) for c in range(classes)]))
    base = (t * prototypes).sum(axis=1)
    cosines = unit(wide["candidates"]) @ prototypes.T
    kept = np.flatnonzero((cosines < base).all(axis=1))
    distance = (base - cosines[kept]).mean(axis=1)
    ranked = kept[np.argsort(-distance, kind="stable")]
    print(f"inter-modal: {len(kept)} of {len(cosines)} kept")
    assert 5 < len(kept) < len(cosines) - 5
    arrays["inter_modal.rows"] = ranked.astype(np.float32)
    arrays["inter_modal.distances"] = np.sort(distance)[::-1].astype(np.float32)
    arrays["train_labels"] = labels.astype(np.float32)
    arrays["order"] = order.astype(np.float32)
    for name, scores in expected.items():
        spread = scores[:id_images].mean() - scores[id_images:].mean()
        print(f"{name}: {scores.min():.4f} to {scores.max():.4f}, ID - OOD {spread:.4f}")
        arrays[f"expected/{name}"] = scores.astype(np.float32)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, sys.argv[1])


main()
