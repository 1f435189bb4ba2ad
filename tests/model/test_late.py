"""Items whose rows only their parts can count: made before they are planned, and learned through all the same."""

from __future__ import annotations

import pytest
import torch

from omniloom.data.pipeline import Pipeline
from omniloom.errors import PlanError
from omniloom.sequence import Kind, Plan, Text
from tests.examples import answered, asked, example_values, media, stock_model, write_example


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The example, its sounds shortened to about as many rows as there are words."""
    folder = write_example(tmp_path_factory.mktemp("late"))
    rows = example_values()["modalities"]
    rows["sound"]["in"]["projector"] = [{"type": "cif", "width": 8}, "linear"]
    return stock_model(folder, modalities=rows)


def rows_of(plan):
    return int((plan.kind == int(Kind.MEDIA)).sum())


def test_in_training_a_sound_fires_as_often_as_its_answer_has_tokens(model):
    model.train_only(["sound/*"])
    for said in ("a", "four"):
        (plan,) = Pipeline(model).plans([answered((media("sound", 2), Text("?")), Text(said))])
        assert rows_of(plan) == len(model.planner.text_ids(said))
    model.train_only(["lora"])


def test_gradients_of_the_pass_reach_the_parts_that_ran_before_it(model):
    trained = model.train_only(["sound/*"])
    samples = [answered((media("sound", n), Text("?")), Text("yes")) for n in (1, 2)]
    losses = model.losses(Plan.stack(Pipeline(model).plans(samples)))
    assert list(losses.auxiliary) == ["sound/projector1/quantity"]
    losses.total().backward()
    assert [name for name, value in trained.items() if value.grad is None or not value.grad.any()] == []
    model.train_only(["lora"])


def test_late_rows_are_on_the_clock_of_their_processor(model):
    (plan,) = Pipeline(model).plans([asked(media("sound", 2), Text("?"))], ask=True)
    times = plan.items[0].shape.times
    assert times is not None and list(times) == sorted(times) and times[-1] > times[0]


def test_without_an_answer_the_weights_alone_say_how_often(model):
    with torch.no_grad():
        (alone,) = Pipeline(model).plans([asked(media("sound", 2), Text("?"))], ask=True)
        (other,) = Pipeline(model).plans([answered((media("sound", 2), Text("?")), Text("a long answer"))])
    assert rows_of(alone) == rows_of(other)


def test_planning_without_making_the_rows_first_is_refused_with_the_remedy(model):
    with pytest.raises(PlanError, match="Pipeline"):
        model.planner.plan(asked(media("sound", 2)))
