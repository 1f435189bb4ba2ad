"""Pictures and clips at their own size: scaled a little so that patches divide them, never cropped, never squeezed.

Source: Qwen2-VL (arXiv:2409.12191), section 2.1, and its published processor: sides become multiples of two patches,
the number of pixels stays between two bounds, proportions stay as near as they can. Sizes and grids are those of the
published processors; which frames of a clip are seen is the choice of `frames` and `rate_hz`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.encoders.frames import check_frames, chosen_frames, frame_begins, frame_windows
from omniloom.encoders.hub_files import read_processor_config, refuse_options
from omniloom.encoders.payload_checks import require_payload
from omniloom.encoders.scaling import scaled
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Image, Video
from omniloom.sequence import Shape

__all__ = ["NativeImageProcessor", "fitting_size"]

_MOST_STRETCHED = 200
_DEFAULTS: dict[str, Any] = {
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 56 * 56,
    "max_pixels": 28 * 28 * 1280,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "video_processor_type": "",
}
# Of clips, where a file says nothing.
_CLIPS: dict[str, dict[str, Any]] = {
    "Qwen2": {"min_pixels": 128 * 28 * 28, "max_pixels": 768 * 28 * 28},
    "Qwen3": {
        "patch_size": 16,
        "min_pixels": 128 * 32 * 32,
        "max_pixels": 768 * 32 * 32,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}


class NativeImageProcessor(Processor):
    """Image to raw (F, 3, Y, X) with F the temporal patch (2), the picture repeated; or Video to so many frames.

    A clip whose number of frames the temporal patch does not divide repeats its last one.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table whose preprocessor_config.json gives patches, bounds,
            mean and deviation; None takes those of Qwen2-VL's pictures.
        frames: None reads pictures; a number reads videos, with at most so many frames an item.
        rate_hz: frames a second of a video; rows then have times, and `split` cuts longer clips into windows. None
            takes `frames` frames evenly over the whole clip.
        min_px, max_px: bounds of Y * X; None takes those of the configuration.
        bounds: of a video, whether they hold for each "frame" (Qwen2-VL), or for all frames of the "item" together
            (Qwen3-VL); None as the kind of the published processor says, each frame where it says nothing.
        revision: branch, tag or commit on the hub.
    Raises:
        MissingAssetError: no preprocessor_config.json there.
        ConfigError: bounds that leave nothing; a file that asks for what is not computed here.
    """

    def __init__(
        self,
        *,
        id: str | None = None,
        frames: int | None = None,
        rate_hz: float | None = None,
        min_px: int | None = None,
        max_px: int | None = None,
        bounds: Literal["frame", "item"] | None = None,
        revision: str | None = None,
    ) -> None:
        check_frames(frames, rate_hz)
        self.id, self.frames, self.rate_hz, self.revision = id, frames, rate_hz, revision
        self.min_px, self.max_px, self.bounds = min_px, max_px, bounds
        self.payload_kind = "image" if frames is None else "video"
        self.config = dict(_DEFAULTS) if id is None else _published(id, revision, is_clip=frames is not None)
        self.patch_px, self.merge = int(self.config["patch_size"]), int(self.config["merge_size"])
        self.temporal = int(self.config["temporal_patch_size"])
        self.least_px = int(self.config["min_pixels"] if min_px is None else min_px)
        self.most_px = int(self.config["max_pixels"] if max_px is None else max_px)
        cell = (self.patch_px * self.merge) ** 2
        if bounds not in ("frame", "item", None) or self.most_px < max(cell, self.least_px):
            raise ConfigError(
                f"bounds={bounds!r}, min_px={self.least_px}, max_px={self.most_px}, merged cells of {cell} pixels; "
                "expected bounds 'frame', 'item' or None, and max_px above min_px and a cell."
            )
        kind = str(self.config["video_processor_type"])
        self.is_shared = bounds == "item" or (bounds is None and kind.startswith("Qwen3"))

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one item; nothing is random.

        Raises:
            MediaError: invalid_image or invalid_video, a picture 200 times as long as wide; video_too_large.
        """
        if self.frames is None:
            pictures = require_payload(payload, Image, self).pixels[None]
        else:
            pictures = chosen_frames(require_payload(payload, Video, self), self.frames, self.rate_hz)
        size = self._size(*pictures.shape[:3])
        raw = torch.stack([self._scaled(picture, size) for picture in pictures])
        return torch.cat([raw, raw[-1:].expand(-len(pictures) % self.temporal, -1, -1, -1)])

    def shape(self, raw: Tensor) -> Shape:
        """One row per patch on the grid (F / temporal patch, Y / patch, X / patch), at the time of its first frame."""
        t, y, x = raw.shape[0] // self.temporal, raw.shape[2] // self.patch_px, raw.shape[3] // self.patch_px
        times = None
        if self.rate_hz is not None:
            times = tuple(step * self.temporal / self.rate_hz for step in range(t) for _ in range(y * x))
        return Shape(t * y * x, (t, y, x), times)

    def split(self, payload: Any) -> list[Any]:
        """A clip in the windows that `frames` frames at `rate_hz` cover; a picture as it is."""
        if self.frames is None:
            return [payload]
        return list(frame_windows(require_payload(payload, Video, self), self.frames, self.rate_hz))

    def begins_s(self, payload: Any) -> list[float]:
        """When each window of a clip begins; 0 for a picture."""
        if self.frames is None:
            return [0.0]
        return frame_begins(require_payload(payload, Video, self), self.frames, self.rate_hz)

    def save_config(self, folder: Path) -> None:
        """Write the configuration's file, so that `id=folder` builds the same processor without the source."""
        name = "preprocessor_config.json" if self.frames is None else "video_preprocessor_config.json"
        (folder / name).write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")

    def _size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        if max(height, width) > _MOST_STRETCHED * min(height, width):
            raise MediaError(
                f"invalid_{self.payload_kind}",
                f"{height} x {width} pixels are over {_MOST_STRETCHED} times as long as wide. Cut it into parts.",
            )
        side = self.patch_px * self.merge
        if not self.is_shared:
            return fitting_size(height, width, side, min_px=self.least_px, max_px=self.most_px)
        # As Qwen3-VL has it: small frames first grow to a cell, and temporal patches are counted with halves rounded
        # to the even number, so that five frames count as four.
        grow = max(side / height, side / width, 1)
        frames = max(frames, self.temporal)
        counted = round(frames / self.temporal) * self.temporal
        height, width = int(height * grow), int(width * grow)
        return fitting_size(
            height, width, side, min_px=self.least_px, max_px=self.most_px, count=frames, counted=counted
        )

    def _scaled(self, picture: np.ndarray, size: tuple[int, int]) -> Tensor:
        pixels = np.array(scaled(Pillow.fromarray(picture), *size, self.config["resample"]))
        raw = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32) / 255
        mean, std = (raw.new_tensor(self.config[key])[:, None, None] for key in ("image_mean", "image_std"))
        return (raw - mean) / std


def fitting_size(
    height: int, width: int, side: int, *, min_px: int, max_px: int, count: int = 1, counted: int | None = None
) -> tuple[int, int]:
    """Height and width as multiples of `side`, so that `count` such pictures have min_px to max_px pixels.

    Where both cannot hold, `side` is the least height and width.

    Args:
        counted: as how many pictures they are held against the bounds; None: all of them.
    """
    sides = round(height / side) * side, round(width / side) * side
    pixels = (count if counted is None else counted) * sides[0] * sides[1]
    if pixels > max_px:
        shrink = math.sqrt(count * height * width / max_px)
        return max(side, math.floor(height / shrink / side) * side), max(side, math.floor(width / shrink / side) * side)
    if pixels < min_px:
        grow = math.sqrt(min_px / (count * height * width))
        return math.ceil(height * grow / side) * side, math.ceil(width * grow / side) * side
    return max(side, sides[0]), max(side, sides[1])


def _published(id: str, revision: str | None, *, is_clip: bool) -> dict[str, Any]:
    """What a published processor's file says of our options, in the words of _DEFAULTS."""
    files, sections = ["preprocessor_config.json", "processor_config.json"], ["image_processor"]
    if is_clip:
        files.insert(0, "video_preprocessor_config.json")
        sections.insert(0, "video_processor")
    given = read_processor_config(id, revision, files=files, sections=sections)
    refuse_options(id, given, cap_pixels_per_frame=False)
    given = {name: value for name, value in given.items() if value is not None}
    # Newer files write the bounds as sides of `size`, which they are not.
    size = given.get("size", {})
    for name, side in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if side in size or name in size:
            given.setdefault(name, size.get(side, size.get(name)))
    is_qwen3 = str(given.get("video_processor_type", "")).startswith("Qwen3")
    defaults = {**_DEFAULTS, **(_CLIPS["Qwen3" if is_qwen3 else "Qwen2"] if is_clip else {})}
    return {name: given.get(name, value) for name, value in defaults.items()}
