"""Published encoders of general sound from transformers: AST's patches of a spectrogram, CLAP's map and joint vector.

Source: AST (arXiv:2104.01778), as in eP-ALM (arXiv:2303.11403) and Unified-IO 2 (arXiv:2312.17172); CLAP with its
HTS-AT tower (arXiv:2211.06687), as in AnyMAL (arXiv:2309.16058) and AVicuna (arXiv:2403.16276).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import ASTModel, ClapAudioModelWithProjection, PretrainedConfig, PreTrainedModel

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import by_item, levels_of, open_tower, pack_layers, run_layers
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Packed, Shape

__all__ = ["HubAudio"]

_AST, _CLAP = "audio-spectrogram-transformer", "clap_audio_model"
_PREFIX = 2  # class and distillation token of AST
_TOKENS = {_AST: ("patches", "cls", "all", "pooled"), _CLAP: ("patches", "pooled")}


class HubAudio(Encoder):
    """Raw (F, M) frames to rows of the tower's width, on the grid (time, pitch, 1): time after time, low to high.

    AST reads 1,024 frames and gives 101 x 12 patches that overlap; CLAP reads up to 1,024 frames, stretches them to
    that and gives a map of 32 x 2 cells. Short sounds are filled up by the processor. CLAP's fusion of several windows
    of a long sound is not used: long sounds are split instead. Batch norms always use their stored statistics.
    Of a whole CLAP only the audio tower is loaded. Layers of AST above the highest one asked for are not built.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        layer: of AST, index into the hidden states: 0 the embedding, -1 the last, which has the final norm.
        tokens: "patches"; "pooled" for the joint vector as the one row; of AST also "cls" for the class token, and
            "all" for its tokens as they are, class and distillation first, then pitch after pitch.
        taps: of AST, further layers, counted as `layer` is; `Packed.taps` holds the same rows of each.
        pooled: give the joint vector too: CLAP's projected embedding, AST's mean of class and distillation token. Its
            length is as the tower gives it, not 1.
        revision: branch, tag or commit on the hub.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of model, or a layer or rows that it does not have.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the tower.
    """

    def __init__(
        self,
        *,
        id: str,
        layer: int = -1,
        tokens: Literal["patches", "cls", "all", "pooled"] = "patches",
        taps: Sequence[int] = (),
        pooled: bool = False,
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.id, self.layer, self.tokens, self.taps, self.pooled = id, layer, tokens, taps, pooled
        self.revision, self.weights = revision, weights
        config: PretrainedConfig = load_config(id, revision)
        config = getattr(config, "audio_config", config)
        self.kind: str = config.model_type
        if self.kind not in _TOKENS:
            hint = did_you_mean(self.kind, _TOKENS)
            raise ConfigError(f"{id!r} is a {self.kind!r}, not an encoder of sound known here.{hint}")
        if tokens not in _TOKENS[self.kind]:
            raise ConfigError(f"unknown tokens {tokens!r} of {id!r}; expected one of {', '.join(_TOKENS[self.kind])}.")
        if self.kind == _CLAP and (layer != -1 or len(taps)):
            raise ConfigError(
                f"{id!r} is a CLAP, whose layers have rows of different sizes; only the last can be taken."
            )
        if tokens == "pooled" and len(taps):
            raise ConfigError("tokens: pooled is one vector, and taps have other rows. Take `pooled: true` instead.")
        self.source_config = config
        self.depth = int(config.num_hidden_layers)
        self.levels = levels_of(id, self.depth, (layer, *taps))
        self.has_pooled = pooled or tokens == "pooled"
        self.highest = self.depth if self.has_pooled else max(self.levels.values())
        self.num_mels, self.width = int(config.num_mel_bins), int(config.hidden_size)
        self.joint_width = int(config.projection_dim) if self.kind == _CLAP else self.width
        self.out_dim = self.joint_width if tokens == "pooled" else self.width
        self.pooled_dim = self.joint_width if self.has_pooled else None
        self.frames, self.cells = _clap_sizes(id, config) if self.kind == _CLAP else _ast_sizes(config)
        loader: type[PreTrainedModel] = ClapAudioModelWithProjection if self.kind == _CLAP else ASTModel
        changes = {"enable_fusion": False} if self.kind == _CLAP else {"num_hidden_layers": self.highest}
        self.model = open_tower(
            loader,
            id,
            without_noise(config, **changes),
            revision=revision,
            weights=weights,
            is_inside=self.kind == _CLAP,
            trim=self._trim,
        )
        self.train(self.training)

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """The layers of `taps`, each of the tower's width."""
        return dict.fromkeys(self.taps, self.width)

    def train(self, mode: bool = True) -> Self:
        """As any module's, but batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows, those of the taps, and the joint vectors if asked for.

        Raises:
            ShapeError: no items, or frames of another number or width than the tower reads.
        """
        require_items(self, raws)
        shapes = tuple(self.out_shape(self._raw_shape(index, raw)) for index, raw in enumerate(raws))
        rows = "pooled" if self.tokens == "pooled" else self.layer
        return pack_layers(in_stacks(raws, self._found), shapes, rows, self.taps)

    def out_shape(self, shape: Shape) -> Shape:
        """The rows of so many frames, each at the time where it begins.

        Raises:
            ShapeError: another number of frames than the tower reads.
        """
        if shape.len > self.frames or (self.kind == _AST and shape.len < self.frames):
            raise ShapeError(
                f"HubAudio got {shape.len} frames; {self.id!r} reads {self.frames}. "
                "Use the processor 'hub' of the same id, and its `split` for long sounds."
            )
        times, (columns, pitches) = shape.times, self.cells
        if self.tokens == "all":
            return Shape(_PREFIX + columns * pitches)
        if self.tokens != "patches":
            return Shape(1, times=None if times is None else times[:1])
        step = self.source_config.time_stride if self.kind == _AST else shape.len / columns
        if times is not None:
            times = tuple(times[int(column * step)] for column in range(columns) for _ in range(pitches))
        return Shape(columns * pitches, (columns, pitches, 1), times)

    def minimal_raw(self) -> Tensor:
        """AST: its frames of zeros; CLAP: one frame of silence."""
        return torch.zeros(self.frames, self.num_mels) if self.kind == _AST else torch.full((1, self.num_mels), -100.0)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)

    def _found(self, frames: Tensor) -> list[dict[int | str, Tensor]]:
        """Of each item the (rows, width) of every layer asked for, and the (1, joint_width) vector."""
        run = self._clap if self.kind == _CLAP else self._ast
        hidden, vectors = run(frames.to(next(self.model.parameters())))
        return by_item({**hidden, "pooled": vectors[:, None]} if self.has_pooled else hidden)

    def _ast(self, frames: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        states, out = run_layers(self.model, self.levels, self.highest, frames)
        return {number: self._chosen(hidden) for number, hidden in states.items()}, out.pooler_output

    def _chosen(self, states: Tensor) -> Tensor:
        if self.tokens in ("all", "cls"):
            return states[:, :1] if self.tokens == "cls" else states
        columns, pitches = self.cells
        # The tower's patches come pitch after pitch.
        return states[:, _PREFIX:].unflatten(1, (pitches, columns)).transpose(1, 2).flatten(1, 2)

    def _clap(self, frames: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        tower: Any = self.model
        out = tower.audio_model(frames[:, None])
        vectors = tower.audio_projection(out.pooler_output) if self.has_pooled else out.pooler_output
        return {self.layer: out.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2)}, vectors

    def _trim(self, model: PreTrainedModel) -> None:
        """Take out what no row passes through."""
        if self.kind == _CLAP and not self.has_pooled:
            model.audio_projection = None  # type: ignore[assignment]
        if self.kind == _AST and self.highest < self.depth:
            model.layernorm = nn.Identity()

    def _raw_shape(self, index: int, raw: Tensor) -> Shape:
        if raw.dim() != 2 or raw.shape[1] != self.num_mels or raw.shape[0] < 1:
            expected = f"(F, {self.num_mels}) frames"
            raise refuse_raw(self, index, raw, expected, "Use the processor 'hub' of the same id.")
        return Shape(raw.shape[0])


def _ast_sizes(config: PretrainedConfig) -> tuple[int, tuple[int, int]]:
    """(frames, (columns, pitches)) of AST."""
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    columns = (config.max_length - patch) // config.time_stride + 1
    return int(config.max_length), (columns, (config.num_mel_bins - patch) // config.frequency_stride + 1)


def _clap_sizes(id: str, config: PretrainedConfig) -> tuple[int, tuple[int, int]]:
    """(most frames, (columns, pitches)) of CLAP: its picture is the spectrogram cut into so many strips as fit."""
    if config.fusion_type == "channel_map":
        raise ConfigError(f"{id!r} is a CLAP that reads four spectrograms as channels; only one is made here.")
    strips = config.spec_size // config.num_mel_bins
    stride = config.patch_stride if isinstance(config.patch_stride, int) else config.patch_stride[0]
    side = config.spec_size // stride // 2 ** (len(config.depths) - 1)
    return int(config.spec_size * strips), (side * strips, side // strips)
