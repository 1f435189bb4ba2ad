"""Fewer rows along time by strided convolutions, one after another, then a linear map.

Source: Macaw-LLM (arXiv:2306.09093), one convolution of kernel 48 and stride 36 over the rows of a picture, 36 and 30
of a video, 240 and 220 of sound, without activation; VITA (arXiv:2408.05211), one or two causal convolutions of kernel
5 that double the width, ReLU, the last of stride 2. VITA's BatchNorm is a LayerNorm here, so an item never depends on
its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Conv"]

_ACTIVATIONS: dict[str | None, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    None: nn.Identity,
}


class Conv(Projector):
    """(S, in_dim) to (S', out_dim): a layer of stride s makes ceil(n / s) of n rows, unless it does not pad.

    Rows are taken in reading order, so a grid is convolved as the line of rows that it is, and lost. The defaults are
    VITA's; Macaw's are `kernels: [48], strides: [36], widen: [1], padding: none, norm: false, activation: null`.

    Args:
        kernels: rows that a layer sees at once, one number a layer.
        strides: rows from one place of the kernel to the next, likewise.
        widen: how many times as wide as its input a layer is, likewise.
        padding: "causal": row i sees no row behind i * stride, so a stream can be projected as it comes, and rows
            behind the last stride are not read; "same": the kernel is centred; "none": only places where the whole
            kernel fits, so rows left over at the end are not read; an item shorter than the kernel is filled with zeros
            to one place.
        norm: a LayerNorm after each convolution.
        activation: gelu, relu, silu, or None.
        project: a linear map to the language model's width; False gives the last layer's width.
    Raises:
        ConfigError: lists of different lengths or empty, a number below one, an unknown padding or activation.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        kernels: Sequence[int] = (5,),
        strides: Sequence[int] = (2,),
        widen: Sequence[int] = (2,),
        padding: Literal["causal", "same", "none"] = "causal",
        norm: bool = True,
        activation: Literal["gelu", "relu", "silu"] | None = "relu",
        project: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < len(kernels) == len(strides) == len(widen) or min(*kernels, *strides, *widen) < 1:
            raise ConfigError(
                f"Conv got kernels={list(kernels)}, strides={list(strides)}, widen={list(widen)}; expected one number "
                "of at least one a layer in each."
            )
        if padding not in ("causal", "same", "none") or activation not in _ACTIVATIONS:
            raise ConfigError(
                f"Conv got padding={padding!r} and activation={activation!r}; expected 'causal', 'same' or 'none', and "
                "'gelu', 'relu', 'silu' or null."
            )
        self.in_dim = in_dim
        self.kernels, self.strides, self.widen = kernels, strides, widen
        self.padding, self.norm, self.activation, self.project = padding, norm, activation, project
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        width = in_dim
        for kernel, stride, times in zip(kernels, strides, widen, strict=True):
            self.convs.append(nn.Conv1d(width, width * times, kernel, stride))
            width *= times
            self.norms.append(nn.LayerNorm(width) if norm else nn.Identity())
        self.out_dim = out_dim if project else width
        self.act = _ACTIVATIONS[activation]()
        self.map = nn.Linear(width, out_dim) if project else nn.Identity()

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each item by itself: rows of another one count as the zeros beyond the item's end."""
        require_width(self, packed)
        x, mask = packed.padded()
        x = x.to(next(self.convs.parameters()))
        lengths = packed.lengths
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            lengths = [self._after(layer, length) for length in lengths]
            x = self.act(norm(self._convolved(layer, conv, x, max(lengths))))
            mask = torch.arange(max(lengths), device=x.device) < torch.tensor(lengths, device=x.device)[:, None]
            x = x * mask[..., None]
        return Packed(self.map(x[mask]), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """Fewer rows without a grid, row i at the time of row i times the strides."""
        length, times = shape.len, shape.times
        for layer, stride in enumerate(self.strides):
            length = self._after(layer, length)
            times = None if times is None else times[::stride][:length]
        return Shape(length, times=times)

    def _after(self, layer: int, length: int) -> int:
        if self.padding != "none":
            return -(-length // self.strides[layer])
        return max(0, length - self.kernels[layer]) // self.strides[layer] + 1

    def _convolved(self, layer: int, conv: nn.Module, x: Tensor, rows: int) -> Tensor:
        """(B, L, d) zero behind each item to (B, rows, d')."""
        kernel = self.kernels[layer]
        left = {"causal": kernel - 1, "same": (kernel - 1) // 2, "none": 0}[self.padding]
        right = (rows - 1) * self.strides[layer] + kernel - left - x.shape[1]
        filled = F.pad(x.transpose(1, 2), (left, max(0, right)))
        return conv(filled)[..., :rows].transpose(1, 2)
