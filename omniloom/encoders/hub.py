"""Published speech encoders of transformers: rows of their last layer.

Source: Whisper (arXiv:2212.04356), wav2vec 2.0 (arXiv:2006.11477), HuBERT (arXiv:2106.07447).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_loading import load_config, load_model, without_noise
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers import by_shape
from omniloom.sequence import Packed, Shape

__all__ = ["HubSpeech"]

_SPEECH = ("hubert", "wav2vec2", "whisper")
_RATE_HZ = 16_000  # of every published waveform model of these kinds


class HubSpeech(Encoder):
    """Raw (F, M) log-mel frames (Whisper) or (S,) samples at 16 kHz (wav2vec 2.0, HuBERT) to rows of the model's width.

    Whisper reads 3,000 frames, no more and no fewer. A shorter raw tensor is filled up with the value that silence has
    in Whisper's scale, which gives the very numbers of the padded recording, and only the ceil(F / 2) rows of its own
    frames are given out: a word of one second is 50 rows, not 1,500 (see `HubProcessor(trim=True)`).
    Waveforms of different lengths run one after another, unpadded: several of these models norm over time.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        revision: branch, tag or commit on the hub.
        weights: False builds the encoder from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of model.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the encoder.
    """

    def __init__(self, *, id: str, revision: str | None = None, weights: bool = True) -> None:
        super().__init__()
        self.id, self.revision, self.weights = id, revision, weights
        config = load_config(id, revision)
        if config.model_type not in _SPEECH:
            known = did_you_mean(config.model_type, _SPEECH)
            raise ConfigError(f"{id!r} is a {config.model_type!r}, not a speech encoder known here.{known}")
        self.source_config = config
        self.is_whisper = config.model_type == "whisper"
        self.out_dim = int(config.d_model if self.is_whisper else config.hidden_size)
        self.model: PreTrainedModel
        if self.is_whisper:
            self.num_mels = int(config.num_mel_bins)
            self.frames = 2 * int(config.max_source_positions)
            quiet = without_noise(config)
            if weights:
                # Checkpoints hold the whole model; the decoder, most of it, is never read.
                mapping = {r"^(model\.)?encoder\.": ""}
                self.model = load_model(
                    WhisperEncoder, id, quiet, revision=revision, key_mapping=mapping, trim=lambda model: None
                )
            else:
                self.model = WhisperEncoder._from_config(quiet)
        else:
            self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
            quiet = without_noise(config, apply_spec_augment=False, mask_time_prob=0.0, mask_feature_prob=0.0)
            if weights:
                self.model = load_model(AutoModel, id, quiet, revision=revision, trim=lambda model: None)
            else:
                self.model = AutoModel.from_config(quiet, trust_remote_code=False, dtype=torch.float32)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another rank or number of mel bands, too many frames, or too few samples.
        """
        require_items(self, raws)
        shapes = tuple(self.out_shape(self._raw_shape(index, raw)) for index, raw in enumerate(raws))
        weight = next(self.model.parameters())
        if self.is_whisper:
            frames = torch.stack([_fill(raw.to(weight.device), self.frames) for raw in raws]).to(weight)
            hidden = self.model(frames.transpose(1, 2)).last_hidden_state
            return Packed.of([item[: shape.len] for item, shape in zip(hidden, shapes, strict=True)], shapes)
        rows: list[Tensor] = [weight] * len(raws)
        for indices, batch in by_shape(raws):
            hidden = self.model(batch.to(weight)).last_hidden_state
            for index, item in zip(indices, hidden, strict=True):
                rows[index] = item
        return Packed.of(rows, shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """Whisper: ceil(F / 2) rows. Waveforms: what the strided convolutions leave, each row at its start in seconds.

        Raises:
            ShapeError: more frames than Whisper reads, or fewer samples than one row needs.
        """
        if self.is_whisper:
            if shape.len > self.frames:
                raise ShapeError(
                    f"Whisper reads {self.frames} frames, got {shape.len}. Split it with the processor's `split`."
                )
            return Shape(-(-shape.len // 2), times=None if shape.times is None else shape.times[::2])
        rows = shape.len
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            rows = (rows - kernel) // stride + 1 if rows >= kernel else 0
        if rows < 1:
            raise ShapeError(
                f"HubSpeech got {shape.len} samples; one row needs {self._least_samples()}. Drop or pad the sound."
            )
        return Shape(rows, times=tuple(index * prod(self.strides) / _RATE_HZ for index in range(rows)))

    def minimal_raw(self) -> Tensor:
        """Two frames of silence, or the samples of one row."""
        return torch.full((2, self.num_mels), -1.5) if self.is_whisper else torch.zeros(self._least_samples())

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same encoder without the source."""
        self.source_config.save_pretrained(folder)

    def _least_samples(self) -> int:
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def _raw_shape(self, index: int, raw: Tensor) -> Shape:
        is_right = raw.dim() == 2 and raw.shape[1] == self.num_mels if self.is_whisper else raw.dim() == 1
        if not is_right or raw.shape[0] < 1:
            expected = f"(F, {self.num_mels}) log-mel frames" if self.is_whisper else "(S,) samples at 16 kHz"
            raise refuse_raw(self, index, raw, expected, "Use the processor 'hub' of the same id.")
        return Shape(raw.shape[0])


def _fill(frames: Tensor, count: int) -> Tensor:
    """Silence behind (F, M) frames in Whisper's scale: 8 decades under the loudest, but not under 1e-10.

    The scale is (log10 power + 4) / 4, so 8 decades are 2 and 1e-10 is -1.5.
    """
    silence = float(torch.clamp(frames.max() - 2.0, min=-1.5))
    return F.pad(frames, (0, 0, 0, count - frames.shape[0]), value=silence)
