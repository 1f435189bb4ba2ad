"""The layers of a branch of ImageBind, under the names of the published checkpoint.

A stem cuts a medium into patches with a class token and learned positions; a trunk of pre-norm transformer blocks
follows. All but the branch of pictures have a norm in the stem, and one learned key and value in every attention.
Source: ImageBind (arXiv:2305.05665), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError

__all__ = ["BRANCHES", "EPS", "FRAMES", "Branch", "JointStem", "JointTrunk", "branch_of"]

EPS = 1e-6
FRAMES = 2  # of a clip of pictures


class Branch(NamedTuple):
    """Sizes of ImageBind-huge. `stem` names the patches; `scale` multiplies the vector in the published model."""

    stem: str
    width: int
    depth: int
    heads: int
    channels: int
    size: tuple[int, ...]
    patch: int
    stride: int
    scale: float = 1.0


BRANCHES = {
    "vision": Branch("rgbt_stem", 1280, 32, 16, 3, (224, 224), 14, 14),
    "audio": Branch("rgbt_stem", 768, 12, 12, 1, (128, 204), 16, 10, 20.0),
    "depth": Branch("depth_stem", 384, 12, 8, 1, (224, 224), 16, 16, 5.0),
    "thermal": Branch("rgbt_stem", 768, 12, 12, 1, (224, 224), 16, 16, 10.0),
    "imu": Branch("imu_stem", 512, 6, 8, 6, (2000,), 8, 8, 5.0),
}


def branch_of(
    kind: str,
    width: int | None,
    depth: int | None,
    heads: int | None,
    size: Sequence[int] | None,
    patch: int | None,
    stride: int | None,
) -> Branch:
    """The published sizes with the user's in their place."""
    known = BRANCHES[kind]
    # Patches of sound overlap; all others lie side by side.
    step = known.stride if patch is None or kind == "audio" else patch
    branch = known._replace(
        width=known.width if width is None else width,
        depth=known.depth if depth is None else depth,
        heads=known.heads if heads is None else heads,
        size=known.size if size is None else tuple(size),
        patch=known.patch if patch is None else patch,
        stride=step if stride is None else stride,
    )
    numbers = (branch.width, branch.depth, branch.heads, branch.patch, branch.stride)
    if len(branch.size) != len(known.size) or min(numbers) < 1 or min(branch.size) < branch.patch:
        raise ConfigError(f"a branch {kind!r} cannot have the sizes {branch}.")
    if branch.width % branch.heads:
        raise ConfigError(f"width {branch.width} cannot be cut into {branch.heads} heads.")
    return branch


class JointStem(nn.Module):
    """(K, ...) clips to (K, 1 + patches, width) with class token and learned positions."""

    def __init__(self, kind: str, branch: Branch, cells: tuple[int, ...]) -> None:
        super().__init__()
        count, spread = 1 + torch.Size(cells).numel(), branch.width**-0.5
        self.stem = branch.stem
        self.cls_token = nn.Parameter(spread * torch.randn(1, 1, branch.width))
        positions = nn.Parameter(spread * torch.randn(1, count, branch.width))
        if kind == "imu":
            self.pos_embed = positions
        else:
            self.pos_embedding_helper = _Positions(positions)
        self.add_module(branch.stem, _Patches(kind, branch))

    def forward(self, clips: Tensor) -> Tensor:
        x = getattr(self, self.stem)(clips)
        positions = self.pos_embedding_helper.pos_embed if hasattr(self, "pos_embedding_helper") else self.pos_embed
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + positions


class _Positions(nn.Module):
    def __init__(self, positions: nn.Parameter) -> None:
        super().__init__()
        self.pos_embed = positions


class _Patches(nn.Module):
    """Clips to (K, patches, width), line by line."""

    def __init__(self, kind: str, branch: Branch) -> None:
        super().__init__()
        self.proj: nn.Module
        if kind == "vision":
            kernel = (FRAMES, branch.patch, branch.patch)
            stride = (FRAMES, branch.stride, branch.stride)
            # The published stem repeats a picture to two frames in its first place.
            self.proj = nn.Sequential(
                nn.Identity(), nn.Conv3d(branch.channels, branch.width, kernel, stride, bias=False)
            )
            return
        if kind == "imu":
            self.proj = nn.Linear(branch.channels * branch.patch, branch.width, bias=False)
        else:
            self.proj = nn.Conv2d(branch.channels, branch.width, branch.patch, branch.stride, bias=False)
        self.norm_layer = nn.LayerNorm(branch.width)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.proj(clips)
        x = x if x.dim() == 3 else x.flatten(2).transpose(1, 2)
        return self.norm_layer(x) if hasattr(self, "norm_layer") else x


class JointTrunk(nn.Module):
    """Pre-norm transformer blocks; `has_extra_key`: a learned key and value stand behind those of the rows."""

    def __init__(self, branch: Branch, has_extra_key: bool, *, has_norm: bool) -> None:
        super().__init__()
        first = nn.LayerNorm(branch.width, eps=EPS) if has_norm else nn.Identity()
        self.pre_transformer_layer = nn.Sequential(first)
        self.blocks = nn.Sequential(*(_Block(branch, has_extra_key) for _ in range(branch.depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pre_transformer_layer(x))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, branch: Branch, has_extra_key: bool) -> None:
        super().__init__()
        width = branch.width
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = nn.MultiheadAttention(width, branch.heads, add_bias_kv=has_extra_key, batch_first=True)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(x))))
