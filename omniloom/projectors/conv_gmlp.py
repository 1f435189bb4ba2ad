"""Fewer, wider rows along time through a gate: two strided convolutions multiplied, around what stacking would give.

The sum with the stacked rows keeps all that came in, so few steps of training suffice where plain pooling loses sound.
Source: Conv-GMLP of Baichuan-Omni (arXiv:2410.08565); its form and numbers from Baichuan-Omni-1.5
(arXiv:2501.15368): factor 4, SiLU, no biases but in the norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["ConvGMLP"]


class ConvGMLP(Projector):
    """(S, in_dim) to ceil(n / factor) rows an item: norm(stacked + down(silu(gate) * up)), then a linear map.

    Gate and up are convolutions of kernel and stride `factor` to in_dim * factor; zeros fill the last rows of an item.

    Args:
        factor: rows that become one.
        project: a linear map to the language model's width; False gives in_dim * factor.
    Raises:
        ConfigError: a factor below one.
    """

    def __init__(self, in_dim: int, out_dim: int, *, factor: int = 4, project: bool = True) -> None:
        super().__init__()
        if factor < 1:
            raise ConfigError(f"ConvGMLP needs a factor of at least one, got factor={factor}.")
        wide = in_dim * factor
        self.in_dim, self.out_dim, self.factor, self.project = in_dim, out_dim if project else wide, factor, project
        self.gate = nn.Conv1d(in_dim, wide, factor, factor, bias=False)
        self.up = nn.Conv1d(in_dim, wide, factor, factor, bias=False)
        self.down = nn.Linear(wide, wide, bias=False)
        self.norm = nn.LayerNorm(wide)
        self.map = nn.Linear(wide, out_dim) if project else nn.Identity()

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Items filled to whole strides stand behind one another: a kernel as long as its stride never meets two."""
        require_width(self, packed)
        filled = [F.pad(item, (0, 0, 0, -item.shape[0] % self.factor)) for item in packed.items()]
        x = torch.cat(filled).to(self.down.weight)
        gate, up = (conv(x.T[None])[0].T for conv in (self.gate, self.up))
        x = self.norm(x.reshape(-1, self.in_dim * self.factor) + self.down(F.silu(gate) * up))
        return Packed(self.map(x), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(len / factor) rows without a grid, each at the time of its first."""
        times = None if shape.times is None else shape.times[:: self.factor]
        return Shape(-(-shape.len // self.factor), times=times)
