"""The processor of a published encoder, read from its preprocessor_config.json and computed by our own code.

Pictures are resized by Pillow on 8-bit pixels, as these models were trained; sounds become what `hub_sounds` tells.
Nothing of the repository's own code is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from transformers.utils import cached_file

from omniloom.encoders.base import Processor
from omniloom.encoders.hub_sounds import SOUNDS
from omniloom.encoders.payload_checks import audio_windows, mono_samples, require_payload
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean
from omniloom.media import Audio, Image
from omniloom.registry import resolve_asset
from omniloom.sequence import Bundle, Raw, Shape

__all__ = ["HubProcessor"]

_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CROP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}

# What a file leaves out, by kind of processor. `resample` is Pillow's number: 2 bilinear, 3 bicubic.
_IMAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": {**_CLIP, **_CROP, "resample": 3},
    "Bit": {**_CLIP, **_CROP, "resample": 3},
    "Siglip": {**_HALF, **_SQUARE, "resample": 3},
    "ViT": {**_HALF, **_SQUARE, "resample": 2},
}


class HubProcessor(Processor):
    """Image to raw (3, Y, X), or Audio to what the model expects: (S,) samples (wav2vec 2.0, HuBERT) or frames:
    (3000, M) for Whisper, (1024, 128) for AST, (1001, 64) for CLAP, (F, 80) for Phi-4-multimodal.

    AST fills short sounds up with silence, CLAP repeats them first.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        revision: branch, tag or commit on the hub.
        trim: of Whisper's 3,000 frames keep those that the sound reaches, an even number; `HubSpeech` fills them up to
            the same numbers again and gives rows for the sound only. False keeps all, 1,500 rows an item.
        max_s: longest sound of an item; `split` cuts longer ones into equal parts. The model's own window where it is
            shorter: 30 s for Whisper, 10 s for AST and CLAP.
        lengths: of Whisper's frames make a bundle of `frames` (F, M), two more than the sound has unless the window
            ends there, and `length` (1,), how many are the sound's: what encoders read that mask the rest.
        medium: of a model that reads pictures and sounds, which of them; None where it reads one.
    Raises:
        MissingAssetError: no preprocessor_config.json there.
        ConfigError: a kind of processor or an option that is not known here; a guess would shift every feature.
    """

    def __init__(
        self,
        *,
        id: str,
        revision: str | None = None,
        trim: bool = False,
        max_s: float = 30.0,
        lengths: bool = False,
        medium: Literal["image", "audio"] | None = None,
    ) -> None:
        self.id, self.revision, self.trim, self.max_s = id, revision, trim, max_s
        self.lengths, self.medium = lengths, medium
        if medium not in (None, "image", "audio"):
            raise ConfigError(f"unknown medium {medium!r} of a hub processor; expected 'image' or 'audio'.")
        given = _read(id, revision, medium)
        names = {"image": given.get("image_processor_type"), "audio": given.get("feature_extractor_type")}
        name = (names[medium] if medium else names["image"] or names["audio"]) or ""
        self.type = name
        for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
            self.type = self.type.removesuffix(suffix)
        known = {**_IMAGE_DEFAULTS, **{kind: sound.defaults for kind, sound in SOUNDS.items()}}
        if self.type not in known:
            raise ConfigError(f"{id!r} has the processor {name!r}, unknown here.{did_you_mean(self.type, known)}")
        self.config: dict[str, Any] = {**known[self.type], **{k: v for k, v in given.items() if v is not None}}
        self.payload_kind = "image" if self.type in _IMAGE_DEFAULTS else "audio"
        if self.payload_kind == "image":
            _check_image_config(id, self.config)
        elif self.config.get("dither"):
            raise ConfigError(f"{id!r} asks for dither {self.config['dither']}; only 0 is deterministic. Set it to 0.")
        for option, is_set in (("trim", trim), ("lengths", lengths)):
            if is_set and (self.payload_kind == "image" or option not in SOUNDS[self.type].options):
                raise ConfigError(f"{option} is of Whisper's frames; {id!r} has the processor {name!r}. Leave it out.")

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Raw:
        """The raw tensor of one item, or a bundle with `lengths`; nothing is random.

        Raises:
            MediaError: wrong_payload; audio_too_long.
        """
        if self.payload_kind == "image":
            return self._picture(require_payload(payload, Image, self))
        audio = require_payload(payload, Audio, self)
        samples = mono_samples(audio, self._window_s(), self.config["sampling_rate"])
        return SOUNDS[self.type].read(self.config, samples, self.trim, self.lengths)

    def shape(self, raw: Any) -> Shape:
        """One row per pixel, log-mel frame or sample. Samples bear no times: HubSpeech counts their rows' own."""
        if self.payload_kind == "image":
            return Shape(raw.shape[1] * raw.shape[2], (1, raw.shape[1], raw.shape[2]))
        count, step_s = int(raw["length"]) if isinstance(raw, Bundle) else raw.shape[0], self._step_s()
        return Shape(count, times=None if step_s is None else tuple(index * step_s for index in range(count)))

    def split(self, payload: Any) -> list[Any]:
        """A sound in the fewest equal parts that fit; a picture as it is."""
        return [payload] if self.payload_kind == "image" else list(audio_windows(payload, self._window_s()))

    def save_config(self, folder: Path) -> None:
        """Write preprocessor_config.json, so that `id=folder` builds the same processor without the source."""
        (folder / "preprocessor_config.json").write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")

    def _step_s(self) -> float | None:
        return SOUNDS[self.type].step_s(self.config)

    def _window_s(self) -> float:
        own = SOUNDS[self.type].window_s(self.config)
        return self.max_s if own is None else min(self.max_s, own)

    def _picture(self, image: Image) -> Tensor:
        config, picture = self.config, Pillow.fromarray(image.pixels)
        if config.get("do_resize", True):
            height, width = _resized(image.pixels.shape[0], image.pixels.shape[1], config["size"])
            picture = picture.resize((width, height), resample=Pillow.Resampling(config["resample"]))
        if config["do_center_crop"]:
            height, width = _height_width(config["crop_size"])
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(torch.float32)
        if config.get("do_rescale", True):
            raw = raw * config.get("rescale_factor", 1 / 255)
        if config.get("do_normalize", True):
            mean, std = (raw.new_tensor(config[key])[:, None, None] for key in ("image_mean", "image_std"))
            raw = (raw - mean) / std
        return raw.contiguous()


def _read(id: str, revision: str | None, medium: str | None) -> Mapping[str, Any]:
    """preprocessor_config.json, or that section of the newer processor_config.json."""
    sections = {"image": ["image_processor"], "audio": ["feature_extractor"]}
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            file = cached_file(resolve_asset(id), name, revision=revision or "main")
        except OSError:
            continue
        config: Mapping[str, Any] = json.loads(Path(str(file)).read_text())
        for section in sections.get(medium or "", ["image_processor", "feature_extractor"]):
            config = config.get(section) or config
        return config
    raise MissingAssetError(
        f"no preprocessor_config.json for {id!r}. Give a hub id or a folder that holds it, or write the processor out "
        "(type: image, with size_px, mean and std)."
    )


def _check_image_config(id: str, config: dict[str, Any]) -> None:
    if isinstance(config["size"], int):
        # Older files: one number is the shorter side where a crop follows, both sides otherwise.
        side = config["size"]
        config["size"] = {"shortest_edge": side} if config["do_center_crop"] else {"height": side, "width": side}
    keys = set(config["size"])
    if keys not in ({"shortest_edge"}, {"height", "width"}):
        raise ConfigError(f"{id!r} resizes by {sorted(keys)}; known are shortest_edge, or height and width.")
    if config["do_center_crop"] and config.get("do_resize", True):
        crop, side = max(_height_width(config["crop_size"])), min(config["size"].values())
        if crop > side:
            raise ConfigError(f"{id!r} crops {crop} pixels of a picture resized to {side}. Correct its configuration.")


def _height_width(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _resized(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    side = size["shortest_edge"]
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
