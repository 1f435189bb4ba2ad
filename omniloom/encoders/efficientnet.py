"""EfficientNet-Lite0: a small convolutional image network, trained on ImageNet.

The Lite variants leave out squeeze-and-excitation and use ReLU6, so that they also run in integer arithmetic.
Parameter names are those of the published PyTorch state dict, so that it loads strictly.

Source: EfficientNet (arXiv:1905.11946), Lite variants as published with TensorFlow's TPU models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

_EPS = 1e-3  # batch norm epsilon of the TensorFlow original; torch's default 1e-5 shifts the features


class _Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int
    expand: int
    in_dim: int
    out_dim: int


# Table 1 of the paper, width and depth 1.0.
_STAGES = (
    _Stage(1, 3, 1, 1, 32, 16),
    _Stage(2, 3, 2, 6, 16, 24),
    _Stage(2, 5, 2, 6, 24, 40),
    _Stage(3, 3, 2, 6, 40, 80),
    _Stage(3, 5, 1, 6, 80, 112),
    _Stage(4, 5, 2, 6, 112, 192),
    _Stage(1, 3, 1, 6, 192, 320),
)


class _SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's SAME does: the odd pixel goes to the right and bottom."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_dim, out_dim, kernel, stride, groups=groups, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        sides: list[int] = []
        for length in (images.shape[-1], images.shape[-2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(images, sides))


class _Block(nn.Module):
    """Inverted residual: widen by 1x1, filter each channel, narrow by 1x1; added to its input where shapes allow."""

    def __init__(self, in_dim: int, out_dim: int, *, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        width = in_dim * expand
        self.has_expand = expand != 1
        if self.has_expand:
            self._expand_conv = _SameConv(in_dim, width, 1)
            self._bn0 = nn.BatchNorm2d(width, eps=_EPS)
        self._depthwise_conv = _SameConv(width, width, kernel, stride=stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, eps=_EPS)
        self._project_conv = _SameConv(width, out_dim, 1)
        self._bn2 = nn.BatchNorm2d(out_dim, eps=_EPS)
        self.is_residual = stride == 1 and in_dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self._bn0(self._expand_conv(x))) if self.has_expand else x
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return x + hidden if self.is_residual else hidden


class EfficientNetLite0(nn.Module):
    """Images to a map of features; the ImageNet classifier is kept for `classify`.

    4.65 million parameters. `out_dim` 1280 wide, one cell per 32 x 32 pixels.
    """

    out_dim = 1280
    image_size_px = 224
    mean = (127 / 255,) * 3  # of images in 0..1; the Lite variants were not trained with the usual ImageNet means
    std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        self._blocks = nn.ModuleList()
        for stage in _STAGES:
            for index in range(stage.blocks):
                in_dim, stride = (stage.in_dim, stage.stride) if index == 0 else (stage.out_dim, 1)
                block = _Block(in_dim, stage.out_dim, kernel=stage.kernel, stride=stride, expand=stage.expand)
                self._blocks.append(block)
        self._conv_head = _SameConv(320, self.out_dim, 1)
        self._bn1 = nn.BatchNorm2d(self.out_dim, eps=_EPS)
        self._fc = nn.Linear(self.out_dim, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, Y, X) images, normalised by `mean` and `std`, to a (N, 1280, Y / 32, X / 32) map, rounded up."""
        hidden = F.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            hidden = block(hidden)
        return F.relu6(self._bn1(self._conv_head(hidden)))

    def classify(self, images: Tensor) -> Tensor:
        """(N, 3, Y, X) normalised images to (N, 1000) logits of the ImageNet classes."""
        return self._fc(self.forward(images).mean(dim=(-2, -1)))
