"""The proof: what the quickstart's recipe reaches with more data and time, beside what it must be compared with.

    python benchmarks/proof.py [--out runs] [--figures docs/proof.json] [--threads N]

Trains and evaluates two recipes (`proof`: every input alone, in trained and in never trained words, with blind and
permuted media; `proof_match`: two modalities in one prompt), fits scikit-learn's logistic regression on the same splits
and on what the encoders are given, holds the figures to the bars below and writes them. An hour at most on two cores;
an interrupted run goes on.

The regression sees the output of each modality's processor, brought to one length: pictures and series flattened, mel
frames averaged into 16 windows, points as counts in a 6 x 6 x 6 grid with the means of their features.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from omniloom.config import load_run
from omniloom.data import load_media, open_source
from omniloom.eval import read_results, table
from omniloom.eval.judge import label_of
from omniloom.files import write_whole
from omniloom.registry import build
from omniloom.starter.quickstart import run

INPUTS = ("image", "speech", "music", "imu", "points")


def vector(kind: str, raw: torch.Tensor) -> np.ndarray:
    """One processor's output as a vector of fixed length."""
    if kind == "audio":
        return F.adaptive_avg_pool1d(raw.T[None], 16)[0].flatten().numpy()
    if kind == "points":
        cells = ((raw[:, :3].clamp(-1, 0.999) + 1) * 3).long()
        counts = torch.bincount(cells[:, 0] * 36 + cells[:, 1] * 6 + cells[:, 2], minlength=216).float()
        return torch.cat([counts, raw[:, 3:].mean(0), raw[:, 3:].abs().mean(0)]).numpy()
    return raw.flatten().numpy()


def features(
    config: Any, modality: str, source_name: str, base: Path, limit: int | None
) -> tuple[np.ndarray, list[str], list[str]]:
    """(vectors, labels, groups) of a source; the same evenly spaced items that the evaluation takes."""
    row = config.modalities[modality]
    processor = build("processors", row.in_.processor)
    source = open_source(config.data[source_name], base)
    count = len(source)
    taken = min(limit or count, count)
    vectors, labels, groups = [], [], []
    for index in sorted({position * count // taken for position in range(taken)}):
        sample = load_media(source[index], {modality: row.payload}, root=source.media_root)
        payload = next(item.payload for _, item in sample.items())
        vectors.append(vector(row.payload, processor(payload)))
        labels.append(label_of(sample))
        groups.append(sample.group or sample.id)
    return np.stack(vectors), labels, groups


def regression(config: Any, modality: str, base: Path, limit: int | None) -> float:
    """Held-out accuracy of logistic regression, C by cross-validation that keeps groups together."""
    x, y, groups = features(config, modality, f"{modality}_train", base, None)
    x_test, y_test, _ = features(config, modality, f"{modality}_test", base, limit)
    folds = list(GroupKFold(3).split(x, y, groups))
    model = LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 5),
        cv=folds,
        max_iter=400,
        l1_ratios=(0.0,),
        scoring="accuracy",
        use_legacy_attributes=False,
    )
    return float(make_pipeline(StandardScaler(), model).fit(x, y).score(x_test, y_test))


def tell(event: dict[str, Any]) -> None:
    """A line for what matters, to follow a run of an hour."""
    if event["event"] == "step" and event["step"] % 50 == 0:
        print(f"{event['stage']} {event['step']}/{event['steps']} loss {event['loss']:.3f}", flush=True)
    elif event["event"] in ("stage", "note", "saved", "phases"):
        print(event, flush=True)


def bars(single: Any, match: Any, regressions: dict[str, float]) -> dict[str, bool]:
    """What must hold, by name."""
    held: dict[str, bool] = {}
    for name in INPUTS:
        task = single.tasks[name]
        held[f"{name}: n of 300 or more"] = task.n >= 300
        held[f"{name}: above its chance interval"] = task.above_chance
        held[f"{name}: at least 80 % of logistic regression"] = task.score >= 0.8 * regressions[name]
        held[f"{name}: new words keep 80 %"] = single.tasks[f"{name}_paraphrase"].score >= 0.8 * task.score
    for name in ("image", "speech"):
        task = single.tasks[name]
        held[f"{name}: at least 60 % on ten or more classes"] = task.score >= 0.6 and task.chance.k >= 10
    drawn = single.tasks["digit"]
    held["digit: drawn as asked, and not where another was asked"] = (
        drawn.above_chance and drawn.shuffled.score <= drawn.shuffled.band99.high
    )
    task = match.tasks["match"]
    held["match: lower end above 60 %"] = task.interval95.low > 0.6
    for name, probe in {"permuted": task.permuted, "blind": task.blind, **task.alone}.items():
        held[f"match: {name} inside its 99 % interval around 50 %"] = (
            probe.band99.low <= probe.score <= probe.band99.high
        )
    return held


def main() -> int:
    """Run everything; exit 1 if a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--figures", type=Path, default=Path("docs/proof.json"))
    parser.add_argument("--threads", type=int, default=None, help="of torch; every core by default")
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    results = {}
    for recipe in ("proof", "proof_match"):
        started = time.perf_counter()
        folder = run(arguments.out / recipe, recipe=recipe, threads=arguments.threads, tell=tell)
        seconds[recipe] = time.perf_counter() - started
        results[recipe] = read_results(folder / "eval" / "results.json")
        print(table(results[recipe]), flush=True)
    started = time.perf_counter()
    config = load_run("proof").config
    regressions = {name: regression(config, name, Path.cwd(), config.evaluation[name].limit) for name in INPUTS}
    seconds["logistic regression"] = time.perf_counter() - started
    held = bars(results["proof"], results["proof_match"], regressions)
    figures = {
        "machine": {"threads": torch.get_num_threads(), "system": platform.machine(), "torch": torch.__version__},
        "seconds": {name: round(value) for name, value in seconds.items()},
        "logistic_regression": {name: round(value, 4) for name, value in regressions.items()},
        "tasks": {
            recipe: {
                name: {key: value for key, value in asdict(task).items() if key not in ("items", "confusion")}
                for name, task in result.tasks.items()
            }
            for recipe, result in results.items()
        },
        "bars": held,
    }
    write_whole(arguments.figures, json.dumps(figures, indent=1) + "\n")
    for name, is_held in held.items():
        print(f"{'held  ' if is_held else 'MISSED'}  {name}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
