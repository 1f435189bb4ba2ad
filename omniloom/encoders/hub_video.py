"""Published video towers of transformers, which see all frames of a clip at once: rows of any layer.

Source: TimeSformer (arXiv:2102.05095), as in eP-ALM (arXiv:2303.11403), which takes the class token of several layers;
VideoMAE (arXiv:2203.12602), as in Emotion-LLaMA (arXiv:2406.11161); ViViT (arXiv:2103.15691), as in MuMu-LLaMA
(arXiv:2412.06660), which takes class token and patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import by_item, levels_of, open_tower, pack_layers, run_layers, square_side
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Packed, Shape

__all__ = ["HubVideo"]

# model_type -> class and tokens before the patches.
_TOWERS = {
    "timesformer": ("TimesformerModel", 1),
    "videomae": ("VideoMAEModel", 0),
    "vivit": ("VivitModel", 1),
}


class HubVideo(Encoder):
    """Raw (F, 3, S, S), F and S the tower's own, to (F / tubelet) * (S / patch)^2 rows of its width, on that grid.

    The processor `hub_video` of the same id with `frames: F` and `exact: true` gives such. Layers above the highest one
    asked for are not built.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        layer: index into the hidden states: 0 the embedding, -1 the last with the tower's final norm, if it has one.
        tokens: "patches"; "cls" for the one class token of the clip; "all" for both, class token first.
        taps: further layers, counted as `layer` is; `Packed.taps` holds the same rows of each, under the numbers given.
        revision: branch, tag or commit on the hub.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of tower, a layer it does not have, or "cls" where there is none.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the tower.
    """

    def __init__(
        self,
        *,
        id: str,
        layer: int = -1,
        tokens: Literal["patches", "cls", "all"] = "patches",
        taps: Sequence[int] = (),
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.id, self.layer, self.tokens, self.taps = id, layer, tokens, taps
        self.revision, self.weights = revision, weights
        config = load_config(id, revision)
        kind = config.model_type
        if kind not in _TOWERS:
            raise ConfigError(f"{id!r} is a {kind!r}, not a video tower known here.{did_you_mean(kind, _TOWERS)}")
        name, self.prefix = _TOWERS[kind]
        if tokens not in ("patches", "cls", "all"):
            raise ConfigError(f"unknown tokens {tokens!r} of HubVideo; expected 'patches', 'cls' or 'all'.")
        if tokens == "cls" and not self.prefix:
            raise ConfigError(f"{id!r} has no class token. Take tokens: patches.")
        self.source_config = config
        self.depth = int(config.num_hidden_layers)
        self.levels = levels_of(id, self.depth, (layer, *taps))
        self.highest = max(self.levels.values())
        tubelet = getattr(config, "tubelet_size", 1)
        patch = tubelet[1:] if isinstance(tubelet, list | tuple) else config.patch_size
        self.tubelet = int(tubelet[0] if isinstance(tubelet, list | tuple) else tubelet)
        self.patch_px, self.image_px = square_side(patch), square_side(config.image_size)
        self.frames, self.channels = int(config.num_frames), int(config.num_channels)
        self.out_dim = int(config.hidden_size)
        self.model = open_tower(
            getattr(transformers, name),
            id,
            without_noise(config, num_hidden_layers=self.highest),
            revision=revision,
            weights=weights,
            is_inside=False,
            trim=self._trim,
        )

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """The layers of `taps`, each of the tower's width."""
        return dict.fromkeys(self.taps, self.out_dim)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in reading order: tubelet by tubelet in time, line by line.

        Raises:
            ShapeError: no items, or another number of frames, channels or pixels than the tower's.
        """
        require_items(self, raws)
        expected = (self.frames, self.channels, self.image_px, self.image_px)
        for index, raw in enumerate(raws):
            if tuple(raw.shape) != expected:
                remedy = f"Use the processor 'hub_video' of the same id with frames: {self.frames} and exact: true."
                raise refuse_raw(self, index, raw, str(expected), remedy)
        shape = self.out_shape(Shape(self.frames * self.image_px**2, (self.frames, self.image_px, self.image_px)))
        return pack_layers(in_stacks(raws, self._found), (shape,) * len(raws), self.layer, self.taps)

    def out_shape(self, shape: Shape) -> Shape:
        """From a grid (F, S, S) of pixels to the chosen rows; a patch has the time of its tubelet's first frame.

        Raises:
            ShapeError: another grid than the tower's.
        """
        grid = (self.frames, self.image_px, self.image_px)
        if shape.grid != grid:
            raise ShapeError(
                f"HubVideo got the grid {shape.grid}; expected {grid} pixels. Use the processor 'hub_video' of the "
                f"same id with frames: {self.frames} and exact: true."
            )
        if self.tokens == "cls":
            return Shape(1, (1, 1, 1), None if shape.times is None else shape.times[:1])
        t, side = self.frames // self.tubelet, self.image_px // self.patch_px
        times = None
        if shape.times is not None:
            step = self.tubelet * self.image_px**2
            times = tuple(shape.times[tubelet * step] for tubelet in range(t) for _ in range(side**2))
        if self.tokens == "all":
            return Shape(self.prefix + t * side**2, times=None if times is None else times[:1] * self.prefix + times)
        return Shape(t * side**2, (t, side, side), times)

    def minimal_raw(self) -> Tensor:
        """A clip of zeros."""
        return torch.zeros(self.frames, self.channels, self.image_px, self.image_px)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)

    def _found(self, clips: Tensor) -> list[dict[int, Tensor]]:
        """Of each clip the (rows, E) of every layer asked for."""
        states, _ = run_layers(self.model, self.levels, self.highest, clips.to(next(self.model.parameters())))
        return by_item({number: self._chosen(hidden) for number, hidden in states.items()})

    def _chosen(self, hidden: Tensor) -> Tensor:
        """(B, tokens, E) to the chosen ones, patches in reading order."""
        first, patches = hidden[:, : self.prefix], hidden[:, self.prefix :]
        if self.tokens == "cls":
            return first
        if self.source_config.model_type == "timesformer":  # its patches stand place by place, each with all its times
            patches = patches.unflatten(1, (-1, self.frames)).transpose(1, 2).flatten(1, 2)
        return torch.cat([first, patches], 1) if self.tokens == "all" else patches

    def _trim(self, model: PreTrainedModel) -> None:
        """Take out what no row passes through: the pooler, and the final norm behind an inner layer."""
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]
        if self.highest < self.depth and model.layernorm is not None:
            model.layernorm = nn.Identity()
