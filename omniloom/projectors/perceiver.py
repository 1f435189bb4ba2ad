"""Latents that read an item's rows and themselves by attention: any number of rows becomes `latents` rows.

Source: the Perceiver resampler of Flamingo (arXiv:2204.14198), as AnyMAL (arXiv:2309.16058) and Octavius
(arXiv:2311.02684) project with it; positions on the keys alone as in MiniCPM-V (arXiv:2408.01800), bounded scores as in
Unified-IO 2 (arXiv:2312.17172).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.layers import Attention, grid_positions, pad_rows, sinusoids
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Perceiver"]

_TENTHS = 10  # positions in time count tenths of a second: the fastest channel turns once in 0.6 s


class Perceiver(Projector):
    """(S, in_dim) rows of any lengths to (items * latents, out_dim).

    In each layer the keys are the item's rows and the latents themselves, so one attention does the work of a cross-
    and a self-attention.

    Args:
        latents: rows an item becomes. Published: 32 or 64 a picture, 64 to 256 an item in AnyMAL.
        width: of the latents and layers, a multiple of `heads`.
        depth: layers of attention and MLP. Flamingo: 6; MiniCPM-V: 1.
        qk_norm: scores are scaled cosines, which rows of any size keep bounded.
        positions: keys know where their rows are: by sinusoids of the grid (y and x), of the seconds, or, for frames
            without a clock, of the frame's number. Rows with neither are read as a set.
    Raises:
        ConfigError: a count below one, or a width that the heads, or 4 for positions, do not divide.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        latents: int = 16,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        qk_norm: bool = False,
        positions: bool = True,
    ) -> None:
        super().__init__()
        if min(latents, width, depth, heads) < 1:
            raise ConfigError("Perceiver needs latents, width, depth and heads of at least one.")
        if positions and width % 4:
            raise ConfigError(
                f"Perceiver got width={width}; positions need a multiple of 4. Change it, or take positions: false."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.latents, self.width, self.depth, self.heads = latents, width, depth, heads
        self.qk_norm, self.positions = qk_norm, positions
        self.latent = nn.Parameter(torch.empty(latents, width))
        # Latents must differ from the start, or all of them read the same mixture and stay equal for long.
        nn.init.normal_(self.latent)
        self.row_map = nn.Linear(in_dim, width)
        self.layers = nn.ModuleList(_Layer(width, heads, qk_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Latents of every item, in order; an item sees its own rows only."""
        require_width(self, packed)
        padded, mask = packed.padded()
        rows = self.row_map(padded.to(self.latent))
        places = None
        if self.positions:
            places = pad_rows([row_positions(shape, self.width).to(rows) for shape in packed.shapes])[0]
        x = self.latent.expand(len(packed), -1, -1)
        for layer in self.layers:
            x = layer(x, rows, mask, places)
        return Packed(self.map(self.norm(x)).flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """`latents` rows without place or time: every latent sees the whole item."""
        return Shape(self.latents)


class _Layer(nn.Module):
    """Attention of the latents over rows and latents, then an MLP; each behind a norm and added to its input."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.row_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, is_cosine=qk_norm)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, rows: Tensor, mask: Tensor, places: Tensor | None) -> Tensor:
        """(B, latents, width) to the same; `mask` (B, M) is True where a row is real, `places` are their positions."""
        latents = self.latent_norm(x)
        memory = torch.cat([self.row_norm(rows), latents], 1)
        is_real = torch.cat([mask, mask.new_ones(latents.shape[:2])], 1)
        where = None if places is None else torch.cat([places, torch.zeros_like(x)], 1)
        x = x + self.attention(latents, memory, is_real, key_positions=where)
        return x + self.mlp(self.mlp_norm(x))


def row_positions(shape: Shape, width: int) -> Tensor:
    """(len, width) sinusoids of where and when each row is; zero for rows with neither grid nor times.

    Time adds nothing at zero seconds and to the first frame, so a picture and the first frame of a video have the same
    positions.
    """
    places = torch.zeros(shape.len, width)
    if shape.grid is not None:
        t, y, x = shape.grid
        # With a clock, the seconds tell when a frame is, not its number: frames may be sampled unevenly.
        grid = (1, y, x) if shape.times is not None else (t, y, x)
        places = places + grid_positions(grid, width).repeat(t // grid[0], 1)
    if shape.times is not None:
        seconds = torch.tensor(shape.times)
        places = places + sinusoids(_TENTHS * seconds, width) - sinusoids(torch.zeros(1), width)
    return places
