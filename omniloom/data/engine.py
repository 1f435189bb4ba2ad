"""Samples in, answers out: the one way from a conversation to a reply, for evaluation, prediction and chat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from omniloom.data.cache import FeatureCache
from omniloom.data.pipeline import Pipeline
from omniloom.errors import ConfigError, did_you_mean
from omniloom.model import OmniModel, Reply, Sampling, generate
from omniloom.sequence import Item, Sample

__all__ = ["Engine"]


class Engine:
    """Answers for one model. `batch`: prompts that run together, at most. `cache`: where rows of encoders are kept, all
    of which are frozen here; None makes them anew."""

    def __init__(self, model: OmniModel, *, batch: int = 16, cache: FeatureCache | None = None) -> None:
        self.model = model
        self.batch = batch
        self.pipeline = Pipeline(model, cache=cache)
        if cache is not None:
            self.pipeline.freeze(model.components())

    @property
    def outputs(self) -> dict[str, str]:
        """Modality -> how it comes out: "codes" for a learned output, "tool" for one made from the answer's text."""
        learned = {name: "codes" for name, row in self.model.rows.items() if row.output is not None}
        return learned | {name: "tool" for name in self.model.tools}

    def answer(
        self,
        samples: Sequence[Sample],
        sampling: Sampling | None = None,
        *,
        speak: Sequence[str] = (),
        root: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """One reply per sample, in order; a sample's own last answer, if it has one, is left out of the prompt.

        `speak`: text-based outputs that are made from each reply's text. `root`: where paths of media start, and
        what they may not leave.

        Raises:
            ConfigError: an output that the model does not have. MediaError, DataError, PlanError: as planning says.
        """
        for name in speak:
            if name not in self.model.tools:
                raise ConfigError(f"the model has no text-based output {name!r}.{did_you_mean(name, self.model.tools)}")
        prompts = [self.pipeline.prepare(sample.prompt(), root=root) for sample in samples]
        plans = self.pipeline.plans(prompts, ask=True)
        replies = generate(self.model, plans, sampling, batch=self.batch, progress=progress)
        return [self._spoken(reply, speak) for reply in replies] if speak else replies

    def _spoken(self, reply: Reply, speak: Sequence[str]) -> Reply:
        if not reply.text.strip():
            return reply
        said = tuple(Item(name, self.model.tools[name].render(reply.text), role="out") for name in speak)
        return replace(reply, parts=reply.parts + said)
