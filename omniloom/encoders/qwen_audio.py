"""Audio towers of the Qwen family: log-mel frames to one row per 40 ms (Qwen3-Omni: 80 ms).

Whisper's encoder with the sound's own length respected: Qwen2-Audio masks what lies behind the sound in its window of
30 s; Qwen2.5-Omni reads blocks of 2 s that attend within themselves, so that sounds of any length stream; both average
pairs of rows. Qwen3-Omni's AuT takes 8 frames into a row by strided convolutions. Audio Flamingo 3's AF-Whisper, the
ears of OmniVinci, is built as Qwen2-Audio's.

Source: Qwen2-Audio (arXiv:2407.10759), Qwen2.5-Omni (arXiv:2503.20215), Qwen3-Omni (arXiv:2509.17765), Audio Flamingo 3
(arXiv:2507.08128), OmniVinci (arXiv:2510.15870).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AudioFlamingo3Encoder, PretrainedConfig, PreTrainedModel, Qwen2AudioEncoder
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeAudioEncoder

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import open_tower
from omniloom.encoders.silence import fill_with_silence
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Bundle, Packed, Shape

__all__ = ["QwenAudio"]

_TOWERS: dict[str, type[PreTrainedModel]] = {
    "audioflamingo3_encoder": AudioFlamingo3Encoder,
    "qwen2_audio_encoder": Qwen2AudioEncoder,
    "qwen2_5_omni_audio_encoder": Qwen2_5OmniAudioEncoder,
    "qwen3_omni_moe_audio_encoder": Qwen3OmniMoeAudioEncoder,
}
_WINDOWED = ("audioflamingo3_encoder", "qwen2_audio_encoder")
_AUT = "qwen3_omni_moe_audio_encoder"


class QwenAudio(Encoder):
    """Raw bundles of `frames` (F, M) and `length` (1,) to rows of the tower's width, behind its last norm.

    The rows are those in front of the tower's own output map: what follows it in the published models is the projector
    `linear` (Qwen2-Audio, Qwen2.5-Omni) or an `mlp` of two layers without a norm (Qwen3-Omni, Audio Flamingo 3).
    Of L frames Qwen2-Audio and Qwen2.5-Omni make ((L + 1) // 2) // 2 rows, Qwen3-Omni 13 of every 100 frames and
    ceil(R / 8) of R that are left. Of a whole model only the audio tower is loaded.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        revision: branch, tag or commit on the hub.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of model.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the tower.
    """

    def __init__(self, *, id: str, revision: str | None = None, weights: bool = True) -> None:
        super().__init__()
        self.id, self.revision, self.weights = id, revision, weights
        config = load_config(id, revision)
        config = getattr(config, "thinker_config", config)
        config = getattr(config, "audio_config", config)
        self.kind: str = config.model_type
        if self.kind not in _TOWERS:
            hint = did_you_mean(self.kind, _TOWERS)
            raise ConfigError(f"{id!r} is a {self.kind!r}, not an audio tower known here.{hint}")
        self.source_config: PretrainedConfig = config
        self.out_dim, self.num_mels = int(config.hidden_size), int(config.num_mel_bins)
        self.frames = 2 * int(config.max_source_positions)
        tower, quiet = _TOWERS[self.kind], without_noise(config)
        self.model = open_tower(tower, id, quiet, revision=revision, weights=weights, is_inside=True, trim=_trim)

    def forward(self, raws: Sequence[Bundle]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, a raw tensor without its length, another number of mel bands, or a sound that is too
                short for one row or longer than the window.
        """
        require_items(self, raws)
        shapes = tuple(self.out_shape(Shape(self._length(index, raw))) for index, raw in enumerate(raws))
        run: Callable[[Sequence[Bundle]], Sequence[Tensor]] = self._windows if self.kind in _WINDOWED else self._blocks
        rows = [item[: shape.len] for item, shape in zip(run(raws), shapes, strict=True)]
        return Packed.of(rows, [self.out_shape(Shape(int(raw["length"]))) for raw in raws])

    def out_shape(self, shape: Shape) -> Shape:
        """The rows of so many frames, each at the time of its first.

        Raises:
            ShapeError: fewer frames than one row needs, or more than the window of Qwen2-Audio holds.
        """
        if self.kind in _WINDOWED and shape.len > self.frames:
            raise ShapeError(
                f"QwenAudio reads {self.frames} frames, got {shape.len}. Split it with the processor's `split`."
            )
        firsts = _aut_firsts(shape.len, self.source_config.n_window) if self.kind == _AUT else _pair_firsts(shape.len)
        if len(firsts) < 1:
            raise ShapeError(f"QwenAudio got {shape.len} frames; one row needs 3. Drop or pad the sound.")
        times = shape.times
        return Shape(len(firsts), times=None if times is None else tuple(times[first] for first in firsts))

    def minimal_raw(self) -> Bundle:
        """Three frames of silence."""
        return Bundle(frames=torch.full((3, self.num_mels), -1.5), length=torch.tensor([3]))

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)

    def _windows(self, raws: Sequence[Bundle]) -> Sequence[Tensor]:
        """All sounds in windows of one length; frames behind a sound are silence and no row attends to them."""
        weight = next(self.model.parameters())
        windows = [fill_with_silence(raw["frames"].to(weight.device), self.frames) for raw in raws]
        frames = torch.stack(windows).to(weight).transpose(1, 2)
        lengths = torch.tensor([int(raw["length"]) for raw in raws], device=weight.device)
        if self.kind == "audioflamingo3_encoder":
            mask = torch.arange(self.frames, device=weight.device) < lengths[:, None]
            return self.model(frames, input_features_mask=mask).last_hidden_state
        mask = torch.arange(self.frames // 2, device=weight.device) < (lengths[:, None] + 1) // 2
        embeds = frames.new_zeros(*mask.shape, 1)
        attention = create_bidirectional_mask(self.model.config, embeds, mask.long())
        return self.model(frames, attention_mask=attention).last_hidden_state

    def _blocks(self, raws: Sequence[Bundle]) -> Sequence[Tensor]:
        """The frames of the sounds behind one another, cut into blocks by the tower."""
        weight = next(self.model.parameters())
        lengths = [int(raw["length"]) for raw in raws]
        found: list[Tensor] = [weight] * len(raws)
        for indices in self._together(lengths):
            frames = torch.cat([raws[index]["frames"][: lengths[index]] for index in indices]).to(weight)
            counts = torch.tensor([lengths[index] for index in indices], device=weight.device)
            hidden = self.model(frames.T, feature_lens=counts).last_hidden_state
            sizes = [self.out_shape(Shape(lengths[index])).len for index in indices]
            for index, rows in zip(indices, hidden.split(sizes), strict=True):
                found[index] = rows
        return found

    def _together(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which sounds run in one call. AuT pads short blocks to the longest of the call without masking what its
        convolutions make of that, so there only sounds of one length do not change each other."""
        if self.kind != _AUT:
            return [list(range(len(lengths)))]
        return [[index for index, other in enumerate(lengths) if other == length] for length in dict.fromkeys(lengths)]

    def _length(self, index: int, raw: Bundle) -> int:
        is_right = isinstance(raw, Bundle) and {"frames", "length"} <= set(raw)
        if is_right:
            frames, length = raw["frames"], int(raw["length"])
            is_right = frames.dim() == 2 and frames.shape[1] == self.num_mels and 1 <= length <= frames.shape[0]
        if not is_right:
            expected = f"`frames` (F, {self.num_mels}) and `length` (1,), 1 to F"
            raise refuse_raw(self, index, raw, expected, "Use the processor 'hub' of the same id with `lengths: true`.")
        return length


def _pair_firsts(frames: int) -> range:
    """The first frame of every row: convolutions of stride 2 make ceil(L / 2) of L frames, the mean of two half."""
    return range(0, 4 * ((frames + 1) // 2 // 2), 4)


def _aut_firsts(frames: int, half_block: int) -> list[int]:
    """The first frame of every row: in blocks of their own, three convolutions of stride 2 make ceil(L / 8) of L."""
    block = 2 * half_block
    return [start + step for start in range(0, frames, block) for step in range(0, min(block, frames - start), 8)]


def _trim(model: PreTrainedModel) -> None:
    """Take out the map to the language model's width, which is a projector here, and what the tower never uses."""
    for name in ("proj", "proj1", "act", "proj2"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    if hasattr(model, "audio_bos_eos_token"):
        model.audio_bos_eos_token = None  # type: ignore[assignment]
