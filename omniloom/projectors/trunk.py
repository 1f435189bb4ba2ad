"""One published transformer over the rows of any modality: only what makes the rows is a modality's own.

Behind each modality's stem stand the same blocks, most often frozen, that once learned from pictures. Source:
Meta-Transformer (arXiv:2307.10802), the blocks of a ViT alone; OneLLM (arXiv:2312.03700), those of CLIP ViT-L/14 with
its class token, its norm before them and its norm behind them, over all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, PretrainedConfig, PreTrainedModel, ViTModel

from omniloom.errors import ConfigError, did_you_mean
from omniloom.layers import in_stacks
from omniloom.layers.hub_loading import load_config, load_model, without_noise
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Packed, Shape

__all__ = ["Trunk"]


@dataclass(frozen=True)
class _Kind:
    """Where a model of transformers keeps its blocks, its norms before and behind them, and its class token."""

    model: type[PreTrainedModel]
    blocks: str
    before: str | None
    behind: str
    token: str
    positions: str
    patches: str


_KINDS = {
    "clip_vision_model": _Kind(
        CLIPVisionModel,
        "encoder.layers",
        "pre_layrnorm",
        "post_layernorm",
        "embeddings.class_embedding",
        "embeddings.position_embedding.weight",
        "patch_embedding",
    ),
    "vit": _Kind(
        ViTModel,
        "layers",
        None,
        "layernorm",
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "patch_embeddings",
    ),
}


class Trunk(Projector):
    """(S, in_dim) rows of any lengths to rows of the same width through published blocks; `out_dim` is `in_dim`.

    Rows are as wide as the model's (1,024 for ViT-L); put a linear map before it for others, and `positions` where the
    stem gives none. Dropout is off. The patch embedding is not loaded, nor are blocks above `layers`.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table, of a ViT or CLIP; of a whole CLIP, its vision tower.
        layers: blocks from below; None: all of them.
        pre_norm: CLIP's norm in front of its blocks; a ViT has none.
        post_norm: the norm behind the last block, which CLIP itself has over its class token alone. Meta-Transformer:
            false, as is `pre_norm`.
        token: the model's class token with its position in front of each item: "keep" gives its row too, as OneLLM
            does, "drop" lets it take part only; None: no class token.
        revision: branch, tag or commit on the hub.
        weights: False builds it from the configuration, with random weights.
    Raises:
        ConfigError: an unknown kind of model, more layers than it has, rows of another width, or an unknown `token`.
        MissingAssetError: no such model, or no safetensors.
        CheckpointError: weights that do not fill the trunk.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        id: str,
        layers: int | None = None,
        pre_norm: bool = True,
        post_norm: bool = True,
        token: Literal["keep", "drop"] | None = None,
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        whole = load_config(id, revision)
        config = getattr(whole, "vision_config", whole)
        if config.model_type not in _KINDS:
            known = did_you_mean(config.model_type, _KINDS)
            raise ConfigError(f"{id!r} is a {config.model_type!r}, not a trunk known here.{known}")
        if token not in (None, "keep", "drop"):
            raise ConfigError(f"unknown token {token!r} of Trunk; expected 'keep', 'drop' or null.")
        depth = int(config.num_hidden_layers)
        if not 1 <= (depth if layers is None else layers) <= depth:
            raise ConfigError(f"{id!r} has {depth} layers; got layers={layers}.")
        if in_dim != config.hidden_size:
            raise ConfigError(
                f"Trunk gets rows {in_dim} wide, and {id!r} is {config.hidden_size} wide. Put a linear projector with "
                f"width: {config.hidden_size} before it."
            )
        self.in_dim, self.out_dim = in_dim, in_dim
        self.id, self.layers, self.pre_norm, self.post_norm = id, layers, pre_norm, post_norm
        self.token, self.revision, self.weights = token, revision, weights
        self.source_config: PretrainedConfig = config
        kind = _KINDS[config.model_type]
        quiet = without_noise(config, num_hidden_layers=layers or depth, use_mask_token=False)
        if weights:
            # In whole CLIPs, and in vision towers of older files.
            mapping = {r"^vision_model\.": ""}
            model = load_model(kind.model, id, quiet, revision=revision, key_mapping=mapping, trim=self._trimmed)
        else:
            model = kind.model._from_config(quiet, dtype=torch.float32)
            self._trimmed(model)
        # Only the parts are kept: the model around them would read pictures.
        self.before: nn.Module = getattr(model, kind.before) if pre_norm and kind.before else nn.Identity()
        self.blocks = cast("nn.ModuleList", attrgetter(kind.blocks)(model))
        self.behind: nn.Module = getattr(model, kind.behind)
        self.first: nn.Parameter | None = None
        if token is not None:
            place = attrgetter(kind.positions)(model).detach().reshape(-1, in_dim)[:1]
            self.first = nn.Parameter(attrgetter(kind.token)(model).detach().reshape(1, in_dim) + place)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """The rows of an item see one another, and no other item's."""
        require_width(self, packed)
        rows = in_stacks(list(packed.items()), self._attended)
        return Packed.of(rows, [self.out_shape(shape) for shape in packed.shapes])

    def out_shape(self, shape: Shape) -> Shape:
        """The rows where they were; with the class token kept, one more before them, at the time of the first."""
        if self.token != "keep":
            return shape
        return Shape(shape.len + 1, times=None if shape.times is None else (shape.times[0], *shape.times))

    def save_config(self, folder: Path) -> None:
        """Write config.json, so that `id=folder, weights=False` builds the same trunk without the source."""
        self.source_config.save_pretrained(folder)

    def _attended(self, batch: Tensor) -> Tensor:
        x = batch.to(next(self.blocks.parameters()))
        if self.first is not None:
            x = torch.cat([self.first.expand(x.shape[0], 1, -1), x], 1)
        x = self.before(x)
        for block in self.blocks:
            x = block(x, None)
        rows: Tensor = self.behind(x[:, 1:] if self.token == "drop" else x)
        return rows

    def _trimmed(self, model: PreTrainedModel) -> None:
        """Take out what no row passes through, so that only what is left must come from the file."""
        kind = _KINDS[self.source_config.model_type]
        if getattr(model, "pooler", None) is not None:
            del model.pooler
        if not self.pre_norm and kind.before:
            setattr(model, kind.before, nn.Identity())
        if not self.post_norm:
            setattr(model, kind.behind, nn.Identity())
        if self.token is None:
            del model.embeddings
        else:
            setattr(model.embeddings, kind.patches, None)
