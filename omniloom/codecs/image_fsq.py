"""A small learned codec of small pictures: a square of tokens, each one FSQ code.

Source: FSQ (arXiv:2309.15505) in a convolutional autoencoder, as VQGAN (arXiv:2012.09841) without its critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omniloom.codecs.base import Codec
from omniloom.codecs.fsq import FSQ
from omniloom.errors import ConfigError, MediaError, ShapeError
from omniloom.media import Image
from omniloom.media.transforms import resize_image, to_float
from omniloom.sequence import Codes, Shape

__all__ = ["ImageFSQ"]


class ImageFSQ(Codec):
    """Image to grid * grid codes of one codebook of prod(levels) entries, and back to an RGB picture of size_px.

    Pictures of another size are resized; with one channel their colours are averaged.

    Args:
        size_px: side of the picture; a power of two times `grid`.
        channels: 1 or 3.
        grid: side of the square of tokens.
        levels: of FSQ; (8, 5, 5) are 200 codes.
        width: channels of the convolutions.
    Raises:
        ConfigError: sizes that do not fit each other.
    """

    payload_kind = "image"

    def __init__(
        self,
        *,
        size_px: int = 8,
        channels: int = 1,
        grid: int = 4,
        levels: Sequence[int] = (8, 5, 5),
        width: int = 64,
    ) -> None:
        super().__init__()
        factor = size_px // grid if grid > 0 else 0
        if channels not in (1, 3) or factor < 1 or factor * grid != size_px or factor & (factor - 1) or width < 1:
            raise ConfigError(
                f"ImageFSQ cannot have size_px={size_px}, grid={grid}, channels={channels}, width={width}; "
                "expected size_px = grid times a power of two, and 1 or 3 channels."
            )
        self.size_px, self.channels, self.grid, self.levels, self.width = size_px, channels, grid, levels, width
        self.fsq = FSQ(levels)
        self.sizes = (self.fsq.size,)
        halvings = factor.bit_length() - 1
        down = [layer for _ in range(halvings) for layer in (nn.Conv2d(width, width, 4, 2, 1), _Residual(width))]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1),
            _Residual(width),
            *down,
            _norm(width),
            nn.GELU(),
            nn.Conv2d(width, len(levels), 1),
        )
        up = [layer for _ in range(halvings) for layer in (nn.ConvTranspose2d(width, width, 4, 2, 1), _Residual(width))]
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), width, 3, 1, 1),
            _Residual(width),
            *up,
            _norm(width),
            nn.GELU(),
            nn.Conv2d(width, channels, 3, 1, 1),
        )

    @torch.no_grad()
    def encode(self, payload: Any) -> Codes:
        """grid * grid ids in reading order.

        Raises:
            MediaError: wrong_payload.
        """
        z = self.encoder(self._pixels([payload]))
        return Codes((self.fsq.to_ids(z[0].permute(1, 2, 0).float()).flatten().cpu(),), self.code_shape())

    @torch.no_grad()
    def decode(self, codes: Codes) -> Image:
        """The picture, uint8 RGB.

        Raises:
            ShapeError: not one book of grid * grid ids, or an id outside the codebook.
        """
        weight = self._weight
        if len(codes.books) != 1 or codes.books[0].shape[0] != self.grid**2:
            raise ShapeError(
                f"ImageFSQ got books of {[book.shape[0] for book in codes.books]} ids; expected one of {self.grid**2}."
            )
        points = self.fsq.from_ids(codes.books[0].to(weight.device), weight.dtype)
        pixels = self.decoder(points.view(self.grid, self.grid, -1).permute(2, 0, 1)[None])[0].float()
        bytes_CYX = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        return Image(np.ascontiguousarray(bytes_CYX.expand(3, -1, -1).permute(1, 2, 0).numpy()))

    def code_shape(self) -> Shape:
        """Always the grid of tokens."""
        return Shape(self.grid**2, (1, self.grid, self.grid))

    def loss(self, payloads: Sequence[Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """`reconstruction`: squared errors of pixels in 0..1, their sum and count.

        Raises:
            MediaError: wrong_payload.
        """
        pixels = self._pixels(payloads)
        z = self.encoder(pixels).permute(0, 2, 3, 1)
        again = self.decoder(self.fsq(z).permute(0, 3, 1, 2))
        squares = ((again.float() - pixels.float()) / 2).square()
        return {"reconstruction": (squares.sum(), torch.tensor(squares.numel(), device=squares.device))}

    @property
    def _weight(self) -> Tensor:
        first = self.encoder[0]
        assert isinstance(first, nn.Conv2d)
        return first.weight

    def _pixels(self, payloads: Sequence[Any]) -> Tensor:
        """(B, channels, size_px, size_px) in -1..1."""
        pictures = []
        for payload in payloads:
            if not isinstance(payload, Image):
                raise MediaError("wrong_payload", f"ImageFSQ got {type(payload).__name__}; expected an Image.")
            pixels = to_float(payload)
            if self.channels == 1:
                pixels = pixels.mean(0, keepdim=True)
            if pixels.shape[1:] != (self.size_px, self.size_px):
                pixels = resize_image(pixels, (self.size_px, self.size_px)).clamp(0, 1)
            pictures.append(pixels * 2 - 1)
        if not pictures:
            raise ShapeError("ImageFSQ got no pictures; expected at least one.")
        return torch.stack(pictures).to(self._weight)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, width)


class _Residual(nn.Module):
    """Norm, GELU and a 3 x 3 convolution, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_norm(width), nn.GELU(), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
