"""The processor of a published encoder, read from its preprocessor_config.json and computed by our own code.

Pictures are resized by Pillow on 8-bit pixels, as these models were trained (`scaling` says how near transformers'
torchvision classes are); sounds become what `hub_sounds` tells. Nothing of the repository's own code is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import cached_file

from omniloom.encoders.base import Processor
from omniloom.encoders.hub_pictures import PICTURES, check_picture_config, processor_kind, read_picture
from omniloom.encoders.hub_sounds import SOUNDS
from omniloom.encoders.payload_checks import audio_windows, mono_samples, require_payload
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean
from omniloom.media import Audio, Image
from omniloom.registry import resolve_asset
from omniloom.sequence import Bundle, Raw, Shape

__all__ = ["HubProcessor"]


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
        square: of pictures, fill them up to squares with their mean colour before anything else, as LLaVA-1.5 was
            trained and as LLaVA-OneVision does where a conversation has several.
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
        square: bool = False,
    ) -> None:
        self.id, self.revision, self.trim, self.max_s = id, revision, trim, max_s
        self.lengths, self.medium, self.square = lengths, medium, square
        if medium not in (None, "image", "audio"):
            raise ConfigError(f"unknown medium {medium!r} of a hub processor; expected 'image' or 'audio'.")
        given = _read(id, revision, medium)
        names = {"image": given.get("image_processor_type"), "audio": given.get("feature_extractor_type")}
        name = (names[medium] if medium else names["image"] or names["audio"]) or ""
        self.type = processor_kind(name)
        known = {**PICTURES, **{kind: sound.defaults for kind, sound in SOUNDS.items()}}
        if self.type not in known:
            raise ConfigError(f"{id!r} has the processor {name!r}, unknown here.{did_you_mean(self.type, known)}")
        self.config: dict[str, Any] = {**known[self.type], **{k: v for k, v in given.items() if v is not None}}
        self.payload_kind = "image" if self.type in PICTURES else "audio"
        if self.payload_kind == "image":
            check_picture_config(id, self.type, self.config)
            if square:
                self.config["pad_to_square"] = True
        elif self.config.get("dither"):
            raise ConfigError(f"{id!r} asks for dither {self.config['dither']}; only 0 is deterministic. Set it to 0.")
        for option, is_set in (("trim", trim), ("lengths", lengths)):
            if is_set and (self.payload_kind == "image" or option not in SOUNDS[self.type].options):
                raise ConfigError(f"{option} is of Whisper's frames; {id!r} has the processor {name!r}. Leave it out.")
        if square and self.payload_kind != "image":
            raise ConfigError(f"square is of pictures; {id!r} has the processor {name!r}. Leave it out.")

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Raw:
        """The raw tensor of one item, or a bundle with `lengths`; nothing is random.

        Raises:
            MediaError: wrong_payload; audio_too_long.
        """
        if self.payload_kind == "image":
            return read_picture(self.config, require_payload(payload, Image, self).pixels)
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
