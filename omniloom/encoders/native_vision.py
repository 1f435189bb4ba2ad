"""Vision towers of any resolution: a picture or clip is as many patches as it has, and keeps its proportions.

Rows are given out before the model's own merger, so that any projector can follow. The projector `merge` is that
merger: as it is for Qwen2-VL and Qwen3-VL, with `norm: rms` for Qwen2.5-VL and Qwen2.5-Omni; with `norm_at: merged` it
is a DeepStack merger of Qwen3-VL, which takes a tap.
Source: Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL with attention in windows (arXiv:2502.13923), Qwen2.5-Omni
(arXiv:2503.20215), Qwen3-VL (arXiv:2511.21631) with the taps of DeepStack (arXiv:2406.04334), Qwen3-Omni
(arXiv:2509.17765). Lyra and Baichuan-Omni-1.5 take the tower of Qwen2-VL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.vision_utils import get_vision_window_index

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import levels_of, open_tower, square_side
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Packed, Shape

__all__ = ["NativeVision"]

# model_type -> module of transformers.models and its class; most of these are not exported by transformers.
_TOWERS = {
    "qwen2_vl_vision": ("qwen2_vl", "Qwen2VisionTransformerPretrainedModel"),
    "qwen2_5_vl_vision": ("qwen2_5_vl", "Qwen2_5_VisionTransformerPretrainedModel"),
    "qwen2_5_omni_vision_encoder": ("qwen2_5_omni", "Qwen2_5OmniVisionEncoder"),
    "qwen3_vl_vision": ("qwen3_vl", "Qwen3VLVisionModel"),
    "qwen3_vl_moe_vision": ("qwen3_vl_moe", "Qwen3VLMoeVisionModel"),
    "qwen3_omni_moe_vision_encoder": ("qwen3_omni_moe", "Qwen3OmniMoeVisionEncoder"),
}


class NativeVision(Encoder):
    """Raw (F, 3, Y, X) to (F / temporal patch) * (Y / patch) * (X / patch) rows on that grid, in reading order.

    F is a multiple of the temporal patch (2), Y and X are of two patches (28 or 32 pixels): the processor
    `native_image` of the same id gives such. Frames of a clip do not attend to each other. Of a whole model only the
    vision tower is loaded, and its mergers are left out.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        taps: layers whose rows `Packed.taps` holds too, as indices into the hidden states: 0 the embedding, -1 the last
            layer. "deepstack": those that the model's own configuration names, each behind its block, in that order.
        revision: branch, tag or commit on the hub.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of tower, a layer it does not have, or "deepstack" where it names none.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the tower.
    """

    def __init__(
        self,
        *,
        id: str,
        taps: Sequence[int] | Literal["deepstack"] = (),
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.id, self.taps, self.revision, self.weights = id, taps, revision, weights
        whole = load_config(id, revision)
        whole = getattr(whole, "thinker_config", whole)
        config = getattr(whole, "vision_config", whole)
        kind = config.model_type
        if kind not in _TOWERS:
            raise ConfigError(
                f"{id!r} is a {kind!r}, not a tower of native resolution known here.{did_you_mean(kind, _TOWERS)}"
            )
        self.source_config = config
        self.depth = int(config.depth)
        self.levels = self._levels(taps)
        self.patch_px, self.frames = square_side(config.patch_size), square_side(config.temporal_patch_size)
        self.merge, self.channels = int(config.spatial_merge_size), int(config.in_channels)
        # Qwen2-VL calls its own width embed_dim, and hidden_size that of the language model.
        self.out_dim = int(getattr(config, "embed_dim", config.hidden_size))
        self.model = self._built(whole)

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """The layers of `taps`, each of the tower's width; those of "deepstack" by their index."""
        return dict.fromkeys(self.levels, self.out_dim)

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in reading order: temporal patch by temporal patch, line by line.

        Raises:
            ShapeError: no items, another rank or number of channels, or sides that patches do not divide.
        """
        require_items(self, raws)
        grids = [self._grid(index, raw) for index, raw in enumerate(raws)]
        weight = next(self.model.parameters())
        patches = torch.cat([self._patches(raw.to(weight), grid) for raw, grid in zip(raws, grids, strict=True)])
        grid_thw = torch.tensor(grids, device=weight.device)
        out = self.model(patches, grid_thw=grid_thw, output_hidden_states=bool(self.levels))
        taps = {}
        if self.levels:
            order = self._window_order(grid_thw)
            for number, level in self.levels.items():
                merged = out.hidden_states[level].reshape(-1, self.merge**2 * self.out_dim)
                taps[number] = self._in_reading_order(merged if order is None else merged[order], grids)
        return Packed(
            self._in_reading_order(out.pooler_output, grids),
            tuple(Shape(t * y * x, (t, y, x)) for t, y, x in grids),
            taps=taps,
        )

    def out_shape(self, shape: Shape) -> Shape:
        """The grid of patches that the processor says, as it is: rows are not merged here.

        Raises:
            ShapeError: no grid, or one that merged cells do not divide.
        """
        if shape.grid is None or shape.grid[1] % self.merge or shape.grid[2] % self.merge:
            raise ShapeError(
                f"NativeVision got the grid {shape.grid}; expected (t, y, x) patches, y and x multiples of "
                f"{self.merge}. Use the processor 'native_image' of the same id."
            )
        return shape

    def minimal_raw(self) -> Tensor:
        """One merged cell of zeros in each frame of a temporal patch."""
        side = self.merge * self.patch_px
        return torch.zeros(self.frames, self.channels, side, side)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)

    def _levels(self, taps: Sequence[int] | str) -> dict[int, int]:
        if taps == "deepstack":
            named = getattr(self.source_config, "deepstack_visual_indexes", ())
            if not named:
                raise ConfigError(f"the configuration of {self.id!r} names no layers for DeepStack. List them in taps.")
            # It counts blocks; hidden state 0 is what the first block reads.
            return {int(block) + 1: int(block) + 1 for block in named}
        if isinstance(taps, str):
            raise ConfigError(f"unknown taps {taps!r} of NativeVision; expected a list of layers or 'deepstack'.")
        return levels_of(self.id, self.depth, taps)

    def _built(self, whole: PretrainedConfig) -> PreTrainedModel:
        package, name = _TOWERS[self.source_config.model_type]
        loader = getattr(import_module(f"transformers.models.{package}.modeling_{package}"), name)
        return open_tower(
            loader,
            self.id,
            without_noise(self.source_config),
            revision=self.revision,
            weights=self.weights,
            is_inside=whole is not self.source_config,
            trim=_trim,
        )

    def _grid(self, index: int, raw: Tensor) -> tuple[int, int, int]:
        cell = self.merge * self.patch_px
        is_right = raw.dim() == 4 and raw.shape[1] == self.channels and 0 not in raw.shape
        if not is_right or raw.shape[0] % self.frames or raw.shape[2] % cell or raw.shape[3] % cell:
            expected = f"(F, {self.channels}, Y, X), F a multiple of {self.frames}, Y and X of {cell}"
            raise refuse_raw(self, index, raw, expected, "Use the processor 'native_image' of the same id.")
        return raw.shape[0] // self.frames, raw.shape[2] // self.patch_px, raw.shape[3] // self.patch_px

    def _patches(self, raw: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(F, C, Y, X) to (rows, C * frames * patch * patch), the cells that are merged behind one another."""
        t, y, x = grid
        m, p = self.merge, self.patch_px
        cut = raw.reshape(t, self.frames, self.channels, y // m, m, p, x // m, m, p)
        return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * y * x, -1)

    def _in_reading_order(self, merged: Tensor, grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """(S / merge^2, merge^2 * E), merged cell by merged cell, to (S, E), line by line."""
        m, rows = self.merge, []
        sizes = [t * y * x // m**2 for t, y, x in grids]
        for item, (t, y, x) in zip(merged.split(sizes), grids, strict=True):
            cells = item.reshape(t, y // m, x // m, m, m, self.out_dim).transpose(2, 3)
            rows.append(cells.reshape(t * y * x, self.out_dim))
        return torch.cat(rows)

    def _window_order(self, grid_thw: Tensor) -> Tensor | None:
        """Where each merged cell stands among the rows inside, which are sorted by window; None without windows."""
        window_px = getattr(self.source_config, "window_size", None)
        if window_px is None:
            return None
        index, _ = get_vision_window_index(grid_thw, self.merge, int(window_px), self.patch_px)
        return index.argsort().to(grid_thw.device)


class _SideBySide(nn.Module):
    """In the place of the merger: the cells it would merge, one after another in a wide row, and nothing more."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.cells * x.shape[-1])


def _trim(model: PreTrainedModel) -> None:
    """Take out the merger, and those of DeepStack."""
    model.merger = _SideBySide(int(model.config.spatial_merge_size) ** 2)
    for name in ("deepstack_merger_list", "merger_list"):
        if name in dict(model.named_children()):
            setattr(model, name, nn.ModuleList())
            model.deepstack_visual_indexes = ()  # type: ignore[assignment]
