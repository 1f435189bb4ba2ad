"""States of a run: complete, verified, or not there."""

from __future__ import annotations

import json

import pytest
import torch

from omniloom.errors import CheckpointError, TrainingError
from omniloom.train.state import Progress, StateFolder, run_lock
from tests.train.runs import run_file, stage, train_and_kill


def progress(step: int) -> Progress:
    return Progress("d", 1, step, 10 * step, 0.5, ("a", "b"))


def saved(folder, steps):
    states = StateFolder(folder)
    for step in steps:
        states.save(progress(step), {"w": torch.full((2,), float(step))}, {"m": torch.tensor([step])})
    return states


def test_the_newest_state_comes_back_as_it_was(tmp_path):
    found, weights, moments = saved(tmp_path, [1, 2, 3]).newest()
    assert found == progress(3) and weights["w"].tolist() == [3, 3] and moments["m"].tolist() == [3]


def test_only_two_states_are_kept(tmp_path):
    saved(tmp_path, range(5))
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["00000003", "00000004"]


def test_nothing_saved_is_no_state(tmp_path):
    assert StateFolder(tmp_path).newest() is None


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "progress.json", "manifest.json"])
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_state_that_does_not_verify_gives_way_to_the_one_before(tmp_path, name, how):
    states = saved(tmp_path, [1, 2])
    path = tmp_path / "state" / "00000001" / name
    if how == "missing":
        path.unlink()
    elif name == "manifest.json":
        path.write_text(json.dumps({"weights.safetensors": "0"}))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert states.newest()[0] == progress(1)


def test_states_of_which_none_verifies_are_an_error_and_not_a_fresh_start(tmp_path):
    states = saved(tmp_path, [1, 2])
    for path in (tmp_path / "state").glob("*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 states"):
        states.newest()


def test_drafts_of_a_killed_process_are_removed_and_never_read(tmp_path):
    states = saved(tmp_path, [1])
    (tmp_path / "state" / "00000009.unfinished-ab").mkdir()
    assert states.newest()[0] == progress(1)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["00000000"]


def test_a_run_folder_is_held_by_one_and_free_again_after_an_error(tmp_path):
    with run_lock(tmp_path), pytest.raises(TrainingError, match="another process trains"), run_lock(tmp_path):
        pass
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    with run_lock(tmp_path):
        pass


def test_two_processes_do_not_train_in_one_folder(tiny):
    out, file = tiny / "held", run_file(tiny, "held", stages=[stage()])
    with run_lock(out), pytest.raises(AssertionError, match="training ended with 1"):
        train_and_kill(file, out)
    assert sorted(path.name for path in out.iterdir()) == ["lock"]
