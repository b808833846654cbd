"""Writes what the comparison of starts reads: python start_model.py FOLDER IMAGE NAME TEXT...

An open_clip model with random parameters, both towers as ONNX, the tokens of the texts, and a picture.
"""

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file


class Texts(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.encode_text(ids)


def main():
    folder, image, name, texts = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = open_clip.create_model(name).eval()
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {"size": [224, 224], "mode": "RGB"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    tokens = open_clip.tokenize(texts)
    np.save(folder / "tokens.npy", tokens.numpy())
    with torch.inference_mode():
        for part, inputs, file in [
            (model.visual, torch.randn(1, 3, 224, 224), "visual.onnx"),
            (Texts(model), tokens, "text.onnx"),
        ]:
            torch.onnx.export(part, (inputs,), folder / file, input_names=["x"], output_names=["features"])


if __name__ == "__main__":
    main()
