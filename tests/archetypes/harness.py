"""Published systems in small: the real parts, wired as in the paper, around a random language model.

An archetype is a run and the questions it is asked. Items of one question share the prompt and differ in the answer, so
only the media tell what to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers import T5ForConditionalGeneration

from omniloom.backbone.base import CacheView
from omniloom.config import RunConfig, check_parts, load_run
from omniloom.config.rules import part_places
from omniloom.config.table import ModalityConfig
from omniloom.data.pipeline import Pipeline
from omniloom.model import OmniModel, compose
from omniloom.sequence import IGNORE, Item, Kind, Plan, Sample, Text, Turn
from omniloom.testing.doubles import tiny_encoder_decoder, tiny_language_model, tiny_tokenizer
from tests.archetypes.payloads import payload_of

ANSWERS = "abc"
# Nothing but marks of turns: role names would cost slots, byte by byte, and no system is told apart by them.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)


def language_model(folder: Path) -> None:
    """A tiny random Llama."""
    tiny_language_model(folder)
    save_tokenizer(folder)


@torch.no_grad()
def encoder_decoder(folder: Path) -> None:
    """A tiny random T5. Its last norm is as large as training makes it: with a new one no answer can be likely."""
    tiny_encoder_decoder(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    model.decoder.final_layer_norm.weight.fill_(4.0)
    model.save_pretrained(folder)


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with the shortest of templates."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Archetype:
    """A published system in small.

    `source`: the system and its paper. `run`: keys of a run file beside its name and backbone. `asks`: for each
    question the modalities of its items. `forms`: modality -> how its payloads look (see `payload_of`). `models`: name
    of a folder beside the run -> what writes a tiny published model into it. `train`: globs; none: all but the
    backbone. `backbone`: writes another language model into the folder it is given. `options`: of the backbone in the
    run. `unmoved`: globs over parameters that training cannot reach, with the reason beside them. `is_clip`: the items
    of a question are of one recording.
    """

    name: str
    source: str
    run: Mapping[str, Any]
    asks: Sequence[tuple[str, ...]]
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)
    train: Sequence[str] = ()
    steps: int = 150
    lr: float = 1e-2
    backbone: Callable[[Path], Any] = language_model
    options: Mapping[str, Any] = field(default_factory=dict)
    unmoved: Sequence[str] = ()
    is_clip: bool = False

    def parts(self) -> set[tuple[str, str]]:
        """(room, name) of every part it uses, those that parts are made of included."""
        values = {"name": "x", "backbone": {"id": "./language-model", **self.options}, **self.run}
        found: set[tuple[str, str]] = set()
        for _, room, spec in part_places(RunConfig.model_validate(values)):
            found |= set(_parts_of(room, spec))
        return found

    def written(self, folder: Path) -> RunConfig:
        """The language model, the tiny models and the run in a folder."""
        torch.manual_seed(0)
        self.backbone(folder / "language-model")
        for name, write in self.models.items():
            (folder / name).mkdir()
            write(folder / name)
        values = {
            "name": self.name.lower().replace(" ", "-"),
            "threads": 1,
            "backbone": {"id": "./language-model", **self.options},
            **self.run,
        }
        # Markers cost slots as well.
        values["modalities"] = {name: {"markers": ["", ""], **row} for name, row in self.run["modalities"].items()}
        (folder / "run.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        loaded = load_run(folder / "run.yaml")
        wrong = check_parts(loaded)
        assert not wrong, wrong
        return loaded.config

    def samples(self, config: RunConfig) -> list[Sample]:
        """Three of each question; an item's payload tells the answer by its number alone."""
        found = []
        for number, modalities in enumerate(self.asks):
            for index, answer in enumerate(ANSWERS):
                items = tuple(self._item(name, config.modalities[name], index) for name in modalities)
                turns = (Turn("user", (*items, Text("?"))), Turn("assistant", (Text(answer),)))
                found.append(Sample(f"{number}-{index}", turns))
        return found

    def _item(self, name: str, row: ModalityConfig, index: int) -> Item:
        """Encoded, or as codes where there is no input."""
        payload = payload_of(row.payload, index, **self.forms.get(name, {}))
        role: Literal["in", "out"] = "out" if row.in_ is None and row.split is None else "in"
        return Item(name, payload, role=role, clip="clip" if self.is_clip else None)


def _parts_of(room: str, spec: Any) -> Iterator[tuple[str, str]]:
    """Parts named in a spec; a list or mapping inside it may name more of the same room."""
    if isinstance(spec, str):
        yield room, spec
    elif isinstance(spec, Mapping) and isinstance(spec.get("type"), str):
        yield room, spec["type"]
        for key, value in spec.items():
            inner = {"projector": "projectors", "projectors": "projectors", "encoders": "encoders"}.get(key)
            inner = inner or {"processors": "processors"}.get(key)
            for item in value if isinstance(value, list) else [value]:
                if inner is not None:
                    yield from _parts_of(inner, item)


class Trial:
    """An archetype composed in a folder, with its samples prepared."""

    def __init__(self, archetype: Archetype, folder: Path) -> None:
        self.archetype, self.folder = archetype, folder
        self.config = archetype.written(folder)
        self.model: OmniModel = compose(self.config, base=folder)
        self.pipeline = Pipeline(self.model)
        self.samples = archetype.samples(self.config)

    def plans(self, samples: Sequence[Sample] | None = None, *, ask: bool = False) -> list[Plan]:
        """One plan a sample; questions only with `ask`."""
        chosen = self.samples if samples is None else samples
        prompts = [sample.prompt() if ask else sample for sample in chosen]
        return self.pipeline.plans([self.pipeline.prepare(sample) for sample in prompts], ask=ask)

    def permuted(self) -> list[Sample]:
        """Every sample with the media of the next one of its question, and its own answer."""
        count = len(ANSWERS)
        found = []
        for at, sample in enumerate(self.samples):
            other = self.samples[at - at % count + (at + 1) % count]
            found.append(replace(sample, turns=(other.turns[0], sample.turns[1])))
        return found

    def globs(self) -> list[str]:
        """What trains."""
        if self.archetype.train:
            return list(self.archetype.train)
        components = {component for component, _, _ in self.model.named_component_parameters()}
        return sorted(components - {"backbone"})

    def parameters(self) -> dict[str, torch.Tensor]:
        """Copies of what trains, by name."""
        return {name: value.detach().clone() for name, value in self.model.select(self.globs()).items()}

    def batch(self, samples: Sequence[Sample] | None = None) -> Callable[[], Plan]:
        """Makes the stacked plan of some samples; anew only those with items whose rows parts must count."""
        chosen = self.samples if samples is None else samples
        late = {name for name, row in self.model.rows.items() if row.input is not None and row.input.is_late}
        anew = [at for at, sample in enumerate(chosen) if late & set(sample.modalities)]
        plans = self.plans(chosen)
        whole = Plan.stack(plans)

        def made() -> Plan:
            for at, plan in zip(anew, self.plans([chosen[at] for at in anew]), strict=True):
                plans[at] = plan
            return Plan.stack(plans) if anew else whole

        return made

    @torch.no_grad()
    def losses(self, batch: Callable[[], Plan] | None = None) -> torch.Tensor:
        """(questions,) mean loss of the tokens of each question's answers, without what parts add."""
        plan = (batch or self.batch())()
        found = self.model.losses(plan)
        question = torch.tensor([int(sample.split("-")[0]) for sample in plan.samples])[found.document]
        sums = torch.zeros(len(self.archetype.asks)).index_add(0, question, found.loss)
        return sums / question.bincount()

    def train(self) -> None:
        """The same batch again and again, until the laws of learning hold with room to spare, or the steps are over."""
        batch, permuted = self.batch(), self.batch(self.permuted())
        before = self.losses(batch)
        chosen = self.model.train_only(self.globs())
        optimizer = torch.optim.AdamW(list(chosen.values()), lr=self.archetype.lr, weight_decay=0.0, fused=True)
        for step in range(self.archetype.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.archetype.lr * min(1.0, (step + 1) / 10)
            losses = self.model.losses(batch())
            optimizer.zero_grad()
            losses.total().backward()
            torch.nn.utils.clip_grad_norm_(list(chosen.values()), 1.0)
            optimizer.step()
            if step % 10 == 9 and self._has_learned(before, batch, permuted):
                break
        # As it was composed: torch takes other kernels, and gives other last bits, for weights that ask for gradients.
        self.model.eval().requires_grad_(False)
        self.pipeline = Pipeline(self.model)

    def _has_learned(self, before: torch.Tensor, batch: Callable[[], Plan], permuted: Callable[[], Plan]) -> bool:
        self.model.eval()
        after = self.losses(batch)
        gain = before - after
        has = bool((after < 0.4 * before).all()) and bool((self.losses(permuted) - after > 0.3 * gain).all())
        self.model.train_only(self.globs())
        return has

    @torch.no_grad()
    def logits(self, plan: Plan) -> list[torch.Tensor]:
        """(slots, V) of each document, in the order of the samples."""
        logits = self.model.logits(self.model.hidden(plan))
        order = sorted(range(len(plan.samples)), key=lambda index: plan.samples[index])
        return [logits[(plan.document == index) & (plan.stream == 0)] for index in order]


def grown(plan: Plan, ids: Sequence[int]) -> Plan:
    """A plan with an answer behind it that is to be learned, as text of its last document."""
    count = len(ids)
    fills = {"modality": -1, "item": -1, "source": -1, "label": IGNORE, "span": -1, "kind": int(Kind.TEXT), "weight": 1}
    fills |= {"document": int(plan.document.max()), "segment": int(plan.segment.max()) + 1, "time_s": float("nan")}
    longer = {}
    for name, value in plan.tensors().items():
        added = torch.full((*value.shape[:-1], count), fills.get(name, 0), dtype=value.dtype)
        if name == "ids":
            added[0] = torch.tensor(ids)
        if name == "position":
            added[:] = int(plan.next_position[0]) + torch.arange(count)
        longer[name] = torch.cat([value, added], -1)
    longer["label"][0, -count - 1 : -1] = torch.tensor(ids)
    return replace(plan, **longer)


@torch.no_grad()
def cached_logits(model: OmniModel, plans: Sequence[Plan], ids: Sequence[int]) -> list[torch.Tensor]:
    """(1 + ids, V) logits of each prompt, all decoded together with a cache."""
    batch = Plan.stack(plans)
    cache = model.backbone.new_cache()
    done = model.run(batch, cache=cache)
    facts, last = done.facts, done.hidden[torch.arange(len(plans)), batch.lengths - 1]
    view = CacheView(cache, ~batch.is_padding, batch.next_position)
    seen = [model.logits(last)]
    for count, token in enumerate(ids):
        facts = facts.step(torch.zeros(len(plans), 1, dtype=torch.long), batch.lengths - 1 + count)
        with model.context.of(facts):
            last = model.backbone.step(model.embed_ids(torch.full((len(plans), 1), token)), view)
        seen.append(model.logits(last))
    return list(torch.stack(seen, 1))
