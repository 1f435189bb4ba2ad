"""Runs composed of runs that were trained apart: adapters merged, side by side and routed, experts put together."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
import yaml

from omniloom.checkpoint import begin_with, load_model, save_model
from omniloom.config import load_run, problems
from omniloom.errors import CheckpointError, ConfigError
from omniloom.model import compose
from omniloom.sequence import Text
from omniloom.testing.doubles import tiny_language_model
from omniloom.train import train
from tests.examples import asked, drawing, example_values, logits_of, media, write_example
from tests.interaction.laws import stir

LORA = {"type": "lora", "rank": 2, "targets": ["*.q_proj", "*.up_proj"]}
MOE = {"type": "moe_ffn", "experts": 2, "route": {"text": [1]}, "balance": 0.0, "layers": [0, 1]}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    asked(drawing(2), Text("x")),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("composed"))


def built(base, **changes):
    """(model, its settings) of the example with these keys laid over it."""
    (base / "made.yaml").write_text(yaml.safe_dump({**example_values(), **changes}))
    config = load_run(base / "made.yaml").config
    return compose(config, base=base), config


def branch(base, name, seed, trained=None, **adapters):
    """A saved run whose adapters (or `trained` components) have weights of their own; its model."""
    model, config = built(base, adapters=adapters)
    stir(model, *(trained or adapters), seed=seed, scale=0.2 if trained else 0.5)
    save_model(model, config, base / name, trained=trained or model.components())
    return model


def begun(base, init, **adapters):
    model, config = built(base, adapters=adapters, init=init)
    begin_with(model, config, base)
    return model


def same(ours, theirs, samples=SAMPLES):
    plans = [theirs.planner.plan(sample) for sample in samples]
    return all(torch.equal(logits_of(ours, plan)[0], logits_of(theirs, plan)[0]) for plan in plans)


@pytest.fixture(scope="module")
def two(base):
    """Two runs with one plain adapter each."""
    return [branch(base, name, seed, lora=LORA) for name, seed in (("a", 1), ("b", 2))]


@pytest.mark.parametrize("merge", ["average", "sum", "ties"])
def test_one_run_merged_answers_as_it_did(base, two, merge):
    model = begun(base, {"lora": {"of": ["./a"], "merge": merge, "density": 1.0}}, lora=LORA)
    assert same(model, two[0]) and not same(model, two[1])


def test_two_runs_are_merged_into_one_adapter_by_their_weights(base, two):
    model = begun(base, {"lora": {"of": ["./a", "./b"], "merge": "average", "weights": [1, 3]}}, lora=LORA)
    for name, value in model.components()["lora"].items():
        parts = [one.components()["lora"][name] for one in two]
        torch.testing.assert_close(value, parts[0] / 4 + parts[1] * 3 / 4)


@pytest.mark.parametrize("text", ["average", "ties", "side by side"])
def test_composed_by_kind_of_slot_a_branch_sees_its_own_modality_as_it_did(base, text):
    """DAMC: each modality's slots keep their own adapter, those of text are merged; of one run that run comes back."""

    def adapters(name):
        return {"modal": {**LORA, "routes": [name]}, "words": {**LORA, "routes": ["text"]}}

    runs = {name: branch(base, f"{name}-run", seed, **adapters(name)) for name, seed in (("image", 1), ("sound", 2))}

    def composed(*names):
        init = {f"{name}_modal": {"of": f"./{name}-run", "component": "modal"} for name in names}
        made = {f"{name}_modal": {**LORA, "routes": [name]} for name in names}
        words = {**LORA, "routes": ["text"]}
        if text == "side by side":
            words["merged"] = {name: 1 / len(names) for name in names}
            init["words"] = {"of": {name: f"./{name}-run" for name in names}}
        else:
            init["words"] = {"of": [f"./{name}-run" for name in names], "merge": text, "density": 1.0}
        return begun(base, init, **made, words=words)

    assert same(composed("image"), runs["image"])
    both = composed("image", "sound")
    for name, run in runs.items():
        mine, theirs = both.components()[f"{name}_modal"].values(), run.components()["modal"].values()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_side_by_side_is_the_sum_of_updates_and_not_of_their_factors(base, two):
    """An average of factors is another matrix than the average of products."""
    model = begun(base, {"lora": {"of": {"x": "./a", "y": "./b"}}}, lora={**LORA, "merged": {"x": 0.5, "y": 0.5}})
    path, x = "lm.model.layers.0.self_attn.q_proj", torch.randn(1, 3, 32)
    parts = [one.backbone.get_submodule(path).adapters["lora"](x, None) for one in two]
    torch.testing.assert_close(model.backbone.get_submodule(path).adapters["lora"](x, None), (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("kind", ["lora", "lora_experts"])
@pytest.mark.parametrize("start", ["./quiet", {"of": ["./quiet"], "merge": "average"}, "branch"])
def test_an_update_is_as_large_as_it_was_under_another_alpha(base, kind, start):
    if (kind, start) == ("lora_experts", "branch"):
        pytest.skip("it has no branches")
    spec = {**LORA, "type": kind}
    quiet = branch(base, "quiet", 1, mine={**spec, "alpha": 1.0})
    if start == "branch":
        start, spec = {"of": {"x": "./quiet"}}, {**spec, "merged": {"x": 1.0}}
    model = begun(base, {"mine": start}, mine={**spec, "alpha": 8.0})
    plain, _ = built(base)
    for sample in SAMPLES:
        plan = quiet.planner.plan(sample)
        ours, theirs, before = (logits_of(one, plan)[0] for one in (model, quiet, plain))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert (theirs - before).abs().max() > 1e-2


def test_an_adapter_that_is_switched_off_takes_weights_as_they_are(base, two):
    model = begun(base, {"lora": "./a"}, lora={**LORA, "alpha": 0.0})
    theirs = two[0].components()["lora"]
    assert all(torch.equal(value, theirs[name]) for name, value in model.components()["lora"].items())


def test_runs_of_different_alpha_are_merged_as_large_as_each_was(base, two):
    loud = branch(base, "loud", 3, lora={**LORA, "alpha": 64.0}).components()["lora"]
    model = begun(base, {"lora": {"of": ["./a", "./loud"], "merge": "sum"}}, lora=LORA)
    for name, value in model.components()["lora"].items():
        factor = 4.0 if name.endswith(".up") else 1.0
        torch.testing.assert_close(value, two[0].components()["lora"][name] + factor * loud[name])


@pytest.mark.parametrize("merge", ["sum", "ties"])
def test_of_trained_language_models_what_training_changed_is_merged(base, merge):
    one, other = (branch(base, f"tuned-{seed}", seed, trained=["backbone"]) for seed in (5, 6))
    alone = begun(base, {"backbone": {"of": ["./tuned-5"], "merge": merge, "density": 1.0}})
    plain = built(base)[0].components()["backbone"]
    both = begun(base, {"backbone": {"of": ["./tuned-5", "./tuned-6"], "merge": merge, "density": 1.0}})
    for name, before in plain.items():
        first, second = one.components()["backbone"][name] - before, other.components()["backbone"][name] - before
        torch.testing.assert_close(alone.components()["backbone"][name], before + first, atol=1e-6, rtol=1e-6)
        if merge == "sum":
            torch.testing.assert_close(both.components()["backbone"][name], before + first + second)
        else:
            assert (both.components()["backbone"][name] - before).abs().max() <= (first.abs() + second.abs()).max()
    # An earlier glob that fills it first is no part of the sum.
    entry = {"of": ["./tuned-5", "./tuned-6"], "merge": merge, "density": 1.0}
    again = begun(base, {"*": "./tuned-5", "backbone": entry}).components()["backbone"]
    assert all(torch.equal(again[name], value) for name, value in both.components()["backbone"].items())
    with pytest.raises(ConfigError, match=r"'image/projector' began at random.*average"):
        begun(base, {"image/projector": {"of": ["./tuned-5", "./tuned-6"], "merge": merge}})


def test_runs_of_another_language_model_are_not_taken_for_runs_of_this_one(base, two):
    tiny_language_model(base / "another", seed=9)
    here = example_values()["backbone"]
    model, config = built(base, adapters={"lora": LORA}, backbone={**here, "id": "./another"})
    save_model(model, config, base / "foreign", trained=["lora"])
    message = r"had .*another.* as its 'backbone', this one .*language-model"
    with pytest.raises(CheckpointError, match=message):
        begun(base, {"*": "./foreign"}, lora=LORA)
    with pytest.raises(CheckpointError, match=message):
        begun(base, {"lora": {"of": ["./a", "./foreign"], "merge": "average"}}, lora=LORA)
    begun(base, {"lora": "./foreign"}, lora=LORA)  # named by itself it may go anywhere
    # The same weights in another folder are the same language model.
    shutil.copytree(base / "language-model", base / "copied")
    model, config = built(base, adapters={"lora": LORA}, backbone={**here, "id": "./copied"})
    save_model(model, config, base / "moved", trained=["lora"])
    begun(base, {"*": "./moved"}, lora=LORA)
    # In another dtype its weights are other numbers, and nothing is said of them.
    wide, config = built(base, adapters={"lora": LORA}, backbone={**here, "dtype": "float64"}, init={"*": "./moved"})
    begin_with(wide, config, base)


def test_an_expert_is_a_language_model_whose_feed_forward_was_trained(base):
    run = branch(base, "tuned", 5, trained=["backbone"])
    model = begun(
        base, {"backbone": "./tuned", "experts": {"of": {"1": "./tuned"}, "component": "backbone"}}, experts=MOE
    )
    plan = run.planner.plan(SAMPLES[0])  # text alone, whose slots take expert 1
    torch.testing.assert_close(logits_of(model, plan)[0], logits_of(run, plan)[0], rtol=0, atol=1e-5)
    plain = begun(base, {"backbone": "./tuned"}, experts=MOE)
    assert (logits_of(plain, plan)[0] - logits_of(run, plan)[0]).abs().max() > 1e-3


def test_an_expert_is_the_only_one_of_another_mixture(base):
    one = branch(base, "one", 3, only={"type": "moe_ffn", "experts": 1, "top_k": 1})
    model = begun(base, {"experts": {"of": {"0": "./one"}, "component": "only"}}, experts=MOE)
    theirs, ours = one.components()["only"], model.components()["experts"]
    copied = [name for name in ours if ".experts.0." in name]
    assert len(copied) == sum(".experts.0." in name for name in theirs) > 0
    for name in copied:
        assert torch.equal(ours[name], theirs[name.replace(".adapters.experts.", ".adapters.only.")])
        assert not torch.equal(ours[name], ours[name.replace(".experts.0.", ".experts.1.")])


@pytest.mark.parametrize(
    ("init", "adapters", "error", "message"),
    [
        ({"lora": {"of": {"z": "./a"}}}, {"lora": LORA}, ConfigError, "'lora' has no branch 'z'"),
        (
            {"experts": {"of": {"2": "./a"}, "component": "lora"}},
            {"experts": MOE},
            ConfigError,
            "experts 0 to 1, no '2'",
        ),
        ({"experts": {"of": {"0": "./a"}, "component": "lora"}}, {"experts": MOE}, CheckpointError, "hold nothing"),
        (
            {"experts": {"of": {"0": "./c"}, "component": "backbone"}},
            {"experts": MOE},
            CheckpointError,
            "never trained",
        ),
        ({"image/projector": {"of": {"0": "./a"}}}, {"lora": LORA}, ConfigError, "only adapters have places inside"),
        ({"lora": {"of": "./a", "component": "lorra"}}, {"lora": LORA}, CheckpointError, "Did you mean 'lora'"),
        (
            {"lora": {"of": {"x": "./a"}}},
            {"lora": {**LORA, "targets": ["*.q_proj"], "merged": {"x": 1.0}}},
            CheckpointError,
            "up_proj.* is on one side only",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(base, two, init, adapters, error, message):
    if init.get("experts", {}).get("of") == {"0": "./c"}:
        branch(base, "c", 1, trained=["lora"], lora=LORA)
    with pytest.raises(error, match=message):
        begun(base, init, **adapters)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"of": ["./a", "./b"]}, "`merge` .* goes with"),
        ({"of": "./a", "merge": "ties"}, "`merge` .* goes with"),
        ({"of": []}, "must be a run folder, a list of them"),
        ({"of": ["./a", "./b"], "merge": "sum", "weights": [1]}, "2 runs need as many weights"),
        ({"of": {"0": "./a"}, "weights": [1]}, "alone"),
        ({"of": ["./a"], "merge": "median"}, "median"),
        ({"of": ["./a"], "merge": "ties", "density": 0}, "density"),
    ],
)
def test_an_entry_that_means_nothing_is_named_in_the_file(base, entry, message):
    (base / "wrong.yaml").write_text(yaml.safe_dump({**example_values(), "init": {"lora": entry}}))
    (problem,) = problems(base / "wrong.yaml")
    assert "init" in str(problem)
    assert re.search(message, str(problem)), str(problem)


def test_a_run_without_stages_is_the_composed_model_saved_and_moves_with_its_paths(base, two):
    init = {"lora": {"of": ["./a", "./b"], "merge": "sum"}}
    (base / "sum.yaml").write_text(yaml.safe_dump({**example_values(), "adapters": {"lora": LORA}, "init": init}))
    folder = train(load_run(base / "sum.yaml"), out=base / "deep" / "er" / "sum")
    assert load_run(folder / "run.yaml").config.init["lora"].of == ["../../../a", "../../../b"]
    model, _ = load_model(folder)
    for name, value in model.components()["lora"].items():
        assert torch.equal(value, sum(one.components()["lora"][name] for one in two))
