"""The frames of a clip as a published picture or video processor makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omniloom.encoders.base import Processor
from omniloom.encoders.frames import check_frames, chosen_frames, frame_begins, frame_windows
from omniloom.encoders.hub_files import read_processor_config
from omniloom.encoders.hub_pictures import PICTURES, check_picture_config, processor_kind, read_picture
from omniloom.encoders.payload_checks import require_payload
from omniloom.errors import ConfigError, did_you_mean
from omniloom.media import Video
from omniloom.sequence import Shape

__all__ = ["HubVideoProcessor"]

_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


class HubVideoProcessor(Processor):
    """Video to raw (F, 3, Y, X), each frame as the processor of `id` makes a picture.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table: of a picture tower (CLIP, SigLIP ...), which then
            reads frame by frame, or of a video tower (VideoMAE, TimeSformer, ViViT).
        frames: most frames of an item.
        rate_hz: frames a second; rows then have times, and `split` cuts longer clips into windows. None takes `frames`
            frames evenly over the whole clip.
        exact: always give `frames` frames, some of a short clip more than once: video towers read no other number.
        revision: branch, tag or commit on the hub.
    Raises:
        MissingAssetError: no configuration of a processor there.
        ConfigError: a kind of processor that is not known here; a guess would shift every feature.
    """

    payload_kind = "video"

    def __init__(
        self,
        *,
        id: str,
        frames: int = 16,
        rate_hz: float | None = None,
        exact: bool = False,
        revision: str | None = None,
    ) -> None:
        check_frames(frames, rate_hz)
        self.id, self.frames, self.rate_hz, self.exact, self.revision = id, frames, rate_hz, exact, revision
        given = read_processor_config(id, revision, files=_FILES, sections=("video_processor", "image_processor"))
        names = ("video_processor_type", "image_processor_type", "feature_extractor_type")
        name = next((given[key] for key in names if given.get(key)), "")
        kind = processor_kind(name)
        if kind not in PICTURES:
            raise ConfigError(f"{id!r} has the processor {name!r}, unknown here.{did_you_mean(kind, PICTURES)}")
        self.config: dict[str, Any] = {**PICTURES[kind], **{k: v for k, v in given.items() if v is not None}}
        check_picture_config(id, kind, self.config)

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Tensor:
        """The raw tensor of one clip; nothing is random.

        Raises:
            MediaError: video_too_large, a clip longer than `frames` at `rate_hz`.
        """
        video = require_payload(payload, Video, self)
        chosen = chosen_frames(video, self.frames, self.rate_hz, exact=self.exact)
        return torch.stack([read_picture(self.config, frame) for frame in chosen])

    def shape(self, raw: Tensor) -> Shape:
        """One row per pixel on the grid (F, Y, X), at the time of its frame if there is a rate."""
        frames, _, height, width = raw.shape
        times = None
        if self.rate_hz is not None:
            times = tuple(frame / self.rate_hz for frame in range(frames) for _ in range(height * width))
        return Shape(frames * height * width, (frames, height, width), times)

    def split(self, payload: Any) -> list[Any]:
        """Windows that `frames` frames at `rate_hz` cover, each from time zero and without sound."""
        return list(frame_windows(require_payload(payload, Video, self), self.frames, self.rate_hz))

    def begins_s(self, payload: Any) -> list[float]:
        """When each window begins."""
        return frame_begins(require_payload(payload, Video, self), self.frames, self.rate_hz)

    def save_config(self, folder: Path) -> None:
        """Write the configuration's file, so that `id=folder` builds the same processor without the source."""
        text = json.dumps(self.config, indent=2, sort_keys=True)
        (folder / "video_preprocessor_config.json").write_text(text + "\n")
