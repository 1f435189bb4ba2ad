"""A stage trains exactly what it declares, on losses that do not depend on how the batch is put together."""

from __future__ import annotations

import json

import pytest
import torch

from omniloom.checkpoint.tensors import digest_of
from omniloom.errors import ConfigError, FreezeError, TrainingError
from omniloom.train.stage import Metrics, Stage
from tests.train.runs import trainer_of


def digests(model):
    return {name: digest_of(values) for name, values in model.components().items() if values}


@pytest.mark.parametrize(
    "globs",
    [["*/projector*"], ["image/encoder", "vocab"], ["lora"], ["backbone"], ["vocab.head", "points/encoder.norm.*"]],
    ids=str,
)
def test_a_stage_changes_what_it_trains_and_nothing_else_by_a_bit(tiny, globs):
    trainer = trainer_of(tiny, train=globs, batch=10)
    names = [name for _, name, _ in trainer.model.named_component_parameters()]
    before = {name: value.detach().clone() for _, name, value in trainer.model.named_component_parameters()}
    trainer.run(0, lambda step, values: None)
    changed = {
        name for _, name, value in trainer.model.named_component_parameters() if not torch.equal(value, before[name])
    }
    assert changed <= set(trainer.trainable) and set(trainer.trainable) == set(trainer.model.select(globs))
    assert len(changed) > 0.9 * len(trainer.trainable) and len(names) > len(changed)
    assert {name.partition(".")[0] for name in changed} == set(trainer.trained_components)


def test_a_frozen_part_that_changes_under_way_is_found(tiny):
    trainer = trainer_of(tiny, train=["image/projector2"], steps=2)

    def meddle(step, values):
        with torch.no_grad():
            next(iter(trainer.model.parts["sound/encoder"].parameters())).view(-1)[0] += 1e-6

    with pytest.raises(FreezeError, match="'only' changed 'sound/encoder', which it declares frozen"):
        trainer.run(0, meddle)


def test_another_number_of_parameters_than_recorded_is_refused(tiny):
    count = sum(value.numel() for value in trainer_of(tiny, train=["vocab"]).trainable.values())
    trainer_of(tiny, train=["vocab"], parameters=count)
    with pytest.raises(FreezeError, match=f"trains {count:,} parameters, its run file records {count + 1:,}"):
        trainer_of(tiny, train=["vocab"], parameters=count + 1)


def test_a_selector_that_matches_nothing_is_refused(tiny):
    with pytest.raises(FreezeError, match="matches no parameter"):
        trainer_of(tiny, train=["vocab", "image/encoder.nothing"])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_any_update(tiny, what):
    trainer = trainer_of(tiny, train=["*/projector*", "vocab"])
    trainer.step(0)
    value = trainer.trainable["vocab.head"]
    if what == "loss":
        with torch.no_grad():
            value[0, 0] = float("nan")
    else:
        value.register_hook(lambda grad: grad * float("inf"))
    before = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
    with pytest.raises(TrainingError, match=f"step 1: the {what} is n.*nothing was updated"):
        trainer.step(1)
    same = [
        torch.equal(parameter.nan_to_num(7), before[name].nan_to_num(7))
        for name, parameter in trainer.trainable.items()
    ]
    assert all(same)


def test_the_loss_of_a_batch_is_the_weighted_combination_of_its_parts(tiny):
    trainer = trainer_of(tiny, train=["vocab"], batch=6)
    model, plans = trainer.model, trainer.plans(trainer.samples(0), 0)
    with torch.no_grad():
        whole = model.loss(model.planner.batch(plans))
        halves = [model.loss(model.planner.batch(part)) for part in (plans[:2], plans[2:])]
    for name in ("text", "codes"):
        total, count = (sum(half[name][place] for half in halves) for place in (0, 1))
        assert float(whole[name][1]) == float(count)
        torch.testing.assert_close(whole[name][0], total, rtol=1e-5, atol=1e-4)
    metrics = trainer.backward(0)
    expected = sum(float(value / count) for value, count in whole.values() if float(count))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_packed_and_padded_stages_have_the_same_losses(tiny):
    padded, packed = (trainer_of(tiny, train=["vocab", "lora"], pack=pack, steps=3) for pack in (0, 200))
    for step in range(3):
        assert padded.step(step)["loss"] == pytest.approx(packed.step(step)["loss"], abs=1e-4)


def test_losses_are_told_for_text_codes_and_every_source(tiny):
    metrics = trainer_of(tiny, train=["vocab"], batch=10).step(0)
    assert {
        "loss",
        "loss_text",
        "loss_codes",
        "loss/things",
        "loss/drawings",
        "labels",
        "tokens",
        "lr",
        "grad_norm",
        "step_s",
        "mem_gb",
    } <= set(metrics)
    assert metrics["loss"] == pytest.approx(metrics["loss_text"] + metrics["loss_codes"], rel=1e-6)


def test_cached_rows_of_frozen_encoders_train_like_fresh_ones(tiny):
    fresh, first, second = (
        trainer_of(tiny, train=["*/projector*"], cache=cache, steps=3) for cache in (False, True, True)
    )
    losses = [[trainer.step(step)["loss"] for step in range(3)] for trainer in (fresh, first, second)]
    assert losses[1] == losses[2] and losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert first.pipeline.cache.stats.written_bytes > 0 and second.pipeline.cache.stats.misses == 0


def test_a_step_is_a_function_of_its_number(tiny):
    trainer = trainer_of(tiny, train=["image/encoder", "vocab"])
    first = [trainer.backward(step)["loss"] for step in (0, 1, 2)]
    again = [trainer.backward(step)["loss"] for step in (2, 0, 1)]
    assert first == [again[1], again[2], again[0]] and len(set(first)) == 3


def test_one_batch_can_be_overfitted(tiny):
    trainer = trainer_of(tiny, train=["backbone", "*/projector*", "vocab"], overfit=True, steps=20, batch=5, lr=0.01)
    losses = []
    trainer.run(0, lambda step, values: losses.append(values["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert {sample.id for _, sample in trainer.samples(0)} == {sample.id for _, sample in trainer.samples(9)}


def test_the_model_answers_samples_of_the_batch_and_trains_on(tiny):
    trainer = trainer_of(tiny, train=["*/projector*"], batch=10)
    said = trainer.say(0)
    assert len(said) == 2 and set(said[0]) == {"source", "id", "expected", "answer"}
    assert {name for name, value in trainer.trainable.items() if value.requires_grad} == set(trainer.trainable)
    assert trainer.model.parts["image/projector2"].training


def test_a_component_trains_alone_on_the_payloads_of_its_modality(tiny):
    trainer = trainer_of(tiny, of="drawing/codec", train=["drawing/codec"], batch=10, steps=25, lr=0.01)
    before = digests(trainer.model)
    losses = []
    trainer.run(0, lambda step, values: losses.append(values["loss_reconstruction"]))
    after = digests(trainer.model)
    assert {name for name in after if after[name] != before[name]} == {"drawing/codec"}
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_component_whose_modality_is_in_no_sample_is_refused(tiny):
    trainer = trainer_of(tiny, of="drawing/codec", train=["drawing/codec"])
    trainer.samples = lambda step: []
    with pytest.raises(TrainingError, match="no item of the batch belongs to 'drawing/codec'"):
        trainer.step(0)


def test_a_batch_without_a_label_is_refused(tiny):
    from dataclasses import replace

    trainer = trainer_of(tiny)
    samples = trainer.samples(0)
    trainer.samples = lambda step: [(name, replace(sample, turns=sample.turns[:1])) for name, sample in samples]
    with pytest.raises(TrainingError, match="no slot of the batch bears a label"):
        trainer.step(0)


def test_minutes_must_have_become_steps(tiny):
    config = trainer_of(tiny).stage.config.model_copy(update={"steps": None, "minutes": 1.0})
    with pytest.raises(ConfigError, match="resolve the run first"):
        _ = Stage(config, {}, 0).steps


def test_metrics_are_lines_and_a_resumed_run_cuts_off_what_it_does_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    metrics.write({"step": 0})
    kept = metrics.bytes
    metrics.write({"step": 1})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1]
    metrics.close()
    again = Metrics(path, kept)
    again.write({"step": 1, "again": True})
    again.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 0}, {"step": 1, "again": True}]
