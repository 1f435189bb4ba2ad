"""Whole runs: stages in order, minutes once, events told, folders finished."""

from __future__ import annotations

import pytest
import torch
import yaml

from omniloom.checkpoint import load_model, read_manifest
from omniloom.checkpoint.tensors import digest_of
from omniloom.config import load_run
from omniloom.errors import CheckpointError, ConfigError, TrainingError
from omniloom.model import compose
from omniloom.train import open_sources, train
from tests.train.runs import digests_of, moody_rows, run_file, stage, steps_of


@pytest.mark.parametrize(("found", "dtype"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
def test_the_type_of_weights_is_chosen_by_the_machine_once_and_written_down(tiny, monkeypatch, found, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    file = run_file(
        tiny, f"auto-{dtype}", stages=[stage(steps=1)], backbone={"id": "./language-model", "dtype": "auto"}
    )
    out = train(file, out=tiny / f"auto-{dtype}")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {}, raising=False)
    model, config = load_model(out)
    assert config.backbone.dtype == dtype and model.backbone.lm.dtype == getattr(torch, dtype)


def test_stages_train_exactly_what_they_declare_one_after_another(tiny):
    stages = [
        stage(name="one", train=["image/encoder"], steps=2, batch=10),
        stage(name="two", of="drawing/codec", train=["drawing/codec"], steps=2, batch=10),
        stage(name="three", train=["lora", "vocab"], steps=2, batch=10, lr={"lora": 0.01, "*": 0.001}),
    ]
    file = run_file(tiny, "declared", stages=stages)
    events = []
    out = train(file, out=tiny / "declared", tell=events.append)
    assert steps_of(out) == [(name, step) for name in ("one", "two", "three") for step in range(2)]
    fresh = compose(load_run(out).config, base=out)
    before = {name: digest_of(values) for name, values in fresh.components().items() if values}
    after = digests_of(out)
    assert {name for name in after if after[name] != before[name]} == {
        "image/encoder",
        "drawing/codec",
        "lora",
        "vocab",
    }
    told = {event["stage"]: event["parameters"] for event in events if event["event"] == "stage"}
    parameters = {name: facts["parameters"] for name, facts in read_manifest(out)["components"].items()}
    assert told == {
        "one": parameters["image/encoder"],
        "two": parameters["drawing/codec"],
        "three": parameters["lora"] + parameters["vocab"],
    }


def test_a_finished_run_is_returned_as_it_is(trained):
    notes = []
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file() and path.name != "lock"}
    assert train(trained.parent / "run.yaml", out=trained, tell=notes.append) == trained
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [note["event"] for note in notes] == ["note"] and "trained already" in notes[0]["text"]


def test_a_fresh_start_trains_again(tiny):
    file = run_file(tiny, "fresh", stages=[stage(steps=1)])
    out = train(file, out=tiny / "fresh")
    first = digests_of(out)
    (out / "mine.txt").write_text("x")
    assert digests_of(train(file, out=out, fresh=True)) == first and not (out / "mine.txt").exists()


def test_minutes_become_steps_once_and_stand_in_the_resolved_run(tiny):
    """The encoder keeps running statistics: measuring must not move them."""
    timed = stage(train=["motion/*", "vocab"], steps=None, minutes=0.003)
    file = run_file(tiny, "minutes", stages=[timed], modalities=moody_rows(tiny))
    notes = []
    out = train(file, out=tiny / "minutes", tell=lambda event: notes.append(event.get("text", "")))
    resolved = load_run(out).config.stages[0]
    assert resolved.minutes is None and resolved.steps == len(steps_of(out)) >= 1
    assert f"0.003 minutes are {resolved.steps} steps" in notes[0]
    stages = yaml.safe_load((out / "run.yaml").read_text())["stages"]
    again = run_file(tiny, "steps", stages=stages, modalities=moody_rows(tiny))
    assert digests_of(train(again, out=tiny / "steps")) == digests_of(out)


def test_the_run_folder_tells_the_run_whole(trained):
    config = load_run(trained).config
    assert config.threads == 1 and config.backbone.id == "../language-model"
    assert set(open_sources(config, trained)) == set(config.data) >= {"things"}
    model, loaded = load_model(trained)
    assert loaded == config and set(model.components()) >= {"lora", "vocab"}


@pytest.mark.parametrize("event", ["stage", "step", "sample", "saved"])
def test_what_happens_is_told(tiny, event):
    file = run_file(tiny, "told", stages=[stage(steps=2, sample_every=1)])
    events = []
    train(file, out=tiny / f"told-{event}", tell=events.append)
    found = [item for item in events if item["event"] == event]
    assert len(found) == {"stage": 1, "step": 2, "sample": 4, "saved": 1}[event]


def test_a_task_over_what_is_trained_on_is_told_of(tiny):
    file = run_file(tiny, "known", stages=[stage(steps=1)], evaluation={"things": {"data": "things"}})
    events: list[dict] = []
    train(file, out=tiny / "known", tell=events.append)
    assert [event["text"] for event in events if "asks what was trained on" in event.get("text", "")]


def test_a_run_without_stages_is_refused(tiny):
    with pytest.raises(ConfigError, match="no `stages` to train and no `init`"):
        train(run_file(tiny, "nothing", stages=[]), out=tiny / "nothing")


def test_settings_on_the_command_line_are_part_of_the_run(tiny):
    file = run_file(tiny, "sets", stages=[stage(steps=2)])
    out = train(file, out=tiny / "sets", sets=["stages.only.steps=1"])
    assert steps_of(out) == [("only", 0)]
    with pytest.raises(TrainingError, match="other settings"):
        train(file, out=out)


def test_a_call_that_failed_before_its_first_step_leaves_the_folder_free(tiny):
    wrong = run_file(tiny, "wrong", stages=[stage(steps=1)], init={"image/*": "./nowhere"})
    with pytest.raises(CheckpointError, match="is no run folder"):
        train(wrong, out=tiny / "again")
    assert (tiny / "again" / "request.yaml").is_file()
    out = train(run_file(tiny, "wrong", stages=[stage(steps=1)]), out=tiny / "again")
    assert steps_of(out) == [("only", 0)]
    # So does one that failed by its part file, which was mended since.
    rows = yaml.safe_load((tiny / "run.yaml").read_text())["modalities"]
    rows["image"]["in"]["projector"] = [{"type": "broken.py:Mine"}]
    (tiny / "broken.py").write_text("from omniloom.projectors.dense import MLP\nclass Mine(MLP):\n    depth = 1 / 0\n")
    file = run_file(tiny, "broken", modalities=rows, stages=[stage(steps=1)])
    with pytest.raises(Exception, match="division by zero"):
        train(file, out=tiny / "mended")
    (tiny / "broken.py").write_text("from omniloom.projectors.dense import MLP\nclass Mine(MLP):\n    pass\n")
    assert steps_of(train(file, out=tiny / "mended")) == [("only", 0)]


def test_two_part_files_of_one_name_are_refused(tiny):
    rows = yaml.safe_load((tiny / "run.yaml").read_text())["modalities"]
    code = "from omniloom.projectors.dense import MLP\nclass Mine(MLP):\n    pass\n"
    for name, folder in (("image", "a"), ("sound", "b")):
        (tiny / folder).mkdir(exist_ok=True)
        (tiny / folder / "mine.py").write_text(code)
        rows[name]["in"]["projector"] = [{"type": f"./{folder}/mine.py:Mine"}]
    with pytest.raises(ConfigError, match=r"two part files are named mine.py"):
        train(run_file(tiny, "twice", modalities=rows, stages=[stage(steps=1)]), out=tiny / "twice")
