"""How near two processors' pictures are, in steps of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NOISE = np.random.default_rng(0)


def noise(height: int, width: int) -> np.ndarray:
    """Every value of 8 bits at random: a shift by one pixel, or a pass that cuts overshoot off, shows anywhere."""
    return NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8)


def soft_noise(height: int, width: int) -> np.ndarray:
    """Noise whose bicubic overshoot stays within 8 bits: whichever of x and y is scaled first, only roundings differ.

    Pillow 13 begins with y where that is less work, and with it the Pillow classes of transformers.
    """
    return NOISE.integers(64, 192, (height, width, 3), dtype=np.uint8)


def steps(ours: Tensor, theirs: Tensor, std: Sequence[float], scale: float = 1 / 255) -> Tensor:
    """Differences of normalised values (.., 3, Y, X) in steps of 8 bits; shapes must be equal."""
    assert ours.shape == theirs.shape, (tuple(ours.shape), tuple(theirs.shape))
    return (ours - theirs.to(ours)).abs() * torch.tensor(std)[:, None, None] / scale


def assert_rounded(ours: Tensor, theirs: Tensor, std: Sequence[float], scale: float = 1 / 255) -> None:
    """At most 2 steps, and less than half a step on average."""
    differences = steps(ours, theirs, std, scale)
    assert differences.max() < 2.01 and differences.mean() < 0.5, (differences.max(), differences.mean())


def patches(raw: Tensor, patch: int, merge: int) -> Tensor:
    """Pixels (F, 3, Y, X) in the order of transformers' flattened patches, two frames each."""
    frames, channels, height, width = raw.shape
    y, x = height // patch, width // patch
    cut = raw.view(frames // 2, 2, channels, y // merge, merge, patch, x // merge, merge, patch)
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * 2 * patch * patch)


def by_channel(patches: Tensor) -> Tensor:
    """Flattened patches (N, 3 * F * Y * X) as (N, 3, 1, F * Y * X)."""
    return patches.view(len(patches), 3, 1, -1)
