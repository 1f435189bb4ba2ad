"""`python -m omniloom.testing`: the kit as a command."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from omniloom.cli.scaffolding import PayloadKind, new_modality
from omniloom.testing.__main__ import main


@pytest.fixture
def sensor(tmp_path):
    """A modality file, as `omniloom new modality` writes it."""
    new_modality("touch", PayloadKind.SERIES, tmp_path / "touch.py")
    return tmp_path / "touch.py"


def test_a_sound_file_ends_with_status_0_and_its_table(sensor, capsys):
    assert main([str(sensor)]) == 0
    assert capsys.readouterr().out.startswith("touch: 27 laws kept, 0 broken\n")


def test_examples_are_read_through_the_media_gateway(sensor, tmp_path, capsys):
    for steps in (12, 30):
        np.save(tmp_path / f"{steps}.npy", np.random.default_rng(steps).normal(0, 1, (steps, 6)).astype(np.float32))
    arguments = [str(sensor), "--example", str(tmp_path / "12.npy"), "--example", str(tmp_path / "30.npy")]
    assert main(arguments) == 0
    assert "2 examples of its author" in capsys.readouterr().out


def test_a_broken_file_ends_with_status_1_and_says_what_to_do(sensor, capsys):
    sensor.write_text(sensor.read_text().replace("-(-shape.len // self.stride)", "shape.len"))
    assert main([str(sensor)]) == 1
    told = capsys.readouterr().out
    assert "BROKEN  encoder: declared rows are produced rows" in told and "what to do: compute the same number" in told


def test_a_file_that_is_not_there_ends_with_status_2(tmp_path, capsys):
    assert main([str(tmp_path / "nothing.py")]) == 2
    assert "there is no modality file" in capsys.readouterr().err


def test_a_run_file_is_tried_row_by_row(sensor, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "name: r\nbackbone: {id: org/lm}\nmodalities:\n  touch: {use: ./touch.py}\n"
        "  other: {payload: points, in: {processor: points, encoder: {type: point_net, width: 16}}}\n"
    )
    assert main([str(tmp_path / "run.yaml")]) == 0
    told = capsys.readouterr().out
    assert "touch: 27 laws kept" in told and "other: 27 laws kept" in told
    assert main([str(tmp_path / "run.yaml"), "--modality", "other"]) == 0
    assert "touch" not in capsys.readouterr().out
    assert main([str(tmp_path / "run.yaml"), "--modality", "smell"]) == 2


@pytest.mark.parametrize("kind", list(PayloadKind), ids=str)
def test_every_skeleton_of_omniloom_new_keeps_every_law(tmp_path, kind, capsys):
    new_modality("mine", kind, tmp_path / "mine.py")
    assert main([str(tmp_path / "mine.py")]) == 0, capsys.readouterr().out


def test_importing_the_room_loads_neither_torch_nor_transformers():
    code = "import sys, omniloom.testing; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
