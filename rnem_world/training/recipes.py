"""Recipes: trainings of several stages by name, each stage with its own data and options, the weights carried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rnem_world.config import build, merged, set_path
from rnem_world.errors import ConfigError, suggest
from rnem_world.models.config import MODELS
from rnem_world.training.config import RunConfig
from rnem_world.training.presets import usual_options


@dataclass(frozen=True)
class Stage:
    """One training of a recipe, which goes on from the weights of the stage before.

    Attributes:
        name: What it is called; the folder of its run and the file of its data are called so too.
        options: What differs from the usual options of such a run, nested; ``training.max_updates`` must be there.
        collect: What is collected for it, by the arguments of `rnem_world.agents.collecting.collect`; of several the
            files are read as one dataset. Empty takes the data of the stage before.
    """

    name: str
    options: Mapping[str, Any]
    collect: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.options.get("training", {}).get("max_updates") is None:
            raise ConfigError(
                f"the stage {self.name!r} has no training.max_updates, by which its end is known: add it"
            )


@dataclass(frozen=True)
class Recipe:
    """A training of several stages.

    Attributes:
        summary: What comes of it, in a line.
        stages: The stages, one after the other.
        is_world_model: Whether to train a model to dream in.
        environment: Whose usual options hold, see `rnem_world.training.presets.usual_options`.
        start_from: What the first stage takes its weights of; None begins anew.
    """

    summary: str
    stages: tuple[Stage, ...]
    is_world_model: bool = False
    environment: str = "balls"
    start_from: str | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"the stages are called {names}: each needs a name of its own, and one is needed"
            )
        if not self.stages[0].collect:
            raise ConfigError(
                f"the first stage, {names[0]!r}, collects nothing, and there is no data before it"
            )

    def config_of(
        self, stage: Stage, model: str | None = None, options: Mapping[str, Any] = MappingProxyType({})
    ) -> RunConfig:
        """Gives the configuration of a stage.

        Args:
            stage: One of the stages.
            model: A key of :data:`rnem_world.models.config.MODELS`; None takes R-NEM. A model of one slot keeps that.
            options: What shall be otherwise, in all stages.

        Raises:
            ConfigError: If there is no such model, or an option makes no sense.
        """
        given = merged(stage.options, options)
        usual = usual_options(model or "r_nem", self.environment, self.is_world_model, given)
        values = merged(usual, stage.options)
        if model is not None and MODELS[model][1] == 1:
            set_path(values, "model.slots", 1)
        return build(RunConfig, merged(values, options))

    def data_of(self, stage: Stage) -> Stage:
        """Gives the stage whose data a stage is trained on: itself, or the last before it that collects."""
        before = self.stages[: self.stages.index(stage) + 1]
        return next(earlier for earlier in reversed(before) if earlier.collect)


_TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "loss": {"inter_weight": 0.5},
    "noise": {"per_sequence": True},
    "optimizer": {"clip_norm": 300.0, "clip_by": "global"},
    "valid_size": 64,
    "patience": 100,
    "save_epochs": (1, 2, 3, 4),
}
# The first steps, in which slots still sort themselves out, aren't learned from: docs/binding.md says why.
_COLD = (0.0,) * 8


def _stage(name: str, preset: str, slots: int, training: Mapping[str, Any], sequences: int) -> Stage:
    """A stage on balls, with what the stages of the paper's models have in common."""
    collect = {
        "what": "balls",
        "preset": preset,
        "num_train": sequences,
        "num_valid": 64,
        "num_test": 128,
        "seed": 3,
    }
    return Stage(name, {"model": {"slots": slots}, "training": merged(_TRAINING, training)}, (collect,))


def _falling(updates: int) -> dict[str, Any]:
    """As many updates, over the last two fifths of which the learning rate falls."""
    after = updates * 3 // 5
    schedule = {"schedule": "linear", "schedule_after": after, "schedule_updates": updates}
    return {"optimizer": schedule, "max_updates": updates}


def _paper(size: int, updates: tuple[int, int]) -> Recipe:
    """The paper's model on one ball and then on two, by so many updates of each."""
    one, two = updates
    cold = {"sequence_steps": 20, "step_weights": _COLD + (1.0,) * 12}
    return Recipe(
        f"the paper's R-NEM on {size} x {size}: learns from one ball and from two, and binds four",
        (
            _stage("one-ball", f"balls1mass{size}", 3, {"sequence_steps": 12, "max_updates": one}, 3000),
            _stage("two-balls", f"balls2mass{size}", 5, merged(cold, _falling(two)), 4000),
        ),
    )


def _curtain(size: int, updates: int) -> Recipe:
    """Two balls, now and then behind a curtain, for so long that they come out again."""
    cold = {"sequence_steps": 30, "step_weights": _COLD + (1.0,) * 22}
    training = merged(cold, _falling(updates))
    return Recipe(
        f"goes on from a model of paper{size} (--start-from) with a curtain that hides balls",
        (_stage("curtain", f"balls2curtain{size}", 5, training, 4000),),
    )


def _any_world(
    name: str,
    summary: str,
    collect: Mapping[str, Any],
    slots: int,
    updates: int,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> Recipe:
    """A world of an environment of others with the usual options of such worlds, learnt in one stage.

    Args:
        name: What the stage is called.
        summary: What comes of it.
        collect: The environment, its frames and its players.
        slots: K.
        updates: Its length.
        training: What differs from the usual options.
    """
    options = {"model": {"slots": slots}, "training": merged(training, {"max_updates": updates})}
    return Recipe(summary, (Stage(name, options, (collect,)),), is_world_model=True, environment="any")


_MIXED = "repeated-random:0.6,random:0.2,stay:0.2"
_IMAGINES: dict[str, Any] = {
    "closed_loop": {"fraction": 0.4, "steps": 4, "after_updates": 0, "latent_fraction": 0.5},
    "prior_code": {"fraction": 0.25, "steps": 10, "after_updates": 0, "weight": 30.0},
}


def _cosine(updates: int, begin: float, end: float) -> dict[str, Any]:
    """As many updates, over which the learning rate falls along a cosine."""
    schedule = {"schedule": "cosine", "schedule_updates": updates}
    rates = {"learning_rate": begin, "final_learning_rate": end}
    return {"optimizer": {**schedule, **rates}, "max_updates": updates}


def _balls(preset: str, sequences: int, seed: int) -> tuple[Mapping[str, Any], ...]:
    """Balls with a player who holds actions, acts by chance, or stays."""
    sizes = {"num_train": sequences, "num_valid": 300, "num_test": 500, "frames": 76}
    return ({"what": "balls", "preset": preset, "policy": _MIXED, "seed": seed, **sizes},)


def _world_stage(
    name: str, slots: int, training: Mapping[str, Any], collect: tuple[Mapping[str, Any], ...] = ()
) -> Stage:
    """A stage of a world of balls, with little noise."""
    options = {"noise": {"probability": 0.05}, "patience": 1000}
    return Stage(name, {"model": {"slots": slots}, "training": merged(options, training)}, collect)


def _finish(slots: int) -> tuple[Stage, Stage]:
    """The prior code and the heads, each learning on alone: that is cheap, and both are what dreams are judged by."""
    alone = {"closed_loop": {"fraction": 0.0}}
    long = {"fraction": 0.75, "steps": 10, "before": 40, "after_updates": 0, "weight": 30.0}
    prior = {
        **alone,
        "train_only": ("prior_code",),
        "prior_code": long,
        "head_loss": {"imagined_weight": 0.0},
        "rare_fraction": 0.0,
    }
    heads = {
        **alone,
        "train_only": ("heads",),
        "prior_code": {"fraction": 0.5, "steps": 10, "after_updates": 0},
    }
    return (
        _world_stage("prior-code", slots, merged(prior, _cosine(1800, 8e-4, 1e-5))),
        _world_stage("heads", slots, merged(heads, _cosine(1500, 2e-3, 2e-5))),
    )


_GAME = {"what": "atari", "game": "SpaceInvaders", "num_train": 4000, "num_valid": 300, "num_test": 300}
_GAME_IMAGINES = merged(_IMAGINES, {"closed_loop": {"latent_fraction": 0.6}})
_GAMERS = "repeated-random:0.7,random:0.15,stay:0.15"
_PLAYERS = "rnem_world.agents.players"
_POLE = {"batch_size": 32, "sequence_steps": 36}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "balls": Recipe(
            "a world of four balls, one of them the player's, as the shipped one: some 4 hours of one core",
            (
                Stage(
                    "learn",
                    {"training": {**_cosine(22_000, 1e-3, 5e-5), "prior_code": {"after_updates": 22_000}}},
                    _balls("avoid", 8000, 31),
                ),
                _world_stage(
                    "imagine",
                    5,
                    merged(_IMAGINES, _cosine(20_000, 4e-4, 1e-5)),
                    _balls("avoid", 32_000, 32),
                ),
                *_finish(5),
            ),
            is_world_model=True,
        ),
        "stove": Recipe(
            "goes on from `balls` to STOVE's billiards, as the shipped world: three quarters of an hour of one core",
            (
                _world_stage(
                    "learn", 4, merged(_IMAGINES, _cosine(6000, 5e-4, 1e-5)), _balls("stove", 14_000, 41)
                ),
                *_finish(4),
            ),
            is_world_model=True,
            start_from="balls",
        ),
        "space_invaders": Recipe(
            "a world of Atari's Space Invaders, as the shipped one: some 4 hours of one core",
            (
                Stage(
                    "learn",
                    {
                        "training": {
                            **_cosine(16_000, 1e-3, 1e-4),
                            "closed_loop": {"after_updates": 5000},
                            "prior_code": {"after_updates": 5000},
                        }
                    },
                    ({**_GAME, "seed": 1},),
                ),
                Stage(
                    "imagine",
                    {
                        "training": {
                            **_cosine(6200, 4e-4, 3e-5),
                            "loss": {"motion_weight": 2.0},
                            **_GAME_IMAGINES,
                        }
                    },
                ),
                Stage(
                    "rewards",
                    {
                        "training": {
                            **_cosine(6600, 5e-4, 1e-5),
                            "loss": {"motion_weight": 3.0},
                            "head_loss": {"reward_weight": 100.0},
                            "rare_fraction": 0.35,
                            **_GAME_IMAGINES,
                        }
                    },
                    ({**_GAME, "num_train": 4500, "seed": 51, "policy": _GAMERS},),
                ),
            ),
            is_world_model=True,
            environment="atari",
        ),
        "breakout": _any_world(
            "breakout",
            "a world of MinAtar's Breakout, from careful, careless and random players",
            {
                "what": "MinAtar/Breakout-v1",
                "steps_of_data": 140_000,
                "policy": f"{_PLAYERS}:follow_ball:0.12,{_PLAYERS}:follow_ball_carelessly:0.2,"
                "random:0.4,repeated-random:0.28",
                "seed": 1,
            },
            slots=5,
            updates=7500,
            training={
                "batch_size": 16,
                "chunk_steps": 12,
                "closed_loop": {"after_updates": 2500},
                "prior_code": {"after_updates": 2500},
                "optimizer": {"learning_rate": 1e-3, "schedule_after": 4500},
            },
        ),
        "cartpole": Recipe(
            "a world of CartPole in greys, of every third frame: three quarters of an hour of one core",
            (
                Stage(
                    "learn",
                    {"model": {"slots": 3}, "training": {**_POLE, "max_updates": 4000}},
                    (
                        {
                            "what": "CartPole-v1",
                            "crop": "165:325,0:600",
                            "size": "20x75",
                            "grayscale": True,
                            "frame_skip": 3,
                            "frames": 41,
                            "steps_of_data": 33_000,
                            "policy": f"random:0.3,{_PLAYERS}:balance:0.35,{_PLAYERS}:wander:0.35",
                            "seed": 1,
                        },
                    ),
                ),
                # Slots have parted; with less deviation they tell finer where the pole, which is three pixels wide, is.
                Stage(
                    "sharpen",
                    {
                        "model": {"slots": 3, "deviation": 0.05},
                        "training": {
                            **_POLE,
                            **_cosine(1500, 1e-3, 1e-5),
                            "chunk_steps": 12,
                            "noise": {"deviation": 0.1},
                            "closed_loop": {"fraction": 0.5, "steps": 5, "after_updates": 0},
                            "prior_code": {"after_updates": 0},
                        },
                    },
                ),
            ),
            is_world_model=True,
            environment="any",
        ),
        "freeway": _any_world(
            "freeway",
            "a world of MinAtar's Freeway, half of its data of a player who crosses the road whatever comes",
            {
                "what": "MinAtar/Freeway-v1",
                "steps_of_data": 100_000,
                "policy": f"{_PLAYERS}:cross:0.5,repeated-random:0.3,random:0.2",
                "seed": 1,
            },
            slots=5,
            updates=4800,
            # The slowest cars move every fifth frame: chunks see two of their moves.
            training={
                "batch_size": 32,
                "chunk_steps": 12,
                "closed_loop": {"fraction": 0.4, "steps": 4, "after_updates": 1600},
                "prior_code": {"after_updates": 1600},
                "optimizer": {"learning_rate": 1.5e-3},
            },
        ),
        "pendulum": _any_world(
            "pendulum",
            "a world of Pendulum in greys, of every second frame, in which a planner swings it up",
            {
                "what": "Pendulum-v1",
                "crop": "125:375,125:375",
                "size": "20",
                "grayscale": True,
                "frame_skip": 2,
                "steps_of_data": 40_000,
                "policy": "random:0.3,repeated-random:0.7",
                "seed": 1,
            },
            slots=2,
            updates=3000,
        ),
        "pong": _any_world(
            "pong",
            "a world of Atari's Pong in colours, without sticky actions",
            {
                "what": "ALE/Pong-v5",
                "env_options": {"repeat_action_probability": 0.0},
                "crop": "34:194,:",
                "size": "48",
                "frames": 49,
                "steps_of_data": 36_000,
                "policy": "random:0.3,repeated-random:0.7",
                "seed": 1,
            },
            slots=4,
            updates=2600,
            training={"batch_size": 16, "chunk_steps": 12, "optimizer": {"learning_rate": 1e-3}},
        ),
        "paper32": _paper(32, (300, 500)),
        "paper64": _paper(64, (1000, 3000)),
        "curtain32": _curtain(32, 150),
        "curtain64": _curtain(64, 1500),
    }
)
"""By name."""


def recipe(name: str) -> Recipe:
    """Returns a recipe by its name.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}: {suggest(name, RECIPES)}")
    return RECIPES[name]
