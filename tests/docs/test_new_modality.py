"""What docs/new_modality.md claims: the size of its file, its data, what is learned, and that it can be installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from omniloom.api import evaluate, train
from omniloom.config import resolve_modality
from omniloom.testing import check_modality

from .pages import ROOT, blocks, torch_as_it_was

PAGE = ROOT / "docs" / "new_modality.md"
EXAMPLE = ROOT / "examples" / "event_camera"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve recordings for training and twelve for testing."""
    folder = tmp_path_factory.mktemp("events") / "data"
    script = [sys.executable, str(EXAMPLE / "make_data.py"), str(folder), "--train", "12", "--test", "12"]
    subprocess.run(script, check=True)
    return folder


def test_the_modality_file_is_at_most_sixty_lines_and_has_no_part_elsewhere():
    text = (EXAMPLE / "events.py").read_text()
    assert len(text.splitlines()) <= 60
    assert set(re.findall(r"from (omniloom\S*)", text)) <= {"omniloom.encoders", "omniloom.layers", "omniloom.sequence"}


def test_the_same_arguments_give_the_same_recordings(recordings, tmp_path):
    script = [sys.executable, str(EXAMPLE / "make_data.py"), str(tmp_path / "again"), "--train", "12", "--test", "12"]
    subprocess.run(script, check=True)
    files = sorted(path.relative_to(recordings) for path in recordings.rglob("*") if path.is_file())
    assert len(files) == 2 * (12 * 2 + 3)
    assert all((recordings / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_events_follow_the_motion_and_their_sign_does_not_tell_it(recordings):
    axis = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
    signs = set()
    for line in (recordings / "train-motion.jsonl").read_text().splitlines():
        record = json.loads(line)
        answer = record["messages"][1]["content"]
        table = np.load(recordings / record["messages"][0]["content"][0]["path"])
        drift = [np.polyfit(table[:, 2], table[:, number], 1)[0] for number in (0, 1)]
        number, sign = axis[answer]
        assert sign * drift[number] > 5 * abs(drift[1 - number]) / 2, (answer, drift)
        early = table[: len(table) // 4]
        signs.add((answer, bool(early[:, 3].mean() > 0)))
    assert len({is_brighter for _, is_brighter in signs}) == 2


def test_the_picture_knows_the_colour(recordings):
    for line in (recordings / "train-colour.jsonl").read_text().splitlines():
        assert json.loads(line)["messages"][1]["content"] in ("red", "green", "blue")


def test_the_sensor_keeps_every_law_on_its_own_recordings(recordings):
    examples = [recordings / "test" / f"{index}.npy" for index in (0, 7, 9)]
    assert check_modality(EXAMPLE / "events.py", examples=examples).is_kept


def test_the_page_learns_what_it_says(played):
    run = played(PAGE) / "runs" / "event-camera-tiny"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if step["stage"] == "everything"]
    assert np.mean(losses[-5:]) < 0.1 * losses[0]
    tasks = json.loads((run / "eval" / "results.json").read_text())["tasks"]
    for name, (least, most_alone) in {"motion": (0.9, None), "colour": (0.9, None), "both": (0.8, 0.25)}.items():
        assert tasks[name]["score"] >= least and tasks[name]["above_chance"], name
        assert tasks[name]["shuffled"]["score"] <= 0.25, name
        if most_alone is not None:
            assert all(probe["score"] <= most_alone for probe in tasks[name]["alone"].values())


def test_the_entry_points_of_the_page_make_the_modality_installable(recordings, tmp_path, monkeypatch):
    (shown,) = (block for block in blocks(PAGE) if block.language == "toml")
    groups = tomllib.loads(shown.text)["project"]["entry-points"]
    (tmp_path / "omniloom_events.py").write_text((EXAMPLE / "events.py").read_text())
    info = tmp_path / "omniloom_events-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: omniloom-events\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items())
        for group, names in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    row = resolve_modality("events", tmp_path)
    assert row["in"]["encoder"] == "event_conv" and row["in"]["processor"] == "event_frames"
    examples = [recordings / "test" / f"{index}.npy" for index in (0, 7)]
    assert check_modality("events", examples=examples).is_kept


@pytest.mark.proof
@pytest.mark.packaged
def test_the_packaged_language_model_learns_both_sensors_and_needs_both(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "work", ignore=shutil.ignore_patterns("__pycache__", "data", "runs"))
    script = [sys.executable, "make_data.py", "data", "--train", "960", "--test", "120"]
    subprocess.run(script, cwd=tmp_path / "work", check=True)
    with torch_as_it_was():
        run = train(tmp_path / "work" / "run.yaml", out=tmp_path / "run")
        tasks = evaluate(run, allow_code=True).tasks
    assert tasks["motion"].score > 0.8 and tasks["colour"].score > 0.8 and tasks["both"].score > 0.6
    assert all(probe.score < 0.3 for probe in tasks["both"].alone.values())
