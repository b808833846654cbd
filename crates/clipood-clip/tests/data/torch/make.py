"""Makes the files of this folder: run it with a Python that has torch. Values are simple rules, which the tests repeat."""

import os
from pathlib import Path

import torch

HERE = Path(__file__).parent


def ramp(*shape, dtype=torch.float32):
    count = torch.Size(shape).numel()
    return (torch.arange(count) / 8 - 1).reshape(shape).to(dtype)


def coop():
    """The dictionary that CoOp's training saves, its optimizer and its scheduler included."""
    context = torch.nn.Parameter(ramp(4, 6))
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9)
    context.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    with torch.no_grad():
        context.copy_(ramp(4, 6))
    state = {"ctx": context.detach(), "token_prefix": ramp(3, 1, 6), "token_suffix": ramp(3, 2, 6)}
    scheduler = {key: value for key, value in scheduler.state_dict().items() if not callable(value)}
    return {
        "state_dict": state,
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler,
        "val_result": None,
    }


class Evil:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def views():
    """Types, views of one storage, and what is not a tensor."""
    base = ramp(6, 4)
    floats = {name: ramp(2, 3, dtype=getattr(torch, name)) for name in ["float16", "bfloat16", "float32", "float64"]}
    kinds = ["int8", "uint8", "int16", "int32", "int64", "bool"]
    integers = {name: torch.tensor([0, 1, 100], dtype=getattr(torch, name)) for name in kinds}
    return {
        **floats,
        **integers,
        "base": base,
        "transposed": base.T,
        "rows": base[2:4],
        "columns": base[:, 1::2],
        "scalar": torch.tensor(4.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(ramp(3)),
        "ordered": torch.nn.Linear(2, 1).state_dict() | {"weight": ramp(1, 2), "bias": ramp(1)},
    }


torch.save(coop(), HERE / "coop.pt")
torch.save(coop(), HERE / "coop.legacy.pt", _use_new_zipfile_serialization=False)
torch.save(views(), HERE / "views.pt")
torch.save(views(), HERE / "views.legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"state_dict": Evil()}, HERE / "evil.pt")
