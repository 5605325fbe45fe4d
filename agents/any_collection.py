"""Collecting from environments of any kind: what is recorded, how much, and who plays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from rnem_world.actions import ActionSpace
from rnem_world.agents.collection import Collection
from rnem_world.agents.guests import check_players, make_players
from rnem_world.agents.mixture import ARCHIVE, parse_mixture, with_whole_paths, without_folders
from rnem_world.config import build, check_at_least
from rnem_world.data.collector import CollectorConfig, Source
from rnem_world.data.schema import DatasetAttributes
from rnem_world.envs.any import AnyVectorEnv, complete
from rnem_world.envs.ids import close_quietly
from rnem_world.envs.recipe import EnvironmentRecipe, parse_size
from rnem_world.errors import ConfigError

USUAL_POLICY = "random:0.5,repeated-random:0.5"
"""Worlds that are planned in need data of many players, so that they heed what is done."""

USUAL_STEPS = 50_000
SHARES = (0.9, 0.05, 0.05)
"""Of all frames, those for training, validation and testing."""

STREAMS = 4
"""Environments that run side by side in one process: so few that each runs through several episodes in a shard."""


@dataclass(frozen=True)
class AnyCollection(Collection):
    """Frames of any environment, in sequences that go on across resets; by default 50,000 of them.

    Attributes:
        num_train: Sequences for training; None for nine tenths of ``steps_of_data``.
        num_valid: Sequences for validation; None for a twentieth.
        num_test: Sequences for testing; None for a twentieth.
        policy: Who acts: baselines, functions (``MODULE:FUNCTION``) and files of stable-baselines3, with weights, each
            of which plays that part of the episodes; see `rnem_world.agents.guests.make_players`.
        recipe: The environment, and how its frames are made.
        steps_of_data: Frames of all splits together; None for 50,000, or as many as the sequences that are asked for.
        trust_policy: Whether the user vouches for a policy's file; see `load_sb3_policy`.
        make: Makes the environment instead of what the recipe names; picklable if several processes collect.
        player: Acts instead of ``policy``: a function of what the environment shows; picklable in the same case.
    """

    num_train: int | None = None  # type: ignore[assignment]  # decided by steps_of_data
    num_valid: int | None = None  # type: ignore[assignment]
    num_test: int | None = None  # type: ignore[assignment]
    shard_size: int = 200
    policy: str = USUAL_POLICY
    recipe: EnvironmentRecipe = field(default_factory=EnvironmentRecipe)
    steps_of_data: int | None = None
    trust_policy: bool = False
    make: Any = None
    player: Any = None

    def __post_init__(self) -> None:
        check_at_least(self, 2, "frames")
        if self.steps_of_data is not None:
            if any(number is not None for number in (self.num_train, self.num_valid, self.num_test)):
                raise ConfigError(
                    "steps_of_data and a number of sequences (num_train, num_valid or num_test) are both given: leave "
                    "one out"
                )
            if self.steps_of_data < 2 * self.frames:
                raise ConfigError(
                    f"steps_of_data is {self.steps_of_data}, expected at least {2 * self.frames}: two sequences of "
                    f"{self.frames} frames"
                )
        sequences = -(-(self.steps_of_data or USUAL_STEPS) // self.frames)
        rest = {
            name: max(1, round(sequences * share))
            for name, share in zip(("num_valid", "num_test"), SHARES[1:], strict=True)
        }
        usual = {"num_train": max(1, sequences - sum(rest.values())), **rest}
        for name, number in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, number)
        if self.player is not None and not callable(self.player):
            raise ConfigError(f"the player is {self.player!r}, expected a function of an observation")
        if self.player is None:
            check_players(self.policy, self.trust_policy)
            object.__setattr__(self, "policy", with_whole_paths(self.policy))

    @property
    def name(self) -> str:
        """The environment's short name, and what is asked of its frames: ``Pong-v5-36x64-grayscale``."""
        recipe = self.recipe
        parts = [re.sub(r"[^\w.-]", "-", recipe.title)]
        if recipe.size is not None:
            parts.append("x".join(map(str, recipe.size)))
        parts += ["grayscale"] * recipe.grayscale + ([recipe.binarise] if recipe.binarise else [])
        return "-".join(parts)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of policies."""
        if self.player is not None:
            return ()
        names = (player.name for player in parse_mixture(self.policy))
        return tuple(Path(name) for name in names if name.endswith(ARCHIVE))

    def sizes(self) -> CollectorConfig:
        """Says how much to collect, of streams of episodes."""
        train, valid, test = (number or 0 for number in (self.num_train, self.num_valid, self.num_test))
        return CollectorConfig(
            train, valid, test, self.frames, self.seed, self.shard_size, batch_size=STREAMS, streams=True
        )

    def source(self) -> Source:
        """Makes the environment once, decides what its recipe leaves open, and lets everybody play a step.

        Raises:
            RnemWorldError: If there is no such environment, or no frames can be made of it, or a policy doesn't suit
                it.
        """
        import rnem_world

        recipe = complete(self.recipe, self.make)
        make_env = partial(_make_env, recipe=recipe, make=self.make)
        policy = self.policy if self.player is None else self.player
        make_agent = partial(make_players, policy=policy, trusted=self.trust_policy)
        env = make_env(1)
        try:
            # What doesn't fit is refused here, and not in a process.
            agent = make_agent(env, np.random.default_rng(0))
            frames, _ = env.reset(seed=0)
            agent.reset(1)
            env.step(agent.act(frames))
            actions = ActionSpace.of(env.single_action_space)
        finally:
            env.close()
        named = self.policy if self.player is None else getattr(self.player, "__name__", "a function")
        attributes = DatasetAttributes(
            environment_id=recipe.id or recipe.title,
            settings={"recipe": recipe.to_json(), "policy": without_folders(named)},
            seed=self.seed,
            number_of_actions=actions.sizes[0] if actions.is_discrete else None,
            action_space=actions,
            maximum_value=1 if recipe.is_binary else 255,
            package_version=rnem_world.__version__,
        )
        return Source(make_env, make_agent, attributes)


def _make_env(num_envs: int, recipe: EnvironmentRecipe, make: Any) -> AnyVectorEnv:
    return AnyVectorEnv(num_envs, recipe, autoreset_mode="Disabled", make=make)


PICTURES = "pictures"
"""What the recipe's ``frames`` are called beside the frames of a sequence: ``observation`` or ``render``."""

RECIPE_OPTIONS = {
    each.name: each.name
    for each in fields(EnvironmentRecipe)
    if each.name
    not in ("id", "options", "frames", "pixels", "picture_shape", "versions", "wrappers", "background")
} | {"env_options": "options", PICTURES: "frames"}
"""The options of a collection that are the recipe's, and what the recipe calls them."""


def any_collection(
    what: str | Callable[[], gymnasium.Env[Any, Any]], options: Mapping[str, Any]
) -> AnyCollection:
    """Makes a collection from an environment of any kind and flat options.

    Args:
        what: A Gymnasium id, ``MODULE:ID`` or ``MODULE:CLASS``; or a function that makes the environment.
        options: Those of `AnyCollection`, and of `EnvironmentRecipe`: there ``env_options`` are the environment's
            keyword arguments, ``pictures`` says where frames come from, and the size may be a text.

    Raises:
        ConfigError: If an option makes no sense.
    """
    given = dict(options)
    own = {RECIPE_OPTIONS[name]: given.pop(name) for name in list(given) if name in RECIPE_OPTIONS}
    if isinstance(own.get("size"), str | int):
        own["size"] = parse_size(str(own["size"]))
    if "threshold" in own and own.get("binarise") != "threshold":
        raise ConfigError(
            f"threshold is {own['threshold']}, and binarise {own.get('binarise')}: it is for binarise='threshold' "
            "(--binarise threshold) alone"
        )
    make = None
    if callable(what):
        if own.get("options"):
            raise ConfigError(
                "env_options are given beside a function that makes the environment: put them into it"
            )
        make = what
        own = {**_described(what()), **own}
    else:
        own["id"] = what
    return build(AnyCollection, {**given, "recipe": build(EnvironmentRecipe, own), "make": make})


def _described(env: Any) -> dict[str, Any]:
    """Says how an environment that a program made can be made again, as far as it tells: by id, options, wrappers."""
    try:
        spec: EnvSpec | None = getattr(env, "spec", None)
        if spec is None or spec.entry_point is None:
            return {}
        usual = gymnasium.registry[spec.id].kwargs if spec.id in gymnasium.registry else {}
        entry = spec.entry_point
        module = entry.rpartition(":")[0] if isinstance(entry, str) else entry.__module__
        options = {
            name: value
            for name, value in spec.kwargs.items()
            if name != "render_mode" and not (name in usual and usual[name] == value)
        }
        wrappers = [
            {"entry_point": each.entry_point, "kwargs": each.kwargs} for each in spec.additional_wrappers
        ]
        for each in gymnasium.registry[spec.id].additional_wrappers if spec.id in gymnasium.registry else ():
            # Those that the id is registered with, the innermost, come with it.
            kind: Any = load_env_creator(each.entry_point)
            if wrappers and wrappers[0]["entry_point"] == f"{kind.__module__}:{kind.__name__}":
                del wrappers[0]
        known = spec.id.startswith(("ALE/", "MinAtar/")) or module.startswith("gymnasium.")
        found = EnvironmentRecipe(spec.id if known else f"{module}:{spec.id}", options, wrappers)
        DatasetAttributes(settings={"recipe": found.to_json()})  # refuses what JSON can't hold
        if any(each["kwargs"] is None for each in wrappers):
            return {}
        limit = spec.max_episode_steps
        if spec.id in gymnasium.registry and limit == gymnasium.registry[spec.id].max_episode_steps:
            limit = None
        return {"id": found.id, "options": options, "wrappers": wrappers, "max_episode_steps": limit}
    except ConfigError:
        return {}
    finally:
        if isinstance(env, gymnasium.Env):
            close_quietly(env)
