"""Modalities as files: a class in a dictionary becomes an ordinary row of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from omniloom.config import load_run, resolve_modality
from omniloom.errors import ConfigError

TOUCH = """\
from omniloom.sequence import Shape


class TouchProcessor:
    payload_kind = "series"

    def __init__(self, *, rate_hz: int = 50):
        self.rate_hz = rate_hz


class TouchEncoder:
    def __init__(self, *, width: int, depth: int = 2):
        self.width, self.depth = width, depth


MODALITY = dict(
    payload="series",
    processor=TouchProcessor,
    encoder={"type": TouchEncoder, "width": 32},
    projector="mlp",
    slots={"max": 16, "over": "resample"},
)
"""
RUN = """\
name: touch
backbone: {id: org/lm}
modalities:
  touch:
    use: parts/touch.py
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "touch.py").write_text(TOUCH)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def test_a_modality_file_becomes_a_row_of_the_run(folder: Path) -> None:
    row = load_run(folder / "run.yaml").config.modalities["touch"]
    assert row.payload == "series" and row.markers == ("<touch>", "</touch>") and row.out is None
    assert row.in_ is not None and row.in_.processor == "parts/touch.py:TouchProcessor"
    assert row.in_.encoder == {"type": "parts/touch.py:TouchEncoder", "width": 32}
    assert row.in_.projector == "mlp" and row.in_.slots is not None and row.in_.slots.max == 16


def test_keys_of_the_run_file_override_the_modality_file(folder: Path) -> None:
    row = "    markers: ['[', ']']\n    in: {encoder: {width: 8}, projector: {type: linear}}\n"
    (folder / "run.yaml").write_text(RUN + row)
    modality = load_run(folder / "run.yaml", sets=["modalities.touch.in.slots.max=3"]).config.modalities["touch"]
    assert modality.markers == ("[", "]") and modality.in_ is not None
    assert modality.in_.encoder == {"type": "parts/touch.py:TouchEncoder", "width": 8}
    assert modality.in_.projector == {"type": "linear"}
    assert modality.in_.slots is not None and (modality.in_.slots.max, modality.in_.slots.over) == (3, "resample")


def test_a_class_of_the_table_of_parts_is_written_by_its_name(folder: Path) -> None:
    text = "from omniloom.projectors.dense import MLP\n" + TOUCH.replace(
        'projector="mlp"', 'projector={"type": MLP, "layers": 3}'
    )
    (folder / "parts" / "touch.py").write_text(text)
    assert resolve_modality("parts/touch.py", folder)["in"]["projector"] == {"type": "mlp", "layers": 3}


def test_ways_out_go_into_the_row_s_out(folder: Path) -> None:
    (folder / "parts" / "out.py").write_text(
        "MODALITY = dict(payload='image', codec='image_fsq', layout='flattened')\n"
    )
    assert resolve_modality("parts/out.py", folder) == {
        "payload": "image",
        "out": {"codec": "image_fsq", "layout": "flattened"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODALITY = 3\n", "holds no dictionary MODALITY"),
        ("x = 1\n", "holds no dictionary MODALITY"),
        ("MODALITY = dict(paylod='series')\n", "Did you mean 'payload'?"),
        ("import pathlib\nMODALITY = dict(payload='series', encoder=print)\n", "neither in the table of encoders"),
        ("1 / 0\n", "fails on import: ZeroDivisionError"),
        ("MODALITY = dict(\n", "fails on import: SyntaxError"),
    ],
)
def test_a_bad_modality_file_is_an_error_at_the_line_of_its_use(folder: Path, text: str, message: str) -> None:
    (folder / "parts" / "touch.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_run(folder / "run.yaml")
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(folder / "run.yaml"), 5)


def test_an_unknown_installed_modality_is_named(folder: Path) -> None:
    (folder / "run.yaml").write_text(RUN.replace("parts/touch.py", "toch"))
    with pytest.raises(ConfigError, match="no modality file or installed modality 'toch'"):
        load_run(folder / "run.yaml")
