"""The convolution blocks of locality-preserving projectors: RegNet bottlenecks with squeeze-excite, one after another.

LayerNorm over the channels of each cell instead of BatchNorm, so a picture never depends on its batch.
Source: RegNet (arXiv:2003.13678), as Honeybee (arXiv:2312.06742) and VideoLLaMA2 (arXiv:2406.07476) use it: SiLU,
depth-wise 3 x 3 convolutions, squeeze to a quarter.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["RegStage", "readout"]


class _Norm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, Y, X)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Excite(nn.Module):
    """Channels scaled by what the mean of the whole picture says."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, width, 1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.act(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class _Bottleneck(nn.Module):
    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_dim, width, 1, bias=False),
            _Norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            _Norm(width),
            nn.SiLU(),
            _Excite(width, max(1, round(in_dim / 4))),
            nn.Conv2d(width, width, 1, bias=False),
            _Norm(width),
        )
        shortcut = nn.Sequential(nn.Conv2d(in_dim, width, 1, bias=False), _Norm(width))
        self.shortcut = nn.Identity() if in_dim == width else shortcut
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class RegStage(nn.Sequential):
    """(B, in_dim, Y, X) to (B, width, Y, X) through `depth` bottlenecks."""

    def __init__(self, depth: int, in_dim: int, width: int) -> None:
        super().__init__(*(_Bottleneck(width if index else in_dim, width) for index in range(depth)))


def readout(layers: int, width: int, out_dim: int, act: type[nn.Module]) -> nn.Sequential:
    """`layers` linear maps from `width` to `out_dim`, with an activation between them."""
    parts: list[nn.Module] = [nn.Linear(width, out_dim)]
    for _ in range(1, layers):
        parts += [act(), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*parts)
