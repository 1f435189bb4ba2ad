"""One stage of training: what trains, on what mixture, for how many steps. Nothing here knows any modality.

Losses come as sums and counts and are divided once, by the count of the whole batch. The batch of a step and all its
noise are functions of (seed, stage, step): a resumed stage sees what it would have seen.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.checkpoint.tensors import digest_of
from omniloom.config import StageConfig
from omniloom.data.mixture import Mixture
from omniloom.data.pipeline import Pipeline, seed_of
from omniloom.data.sources import Source
from omniloom.errors import ConfigError, FreezeError, TrainingError
from omniloom.model import OmniModel, Sampling, generate
from omniloom.sequence import Plan, PlannedItem, Sample
from omniloom.train.optimizer import make_optimizer, set_progress

__all__ = ["Event", "Metrics", "Stage", "Trainer"]

Event = Mapping[str, Any]


class Metrics:
    """metrics.jsonl: one line per step, flushed at once; `bytes` is what is in the file."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")
        self._file.truncate(keep_bytes)
        self._file.seek(0, 2)

    @property
    def bytes(self) -> int:
        """How long the file is."""
        return self._file.tell()

    def write(self, record: Event) -> None:
        """Append one line."""
        self._file.write((json.dumps(record, sort_keys=True) + "\n").encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class Stage:
    """A stage ready to run: its configuration, its data by source name, and its place in the run."""

    config: StageConfig
    sources: Mapping[str, Source]
    seed: int

    @property
    def steps(self) -> int:
        """Steps of the resolved stage."""
        if self.config.steps is None:
            raise ConfigError(f"stage {self.config.name!r} has minutes and no steps yet; resolve the run first.")
        return self.config.steps


class Trainer:
    """Runs the steps of one stage on a model.

    On creation it selects what trains, checks the recorded count and digests what must stay as it is.

    Raises:
        FreezeError: a glob that matches nothing, or another number of parameters than recorded.
    """

    def __init__(self, model: OmniModel, stage: Stage, pipeline: Pipeline) -> None:
        self.model, self.stage, self.pipeline = model, stage, pipeline
        config = stage.config
        self.trainable = model.train_only(config.train)
        count = sum(value.numel() for value in self.trainable.values())
        if config.parameters is not None and config.parameters != count:
            raise FreezeError(
                f"stage {config.name!r} trains {count:,} parameters, its run file records {config.parameters:,}. "
                "Check `train`, or accept the new count with `omniloom show RUN --accept`."
            )
        self.trained_components = sorted({name.partition(".")[0] for name in self.trainable})
        self.frozen = {
            name: digest_of(values)
            for name, values in model.components().items()
            if values and name not in self.trained_components
        }
        pipeline.freeze(self.frozen)
        self.optimizer = make_optimizer(config, self.trainable)
        self.mixture = Mixture(stage.sources, config.data, seed=stage.seed, batch=config.batch)

    # -- steps ------------------------------------------------------------------------------------------------

    def samples(self, step: int) -> list[tuple[str, Sample]]:
        """(source, prepared sample) of the batch of a step; the first batch every time, to overfit it."""
        number = 0 if self.stage.config.overfit else step
        return self.prepared(self.mixture(self.stage.config.name, number))

    def prepared(self, picks: Sequence[tuple[str, int]]) -> list[tuple[str, Sample]]:
        """What a mixture picked, with its media decoded; ids begin with the source, since two may use the same."""
        as_codes, result = self.stage.config.of == "model", []
        for name, index in picks:
            source = self.stage.sources[name]
            picked = source[index]
            sample = replace(picked, id=f"{name}/{picked.id}")
            result.append((name, self.pipeline.prepare(sample, root=source.media_root, as_codes=as_codes)))
        return result

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step; returns its metrics.

        Raises:
            TrainingError: the loss or the gradient is not finite; the weights are as before the step.
        """
        started = time.perf_counter()
        set_progress(self.optimizer, step, self.stage.steps, self.stage.config.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.backward(step)
        norm = nn.utils.clip_grad_norm_(list(self.trainable.values()), self.stage.config.clip)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"stage {self.stage.config.name!r}, step {step}: the gradient is not finite, nothing was updated. "
                "Lower the lr, or look at the samples of this batch."
            )
        self.optimizer.step()
        elapsed = time.perf_counter() - started
        metrics["lr"] = float(self.optimizer.param_groups[0]["lr"])
        metrics["grad_norm"] = float(norm)
        metrics["step_s"] = elapsed
        if "tokens" in metrics:
            metrics["tokens_per_s"] = metrics["tokens"] / elapsed
        metrics["mem_gb"] = peak_memory_gb()
        return metrics

    def backward(self, step: int) -> dict[str, float]:
        """Forward and backward of a step's batch; returns its losses."""
        batch = self.samples(step)
        torch.manual_seed(seed_of(self.stage.seed, self.stage.config.name, step))
        if self.stage.config.of != "model":
            return self._component_backward(batch, step)
        plans = self.plans(batch, step)
        plan = self.model.planner.batch(plans, pack=self.stage.config.pack).to(self.model.device)
        losses = self.model.losses(plan)
        sums = {name: pair for name, pair in losses.sums().items() if float(pair[1]) > 0}
        if not sums:
            raise TrainingError(f"stage {self.stage.config.name!r}, step {step}: no slot of the batch bears a label.")
        total = losses.total()
        self._check_finite(total.detach(), step)
        total.backward()  # type: ignore[no-untyped-call]
        sums |= {name: (loss.total, loss.count) for name, loss in losses.auxiliary.items() if float(loss.count) > 0}
        metrics = {"loss": float(total.detach()), "tokens": float(plan.lengths.sum()), "labels": float(plan.supervised)}
        metrics |= {f"loss_{name}": float(value.detach() / count) for name, (value, count) in sums.items()}
        return metrics | self._by_source(plan, losses)

    def plans(self, batch: Sequence[tuple[str, Sample]], step: int) -> list[Plan]:
        """The plan of every sample; noise is keyed by the sample and the step, not by its place in the batch."""
        return self.pipeline.plans([sample for _, sample in batch], rngs=self._rngs(batch, step))

    def items(self, batch: Sequence[tuple[str, Sample]], step: int) -> list[list[PlannedItem]]:
        """The input items of every sample, in no slots; noise as in `plans`."""
        return self.pipeline.items([sample for _, sample in batch], rngs=self._rngs(batch, step))

    def _rngs(self, batch: Sequence[tuple[str, Sample]], step: int) -> list[torch.Generator]:
        return [
            torch.Generator().manual_seed(seed_of(self.stage.seed, self.stage.config.name, sample.id, step))
            for _, sample in batch
        ]

    def _by_source(self, plan: Plan, losses: Any) -> dict[str, float]:
        """Mean loss of every source in the batch."""
        sources = [name.partition("/")[0] for name in plan.samples]
        weighted = (losses.loss * losses.weight).detach()
        result = {}
        for source in sorted(set(sources)):
            documents = torch.tensor(
                [index for index, name in enumerate(sources) if name == source], device=plan.ids.device
            )
            here = torch.isin(losses.document, documents)
            weight = losses.weight[here].sum()
            if float(weight) > 0:
                result[f"loss/{source}"] = float(weighted[here].sum() / weight)
        return result

    def _component_backward(self, batch: Sequence[tuple[str, Sample]], step: int) -> dict[str, float]:
        """A component that trains alone: anything with `loss(payloads)`."""
        component: Any = self.model.parts[self.stage.config.of]
        payloads = [item.payload for _, sample in batch for item in self._payloads(sample)]
        if not payloads:
            raise TrainingError(
                f"stage {self.stage.config.name!r}: no item of the batch belongs to {self.stage.config.of!r}."
            )
        sums: dict[str, tuple[Tensor, Tensor]] = component.loss(payloads)
        total = sum((value / count for value, count in sums.values()), torch.zeros((), device=self.model.device))
        self._check_finite(total.detach(), step)
        total.backward()  # type: ignore[no-untyped-call]
        return {
            "loss": float(total.detach()),
            **{f"loss_{name}": float(value.detach() / count) for name, (value, count) in sums.items()},
        }

    def _payloads(self, sample: Sample) -> Iterator[Any]:
        modality = self.stage.config.of.partition("/")[0]
        return (item for _, item in sample.items() if item.modality == modality)

    def _check_finite(self, loss: Tensor, step: int) -> None:
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"stage {self.stage.config.name!r}, step {step}: the loss is {float(loss)}, nothing was updated. "
                "Lower the lr, or check the data with `omniloom check`."
            )

    # -- around the steps -------------------------------------------------------------------------------------

    def say(self, step: int, count: int = 2) -> list[dict[str, str]]:
        """The model's own answers to a few samples of the step's batch."""
        batch = [(source, sample) for source, sample in self.samples(step) if sample.answer() is not None][:count]
        self.model.eval()
        plans = self.pipeline.plans([sample.prompt() for _, sample in batch], ask=True)
        replies = generate(self.model, plans, Sampling(max_new=24))
        self.model.train_only(self.stage.config.train)
        return [
            {
                "source": source,
                "id": sample.id,
                "expected": answer.text if (answer := sample.answer()) else "",
                "answer": reply.text,
            }
            for (source, sample), reply in zip(batch, replies, strict=True)
        ]

    def finish(self) -> None:
        """Prove that everything frozen is bit-identical to what it was.

        Raises:
            FreezeError: a frozen component changed.
        """
        self.model.eval()
        for name, before in self.frozen.items():
            if digest_of(self.model.components()[name]) != before:
                raise FreezeError(f"stage {self.stage.config.name!r} changed {name!r}, which it declares frozen.")

    def run(self, first: int, after: Callable[[int, dict[str, float]], None]) -> None:
        """All steps from `first` on; `after(step, metrics)` follows each."""
        for step in range(first, self.stage.steps):
            after(step, self.step(step))
        self.finish()


def peak_memory_gb() -> float:
    """The most memory this process has held, in gigabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
