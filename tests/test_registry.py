"""The table of parts: names become classes, specs become parts and back."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from omniloom.cli import listing
from omniloom.errors import ConfigError, MissingAssetError
from omniloom.registry import BUILT_IN, build, find, names, part_file, resolve_asset, schema, spec_of, split_spec

PART = """\
class Own:
    def __init__(self, in_dim, *, width: int, depth: int = 2):
        if depth < 1:
            raise ValueError("depth must be 1 or more")
        self.in_dim, self.width, self.depth = in_dim, width, depth


from pathlib import Path


class Kept(Own):
    def __init__(self, in_dim, *, width: int, files: list[Path] = (), share: float = 1, names: tuple[str, ...] = ()):
        super().__init__(in_dim, width=width)
        self.files, self.share, self.names = files, share, names
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(PART)
    return tmp_path


def test_a_part_of_a_file_is_built_from_its_spec_and_its_spec_read_back(folder: Path) -> None:
    spec = {"type": "own.py:Own", "width": 4}
    part = build("encoders", spec, 7, base=folder)
    assert (part.in_dim, part.width, part.depth) == (7, 4, 2)
    assert spec_of("encoders", part, name="own.py:Own") == {**spec, "depth": 2}


def test_options_follow_the_rules_of_a_run_file_and_not_those_of_python(folder: Path) -> None:
    spec = {"type": "own.py:Kept", "width": 4, "files": ["a.npy"], "share": 2, "names": ["x", "y"]}
    part = build("encoders", spec, 7, base=folder)
    assert (part.files, part.share, part.names) == (["a.npy"], 2, ["x", "y"])
    assert build("encoders", {**spec, "files": [Path("a.npy")]}, 7, base=folder).files == [Path("a.npy")]


def test_annotations_of_a_part_file_that_say_nothing_hold_nothing(folder: Path) -> None:
    (folder / "odd.py").write_text(
        "class Odd:\n    def __init__(self, *, a: '0 to 1' = 1, d: 'nowhere.At' = 0):\n        self.a, self.d = a, d\n"
        "class Bare:\n    def __init__(self, *, b: int = None):\n        self.b = b\n"
    )
    part = build("encoders", {"type": "odd.py:Odd", "a": "half", "d": [1]}, base=folder)
    assert (part.a, part.d) == ("half", [1])
    assert build("encoders", {"type": "odd.py:Bare", "b": None}, base=folder).b is None
    with pytest.raises(ConfigError, match="option 'b' is 'x', a text; expected int"):
        build("encoders", {"type": "odd.py:Bare", "b": "x"}, base=folder)


def test_a_named_part_is_built_and_named_again() -> None:
    part = build("projectors", {"type": "mlp", "layers": 3}, 8, 6)
    spec = spec_of("projectors", part)
    assert spec["type"] == "mlp" and spec["layers"] == 3
    assert spec_of("projectors", build("projectors", spec, 8, 6)) == spec


def test_every_name_of_the_table_that_needs_no_extra_is_a_class() -> None:
    for room, parts in BUILT_IN.items():
        for name in parts:
            assert callable(find(room, name)), (room, name)


@pytest.mark.parametrize(
    ("room", "spec", "message"),
    [
        ("projectors", "mlpp", "unknown projector 'mlpp'. Did you mean 'mlp'?"),
        ("projektors", "mlp", "Did you mean 'projectors'?"),
        ("encoders", {"type": "own.py:Own"}, "needs the option 'width'"),
        ("encoders", {"type": "own.py:Own", "width": 4, "dept": 1}, "Did you mean 'depth'?"),
        ("encoders", {"type": "own.py:Own", "width": 4, "in_dim": 1}, "has no option 'in_dim'"),
        ("encoders", {"type": "own.py:Own", "width": 4, "depth": 0}, "refuses its options"),
        ("processors", {"type": "series", "normalize": "false"}, "'normalize' is 'false', a text; expected bool"),
        ("processors", {"type": "points", "count": 40.5}, "'count' is 40.5, a number; expected int"),
        (
            "encoders",
            {"type": "own.py:Kept", "width": 1, "files": "a"},
            "'files' is 'a', a text; expected list[pathlib.Path]",
        ),
        ("processors", {"type": "image", "size_px": True}, "'size_px' is True, a truth value; expected int"),
        ("interaction", {"type": "lora", "targets": "*.q_proj"}, "'targets' is '*.q_proj', a text; expected Sequence"),
        ("encoders", {"type": "patch_vit", "width": 0}, "refuses its options"),
        ("encoders", {"type": "own.py:Onw", "width": 4}, "Did you mean 'Own'?"),
        ("encoders", {"type": "none.py:Own"}, "cannot find the part file"),
        ("encoders", {"width": 4}, "must be a part's name or a mapping"),
        ("encoders", ["own"], "must be a part's name or a mapping"),
    ],
)
def test_a_wrong_spec_is_a_config_error_that_says_what_to_do(
    folder: Path, room: str, spec: object, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(room, spec, 7, base=folder)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_size_below_zero_is_refused_as_an_option_and_no_other_error_of_torch_is(folder: Path) -> None:
    with pytest.raises(ConfigError, match="refuses its options"):
        build("projectors", {"type": "mlp", "hidden": -1}, 8, 6)
    (folder / "full.py").write_text(
        "class Full:\n    def __init__(self):\n        raise RuntimeError('out of memory')\n"
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        build("projectors", {"type": "full.py:Full"}, base=folder)


def test_the_schema_is_what_stands_after_the_star(folder: Path) -> None:
    assert list(schema(find("encoders", "own.py:Own", base=folder))) == ["width", "depth"]


def test_a_part_file_is_imported_once_and_again_after_a_change(folder: Path) -> None:
    first = part_file("own.py", base=folder)
    assert part_file("own.py", base=folder) is first
    (folder / "own.py").write_text(PART.replace("depth: int = 2", "depth: int = 5"))
    assert build("encoders", {"type": "own.py:Own", "width": 1}, 1, base=folder).depth == 5


def test_part_files_of_the_same_name_stay_apart(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "own.py").write_text(PART.replace("depth: int = 2", "depth: int = 9"))
    spec = {"type": "own.py:Own", "width": 1}
    assert [build("encoders", spec, 1, base=base).depth for base in (folder, folder / "other")] == [2, 9]


def test_installed_parts_are_found_and_cannot_replace_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("gone", "no_such_package:Part", "omniloom.projectors"),
        importlib.metadata.EntryPoint("mlp", "no_such_package:MLP", "omniloom.projectors"),
    ]
    monkeypatch.setattr(
        "omniloom.registry.entry_points", lambda group: points if group == "omniloom.projectors" else []
    )
    assert names("projectors")["gone"] == "no_such_package:Part"
    assert names("projectors")["mlp"] == BUILT_IN["projectors"]["mlp"]
    with pytest.raises(MissingAssetError, match="no_such_package"):
        find("projectors", "gone")


def test_a_spec_is_split_into_name_and_options() -> None:
    assert split_spec("mlp", where="here") == ("mlp", {})
    assert split_spec({"type": "mlp", "layers": 2}, where="here") == ("mlp", {"layers": 2})


@pytest.mark.parametrize("reference", ["org/name", "./folder", "C:/folder", "/abs", "unknown:name"])
def test_what_has_no_known_scheme_passes_through(reference: str) -> None:
    assert resolve_asset(reference) == reference


@pytest.mark.parametrize("room", ["encoders", "projectors", "fusers", "interaction"])
def test_every_part_names_its_paper(room):
    nameless = [part["name"] for part in listing._parts(room) if not part["sources"]]
    assert nameless == []
