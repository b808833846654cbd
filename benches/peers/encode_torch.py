"""open_clip's image tower in PyTorch: python encode_torch.py NAME FOLDER PIXELS FEATURES float32|bfloat16"""

import logging
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file

from turns import take_turns


def main():
    name, folder, pixels, features, dtype = sys.argv[1:]
    dtype = getattr(torch, dtype)
    # open_clip warns of random parameters, which are replaced below.
    logging.disable(logging.WARNING)
    model = open_clip.create_model(name)
    model.load_state_dict(load_file(Path(folder) / "open_clip_model.safetensors"))
    tower = model.visual.eval().to(dtype)
    side = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
    pixels = torch.from_numpy(np.fromfile(pixels, np.float32).reshape(-1, 3, side, side)).to(dtype)
    with torch.inference_mode():
        tower(pixels).float().numpy().tofile(features)
        take_turns(lambda: tower(pixels))


if __name__ == "__main__":
    main()
