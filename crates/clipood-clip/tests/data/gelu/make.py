"""Makes the files of this folder: run it with a Python that has open_clip_torch, transformers and safetensors.

Two tiny models with the exact GELU, heads that are not 64 wide, and means and deviations that are not OpenAI's: one by
open_clip, one by transformers. Parameters follow a rule, rows of tokens that the texts do not use are 0.
"""

import gzip
import json
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save, save_file
from transformers import CLIPConfig, CLIPModel

HERE = Path(__file__).parent
TEXTS = ["a photo of a cat", "two dogs, one of them asleep"]
MEAN, STD = [0.5, 0.25, 0.375], [0.25, 0.5, 0.375]


def fill(model, ids):
    """Coarse numbers, so that the files stay small and exact in half precision."""
    generator = torch.Generator().manual_seed(11)
    used = torch.zeros(49408, 1)
    used[ids.flatten()] = 1
    for name, parameter in model.named_parameters():
        steps = torch.randint(-8, 9, parameter.shape, generator=generator).float()
        if name == "logit_scale":
            value = torch.tensor(4.0)
        elif parameter.ndim == 1 and name.endswith("weight"):
            value = 1 + steps / 64
        elif parameter.ndim == 2 and parameter.shape[0] == 49408:
            value = torch.where(used > 0, steps / 16, 0.0)
        else:
            value = steps / 32
        parameter.data.copy_(value)
    return model.eval()


def pixels():
    count = 2 * 3 * 32 * 32
    return ((torch.arange(count) * 7919 % 1000) / 500 - 1).float().reshape(2, 3, 32, 32)


def pack(path, model):
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    path.write_bytes(gzip.compress(save(tensors), 9, mtime=0))


ids = open_clip.tokenize(TEXTS)
expected = {}

sizes = {"embed_dim": 16, "quick_gelu": False}
vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
model = fill(CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=False), ids)
config = {
    "model_cfg": {**sizes, "vision_cfg": vision, "text_cfg": text},
    "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
}
(HERE / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
pack(HERE / "open_clip_model.safetensors.gz", model)
with torch.no_grad():
    expected["open_clip/image"] = model.encode_image(pixels())
    expected["open_clip/text"] = model.encode_text(ids)

part = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "hidden_act": "gelu"}
model = fill(
    CLIPModel(
        CLIPConfig(
            projection_dim=16,
            text_config={**part, "num_attention_heads": 4, "eos_token_id": 49407, "bos_token_id": 49406},
            vision_config={**part, "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        )
    ),
    ids,
)
model.config.to_json_file(HERE / "config.json", use_diff=False)
preprocessor = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 32},
}
(HERE / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1) + "\n")
pack(HERE / "model.safetensors.gz", model)
with torch.no_grad():
    vision = model.vision_model(pixel_values=pixels()).pooler_output
    expected["hugging_face/image"] = model.visual_projection(vision)
    text = model.text_model(input_ids=ids).pooler_output
    expected["hugging_face/text"] = model.text_projection(text)

save_file({name: tensor.contiguous() for name, tensor in expected.items()}, HERE / "expected.safetensors")
