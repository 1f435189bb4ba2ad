"""The projector that the docs show: short, lawful, and it trains."""

from __future__ import annotations

from pathlib import Path

import torch

from omniloom.config import check_parts, load_run
from omniloom.projectors import Context
from omniloom.registry import build
from omniloom.sequence import Packed
from omniloom.testing import check_projector

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "projector"
SPEC = {"type": "weighted_mean.py:WeightedMean", "tokens": 2}


def test_a_new_projector_is_one_file_of_at_most_forty_lines():
    assert len((EXAMPLE / "weighted_mean.py").read_text().splitlines()) <= 40


def test_it_keeps_every_law():
    report = check_projector(build("projectors", SPEC, 12, 8, base=EXAMPLE))
    assert "declared rows are produced rows" in str(report)


def test_its_rows_are_weighted_means():
    part = build("projectors", SPEC, 3, 4, base=EXAMPLE)
    rows = torch.randn(5, 3)
    with torch.no_grad():
        weights = (rows @ part.score.weight.T).softmax(0)
        expected = torch.stack([(weights[:, [token]] * rows).sum(0) for token in range(2)])
        torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part.map(expected))


def test_the_run_beside_it_is_sound():
    assert check_parts(load_run(EXAMPLE / "run.yaml")) == []
