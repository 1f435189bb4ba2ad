"""A small trainable encoder of speech and sound over log-mel frames, of any length.

Two convolutions over time and pitch and one over time take 8 frames into a row (100 frames a second: 12.5 rows a
second), then transformer blocks. Source: the convolutional subsampling of Speech-Transformer and Conformer
(arXiv:2005.08100). Padding is masked after every convolution, so an item's rows do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.errors import ConfigError
from omniloom.layers import Block, halved, pad_rows, sinusoids
from omniloom.sequence import Packed, Shape

__all__ = ["LogMelConv"]

_HALVINGS = 3


class LogMelConv(Encoder):
    """Raw (F, num_mels) to ceil(F / 8) rows of `width`.

    Args:
        num_mels: M of the processor.
        width: E, even and a multiple of `heads`.
        depth: transformer blocks.
        conv_width: channels of the second convolution; the first has half.
    Raises:
        ConfigError: an odd width, or counts below one.
    """

    def __init__(
        self, *, num_mels: int = 64, width: int = 192, depth: int = 2, heads: int = 3, conv_width: int = 48
    ) -> None:
        super().__init__()
        if num_mels < 1 or width < 2 or width % 2 or depth < 0 or conv_width < 2:
            raise ConfigError(
                f"LogMelConv cannot have num_mels={num_mels}, width={width}, depth={depth}, conv_width={conv_width}; "
                "expected an even width, conv_width of at least 2, depth of at least 0."
            )
        self.num_mels, self.width, self.depth, self.heads, self.conv_width = num_mels, width, depth, heads, conv_width
        self.out_dim = width
        half = conv_width // 2
        self.conv1 = nn.Conv2d(1, half, 3, 2, 1)
        self.conv2 = nn.Conv2d(half, conv_width, 3, 2, 1)
        self.map = nn.Linear(conv_width * int(halved(num_mels, 2)), width)
        self.map_norm = nn.LayerNorm(width)
        self.conv3 = nn.Conv1d(width, width, 3, 2, 1)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another rank or number of mel bands, or an item without frames.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.num_mels or raw.shape[0] < 1:
                expected = f"(F, {self.num_mels}) with F above zero"
                raise refuse_raw(self, index, raw, expected, "Give processor and encoder the same num_mels.")
        frames, lengths = pad_rows([raw.to(self.norm.weight) for raw in raws])
        x = self._keep(F.gelu(self.conv1(frames[:, None])), halved(lengths, 1))
        x = self._keep(F.gelu(self.conv2(x)), halved(lengths, 2))
        x = F.gelu(self.map_norm(self.map(x.transpose(1, 2).flatten(2))))
        x = self.conv3(self._keep(x.transpose(1, 2)[..., None], halved(lengths, 2))[..., 0]).transpose(1, 2)
        mask = torch.arange(x.shape[1], device=x.device) < torch.as_tensor(halved(lengths, _HALVINGS))[:, None]
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), self.width).to(x)
        key_mask = None if bool(mask.all()) else mask
        for block in self.blocks:
            x = block(x, key_mask)
        return Packed(self.norm(x)[mask], tuple(self.out_shape(Shape(raw.shape[0])) for raw in raws))

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(len / 8) rows, each at the time of its first frame."""
        times = None if shape.times is None else shape.times[:: 2**_HALVINGS]
        return Shape(int(halved(shape.len, _HALVINGS)), times=times)

    def minimal_raw(self) -> Tensor:
        """One frame of zeros."""
        return torch.zeros(1, self.num_mels)

    @staticmethod
    def _keep(x: Tensor, lengths: Tensor | int) -> Tensor:
        """(B, C, T, M) with zeros behind each item's end."""
        mask = torch.arange(x.shape[2], device=x.device) < torch.as_tensor(lengths)[:, None]
        return x * mask[:, None, :, None].to(x)
