"""The layers of an encoder mixed with learned weights: speech and music know different things at different depths.

Source: all 25 layers of MERT mixed by a convolution of kernel 1 over them, MuMu-LLaMA (arXiv:2412.06660), which is a
weighted sum with a bias; with a softmax over the weights, SUPERB (arXiv:2105.01051).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["LayerMix"]


class LayerMix(Projector):
    """Taps of several layers, (S, in_dim) each, to one (S, in_dim); shapes stay, `out_dim` is `in_dim`.

    It must be the first part of a chain: others give no taps. The encoder's own rows are mixed in only if their layer
    is among the taps.

    Args:
        taps: which layers, as the encoder names them.
        mode: "softmax": positive weights that sum to one, equal at the start; "linear": any weights and a bias, a
            convolution over the layers, which starts as their mean.
    Raises:
        ConfigError: no taps, one twice, or an unknown mode.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, taps: Sequence[int], mode: Literal["softmax", "linear"] = "softmax"
    ) -> None:
        super().__init__()
        if not taps or len(set(taps)) != len(taps) or mode not in ("softmax", "linear"):
            raise ConfigError(
                f"LayerMix got taps={list(taps)}, mode={mode!r}; expected different layers, and 'softmax' or 'linear'."
            )
        self.in_dim, self.out_dim, self.taps, self.mode = in_dim, in_dim, taps, mode
        is_soft = mode == "softmax"
        self.mix = nn.Parameter(torch.zeros(len(taps)) if is_soft else torch.full((len(taps),), 1 / len(taps)))
        self.bias = None if is_soft else nn.Parameter(torch.zeros(1))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """The weighted sum of the taps.

        Raises:
            ShapeError: a tap is not there, or of another width.
        """
        require_width(self, packed)
        for layer in self.taps:
            found = tuple(packed.taps[layer].shape) if layer in packed.taps else None
            if found != tuple(packed.x.shape):
                raise ShapeError(
                    f"LayerMix got {'no tap' if found is None else f'a tap {found}'} of layer {layer}; expected rows "
                    f"{tuple(packed.x.shape)}, and there are taps of {sorted(packed.taps)}. Let the encoder give the "
                    "same taps, and put LayerMix first in the chain."
                )
        weights = self.mix.softmax(0) if self.mode == "softmax" else self.mix
        x = sum(weight * packed.taps[layer].to(self.mix) for weight, layer in zip(weights, self.taps, strict=True))
        assert isinstance(x, torch.Tensor)
        return Packed(x if self.bias is None else x + self.bias, packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape
