"""Writes the model that all programs of the comparison read: python encode_model.py FOLDER BATCH

An open_clip ViT-B/16 (QuickGELU, 224 px) with random parameters from a fixed seed, as an open_clip folder and as ONNX, and a batch of random
images (little-endian float32).
"""

import json
import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

NAME = "ViT-B-16-quickgelu"


def main():
    folder, batch = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = open_clip.create_model(NAME).eval()
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(NAME), "preprocess_cfg": {"size": [224, 224], "mode": "RGB"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    pixels = torch.randn(batch, 3, 224, 224)
    pixels.numpy().tofile(folder / "pixels.f32")
    with torch.inference_mode():
        torch.onnx.export(
            model.visual,
            (pixels[:2],),
            folder / "visual.onnx",
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes=[{0: torch.export.Dim("batch")}],
        )


if __name__ == "__main__":
    main()
