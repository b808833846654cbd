"""Writes the models that all programs of the comparison read: python encode_model.py FOLDER NAME BATCH...

An open_clip model (`ViT-B-16-quickgelu`, `RN50-quickgelu`) with random parameters from a fixed seed, as an open_clip folder and as ONNX, and for
every batch size a file of random images (`pixels-BATCH.f32`, little-endian float32). Names follow open_clip.
"""

import json
import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file


def draw_norms(model):
    """Statistics and factors of batch norms as after training: fresh ones are 0 and 1, which would hide most of a ResNet."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)


def main():
    folder, name, batches = Path(sys.argv[1]), sys.argv[2], [int(batch) for batch in sys.argv[3:]]
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = open_clip.create_model(name).eval()
    draw_norms(model)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    settings = open_clip.get_model_config(name)
    side = settings["vision_cfg"]["image_size"]
    config = {"model_cfg": settings, "preprocess_cfg": {"size": [side, side], "mode": "RGB"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for batch in batches:
        torch.randn(batch, 3, side, side).numpy().tofile(folder / f"pixels-{batch}.f32")
    with torch.inference_mode():
        torch.onnx.export(
            model.visual,
            (torch.randn(2, 3, side, side),),
            folder / "visual.onnx",
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes=[{0: torch.export.Dim("batch")}],
        )


if __name__ == "__main__":
    main()
