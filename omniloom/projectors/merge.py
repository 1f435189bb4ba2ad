"""Patches of a grid side by side: `size` x `size` cells become one wide row, which an MLP brings to any width.

Nothing is averaged away, and rows become fewer by `size` squared. Source: the patch merger of Qwen2-VL
(arXiv:2409.12191), LayerNorm before merging, and of Qwen2.5-VL (arXiv:2502.13923), RMSNorm; pixel shuffle of InternVL
(arXiv:2404.16821), LayerNorm after merging and an MLP as wide as the language model. Used by Qwen2.5-Omni, Lyra and
Baichuan-Omni-1.5.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import cells_at, require_grid, squares, through_grids
from omniloom.sequence import Packed, Shape

__all__ = ["Merge"]

_NORMS: dict[str, type[nn.LayerNorm] | type[nn.RMSNorm]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Merge(Projector):
    """(t, y, x) grids to (t, ceil(y / size), ceil(x / size)) of width out_dim; zeros fill cells beyond the edge.

    The defaults are Qwen2-VL's patch merger; `norm: rms` is Qwen2.5-VL's; `norm_at: merged, hidden: D` with D the
    language model's width is InternVL's; `layers: 0` only merges.

    Args:
        size: cells a side.
        norm: "layer", "rms" or None, in front of the MLP.
        norm_at: "cells": each cell by itself before merging; "merged": the wide row.
        layers: linear maps, with GELU between them; 0: none, and `out_dim` is in_dim * size * size.
        hidden: width between the maps; None means in_dim * size * size.
        order: "cells": a wide row holds the values of its cells one after another, line by line (Qwen2-VL, InternVL);
            "channels": channel by channel, each of all cells (Mistral 3, and what `unfold` gives).
        eps: of the norm.
    Raises:
        ConfigError: a size below one, negative layers, an unknown norm, place or order.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        size: int = 2,
        norm: Literal["layer", "rms"] | None = "layer",
        norm_at: Literal["cells", "merged"] = "cells",
        layers: int = 2,
        hidden: int | None = None,
        order: Literal["cells", "channels"] = "cells",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if size < 1 or layers < 0 or (hidden is not None and hidden < 1):
            raise ConfigError(
                f"Merge needs a size and a hidden width of at least one and layers of at least zero, got size={size}, "
                f"hidden={hidden}, layers={layers}."
            )
        if norm not in (None, *_NORMS) or norm_at not in ("cells", "merged") or order not in ("cells", "channels"):
            raise ConfigError(
                f"Merge got norm={norm!r}, norm_at={norm_at!r}, order={order!r}; expected 'layer', 'rms' or None, "
                "'cells' or 'merged', 'cells' or 'channels'."
            )
        wide = in_dim * size * size
        self.in_dim, self.out_dim = in_dim, out_dim if layers else wide
        self.size, self.norm, self.norm_at, self.layers = size, norm, norm_at, layers
        self.hidden, self.order, self.eps = hidden, order, eps
        width = in_dim if norm_at == "cells" else wide
        self.input_norm = nn.Identity() if norm is None else _NORMS[norm](width, eps=eps)
        widths = [wide, *[hidden or wide] * (layers - 1), out_dim] if layers else []
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = nn.GELU()

    def forward(self, packed: Packed, context: Context) -> Packed:
        """(S, in_dim) to (S', out_dim).

        Raises:
            ShapeError: an item without a grid.
        """
        return through_grids(self, packed, self._merged)

    def out_shape(self, shape: Shape) -> Shape:
        """The smaller grid, each row at the time of its first cell; tiles stay tiles.

        Raises:
            ShapeError: no grid.
        """
        _, y, x = require_grid(self, shape)
        return cells_at(self, shape, range(0, y, self.size), range(0, x, self.size))

    def _merged(self, grid: Tensor) -> Tensor:
        weight = next(self.parameters(), grid)
        x = grid.to(weight)
        if self.norm_at == "cells":
            x = self.input_norm(x)
        x = squares(x, self.size)  # (B, t, y', size, x', size, d)
        x = x.permute(0, 1, 2, 4, 3, 5, 6) if self.order == "cells" else x.permute(0, 1, 2, 4, 6, 3, 5)
        x = x.flatten(4)
        if self.norm_at == "merged":
            x = self.input_norm(x)
        for index, linear in enumerate(self.maps):
            x = linear(self.act(x) if index else x)
        return x
