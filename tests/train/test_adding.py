"""One more modality onto a trained run: what is new, and what happened to everything old."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from omniloom.checkpoint import load_model, read_manifest
from omniloom.config import load_run
from omniloom.errors import CheckpointError, ConfigError
from omniloom.testing import write_tiny_run
from omniloom.train import train
from omniloom.train.adding import _beginners, add_modality
from tests.encoders.tiny_models import save_tiny_model

TOUCH = '''
from omniloom.encoders.series_conv import SeriesConv


class Touch(SeriesConv):
    """A pressure pad of two channels."""

    def __init__(self, *, width: int = 32) -> None:
        super().__init__(channels=2, width=width)


MODALITY = dict(payload="series", processor="series", encoder=Touch, projector=[{"type": "pool", "tokens": 2}, "mlp"])
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a trained tiny run in `before`, a modality file and its data."""
    folder = tmp_path_factory.mktemp("home")
    train(write_tiny_run(folder, steps=2, count=6), out=folder / "before")
    (folder / "touch.py").write_text(TOUCH)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for label, sign in (("soft", -1), ("hard", 1)):
            place = folder / "pads" / split / label
            place.mkdir(parents=True)
            for index in range(count):
                values = sign * np.ones((16, 2)) + rng.normal(0, 0.1, (16, 2))
                np.save(place / f"{index}.npy", values.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def added(home):
    """The modality file added, and a digest of the old folder's files from before."""
    before = read_manifest(home / "before")
    data = {"data": home / "pads" / "train", "test": home / "pads" / "test"}
    result = add_modality(home / "before", home / "touch.py", out=home / "after-1.5", steps=3, **data)
    return result, before


def test_the_new_modality_is_trained_and_scored_beside_chance(home, added):
    result, _ = added
    assert result.modalities == ("touch",) and result.run == home / "after-1.5"
    assert set(result.new) == {"touch"} and result.new["touch"].n == 8
    assert result.minutes > 0
    model, config = load_model(home / "after-1.5", allow_code=True)
    own = [name for name in model.components() if name.startswith("touch/")]
    count = sum(value.numel() for name in own for value in model.parts[name].parameters())
    assert result.parameters == {"add_touch": count}
    assert list(config.modalities)[-1] == "touch" and [stage.name for stage in config.stages] == ["add_touch"]


def test_every_old_score_is_measured_on_the_same_items_and_stays(added):
    result, _ = added
    assert {row.task for row in result.old} == {"things", "drawn"}
    assert all(row.difference == 0 and row.only_a == row.only_b == 0 for row in result.old)


def test_what_the_old_run_computed_is_computed_still_bit_for_bit(home, added):
    result, before = added
    assert result.unchanged == {"text": True, "things": True, "drawn": True} and result.changed == []
    after = read_manifest(home / "after-1.5")
    assert all(after["components"][name]["digest"] == facts["digest"] for name, facts in before["components"].items())


def test_the_old_run_is_left_as_it_was(home, added):
    _, before = added
    now = read_manifest(home / "before")
    assert now["components"] == before["components"]
    model, _ = load_model(home / "before")
    assert "touch" not in model.rows


def test_what_came_of_it_is_written_beside_the_run(home, added):
    record = json.loads((home / "after-1.5" / "added.json").read_text())
    assert record["modalities"] == ["touch"] and record["unchanged"]["things"] is True
    assert set(record["new"]["touch"]) == {"n", "score", "interval95", "chance"}
    assert load_run(home / "after-1.5.yaml").config.init["*"].of == "./before"


def test_a_file_that_is_somebody_elses_is_not_written_over(home, added):
    (home / "mine.yaml").write_text("name: precious\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml is there already"):
        add_modality(home / "before", home / "touch.py", out=home / "mine", data=home / "pads" / "train", steps=1)
    assert (home / "mine.yaml").read_text() == "name: precious\n" and not (home / "mine").exists()


def test_a_published_encoder_stays_as_it_is(home, added):
    save_tiny_model(home / "tower", "clip")
    (home / "seen.py").write_text(
        'MODALITY = dict(payload="image", processor={"type": "hub", "id": "./tower"}, projector="mlp",\n'
        '                encoder={"type": "hub_vision", "id": "./tower"})\n'
    )
    for label, value in (("dark", 0), ("light", 255)):
        (home / "seen" / label).mkdir(parents=True)
        PIL.Image.new("RGB", (24, 24), (value,) * 3).save(home / "seen" / label / "0.png")
    result = add_modality(home / "before", home / "seen.py", out=home / "seeing", data=home / "seen", steps=1)
    components = read_manifest(result.run)["components"]
    assert not components["seen/encoder"]["saved"] and components["seen/projector"]["saved"]
    assert result.parameters == {"add_seen": components["seen/projector"]["parameters"]}


def test_behind_a_published_encoder_what_is_the_modalitys_own_trains_or_else_all_of_it(home, added):
    encoder = '{"type": "hub_vision", "id": "./tower"}'
    cases = {"'mlp'": ["eye/projector*"], "{'component': 'shared'}": ["eye/*"], "None": ["eye/*"]}
    for number, (projector, expected) in enumerate(cases.items()):
        file = home / f"eye{number}.py"
        file.write_text(
            f"MODALITY = dict(payload='image', processor='image', encoder={encoder}, projector={projector})\n"
        )
        assert _beginners("eye", f"./eye{number}.py", home) == expected
    assert _beginners("touch", "./touch.py", home) == ["touch/*"]


def test_the_same_call_again_finds_it_done(home, added):
    data = {"data": home / "pads" / "train", "test": home / "pads" / "test"}
    again = add_modality(home / "before", home / "touch.py", out=home / "after-1.5", steps=3, **data)
    assert again.parameters == added[0].parameters and again.old == added[0].old


def test_a_stage_that_trains_what_is_shared_is_told_of(home):
    """LoRA acts on every slot, so training it changes what the old run computed, and which components did it."""
    addition = {
        "modalities": {"touch": {"use": "./touch.py"}},
        "data": {"pads": {"type": "folder", "path": "pads/train/", "modality": "touch", "prompt": "How?"}},
        "stages": [{"name": "all", "train": ["touch/*", "lora"], "data": {"pads": 1.0}, "steps": 2, "batch": 4}],
    }
    (home / "addition.yaml").write_text(yaml.safe_dump(addition))
    result = add_modality(home / "before", home / "addition.yaml", out=home / "shared")
    assert result.unchanged == {"text": False, "things": False, "drawn": False}
    assert result.changed == ["lora"] and result.new == {}


def test_adapters_of_a_new_modality_in_a_shared_projector_leave_the_old_ones_bit_identical(home, tmp_path):
    """PathWeave: one Q-Former, adapters of each modality in turn; only the newest train."""
    values = yaml.safe_load((home / "run.yaml").read_text())
    queries = {"room": "projectors", "type": "qformer", "queries": 2, "width": 16, "depth": 1, "heads": 2}
    values["components"] = {"queries": {**queries, "adapters": "path", "rank": 2}}
    for name in ("image", "sound"):
        values["modalities"][name]["in"]["projector"] = {"component": "queries"}
    values["stages"] = [{"name": "one", "train": ["queries"], "data": {"things": 1.0}, "steps": 2, "batch": 8}]
    (home / "woven.yaml").write_text(yaml.safe_dump(values))
    train(home / "woven.yaml", out=tmp_path / "woven")
    addition = {
        "modalities": {
            "touch": {
                "payload": "series",
                "in": {
                    "processor": "series",
                    "encoder": {"type": "series_conv", "channels": 2, "width": 32},
                    "projector": {"component": "queries"},
                },
            }
        },
        "data": {"pads": {"type": "folder", "path": str(home / "pads/train/"), "modality": "touch", "prompt": "How?"}},
        "stages": [
            {
                "name": "touch",
                "train": ["touch/encoder", "queries.own.touch.*"],
                "data": {"pads": 1.0},
                "steps": 3,
                "batch": 4,
            }
        ],
    }
    (tmp_path / "addition.yaml").write_text(yaml.safe_dump(addition))
    result = add_modality(tmp_path / "woven", tmp_path / "addition.yaml", out=tmp_path / "more")
    assert set(result.unchanged.values()) == {True}
    old, new = load_model(tmp_path / "woven")[0], load_model(tmp_path / "more")[0]
    known = old.components()["queries"]
    assert all(torch.equal(value, new.components()["queries"][name]) for name, value in known.items())
    grown = [name for name in new.components()["queries"] if name not in known]
    assert grown and all(name.startswith("own.touch.") for name in grown)


def test_what_cannot_be_added_is_refused_before_anything_is_trained(home, tmp_path):
    with pytest.raises(CheckpointError, match="no run folder"):
        add_modality(tmp_path, home / "touch.py", data=home / "pads/train")
    with pytest.raises(ConfigError, match="not where its data are"):
        add_modality(home / "before", home / "touch.py", out=tmp_path / "x")
    with pytest.raises(ConfigError, match="already"):
        add_modality(home / "before", home / "touch.py", name="image", data=home / "pads/train", out=tmp_path / "x")
    (tmp_path / "none.yaml").write_text("stages: []\n")
    with pytest.raises(ConfigError, match="adds no modality"):
        add_modality(home / "before", tmp_path / "none.yaml", out=tmp_path / "x")
    (tmp_path / "odd.yaml").write_text("modality: {}\n")
    with pytest.raises(ConfigError, match=r"no place for 'modality'.*modalities"):
        add_modality(home / "before", tmp_path / "odd.yaml", out=tmp_path / "x")
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.yaml").exists()
