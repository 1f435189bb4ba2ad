"""Splits by group: nothing straddles, nothing is lost, shares are met as far as groups allow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.data import split_by_group
from omniloom.errors import ConfigError
from omniloom.sequence import Sample


def _samples(groups: list[int | None]) -> list[Sample]:
    return [Sample(str(index), (), group=None if group is None else f"g{group}") for index, group in enumerate(groups)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 3))
def test_no_group_is_in_two_splits_and_every_sample_in_one(groups: list[int | None], seed: int) -> None:
    split = split_by_group(_samples(groups), {"train": 0.7, "dev": 0.1, "test": 0.2}, seed)
    assert sorted(index for indices in split.values() for index in indices) == list(range(len(groups)))
    homes = {
        group: {name for name, indices in split.items() for i in indices if groups[i] == group}
        for group in groups
        if group is not None
    }
    assert all(len(names) == 1 for names in homes.values())


def test_shares_are_met_where_groups_allow_it() -> None:
    split = split_by_group(_samples([index // 5 for index in range(500)]), {"train": 0.8, "test": 0.2}, seed=0)
    assert (len(split["train"]), len(split["test"])) == (400, 100)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_samples() -> None:
    samples = _samples([index // 2 for index in range(40)])
    shares = {"train": 0.5, "test": 0.5}

    def ids(these: list[Sample], seed: int) -> set[str]:
        return {these[index].id for index in split_by_group(these, shares, seed)["test"]}

    assert ids(samples, 0) == ids(samples[::-1], 0) != ids(samples, 1)


@pytest.mark.parametrize("shares", [{}, {"train": 0.7}, {"train": 1.2, "test": -0.2}])
def test_shares_that_do_not_sum_to_1_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        split_by_group([], shares, 0)
