"""Models composed without training: merged states, adapters side by side."""

from __future__ import annotations

import pytest
import torch

from omniloom.checkpoint.tensors import assign_strict, digest_of
from omniloom.errors import CheckpointError, ConfigError
from omniloom.interaction.composition import as_branches, damc, merge, naive, renamed
from omniloom.sequence import Text
from tests.examples import asked, drawing, logits_of, media
from tests.interaction.laws import model_with, stir

LORA = {"type": "lora", "rank": 2, "targets": ["*.q_proj", "*.up_proj"]}
SAMPLES = [
    asked(Text("plain")),
    asked(Text("see"), media("image", 1), Text("and"), media("sound", 1), Text("both")),
    asked(drawing(2), Text("x")),
]


def state_of(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    state = {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}
    state["b"][0] = -0.0
    return {name: value.to(dtype) for name, value in state.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["average", "sum", "ties"])
def test_one_branch_merged_is_that_branch_bit_for_bit(how, dtype):
    state = state_of(0, dtype)
    assert digest_of(merge([state], how, density=1.0)) == digest_of(state)
    assert digest_of(merge([state], "average", weights=[0.3])) == digest_of(state)


def test_averages_and_sums_follow_the_weights():
    one, two = state_of(0), state_of(1)
    for name, value in merge([one, two]).items():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2)
    for name, value in merge([one, two], weights=[1, 3]).items():
        torch.testing.assert_close(value, one[name] / 4 + two[name] * 3 / 4)
    for name, value in merge([one, two], "sum", weights=[0.5, -1]).items():
        torch.testing.assert_close(value, one[name] / 2 - two[name])


def test_groups_of_tensors_have_weights_of_their_own():
    one, two = state_of(0), state_of(1)
    merged = merge([one, two], "sum", groups={"b*": [0, 1]})
    assert torch.equal(merged["b"], two["b"] + 0) and torch.equal(merged["a"], one["a"] + two["a"])


def test_ties_keeps_the_largest_of_each_elects_a_sign_and_averages_what_agrees():
    """By hand. Half of six values stay: 6, -5, 4 of the first, -9, 3, 2 of the second; signs by sum: - - + + + ."""
    one = {"w": torch.tensor([6.0, -5.0, 0.5]), "v": torch.tensor([4.0, 0.1, 0.2])}
    two = {"w": torch.tensor([-9.0, 0.3, 0.4]), "v": torch.tensor([2.0, 3.0, -0.1])}
    merged = merge([one, two], "ties", density=0.5)
    assert merged["w"].tolist() == [-9.0, -5.0, 0.0]
    assert merged["v"].tolist() == [3.0, 3.0, 0.0]


def test_ties_takes_the_sign_of_the_majority_where_values_cancel():
    one, two = {"w": torch.tensor([2.0, -1.0, -1.0])}, {"w": torch.tensor([-2.0, -1.0, -1.0])}
    assert merge([one, two], "ties", density=1.0)["w"].tolist() == [-2.0, -1.0, -1.0]


def test_what_only_one_branch_has_stays_as_it_is():
    one, two = state_of(0), {**state_of(1), "own": torch.ones(2)}
    for how in ("average", "ties"):
        assert torch.equal(merge([one, two], how, density=1.0)["own"], torch.ones(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "cannot merge 0 states"),
        (([{}], "median"), "'average', 'sum' or 'ties'"),
    ],
)
def test_merging_nothing_or_in_an_unknown_way_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        merge(*arguments)


def test_wrong_weights_densities_globs_and_shapes_are_refused():
    one, two = state_of(0), state_of(1)
    with pytest.raises(ConfigError, match="2 states are merged with 1 weights"):
        merge([one, two], weights=[1])
    with pytest.raises(ConfigError, match="density 0"):
        merge([one, two], "ties", density=0)
    with pytest.raises(ConfigError, match="'z\\*' match no tensor"):
        merge([one, two], groups={"z*": [1, 1]})
    with pytest.raises(ConfigError, match="sum to 0 have no average"):
        merge([one, two], weights=[1, -1])
    with pytest.raises(CheckpointError, match=r"a cannot be merged: its shapes are \(3, 4\), \(2, 2\)"):
        merge([one, {"a": torch.zeros(2, 2)}])


# -- models -----------------------------------------------------------------------------------------------------------


def components_of(model):
    return {name: dict(values) for name, values in model.components().items()}


def fill(model, states):
    for name, values in model.components().items():
        assign_strict(values, states[name], what=name)
    return model


def same(ours, theirs):
    plans = [theirs.planner.plan(sample) for sample in SAMPLES]
    return all(torch.equal(logits_of(ours, plan)[0], logits_of(theirs, plan)[0]) for plan in plans)


def test_one_branch_composed_naively_answers_as_it_did(omni_folder):
    branch = model_with(omni_folder, lora=LORA)
    stir(branch, "lora")
    for how in ("average", "sum"):
        states = naive({"one": components_of(branch)}, "lora", how)
        assert same(fill(model_with(omni_folder, lora=LORA), states), branch)


def test_two_branches_composed_naively_have_the_parts_of_both_and_one_merged_adapter(omni_folder):
    one, two = model_with(omni_folder, lora=LORA), model_with(omni_folder, lora=LORA)
    stir(one, "lora", seed=1), stir(two, "lora", seed=2)
    states = naive({"one": components_of(one), "two": components_of(two)}, "lora")
    model = fill(model_with(omni_folder, lora=LORA), states)
    for name, value in model.components()["lora"].items():
        torch.testing.assert_close(value, (one.components()["lora"][name] + two.components()["lora"][name]) / 2)
    with torch.no_grad():
        next(iter(two.components()["image/projector"].values())).add_(1)
    with pytest.raises(CheckpointError, match="'image/projector' of 'two' is not that of 'one'"):
        naive({"one": components_of(one), "two": components_of(two)}, "lora")


@pytest.mark.parametrize("how", ["average", "ties", "online"])
def test_composed_by_kind_of_slot_a_branch_sees_its_own_modality_as_it_did(omni_folder, how):
    """The image branch alone, then beside a sound branch: text is merged, rows of images go through its own adapter."""

    def adapters(**modal):
        text = {**LORA, "routes": ["text"]}
        if how == "online":
            text["merged"] = {name.removeprefix("modal_"): 1 / len(modal) for name in modal}
        return {**modal, "language": text}

    def trained(modality, seed):
        model = model_with(omni_folder, modal={**LORA, "routes": [modality]}, language={**LORA, "routes": ["text"]})
        stir(model, "modal", "language", seed=seed)
        return model

    image, sound = trained("image", 1), trained("sound", 2)
    states = damc({"image": components_of(image)}, "modal", "language", how, density=1.0)
    alone = model_with(omni_folder, **adapters(modal_image={**LORA, "routes": ["image"]}))
    assert same(fill(alone, states), image)
    states = damc({"image": components_of(image), "sound": components_of(sound)}, "modal", "language", how, density=1.0)
    both = model_with(
        omni_folder,
        **adapters(modal_image={**LORA, "routes": ["image"]}, modal_sound={**LORA, "routes": ["sound"]}),
    )
    fill(both, states)
    for name, branch in (("image", image), ("sound", sound)):
        mine = both.components()[f"modal_{name}"].values()
        assert all(torch.equal(a, b) for a, b in zip(mine, branch.components()["modal"].values(), strict=True))


def test_online_merging_is_the_sum_of_updates_and_not_of_their_factors(omni_folder):
    """An average of factors is another matrix than the average of products."""
    one, two = model_with(omni_folder, a=LORA), model_with(omni_folder, a=LORA)
    stir(one, "a", seed=1), stir(two, "a", seed=2)
    online = model_with(omni_folder, a={**LORA, "merged": {"x": 0.5, "y": 0.5}})
    states = {"x": one.components()["a"], "y": two.components()["a"]}
    assign_strict(online.components()["a"], as_branches(states, "a"), what="a")
    path = "lm.model.layers.0.self_attn.q_proj"
    x = torch.randn(1, 3, 32)
    parts = [model.backbone.get_submodule(path).adapters["a"](x, None) for model in (one, two)]
    torch.testing.assert_close(online.backbone.get_submodule(path).adapters["a"](x, None), (parts[0] + parts[1]) / 2)


def test_a_state_is_renamed_with_its_adapter_and_nothing_else():
    state = {"lm.q.adapters.a.down": torch.ones(1), "adapters.a.gate": torch.ones(1), "lm.adapters.ab.x": torch.ones(1)}
    assert set(renamed(state, "a", "b")) == {"lm.q.adapters.b.down", "adapters.b.gate", "lm.adapters.ab.x"}
