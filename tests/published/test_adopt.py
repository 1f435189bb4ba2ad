"""Taking a published model over: what the run folder holds, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file

import omniloom
from omniloom.checkpoint import adopt, load_model, read_manifest
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.train import train
from tests.published.models import picture, stirred, write
from tests.published.test_llava import PROCESSOR, TEMPLATE, config


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a LLaVA, and the run it became."""
    folder = tmp_path_factory.mktemp("adopted")
    theirs = stirred(transformers.LlavaForConditionalGeneration(config()))
    write(folder / "llava", theirs, ["<image>"], TEMPLATE, preprocessor_config=PROCESSOR)
    adopt(str(folder / "llava"), folder / "runs" / "mine")
    return folder


def changed(home, tmp_path, change):
    """A copy of the published folder whose tensors and configuration were changed."""
    shutil.copytree(home / "llava", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    change(tensors, values)
    save_file(tensors, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    (tmp_path / "copy" / "config.json").write_text(json.dumps(values))
    return str(tmp_path / "copy")


def test_language_model_and_tower_are_named_and_the_projector_is_saved(home):
    run = home / "runs" / "mine"
    manifest = read_manifest(run)
    saved = {name: facts["saved"] for name, facts in manifest["components"].items()}
    assert saved == {"backbone": False, "image/encoder": False, "image/projector": True}
    values = yaml.safe_load((run / "run.yaml").read_text())
    assert values["name"] == "mine" and values["backbone"]["id"] == "../../llava"
    assert values["modalities"]["image"]["markers"] == ["", "\n"]
    assert list((run / "components").rglob("*.safetensors")) == [
        run / "components" / "image" / "projector" / "weights.safetensors"
    ]


def test_folder_and_model_may_move_together(home, tmp_path):
    shutil.copytree(home, tmp_path / "elsewhere")
    model, _ = load_model(tmp_path / "elsewhere" / "runs" / "mine")
    assert not any(value.requires_grad for value in model.parameters())


def test_a_model_that_changed_since_is_refused(home, tmp_path):
    shutil.copytree(home, tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / "llava" / "model.safetensors"
    tensors = load_file(path)
    tensors["language_model.model.norm.weight"] += 1
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="'backbone' comes from"):
        load_model(tmp_path / "elsewhere" / "runs" / "mine")


def test_it_chats(home, tmp_path):
    Pillow.fromarray(picture(1).pixels).save(tmp_path / "cat.png")
    omni = omniloom.load(home / "runs" / "mine")
    answer = omni.chat([tmp_path / "cat.png", "What is this?"], max_new=4)
    assert answer.finish in ("stop", "length")


def test_its_projector_trains_on_and_the_rest_stays_as_published(home, tmp_path):
    shutil.copytree(home, tmp_path / "elsewhere")
    base = tmp_path / "elsewhere"
    for label, colour in (("red", (220, 20, 20)), ("blue", (20, 20, 220))):
        (base / "data" / label).mkdir(parents=True)
        for index in range(4):
            pixels = np.full((16, 16, 3), colour, np.uint8) + np.uint8(index)
            Pillow.fromarray(pixels).save(base / "data" / label / f"{index}.png")
    values = yaml.safe_load((base / "runs" / "mine" / "run.yaml").read_text())
    stage = {"name": "tune", "train": ["image/projector"], "data": {"colours": 1.0}, "steps": 4, "batch": 4, "lr": 0.01}
    source = {"type": "folder", "path": "../data", "modality": "image", "prompt": "Which colour?"}
    values |= {"name": "tuned", "threads": 1, "init": {"image/projector": "./mine"}, "stages": [stage]}
    values["backbone"]["id"] = values["modalities"]["image"]["in"]["processor"]["id"] = "../llava"
    values["modalities"]["image"]["in"]["encoder"]["id"] = "../llava"
    (base / "runs" / "tuned.yaml").write_text(yaml.safe_dump({**values, "data": {"colours": source}}))
    train(base / "runs" / "tuned.yaml", out=base / "tuned")
    before, after = (load_model(folder)[0].components() for folder in (base / "runs" / "mine", base / "tuned"))
    for name, tensors in before.items():
        is_same = all(torch.equal(value, after[name][key]) for key, value in tensors.items())
        assert is_same == (name != "image/projector")


def test_a_model_whose_weights_lie_in_parts_is_taken_over_as_well(home, tmp_path):
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(home / "llava")
    shutil.copytree(home / "llava", tmp_path / "parts", ignore=shutil.ignore_patterns("*.safetensors"))
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1
    whole, _ = load_model(home / "runs" / "mine")
    parts, _ = load_model(adopt(str(tmp_path / "parts"), tmp_path / "run"))
    for name, values in whole.components().items():
        assert all(torch.equal(value, parts.components()[name][key]) for key, value in values.items())
    (tmp_path / "parts" / "model.safetensors.index.json").unlink()
    with pytest.raises(MissingAssetError):
        adopt(str(tmp_path / "parts"), tmp_path / "other")


def test_a_folder_that_is_there_is_left_alone(home):
    with pytest.raises(ConfigError, match="is there already"):
        adopt(str(home / "llava"), home / "runs" / "mine")


def test_a_family_that_is_not_known_is_told(home, tmp_path):
    def change(tensors, values):
        values["model_type"] = "qwen2"

    with pytest.raises(ConfigError, match="is a 'qwen2', which cannot be taken over"):
        adopt(changed(home, tmp_path, change), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, values: tensors.pop("multi_modal_projector.linear_2.bias"), "hold 0 tensors"),
        (lambda tensors, values: tensors.update({"multi_modal_projector.linear_1.bias": torch.zeros(5)}), r"\(5,\)"),
        (lambda tensors, values: tensors.update({"x.multi_modal_projector.linear_1.bias": torch.zeros(32)}), "hold 2"),
        (lambda tensors, values: tensors.pop("language_model.model.norm.weight"), "parameters of its language model"),
        (lambda tensors, values: tensors.pop("language_model.lm_head.weight"), "parameters of its language model"),
    ],
    ids=["missing", "shape", "twice", "norm", "head"],
)
def test_weights_that_do_not_fill_every_part_are_refused(home, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        adopt(changed(home, tmp_path, change), tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vision_feature_layer", [-2, -1], "side by side"),
        ("multimodal_projector_bias", False, "no biases"),
        ("projector_hidden_act", "quick_gelu", "'activation' is 'quick_gelu'"),
    ],
)
def test_what_our_parts_cannot_do_is_told(home, tmp_path, key, value, message):
    def change(tensors, values):
        values[key] = value

    with pytest.raises(ConfigError, match=message):
        adopt(changed(home, tmp_path, change), tmp_path / "run")


def test_the_language_model_may_be_in_another_dtype(home, tmp_path):
    run = adopt(str(home / "llava"), tmp_path / "run", dtype="bfloat16", name="half")
    model, settled = load_model(run)
    assert settled.name == "half" and model.backbone.embedding_table().dtype == torch.bfloat16
    plan = model.planner.plan(omniloom.sequence.Sample("s", (omniloom.sequence.Turn("user", ()),)), ask=True)
    assert model.hidden(plan).dtype == torch.bfloat16
