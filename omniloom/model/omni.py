"""The composed model: any encoders, projectors, codecs and adapters around one language model.

It reads a Plan and nothing else. A forward is: embed the ids, put projected rows where the plan says, run the
backbone under the plan's masks and routes, and project only the slots that bear a label onto the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omniloom.backbone.base import Backbone
from omniloom.backbone.doors import HookedFFN
from omniloom.errors import ConfigError, FreezeError, ShapeError, did_you_mean
from omniloom.interaction.base import HookContext, Interaction, Media, Moment, Site, SlotFacts, Source
from omniloom.interaction.hooks import HookedLinear
from omniloom.model.media import FusedPath, MediaPath, added, fuse, gather, make_late
from omniloom.model.vocab import VocabRows
from omniloom.planner import ModalityRow, Planner
from omniloom.sequence import IGNORE, Auxiliary, Kind, Packed, Plan, PlannedItem, Projected, Raw, Vocabulary

__all__ = ["OmniModel", "Pass", "SlotLosses"]


@dataclass
class SlotLosses:
    """Cross-entropy of every supervised slot: `loss` (N,) float32, unweighted; `weight` (N,); `document` (N,);
    `is_code` (N,) bool. `auxiliary`: what parts and interactions add, by "COMPONENT/name"."""

    loss: Tensor
    weight: Tensor
    document: Tensor
    is_code: Tensor
    auxiliary: dict[str, Auxiliary]

    def sums(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{"text": (sum, count), "codes": (sum, count)}: weighted sums and sums of weights, divided by nobody here."""
        result = {}
        for name, chosen in (("text", ~self.is_code), ("codes", self.is_code)):
            result[name] = ((self.loss * self.weight)[chosen].sum(), self.weight[chosen].sum())
        return result

    def total(self) -> Tensor:
        """What a trainer minimises: the mean of each kind of slot there is, and each auxiliary mean by its weight."""
        means = [value / count for value, count in self.sums().values() if float(count.detach()) > 0]
        means += [
            loss.weight * loss.total / loss.count
            for loss in self.auxiliary.values()
            if loss.weight and float(loss.count) > 0
        ]
        return torch.stack([mean.float() for mean in means]).sum() if means else self.loss.sum()


@dataclass(frozen=True)
class Pass:
    """A pass over a plan: `hidden` (B, L, D); `facts`, which decoding continues; `losses` of parts and interactions."""

    hidden: Tensor
    facts: SlotFacts
    losses: dict[str, Auxiliary]


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
        adapters: Mapping[str, Interaction],
        tools: Mapping[str, Any] | None = None,
        *,
        fused: Mapping[str, tuple[str, Sequence[str]]] | None = None,
        build: Callable[..., Any] | None = None,
    ) -> None:
        """`inputs`: modality -> (encoder component, projector components); `parts`: component -> module;
        `adapters`: name -> interaction, installed here; `tools`: modality -> generator that reads the answer's text;
        `fused`: fuser -> (its component, projector components); `build`: makes the parts that interactions ask for."""
        super().__init__()
        self.backbone = backbone
        self.planner = planner
        self.parts = nn.ModuleDict(dict(parts))
        self.inputs = {name: (encoder, tuple(chain)) for name, (encoder, chain) in inputs.items()}
        self.fused = {name: (fuser, tuple(chain)) for name, (fuser, chain) in (fused or {}).items()}
        self.context = HookContext()
        self.adapters = dict(adapters)
        self.tools = dict(tools or {})
        sources = {name: self._source(name) for name in self.inputs}
        sources |= {row.name: self._fused_source(row.name) for row in planner.fusers if row.has_rows}
        site = Site(backbone, backbone.inner_width, planner.modalities, sources, self.context, build or _no_builder)
        for name, adapter in self.adapters.items():
            for wanted in adapter.inputs:
                if wanted not in sources:
                    raise ConfigError(f"adapter {name!r} reads {wanted!r}.{did_you_mean(wanted, sources)}")
            adapter.install(name, site)
        self.requires_grad_(False)

    def _source(self, modality: str) -> Source:
        path = self._path(modality)
        encoder = path.encoder[1]
        last: Any = path.chain[-1][1] if path.chain else encoder
        return Source(encoder.out_dim, dict(encoder.tap_dims), encoder.pooled_dim, last.out_dim)

    def _fused_source(self, name: str) -> Source:
        path = self._fused_path(name)
        fuser = path.fuser[1]
        last: Any = path.chain[-1][1] if path.chain else fuser
        return Source(fuser.out_dim, {}, None, last.out_dim)

    def _path(self, modality: str) -> MediaPath:
        encoder, chain = self.inputs[modality]
        parts: Any = self.parts
        return MediaPath((encoder, parts[encoder]), [(name, parts[name]) for name in chain])

    def _fused_path(self, name: str) -> FusedPath:
        fuser, chain = self.fused[name]
        parts: Any = self.parts
        return FusedPath((fuser, parts[fuser]), [(link, parts[link]) for link in chain])

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
        """Component -> its parameters and saved buffers by their own names: those of the language model are the stock
        model's, whatever adapters stand around its layers."""
        result: dict[str, dict[str, nn.Parameter | Tensor]] = {"backbone": {}, **{name: {} for name in self.adapters}}
        hooked = {path for path, part in self.backbone.named_modules() if isinstance(part, (HookedLinear, HookedFFN))}
        for long, value in _state(self.backbone):
            steps = long.split(".")
            kept = [step for at, step in enumerate(steps) if step != "base" or ".".join(steps[:at]) not in hooked]
            name = ".".join(kept)
            owner = next((adapter for adapter in self.adapters if f".adapters.{adapter}." in f".{name}"), "backbone")
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
        for adapter in self.adapters:
            if any(name.startswith(f"{adapter}.") for name in chosen):
                for name, module in self.backbone.named_modules():
                    if f".{name}".endswith(f".adapters.{adapter}"):
                        module.train()
        return chosen

    # -- forward ----------------------------------------------------------------------------------------------

    def forward(self, plan: Plan) -> Tensor:
        """(B, L, D) hidden states of every slot."""
        return self.hidden(plan)

    def hidden(self, plan: Plan, *, cache: Any = None) -> Tensor:
        """(B, L, D) hidden states of every slot; with `cache`, keys and values are kept."""
        return self.run(plan, cache=cache).hidden

    def run(self, plan: Plan, *, cache: Any = None) -> Pass:
        """A whole pass: media to rows, rows into slots, interactions prepared, the language model run."""
        media, losses = self.media(plan)
        embeds = self._spliced(plan, media)
        moment = Moment(plan, embeds, media)
        sides = {name: adapter.prepare(moment) for name, adapter in self.adapters.items()}
        slot = torch.arange(plan.shape[1], device=embeds.device).expand(plan.shape)
        facts = SlotFacts(plan.route, plan.document, slot, sides=sides)
        self.context.losses.clear()
        with self.context.of(facts):
            hidden = self.backbone(embeds, plan, cache=cache).hidden
        return Pass(hidden, facts, losses | self.context.losses)

    def media(self, plan: Plan) -> tuple[dict[str, Media], dict[str, Auxiliary]]:
        """Items by modality, encoded and projected, and by fuser what was fused of them, with slots or without."""
        media: dict[str, Media] = {}
        losses: dict[str, Auxiliary] = {}
        for modality in self.inputs:
            items = [item for item in plan.items if item.modality == modality and item.role != "out"]
            if items:
                media[modality], found = self._gathered(modality, items, _labels_of(plan, items))
                losses = added(losses, found)
        single, table = dict(media), self.backbone.embedding_table() if self.fused else None
        for name in self.fused:
            if table is not None and any(item.modality == name for item in plan.items):
                fused, found = fuse(name, self._fused_path(name), plan, single, embedding=table, say=self.say)
                losses = added(losses, found)
                if fused is not None:
                    media[name] = fused
        return media, losses

    def project(self, modality: str, items: Sequence[PlannedItem]) -> Packed:
        """Rows of the backbone's width for items of one modality, as the plan's slots expect them.

        Raises:
            ShapeError: a part gave another number of rows than planned; splicing them would shift every later slot.
        """
        return self._gathered(modality, items, [0] * len(items))[0].projected

    def project_late(self, modality: str, raw: Raw | Packed, *, instruction: str = "", answer: int = 0) -> Projected:
        """Projected rows of an item whose number only the parts know, before it is planned.

        `raw`: its raw tensor, or rows of the encoder; `instruction`, `answer`: as in `Context`.
        """
        path = self.rows[modality].input
        assert path is not None
        return make_late(
            modality,
            self._path(modality),
            raw,
            raw.shapes[0] if isinstance(raw, Packed) else path.encoded(raw),
            instruction=instruction,
            answer=answer,
            device=self.device,
            embedding=self.backbone.embedding_table(),
            say=self.say,
        )

    def say(self, text: str) -> Tensor:
        """(N, D) the language model's embeddings of a text's tokens; nothing learns through them."""
        ids = torch.tensor([self.planner.text_ids(text)], dtype=torch.long, device=self.device)
        return self.backbone.embed(ids)[0].detach()

    def embed(self, plan: Plan) -> Tensor:
        """(B, L, D): token embeddings, code embeddings and projected rows, each where the plan says."""
        return self._spliced(plan, self.media(plan)[0])

    def _gathered(
        self, modality: str, items: Sequence[PlannedItem], answers: Sequence[int]
    ) -> tuple[Media, dict[str, Auxiliary]]:
        return gather(
            modality,
            self._path(modality),
            items,
            answers=answers,
            device=self.device,
            embedding=self.backbone.embedding_table(),
            say=self.say,
        )

    def _spliced(self, plan: Plan, media: Mapping[str, Media]) -> Tensor:
        """The embeddings of a plan with rows of media and of fusers in their slots."""
        embeds = self.embed_ids(plan.ids)
        for modality, given in media.items():
            seen = [number for number, item in enumerate(given.items) if item.role == "in"]
            if seen:
                rows = list(given.projected.items())
                embeds = self._put(embeds, plan, modality, torch.cat([rows[number] for number in seen]))
        return embeds

    def _put(self, embeds: Tensor, plan: Plan, modality: str, rows: Tensor) -> Tensor:
        if rows.shape[1] != self.backbone.width:
            raise ShapeError(
                f"rows of {modality!r} are {rows.shape[1]} wide, the language model takes {self.backbone.width}. "
                "End its projectors at that width, or leave its slots to a fuser."
            )
        here = (plan.kind == int(Kind.MEDIA)) & (plan.modality == plan.modalities.index(modality))
        return embeds.index_put((here,), rows.to(embeds.dtype)[plan.source[here]])

    def embed_ids(self, ids: Tensor) -> Tensor:
        """(B, L) ids of the whole vocabulary -> (B, L, D)."""
        base = self.vocabulary.base_size
        embeds = self.backbone.embed(ids.clamp(max=base - 1))
        if self.vocab is not None:
            extended = ids >= base
            if bool(extended.any()):
                embeds = embeds.index_put((extended,), self.vocab.embed(ids[extended]).to(embeds.dtype))
        return embeds

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
        done = self.run(plan)
        hidden = done.hidden
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
            done.losses,
        )

    def loss(self, plan: Plan) -> dict[str, tuple[Tensor, Tensor]]:
        """{"text": (sum, count), "codes": (sum, count)} of a batch."""
        return self.losses(plan).sums()


def _labels_of(plan: Plan, items: Sequence[PlannedItem]) -> list[int]:
    """How many labels the document of each item bears; an item without slots stands before the slot of its start."""
    last = plan.shape[1] - 1
    documents = [int(plan.document[item.row, min(item.start, last)]) for item in items]
    return [int(((plan.document == document) & (plan.label != IGNORE)).sum()) for document in documents]


def _no_builder(*args: Any, **options: Any) -> Any:
    raise ConfigError("this model was put together by hand, without a builder of parts; use compose().")


def _state(module: nn.Module) -> Iterator[tuple[str, nn.Parameter | Tensor]]:
    """Parameters, each once under its first name (tied weights share one), and persistent buffers."""
    yield from module.named_parameters()
    saved = module.state_dict(keep_vars=True)
    for name, buffer in module.named_buffers():
        if name in saved:
            yield name, buffer
