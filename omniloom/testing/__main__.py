"""`python -m omniloom.testing FILE`: hold a modality file, or the modalities of a run file, to the laws.

Exit status 0: every law is kept; 1: a law is broken; 2: the file cannot be tried at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging as transformers_logging

from omniloom.config import load_run
from omniloom.errors import OmniloomError
from omniloom.testing.conformance import ConformanceFailure, ConformanceReport, check_modality

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit as a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m omniloom.testing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", help="a modality file (.py), an installed modality's name, or a run file (.yaml)")
    parser.add_argument("--modality", action="append", help="of a run file: this one only (may be repeated)")
    parser.add_argument(
        "--example", action="append", help="a recording to try it on, two or more; without: made-up ones"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    try:
        reports = [_tried(given, name) for name in _names(given)]
    except OmniloomError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n\n".join(map(str, reports)))
    return 0 if all(report.is_kept for report in reports) else 1


def _names(given: argparse.Namespace) -> list[str | None]:
    if not given.file.endswith((".yaml", ".yml")):
        return [None]
    return list(given.modality or load_run(given.file).config.modalities)


def _tried(given: argparse.Namespace, name: str | None) -> ConformanceReport:
    try:
        if name is None:
            return check_modality(given.file, examples=given.example, seed=given.seed)
        run = load_run(given.file)
        if name not in run.config.modalities:
            raise run.error(("modalities",), f"the run has no modality {name!r}.")
        row, base = run.config.modalities[name], Path(run.base_folder)
        return check_modality(row, examples=given.example, name=name, run=run.config, base=base, seed=given.seed)
    except ConformanceFailure as failure:
        return failure.report


if __name__ == "__main__":
    sys.exit(main())
