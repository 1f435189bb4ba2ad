"""A run that is killed and started again ends in the same weights as one that was not."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest
import yaml

from omniloom.checkpoint import load_model
from omniloom.errors import TrainingError
from omniloom.train import train
from tests.train.runs import MOODY, digests_of, losses_of, moody_rows, run_file, stage, steps_of, train_and_kill


@pytest.fixture(scope="module")
def path(tiny):
    """The tiny run with two stages, an encoder that draws noise, samples of answers, and a packed stage."""
    values = yaml.safe_load((tiny / "run.yaml").read_text())
    values["stages"][1] |= {"batch": 20}  # every kind of medium in every step, the one of the noisy encoder too
    values["stages"][2] |= {"pack": 160, "sample_every": 3}
    return run_file(tiny, "resumed", stages=values["stages"], modalities=moody_rows(tiny))


@pytest.fixture(scope="module")
def unbroken(path, tiny):
    """The folder of the run that nobody killed."""
    return train(path, out=tiny / "unbroken")


def finished_equal(path, out, unbroken):
    train(path, out=out)
    assert digests_of(out) == digests_of(unbroken)
    assert steps_of(out) == steps_of(unbroken) and len(set(steps_of(out))) == len(steps_of(out))
    assert losses_of(out) == losses_of(unbroken)
    assert not (out / "state").exists() and not list(out.rglob("*.unfinished-*"))


def test_killed_in_the_middle_of_writing_it_ends_in_the_same_weights(path, unbroken, tiny):
    """Each state takes thirteen writes: the moments lie in the first one, between and in later ones."""
    out = tiny / "killed-writing"
    assert [train_and_kill(path, out, at_write=moment) for moment in (9, 21, 34)] == [True] * 3
    assert (out / "state").is_dir()
    finished_equal(path, out, unbroken)


def test_killed_at_some_moment_it_ends_in_the_same_weights(path, unbroken, tiny):
    out, killed = tiny / "killed-anywhere", 0
    for seconds in (0.7, 1.0, 1.3):
        killed += train_and_kill(path, out, after_s=seconds)
    assert killed
    finished_equal(path, out, unbroken)


def test_the_same_run_gives_the_same_weights_in_another_folder(path, unbroken, tiny):
    assert digests_of(train(path, out=tiny / "again")) == digests_of(unbroken)


@pytest.mark.proof
def test_killed_while_it_saves_the_finished_model_it_ends_in_the_same_weights(path, unbroken, tiny):
    out = tiny / "killed-late"
    for moment in range(60, 160, 3):
        train_and_kill(path, out, at_write=moment)
        if (out / "manifest.json").exists():
            break
    finished_equal(path, out, unbroken)


@pytest.mark.proof
def test_killed_at_ten_random_moments_it_ends_in_the_same_weights(path, unbroken, tiny):
    """As a user would: the interpreter itself, started anew each time."""
    out, killed, draw = tiny / "killed-ten-times", 0, random.Random(time.time_ns())
    started = time.perf_counter()
    command = [
        sys.executable,
        "-c",
        f"from omniloom.train import train; train({str(path)!r}, out={str(tiny / 'timed')!r})",
    ]
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.perf_counter() - started
    command[-1] = f"from omniloom.train import train; train({str(path)!r}, out={str(out)!r})"
    moments = []
    while killed < 10:
        moments.append(draw.uniform(0.3, 1.0) * whole_s)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments[-1])
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    print(f"killed {killed} times, after {[round(moment, 2) for moment in moments]} s of {whole_s:.2f} s")
    assert killed >= 1
    finished_equal(path, out, unbroken)


# -- a folder is one run's ------------------------------------------------------------------------------------------


@pytest.fixture
def half(tiny, tmp_path_factory):
    """(run file, folder) of a run that was killed in the middle."""
    name = f"half-{time.time_ns()}"
    file = run_file(tiny, name, stages=[stage(save_every=1)])
    assert train_and_kill(file, tiny / name, at_write=44)
    return file, tiny / name


def test_other_settings_in_the_same_folder_are_refused_and_named(half, tiny):
    _, out = half
    other = run_file(tiny, "other", stages=[stage(save_every=1, lr=0.004)])
    before = sorted(item.name for item in out.rglob("*"))
    with pytest.raises(TrainingError, match=r"run of other settings \(.*lr: 0.003.*lr: 0.004.*--fresh"):
        train(other, out=out)
    assert sorted(item.name for item in out.rglob("*")) == before
    train(other, out=out, fresh=True)
    assert digests_of(out)


def test_changed_data_are_refused(half, tiny):
    file, out = half
    data = tiny / "data" / "train.jsonl"
    text = data.read_text()
    data.write_text(text.replace("Which colour?", "Which color?", 1))
    try:
        with pytest.raises(TrainingError, match=r"data of the run .* have changed"):
            train(file, out=out)
    finally:
        data.write_text(text)
    train(file, out=out)


def test_an_edited_state_is_refused(half):
    file, out = half
    resolved = out / "state" / "resolved.yaml"
    resolved.write_text(resolved.read_text() + "# mine\n")
    with pytest.raises(TrainingError, match="was edited"):
        train(file, out=out)


def test_a_damaged_state_gives_way_to_the_one_before(half):
    file, out = half
    states = sorted(item for item in (out / "state").iterdir() if item.name.isdigit())
    assert len(states) == 2
    (states[-1] / "weights.safetensors").write_bytes(b"")
    notes = []
    train(file, out=out, tell=lambda event: notes.append(event.get("text", "")))
    assert "resuming at stage 0, step 1" in notes[0]


def test_a_part_file_that_was_changed_is_refused_and_the_run_folder_stays_whole(path, unbroken):
    part = path.parent / "moody.py"
    part.write_text(MOODY + "# changed\n")
    try:
        with pytest.raises(TrainingError, match=r"part file moody.py has changed"):
            train(path, out=unbroken)
    finally:
        part.write_text(MOODY)
    load_model(unbroken, allow_code=True)
