"""Tiny runs to train: a folder with a language model and data, run files with a stage or two, processes to kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import yaml

from omniloom.checkpoint import read_manifest
from omniloom.config import load_run
from omniloom.data import FeatureCache
from omniloom.data.pipeline import Pipeline
from omniloom.model import compose
from omniloom.train import open_sources, train
from omniloom.train.stage import Stage, Trainer

MOODY = """
import torch
from omniloom.encoders.series_conv import SeriesConv


class Moody(SeriesConv):
    '''Draws noise and keeps running statistics: both must come back after a kill.'''

    def __init__(self, *, channels: int = 2, width: int = 32) -> None:
        super().__init__(channels=channels, width=width)
        self.statistics = torch.nn.BatchNorm1d(channels)

    def forward(self, raws):
        normal = self.statistics(torch.cat(list(raws))).split([len(raw) for raw in raws])
        noise = 0.1 * torch.rand(1) if self.training else 0.0
        return super().forward([raw + noise for raw in normal])
"""

_DATA = {"things": 4.0, "drawings": 1.0}
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["omniloom.train", "omniloom.testing.tiny_run"])


def run_file(folder: Path, name: str = "run", **changes: object) -> Path:
    """The tiny run of a folder under another name, with some keys replaced."""
    values = yaml.safe_load((folder / "run.yaml").read_text())
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))
    return path


def moody_rows(folder: Path) -> dict:
    """The tiny run's modalities, with an encoder of a part file that draws noise and keeps running statistics."""
    (folder / "moody.py").write_text(MOODY)
    rows = yaml.safe_load((folder / "run.yaml").read_text())["modalities"]
    rows["motion"]["in"]["encoder"] = {"type": "moody.py:Moody"}
    return rows


def stage(**changes: object) -> dict:
    """A stage of the tiny run."""
    return {
        "name": "only",
        "train": ["*/projector*", "vocab"],
        "data": dict(_DATA),
        "steps": 4,
        "batch": 5,
        "lr": 0.003,
        **changes,
    }


def trainer_of(folder: Path, *, cache: bool = False, **changes: object) -> Trainer:
    """A trainer of a stage on a fresh model."""
    loaded = load_run(run_file(folder, "trainer", stages=[stage(**changes)]))
    model = compose(loaded.config, base=folder)
    sources = open_sources(loaded.config, folder, list(loaded.config.stages[0].data))
    pipeline = Pipeline(model, cache=FeatureCache(folder / "cache") if cache else None)
    return Trainer(model, Stage(loaded.config.stages[0], sources, loaded.config.seed), pipeline)


def steps_of(run: Path) -> list[tuple[str, int]]:
    """(stage, step) of every line of the metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["stage"], line["step"]) for line in lines if "loss" in line]


def losses_of(run: Path) -> list[float]:
    """The loss of every step, in order."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def digests_of(run: Path) -> dict[str, str]:
    """Component -> digest of its weights."""
    return {name: facts["digest"] for name, facts in read_manifest(run)["components"].items()}


def _train_and_die(path: str, out: str, moment: int) -> None:
    left = [moment]
    sync = os.fsync

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = fsync
    train(path, out=out)


def train_and_kill(path: Path, out: Path, *, at_write: int = 0, after_s: float | None = None) -> bool:
    """Train in a process of its own and kill it without warning, at its n-th write to the disk or after some seconds.

    Returns whether it was killed before it ended.
    """
    process = _PROCESSES.Process(target=_train_and_die, args=(str(path), str(out), at_write))
    process.start()
    process.join(after_s)
    if after_s is not None and process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"training ended with {process.exitcode}"
    return process.exitcode == -signal.SIGKILL
