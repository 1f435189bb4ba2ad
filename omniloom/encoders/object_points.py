"""Objects of a scene, each as one row: what PointNet++ sees of its points, and where it is and how large.

Source: PointNet++ (arXiv:1706.02413) with the sizes that 3D-VisTA (arXiv:2308.04352) and LEO (arXiv:2311.12871) take:
32 groups, 16 groups, all; 768 features. The projector `objects` follows. Norms are over the channels of a point, not
over the batch, so that an object does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.point_net import farthest_points
from omniloom.errors import ConfigError
from omniloom.layers import in_stacks
from omniloom.sequence import Bundle, Packed, Shape

__all__ = ["ObjectPoints"]


class ObjectPoints(Encoder):
    """Raw bundles of `points` (O, N, 3 + features) and `places` (O, 6) to O rows: widths[-1][-1] features and a place.

    Args:
        features: channels beside x, y, z; 3 for colour.
        groups: centres of each stage but the last, which takes all.
        neighbours: points of a group.
        radii: how far they may lie from its centre; what lies farther is replaced by the nearest.
        widths: of the MLP of each stage, one more stage than `groups`.
    Raises:
        ConfigError: lists of other lengths, or a number below its least value.
    """

    def __init__(
        self,
        *,
        features: int = 3,
        groups: Sequence[int] = (32, 16),
        neighbours: Sequence[int] = (32, 32),
        radii: Sequence[float] = (0.2, 0.4),
        widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 768)),
    ) -> None:
        super().__init__()
        is_matched = len(groups) == len(neighbours) == len(radii) == len(widths) - 1
        numbers = [*groups, *neighbours, *(width for stage in widths for width in stage)]
        if not is_matched or features < 0 or min(numbers, default=0) < 1 or min(radii, default=1.0) <= 0:
            raise ConfigError(
                f"ObjectPoints got groups={groups}, neighbours={neighbours}, radii={radii}, widths={widths}; expected "
                "lists of one length, one more in widths, and numbers above zero."
            )
        self.features, self.groups, self.neighbours = features, groups, neighbours
        self.radii, self.widths = radii, widths
        ins = [features, *(stage[-1] for stage in widths)]
        self.stages = nn.ModuleList(_mlp([3 + width, *stage]) for width, stage in zip(ins, widths, strict=False))
        self.out_dim = int(widths[-1][-1]) + 6

    def forward(self, raws: Sequence[Bundle]) -> Packed:
        """Rows in the order of the objects, the six numbers of the place last.

        Raises:
            ShapeError: no items, or a bundle of other shapes.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            self._check(index, raw)
        weight = next(self.parameters())
        # An object is by itself: all objects of all items that have equally many points run at once.
        objects = [cloud for raw in raws for cloud in raw["points"].to(weight.device)]
        rows = in_stacks(objects, lambda clouds: self._encode(clouds, weight.dtype))
        places = torch.cat([raw["places"].to(weight) for raw in raws])
        shapes = tuple(Shape(raw["points"].shape[0]) for raw in raws)
        return Packed(torch.cat([torch.stack(rows), places], 1), shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """One row per object."""
        return Shape(shape.len)

    def minimal_raw(self) -> Bundle:
        """One object of one point at the origin."""
        return Bundle(places=torch.zeros(1, 6), points=torch.zeros(1, 1, 3 + self.features))

    def _encode(self, clouds: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, N, 3 + features) to (B, widths[-1][-1]). Distances are float32: in bfloat16 neighbours would tie."""
        xyz, x = clouds[..., :3].float(), clouds[..., 3:].to(dtype)
        *grouping, last = self.stages
        for stage, groups, count, radius in zip(grouping, self.groups, self.neighbours, self.radii, strict=True):
            centres = torch.take_along_dim(xyz, farthest_points(xyz, min(groups, xyz.shape[1]))[..., None], 1)
            near = torch.cdist(centres, xyz).topk(min(count, xyz.shape[1]), dim=-1, largest=False)
            chosen = torch.where(near.values <= radius, near.indices, near.indices[..., :1])[..., None]
            offsets = torch.take_along_dim(xyz[:, None], chosen, 2) - centres[:, :, None]
            seen = torch.take_along_dim(x[:, None], chosen, 2)
            x = stage(torch.cat([offsets.to(dtype), seen], -1)).amax(2)
            xyz = centres
        return last(torch.cat([xyz.to(dtype), x], -1)).amax(1)  # type: ignore[no-any-return]

    def _check(self, index: int, raw: Bundle) -> None:
        is_right = isinstance(raw, Bundle) and set(raw) == {"points", "places"}
        if is_right:
            points, places = raw["points"], raw["places"]
            is_right = points.dim() == 3 and points.shape[2] == 3 + self.features and 0 not in points.shape
            is_right = is_right and places.shape == (points.shape[0], 6)
        if not is_right:
            expected = f"a bundle of points (O, N, {3 + self.features}) and places (O, 6)"
            raise refuse_raw(self, index, raw, expected, "Use the processor 'objects', and set `features`.")


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b, bias=False), nn.LayerNorm(b), nn.ReLU()]
    return nn.Sequential(*layers)
