"""The laws of the mixture: pure, complete epochs, shares kept in every batch and over the run."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniloom.data import Mixture
from omniloom.errors import ConfigError, DataError

_SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)
_WEIGHTS = st.lists(st.sampled_from([0.1, 0.25, 1.0, 2.0, 3.7, 1e-3]), min_size=4, max_size=4)


def _mixture(sizes: list[int], weights: list[float], seed: int = 0, batch: int = 4) -> Mixture:
    sources = {f"s{index}": range(size) for index, size in enumerate(sizes)}
    return Mixture(sources, dict(zip(sources, weights, strict=False)), seed=seed, batch=batch)


@settings(max_examples=60, deadline=None)
@given(_SIZES, _WEIGHTS, st.integers(0, 5), st.integers(1, 9), st.integers(1, 40))
def test_after_any_number_of_steps_every_sample_of_a_source_was_drawn_equally_often(
    sizes: list[int], weights: list[float], seed: int, batch: int, steps: int
) -> None:
    mixture = _mixture(sizes, weights, seed, batch)
    drawn = Counter(pick for step in range(steps) for pick in mixture("align", step))
    for source, size in enumerate(sizes):
        times = [drawn[f"s{source}", index] for index in range(size)]
        total = sum(times)
        assert set(times) <= {total // size, -(-total // size)}
        assert total == mixture.drawn(steps)[f"s{source}"]
    assert sum(drawn.values()) == steps * batch


@settings(max_examples=60, deadline=None)
@given(_WEIGHTS, st.integers(1, 20), st.integers(1, 60))
def test_every_batch_and_the_whole_run_keep_the_shares(weights: list[float], batch: int, steps: int) -> None:
    mixture = _mixture([5, 5, 5, 5], weights, batch=batch)
    shares = [weight / sum(weights) * batch for weight in weights]
    so_far = Counter[str]()
    for step in range(steps):
        counts = Counter(name for name, _ in mixture("align", step))
        so_far += counts
        for index, share in enumerate(shares):
            assert int(share - 1e-9) <= counts[f"s{index}"] <= int(share + 1e-9) + 1
            assert abs(so_far[f"s{index}"] - share * (step + 1)) < 2


@settings(max_examples=40, deadline=None)
@given(_SIZES, _WEIGHTS, st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_a_batch_depends_on_seed_stage_and_step_alone(sizes: list[int], weights: list[float], steps: list[int]) -> None:
    walked = _mixture(sizes, weights)
    for step in steps:
        assert walked("align", step) == _mixture(sizes, weights)("align", step)


def test_another_seed_stage_or_epoch_is_another_order() -> None:
    def order(seed: int, stage: str, epoch: int) -> list[int]:
        mixture = _mixture([40], [1.0], seed, batch=40)
        return [index for _, index in mixture(stage, epoch)]

    orders = [order(0, "a", 0), order(1, "a", 0), order(0, "b", 0), order(0, "a", 1), list(range(40))]
    assert len({tuple(found) for found in orders}) == len(orders)
    assert all(sorted(found) == list(range(40)) for found in orders)


def test_the_order_is_the_same_on_every_machine() -> None:
    assert [index for _, index in _mixture([8], [1.0], seed=7, batch=8)("align", 0)] == [2, 3, 4, 1, 0, 5, 6, 7]


def test_orders_are_uniform_over_the_places() -> None:
    first = Counter(_mixture([5], [1.0], seed, batch=5)("a", 0)[0][1] for seed in range(1000))
    assert all(140 < first[index] < 260 for index in range(5)), first


def test_a_source_with_weight_0_is_never_drawn() -> None:
    assert {name for step in range(20) for name, _ in _mixture([3, 3], [1.0, 0.0])("a", step)} == {"s0"}


def test_epochs_tell_how_often_a_source_was_walked() -> None:
    assert _mixture([8, 2], [1.0, 1.0], batch=4).epochs(4) == {"s0": 1.0, "s1": 4.0}


@pytest.mark.parametrize(
    ("weights", "batch", "error"),
    [
        ({"b": 1.0}, 4, ConfigError),
        ({"a": -1.0}, 4, ConfigError),
        ({"a": float("nan")}, 4, ConfigError),
        ({"a": 0.0}, 4, ConfigError),
        ({"a": 1.0}, 0, ConfigError),
        ({"empty": 1.0}, 4, DataError),
    ],
)
def test_a_mixture_that_cannot_be_drawn_from_is_refused(weights: dict[str, float], batch: int, error: type) -> None:
    with pytest.raises(error):
        Mixture({"a": range(3), "empty": []}, weights, seed=0, batch=batch)
