"""Small random changes of raw tensors that keep their meaning; every draw comes from the generator given.

Source: masking of time and pitch, SpecAugment (arXiv:1904.08779); rotation of sensors (arXiv:1706.00527).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mask_bands", "random_rotation", "shift_picture", "uniform"]


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """One number, evenly drawn."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def shift_picture(pixels: Tensor, limit_px: int, rng: torch.Generator) -> Tensor:
    """(C, Y, X) moved by up to `limit_px` along each side; the border is repeated where it moved away."""
    y, x = (int(n) for n in torch.randint(0, 2 * limit_px + 1, (2,), generator=rng))
    padded = F.pad(pixels[None], (limit_px,) * 4, mode="replicate")[0]
    return padded[:, y : y + pixels.shape[1], x : x + pixels.shape[2]].contiguous()


def mask_bands(raw: Tensor, axis: int, limit: int, rng: torch.Generator) -> Tensor:
    """(F, M) with one run of up to `limit` frames (axis 0) or bands (axis 1) set to the item's mean.

    The run is never longer than half of the axis, so that something is left to recognise.
    """
    length = int(torch.randint(0, min(limit, raw.shape[axis] // 2) + 1, (), generator=rng))
    start = int(torch.randint(0, raw.shape[axis] - length + 1, (), generator=rng))
    masked = raw.clone()
    masked.narrow(axis, start, length).fill_(float(raw.mean()))
    return masked


def random_rotation(axis: str, rng: torch.Generator) -> Tensor:
    """A (3, 3) rotation: about "x", "y" or "z" by any angle, or "any" for an evenly drawn rotation of space."""
    if axis == "any":
        # A random unit quaternion is an even draw over all rotations.
        w, x, y, z = F.normalize(torch.randn(4, generator=rng, dtype=torch.float64), dim=0).tolist()
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        return torch.tensor(rows, dtype=torch.float32)
    angle = uniform(rng, 0.0, 2 * math.pi)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    rotation = torch.eye(3)
    rotation[first, first] = rotation[second, second] = math.cos(angle)
    rotation[first, second], rotation[second, first] = -math.sin(angle), math.sin(angle)
    return rotation
