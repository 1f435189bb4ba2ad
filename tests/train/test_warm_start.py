"""The warm start: rows are drawn to their own text's embeddings, and the language model never passes."""

from __future__ import annotations

import pytest
import torch

from omniloom.config import WarmStartConfig
from omniloom.errors import ConfigError, TrainingError
from omniloom.planner import FuserRow
from omniloom.projectors.fusers.summing import Sum
from omniloom.train.warm_start import alignment_loss, spoken_targets, warm_start
from tests.train.runs import trainer_of


def warmed(trainer, steps=12, **options):
    losses = []
    config = WarmStartConfig(**{"steps": steps, "batch": 20, "lr": 0.003, **options})
    warm_start(trainer, config, lambda step, values: losses.append(values))
    return losses


def test_it_lowers_its_loss_and_never_runs_the_language_model(tiny):
    trainer = trainer_of(tiny, train=["*/encoder", "*/projector*", "vocab"])
    passes = []
    for part in (trainer.model.backbone, trainer.model.backbone.lm, trainer.model.backbone.lm.model.layers[0]):
        part.register_forward_hook(lambda *args: passes.append(1))
    losses = [values["loss"] for values in warmed(trainer)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]) and not passes
    assert set(warmed(trainer, 1)[0]) == {"loss", "loss/image", "loss/sound", "loss/motion", "loss/points"}


def test_it_moves_only_what_its_stage_trains_between_media_and_the_language_model(tiny):
    trainer = trainer_of(tiny, train=["image/projector2", "vocab", "lora"])
    before = {name: value.detach().clone() for _, name, value in trainer.model.named_component_parameters()}
    warmed(trainer, 2)
    changed = {
        name.partition(".")[0]
        for _, name, value in trainer.model.named_component_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == {"image/projector2"}


def test_a_stage_without_a_projector_has_nothing_to_warm(tiny):
    with pytest.raises(ConfigError, match="trains no encoder or projector"):
        warmed(trainer_of(tiny, train=["vocab", "lora"]))


def test_data_without_a_single_item_and_its_text_are_refused(tiny):
    trainer = trainer_of(tiny, train=["*/projector*"])
    trainer.prepared = lambda picks: []
    with pytest.raises(TrainingError, match="no sample of the warm start"):
        warmed(trainer)


def test_items_that_a_fuser_takes_have_no_part_in_it(tiny):
    trainer = trainer_of(tiny, train=["*/projector*"])
    planner = trainer.model.planner
    taken = FuserRow("pair", ("image", "sound"), Sum({"image": 32, "sound": 32}, 32), when="any")
    before, planner.fusers = planner.fusers, (taken,)
    try:
        assert set(warmed(trainer, 1)[0]) == {"loss", "loss/motion", "loss/points"}
    finally:
        planner.fusers = before


def test_items_are_read_as_they_are_planned(tiny):
    trainer = trainer_of(tiny, train=["*/projector*"])
    batch = trainer.samples(0)
    planned = [[item for item in plan.items if item.role != "out"] for plan in trainer.plans(batch, 3)]
    for read, placed in zip(trainer.items(batch, 3), planned, strict=True):
        assert [(item.modality, item.role, item.rows, item.keep, item.turn, item.instruction) for item in read] == [
            (item.modality, item.role, item.rows, item.keep, item.turn, item.instruction) for item in placed
        ]
        for one, other in zip(read, placed, strict=True):
            rows = [trainer.model.project(one.modality, [item]).x for item in (one, other)]
            assert torch.equal(*rows)


def test_targets_speak_the_text_token_by_token_and_then_hold_the_last(stock):
    ids = torch.tensor(stock.planner.text_ids("abc"))
    table = stock.backbone.embedding_table()
    (target,) = spoken_targets(stock, ["abc"], [5])
    assert torch.equal(target, table[ids[[0, 1, 2, 2, 2]]])


def test_a_text_longer_than_its_rows_is_spread_over_them(stock):
    ids = torch.tensor(stock.planner.text_ids("abcde"))
    tokens = stock.backbone.embedding_table()[ids]
    (target,) = spoken_targets(stock, ["abcde"], [2])
    torch.testing.assert_close(target, torch.stack([tokens[:3].mean(0), tokens[3:].mean(0)]))


def test_the_loss_is_least_where_every_item_speaks_its_own_text(stock):
    texts = ["red", "green", "blue", "red"]
    targets = spoken_targets(stock, texts, [4] * 4)
    own, count = alignment_loss(targets, targets, texts)
    swapped, _ = alignment_loss([targets[1], targets[0], *targets[2:]], targets, texts)
    assert float(count) == 4 and float(own) < 0.5 and float(swapped) > float(own) + 1


def test_one_text_alone_has_no_contrast(stock):
    targets = spoken_targets(stock, ["red", "red"], [3, 3])
    assert float(alignment_loss(targets, targets, ["red", "red"])[0]) == 0.0
