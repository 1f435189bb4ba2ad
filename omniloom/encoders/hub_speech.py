"""Published speech encoders of transformers: rows of a chosen layer, and of others beside them.

Source: Whisper (arXiv:2212.04356), wav2vec 2.0 (arXiv:2006.11477), HuBERT (arXiv:2106.07447), its music sibling MERT
(arXiv:2306.00107), wav2vec 2.0 with Conformer blocks (arXiv:2010.05171). A learned mix of all layers, as MuMu-LLaMA
takes them from MERT (arXiv:2412.06660), is `taps: all` in front of a projector that mixes taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, HubertConfig, PretrainedConfig, PreTrainedModel, VoxtralEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import by_item, levels_of, pack_layers, run_layers
from omniloom.encoders.silence import fill_with_silence
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, load_model, read_config, without_noise
from omniloom.sequence import Packed, Shape

__all__ = ["HubSpeech"]

# Encoders over log-mel frames: model_type -> class. They are one architecture under several names.
_WHISPER: dict[str, type[PreTrainedModel]] = {"whisper": WhisperEncoder, "voxtral_encoder": VoxtralEncoder}
_WAVE = ("hubert", "wav2vec2", "wav2vec2-conformer")
# Where checkpoints of Whisper, and of whole models with its encoder as a tower, keep the encoder.
_TOWER = {r"^(model\.)?encoder\.": "", r"^(model\.)?audio_tower\.": ""}
_RATE_HZ = 16_000  # of every published waveform model of these kinds but MERT, whose configuration tells its own


class HubSpeech(Encoder):
    """Raw (F, M) log-mel frames (Whisper) or (S,) samples (waveform models) to rows of the model's width.

    Whisper reads 3,000 frames, no more and no fewer. A shorter raw tensor is filled up with the value that silence has
    in Whisper's scale, which gives the very numbers of the padded recording, and only the ceil(F / 2) rows of its own
    frames are given out: a word of one second is 50 rows, not 1,500 (see `HubProcessor(trim=True)`).
    Waveforms of different lengths run one after another, unpadded: several of these models norm over time. Batch norms
    of Conformer blocks always use their stored statistics, in training too.
    Of a whole model (Voxtral) only the audio tower is loaded. Layers above the highest one asked for are not built.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        layer: index into the hidden states: 0 the embedding, -1 the last, which has the final norm where there is one.
        taps: further layers, counted as `layer` is; `Packed.taps` holds the rows of each, under the numbers given.
            "all" are 0, the embedding, up to the last.
        revision: branch, tag or commit on the hub.
        weights: False builds the encoder from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of model, or a layer it does not have.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the encoder.
    """

    def __init__(
        self,
        *,
        id: str,
        layer: int = -1,
        taps: Sequence[int] | Literal["all"] = (),
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.id, self.layer, self.taps, self.revision, self.weights = id, layer, taps, revision, weights
        config = _config(id, revision)
        self.source_config = config
        self.is_whisper = config.model_type in _WHISPER
        self.out_dim = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        self.tapped = _tapped(taps, self.depth)
        self.levels = levels_of(id, self.depth, (layer, *self.tapped))
        self.highest = max(self.levels.values())
        if self.is_whisper:
            self.num_mels, self.frames = int(config.num_mel_bins), 2 * int(config.max_source_positions)
            kind = _WHISPER[config.model_type]
            quiet = without_noise(config, num_hidden_layers=self.highest)
        else:
            self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
            self.rate_hz = int(getattr(config, "sample_rate", _RATE_HZ))
            quiet = without_noise(
                config,
                num_hidden_layers=self.highest,
                apply_spec_augment=False,
                mask_time_prob=0.0,
                mask_feature_prob=0.0,
                add_adapter=False,
            )

        def trim(model: PreTrainedModel) -> None:
            _trim(model, self.is_whisper, self.highest == self.depth)

        if weights:
            # Checkpoints hold the whole model; decoder, language model and heads are never read.
            loader, mapping = (kind, _TOWER) if self.is_whisper else (AutoModel, None)
            self.model = load_model(loader, id, quiet, revision=revision, key_mapping=mapping, trim=trim)
        else:
            make = kind._from_config if self.is_whisper else AutoModel.from_config
            self.model = make(quiet, dtype=torch.float32)
            trim(self.model)
        self.train(self.training)

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """Every tap is as wide as the rows."""
        return dict.fromkeys(self.tapped, self.out_dim)

    def train(self, mode: bool = True) -> Self:
        """As any module's, but batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order, and those of the taps.

        Raises:
            ShapeError: no items, another rank or number of mel bands, too many frames, or too few samples.
        """
        require_items(self, raws)
        shapes = tuple(self.out_shape(self._raw_shape(index, raw)) for index, raw in enumerate(raws))
        if self.is_whisper:
            device = next(self.model.parameters()).device
            raws = [fill_with_silence(raw.to(device), self.frames) for raw in raws]
        found = [
            {number: rows[: shape.len] for number, rows in item.items()}
            for item, shape in zip(in_stacks(raws, self._found), shapes, strict=True)
        ]
        return pack_layers(found, shapes, self.layer, self.tapped)

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
        return Shape(rows, times=tuple(index * prod(self.strides) / self.rate_hz for index in range(rows)))

    def minimal_raw(self) -> Tensor:
        """Two frames of silence, or the samples of one row."""
        return torch.full((2, self.num_mels), -1.5) if self.is_whisper else torch.zeros(self._least_samples())

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same encoder without the source."""
        self.source_config.save_pretrained(folder)

    def _found(self, batch: Tensor) -> list[dict[int, Tensor]]:
        """Of each item the (T, E) of every layer asked for."""
        x = batch.to(next(self.model.parameters()))
        states, _ = run_layers(self.model, self.levels, self.highest, x.transpose(1, 2) if self.is_whisper else x)
        return by_item(states)

    def _least_samples(self) -> int:
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def _raw_shape(self, index: int, raw: Tensor) -> Shape:
        is_right = raw.dim() == 2 and raw.shape[1] == self.num_mels if self.is_whisper else raw.dim() == 1
        if not is_right or raw.shape[0] < 1:
            expected = (
                f"(F, {self.num_mels}) log-mel frames" if self.is_whisper else f"(S,) samples at {self.rate_hz} Hz"
            )
            raise refuse_raw(self, index, raw, expected, "Use the processor 'hub' of the same id.")
        return Shape(raw.shape[0])


def _config(id: str, revision: str | None) -> PretrainedConfig:
    """The configuration of the encoder; of a whole model, that of its audio tower."""
    given = read_config(id, revision)
    if given.get("model_type") == "mert_model":
        # HuBERT under another name, unless one of its experiments is switched on.
        extra = [name for name in ("feature_extractor_cqt", "deepnorm") if given.get(name)]
        if extra:
            raise ConfigError(f"{id!r} is a MERT with {extra[0]}, which HuBERT's layers cannot compute.")
        return HubertConfig.from_dict({**given, "model_type": "hubert"})
    config = load_config(id, revision)
    config = getattr(config, "audio_config", config)
    known = (*_WAVE, *_WHISPER)
    if config.model_type not in known:
        hint = did_you_mean(config.model_type, known)
        raise ConfigError(f"{id!r} is a {config.model_type!r}, not a speech encoder known here.{hint}")
    return config


def _tapped(taps: Sequence[int] | str, depth: int) -> tuple[int, ...]:
    if taps == "all":
        return tuple(range(depth + 1))
    if isinstance(taps, str):
        raise ConfigError(f"unknown taps {taps!r}; expected a list of layers, or 'all'.")
    return tuple(taps)


def _trim(model: PreTrainedModel, is_whisper: bool, has_last_layer: bool) -> None:
    """Take out what no row passes through: the norm behind the last layer, and what a Conformer builds and never uses.

    Some waveform models norm in front of the layers instead. Conformers have no switch for that, and norm at the end.
    """
    if hasattr(model.config, "position_embeddings_type"):
        model.encoder.pos_conv_embed = None  # type: ignore[union-attr]
    if has_last_layer:
        return
    if is_whisper:
        model.layer_norm = nn.Identity()
    elif getattr(model.config, "do_stable_layer_norm", True):
        model.encoder.layer_norm = nn.Identity()  # type: ignore[union-attr]
