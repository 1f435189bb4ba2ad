"""Run files that are right: extended, set, written out and read back, moved to another folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.config import RunConfig, digest, dump, load_run, problems, recipes, relocated
from omniloom.config.reading import read_text, yaml_text
from omniloom.errors import ConfigError

from .run_files import RUN


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_defaults_are_filled_in(run_file: Path) -> None:
    config = load_run(run_file).config
    assert config.modalities["sound"].markers == ("<sound>", "</sound>")
    assert config.modalities["digit"].out is not None and config.modalities["digit"].out.layout == "flattened"
    assert config.stages[0].warm_start is not None and config.stages[0].warm_start.steps == 300
    assert config.stages[0].lr == 1e-3 and config.stages[1].lr == {"lora": 1e-4, "*": 2e-3}


def test_component_names_are_the_parts_of_the_model(run_file: Path) -> None:
    assert load_run(run_file).config.component_names == (
        "backbone", "image/encoder", "image/projector", "sound/encoder", "digit/codec", "speech_out/generator",
        "vocab", "shared", "lora",
    )  # fmt: skip


def test_every_value_knows_its_line(run_file: Path) -> None:
    run = load_run(run_file, sets=["seed=3"])
    assert run.lines["stages.0.lr"] == (str(run_file), 36)
    assert run.lines["seed"] == ("--set seed=3", None)
    error = run.error(("stages", 1, "clip"), "too small.")
    assert (error.file, error.line) == (str(run_file), 38)


def test_a_folder_and_its_run_file_are_the_same_run(run_file: Path) -> None:
    assert load_run(run_file.parent).config == load_run(run_file).config


def test_a_dumped_run_loads_back_equal_and_has_the_same_digest(run_file: Path) -> None:
    config = load_run(run_file).config
    text = dump(config)
    (run_file.parent / "again.yaml").write_text(text)
    again = load_run(run_file.parent / "again.yaml").config
    assert again == config and digest(again) == digest(config) and dump(again) == text
    assert [line.partition(":")[0] for line in text.splitlines() if line[0] not in " -"] == list(RunConfig.model_fields)


def test_another_value_is_another_digest(run_file: Path) -> None:
    assert digest(load_run(run_file, sets=["stages.0.clip=2"]).config) != digest(load_run(run_file).config)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
_TRAPS = [
    "1e3",
    "yes",
    "null",
    "~",
    "0x1f",
    "1:30",
    "2001-01-01",
    "1_0",
    "a: b",
    "# a",
    "*x",
    "=",
    "<<",
    "a\n\n b ",
    "é\u2028",
]
_VALUES = st.recursive(
    _SCALARS | _TEXT | st.sampled_from(_TRAPS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_VALUES)
def test_values_written_as_yaml_are_read_back_equal(value: Any) -> None:
    again = read_text(yaml_text({"value": value}), "text").plain()["value"]
    assert again == value and repr(again) == repr(value)


_OPTIONS = st.dictionaries(st.sampled_from(["depth", "null", "1"]), st.integers(-999, 999) | st.floats(0, 1) | _TEXT)
_NAMES = st.sampled_from(["image", "null", "yes", "on", "e1"])


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["a", "run-1", "1e5", "0x10"]),
    st.sampled_from(["org/name", "yes", "12"]),
    st.dictionaries(_NAMES, _OPTIONS),
)
def test_any_run_survives_being_written(name: str, backbone: str, options: dict[str, dict[str, Any]]) -> None:
    rows = {
        modality: {"payload": "image", "in": {"processor": "image", "encoder": {"type": "patch_vit", **chosen}}}
        for modality, chosen in options.items()
    }
    config = RunConfig.model_validate({"name": name, "backbone": {"id": backbone}, "modalities": rows})
    assert RunConfig.model_validate(read_text(dump(config), "run").plain()) == config


# -- extends --------------------------------------------------------------------------------------------------


def test_an_extending_file_is_merged_over_its_base(run_file: Path) -> None:
    over = run_file.parent / "over.yaml"
    over.write_text(
        "extends: run.yaml\nname: over\n"
        "modalities:\n  digit: null\n  image: {in: {projector: {type: qformer, queries: 4}, encoder: {depth: 3}}}\n"
        "stages:\n  - {name: only, train: [lora], data: {things: 1}, steps: 3}\n"
    )
    run = load_run(over)
    assert run.config.name == "over" and "digit" not in run.config.modalities
    image = run.config.modalities["image"].in_
    assert image is not None
    assert image.projector == {"type": "qformer", "queries": 4}, "another type is another part: nothing is kept of it"
    assert image.encoder == {"type": "patch_vit", "patch_px": 8, "depth": 3}
    assert [stage.name for stage in run.config.stages] == ["only"], "lists are replaced"
    assert run.sources == (over, run_file)
    assert run.lines["modalities.image.in.encoder.depth"] == (str(over), 5)
    assert run.lines["backbone.id"] == (str(run_file), 4)


def test_a_problem_in_a_base_is_told_with_the_base_s_line(run_file: Path) -> None:
    run_file.write_text(RUN.replace("seed: 0", "seed: -1"))
    over = run_file.parent / "over.yaml"
    over.write_text("extends: run.yaml\nthreads: 0\n")
    assert [(problem.file, problem.line) for problem in problems(over)] == [(str(over), 2), (str(run_file), 2)]


def test_a_circle_of_three_files_is_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}.yaml\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: .*a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        load_run(tmp_path / "a.yaml")


def test_relative_paths_of_a_base_in_another_folder_still_point_to_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "parts.py").write_text("class Own:\n    pass\n")
    text = RUN.replace("encoder: log_mel_conv", "encoder: parts.py:Own").replace("starter:smollm2-135m", "./lm")
    (tmp_path / "base" / "base.yaml").write_text(text)
    (tmp_path / "run.yaml").write_text("extends: base/base.yaml\n")
    config = load_run(tmp_path / "run.yaml").config
    assert config.data["held_out"]["path"] == "base/data/mine.csv"
    assert config.backbone.id == "./base/lm"
    assert config.modalities["sound"].in_ is not None and config.modalities["sound"].in_.encoder == "base/parts.py:Own"


def test_a_moved_run_keeps_its_files_and_comes_back_equal(run_file: Path) -> None:
    config = load_run(
        run_file,
        sets=[
            "modalities.sound.in.encoder=own/part.py:Own",
            "data.pets={type: folder, path: ../pets/}",
            "cache=rows",
        ],
    ).config
    old, new = run_file.parent, run_file.parent / "runs" / "one"
    moved = relocated(config, old, new)
    assert moved.modalities["sound"].in_ is not None
    assert moved.modalities["sound"].in_.encoder == "../../own/part.py:Own"
    assert moved.data["things"]["path"] == "../../things.jsonl" and moved.data["pets"]["path"] == "../../../pets/"
    assert moved.backbone.id == config.backbone.id and moved.cache == "../../rows"
    assert relocated(moved, new, old).data == config.data
    assert relocated(relocated(moved, new, old), old, new) == moved


def test_null_over_a_projector_is_none_at_all_and_over_other_mappings_what_holds_without(run_file: Path) -> None:
    over = run_file.parent / "over.yaml"
    stages = '{name: only, train: ["image/encoder"], data: {things: 1}, steps: 3}'
    over.write_text(f"extends: run.yaml\nmodalities:\n  image: {{in: {{projector: null}}}}\nstages: [{stages}]\n")
    sets = [f"stages=[{stages}]", "modalities.image.in.projector=null"]
    for run in (load_run(over), load_run(run_file, sets=sets)):
        image = run.config.modalities["image"].in_
        assert image is not None and image.projector is None and image.links == []
        assert not [name for name in run.config.component_names if name.startswith("image/projector")]


# -- --set ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("stages.0.steps=5", "stages.0.steps", 5),
        ("stages.align.steps=5", "stages.0.steps", 5),
        ("stages.0.lr=2e-4", "stages.0.lr", 2e-4),
        ("stages.0.train=['image/*']", "stages.0.train", ["image/*"]),
        ("backbone.revision=main", "backbone.revision", "main"),
        ("modalities.sound.in.encoder.width=7", "modalities.sound.in.encoder", {"type": "log_mel_conv", "width": 7}),
        ("modalities.sound.in.slots.max=7", "modalities.sound.in.slots.max", 7),
        ("modalities.image.in.projector={type: linear}", "modalities.image.in.projector", {"type": "linear"}),
        ("stages.0.warm_start=null", "stages.0.warm_start", None),
        ("data.more={type: jsonl, path: a=b.jsonl}", "data.more.path", "a=b.jsonl"),
        ("backbone.system=", "backbone.system", ""),
    ],
)
def test_set_changes_one_value(run_file: Path, text: str, path: str, value: Any) -> None:
    found: Any = load_run(run_file, sets=[text]).config.model_dump(by_alias=True)
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    assert found == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages.0.stepz=5", "Did you mean 'steps'?"),
        ("modalitis.image.payload=a", "Did you mean 'modalities'?"),
        ("modalities.imag.payload=a", "Did you mean 'image'?"),
        ("stages.7.steps=5", "has no entry '7'"),
        ("stages.algn.steps=5", "Did you mean 'align'?"),
        ("seed.x=1", "has no key 'x'"),
        ("seed", "expected `key.key=value`"),
        ("seed..x=1", "expected `key.key=value`"),
        ("seed=[1", "not YAML"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=!!python/name:os.system", "refused"),
    ],
)
def test_a_bad_set_is_a_config_error_that_names_it(run_file: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(run_file, sets=[text])
    assert message in str(caught.value) and (caught.value.file or "").startswith("--set") and caught.value.line is None


# -- the rest -------------------------------------------------------------------------------------------------


def test_a_glob_that_misses_the_links_of_a_chain_is_refused(run_file: Path) -> None:
    sets = ["modalities.image.in.projector=[pool, mlp]"]
    with pytest.raises(ConfigError, match=r"misses the projectors of 'image', a chain.*'\*/projector\*'"):
        load_run(run_file, sets=sets)
    load_run(run_file, sets=[*sets, "stages.0.train=['*/projector*']"])


def test_every_recipe_loads() -> None:
    for name in recipes():
        assert load_run(name).config.stages


def test_reading_a_run_loads_neither_torch_nor_transformers(run_file: Path) -> None:
    code = (
        "import sys; from omniloom.config import load_run; load_run(sys.argv[1])\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(run_file)], check=True)
