"""Recipes: what their stages are configured to, and what is refused."""

from __future__ import annotations

import pytest

from rnem_world.errors import ConfigError
from rnem_world.models.config import MODELS
from rnem_world.training.recipes import RECIPES, Recipe, Stage, recipe

LIMIT = {"training": {"max_updates": 1}}
COLLECT = ({"what": "balls", "preset": "balls1mass32"},)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("model", [None, *MODELS])
def test_every_stage_of_every_recipe_is_a_run(name, model):
    found = recipe(name)
    for stage in found.stages:
        if found.is_world_model and model is not None and not MODELS[model][0].startswith("relational"):
            with pytest.raises(ConfigError, match="gated belongs to the relational cores"):
                found.config_of(stage, model)
            continue
        config = found.config_of(stage, model)
        assert len(config.training.weights) == config.training.sequence_steps
        if model is not None and MODELS[model][1] == 1:
            assert config.model.slots == 1


def test_what_the_user_says_holds_for_all_stages():
    found = recipe("paper32")
    for stage in found.stages:
        config = found.config_of(stage, None, {"model": {"hidden_size": 16}, "training": {"seed": 7}})
        assert (config.model.hidden_size, config.training.seed) == (16, 7)
    assert [found.config_of(stage).model.slots for stage in found.stages] == [3, 5]


def test_a_stage_that_collects_nothing_takes_the_data_before_it():
    first, second, third = Stage("a", LIMIT, COLLECT), Stage("b", LIMIT), Stage("c", LIMIT, COLLECT)
    found = Recipe("", (first, second, third))
    assert [found.data_of(stage) for stage in found.stages] == [first, first, third]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe("paper"), "no recipe 'paper': did you mean"),
        (lambda: Stage("a", {"training": {"epochs": 3}}), "max_updates"),
        (lambda: Recipe("", ()), "one is needed"),
        (lambda: Recipe("", (Stage("a", LIMIT, COLLECT), Stage("a", LIMIT))), "a name of its own"),
        (lambda: Recipe("", (Stage("a", LIMIT),)), "'a', collects nothing"),
        (lambda: recipe("paper32").config_of(recipe("paper32").stages[0], "rnm"), "unknown model 'rnm'"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_learning_rate_falls_to_the_end_that_is_asked_for():
    found = recipe("cartpole")
    for updates in (400, 9000):
        training = found.config_of(found.stages[0], None, {"training": {"max_updates": updates}}).training
        assert training.optimizer.schedule_updates == updates
        assert training.closed_loop.after_updates == min(1000, updates // 2)
