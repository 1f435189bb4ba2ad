"""The decode loop: prompts in plans, answers out, in batches sorted by length, over transformers' Cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from omniloom.backbone.base import CacheView
from omniloom.errors import ConfigError, PlanError
from omniloom.generators import CodeOutput, TokenStream
from omniloom.model.omni import OmniModel
from omniloom.sequence import Item, Plan, Text

__all__ = ["Reply", "Sampling", "generate"]


@dataclass(frozen=True)
class Sampling:
    """How the next id is chosen. `temperature` 0 takes the most likely one; otherwise ids are drawn with `seed`.

    `max_new`: slots an answer may fill. `outputs`: modalities the answer may hold beside text; None allows every
    learned one. `required`: the answer must begin with this output.
    """

    max_new: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    outputs: frozenset[str] | None = None
    required: str | None = None

    def __post_init__(self) -> None:
        if self.max_new < 1 or not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                f"sampling needs max_new >= 1, temperature >= 0, 0 < top_p <= 1 and top_k >= 0; got {self.max_new}, "
                f"{self.temperature}, {self.top_p}, {self.top_k}."
            )

    def warpers(self) -> LogitsProcessorList:
        """transformers' processors of the drawn distribution; empty for the greedy choice."""
        warpers = LogitsProcessorList()
        if self.temperature > 0:
            warpers.append(TemperatureLogitsWarper(self.temperature))
            if self.top_k:
                warpers.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                warpers.append(TopPLogitsWarper(self.top_p))
        return warpers


@dataclass(frozen=True)
class Reply:
    """`parts`: what was said, in reading order. `ids`: every chosen id. `finish`: "stop" or "length"."""

    parts: tuple[Text | Item, ...]
    ids: tuple[int, ...]
    finish: str

    @property
    def text(self) -> str:
        """All text of the reply."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@torch.inference_mode()
def generate(
    model: OmniModel,
    plans: Sequence[Plan],
    sampling: Sampling | None = None,
    *,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Answer every prompt (a plan made with `ask=True`), in the order given.

    Prompts of like length run together. A row's draw depends on `seed` and its place in `plans` alone.
    """
    sampling = sampling or Sampling()
    outputs = _outputs(model)
    for name in filter(None, [sampling.required, *(sampling.outputs or ())]):
        if name not in outputs:
            raise PlanError(f"the model has no learned output {name!r}; it has: {', '.join(outputs) or 'text only'}.")
    order = sorted(range(len(plans)), key=lambda index: plans[index].shape[1])
    replies: dict[int, Reply] = {}
    for chosen in _batches(order, [plan.shape[1] for plan in plans], batch, mixed=model.backbone.is_maskable):
        streams = _run(model, [plans[index] for index in chosen], chosen, sampling, outputs)
        for index, (stream, ids) in zip(chosen, streams, strict=True):
            replies[index] = _reply(model, stream, ids, outputs)
        if progress is not None:
            progress(len(chosen))
    return [replies[index] for index in range(len(plans))]


def _batches(order: Sequence[int], lengths: Sequence[int], size: int, *, mixed: bool) -> Iterator[list[int]]:
    """At most `size` of `order` at a time; unless `mixed`, all of one length."""
    chosen: list[int] = []
    for index in order:
        if len(chosen) == size or (chosen and not mixed and lengths[index] != lengths[chosen[0]]):
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen


def _outputs(model: OmniModel) -> dict[str, CodeOutput]:
    outputs = {}
    for name, row in model.rows.items():
        if row.output is not None:
            shape = row.output.codec.code_shape()
            if shape is None:
                raise PlanError(f"the codec of {name!r} has no fixed code shape, so its answers have no length.")
            outputs[name] = CodeOutput(row.output.block, row.output.layout, shape, row.output.codec.decode)
    return outputs


def _run(
    model: OmniModel, plans: Sequence[Plan], numbers: Sequence[int], sampling: Sampling, outputs: dict[str, CodeOutput]
) -> list[tuple[TokenStream, list[int]]]:
    plan = Plan.stack(plans).to(model.device)
    stop = model.planner.template.stop
    streams = [TokenStream(model.vocabulary, outputs, stop, sampling.outputs, sampling.required) for _ in plans]
    chosen: list[list[int]] = [[] for _ in plans]
    draws = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + number) for number in numbers]
    warpers = sampling.warpers()
    cache = model.backbone.new_cache()
    done = model.run(plan, cache=cache)
    hidden, facts = done.hidden, done.facts
    lengths = plan.lengths
    last = hidden[torch.arange(len(plans), device=hidden.device), lengths - 1]
    view = CacheView(cache, ~plan.is_padding, plan.next_position)
    for count in range(sampling.max_new):
        logits = model.logits(last)
        tokens = [_choose(logits[row], stream, warpers, draws[row]) for row, stream in enumerate(streams)]
        for row, (stream, token) in enumerate(zip(streams, tokens, strict=True)):
            if not stream.is_done:
                chosen[row].append(token)
                stream.push(token)
        if all(stream.is_done for stream in streams) or count == sampling.max_new - 1:
            break
        ids = torch.tensor(tokens, device=model.device)[:, None]
        routes = [[stream.route_of(token, plan.modalities)] for stream, token in zip(streams, tokens, strict=True)]
        facts = facts.step(torch.tensor(routes, device=model.device), lengths - 1 + count)
        with model.context.of(facts):
            last = model.backbone.step(model.embed_ids(ids), view)
    return list(zip(streams, chosen, strict=True))


def _choose(logits: Tensor, stream: TokenStream, warpers: LogitsProcessorList, draw: torch.Generator) -> int:
    if stream.needs_mask:
        logits = stream.allow(logits)
    if not warpers:
        return int(logits.argmax())
    none_yet: Any = torch.zeros(1, 0, dtype=torch.long)  # the warpers used look at no earlier id
    scores: Any = logits[None].float().cpu()
    warped = warpers(none_yet, scores)[0]
    return int(torch.multinomial(warped.softmax(-1), 1, generator=draw))


def _reply(model: OmniModel, stream: TokenStream, ids: list[int], outputs: dict[str, CodeOutput]) -> Reply:
    parts: list[Text | Item] = []
    for kind, tokens in stream.parts:
        if kind == "text":
            parts.append(Text(model.planner.decode(tokens)))
        elif len(tokens) == outputs[kind].layout.length(outputs[kind].shape):
            output = outputs[kind]
            parts.append(Item(kind, output.decode(output.layout.read(tokens, output.shape)), role="out"))
    return Reply(tuple(parts), tuple(ids), stream.finish)
