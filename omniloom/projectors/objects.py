"""Objects of a scene that attend to one another by where they lie: nearer, above, left of, behind.

Source: the spatial transformer of LEO (arXiv:2311.12871), after 3D-VisTA (arXiv:2308.04352): each row says
by itself how much its attention minds distance and direction. LEO: 3 layers, 256 wide, 8 heads, at most 60 objects.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Objects"]

_PLACE = 6  # columns of a row that are its centre and its size
_RELATIONS = 5
_TINY = 1e-10  # metres squared; the relations of an object to itself stay finite


class Objects(Projector):
    """(S, in_dim) rows to (S, out_dim), a row an object; its last 6 columns are its centre and size, (x, y, z) each.

    Args:
        layers: of the transformer.
        width: of its rows, a multiple of `heads`.
        hidden: width inside its MLPs.
    Raises:
        ConfigError: rows too narrow for a place, a count below one, or a width that the heads do not divide.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, layers: int = 3, width: int = 256, heads: int = 8, hidden: int = 2048
    ) -> None:
        super().__init__()
        if in_dim <= _PLACE or min(layers, width, heads, hidden) < 1 or width % heads:
            raise ConfigError(
                f"Objects got rows {in_dim} wide, layers={layers}, width={width}, heads={heads}, hidden={hidden}; "
                "expected features and 6 columns of place, counts of at least one, and a width that is a multiple of "
                "`heads`."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.layers, self.width, self.heads, self.hidden = layers, width, heads, hidden
        self.first = nn.Linear(in_dim - _PLACE, width)
        self.place = nn.Sequential(nn.Linear(_PLACE, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(_Layer(width, heads, hidden) for _ in range(layers))
        self.map = nn.Linear(width, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """The objects of an item see one another, and no other item's."""
        require_width(self, packed)
        padded, mask = packed.padded()
        features, places = padded.to(self.first.weight).split([self.in_dim - _PLACE, _PLACE], -1)
        relations = _relations(padded[..., -_PLACE : -_PLACE + 3].float(), mask).to(features)
        x, place = self.first(features), self.place(places)
        for block in self.blocks:
            x = block(x + place, relations, mask)
        return Packed(self.map(x[mask]), packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """A row an object, as many as came."""
        return shape


def _relations(centres: Tensor, mask: Tensor) -> Tensor:
    """(B, L, 3) centres to (B, L, L, 5): distance over the item's largest, sine and cosine of the vertical angle, sine
    and cosine of the horizontal one."""
    offset = centres[:, :, None] - centres[:, None]
    flat = (offset[..., :2].square().sum(-1) + _TINY).sqrt()
    distance = (offset.square().sum(-1) + _TINY).sqrt()
    both = mask[:, :, None] & mask[:, None]
    largest = distance.masked_fill(~both, 0.0).amax((1, 2), keepdim=True)
    x, y, z = offset.unbind(-1)
    return torch.stack([distance / largest, z / distance, flat / distance, y / flat, x / flat], -1)


class _Layer(nn.Module):
    """Attention and MLP, each added to its input and then normed."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias of keys cancels in the softmax
        self.minds = nn.Linear(width, heads * (_RELATIONS + 1))
        self.inner_norm, self.attention_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, relations: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width) with (B, L, L, 5) relations, real where the (B, L) mask is, to the same."""
        query, key, value = (map(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for map in self._maps())
        minds = self.minds(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, 6): a bias, then relations
        near = (torch.einsum("bhld,bltd->bhlt", minds[..., 1:], relations) + minds[..., :1]).sigmoid()
        # A factor on the softmax's weight is its logarithm on the score.
        bias = near.clamp(min=1e-6).log().masked_fill(~mask[:, None, None], -torch.inf)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = self.attention_norm(x + self.inner_norm(x + self.out(mixed.transpose(1, 2).flatten(2))))
        return self.norm(x + self.mlp(x))

    def _maps(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.query, self.key, self.value
