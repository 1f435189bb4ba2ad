"""What the quickstart leaves out where packages are absent. The run itself is `make quickstart`."""

from __future__ import annotations

import pytest
import yaml

from omniloom import starter
from omniloom.config import problems
from omniloom.errors import MissingAssetError
from omniloom.starter.quickstart import _share_minutes, available_recipe


def _absent(monkeypatch, *names):
    monkeypatch.setattr(starter, "absent_reason", lambda name: "no package" if name in names else "")


def test_nothing_is_left_out_where_everything_can_be_had(monkeypatch):
    _absent(monkeypatch)
    values, notes = available_recipe("quickstart")
    assert notes == [] and set(values["modalities"]) == {"image", "speech", "music", "imu", "points", "digit", "voice"}


def test_without_debian_packages_digits_stand_in_and_points_are_left_out_by_name(monkeypatch, tmp_path):
    _absent(monkeypatch, "things-image", "furniture-points")
    values, notes = available_recipe("quickstart")
    assert values["data"]["image_train"]["path"] == "starter:digits-image"
    assert "points" not in values["modalities"] and "points" not in values["evaluation"]
    assert not any("points" in source for stage in values["stages"] for source in stage["data"])
    assert [note.split(":")[0] for note in notes] == [
        "digits-image stands in for things-image",
        "furniture-points is left out",
    ]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    assert problems(file) == []


def test_an_output_whose_data_are_absent_goes_with_its_stage_and_its_vocabulary(monkeypatch, tmp_path):
    _absent(monkeypatch, "digits-draw")
    values, _ = available_recipe("quickstart")
    assert "digit" not in values["modalities"]
    assert [stage["name"] for stage in values["stages"]] == ["align", "instruct"]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    assert problems(file) == []


def test_without_the_language_model_or_any_data_there_is_no_quickstart(monkeypatch):
    _absent(monkeypatch, "smollm2-135m")
    with pytest.raises(MissingAssetError, match="language model"):
        available_recipe("quickstart")
    _absent(monkeypatch, *starter_sets())
    with pytest.raises(MissingAssetError, match="no data of the quickstart"):
        available_recipe("quickstart")


def starter_sets():
    from omniloom.starter.datasets import DATASETS

    return DATASETS


def test_minutes_are_shared_among_the_stages_of_the_model(monkeypatch):
    _absent(monkeypatch)
    values, _ = available_recipe("quickstart")
    _share_minutes(values, 4.0)
    codec, *model = values["stages"]
    assert "minutes" not in codec and sum(stage["minutes"] for stage in model) == pytest.approx(4.0, abs=0.01)
    assert not any("steps" in stage for stage in model)
