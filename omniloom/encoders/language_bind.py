"""A branch of LanguageBind: pictures, maps, sounds as pictures, or clips, in one space with the language tower of CLIP.

Each branch is a vision tower of CLIP; the one for clips has in every layer, before the attention within a frame, one
between the frames at each place. Source: LanguageBind (arXiv:2310.01852), in WorldGPT (arXiv:2404.18202).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPVisionConfig, PretrainedConfig
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer
from transformers.utils import cached_file

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.hub_tower import levels_of
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import read_config, without_noise
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["LanguageBind"]


class LanguageBind(Encoder):
    """Raw (3, Y, X) or (F, 3, Y, X) of the branch's size to a vector of length 1, or to rows of its width.

    `Packed.pooled` holds the vector whatever the rows are. Processors: `image` or `video` with `size_px: 224`,
    `crop: true` and CLIP's mean and std, `map` with `channels: 3` besides for depth, `sound_channels` for sound. The
    branch for clips takes up to as many frames as it has places in time; any other reads frames one by one.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table, with the published `config.json` and the weights as
            safetensors, which `omniloom convert` makes of `pytorch_model.bin`. Adapters in the file are merged.
        layer: of the rows: index into the hidden states, 0 the embedding, -1 the last. The vector is the last one's.
        tokens: "pooled", the vector as the one row of an item; "patches", frame by frame on their grid; "all", each
            frame's class token before its patches.
        revision: branch, tag or commit on the hub.
        weights: False builds the branch from its configuration, with random weights.
    Raises:
        ConfigError: not a model of LanguageBind, or a layer it does not have.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: the file lacks parameters of the branch, or has them of other shapes.
    """

    def __init__(
        self,
        *,
        id: str,
        layer: int = -1,
        tokens: Literal["pooled", "patches", "all"] = "pooled",
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        if tokens not in ("pooled", "patches", "all"):
            raise ConfigError(f"unknown tokens {tokens!r} of LanguageBind; expected 'pooled', 'patches' or 'all'.")
        self.id, self.layer, self.tokens, self.revision, self.weights = id, layer, tokens, revision, weights
        self.source_config = read_config(id, revision)
        fields = self.source_config.get("vision_config")
        if not str(self.source_config.get("model_type", "")).startswith("LanguageBind") or not isinstance(fields, dict):
            raise ConfigError(f"{id!r} is a {self.source_config.get('model_type')!r}, not a branch of LanguageBind.")
        known = CLIPVisionConfig().to_dict()
        config: PretrainedConfig = CLIPVisionConfig(**{name: value for name, value in fields.items() if name in known})
        config = without_noise(config, _attn_implementation="sdpa")
        self.is_temporal = bool(fields.get("add_time_attn", False))
        self.frames = int(fields.get("num_frames", 1))
        # Sound is a picture of bands and frames; every other branch sees squares.
        sound = (int(fields.get("num_mel_bins", 0)), int(fields.get("target_length", 0)))
        self.size = sound if all(sound) else (int(config.image_size),) * 2
        self.channels, self.patch_px = int(config.num_channels), int(config.patch_size)
        self.cells = (self.size[0] // self.patch_px, self.size[1] // self.patch_px)
        self.depth, self.width = int(config.num_hidden_layers), int(config.hidden_size)
        self.level = levels_of(id, self.depth, (layer,))[layer]
        self.pooled_dim = int(self.source_config.get("projection_dim", 512))
        self.out_dim = self.pooled_dim if tokens == "pooled" else self.width
        self.vision_model = _Tower(config, self.cells, self.frames if self.is_temporal else 0)
        self.visual_projection = nn.Linear(self.width, self.pooled_dim, bias=False)
        if weights:
            self._load(float(fields.get("lora_alpha", 16)))

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows of all items, and a vector each: the mean of the frames' class tokens, projected and scaled to length 1.

        Raises:
            ShapeError: no items, or a raw tensor of another size than the branch's, or of too many frames.
        """
        require_items(self, raws)
        clips = [self._clip(index, raw) for index, raw in enumerate(raws)]
        found = in_stacks(clips, self._found)
        shapes = tuple(self._shape(len(clip), None) for clip in clips)
        return Packed(torch.cat([rows for rows, _ in found]), shapes, torch.stack([vector for _, vector in found]))

    def out_shape(self, shape: Shape) -> Shape:
        """One row; or those of every frame, each at the frame's time.

        Raises:
            ShapeError: another size than the branch's, or too many frames.
        """
        grid = shape.grid or (0, 0, 0)
        if grid[1:] != self.size or not self._takes(grid[0]):
            raise ShapeError(f"LanguageBind got {shape.grid or shape.len}; expected {self._expected()}.")
        return self._shape(grid[0], None if shape.times is None else shape.times[:: shape.len // grid[0]])

    def minimal_raw(self) -> Tensor:
        """One frame of zeros."""
        return torch.zeros(self.channels, *self.size)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same branch without the source."""
        (folder / "config.json").write_text(json.dumps(self.source_config, indent=2) + "\n")

    def _found(self, clips: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each of (B, F, 3, Y, X): its rows, and its vector."""
        count, frames = clips.shape[:2]
        pixels = clips.flatten(0, 1).to(self.visual_projection.weight)
        hidden, first = self.vision_model(pixels, frames, self.level)
        vectors = F.normalize(self.visual_projection(first.unflatten(0, (count, frames)).mean(1)), dim=-1)
        if self.tokens == "pooled":
            return list(zip(vectors[:, None], vectors, strict=True))
        rows = hidden if self.tokens == "all" else hidden[:, 1:]
        return list(zip(rows.unflatten(0, (count, frames)).flatten(1, 2), vectors, strict=True))

    def _shape(self, frames: int, times: Sequence[float] | None) -> Shape:
        if self.tokens == "pooled":
            return Shape(1, times=None if times is None else (times[0],))
        rows = self.cells[0] * self.cells[1] + (1 if self.tokens == "all" else 0)
        each = None if times is None else tuple(time for time in times for _ in range(rows))
        return Shape(frames * rows, None if self.tokens == "all" else (frames, *self.cells), each)

    def _clip(self, index: int, raw: Tensor) -> Tensor:
        """(F, 3, Y, X) of one item."""
        clip = raw if raw.dim() == 4 else raw[None]
        if clip.dim() != 4 or tuple(clip.shape[1:]) != (self.channels, *self.size) or not self._takes(len(clip)):
            raise refuse_raw(self, index, raw, self._expected(), "Set the processor's size and frames.")
        return clip

    def _takes(self, frames: int) -> bool:
        return frames >= 1 and (not self.is_temporal or frames <= self.frames)

    def _expected(self) -> str:
        most = f" of up to {self.frames} frames" if self.is_temporal else ""
        return f"({self.channels}, {self.size[0]}, {self.size[1]}), or a clip{most}"

    def _load(self, alpha: float) -> None:
        try:
            name, revision = "model.safetensors", self.revision or "main"
            file = cached_file(resolve_asset(self.id), name, revision=revision)
        except OSError as error:
            raise MissingAssetError(
                f"no {name} of {self.id!r}. Convert the published weights by `omniloom convert pytorch_model.bin "
                "FOLDER`, put config.json beside them, and name the folder; or set weights: false."
            ) from error
        wanted = self.state_dict()
        with safe_open(str(file), "pt") as tensors:
            found = _merged(tensors, alpha)
        wrong = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
        if wrong:
            raise CheckpointError(
                f"the weights of {self.id!r} lack {len(wrong)} of {len(wanted)} parameters of the branch, or have them "
                f"of other shapes; first: {wrong[0]}. The folder is incomplete or of another model."
            )
        self.load_state_dict({name: found[name] for name in wanted}, strict=True)


def _merged(tensors: Any, alpha: float) -> Mapping[str, Tensor]:
    """Name -> float32 weight of an open file's vision tower, low-rank adapters added to what they adapt."""
    names = [name for name in tensors.keys() if name.startswith(("vision_model.", "visual_projection."))]
    found = {
        name.replace(".base_model.model.", ".").replace(".base_layer.", "."): tensors.get_tensor(name).float()
        for name in names
    }
    for down in [name for name in found if ".lora_A." in name]:
        first, second = found.pop(down), found.pop(down.replace(".lora_A.", ".lora_B."))
        found[down.partition(".lora_A.")[0] + ".weight"] += alpha / len(first) * second @ first
    return found


class _Embeddings(nn.Module):
    """(N, 3, Y, X) frames to (N, 1 + cells, E): a class token, then patches line by line, each plus its place."""

    def __init__(self, config: PretrainedConfig, cells: tuple[int, int]) -> None:
        super().__init__()
        width, patch = int(config.hidden_size), int(config.patch_size)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.patch_embedding = nn.Conv2d(int(config.num_channels), width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding(1 + cells[0] * cells[1], width)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.position_embedding.weight


class _Layer(CLIPEncoderLayer):  # type: ignore[misc]
    """A layer of CLIP; with `places` in time its frames attend to each other first, each place to itself."""

    def __init__(self, config: Any, places: int) -> None:
        super().__init__(config)
        self.places = places
        if places:
            width = int(config.hidden_size)
            self.temporal_embedding = nn.Parameter(width**-0.5 * torch.randn(1, places, width))
            self.temporal_attn = CLIPAttention(config)
            self.temporal_layer_norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def across_time(self, x: Tensor, frames: int) -> Tensor:
        """(B * F, tokens, E) to the same, plus what each place reads of the other frames."""
        if not self.places:
            return x
        tokens = x.shape[1]
        x = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        # A branch with one place in time has an embedding for it that the published model never adds.
        x = x + self.temporal_embedding[:, :frames] if self.places > 1 else x
        x = x + self.temporal_attn(self.temporal_layer_norm1(x))[0]
        return x.unflatten(0, (-1, tokens)).transpose(1, 2).flatten(0, 1)


class _Tower(nn.Module):
    """(B * F, 3, Y, X) to the hidden states of one level and the normed class tokens of the last, (B * F, E)."""

    def __init__(self, config: PretrainedConfig, cells: tuple[int, int], places: int) -> None:
        super().__init__()
        width, eps = int(config.hidden_size), float(config.layer_norm_eps)
        self.embeddings = _Embeddings(config, cells)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # the published name
        layers = [_Layer(config, places) for _ in range(int(config.num_hidden_layers))]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.post_layernorm = nn.LayerNorm(width, eps=eps)

    def forward(self, pixels: Tensor, frames: int, level: int) -> tuple[Tensor, Tensor]:
        x = self.pre_layrnorm(self.embeddings(pixels))
        chosen = x
        layers: Iterable[Any] = self.encoder["layers"]  # type: ignore[assignment]
        for index, layer in enumerate(layers, 1):
            x = layer(layer.across_time(x, frames), None)
            chosen = x if index == level else chosen
        return chosen, self.post_layernorm(x[:, 0])
