"""Learning rates per glob, warm-up and decay, and moments that come back."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from omniloom.config import StageConfig
from omniloom.errors import ConfigError
from omniloom.train.optimizer import load_optimizer_state, make_optimizer, optimizer_state, set_progress


def parameters():
    generator = torch.Generator().manual_seed(0)
    names = ["image/encoder.a", "image/projector.a", "image/projector.b", "lora.x"]
    return {name: nn.Parameter(torch.randn(3, generator=generator)) for name in names}


def config(lr):
    return StageConfig(name="s", train=["*"], data={"d": 1.0}, steps=10, lr=lr)


def test_the_first_glob_that_matches_gives_a_parameter_its_rate():
    optimizer = make_optimizer(config({"image/projector.b": 1e-1, "image/*": 1e-2, "*": 1e-3}), parameters())
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates == {"image/encoder.a": 1e-2, "image/projector.a": 1e-2, "image/projector.b": 1e-1, "lora.x": 1e-3}


def test_one_rate_is_everybodys():
    optimizer = make_optimizer(config(0.5), parameters())
    assert [group["names"] for group in optimizer.param_groups] == [list(parameters())]


@pytest.mark.parametrize(
    ("lr", "message"),
    [({"image/*": 1e-3}, "trains lora.x, but no glob"), ({"*": 1e-3, "sound/*": 1e-3}, "'sound/\\*' matches no")],
)
def test_rates_that_do_not_fit_what_is_trained_are_refused(lr, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(config(lr), parameters())


def test_rates_of_groups_differ_in_what_they_do():
    values = parameters()
    before = {name: value.detach().clone() for name, value in values.items()}
    optimizer = make_optimizer(config({"lora": 1e-1, "*": 1e-3}), values)
    sum(value.sum() for value in values.values()).backward()
    optimizer.step()
    moved = {name: float((value - before[name]).detach().abs().max()) for name, value in values.items()}
    assert moved["lora.x"] == pytest.approx(0.1, rel=1e-3) and moved["image/encoder.a"] == pytest.approx(1e-3, rel=1e-2)


def test_rates_rise_over_the_warm_up_and_fall_by_a_cosine_to_almost_nothing():
    optimizer = make_optimizer(config({"lora": 1.0, "*": 0.5}), parameters())
    factors = [set_progress(optimizer, step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[9] == 1.0 and all(a > b for a, b in pairwise(factors[9:]))
    assert factors[54] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 91))) and 0 < factors[-1] < 0.01
    assert [group["lr"] for group in optimizer.param_groups] == [factors[-1], 0.5 * factors[-1]]


def test_a_stage_of_one_step_trains_at_its_full_rate():
    assert set_progress(make_optimizer(config(1.0), parameters()), 0, 1, 0.05) == 1.0


def test_moments_saved_and_loaded_go_on_as_if_nothing_had_happened():
    first, second = parameters(), parameters()
    one = make_optimizer(config(0.1), first)

    def step(optimizer, values):
        optimizer.zero_grad()
        sum((value**3).sum() for value in values.values()).backward()
        optimizer.step()

    for _ in range(3):
        step(one, first)
    saved = {name: value.clone() for name, value in optimizer_state(one).items()}
    assert all(value.dim() > 0 for value in saved.values())
    two = make_optimizer(config(0.1), second)
    load_optimizer_state(two, saved)
    with torch.no_grad():
        for name, value in second.items():
            value.copy_(first[name])
    for _ in range(2):
        step(one, first)
        step(two, second)
    assert all(torch.equal(first[name], second[name]) for name in first)
