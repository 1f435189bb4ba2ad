"""One large picture as a small one of the whole and tiles of full detail, row by row.

Source: AnyRes of LLaVA-NeXT and LLaVA-OneVision (arXiv:2408.03326): the best of a list of sizes, proportions kept, the
rest black; tiles by proportions of InternVL 1.5 (arXiv:2404.16821), squeezed to fit; slices by area of LLaVA-UHD
(arXiv:2403.11703) and MiniCPM-V (arXiv:2408.01800), squeezed to squares here. EMOVA and MiniCPM-o use them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.encoders.hub_files import read_processor_config, refuse_options
from omniloom.encoders.payload_checks import require_payload
from omniloom.encoders.scaling import scaled
from omniloom.errors import ConfigError
from omniloom.media import Image
from omniloom.sequence import Bundle, Shape

__all__ = ["TilesProcessor"]

_SIZES_PX = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))  # LLaVA-NeXT's
_RULES = ("sizes", "proportions", "area")
_DEFAULTS: dict[str, Any] = {
    "size": {"height": 336, "width": 336},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "image_grid_pinpoints": [list(size) for size in _SIZES_PX],
    "max_patches": 9,
    "image_processor_type": "",
}


class TilesProcessor(Processor):
    """Image to a raw bundle: `pixels` (1 + r * c, 3, s, s), the whole first, and `mosaic` (4,): r, c, height, width.

    Height and width are proportions: of what is not black for the rule "sizes", of the tiles together for the others.
    Where one tile would do, "proportions" and "area" give the whole alone and r and c are zero.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table whose preprocessor_config.json gives side, sizes, mean
            and deviation; None takes those of LLaVA-NeXT.
        rule: "sizes", the one of `sizes_px` that keeps most of the picture; "proportions", the grid of at most
            `max_tiles` whose proportions are nearest; "area", a grid of about as many tiles as the picture has areas of
            one. None: as the published processor does, "sizes" where it does not cut into tiles.
        size_px: s; None takes the configuration's.
        sizes_px: heights and widths, multiples of s; None takes the configuration's.
        max_tiles: None takes the configuration's, 9 where it has none.
        revision: branch, tag or commit on the hub.
    Raises:
        MissingAssetError: no preprocessor_config.json there.
        ConfigError: an unknown rule, sizes that are no multiples of the side, or a file that asks for what is not
            computed here.
    """

    payload_kind = "image"

    def __init__(
        self,
        *,
        id: str | None = None,
        rule: Literal["sizes", "proportions", "area"] | None = None,
        size_px: int | None = None,
        sizes_px: Sequence[Sequence[int]] | None = None,
        max_tiles: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.id, self.rule, self.size_px, self.sizes_px = id, rule, size_px, sizes_px
        self.max_tiles, self.revision = max_tiles, revision
        given = {} if id is None else read_processor_config(id, revision, sections=("image_processor",))
        refuse_options(str(id), given, min_patches=1)
        given = {name: value for name, value in given.items() if value is not None}
        self.config: dict[str, Any] = {name: given.get(name, value) for name, value in _DEFAULTS.items()}
        self.side = size_px or _side(self.config["size"], given.get("crop_size"))
        self.sizes = [(int(y), int(x)) for y, x in sizes_px or self.config["image_grid_pinpoints"]]
        self.most = int(max_tiles or self.config["max_patches"])
        kind = str(self.config["image_processor_type"])
        self.used_rule = rule or ("proportions" if kind.startswith("GotOcr2") else "sizes")
        if self.used_rule not in _RULES or self.side < 1 or self.most < 1:
            raise ConfigError(
                f"tiles of rule={rule!r}, side {self.side}, max_tiles={self.most}; expected a rule of {_RULES}, and "
                "numbers of at least one."
            )
        odd = [size for size in self.sizes if min(size) < 1 or size[0] % self.side or size[1] % self.side]
        if self.used_rule == "sizes" and (odd or not self.sizes):
            raise ConfigError(
                f"tiles of {self.side} pixels do not fill the sizes {odd}. Set sizes_px to multiples of it."
            )

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Bundle:
        """The whole and its tiles; nothing is random."""
        pixels = require_payload(payload, Image, self).pixels
        height, width = pixels.shape[:2]
        picture, side = Pillow.fromarray(pixels), self.side
        whole = self._scaled(picture, side, side)
        if self.used_rule == "sizes":
            best = _best_size(height, width, self.sizes)
            rows, columns = best[0] // side, best[1] // side
            canvas = self._padded(picture, *best)
        else:
            choose = _nearest_grid if self.used_rule == "proportions" else _grid_by_area
            rows, columns = choose(height, width, side, self.most)
            if rows * columns == 1:
                return self._bundle(whole[None], 0, 0, height, width)
            height, width = rows * side, columns * side
            canvas = self._scaled(picture, height, width)
        tiles = canvas.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        return self._bundle(np.concatenate([whole[None], tiles]), rows, columns, height, width)

    def shape(self, raw: Bundle) -> Shape:
        """One row per pixel on the grid (1 + r * c, s, s), with the mosaic that the pictures behind the first make."""
        pixels = raw["pixels"]
        count, _, y, x = pixels.shape
        rows, columns, height, width = (int(number) for number in raw["mosaic"])
        return Shape(count * y * x, (count, y, x), mosaic=(rows, columns, height, width) if rows else None)

    def save_config(self, folder: Path) -> None:
        """Write preprocessor_config.json, so that `id=folder` builds the same processor without the source."""
        (folder / "preprocessor_config.json").write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")

    def _scaled(self, picture: Pillow.Image, height: int, width: int) -> np.ndarray:
        return np.array(scaled(picture, height, width, self.config["resample"]))

    def _padded(self, picture: Pillow.Image, height: int, width: int) -> np.ndarray:
        """The picture in its own proportions in the middle of black."""
        by_height, by_width = height / picture.height, width / picture.width
        if by_width < by_height:
            inner = min(math.ceil(picture.height * by_width), height), width
        else:
            inner = height, min(math.ceil(picture.width * by_height), width)
        canvas = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        canvas[top : top + inner[0], left : left + inner[1]] = self._scaled(picture, *inner)
        return canvas

    def _bundle(self, pictures: np.ndarray, rows: int, columns: int, height: int, width: int) -> Bundle:
        raw: Tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255
        mean, std = (raw.new_tensor(self.config[key])[:, None, None] for key in ("image_mean", "image_std"))
        return Bundle(pixels=((raw - mean) / std).contiguous(), mosaic=torch.tensor([rows, columns, height, width]))


def _side(*sizes: int | dict[str, int] | None) -> int:
    sides = {side for size in sizes if size for side in ([size] if isinstance(size, int) else size.values())}
    if len(sides) != 1:
        raise ConfigError(
            f"tiles are squares of one side, and the configuration has the sizes {sorted(sides)}. Set size_px."
        )
    return int(sides.pop())


def _best_size(height: int, width: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size that shows most of the picture's pixels, and of those that show as many the smallest."""

    def rank(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(size[1] / width, size[0] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - size[0] * size[1]

    return max(sizes, key=rank)


def _nearest_grid(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """(rows, columns) whose proportions are nearest; of equal ones more tiles, while the picture fills half of them."""
    grids = [(y, x) for x in range(1, most + 1) for y in range(1, most // x + 1)]
    best, least = (1, 1), math.inf
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        fills = width * height > 0.5 * side * side * rows * columns
        if distance < least or (distance == least and fills):
            best, least = (rows, columns), distance
    return best


def _grid_by_area(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """(rows, columns) of about as many tiles as the picture has areas of one, the nearest in proportions."""
    count = min(math.ceil(width * height / side**2), most)
    if count <= 1:
        return 1, 1
    counts = [number for number in (count - 1, count, count + 1) if 1 < number <= most]
    grids = [(rows, number // rows) for number in counts for rows in range(1, number + 1) if number % rows == 0]
    return min(grids, key=lambda grid: (abs(math.log(width / height) - math.log(grid[1] / grid[0])), -grid[0]))
