"""Five projectors at 1, 4 and 16 slots on the same cached rows, data, steps and seed: one table.

    python benchmarks/projectors.py [--out runs/projectors] [--figures docs/projectors.json] [--threads N] [--steps N]

The recipe `projectors` with its projector exchanged: linear and MLP over pooled rows, Q-Former, Perceiver, a mixture of
experts. Rows of the frozen encoders are computed once and shared; each projector trains in a process of its own, so
that its time and memory are its own. An interrupted call goes on where it stopped. An hour at most on two cores:
`total_s` of the figures is the time of everything, over all calls.

`train_s` is that of the stage, warm start included; memory is the most its process held; parameters are those of one
projector of the image. `score` has its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omniloom.config import load_run
from omniloom.data import FeatureCache
from omniloom.data.pipeline import Pipeline
from omniloom.eval import read_results
from omniloom.files import write_whole
from omniloom.model import compose
from omniloom.train import open_sources, train

SLOTS = (1, 4, 16)
PROJECTORS: dict[str, Any] = {
    "linear": lambda slots: [{"type": "pool", "tokens": slots}, "linear"],
    "mlp": lambda slots: [{"type": "pool", "tokens": slots}, "mlp"],
    "qformer": lambda slots: {"type": "qformer", "queries": slots},
    "perceiver": lambda slots: {"type": "perceiver", "latents": slots},
    "soft_moe": lambda slots: {"type": "soft_moe", "queries": slots, "depth": 1},
}


def settings(name: str, slots: int, arguments: argparse.Namespace) -> list[str]:
    """What the run of one projector sets over the recipe."""
    spec = json.dumps(PROJECTORS[name](slots))
    sets = [f"modalities.{modality}.in.projector={spec}" for modality in ("image", "speech")]
    sets += [f"name={name}-{slots}", f"threads={arguments.threads}", f"cache={(arguments.out / 'cache').resolve()}"]
    return [*sets, f"stages.0.steps={arguments.steps}"] if arguments.steps else sets


@contextmanager
def clocked(out: Path, name: str) -> Iterator[None]:
    """Add the seconds that this takes to those of earlier, interrupted calls, in `seconds.json`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        spent = seconds_of(out)
        spent[name] = round(spent.get(name, 0.0) + time.perf_counter() - started, 1)
        write_whole(out / "seconds.json", json.dumps(spent, indent=1))


def seconds_of(out: Path) -> dict[str, float]:
    """What each thing took so far."""
    file = out / "seconds.json"
    spent: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    return spent


def fill(arguments: argparse.Namespace) -> None:
    """Encode every item once, for all runs."""
    started = time.perf_counter()
    torch.set_num_threads(arguments.threads)
    config = load_run("projectors", sets=settings("linear", 1, arguments)).config
    model = compose(config, base=Path.cwd())
    pipeline = Pipeline(model, cache=FeatureCache(arguments.out / "cache"))
    pipeline.freeze(model.components())
    for name, source in open_sources(config, Path.cwd()).items():
        for index in range(len(source)):
            pipeline.plans([pipeline.prepare(source[index], root=source.media_root)])
        print(f"encoded {name}: {len(source)} items, {time.perf_counter() - started:.0f} s", flush=True)


def one(name: str, slots: int, arguments: argparse.Namespace) -> None:
    """Train and evaluate one projector; this process does nothing else."""
    from omniloom.eval.run import evaluate

    folder = arguments.out / f"{name}-{slots}"
    train(load_run("projectors", sets=settings(name, slots, arguments)), out=folder)
    evaluate(folder)


def figures_of(name: str, slots: int, folder: Path) -> dict[str, Any]:
    """One row of the table, read from the run's folder."""
    results = read_results(folder / "eval" / "results.json")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())["components"]
    own = [facts["parameters"] for part, facts in manifest.items() if part.startswith("image/projector")]
    return {
        "projector": name,
        "slots": slots,
        "parameters": sum(own),
        "train_s": round(max(record.get("elapsed_s", 0.0) for record in records), 1),
        "memory_gb": round(max(record.get("mem_gb", 0.0) for record in records), 2),
        **{
            task: {
                "score": round(result.score, 4),
                "interval95": [round(result.interval95.low, 4), round(result.interval95.high, 4)],
                "n": result.n,
                "chance": round(result.chance.value, 4),
            }
            for task, result in results.tasks.items()
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| projector | slots | clothes (95 %) | spoken words (95 %) | parameters | seconds | GB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        scores = [
            f"{100 * row[task]['score']:.1f} % ({100 * row[task]['interval95'][0]:.1f}-"
            f"{100 * row[task]['interval95'][1]:.1f})"
            for task in ("image", "speech")
        ]
        lines.append(
            f"| {row['projector']} | {row['slots']} | {scores[0]} | {scores[1]} | {row['parameters']:,} | "
            f"{row['train_s']:.0f} | {row['memory_gb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Everything that is not there yet, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/projectors"))
    parser.add_argument("--figures", type=Path, default=Path("docs/projectors.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; every core by default")
    parser.add_argument("--steps", type=int, default=0, help="fewer steps than the recipe's, to try it")
    parser.add_argument("--one", nargs=2, metavar=("PROJECTOR", "SLOTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    encoded = arguments.out / "encoded"
    if not encoded.is_file():
        with clocked(arguments.out, "encode"):
            fill(arguments)
        encoded.touch()
    rows = []
    for slots in SLOTS:
        for name in PROJECTORS:
            folder = arguments.out / f"{name}-{slots}"
            if not (folder / "eval" / "results.json").is_file() or folder.name not in seconds_of(arguments.out):
                same = [f"--{key}={getattr(arguments, key)}" for key in ("out", "threads", "steps")]
                with clocked(arguments.out, folder.name):
                    subprocess.run([sys.executable, __file__, *same, "--one", name, str(slots)], check=True)
            rows.append(figures_of(name, slots, folder))
            print(table(rows).splitlines()[-1], flush=True)
    machine = {"threads": arguments.threads, "system": platform.machine(), "torch": torch.__version__}
    spent = seconds_of(arguments.out)
    figures = {"machine": machine, "encode_s": spent["encode"], "total_s": round(sum(spent.values()), 1), "rows": rows}
    write_whole(arguments.figures, json.dumps(figures, indent=1) + "\n")
    print(table(rows))
    print(f"{sum(spent.values()) / 60:.0f} minutes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
