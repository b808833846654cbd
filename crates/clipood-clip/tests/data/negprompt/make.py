"""Makes expected.safetensors: NegPrompt's loss, its gradient and its learning rates in plain numpy, in f64.

python3 make.py expected.safetensors     (numpy, safetensors)

The terms are written out class by class and image by image, as the definitions have them. Gradients are central differences.
"""

import sys

import numpy as np
from safetensors.numpy import save_file

CLASSES, PER_CLASS, DIM, BATCH = 5, 3, 8, 6
SCALE, DISTANCE, DIVERSITY = 20.0, 0.1, 0.05


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def images_term(positive, negative, images, labels):
    """Multi-label soft margin: 1 is asked for of all texts of the label, 0 of all others."""
    total = 0.0
    for image, label in zip(images, labels):
        terms = []
        for c in range(CLASSES):
            for text in [positive[c], *negative[:, c]]:
                x = SCALE * image @ text
                terms.append(-log_sigmoid(x) if c == label else -log_sigmoid(-x))
        total += np.mean(terms)
    return total / len(images)


def distance_term(positive, negative):
    each = [np.mean([1.0 - positive[c] @ text for text in negative[:, c]]) for c in range(CLASSES)]
    return -np.mean(each)


def diversity_term(negative):
    each = []
    for c in range(CLASSES):
        length_of_mean = np.linalg.norm(negative[:, c].mean(axis=0))
        lengths = np.linalg.norm(negative[:, c], axis=-1)
        each.append(-np.mean(1.0 - lengths * length_of_mean))
    return np.mean(each)


def loss(raw, positive, images, labels):
    negative = unit(raw)
    return (
        images_term(positive, negative, images, labels)
        + DISTANCE * distance_term(positive, negative)
        + DIVERSITY * diversity_term(negative)
    )


def rates(base, fall, epochs, steps):
    """PyTorch's CosineAnnealingLR to 0, in its recursive form, advanced after every step and after every epoch."""
    rate, tick, used = base, 0, []
    for _ in range(epochs):
        for last in [False] * steps + [True]:
            if not last:
                used.append(rate)
            tick += 1
            if (tick - 1 - fall) % (2 * fall) == 0:
                rate += base * (1 - np.cos(np.pi / fall)) / 2
            else:
                rate *= (1 + np.cos(np.pi * tick / fall)) / (1 + np.cos(np.pi * (tick - 1) / fall))
    return np.array(used)


def main(path):
    rng = np.random.default_rng(7)
    # Cosines of texts and images are mostly positive, as CLIP's are.
    raw = rng.normal(size=(PER_CLASS, CLASSES, DIM)) + 0.5
    positive = unit(rng.normal(size=(CLASSES, DIM)) + 0.5)
    images = unit(rng.normal(size=(BATCH, DIM)) + 0.5)
    labels = np.array([0, 3, 1, 4, 3, 2])
    raw, positive, images = (x.astype(np.float32).astype(np.float64) for x in (raw, positive, images))
    gradient, step = np.zeros_like(raw), 1e-6
    for at in np.ndindex(raw.shape):
        up, down = raw.copy(), raw.copy()
        up[at] += step
        down[at] -= step
        difference = loss(up, positive, images, labels) - loss(down, positive, images, labels)
        gradient[at] = difference / (2 * step)
    negative = unit(raw)
    arrays = {
        "raw": raw,
        "positive": positive,
        "images": images,
        "labels": labels,
        "scale": np.array([SCALE]),
        "weights": np.array([DISTANCE, DIVERSITY]),
        "terms": np.array(
            [
                images_term(positive, negative, images, labels),
                distance_term(positive, negative),
                diversity_term(negative),
            ]
        ),
        "loss": np.array([loss(raw, positive, images, labels)]),
        "gradient": gradient,
        "rates": rates(0.1, 7, 5, 6),
    }
    save_file({name: values.astype(np.float32) for name, values in arrays.items()}, path)


if __name__ == "__main__":
    main(sys.argv[1])
