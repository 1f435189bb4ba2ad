"""From a run's configuration to a model: names, wiring, shared parts, seeds, refusals."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, MissingAssetError
from omniloom.model import compose
from omniloom.model.compose import place
from omniloom.sequence import Sample, Text
from tests.examples import asked, config_of, example_values, media


def composed(folder, **changes):
    return compose(config_of(folder, **changes), base=folder)


def with_row(name, **changes):
    rows = example_values()["modalities"]
    rows[name] = {**rows[name], **changes}
    return {"modalities": rows}


def test_components_are_named_by_their_place(stock, omni_folder):
    config = config_of(omni_folder)
    assert set(stock.components()) == set(config.component_names)
    assert {
        "backbone",
        "image/encoder",
        "image/projector",
        "sound/projector1",
        "drawing/codec",
        "vocab",
        "lora",
    } <= set(stock.components())


def test_the_same_run_gives_the_same_weights_and_another_seed_others(omni_folder):
    first, second, other = composed(omni_folder), composed(omni_folder), composed(omni_folder, seed=5)
    pairs = zip(first.named_component_parameters(), second.named_component_parameters(), strict=True)
    assert all(torch.equal(a[2], b[2]) for a, b in pairs)
    differs = {
        component
        for (component, _, a), (_, _, b) in zip(
            first.named_component_parameters(), other.named_component_parameters(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert differs == {name for name, values in first.components().items() if values} - {"backbone"}


def test_composing_leaves_the_random_state_alone(omni_folder):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    composed(omni_folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_part_keeps_its_weights_when_another_is_added(omni_folder):
    rows = example_values()["modalities"]
    alone = composed(omni_folder, modalities={"sound": rows["sound"]}, adapters={})
    whole = composed(omni_folder)
    for name in ("sound/encoder", "sound/projector2"):
        for key, value in alone.components()[name].items():
            assert torch.equal(value, whole.components()[name][key])


def test_a_shared_component_is_one_module(omni_folder):
    rows = example_values()["modalities"]
    for name in ("image", "motion"):
        rows[name]["in"]["projector"] = {"component": "bridge"}
    model = composed(omni_folder, modalities=rows, components={"bridge": {"room": "projectors", "type": "mlp"}})
    assert model.inputs["image"][1] == model.inputs["motion"][1] == ("bridge",)
    assert model.rows["image"].input.chain[0] is model.rows["motion"].input.chain[0] is model.parts["bridge"]
    assert "image/projector" not in model.components()


def test_a_shared_component_of_another_width_is_refused(omni_folder):
    rows = example_values()["modalities"]
    rows["image"]["in"]["projector"] = rows["points"]["in"]["projector"] = {"component": "bridge"}
    rows["points"]["in"]["encoder"]["width"] = 16
    rows["points"]["in"]["encoder"]["heads"] = 2
    with pytest.raises(ConfigError, match="'bridge' takes rows of width 32, points/projector gives 16"):
        composed(omni_folder, modalities=rows, components={"bridge": {"room": "projectors", "type": "mlp"}})


def test_a_chain_that_ends_at_another_width_is_refused(omni_folder):
    row = example_values()["modalities"]["sound"]["in"]
    with pytest.raises(ConfigError, match="projectors of 'sound' end at width 64, the language model takes 32"):
        composed(omni_folder, **with_row("sound", **{"in": {**row, "projector": [{"type": "stack", "factor": 2}]}}))


def test_a_language_model_that_is_not_there_is_a_missing_asset(omni_folder):
    with pytest.raises(MissingAssetError, match=r"backbone: there is no file or folder .*nowhere"):
        composed(omni_folder, backbone={"type": "causal_lm", "id": "./nowhere"})


def test_random_weights_of_the_true_class_need_no_weights(omni_folder):
    with torch.random.fork_rng():
        model = compose(config_of(omni_folder), base=omni_folder, weights=False)
    stock = compose(config_of(omni_folder), base=omni_folder)
    ours, theirs = dict(model.backbone.named_parameters()), dict(stock.backbone.named_parameters())
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    assert not torch.equal(ours["lm.model.embed_tokens.weight"], theirs["lm.model.embed_tokens.weight"])


def test_it_composes_on_the_meta_device(omni_folder):
    with torch.device("meta"):
        model = compose(config_of(omni_folder), base=omni_folder, weights=False)
    assert all(value.is_meta for value in model.parameters())


def test_slots_and_context_of_the_run_reach_the_planner(omni_folder):
    row = example_values()["modalities"]["image"]["in"]
    slots = {"max": 3, "over": "resample"}
    model = composed(
        omni_folder, context={"max": 40, "over": "end"}, **with_row("image", **{"in": {**row, "slots": slots}})
    )
    assert (model.planner.max_length, model.planner.overflow) == (40, "end")
    assert model.planner.plan(asked(media("image"))).items[0].keep == (0, 2, 3)


def test_markers_of_a_row_stand_around_its_items(omni_folder):
    model = composed(omni_folder, **with_row("motion", markers=["[m]", "[/m]"]))
    plan = model.planner.plan(asked(Text("a"), media("motion"), Text("b")))
    item = plan.items[0]
    before, after = plan.ids[0, : item.start].tolist(), plan.ids[0, item.start + item.length :].tolist()
    assert model.planner.decode(before).endswith("a[m]") and model.planner.decode(after).startswith("[/m]b")


def test_relative_folders_start_at_the_run_and_ids_stay(tmp_path):
    assert place("./model", tmp_path) == str((tmp_path / "model").resolve())
    assert place("../model", tmp_path) == str((tmp_path.parent / "model").resolve())
    assert [place(name, tmp_path) for name in ("org/model", "starter:lm", "/models/x")] == [
        "org/model",
        "starter:lm",
        "/models/x",
    ]


def test_a_generator_of_an_output_is_a_tool_and_no_slot(omni_folder):
    rows = {**example_values()["modalities"], "speech": {"payload": "audio", "out": {"generator": {"type": "voice"}}}}
    model = composed(omni_folder, modalities=rows)
    assert set(model.tools) == {"speech"} and set(model.vocabulary.blocks) == {"drawing"}
    assert model.planner.plan(Sample("s", asked(Text("x")).turns)).modalities[-1] == "speech"


def test_parts_inside_parts_start_at_the_run_as_well(omni_folder):
    """Two encoders on one sound: their specs stand in a list, and one is a class of a file beside the run."""
    source = "from omniloom.encoders.log_mel_conv import LogMelConv\n\n\nclass Other(LogMelConv):\n    pass\n"
    (omni_folder / "inner_part.py").write_text(source)
    rows = example_values()["modalities"]
    mel = {"num_mels": 16, "width": 32, "depth": 1, "heads": 2, "conv_width": 8}
    sound = rows["sound"]["in"]
    sound["processor"] = {"type": "together", "processors": [sound["processor"], sound["processor"]]}
    encoders = [{"type": "log_mel_conv", **mel}, {"type": "inner_part.py:Other", **mel}]
    sound["encoder"] = {"type": "together", "encoders": encoders}
    model = composed(omni_folder, modalities=rows)
    assert type(model.parts["sound/encoder"].parts[1]).__name__ == "Other"
    assert model.parts["sound/encoder"].out_dim == 64
