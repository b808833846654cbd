"""Makes the files of this folder: run it with a Python that has torch. The tests repeat the rule of the values."""

from pathlib import Path

import torch

HERE = Path(__file__).parent


def context(*shape):
    count = torch.Size(shape).numel()
    return ((torch.arange(count) % 128) / 1024 - 1 / 16).reshape(shape)


def save(name, ctx, **options):
    state = {"ctx": ctx, "token_prefix": torch.zeros(4, 1, 64), "token_suffix": torch.zeros(4, 3, 64)}
    checkpoint = {"state_dict": state, "epoch": 50, "optimizer": None, "scheduler": None, "val_result": None}
    torch.save(checkpoint, HERE / f"{name}.pth.tar-50", **options)


save("shared", context(4, 64))
save("class_specific", context(4, 2, 64), _use_new_zipfile_serialization=False)
