"""EfficientNet-Lite0 as an encoder: a pretrained image network that is small enough for a laptop.

Source: EfficientNet (arXiv:1905.11946), Lite variant; see `omniloom.encoders.efficientnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.efficientnet import EfficientNetLite0
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.layers import in_stacks
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["EfficientNetEncoder"]

_CELL_PX = 32


class EfficientNetEncoder(Encoder):
    """Raw (3, Y, X) or (F, 3, Y, X) to rows of width 1280: a map of one cell per 32 x 32 pixels, or its mean.

    Batch norms always use their stored statistics, in training too: statistics of the batch would tie the rows of an
    item to its neighbours.

    Args:
        id: folder with `model.safetensors`, or `scheme:name` of the assets table.
        tokens: "map" for every cell (49 at 224 px), "pooled" for their mean, one row per frame.
        weights: False builds the network with random weights and reads no file.
    Raises:
        ConfigError: unknown `tokens`.
        MissingAssetError: no `model.safetensors` there.
        CheckpointError: the file holds other parameters than the network.
    """

    def __init__(
        self,
        *,
        id: str = "starter:efficientnet-lite0",
        tokens: Literal["map", "pooled"] = "map",
        weights: bool = True,
    ) -> None:
        super().__init__()
        if tokens not in ("map", "pooled"):
            raise ConfigError(f"unknown tokens {tokens!r} of EfficientNet; expected 'map' or 'pooled'.")
        self.id, self.tokens, self.weights = id, tokens, weights
        self.net = EfficientNetLite0()
        self.out_dim = EfficientNetLite0.out_dim
        if weights:
            _load(self.net, Path(resolve_asset(id)) / "model.safetensors")
        # The classifier is not part of an encoder: its parameters would never get a gradient.
        self.net._fc = nn.Identity()  # type: ignore[assignment]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module's, but batch norms stay in evaluation mode."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in reading order: frame by frame, line by line.

        Raises:
            ShapeError: no items, or a raw tensor that is not three-channel pictures.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() not in (3, 4) or raw.shape[-3] != 3 or 0 in raw.shape:
                raise refuse_raw(self, index, raw, "(3, Y, X) or (F, 3, Y, X)", "Use the processor 'image' or 'video'.")
        frames = [raw if raw.dim() == 4 else raw[None] for raw in raws]
        grids = [(item.shape[0], item.shape[2], item.shape[3]) for item in frames]
        shapes = [self.out_shape(Shape(t * y * x, (t, y, x))) for t, y, x in grids]
        return Packed.of(in_stacks(frames, self._encoded), shapes)

    def _encoded(self, pictures: Tensor) -> Tensor:
        """(B, F, 3, Y, X) to (B, rows, out_dim)."""
        x = pictures.to(self.net._conv_head.weight).flatten(0, 1)
        cells: Tensor = self.net(x).flatten(2).transpose(1, 2)
        if self.tokens == "pooled":
            cells = cells.mean(1, keepdim=True)
        return cells.unflatten(0, pictures.shape[:2]).flatten(1, 2)

    def out_shape(self, shape: Shape) -> Shape:
        """From a grid (F, Y, X) of pixels to (F, ceil(Y / 32), ceil(X / 32)) cells, or (F, 1, 1) pooled.

        Raises:
            ShapeError: the raw tensor has no grid.
        """
        if shape.grid is None:
            raise ShapeError(
                "EfficientNet got rows without a grid; expected pixels (F, Y, X). Use the processor 'image'."
            )
        t, y, x = shape.grid
        cells = (1, 1) if self.tokens == "pooled" else (-(-y // _CELL_PX), -(-x // _CELL_PX))
        rows = cells[0] * cells[1]
        times = None
        if shape.times is not None:
            times = tuple(shape.times[frame * y * x] for frame in range(t) for _ in range(rows))
        return Shape(t * rows, (t, *cells), times)

    def minimal_raw(self) -> Tensor:
        """One cell of zeros."""
        return torch.zeros(3, _CELL_PX, _CELL_PX)


def _load(net: EfficientNetLite0, file: Path) -> None:
    if not file.is_file():
        raise MissingAssetError(
            f"no EfficientNet weights at {file}. Give `id` a folder with model.safetensors, or `weights: false`."
        )
    try:
        net.load_state_dict(load_file(file), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{file} holds another network than EfficientNet-Lite0: {error}") from error
