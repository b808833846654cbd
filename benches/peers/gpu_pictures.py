"""Writes JPEG files of the size of ImageNet's, smooth noise of fixed seeds: python gpu_pictures.py FOLDER COUNT. Needs Pillow."""

import random
import sys
from pathlib import Path

from PIL import Image


def main():
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = random.Random(i).randbytes(50 * 38 * 3)
        Image.frombytes("RGB", (50, 38), noise).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)


if __name__ == "__main__":
    main()
