"""A run that begins with the weights of another."""

from __future__ import annotations

import pytest
import torch
import yaml

from omniloom.checkpoint import begin_with, save_model
from omniloom.config import load_run
from omniloom.errors import CheckpointError, MissingAssetError
from omniloom.model import compose
from tests.examples import example_values, write_example


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """(folder of the run file, run folder) of a saved example whose weights are its own."""
    base = write_example(tmp_path_factory.mktemp("before"))
    config = load_run(base / "run.yaml").config
    model = compose(config, base=base)
    with torch.no_grad():
        for _, _, value in model.named_component_parameters():
            value.add_(0.25)
    save_model(model, config, base / "saved", trained=model.components())
    return base, base / "saved"


def begun(base, **changes):
    (base / "next.yaml").write_text(yaml.safe_dump({**example_values(), **changes}))
    config = load_run(base / "next.yaml").config
    model = compose(config, base=base)
    return model, begin_with(model, config, base)


def test_what_init_names_begins_as_it_was_and_the_rest_anew(before):
    base, _ = before
    old = compose(load_run(base / "run.yaml").config, base=base)
    model, filled = begun(base, init={"image/*": "./saved"})
    assert filled == {"image/encoder", "image/projector"}
    for component, values in model.components().items():
        for name, value in values.items():
            was = old.components()[component][name]
            torch.testing.assert_close(value, was + 0.25 if component in filled else was, rtol=0, atol=0)


def test_a_later_glob_overrides_an_earlier_one_and_all_may_be_taken(before):
    base, _ = before
    _, filled = begun(base, init={"*": "./saved"})
    assert {"backbone", "lora", "vocab", "drawing/codec"} <= filled


def test_codes_of_a_new_modality_stand_behind_the_known_ones(before):
    base, _ = before
    run = example_values()["modalities"]
    run["sketch"] = run["drawing"]
    model, _ = begun(base, modalities=run, init={"vocab": "./saved"})
    plain, _ = begun(base, init={"vocab": "./saved"})
    rows = plain.vocab.embedding.shape[0]
    assert model.vocab.embedding.shape[0] > rows
    assert torch.equal(model.vocab.embedding[:rows], plain.vocab.embedding)
    assert torch.equal(model.vocab.head[:rows], plain.vocab.head)


def test_a_glob_that_names_nothing_and_weights_of_another_shape_are_refused(before):
    base, _ = before
    with pytest.raises(CheckpointError, match=r"init 'imagee/\*'.*no component of that name"):
        begun(base, init={"imagee/*": "./saved"})
    run = example_values()["modalities"]
    run["motion"]["in"]["projector"] = {"type": "mlp", "hidden": 7}
    with pytest.raises(CheckpointError, match=r"motion/projector.*does not fit"):
        begun(base, modalities=run, init={"motion/projector": "./saved"})


def test_a_start_that_is_neither_a_run_nor_a_model_says_both(before):
    base, _ = before
    with pytest.raises(MissingAssetError, match=r"'saved2' is neither a run folder here \(write ./ before one\) nor"):
        begun(base, init={"image/projector": "saved2"})


def test_own_parameters_of_a_new_modality_are_its_own_and_the_shared_ones_are_taken(before):
    base, _ = before
    run = example_values()["modalities"]
    queries = {"room": "projectors", "type": "qformer", "queries": 2, "width": 16, "depth": 1, "heads": 2}
    shared = {"queries": {**queries, "own_queries": True}}
    run["image"]["in"]["projector"] = {"component": "queries"}
    (base / "shared.yaml").write_text(yaml.safe_dump({**example_values(), "modalities": run, "components": shared}))
    config = load_run(base / "shared.yaml").config
    model = compose(config, base=base)
    save_model(model, config, base / "shared", trained=model.components())
    run["motion"]["in"]["projector"] = {"component": "queries"}
    grown, filled = begun(base, modalities=run, components=shared, init={"queries": "./shared"})
    assert filled == {"queries"}
    mine, theirs = grown.components()["queries"], model.components()["queries"]
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [name for name in mine if name not in theirs] and all("own.motion" in n for n in mine if n not in theirs)
