"""When rows begin, and rows brought to other times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["clock_of", "regular", "resampled"]


def clock_of(times: Sequence[float]) -> Tensor:
    """(N,) float64 beginnings in seconds; rows of one time are spread evenly until the next time."""
    starts, counts = torch.unique_consecutive(torch.tensor(times, dtype=torch.float64), return_counts=True)
    within = torch.arange(len(times)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return starts.repeat_interleave(counts) + within * (_gaps(starts) / counts).repeat_interleave(counts)


def regular(clock: Tensor, rate_hz: float) -> Tensor:
    """Times of so many rows a second, from the first row's to the end of the last one's; one at least."""
    end = float(clock[-1] + _gaps(clock)[-1] - clock[0])
    # A thousandth of a row: times come in whole microseconds, so that seven sevenths of a second may be a little less.
    return clock[0] + torch.arange(max(math.floor(end * rate_hz + 1e-3), 1), dtype=torch.float64) / rate_hz


def resampled(rows: Tensor, clock: Tensor, wanted: Tensor, sampling: Literal["nearest", "linear"]) -> Tensor:
    """(N, E) rows that begin at `clock` as (len(wanted), E) rows at other times; the outermost ones reach further."""
    if clock.shape == wanted.shape and torch.equal(clock, wanted):
        return rows
    after = torch.searchsorted(clock, wanted, right=True).clamp(max=len(clock) - 1)
    before = (after - 1).clamp(min=0)
    gap = (clock[after] - clock[before]).clamp(min=1e-9)
    share = ((wanted - clock[before]) / gap).clamp(0, 1)
    if sampling == "nearest":
        return rows[torch.where(share > 0.5, after, before).to(rows.device)]
    weight = share[:, None].to(rows)
    return rows[before.to(rows.device)] * (1 - weight) + rows[after.to(rows.device)] * weight


def _gaps(starts: Tensor) -> Tensor:
    """How long each row lasts: until the next one; the last as long as the one before it."""
    gaps = starts.diff()
    return torch.cat([gaps, gaps[-1:] if len(gaps) else torch.zeros(1, dtype=starts.dtype)])
