"""Layers whose weights stay float32 beside a language model of another precision, and that compute in its own.

An optimizer step below bfloat16's resolution would be lost in the weight; the products need no more precision than
those of the layers around them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CastLinear", "CastNorm"]


class CastLinear(nn.Linear):
    """A linear layer that follows the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class CastNorm(nn.LayerNorm):
    """A LayerNorm that follows the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
