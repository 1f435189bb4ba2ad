"""From a run file to a resolved run: everything that could differ the next time is measured or copied once.

Threads are counted, the type of weights is chosen, minutes become steps, part files are copied into the run folder, and
paths start from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from omniloom.backbone.stock import fast_dtype
from omniloom.config import LoadedRun, RunConfig, relocated
from omniloom.data.pipeline import Pipeline
from omniloom.data.sources import Source
from omniloom.errors import ConfigError, TrainingError
from omniloom.files import write_whole
from omniloom.model import OmniModel
from omniloom.train.stage import Stage, Trainer

__all__ = ["calibrate", "pin_threads", "settle"]

_TRIALS = 3


def settle(loaded: LoadedRun, folder: Path) -> RunConfig:
    """The run as it stands in its own folder: paths start there, part files are copied to `parts/`, threads counted.

    Raises:
        ConfigError: two part files of one name; rename one of them.
        TrainingError: a part file is not the one that the run in this folder began with.
    """
    config = relocated(loaded.config, loaded.base_folder, folder)
    values = config.model_dump(mode="json", by_alias=True)
    values["threads"] = config.threads or os.cpu_count() or 1
    if config.backbone.dtype == "auto":
        values["backbone"]["dtype"] = fast_dtype()
    copied: dict[str, Path] = {}

    def brought(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item if key == "system" else brought(item) for key, item in value.items()}
        if isinstance(value, list):
            return [brought(item) for item in value]
        if not isinstance(value, str) or ".py:" not in value or "\n" in value:
            return value
        file, _, name = value.rpartition(":")
        source = (folder / file).resolve()
        if copied.setdefault(source.name, source) != source:
            raise ConfigError(
                f"two part files are named {source.name}: {copied[source.name]} and {source}. Rename one."
            )
        return f"parts/{source.name}:{name}"

    for room in ("backbone", "adapters", "components", "context", "fusers", "modalities"):
        values[room] = brought(values[room])
    for row in values["data"].values():
        row["type"] = brought(row["type"])
    for name, source in copied.items():
        target = folder / "parts" / name
        if not target.exists():
            write_whole(target, source.read_bytes())
        elif target.read_bytes() != source.read_bytes():
            raise TrainingError(
                f"the part file {name} has changed since the run in {folder} began. "
                "Choose another --out, or start it anew with --fresh."
            )
    return RunConfig.model_validate(values)


def pin_threads(threads: int) -> None:
    """As many threads as the resolved run says, and deterministic kernels: the same run gives the same bytes."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def calibrate(
    config: RunConfig,
    model: OmniModel,
    sources: Mapping[str, Source],
    pipeline: Pipeline,
    tell: Callable[[str], None],
) -> RunConfig:
    """Turn the minutes of every stage into steps, from the time of a few steps that update nothing."""
    stages = []
    for stage in config.stages:
        if stage.minutes is None:
            stages.append(stage)
            continue
        trial = stage.model_copy(update={"steps": _TRIALS, "minutes": None})
        buffers = {name: value.clone() for name, value in model.parts.named_buffers()}
        trainer = Trainer(model, Stage(trial, {name: sources[name] for name in stage.data}, config.seed), pipeline)
        seconds = []
        for step in range(_TRIALS):
            started = time.perf_counter()
            trainer.backward(step)
            seconds.append(time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
        for name, value in model.parts.named_buffers():
            value.copy_(buffers[name])  # running statistics, which the trial moved
        # The first step also warms caches and kernels; the slower of the others leaves room for the optimizer.
        steps = max(1, int(stage.minutes * 60 / (max(seconds[1:]) * 1.05)))
        tell(f"stage {stage.name}: {stage.minutes:g} minutes are {steps} steps of {max(seconds[1:]):.2f} s")
        stages.append(stage.model_copy(update={"steps": steps, "minutes": None}))
    return config.model_copy(update={"stages": stages})
