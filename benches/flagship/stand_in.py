"""A made-up tree in the shape of ImageNet-1K and the four MOS sets: python stand_in.py DATA [--train N --val N --ood SHARE --photographs].

Folder and file names are those of the downloads: `imagenet/train/n01440764/n01440764_10026.JPEG`, `imagenet/val/...`,
`iNaturalist/images/*.jpg`, `SUN/images/*.jpg`, `Places/images/*.jpg`, `dtd/images/banded/banded_0002.jpg`. The 1,000 folders of
ImageNet are read from the shipped manifest. The pictures are blurred colour patterns. Every class has a pattern of its own, which
its images vary, so that a training has something to learn; what a detector reaches on them says nothing about photographs.

Every picture is a function of its path, so two trees with the same options are equal byte for byte for one version of Pillow.
"""

import argparse
import hashlib
import os
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

MANIFEST = Path(__file__).parents[2] / "manifests" / "datasets" / "imagenet.toml"
TEXTURES = (
    "banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked freckled frilly "
    "gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley perforated pitted pleated "
    "polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified striped studded swirly veined waffled woven "
    "wrinkled zigzagged"
).split()
# Images of each texture.
PER_TEXTURE = 120
# Cells a side of a pattern.
CELLS = 8


def generator(*words: str) -> np.random.Generator:
    """Random numbers that depend on `words` alone."""
    digest = hashlib.blake2b("/".join(words).encode(), digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def picture(group: str, path: str, photographs: bool) -> Image.Image:
    """The picture at `path`: the pattern of its `group`, varied."""
    pattern = generator("pattern", group).uniform(0, 255, (CELLS, CELLS, 3))
    draw = generator("picture", path)
    varied = np.clip(pattern + draw.normal(0, 40, pattern.shape), 0, 255).astype(np.uint8)
    low, high = (333, 500) if photographs else (96, 128)
    size = tuple(int(side) for side in draw.integers(low, high + 1, 2))
    image = Image.fromarray(varied).resize(size, Image.Resampling.BICUBIC)
    if photographs:
        # Detail that a blurred pattern lacks, so that the file takes the bytes and the decoding time of a photograph.
        grain = draw.integers(-24, 25, (size[1], size[0], 1), dtype=np.int16)
        image = Image.fromarray(np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8))
    return image


def write(job: tuple[Path, str, list[str], bool]) -> int:
    """Writes the pictures `paths` of one group that do not exist yet; returns their number."""
    root, group, paths, photographs = job
    for relative in paths:
        path = root / relative
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        picture(group, relative, photographs).save(temporary, "JPEG", quality=90)
        temporary.rename(path)
    return len(paths)


def groups(train: int, val: int, share: float) -> list[tuple[str, list[str]]]:
    """The paths of each class or other group of pictures."""
    classes = sorted(tomllib.loads(MANIFEST.read_text())["class_names"])
    made = []
    for number, folder in enumerate(classes):
        paths = [f"imagenet/train/{folder}/{folder}_{10026 + i}.JPEG" for i in range(train)]
        # In the real validation folder the numbers of a class are scattered; any order will do.
        paths += [f"imagenet/val/{folder}/ILSVRC2012_val_{1 + number + i * len(classes):08}.JPEG" for i in range(val)]
        made.append((folder, paths))
    count = round(10_000 * share)
    scenes = {
        "iNaturalist": lambda i: hashlib.md5(str(i).encode()).hexdigest(),
        "SUN": lambda i: f"sun_{hashlib.md5(str(i).encode()).hexdigest()[:20]}",
        "Places": lambda i: f"p_scene_{i:08}",
    }
    for name, file in scenes.items():
        # Chunks of 200, each a group, so that several processes share them.
        for start in range(0, count, 200):
            made.append((f"{name}{start}", [f"{name}/images/{file(i)}.jpg" for i in range(start, min(start + 200, count))]))
    for texture in TEXTURES:
        numbers = range(1, round(PER_TEXTURE * share) + 1)
        made.append((texture, [f"dtd/images/{texture}/{texture}_{i:04}.jpg" for i in numbers]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=int, default=16, help="training images per class")
    parser.add_argument("--val", type=int, default=50, help="validation images per class")
    parser.add_argument("--ood", type=float, default=1.0, help="share of the 35,640 OOD images")
    parser.add_argument("--photographs", action="store_true", help="333 to 500 pixels a side and grain, instead of 96 to 128")
    options = parser.parse_args()
    jobs = [(options.data, group, paths, options.photographs) for group, paths in groups(options.train, options.val, options.ood)]
    with ProcessPoolExecutor() as pool:
        written = sum(pool.map(write, jobs, chunksize=8))
    print(f"{written} pictures in {options.data}")


if __name__ == "__main__":
    main()
