"""A deep map of each row: one matrix, then gated residual blocks.

Source: the bind network of ImageBind-LLM (arXiv:2309.03905): the L2-normalised joint embedding of ImageBind, 1,024
wide, through a linear map to the language model's width and three blocks with a feed-forward four times as wide.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from omniloom.errors import ConfigError
from omniloom.layers import SwiGLU
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Residual"]


class Residual(Projector):
    """(S, in_dim) to (S, out_dim): a linear map, then `layers` times x + W2(silu(W1 n) * W3 n), n the RMS norm of x.

    Args:
        layers: residual blocks.
        ratio: width inside of a block over out_dim. ImageBind-LLM: 4.
        normalize: divide each row by its L2 norm first, as ImageBind-LLM does: joint spaces compare directions.
    Raises:
        ConfigError: fewer than one layer, or a ratio that leaves no width.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, layers: int = 3, ratio: float = 4.0, normalize: bool = False
    ) -> None:
        super().__init__()
        if layers < 1 or int(ratio * out_dim) < 1:
            raise ConfigError(
                f"Residual needs at least one layer and a ratio above zero, got layers={layers}, ratio={ratio}."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.layers, self.ratio, self.normalize = layers, ratio, normalize
        self.map = nn.Linear(in_dim, out_dim)
        self.blocks = nn.ModuleList(SwiGLU(out_dim, int(ratio * out_dim)) for _ in range(layers))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row mapped alone; shapes stay."""
        require_width(self, packed)
        rows = packed.x.to(self.map.weight)
        x = self.map(F.normalize(rows, dim=-1) if self.normalize else rows)
        for block in self.blocks:
            x = block(x)
        return Packed(x, packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape
