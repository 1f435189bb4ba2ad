"""Finite scalar quantisation: round each of a few bounded numbers to a few levels; their product is the codebook.

No codebook to learn, none to collapse. Source: Finite Scalar Quantization: VQ-VAE Made Simple (arXiv:2309.15505),
section 3 and appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError

__all__ = ["FSQ"]

_MARGIN = 1e-3  # keeps tanh's ends from rounding outwards, as in the paper's code


class FSQ(nn.Module):
    """(..., len(levels)) numbers to the nearest of prod(levels) points, with the gradient of the identity.

    Raises:
        ConfigError: no levels, or fewer than two of one.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigError(f"FSQ needs at least two levels in each of its dimensions, got {list(levels)}.")
        self.levels = tuple(levels)
        self.size = prod(self.levels)

    def forward(self, z: Tensor) -> Tensor:
        """Quantised to -1..1, straight through: the forward value is rounded, the gradient is the bound's."""
        bounded = self._bound(z)
        return (bounded + (bounded.round() - bounded).detach()) / self._half(z)

    def to_ids(self, z: Tensor) -> Tensor:
        """(..., d) unquantised numbers to (...) int64 ids."""
        half = self._half(z)
        digits = self._bound(z).round() + half
        return (digits * self._basis(z)).sum(-1).round().long()

    def from_ids(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(...) ids to their (..., d) points in -1..1.

        Raises:
            ShapeError: an id outside the codebook.
        """
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.size:
            raise ShapeError(
                f"code ids reach from {int(ids.min())} to {int(ids.max())}; expected 0 to {self.size - 1}."
            )
        basis = self._basis(torch.empty((), device=ids.device)).long()
        levels = torch.tensor(self.levels, device=ids.device)
        half = (levels // 2).to(dtype)
        return (torch.div(ids[..., None], basis, rounding_mode="floor") % levels - half) / half

    def _half(self, z: Tensor) -> Tensor:
        return torch.tensor([level // 2 for level in self.levels], device=z.device, dtype=z.dtype)

    def _basis(self, z: Tensor) -> Tensor:
        return torch.tensor(
            [prod(self.levels[:index]) for index in range(len(self.levels))], device=z.device, dtype=z.dtype
        )

    def _bound(self, z: Tensor) -> Tensor:
        """Into the open range that rounds to exactly `level` integers; shifted by a half where `level` is even."""
        levels = torch.tensor(self.levels, device=z.device, dtype=z.dtype)
        half = (levels - 1) * (1 - _MARGIN) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0).to(z.dtype)
        return torch.tanh(z + torch.tan(offset / half)) * half - offset
