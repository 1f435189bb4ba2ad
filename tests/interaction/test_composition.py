"""States of components merged into one."""

from __future__ import annotations

import pytest
import torch

from omniloom.checkpoint.tensors import digest_of
from omniloom.errors import CheckpointError, ConfigError
from omniloom.interaction.composition import merge, renamed


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


def test_a_state_is_renamed_with_its_adapter_and_nothing_else():
    state = {"lm.q.adapters.a.down": torch.ones(1), "adapters.a.gate": torch.ones(1), "lm.adapters.ab.x": torch.ones(1)}
    assert set(renamed(state, "a", "b")) == {"lm.q.adapters.b.down", "adapters.b.gate", "lm.adapters.ab.x"}
