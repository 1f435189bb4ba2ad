"""Row by row: a linear map or an MLP from the encoder's width to the language model's.

Source: linear, LLaVA (arXiv:2304.08485); MLP with GELU, LLaVA-1.5 (arXiv:2310.03744).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["MLP", "Linear"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Linear(Projector):
    """(S, in_dim) to (S, out_dim) by one matrix. The option `bias` stays readable; the weight lives in `map`.

    Args:
        width: what it gives as a link inside a chain; None: the language model's width.
    Raises:
        ConfigError: a width below one.
    """

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True, width: int | None = None) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.bias, self.width = in_dim, _width(self, width, out_dim), bias, width
        self.map = nn.Linear(in_dim, self.out_dim, bias=bias)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row mapped alone; shapes stay."""
        require_width(self, packed)
        return Packed(self.map(packed.x.to(self.map.weight)), packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape


class MLP(Projector):
    """(S, in_dim) to (S, out_dim) by `layers` linear maps with an activation between them.

    Args:
        hidden: width between the maps; None means the width it gives.
        activation: gelu, relu or silu.
        norm: a LayerNorm before the first map; encoders differ in scale by orders of magnitude.
        width: what it gives as a link inside a chain; None: the language model's width.
    Raises:
        ConfigError: fewer than one layer, an unknown activation, or a width below one.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        layers: int = 2,
        hidden: int | None = None,
        activation: Literal["gelu", "relu", "silu"] = "gelu",
        norm: bool = True,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError(f"an MLP projector needs at least one layer, got layers={layers}.")
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"unknown activation {activation!r}; expected one of {', '.join(_ACTIVATIONS)}.")
        self.in_dim, self.out_dim, self.width = in_dim, _width(self, width, out_dim), width
        self.layers, self.hidden, self.activation, self.norm = layers, hidden, activation, norm
        widths = [in_dim, *[hidden or self.out_dim] * (layers - 1), self.out_dim]
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.input_norm = nn.LayerNorm(in_dim) if norm else nn.Identity()
        self.act = _ACTIVATIONS[activation]()

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row mapped alone; shapes stay."""
        require_width(self, packed)
        x = self.input_norm(packed.x.to(next(self.maps.parameters())))
        for index, linear in enumerate(self.maps):
            x = linear(self.act(x) if index else x)
        return Packed(x, packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape


def _width(part: Projector, width: int | None, out_dim: int) -> int:
    if width is not None and width < 1:
        raise ConfigError(f"{type(part).__name__} needs a width of at least one, got width={width}.")
    return out_dim if width is None else width
