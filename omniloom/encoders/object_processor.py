"""A scene of points cut into its objects: each at the origin and of unit size, its place and extent beside it.

Source: LEO (arXiv:2311.12871), section 2.1, after 3D-VisTA (arXiv:2308.04352): at most 60 objects of 1,024 points,
each with position and colour, and a place of six numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from omniloom.encoders.augment import random_rotation
from omniloom.encoders.base import Processor
from omniloom.encoders.payload_checks import require_payload
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Points
from omniloom.sequence import Bundle, Shape

__all__ = ["ObjectsProcessor"]


class ObjectsProcessor(Processor):
    """Points whose last feature is a whole number, the object's, to a raw bundle of O objects, by that number.

    `places` (O, 6): mean and extent along x, y and z, in the source's unit. `points` (O, count, 3 + C): positions from
    the mean, the farthest at distance 1, then the other features. Points of a negative number are of no object.

    Args:
        count: points of an object. Of more, every so-maniest in the order they are stored is taken, or with an rng as
            many at random; fewer are repeated.
        objects: most objects of an item; a scene of more is refused.
        rotate: with an rng, turn the scene about the axis "z".
    Raises:
        ConfigError: a count below one, or an unknown axis.
    """

    payload_kind = "points"

    def __init__(self, *, count: int = 1024, objects: int = 60, rotate: Literal["none", "z"] = "none") -> None:
        if min(count, objects) < 1 or rotate not in ("none", "z"):
            raise ConfigError(
                f"objects of count={count}, objects={objects}, rotate={rotate!r}; expected at least one of each, and "
                "rotate 'none' or 'z'."
            )
        self.count, self.objects, self.rotate = count, objects, rotate

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Bundle:
        """The objects of one scene.

        Raises:
            MediaError: invalid_points, features whose last is no whole number, or no object; points_too_large, more
                than `objects`.
        """
        points = require_payload(payload, Points, self)
        if points.features.shape[1] < 1:
            raise MediaError("invalid_points", "the points have no feature; expected the object's number as the last.")
        xyz, features = torch.from_numpy(points.xyz.copy()), torch.from_numpy(points.features.copy())
        numbers = features[:, -1]
        if bool((numbers != numbers.round()).any()):
            raise MediaError(
                "invalid_points", "the last feature is no whole number for every point; expected the object's number."
            )
        if rng is not None and self.rotate == "z":
            xyz = xyz @ random_rotation("z", rng).T
        found = [int(number) for number in numbers.unique() if number >= 0]
        if not found:
            raise MediaError("invalid_points", "no point has an object's number of 0 or more. Segment the scene first.")
        if len(found) > self.objects:
            raise MediaError(
                "points_too_large",
                f"{len(found)} objects; expected {self.objects} at most. Drop small ones, or set `objects`.",
            )
        clouds = [torch.cat([xyz, features[:, :-1]], 1)[numbers == number] for number in found]
        places = torch.stack([_place(cloud[:, :3]) for cloud in clouds])
        return Bundle(places=places, points=torch.stack([self._object(cloud, rng) for cloud in clouds]))

    def shape(self, raw: Bundle) -> Shape:
        """One row per object."""
        return Shape(raw["points"].shape[0])

    def _object(self, cloud: Tensor, rng: torch.Generator | None) -> Tensor:
        total = cloud.shape[0]
        if total > self.count and rng is not None:
            chosen = torch.randperm(total, generator=rng)[: self.count]
        elif total > self.count:
            chosen = torch.arange(self.count) * total // self.count
        else:
            chosen = torch.arange(self.count) % total
        # The mean is that of the whole object, which its place tells too, and not of the chosen points.
        xyz = cloud[chosen, :3] - cloud[:, :3].mean(0)
        return torch.cat([xyz / xyz.norm(dim=1).max().clamp(min=1e-6), cloud[chosen, 3:]], 1)


def _place(xyz: Tensor) -> Tensor:
    return torch.cat([xyz.mean(0), xyz.amax(0) - xyz.amin(0)])
