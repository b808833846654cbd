"""Makes the resized views of this folder: python make.py NAME with Pillow 12.3.0 (NAME pillow12) and 13.0.0 (NAME pillow13).

For each size, `NAME.json` holds the SHA-256 of the RGB bytes of a picture of that size (a formula, see `pixels`) resized
(bicubic) to the second size.
"""

import hashlib
import json
import sys

from PIL import Image, __version__

name = sys.argv[1]
assert __version__ == {"pillow12": "12.3.0", "pillow13": "13.0.0"}[name], __version__


def pixels(width, height):
    values = bytearray()
    state = width * 65536 + height
    for _ in range(width * height * 3):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        values.append(state >> 16 & 255)
    return bytes(values)


found = []
for width, height, columns, rows in [
    (40, 90, 20, 45), (40, 90, 30, 45), (40, 90, 30, 70), (40, 90, 30, 69), (90, 40, 50, 20), (50, 101, 40, 80), (50, 101, 40, 81),
    (33, 70, 60, 31), (33, 20, 60, 31), (70, 33, 31, 60), (20, 20, 20, 7), (20, 20, 7, 20), (20, 20, 20, 20), (9, 120, 5, 66),
    (224, 500, 224, 224), (230, 600, 224, 584), (200, 260, 224, 224), (31, 64, 24, 49),
]:
    image = Image.frombytes("RGB", (width, height), pixels(width, height)).resize((columns, rows), Image.BICUBIC)
    found.append([width, height, columns, rows, hashlib.sha256(image.tobytes()).hexdigest()])
with open(f"{name}.json", "w") as file:
    json.dump(found, file, indent=0)
    file.write("\n")
