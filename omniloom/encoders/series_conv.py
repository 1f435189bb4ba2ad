"""A small trainable convolutional encoder of time series: motion, physiology, any sensor.

Source: a strided Conv1d stem for IMU as in ImageBind (arXiv:2305.05665) and OneLLM (arXiv:2312.03700), followed by
transformer blocks. Padding is masked after every convolution, so an item's rows do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.errors import ConfigError
from omniloom.layers import Block, halved, pad_rows, sinusoids
from omniloom.sequence import Packed, Shape

__all__ = ["SeriesConv"]


class SeriesConv(Encoder):
    """Raw (T, channels) to ceil(T / stride) rows of `width`.

    Args:
        channels: C of the series.
        width: E, even and a multiple of `heads`.
        stride: steps a row covers, a power of two.
        kernel: width of every convolution in its own steps, odd.
        depth: transformer blocks after the convolutions.
    Raises:
        ConfigError: sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        channels: int = 6,
        width: int = 128,
        stride: int = 8,
        kernel: int = 5,
        depth: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.halvings = stride.bit_length() - 1
        if channels < 1 or stride < 1 or 2**self.halvings != stride or kernel % 2 == 0 or depth < 0 or width % 2:
            raise ConfigError(
                f"SeriesConv cannot have channels={channels}, width={width}, stride={stride}, kernel={kernel}, "
                f"depth={depth}; expected an even width, a stride that is a power of two, an odd kernel."
            )
        self.channels, self.width, self.stride, self.kernel = channels, width, stride, kernel
        self.depth, self.heads = depth, heads
        self.out_dim = width
        widths = [channels, *[max(width // 2, 1)] * max(self.halvings - 1, 0), width]
        self.convs = nn.ModuleList(
            _MaskedConv(a, b, kernel, stride=2 if self.halvings else 1) for a, b in pairwise(widths)
        )
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another rank or number of channels, or an item without steps.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.channels or raw.shape[0] < 1:
                raise refuse_raw(
                    self, index, raw, f"(T, {self.channels}) with T above zero", "Set `channels` to the data's."
                )
        weight = self.norm.weight
        x, lengths = pad_rows([raw.to(weight) for raw in raws])
        for conv in self.convs:
            x, lengths = conv(x, lengths)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), self.width).to(x)
        key_mask = None if bool(mask.all()) else mask
        for block in self.blocks:
            x = block(x, key_mask)
        return Packed(self.norm(x)[mask], tuple(self.out_shape(Shape(raw.shape[0])) for raw in raws))

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(len / stride) rows, each at the time of its first step."""
        times = None if shape.times is None else shape.times[:: self.stride]
        return Shape(int(halved(shape.len, self.halvings)), times=times)

    def minimal_raw(self) -> Tensor:
        """One step of zeros."""
        return torch.zeros(1, self.channels)


class _MaskedConv(nn.Module):
    """Conv1d over time, norm over channels, GELU; what lies behind an item's end is zero again afterwards."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, *, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_dim, out_dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(out_dim)
        self.halvings = 1 if stride == 2 else 0

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, in_dim) and the (B,) lengths to (B, T', out_dim) and their new lengths."""
        x = F.gelu(self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2)))
        lengths = torch.as_tensor(halved(lengths, self.halvings))
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        return x * mask[..., None].to(x), lengths
