"""A published Q-Former with its queries and its map to the language model, from BLIP-2 or InstructBLIP.

Source: BLIP-2 (arXiv:2301.12597), InstructBLIP (arXiv:2305.06500). X-LLM (arXiv:2305.04160) and X-InstructBLIP
(arXiv:2311.18799) start each modality's Q-Former from it, ChatBridge (arXiv:2305.16103) one for all modalities with
queries of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.blip_2.modeling_blip_2 import Blip2PreTrainedModel, Blip2QFormerModel
from transformers.models.instructblip.modeling_instructblip import InstructBlipPreTrainedModel, InstructBlipQFormerModel

from omniloom.errors import ConfigError, MissingAssetError, ShapeError
from omniloom.layers.hub_loading import load_config, load_model, without_noise
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.own import Own
from omniloom.projectors.width import require_width
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["HubQFormer"]

_TOKENIZER = "qformer_tokenizer"  # folder of the instruction's tokenizer beside InstructBLIP's weights


class HubQFormer(Projector):
    """(S, in_dim) rows of any lengths to (items * queries, out_dim): those of transformers' BLIP-2 or InstructBLIP.

    Rows are as wide as the published encoder's (1,408 for EVA-CLIP-g); put a linear map before it for others. Dropout
    is off. InstructBLIP's queries also attend to the item's instruction, in the tokens of its own BERT tokenizer; what
    exceeds its positions is cut.

    Args:
        id: hub id, folder, or `scheme:name` of the assets table, of a whole BLIP-2 or InstructBLIP model; only its
            Q-Former, queries and map are loaded.
        projection: "published" takes the map to the language model that is published with it, which must be as wide as
            the one here; "new" starts another.
        own_queries: each modality that shares the part has queries of its own, at `own.NAME`, copies of the published
            ones at first.
        revision: branch, tag or commit on the hub.
        weights: False builds it from the configuration, with random weights.
    Raises:
        ConfigError: another kind of model, or widths that do not fit.
        MissingAssetError: no such model, no safetensors, or no tokenizer for instructions.
        CheckpointError: weights that do not fill it.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        id: str,
        projection: Literal["published", "new"] = "published",
        own_queries: bool = False,
        revision: str | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        if projection not in ("published", "new"):
            raise ConfigError(f"unknown projection {projection!r} of HubQFormer; expected 'published' or 'new'.")
        self.in_dim, self.out_dim, self.id, self.projection = in_dim, out_dim, id, projection
        self.own_queries, self.revision, self.weights = own_queries, revision, weights
        config = load_config(id, revision)
        if config.model_type not in _KINDS:
            raise ConfigError(f"{id!r} is a {config.model_type!r}; expected {' or '.join(_KINDS)}.")
        self.source_config = config
        self.queries = int(config.num_query_tokens)
        inner = config.qformer_config
        if in_dim != inner.encoder_hidden_size:
            raise ConfigError(
                f"{id!r} reads rows {inner.encoder_hidden_size} wide, the part before gives {in_dim}. Put a linear "
                "projector of that width between them, or take the encoder that it was trained with."
            )
        if projection == "published" and out_dim != config.text_config.hidden_size:
            raise ConfigError(
                f"the published map of {id!r} gives rows {config.text_config.hidden_size} wide, the language model "
                f"here takes {out_dim}. Take projection: new."
            )
        self.tokenizer = _load_tokenizer(id, revision) if config.model_type == "instructblip" else None
        quiet = deepcopy(config)
        quiet.qformer_config = without_noise(inner)
        quiet.has_map = projection == "published"
        kind = _KINDS[config.model_type]
        bridge = load_model(kind, id, quiet, revision=revision, trim=_trim) if weights else kind._from_config(quiet)
        if not weights:
            _trim(bridge)
        self.qformer: PreTrainedModel = cast("Any", bridge.qformer)
        published = cast("nn.Parameter", bridge.query_tokens)[0].detach().clone()
        if not weights:
            # transformers starts all queries at zero, where they are equal and stay so.
            nn.init.normal_(published, std=inner.initializer_range)
        if own_queries:
            self.register_buffer("published", published, persistent=False)
        else:
            self.query = nn.Parameter(published)
        has_map = projection == "published"
        self.map: nn.Module = (
            cast("Any", bridge.language_projection) if has_map else nn.Linear(inner.hidden_size, out_dim)
        )
        self.own = Own()

    def serve(self, modality: str) -> None:
        """Queries of the modality's own, where the options ask for them."""
        if self.own_queries:
            self.own.claim(modality, lambda: _Queries(cast("Tensor", self.published)))

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Queries of every item, in order; an item sees its own rows and its own instruction only.

        Raises:
            ConfigError: a modality that was not served.
            ShapeError: not one instruction an item, where it reads them.
        """
        require_width(self, packed)
        home = cast("_Queries", self.own.of(context.modality, self)) if self.own_queries else self
        query = home.query.expand(len(packed), -1, -1)
        padded, mask = packed.padded()
        memory = {"encoder_hidden_states": padded.to(query), "encoder_attention_mask": mask.long()}
        if self.tokenizer is None:
            hidden = self.qformer(query_embeds=query, **memory).last_hidden_state
        else:
            ids, is_token = self._tokens(packed, context, query)
            seen = torch.cat([is_token.new_ones(query.shape[:2]), is_token], 1)
            hidden = self.qformer(ids, attention_mask=seen, query_embeds=query, **memory).last_hidden_state
        rows = self.map(hidden[:, : self.queries].to(query))
        return Packed(rows.flatten(0, 1), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as published queries, without place or time: every query sees the whole item."""
        return Shape(self.queries)

    def save_config(self, folder: Path) -> None:
        """Write the configuration, and the tokenizer of instructions if there is one, so that `id=folder,
        weights=False` builds the same part without the source."""
        self.source_config.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder / _TOKENIZER)

    def _tokens(self, packed: Packed, context: Context, like: Tensor) -> tuple[Tensor, Tensor]:
        """(items, N) ids of each item's instruction, and their mask."""
        texts: Sequence[str] = context.instructions
        if len(texts) != len(packed):
            raise ShapeError(
                f"HubQFormer got {len(texts)} instructions for {len(packed)} items; expected one each, empty where "
                "there is none."
            )
        assert self.tokenizer is not None
        length = self.source_config.qformer_config.max_position_embeddings
        said = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        return said["input_ids"].to(like.device), said["attention_mask"].to(like.device)


class _Queries(nn.Module):
    """What a modality has of its own in a shared Q-Former."""

    def __init__(self, published: Tensor) -> None:
        super().__init__()
        self.query = nn.Parameter(published.detach().clone())


class _Blip2Bridge(Blip2PreTrainedModel):  # type: ignore[misc, no-any-unimported]
    """The tensors of a whole BLIP-2 model that this part takes, under their published names."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        _add_ends(self, config)
        self.post_init()


class _InstructBlipBridge(InstructBlipPreTrainedModel):  # type: ignore[misc, no-any-unimported]
    """The same of a whole InstructBLIP model."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.qformer = InstructBlipQFormerModel._from_config(config.qformer_config)
        _add_ends(self, config)
        self.post_init()


_KINDS: dict[str, type[PreTrainedModel]] = {"blip-2": _Blip2Bridge, "instructblip": _InstructBlipBridge}


def _add_ends(bridge: PreTrainedModel, config: PretrainedConfig) -> None:
    width = config.qformer_config.hidden_size
    bridge.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
    if config.has_map:
        bridge.language_projection = nn.Linear(width, config.text_config.hidden_size)


class _PassOn(nn.Module):
    """In the place of a feed-forward that no query reads: gives its last argument back."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[-1]


def _trim(bridge: PreTrainedModel) -> None:
    """Take out what no query is made of: the text's feed-forward in the last layer, in all where no text comes in."""
    layers = list(cast("Any", bridge.qformer).encoder.layer)
    reads_text = bridge.config.model_type == "instructblip"
    for layer in layers[-1:] if reads_text else layers:
        if hasattr(layer, "intermediate"):
            layer.intermediate, layer.output = _PassOn(), _PassOn()


def _load_tokenizer(id: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The Q-Former's own tokenizer, from the folder that InstructBLIP's processor keeps it in.

    Raises:
        MissingAssetError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(
            resolve_asset(id), subfolder=_TOKENIZER, revision=revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise MissingAssetError(
            f"no tokenizer for the instructions of {id!r}: expected the folder {_TOKENIZER!r} beside its config.json. "
            "Copy it from the published model."
        ) from error
