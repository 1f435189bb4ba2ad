"""The composed model: any encoders, projectors, codecs and adapters around one language model.

It reads a Plan and nothing else. A forward is: embed the ids, put projected rows where the plan says, run the
backbone under the plan's masks and routes, and project only the slots that bear a label onto the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omniloom.backbone.base import Backbone
from omniloom.encoders.base import Encoder
from omniloom.errors import FreezeError, PlanError, ShapeError, did_you_mean
from omniloom.interaction.hooks import HookContext
from omniloom.model.vocab import VocabRows
from omniloom.planner import ModalityRow, Planner
from omniloom.projectors.base import Context, Projector
from omniloom.sequence import IGNORE, Kind, Packed, Plan, PlannedItem, Vocabulary

__all__ = ["OmniModel", "SlotLosses"]


@dataclass
class SlotLosses:
    """Cross-entropy of every supervised slot: `loss` (N,) float32, unweighted; `weight` (N,); `document` (N,);
    `is_code` (N,) bool."""

    loss: Tensor
    weight: Tensor
    document: Tensor
    is_code: Tensor

    def sums(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{"text": (sum, count), "codes": (sum, count)}: weighted sums and sums of weights, divided by nobody here."""
        result = {}
        for name, chosen in (("text", ~self.is_code), ("codes", self.is_code)):
            result[name] = ((self.loss * self.weight)[chosen].sum(), self.weight[chosen].sum())
        return result


class OmniModel(nn.Module):
    """Backbone, parts by component name, and the table of modalities that wires them.

    Components are named "backbone", "MODALITY/encoder", "MODALITY/projector", "MODALITY/codec", "vocab", the name of
    an adapter set, or the name a shared part was given; parameters are "COMPONENT.parameter".
    """

    def __init__(
        self,
        backbone: Backbone,
        planner: Planner,
        inputs: Mapping[str, tuple[str, Sequence[str]]],
        parts: Mapping[str, nn.Module],
        adapters: Mapping[str, Any],
        tools: Mapping[str, Any] | None = None,
    ) -> None:
        """`inputs`: modality -> (encoder component, projector components); `parts`: component -> module;
        `adapters`: name -> adapter set, installed here; `tools`: modality -> generator that reads the answer's text."""
        super().__init__()
        self.backbone = backbone
        self.planner = planner
        self.parts = nn.ModuleDict(dict(parts))
        self.inputs = {name: (encoder, tuple(chain)) for name, (encoder, chain) in inputs.items()}
        self.context = HookContext()
        self.adapters = dict(adapters)
        self.tools = dict(tools or {})
        for name, adapter in self.adapters.items():
            adapter.install(name, backbone, planner.modalities, self.context)
        self.requires_grad_(False)

    # -- table ------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> Mapping[str, ModalityRow]:
        """The table of modalities."""
        return self.planner.rows

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the language model and of every code block."""
        return self.planner.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the backbone's weights are."""
        return next(self.backbone.parameters()).device

    @property
    def vocab(self) -> VocabRows | None:
        """The rows of the extended vocabulary; None without a learned output by codes."""
        return self.parts["vocab"] if "vocab" in self.parts else None  # type: ignore[return-value]

    # -- components and parameters ----------------------------------------------------------------------------

    def components(self) -> dict[str, dict[str, nn.Parameter | Tensor]]:
        """Component -> its parameters and saved buffers by their own names."""
        result: dict[str, dict[str, nn.Parameter | Tensor]] = {"backbone": {}, **{name: {} for name in self.adapters}}
        for name, value in _state(self.backbone):
            owner = next((adapter for adapter in self.adapters if f".adapters.{adapter}." in name), "backbone")
            result[owner][name] = value
        for component, part in self.parts.items():
            result[component] = dict(_state(part))
        return result

    def named_component_parameters(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """(component, "component.parameter", parameter) of every parameter."""
        for component, values in self.components().items():
            for name, value in values.items():
                if isinstance(value, nn.Parameter):
                    yield component, f"{component}.{name}", value

    def select(self, globs: Sequence[str]) -> dict[str, nn.Parameter]:
        """The parameters that globs over component or parameter names choose.

        Raises:
            FreezeError: a glob matches nothing; silence would leave a part untrained.
        """
        everything = list(self.named_component_parameters())
        chosen: dict[str, nn.Parameter] = {}
        for glob in globs:
            found = {
                name: value
                for component, name, value in everything
                if fnmatchcase(component, glob) or fnmatchcase(name, glob)
            }
            if not found:
                known = {component for component, _, _ in everything}
                raise FreezeError(f"the selector {glob!r} matches no parameter.{did_you_mean(glob, known)}")
            chosen |= found
        return chosen

    def train_only(self, globs: Sequence[str]) -> dict[str, nn.Parameter]:
        """Make exactly the selected parameters trainable; whatever trains nothing runs in eval mode.

        Returns the trainable parameters by name.
        """
        chosen = self.select(globs)
        self.requires_grad_(False)
        self.eval()
        for value in chosen.values():
            value.requires_grad_(True)
        for component, part in self.parts.items():
            if any(name.startswith(f"{component}.") for name in chosen):
                part.train()
        return chosen

    # -- forward ----------------------------------------------------------------------------------------------

    def forward(self, plan: Plan) -> Tensor:
        """(B, L, D) hidden states of every slot."""
        return self.hidden(plan)

    def hidden(self, plan: Plan, *, cache: Any = None) -> Tensor:
        """(B, L, D) hidden states of every slot; with `cache`, keys and values are kept."""
        embeds = self.embed(plan)
        with self.context.of(plan.route):
            return self.backbone(embeds, plan, cache=cache).hidden

    def embed(self, plan: Plan) -> Tensor:
        """(B, L, D): token embeddings, code embeddings and projected rows, each where the plan says."""
        embeds = self.embed_ids(plan.ids)
        media = plan.kind == int(Kind.MEDIA)
        for index, modality in enumerate(plan.modalities):
            items = plan.items_of(modality)
            if items:
                rows = self.project(modality, items)
                here = media & (plan.modality == index)
                embeds = embeds.index_put((here,), rows.x.to(embeds.dtype)[plan.source[here]])
        return embeds

    def embed_ids(self, ids: Tensor) -> Tensor:
        """(B, L) ids of the whole vocabulary -> (B, L, D)."""
        base = self.vocabulary.base_size
        embeds = self.backbone.embed(ids.clamp(max=base - 1))
        if self.vocab is not None:
            extended = ids >= base
            if bool(extended.any()):
                embeds = embeds.index_put((extended,), self.vocab.embed(ids[extended]).to(embeds.dtype))
        return embeds

    def encode(self, modality: str, items: Sequence[PlannedItem]) -> Packed:
        """Encoder rows of items: cached ones as they are, the others through the encoder, in order."""
        encoder: Encoder = self.parts[self.inputs[modality][0]]  # type: ignore[assignment]
        fresh = [item.raw for item in items if item.features is None and item.raw is not None]
        if len(fresh) + sum(item.features is not None for item in items) != len(items):
            raise PlanError(f"an item of {modality!r} has neither a raw tensor nor cached rows.")
        trains = torch.is_grad_enabled() and any(value.requires_grad for value in encoder.parameters())
        with torch.set_grad_enabled(trains):
            made = iter(encoder([raw.to(self.device) for raw in fresh]).items()) if fresh else iter(())
        dtype = next((value.dtype for value in encoder.parameters()), torch.float32)
        rows = [next(made) if item.features is None else item.features.to(self.device, dtype) for item in items]
        shapes = []
        for item, row in zip(items, rows, strict=True):
            if item.encoded is None or row.shape[0] != item.encoded.len:
                expected = None if item.encoded is None else item.encoded.len
                raise ShapeError(
                    f"the encoder of {modality!r} gave {row.shape[0]} rows for sample {item.sample!r}, "
                    f"its out_shape() says {expected}."
                )
            shapes.append(item.encoded)
        return Packed.of(rows, shapes)

    def project(self, modality: str, items: Sequence[PlannedItem]) -> Packed:
        """Rows of the backbone's width for items of one modality, as the plan's slots expect them.

        Raises:
            ShapeError: a part gave another number of rows than planned; splicing them would shift every later slot.
        """
        packed = self.encode(modality, items)
        context = Context(self.planner.modalities.index(modality), self.backbone.embedding_table())
        for name in self.inputs[modality][1]:
            part: Projector = self.parts[name]  # type: ignore[assignment]
            packed = part(packed, context)
        rows, shapes = [], []
        for item, row, shape in zip(items, packed.items(), packed.shapes, strict=True):
            if row.shape != (item.rows, self.backbone.width):
                raise ShapeError(
                    f"the projector of {modality!r} gave {tuple(row.shape)} for sample {item.sample!r}; "
                    f"the plan expects ({item.rows}, {self.backbone.width}). Its out_shape() and forward() disagree."
                )
            rows.append(row if item.keep is None else row[list(item.keep)])
            shapes.append(shape if item.keep is None else replace(shape, len=len(item.keep), grid=None, times=None))
        return Packed.of(rows, shapes)

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, D) hidden states -> (N, vocabulary) logits; without code blocks, the language model's own."""
        base = self.backbone.logits(hidden)
        if self.vocab is None:
            return base
        codes = self.vocab.logits(hidden)
        dtype = torch.promote_types(base.dtype, codes.dtype)
        return torch.cat([base.to(dtype), codes.to(dtype)], dim=-1)

    def losses(self, plan: Plan) -> SlotLosses:
        """Cross-entropy at the supervised slots, and only there."""
        hidden = self.hidden(plan)
        chosen = plan.label.flatten() != IGNORE
        # Flatten, select, then project: a slice of (B, L, D) would make the head copy its own weight.
        logits = self.logits(hidden.reshape(-1, hidden.shape[-1])[chosen])
        label = plan.label.flatten()[chosen]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, label, reduction="none")
        return SlotLosses(
            loss,
            plan.weight.flatten()[chosen].to(loss.dtype),
            plan.document.flatten()[chosen],
            label >= self.vocabulary.base_size,
        )

    def loss(self, plan: Plan) -> dict[str, tuple[Tensor, Tensor]]:
        """{"text": (sum, count), "codes": (sum, count)} of a batch."""
        return self.losses(plan).sums()


def _state(module: nn.Module) -> Iterator[tuple[str, nn.Parameter | Tensor]]:
    """Parameters, each once under its first name (tied weights share one), and persistent buffers."""
    yield from module.named_parameters()
    saved = module.state_dict(keep_vars=True)
    for name, buffer in module.named_buffers():
        if name in saved:
            yield name, buffer
