"""The Conformer of Phi-4-multimodal: log-mel frames to one row per 80 ms, of any length.

Three convolutions take 8 frames into a row; blocks of attention, with biases by distance, and convolution follow.
Source: Phi-4-Mini technical report (arXiv:2503.01743); Conformer (arXiv:2005.08100).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioModel

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import open_tower
from omniloom.errors import ConfigError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Packed, Shape

__all__ = ["PhiAudio"]

_KIND = "phi4_multimodal_audio"


class PhiAudio(Encoder):
    """Raw (F, M) frames to ceil(F / 8) rows of the tower's width.

    What follows in the published model is the projector `mlp` of two layers without a norm. Sounds of different lengths
    run one after another: the convolutions of the tower would take padding for sound. Of the whole model only the audio
    tower is loaded. Chunks of a streaming configuration begin at the first row, in training too.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        revision: branch, tag or commit on the hub; the one of the converted checkpoint, whose configuration
            transformers knows.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: another kind of model.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the tower.
    """

    def __init__(self, *, id: str, revision: str | None = None, weights: bool = True) -> None:
        super().__init__()
        self.id, self.revision, self.weights = id, revision, weights
        config: PretrainedConfig = load_config(id, revision)
        config = getattr(config, "audio_config", config)
        if config.model_type != _KIND:
            hint = did_you_mean(config.model_type, [_KIND])
            raise ConfigError(f"{id!r} is a {config.model_type!r}, not the audio tower of Phi-4-multimodal.{hint}")
        self.source_config = config
        self.out_dim, self.num_mels = int(config.hidden_size), int(config.input_size)
        self.factor = int(config.time_reduction)
        self.model = open_tower(
            Phi4MultimodalAudioModel,
            id,
            without_noise(config),
            revision=revision,
            weights=weights,
            is_inside=True,
            trim=lambda model: None,
        )
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module's, but the tower draws no random chunks."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another number of mel bands, or an item without frames.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.num_mels or raw.shape[0] < 1:
                expected = f"(F, {self.num_mels}) frames with F above zero"
                raise refuse_raw(self, index, raw, expected, "Use the processor 'hub' of the same id.")
        weight = next(self.model.parameters())
        rows = in_stacks(raws, lambda batch: self.model(batch.to(weight), None))
        return Packed.of(rows, [self.out_shape(Shape(raw.shape[0])) for raw in raws])

    def out_shape(self, shape: Shape) -> Shape:
        """ceil(len / 8) rows, each at the time of its first frame."""
        times = None if shape.times is None else shape.times[:: self.factor]
        return Shape(-(-shape.len // self.factor), times=times)

    def minimal_raw(self) -> Tensor:
        """One frame of silence."""
        return torch.zeros(1, self.num_mels)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)
