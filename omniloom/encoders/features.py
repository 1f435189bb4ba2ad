"""Features that were computed elsewhere, as a modality of their own: rows go to the projector as they are.

Source: precomputed CLIP and CLAP features of AVicuna (arXiv:2403.16276), LanguageBind vectors of WorldGPT
(arXiv:2404.18202).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omniloom.encoders.base import Encoder, Processor
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.payload_checks import require_payload
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Series
from omniloom.sequence import Packed, Shape

__all__ = ["FeaturesProcessor", "Identity"]


class FeaturesProcessor(Processor):
    """Series to raw (T, E): its steps are the rows. A file is any that a series is read from, e.g. .npy of (T, E).

    Args:
        rate_hz: rows a second; rows then have times. A series that tells another rate is refused. None: no times.
    Raises:
        ConfigError: a rate that is not above zero.
    """

    payload_kind = "series"

    def __init__(self, *, rate_hz: float | None = None) -> None:
        if rate_hz is not None and rate_hz <= 0:
            raise ConfigError(f"rate_hz={rate_hz} of features; expected a rate above zero, or None.")
        self.rate_hz = rate_hz

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one item; nothing is random.

        Raises:
            MediaError: wrong_payload; invalid_series, another rate.
        """
        series = require_payload(payload, Series, self)
        if self.rate_hz is not None and series.rate_hz not in (None, self.rate_hz):
            raise MediaError(
                "invalid_series",
                f"the features have {series.rate_hz:g} rows a second; expected {self.rate_hz:g}. Set `rate_hz`.",
            )
        return torch.from_numpy(series.values.copy())

    def shape(self, raw: Tensor) -> Shape:
        """One row per step."""
        times = None if self.rate_hz is None else tuple(step / self.rate_hz for step in range(raw.shape[0]))
        return Shape(raw.shape[0], times=times)


class Identity(Encoder):
    """Raw (T, width) to the same rows, in the dtype that the model has.

    Args:
        width: E of the features.
    Raises:
        ConfigError: a width below one.
    """

    like: Tensor

    def __init__(self, *, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"width={width} of features; expected at least one number a row.")
        self.width = self.out_dim = width
        self.register_buffer("like", torch.empty(0), persistent=False)  # moves and casts with the module

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """The rows of all items.

        Raises:
            ShapeError: no items, or features of another width.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.width or raw.shape[0] < 1:
                raise refuse_raw(self, index, raw, f"(T, {self.width}) with T above zero", "Set `width` to the data's.")
        rows = torch.cat([raw.to(self.like) for raw in raws])
        return Packed(rows, tuple(self.out_shape(Shape(raw.shape[0])) for raw in raws))

    def out_shape(self, shape: Shape) -> Shape:
        """As it came."""
        return shape

    def minimal_raw(self) -> Tensor:
        """One row of zeros."""
        return torch.zeros(1, self.width)
