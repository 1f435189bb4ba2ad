"""One branch of a joint encoder: whatever it reads, its vector lies in the space that all branches share.

Source: ImageBind (arXiv:2305.05665), whose branches PandaGPT, ModaVerse and CoDi-2 take the vector of, Video-LLaMA and
BuboGPT the one for sound, NExT-GPT's groups the patches. Parameters have the names of the published checkpoint, which
`omniloom convert` turns into safetensors once; a branch loads its own and leaves the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.joint_branch import BRANCHES, EPS, FRAMES, JointStem, JointTrunk, branch_of
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError, did_you_mean
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["JointEncoder"]


class JointEncoder(Encoder):
    """Raw pictures, clips, spectrograms, maps or series of one fixed size to a vector of length 1, and to rows.

    "vision": (3, Y, X), or (F, 3, Y, X), every two frames a clip. "audio": (K, 1, mels, frames) clips, as the processor
    `sound_clips` gives. "depth", "thermal": (1, Y, X) or (K, 1, Y, X). "imu": (T, 6). Of several clips the vector is
    the mean of theirs, as published, and then shorter than 1. `Packed.pooled` holds it whatever the rows are.

    Args:
        kind: the branch: "vision", "audio", "depth", "thermal" or "imu".
        id: folder with the converted `model.safetensors`, or `scheme:name` of the assets table; None with
            `weights: false`.
        tokens: "pooled", the vector as the one row of an item; "patches", the trunk's rows on their grid, a clip after
            the other; "all", each clip's class token before its patches.
        scaled: multiply the vector by the published scale of its branch (audio 20, thermal 10, depth and imu 5), as the
            published model gives it out.
        joint_width: of the vector.
        width, depth, heads: of the trunk; None takes those of ImageBind-huge.
        size: (Y, X), (mels, frames) or (T,) of the raw tensors; None takes ImageBind-huge's.
        patch, stride: side of a patch and steps between patches; None takes ImageBind-huge's.
        weights: False starts from random weights.
    Raises:
        ConfigError: an unknown branch, or sizes that do not fit each other.
        MissingAssetError: no `model.safetensors` there.
        CheckpointError: the file lacks parameters of the branch, or has them of other shapes.
    """

    def __init__(
        self,
        *,
        kind: Literal["vision", "audio", "depth", "thermal", "imu"],
        id: str | None = None,
        tokens: Literal["pooled", "patches", "all"] = "pooled",
        scaled: bool = False,
        joint_width: int = 1024,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        size: Sequence[int] | None = None,
        patch: int | None = None,
        stride: int | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        if kind not in BRANCHES:
            raise ConfigError(f"unknown branch {kind!r} of a joint encoder.{did_you_mean(kind, BRANCHES)}")
        if tokens not in ("pooled", "patches", "all"):
            raise ConfigError(f"unknown tokens {tokens!r} of JointEncoder; expected 'pooled', 'patches' or 'all'.")
        self.kind, self.id, self.tokens, self.scaled, self.joint_width = kind, id, tokens, scaled, joint_width
        self.width, self.depth, self.heads, self.size = width, depth, heads, size
        self.patch, self.stride, self.weights = patch, stride, weights
        self.branch = branch_of(kind, width, depth, heads, size, patch, stride)
        wide = self.branch.width
        self.cells = tuple((side - self.branch.patch) // self.branch.stride + 1 for side in self.branch.size)
        has_extra_key = kind != "vision"
        self.modality_preprocessors = nn.ModuleDict({kind: JointStem(kind, self.branch, self.cells)})
        self.modality_trunks = nn.ModuleDict({kind: JointTrunk(self.branch, has_extra_key, has_norm=not has_extra_key)})
        # The published head of motion sensors has a dropout before its map, which counts in the names.
        gaps = [nn.Identity() for _ in range(2 if kind == "imu" else 1)]
        head = [nn.LayerNorm(wide, eps=EPS), *gaps, nn.Linear(wide, joint_width, bias=False)]
        self.modality_heads = nn.ModuleDict({kind: nn.Sequential(*head)})
        self.out_dim = joint_width if tokens == "pooled" else wide
        self.pooled_dim = joint_width
        if weights:
            self._load()

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows of all items, and a vector each.

        Raises:
            ShapeError: no items, or a raw tensor of another size than the branch's.
        """
        require_items(self, raws)
        weight = self.modality_heads[self.kind][-1].weight  # type: ignore[index]
        clips = [self._clips(index, raw).to(weight) for index, raw in enumerate(raws)]
        counts = [len(clip) for clip in clips]
        head = self.modality_heads[self.kind]
        x = self.modality_trunks[self.kind](self.modality_preprocessors[self.kind](torch.cat(clips)))
        x = head[0](x)  # type: ignore[index]
        vectors = F.normalize(head[-1](x[:, 0]), dim=-1) * (self.branch.scale if self.scaled else 1.0)  # type: ignore[index]
        pooled = torch.stack([item.mean(0) for item in vectors.split(counts)])
        rows = pooled if self.tokens == "pooled" else (x if self.tokens == "all" else x[:, 1:]).flatten(0, 1)
        return Packed(rows, tuple(self._shape(count, None) for count in counts), pooled)

    def out_shape(self, shape: Shape) -> Shape:
        """One row; or those of every clip, each at the time of the clip's first frame.

        Raises:
            ShapeError: another size than the branch's, or pictures that do not pair up.
        """
        size = (shape.len,) if self.kind == "imu" else (shape.grid or (0, 0, 0))[1:]
        frames = 1 if self.kind == "imu" or shape.grid is None else shape.grid[0]
        if tuple(size) != self.branch.size or not self._count(frames):
            raise ShapeError(
                f"JointEncoder got {shape.grid or shape.len} of {self.kind!r}; expected {self.branch.size} a frame"
                f"{', one frame or an even number' if self.kind == 'vision' else ''}. Set the processor's size."
            )
        times = None
        if shape.times is not None:
            step = shape.len // self._count(frames)
            times = [shape.times[clip * step] for clip in range(self._count(frames))]
        return self._shape(self._count(frames), times)

    def minimal_raw(self) -> Tensor:
        """One clip of zeros."""
        if self.kind == "imu":
            return torch.zeros(self.branch.size[0], self.branch.channels)
        return torch.zeros(self.branch.channels, *self.branch.size)

    def _shape(self, clips: int, times: Sequence[float] | None) -> Shape:
        if self.tokens == "pooled":
            return Shape(1, times=None if times is None else (times[0],))
        cells = self.cells if len(self.cells) == 2 else (1, self.cells[0])
        rows = cells[0] * cells[1] + (1 if self.tokens == "all" else 0)
        each = None if times is None else tuple(time for time in times for _ in range(rows))
        return Shape(clips * rows, None if self.tokens == "all" else (clips, *cells), each)

    def _count(self, frames: int) -> int:
        """Clips of so many frames; 0 for none."""
        if self.kind != "vision" or frames == 1:
            return frames
        return 0 if frames % FRAMES else frames // FRAMES

    def _clips(self, index: int, raw: Tensor) -> Tensor:
        """(K, ...) clips as the stem reads them."""
        branch = self.branch
        if self.kind == "imu":
            if tuple(raw.shape) != (*branch.size, branch.channels):
                raise refuse_raw(
                    self,
                    index,
                    raw,
                    f"({branch.size[0]}, {branch.channels})",
                    "Set `length` of the processor 'series'.",
                )
            return raw.T.unfold(1, branch.patch, branch.stride).transpose(0, 1).flatten(1)[None]
        frames = raw if raw.dim() == 4 else raw[None]
        is_right = frames.dim() == 4 and tuple(frames.shape[1:]) == (branch.channels, *branch.size)
        if not is_right or not self._count(frames.shape[0]):
            each = f"({branch.channels}, {branch.size[0]}, {branch.size[1]})"
            pairs = ", one or an even number of them" if self.kind == "vision" else ""
            raise refuse_raw(self, index, raw, f"{each} or frames of it{pairs}", "Set the processor's size.")
        if self.kind != "vision":
            return frames
        frames = frames.expand(FRAMES, -1, -1, -1) if frames.shape[0] == 1 else frames
        return frames.unflatten(0, (-1, FRAMES)).transpose(1, 2)

    def _load(self) -> None:
        if self.id is None:
            raise ConfigError("a joint encoder needs `id`, or weights: false.")
        file = Path(resolve_asset(self.id)) / "model.safetensors"
        if not file.is_file():
            raise MissingAssetError(
                f"no weights at {file}. Convert the published checkpoint by `omniloom convert`, or set weights: false."
            )
        wanted = self.state_dict()
        with safe_open(str(file), "pt") as tensors:
            names = set(tensors.keys())
            found: Mapping[str, Tensor] = {name: tensors.get_tensor(name) for name in wanted if name in names}
        wrong = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
        if wrong:
            raise CheckpointError(
                f"{file} lacks {len(wrong)} of {len(wanted)} parameters of the branch {self.kind!r}, or has them of "
                f"other shapes; first: {wrong[0]}. Set the sizes of the checkpoint."
            )
        self.load_state_dict({name: value.float() for name, value in found.items()}, strict=True)
