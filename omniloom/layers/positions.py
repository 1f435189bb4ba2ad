"""Fixed sinusoidal positions: no weights, any length, any grid.

Source: Attention Is All You Need (arXiv:1706.03762), section 3.5; on grids, half of the channels for each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omniloom.errors import ConfigError

__all__ = ["grid_positions", "sinusoids"]


def sinusoids(positions: Tensor, width: int, *, base: float = 10_000.0) -> Tensor:
    """(N,) positions to (N, width) float32: sines in the first half, cosines in the second.

    Wavelengths grow from 2 pi to 2 pi `base`; grids of a few cells need a small `base`, or most channels stay constant.

    Raises:
        ConfigError: `width` is odd.
    """
    if width % 2:
        raise ConfigError(f"sinusoidal positions need an even width, got {width}.")
    half = width // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / max(half - 1, 1)
    angles = positions.float()[:, None] * base**-exponents
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(
    grid: tuple[int, int, int], width: int, *, base: float = 100.0, device: torch.device | None = None
) -> Tensor:
    """(t * y * x, width) positions of a grid in that order: y and x in half of the channels each, plus time in all.

    Time adds nothing to the first frame, so a picture and the first frame of a video have the same positions.

    Raises:
        ConfigError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"grid positions need a width that is a multiple of 4, got {width}.")
    t, y, x = (
        sinusoids(torch.arange(n, device=device), part, base=base)
        for n, part in zip(grid, (width, width // 2, width // 2), strict=True)
    )
    frame = torch.cat([y[:, None].expand(-1, grid[2], -1), x[None].expand(grid[1], -1, -1)], -1).flatten(0, 1)
    return (frame[None] + (t - t[:1])[:, None]).flatten(0, 1)
