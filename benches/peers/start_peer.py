"""The similarity of one image and some texts by open_clip or onnxruntime: python start_peer.py torch|onnx FOLDER IMAGE TEXT..."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
from PIL import Image

NAME = "ViT-B-16-quickgelu"


def by_torch(folder, image, texts):
    import open_clip
    import torch
    from safetensors.torch import load_file

    # open_clip warns of random parameters, which are replaced below.
    logging.disable(logging.WARNING)
    model = open_clip.create_model(NAME)
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    model.eval()
    preprocess = open_clip.image_transform(224, is_train=False)
    with torch.inference_mode():
        pixels = preprocess(Image.open(image).convert("RGB")).unsqueeze(0)
        return model.encode_image(pixels).numpy(), model.encode_text(open_clip.tokenize(texts)).numpy()


def by_onnx(folder, image, texts):
    import onnxruntime

    # The tokens were written with the model, so that the figure is onnxruntime's alone: importing open_clip would import PyTorch.
    ids = np.load(folder / "tokens.npy")
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    picture = Image.open(image).convert("RGB")
    scale = 224 / min(picture.size)
    wide, high = (max(224, int(side * scale)) for side in picture.size)
    picture = picture.resize((wide, high), Image.BICUBIC)
    left, top = round((wide - 224) / 2), round((high - 224) / 2)
    pixels = (np.asarray(picture.crop((left, top, left + 224, top + 224))) / 255 - mean) / std
    pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    run = lambda file, x: onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return run("visual.onnx", pixels), run("text.onnx", ids)


def main():
    program, folder, image, texts = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    image, text = {"torch": by_torch, "onnx": by_onnx}[program](folder, image, texts)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    print(json.dumps((unit(text) @ unit(image)[0]).tolist()))


if __name__ == "__main__":
    main()
