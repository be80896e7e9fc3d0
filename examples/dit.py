"""A small DiT (Peebles and Xie 2023): a transformer on patches, told time and class by adaLN-Zero.

ddpm train --plugin examples/dit.py --network dit --set patch=4 --set depth=3
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_course import NETWORKS, RunConfig
from ddpm_course.embeddings import ClassEmbedding, TimeEmbedding


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    "(B, N, width), moved and stretched by (B, width)."
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    "Attention over all patches, then a perceptron; each begins as the identity, as its gate is zero."

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.told = nn.Linear(width, 6 * width)
        for weight in self.told.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.told(F.silu(emb)).chunk(6, dim=1)
        split = self.qkv(modulate(self.norm(x), shift, scale)).unflatten(2, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate[:, None] * self.out(mixed)
        return x + gate_2[:, None] * self.mlp(modulate(self.norm(x), shift_2, scale_2))


class DiT(nn.Module):
    "network(x, t, y): patches in, patches out."

    def __init__(self, channels: int, outputs: int, size: int, width: int, patch: int, depth: int, classes: int):
        super().__init__()
        self.patch, self.outputs, side = patch, outputs, size // patch
        self.cut = nn.Conv2d(channels, width, patch, stride=patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, side * side, width))
        self.time = TimeEmbedding(width, width)
        self.classes = ClassEmbedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, max(1, width // 32)) for _ in range(depth))
        self.last = nn.Linear(width, outputs * patch * patch)
        for weight in self.last.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time(t)
        if self.classes is not None:
            emb = emb + self.classes(y, len(x))
        h = self.cut(x).flatten(2).transpose(1, 2) + self.place  # (B, N, width)
        for block in self.blocks:
            h = block(h, emb)
        patches = self.last(F.layer_norm(h, h.shape[-1:])).transpose(1, 2)
        return F.fold(patches, x.shape[-2:], self.patch, stride=self.patch)


def dit(config: RunConfig, *, patch: int = 2, depth: int = 4) -> DiT:
    "The entry: its width is eight times `--channels`, with heads of 32."
    size, width = config.data.size, 8 * config.network.channels
    if size % patch:
        raise ValueError(f"patch = {patch} does not divide images of {size}x{size}")
    torch.manual_seed(config.training.seed)
    channels = config.data.image_channels or 1
    outputs = channels * (2 if config.diffusion.variance == "learned" else 1)
    return DiT(channels, outputs, size, width, patch, depth, config.num_classes)


NETWORKS["dit"] = dit
