"""Laws of the composed model that no modality's own file can break: the proofs notice when the model does."""

from __future__ import annotations

import pytest
import torch

from omniloom.config import load_run
from omniloom.testing import made_payloads, tiny_language_model
from omniloom.testing.model_laws import BESIDE, ModelLaws
from omniloom.testing.report import LawBrokenError, Ledger
from omniloom.train.resolve import settle

RUN = """\
name: laws
threads: 1
backbone: {id: ./language-model}
modalities:
  sensor:
    payload: series
    in: {processor: series, encoder: {type: series_conv, channels: 2, width: 16, heads: 2}}
  beside:
    payload: series
    in:
      processor: {type: series, length: 8}
      encoder: {type: series_conv, channels: 1, width: 16, stride: 4, heads: 2}
"""


@pytest.fixture
def laws(tmp_path):
    tiny_language_model(tmp_path / "language-model")
    (tmp_path / "run.yaml").write_text(RUN)
    loaded = load_run(tmp_path / "run.yaml")
    payloads = next(made_payloads("series", channels=(2,)))
    made = ModelLaws(settle(loaded, tmp_path / "run"), tmp_path / "run", "sensor", "beside", payloads)
    made._runs()
    return made


def test_the_row_beside_is_the_one_of_the_kit(laws):
    assert laws.config.modalities["beside"].in_.encoder == BESIDE["in"]["encoder"]


def test_a_model_that_changes_when_the_modality_is_added_is_noticed(laws):
    with torch.no_grad():
        laws.model.backbone.lm.model.norm.weight.mul_(1.001)
    with pytest.raises(LawBrokenError, match="other logits when this modality was added"):
        laws._without()


def test_gradients_that_leak_into_the_language_model_are_noticed(laws, monkeypatch):
    chosen = laws.model.train_only

    def leaking(globs):
        found = chosen(globs)
        laws.model.backbone.requires_grad_(True)
        return found

    monkeypatch.setattr(laws.model, "train_only", leaking)
    with pytest.raises(LawBrokenError, match="gradients also reached backbone"):
        laws._gradients()


def test_a_proof_that_raises_is_a_broken_law_with_the_error_in_it():
    ledger = Ledger("part")
    assert not ledger.prove("it divides", lambda: str(1 // 0), remedy="do not divide by zero")
    assert ledger._results[0].seen == "raised ZeroDivisionError: integer division or modulo by zero"
