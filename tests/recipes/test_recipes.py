"""Every recipe that comes with Omniloom is a whole, sound run file."""

from __future__ import annotations

import pytest

from omniloom.config import check_parts, dump, load_run, problems, recipes

RECIPES = pytest.mark.parametrize("name", recipes())


def test_the_recipes_that_others_name_are_there():
    assert {"quickstart", "proof_match", "hub_omni"} <= set(recipes())


@RECIPES
def test_nothing_is_wrong_with_a_recipe(name):
    assert problems(name) == []
    assert check_parts(load_run(name)) == []


@RECIPES
def test_a_recipe_trains_and_tests_something_and_not_on_the_same_data(name):
    config = load_run(name).config
    trained = {source for stage in config.stages for source in stage.data}
    tested = {task.data for task in config.evaluation.values()}
    assert trained and tested and not trained & tested
    judged = {task.judge for task in config.evaluation.values()} - {None}
    assert set(config.data) == trained | tested | judged


@RECIPES
def test_a_recipe_written_out_and_read_again_is_the_same(name, tmp_path):
    run = load_run(name)
    (tmp_path / "run.yaml").write_text(dump(run.config))
    assert load_run(tmp_path / "run.yaml").config == run.config


@RECIPES
def test_a_recipe_can_be_extended(name, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"name: mine\nextends: {name}\nseed: 5\n")
    extended = load_run(tmp_path / "mine.yaml").config
    plain = load_run(name).config
    assert (extended.name, extended.seed) == ("mine", 5)
    assert extended.modalities == plain.modalities and extended.stages == plain.stages
