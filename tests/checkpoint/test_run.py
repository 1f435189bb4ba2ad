"""A saved run loads to the same bits, or not at all; and nothing in it is executed or unpickled on the way."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import uuid

import pytest
import torch
import yaml

from omniloom.checkpoint import load_model, read_manifest, save_model, seal
from omniloom.checkpoint.tensors import read_tensors, write_tensors
from omniloom.errors import CheckpointError
from omniloom.files import sha256_of_file
from omniloom.model import compose
from omniloom.sequence import Text
from tests.examples import answered, config_of, drawing, logits_of, media, raw_of

SAMPLE = answered((media("image", 1), Text("?"), media("points")), Text("a"), drawing(2))


@pytest.fixture
def run(trained):
    """A copy of a finished run, beside it."""
    copy = trained.parent / f"copy-{uuid.uuid4().hex[:8]}"
    shutil.copytree(trained, copy)
    yield copy
    shutil.rmtree(copy)


def sealed_again(run, **changes):
    """The manifest as one who alters files would write it: digests agree."""
    manifest = json.loads((run / "manifest.json").read_text())
    for name in manifest["files"]:
        path = run / name
        if path.is_file():
            manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    (run / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    return manifest


def test_a_model_saved_and_loaded_gives_the_same_logits_bit_for_bit(private, omni_folder, tmp_path):
    with torch.no_grad():
        for _, _, value in private.named_component_parameters():
            value.add_(torch.randn(value.shape) * 0.01)
    folder = omni_folder / f"saved-{uuid.uuid4().hex[:6]}"
    config = config_of(omni_folder, backbone={"type": "causal_lm", "id": "../language-model"})
    save_model(private, config, folder, trained=["backbone"])
    loaded, again = load_model(folder)
    assert again == config
    assert loaded.components().keys() == private.components().keys()
    for name, values in private.components().items():
        assert all(torch.equal(value, loaded.components()[name][key]) for key, value in values.items())
    plan = private.planner.plan(SAMPLE)
    assert torch.equal(logits_of(loaded, loaded.planner.plan(SAMPLE))[0], logits_of(private, plan)[0])
    shutil.rmtree(folder)


def test_a_loaded_run_trains_nothing_and_is_in_evaluation_mode(trained):
    model, _ = load_model(trained)
    assert not any(value.requires_grad for value in model.parameters())
    assert not any(part.training for part in model.modules())


def test_a_pretrained_component_that_was_not_trained_is_kept_by_reference(trained):
    manifest = read_manifest(trained)
    backbone = manifest["components"]["backbone"]
    assert backbone["saved"] is False and backbone["origin"].endswith("language-model")
    assert not (trained / "components" / "backbone").exists()
    assert all(facts["saved"] for name, facts in manifest["components"].items() if name != "backbone")


def test_the_manifest_holds_every_file_but_those_of_the_machine(trained):
    files = set(read_manifest(trained)["files"])
    on_disk = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert files == {name for name in on_disk if not name.startswith(("manifest.json", "lock", "cache/", "state/"))}
    assert {"run.yaml", "metrics.jsonl", "components/vocab/weights.safetensors"} <= files


def test_sealing_again_takes_up_new_files_and_keeps_the_components(run):
    before = read_manifest(run)["components"]
    (run / "report.html").write_text("<p>")
    seal(run)
    assert "report.html" in read_manifest(run)["files"] and read_manifest(run)["components"] == before
    load_model(run)


@pytest.mark.parametrize(
    "name", ["components/lora/weights.safetensors", "components/vocab/weights.safetensors", "run.yaml"]
)
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_a_flipped_byte_is_found(run, name, where):
    path = run / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data)) if where >= 0 else -1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}.*is not the file that was saved"):
        load_model(run)


def test_a_shortened_file_is_found_even_where_the_manifest_agrees(run):
    path = run / "components/lora/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    sealed_again(run)
    with pytest.raises(CheckpointError, match="no sound safetensors"):
        load_model(run)


@pytest.mark.parametrize("name", ["components/lora/weights.safetensors", "run.yaml"])
def test_a_missing_file_is_found(run, name):
    (run / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_model(run)


@pytest.mark.parametrize("name", ["components/lora/weights.safetensors", "run.yaml"])
def test_a_file_that_the_manifest_does_not_name_is_not_read(run, name):
    manifest = read_manifest(run)
    del manifest["files"][name]
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="manifest"):
        load_model(run)


def test_no_manifest_is_no_run_and_an_unfinished_one_is_told_so(run, tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder"):
        load_model(tmp_path)
    (run / "manifest.json").unlink()
    (run / "state").mkdir()
    with pytest.raises(CheckpointError, match="unfinished training"):
        load_model(run)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "\x00",
        "[" * 100_000,
        '{"version": 1}',
        '{"version": 2}',
        '{"version": "1"}',
        '{"version": 1, "files": [], "components": {}}',
        '{"version": 1, "files": {"run.yaml": 3}, "components": {}}',
        '{"version": 1, "components": {"a": {}}, "files": {}}',
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_manifest_is_one_clear_error(run, text):
    (run / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_model(run)


def test_components_that_the_run_file_does_not_build_are_refused(run):
    manifest = read_manifest(run)
    extra = {**manifest["components"], "touch/encoder": manifest["components"]["lora"]}
    sealed_again(run, components=extra)
    with pytest.raises(CheckpointError, match="touch/encoder"):
        load_model(run)
    sealed_again(
        run, components={name: facts for name, facts in extra.items() if name not in ("lora", "touch/encoder")}
    )
    with pytest.raises(CheckpointError, match="lora"):
        load_model(run)


@pytest.mark.parametrize("change", ["shape", "dtype", "missing", "unexpected"])
def test_weights_of_another_model_are_refused(run, change):
    path = run / "components/vocab/weights.safetensors"
    tensors = read_tensors(path)
    if change == "shape":
        tensors["head"] = tensors["head"][:-1]
    elif change == "dtype":
        tensors["head"] = tensors["head"].double()
    elif change == "missing":
        del tensors["head"]
    else:
        tensors["tail"] = tensors["head"]
    write_tensors(path, tensors)
    sealed_again(run)
    with pytest.raises(CheckpointError, match=r"'vocab' does not fit the model: .*(head|tail)"):
        load_model(run)


def test_another_pretrained_part_behind_the_same_id_is_refused(run):
    manifest = read_manifest(run)
    manifest["components"]["backbone"]["digest"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"'backbone' comes from .* not those the run was trained with"):
        load_model(run)


@pytest.mark.parametrize("name", ["../outside.txt", "components/../../outside.txt", "/etc/hostname", "parts/link"])
def test_a_file_outside_of_the_folder_is_refused(run, name, tmp_path):
    target = run.parent / "outside.txt"
    target.write_text("x")
    if name == "parts/link":
        (run / "parts").mkdir()
        (run / "parts" / "link").symlink_to(target)
    manifest = read_manifest(run)
    manifest["files"][name] = {"bytes": 1, "sha256": sha256_of_file(target)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="names a file outside of it"):
        load_model(run)


# -- code -----------------------------------------------------------------------------------------------------------

PART = """
import pathlib
pathlib.Path(__file__).with_suffix(".ran").write_text("yes")
from omniloom.projectors.dense import MLP
class Mine(MLP):
    pass
MODALITY = dict(payload="image")
"""


def with_code(run, place: str, **extra):
    """The run with a part of its own in `place`, as one who brings code would seal it."""
    path = (run / place).resolve()
    path.parent.mkdir(exist_ok=True)
    path.write_text(PART)
    values = yaml.safe_load((run / "run.yaml").read_text())
    values["modalities"]["image"]["in"]["projector"][1] = {"type": f"{place}:Mine"}
    (run / "run.yaml").write_text(yaml.safe_dump({**values, **extra}))
    manifest = read_manifest(run)
    if place.startswith("parts/"):
        manifest["files"][place] = {}
    (run / "manifest.json").write_text(json.dumps(manifest))
    sealed_again(run)
    return path


def test_code_that_a_run_brings_is_not_run_unless_allowed(run):
    path = with_code(run, "parts/mine.py")
    with pytest.raises(CheckpointError, match=r"Python code of its own \(parts/mine.py\).*allow_code"):
        load_model(run)
    assert not path.with_suffix(".ran").exists()
    model, _ = load_model(run, allow_code=True)
    assert path.with_suffix(".ran").exists() and type(model.parts["image/projector2"]).__name__ == "Mine"


@pytest.mark.parametrize("place", ["../evil.py", "evil.py"])
@pytest.mark.parametrize("allow_code", [False, True])
def test_code_that_the_manifest_does_not_hold_is_never_run(run, place, allow_code):
    path = with_code(run, place)
    with pytest.raises(CheckpointError, match="Python code that the manifest does not hold"):
        load_model(run, allow_code=allow_code)
    assert not path.with_suffix(".ran").exists()
    path.unlink()


@pytest.mark.parametrize("how", ["use", "extends", "data", "option"])
def test_no_way_around_runs_code(run, how):
    (run / "evil.py").write_text(PART)
    (run / "base.yaml").write_text(yaml.safe_dump({"modalities": {"image": {"use": "./evil.py"}}}))
    values = yaml.safe_load((run / "run.yaml").read_text())
    if how == "use":
        values["modalities"]["touch"] = {"use": "./evil.py"}
    elif how == "extends":
        values["extends"] = "base.yaml"
    elif how == "data":
        values["data"]["things"] = {"type": "./evil.py:Mine"}
    else:
        values["modalities"]["talk"] = {
            "payload": "audio",
            "out": {"generator": {"type": "voice", "voice": "./evil.py:Mine"}},
        }
    (run / "run.yaml").write_text(yaml.safe_dump(values))
    sealed_again(run)
    with pytest.raises(CheckpointError, match=r"not resolved|manifest does not hold"):
        load_model(run, allow_code=True)
    assert not (run / "evil.ran").exists()


def test_nothing_is_unpickled_on_the_way(trained, monkeypatch):
    watching = [False]

    def hook(event, args):
        if watching[0] and event == "pickle.find_class":
            raise AssertionError(f"unpickles {args}")

    sys.addaudithook(hook)

    def refuse(*args, **kwargs):
        raise AssertionError("a load path unpickles")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    watching[0] = True
    try:
        load_model(trained)
    finally:
        watching[0] = False


def test_a_run_file_that_cannot_be_built_is_a_broken_checkpoint(run):
    values = yaml.safe_load((run / "run.yaml").read_text())
    values["modalities"]["image"]["in"]["encoder"]["patch_px"] = 7
    (run / "run.yaml").write_text(yaml.safe_dump(values))
    sealed_again(run)
    with pytest.raises(CheckpointError, match="cannot be built"):
        load_model(run)


def test_composing_is_not_loading(trained, omni_folder):
    """The weights come from the files and not from the seed."""
    model, config = load_model(trained)
    fresh = compose(config, base=trained)
    assert not torch.equal(model.vocab.head, fresh.vocab.head)
    assert raw_of("image", 0).shape == (3, 16, 16)
