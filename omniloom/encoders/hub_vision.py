"""Published vision towers of transformers: rows of any layer, rows of further layers beside them, a joint vector.

Source: CLIP (arXiv:2103.00020), SigLIP and SigLIP 2 (arXiv:2303.15343, 2502.14786), DINOv2 (arXiv:2304.07193), ViT
(arXiv:2010.11929), EVA-CLIP as BLIP-2 and InstructBLIP hold it (arXiv:2301.12597, 2305.06500), InternViT
(arXiv:2312.14238). Choosing an inner layer, and patches or class token, is as in LLaVA (arXiv:2304.08485):
`select_layer`, `select_feature`; several layers for a language model to take are as in eP-ALM (arXiv:2303.11403).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import require_items
from omniloom.encoders.hub_tower import by_item, levels_of, open_tower, pack_layers, run_layers, square_side
from omniloom.encoders.pictures import picture_shape, pictures_of
from omniloom.errors import ConfigError, ShapeError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, without_noise
from omniloom.sequence import Packed, Raw, Shape

__all__ = ["HubVision"]


class _Tower(NamedTuple):
    """A kind of tower: its class, tokens before the patches (registers apart), its last norm, and who passes that."""

    name: str
    prefix: int
    norm: str
    norms_rows: bool = True


_TOWERS = {
    "blip_2_vision_model": _Tower("Blip2VisionModel", 1, "post_layernorm"),
    # CLIP norms the pooled class token only, never the rows.
    "clip_vision_model": _Tower("CLIPVisionModel", 1, "post_layernorm", norms_rows=False),
    "dinov2": _Tower("Dinov2Model", 1, "layernorm"),
    "dinov2_with_registers": _Tower("Dinov2WithRegistersModel", 1, "layernorm"),
    "instructblip_vision_model": _Tower("InstructBlipVisionModel", 1, "post_layernorm"),
    "internvl_vision": _Tower("InternVLVisionModel", 1, "layernorm"),
    "siglip2_vision_model": _Tower("Siglip2VisionModel", 0, "post_layernorm"),
    "siglip_vision_model": _Tower("SiglipVisionModel", 0, "post_layernorm"),
    "vit": _Tower("ViTModel", 1, "layernorm"),
}
_POOLED = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model")


class HubVision(Encoder):
    """Raw (3, Y, X) or (F, 3, Y, X), or a bundle of tiles, to rows of the tower's width.

    Pictures of another size than the tower's own are taken with interpolated positions; SigLIP 2's tower of any
    proportions (NaFlex) has no size of its own. Of a whole model (CLIP, SigLIP, BLIP-2, LLaVA ...) only the vision
    tower is loaded. Layers above the highest one asked for are not built.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table.
        layer: index into the tower's hidden states: 0 the embedding, -1 the last, -2 the one before it. The last
            has the tower's final norm where the tower applies it to all rows (all but CLIP).
        tokens: "patches"; "cls" for the class token alone; "all" for both, class and register tokens first; "pooled"
            for the joint vector as the one row of a picture or frame.
        taps: further layers, counted as `layer` is; `Packed.taps` holds the same rows of each, under the numbers given.
        pooled: give the joint vector too, in `Packed.pooled`: CLIP's projected image embedding, SigLIP's pooled one; of
            several frames their mean. Its length is as the tower gives it, not 1.
        norm: False gives the last layer as it leaves its block, without the tower's final norm: what LLaVA-OneVision
            reads of SigLIP.
        revision: branch, tag or commit on the hub.
        weights: False builds the tower from its configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of tower, a layer it does not have, or a class token or joint vector where there
            is none.
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
        norm: bool = True,
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.id, self.layer, self.tokens, self.revision, self.weights = id, layer, tokens, revision, weights
        self.taps, self.pooled, self.norm = taps, pooled, norm
        whole = load_config(id, revision)
        config = getattr(whole, "vision_config", whole)
        kind = config.model_type
        if kind not in _TOWERS:
            raise ConfigError(f"{id!r} is a {kind!r}, not a vision tower known here.{did_you_mean(kind, _TOWERS)}")
        tower = _TOWERS[kind]
        self.depth = int(config.num_hidden_layers)
        self.levels = levels_of(id, self.depth, (layer, *taps))
        if tokens not in ("patches", "cls", "all", "pooled"):
            raise ConfigError(f"unknown tokens {tokens!r} of HubVision; expected 'patches', 'cls', 'all' or 'pooled'.")
        if tokens == "pooled" and taps:
            raise ConfigError("tokens: pooled is one vector, and taps have other rows. Take `pooled: true` instead.")
        self.prefix = tower.prefix + getattr(config, "num_register_tokens", 0)
        if tokens == "cls" and not self.prefix:
            raise ConfigError(f"{id!r} has no class token. Take tokens: patches.")
        self.has_pooled = pooled or tokens == "pooled"
        if self.has_pooled and kind not in _POOLED:
            raise ConfigError(f"{id!r} is a {kind!r}, which has no joint vector; CLIP and SigLIP have one.")
        if self.has_pooled and not norm:
            raise ConfigError("the joint vector is made behind the final norm; it cannot be had with norm: false.")
        self.source_config = _with_joint_width(config, whole)
        self.patch_px = square_side(config.patch_size)
        self.image_px = square_side(config.image_size) if hasattr(config, "image_size") else None
        self.channels = int(getattr(config, "num_channels", 3))
        self.width = int(config.hidden_size)
        self.joint_width = int(getattr(self.source_config, "projection_dim", self.width))
        self.out_dim = self.joint_width if tokens == "pooled" else self.width
        self.pooled_dim = self.joint_width if self.has_pooled else None
        keep = self.depth if self.has_pooled else max(self.levels.values())
        self.highest = keep
        self.model = self._built(whole, tower, keep)
        self.can_interpolate = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters

    @property
    def tap_dims(self) -> Mapping[int, int]:
        """The layers of `taps`, each of the tower's width."""
        return dict.fromkeys(self.taps, self.width)

    def forward(self, raws: Sequence[Raw]) -> Packed:
        """Rows in reading order: frame by frame, line by line.

        Raises:
            ShapeError: no items, another rank or number of channels, or a picture smaller than a patch.
        """
        require_items(self, raws)
        remedy = "Use the processor 'hub' of the same id."
        read = [picture_shape(self, index, raw, self.channels, remedy) for index, raw in enumerate(raws)]
        shapes = tuple(self.out_shape(shape) for shape in read)
        items = in_stacks([pictures_of(raw) for raw in raws], self._found)
        return pack_layers(items, shapes, "pooled" if self.tokens == "pooled" else self.layer, self.taps)

    def _found(self, pictures: Tensor) -> list[dict[int | str, Tensor]]:
        """Of (B, F, C, Y, X) the chosen (rows, width) of every layer asked for, and the (F, joint_width) vectors."""
        pixels = pictures.to(next(self.model.parameters())).flatten(0, 1)
        inputs: tuple[Tensor, ...] = (pixels,)
        options = {}
        if self.image_px is None:
            inputs = _in_patches(pixels, self.patch_px)
        else:
            is_native = pixels.shape[-2:] == (self.image_px, self.image_px)
            options = {"interpolate_pos_encoding": True} if self.can_interpolate and not is_native else {}
        states, out = run_layers(self.model, self.levels, self.highest, *inputs, **options)
        chosen = {"patches": slice(self.prefix, None), "cls": slice(0, 1)}.get(self.tokens, slice(None))
        frames = pictures.shape[:2]
        found: dict[int | str, Tensor] = {
            number: hidden[:, chosen].unflatten(0, frames).flatten(1, 2) for number, hidden in states.items()
        }
        if self.has_pooled:
            vectors = out.image_embeds if "image_embeds" in out else out.pooler_output
            found["pooled"] = vectors.unflatten(0, frames)
        return by_item(found)

    def out_shape(self, shape: Shape) -> Shape:
        """From a grid (F, Y, X) of pixels to the chosen rows of each frame; a row has the time of its frame.

        Tiles stay tiles, except with class tokens among them.

        Raises:
            ShapeError: no grid, or a picture smaller than a patch.
        """
        if shape.grid is None or min(shape.grid[1:]) < self.patch_px:
            raise ShapeError(
                f"HubVision got the grid {shape.grid}; expected (F, Y, X) pixels, sides of {self.patch_px} or more. "
                "Use the processor 'hub' of the same id."
            )
        t, y, x = shape.grid
        cells = (y // self.patch_px, x // self.patch_px) if self.tokens in ("patches", "all") else (1, 1)
        rows = cells[0] * cells[1] + (self.prefix if self.tokens == "all" else 0)
        times = None
        if shape.times is not None:
            times = tuple(shape.times[frame * y * x] for frame in range(t) for _ in range(rows))
        if self.tokens == "all":
            return Shape(t * rows, None, times)
        return Shape(t * rows, (t, *cells), times, shape.mosaic)

    def minimal_raw(self) -> Tensor:
        """One picture of zeros, a patch in size."""
        return torch.zeros(self.channels, self.patch_px, self.patch_px)

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same tower without the source."""
        self.source_config.save_pretrained(folder)

    def _built(self, whole: PretrainedConfig, tower: _Tower, keep: int) -> PreTrainedModel:
        loader = getattr(transformers, tower.name + ("WithProjection" if self._is_projected else ""))
        config = without_noise(
            self.source_config, num_hidden_layers=keep, vision_use_head=self.has_pooled, use_mask_token=False
        )

        def trim(model: PreTrainedModel) -> None:
            _trim(model, tower, keeps_norm=self.has_pooled or (self.norm and tower.norms_rows and keep == self.depth))

        return open_tower(
            loader,
            self.id,
            config,
            revision=self.revision,
            weights=self.weights,
            is_inside=whole is not self.source_config,
            trim=trim,
        )

    @property
    def _is_projected(self) -> bool:
        return self.has_pooled and hasattr(self.source_config, "projection_dim")


def _with_joint_width(config: PretrainedConfig, whole: PretrainedConfig) -> PretrainedConfig:
    """The tower's configuration, with the joint width of the whole model, which is the one its weights have."""
    if hasattr(config, "projection_dim") and getattr(whole, "projection_dim", None):
        config.projection_dim = whole.projection_dim
    return config


def _in_patches(pixels: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, Y, X) as SigLIP 2 reads it: (B, S, patch * patch * C), a mask of ones, and how many lines and columns."""
    count, channels = pixels.shape[:2]
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    cut = pixels[..., : rows * patch, : columns * patch].reshape(count, channels, rows, patch, columns, patch)
    patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1)
    sizes = torch.tensor([(rows, columns)] * count, device=pixels.device)
    return patches, torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device), sizes


def _trim(model: PreTrainedModel, tower: _Tower, *, keeps_norm: bool) -> None:
    """Take out what no row passes through: poolers, mask tokens, and the final norm behind an inner layer."""
    owner = getattr(model, "vision_model", model)
    for part, name in ((owner, "pooler"), (owner.embeddings, "mask_token")):
        if getattr(part, name, None) is not None:
            setattr(part, name, None)
    if not keeps_norm:
        setattr(owner, tower.norm, nn.Identity())
