"""CLIP's towers in plain PyTorch with fused attention, under OpenAI's parameter names; nothing but PyTorch is needed."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

# Width of the shared space; width, layers, heads and patch of the image tower; width and heads of the text tower.
SIZES = {
    "ViT-B-32": (512, (768, 12, 12, 32), (512, 8)),
    "ViT-B-16": (512, (768, 12, 12, 16), (512, 8)),
    "ViT-L-14": (768, (1024, 24, 16, 14), (768, 12)),
}
# Width of the shared space; width, blocks of each stage and heads of a ModifiedResNet; width and heads of the text tower.
RESNETS = {"RN50": (1024, (64, (3, 4, 6, 3), 32), (512, 8))}
SIDE, CONTEXT, VOCABULARY, TEXT_LAYERS = 224, 77, 49408, 12
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def parts(self, x):
        batch, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        return qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)

    def join(self, y):
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def perceptron(self, x):
        h = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](h * torch.sigmoid(1.702 * h))

    def forward(self, x, causal=False):
        q, k, v = self.attn.parts(self.ln_1(x))
        return self.perceptron(x + self.attn.join(F.scaled_dot_product_attention(q, k, v, is_causal=causal)))

    def values(self, x):
        """The value path alone, as LoCoOp's local features take it."""
        v = self.attn.parts(self.ln_1(x))[2]
        return self.perceptron(x + self.attn.join(v))

    def suffix(self, x, prefix, mask):
        """Tokens that follow a shared prefix, whose keys and values `prefix` are."""
        q, k, v = self.attn.parts(self.ln_1(x))
        k = torch.cat([prefix[0].expand(len(x), -1, -1, -1), k], 2)
        v = torch.cat([prefix[1].expand(len(x), -1, -1, -1), v], 2)
        return self.perceptron(x + self.attn.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))


class ImageTower(nn.Module):
    def __init__(self, name):
        super().__init__()
        dim, (width, layers, heads, patch), _ = SIZES[name]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // patch) ** 2 + 1, width) * width**-0.5)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.proj = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, pixels, local=False):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks[:-1]:
            x = block(x)
        last = self.transformer.resblocks[-1]
        features = self.ln_post(last(x)[:, 0]) @ self.proj
        if not local:
            return features
        return features, self.ln_post(last.values(x)[:, 1:]) @ self.proj


class Bottleneck(nn.Module):
    """A residual block whose stride is an average pooling before the last convolution."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(planes), nn.BatchNorm2d(planes), nn.BatchNorm2d(4 * planes)
        self.stride = stride
        self.downsample = None
        if stride > 1 or inputs != 4 * planes:
            self.downsample = nn.ModuleDict({"0": nn.Conv2d(inputs, 4 * planes, 1, bias=False), "1": nn.BatchNorm2d(4 * planes)})

    def pooled(self, x):
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.pooled(F.relu(self.bn2(self.conv2(y))))))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self.pooled(x)))
        return F.relu(x + y)


class AttentionPool(nn.Module):
    def __init__(self, side, width, heads, dim):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(side * side + 1, width) * width**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, dim)
        self.heads = heads

    def forward(self, x, local=False):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        split = lambda y: y.view(len(y), -1, self.heads, y.shape[-1] // self.heads).transpose(1, 2)
        values = self.v_proj(x)
        y = F.scaled_dot_product_attention(split(self.q_proj(x[:, :1])), split(self.k_proj(x)), split(values))
        features = self.c_proj(y.transpose(1, 2).flatten(2))[:, 0]
        return (features, self.c_proj(values[:, 1:])) if local else features


class ModifiedResNet(nn.Module):
    """CLIP's ResNet: three convolutions as stem, pooling by averages, attention at the end."""

    def __init__(self, name):
        super().__init__()
        dim, (width, blocks, heads), _ = RESNETS[name]
        half = width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(half), nn.BatchNorm2d(half), nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(blocks):
            planes, layers = width << stage, []
            for i in range(count):
                layers.append(Bottleneck(inputs, planes, 2 if stage > 0 and i == 0 else 1))
                inputs = 4 * planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.attnpool = AttentionPool(SIDE // 32, inputs, heads, dim)

    def forward(self, pixels, local=False):
        x = pixels
        for i in "123":
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        x = F.avg_pool2d(x, 2)
        for stage in "1234":
            x = getattr(self, f"layer{stage}")(x)
        return self.attnpool(x, local)


def image_tower(name):
    """The image tower of any model here."""
    return ModifiedResNet(name) if name in RESNETS else ImageTower(name)


class TextTower(nn.Module):
    def __init__(self, name):
        super().__init__()
        dim, _, (width, heads) = (SIZES | RESNETS)[name]
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, width) * 0.01)
        self.transformer = Transformer(width, TEXT_LAYERS, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.width = width

    def read(self, x, ends):
        x = x[torch.arange(len(x), device=x.device), ends]
        return self.ln_final(x) @ self.text_projection

    def forward(self, x, ends):
        """All tokens of every prompt, as the reference implementations compute them."""
        x = x + self.positional_embedding[: x.shape[1]]
        for block in self.transformer.resblocks:
            x = block(x, causal=True)
        return self.read(x, ends)

    def shared(self, prefix, x, ends):
        """The shared prefix once, then each prompt's own tokens; the features of `forward`."""
        shared, own = prefix.shape[1], x.shape[1]
        prefix = prefix + self.positional_embedding[:shared]
        x = x + self.positional_embedding[shared : shared + own]
        mask = torch.ones(own, shared + own, dtype=torch.bool, device=x.device).tril(shared)
        for block in self.transformer.resblocks:
            q, k, v = block.attn.parts(block.ln_1(prefix))
            x = block.suffix(x, (k, v), mask)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            prefix = block.perceptron(prefix + block.attn.join(attended))
        return self.read(x, ends)


def load_safetensors(path):
    """The tensors of a float32 safetensors file."""
    raw = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: tensor {name} is {entry['dtype']}, expected F32")
        first, end = entry["data_offsets"]
        values = torch.frombuffer(raw, dtype=torch.float32, count=(end - first) // 4, offset=start + first)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def normalised(pixels, dtype):
    """Bytes [batch, side, side, 3] -> the tower's input."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(dtype)
