"""open_clip's image tower in PyTorch: python encode_torch.py FOLDER FEATURES float32|bfloat16"""

import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file

from encode_model import NAME
from turns import take_turns


def main():
    folder, features, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
    model = open_clip.create_model(NAME)
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    tower = model.visual.eval().to(dtype)
    pixels = torch.from_numpy(np.fromfile(folder / "pixels.f32", np.float32).reshape(-1, 3, 224, 224)).to(dtype)
    with torch.inference_mode():
        tower(pixels).float().numpy().tofile(features)
        take_turns(lambda: tower(pixels))


if __name__ == "__main__":
    main()
