"""Times decoding and preprocessing of image files with Pillow on one thread: python preprocess.py ITERATIONS FILE...

The peer of the Rust example `preprocess_speed`. What torchvision's Resize, CenterCrop, ToTensor and Normalize do to a Pillow image is written out
with Pillow and numpy, without torchvision's own overhead. Of each file the smallest time of all iterations counts.
"""

import io
import sys
import time

import numpy as np
from PIL import Image, __version__

MEAN = np.array([0.481, 0.458, 0.408], np.float32)
STD = np.array([0.269, 0.261, 0.276], np.float32)


def resize_and_crop(image, side=224):
    width, height = image.size
    if width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    image = image.resize(size, Image.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return image.crop((left, top, left + side, top + side))


def normalised(view):
    pixels = np.asarray(view).astype(np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1))


def main():
    iterations, files = int(sys.argv[1]), sys.argv[2:]
    print(f"Pillow {__version__}")
    print(f"{'decode ms':>10} {'resize ms':>10} {'float ms':>10} {'total ms':>10}  file")
    total = 0.0
    for path in files:
        with open(path, "rb") as file:
            data = file.read()
        best = [float("inf")] * 3
        for _ in range(iterations):
            start = time.perf_counter()
            image = Image.open(io.BytesIO(data)).convert("RGB")
            decoded = time.perf_counter()
            view = resize_and_crop(image)
            resized = time.perf_counter()
            normalised(view)
            end = time.perf_counter()
            times = (decoded - start, resized - decoded, end - resized)
            best = [min(b, t * 1e3) for b, t in zip(best, times)]
        print(f"{best[0]:10.3f} {best[1]:10.3f} {best[2]:10.3f} {sum(best):10.3f}  {path}")
        total += sum(best)
    print(f"mean {total / max(len(files), 1):.3f} ms an image")


if __name__ == "__main__":
    main()
