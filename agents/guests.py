"""Players that know an environment of others as it is: functions of a user's, and policies trained elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import BASELINES, Agent, baseline
from rnem_world.agents.frame_stack import FrameStack, StackingAgent
from rnem_world.agents.mixture import ARCHIVE, MixedAgent, parse_mixture
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.ids import first_line, import_module
from rnem_world.errors import ConfigError, suggest

Choose = Callable[..., Any]
"""A player of one environment: from what it shows, and perhaps a generator of random numbers, to an action."""


class FunctionAgent:
    """Lets a function choose: it is shown what the environment itself shows, of one environment after the other.

    Args:
        choose: ``choose(observation)`` or ``choose(observation, generator)``; returns an action.
        env: The environment.
        generator: Where its chance comes from.
        name: What it is called in messages.
    """

    def __init__(self, choose: Choose, env: AnyVectorEnv, generator: np.random.Generator, name: str) -> None:
        self._choose, self._env, self._name = choose, env, name
        self._chance = (generator,) if _takes_two(choose) else ()

    def reset(self, num_envs: int) -> None:
        """Nothing to do."""

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Nothing to do."""

    def act(self, observations: Any) -> NDArray[Any]:
        """Asks for one action for each environment.

        Raises:
            ConfigError: If the function fails, or what it returns is no action.
        """
        space, chosen = self._env.single_action_space, []
        for shown in self._env.raw_observations:
            try:
                action = self._choose(shown, *self._chance)
            except Exception as error:  # a function of a user's raises errors of any kind
                raise ConfigError(
                    f"the policy {self._name} fails: {type(error).__name__}: {first_line(error)}"
                ) from error
            given = np.asarray(action)
            fits = given.shape == (space.shape or ()) and given.dtype.kind in "biuf"
            if not fits or not space.contains(given.astype(space.dtype)):
                raise ConfigError(
                    f"the policy {self._name} returns {action!r}, expected an action of {space}"
                )
            chosen.append(given.astype(space.dtype))
        return np.stack(chosen)


def _takes_two(choose: Choose) -> bool:
    """Says whether a function wants a generator as well."""
    try:
        inspect.signature(choose).bind(None, None)
    except TypeError:
        return False
    return True


class TrainedGuest(StackingAgent):
    """Acts as a policy of stable-baselines3 that was trained in the environment itself, or on its frames.

    Its actions are drawn, not the likeliest. If it was trained on stacked frames, the last few are shown.

    Args:
        model: What `rnem_world.agents.policy_agent.load_sb3_policy` gave.
        env: The environment.
        name: What it is called in messages.

    Raises:
        ConfigError: If it was trained on other observations or actions.
    """

    def __init__(self, model: Any, env: AnyVectorEnv, name: str) -> None:
        from rnem_world.agents.sb3 import from_zero

        self._model, self._env = model, env
        seen, raw, frame = model.observation_space, env.raw_observation_space, env.single_observation_space
        if model.action_space != from_zero(env.single_action_space):
            raise ConfigError(
                f"the policy {name} knows the actions {model.action_space}, and {env.recipe.title} has "
                f"{env.single_action_space}: choose a policy of this environment"
            )
        self._sees_raw = _same_shapes(seen, raw)
        self._first = False
        stack: FrameStack | None = None
        if not self._sees_raw:
            height, width, channels = frame.shape or (0, 0, 0)
            shape = tuple(seen.shape or ())
            self._first = len(shape) == 3 and shape[1:] == (height, width) and shape[0] % channels == 0
            if not self._first and not (shape[:2] == (height, width) and shape[-1] % channels == 0):
                raise ConfigError(
                    f"the policy {name} was trained on observations {seen}, expected those of the environment, {raw}, "
                    f"or stacked frames {(height, width, channels)}"
                )
            stack = FrameStack(shape[0] if self._first else shape[-1])
        super().__init__(stack)

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Chooses one action for each environment."""
        from rnem_world.agents.sb3 import shifted

        if self._stack is None:
            shown = _batched(self._env.raw_observations)
        else:
            stacked = self._stack.push(observations)
            shown = np.ascontiguousarray(np.moveaxis(stacked, -1, 1)) if self._first else stacked
        actions, _ = self._model.predict(shown, deterministic=False)
        chosen: NDArray[Any] = shifted(np.asarray(actions), self._env.single_action_space)
        return chosen


def _same_shapes(seen: spaces.Space[Any], raw: spaces.Space[Any]) -> bool:
    if isinstance(seen, spaces.Dict) and isinstance(raw, spaces.Dict):
        return all(name in raw.spaces and part.shape == raw[name].shape for name, part in seen.spaces.items())
    return not isinstance(raw, spaces.Dict) and seen.shape is not None and seen.shape == raw.shape


def _batched(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {name: np.stack([shown[name] for shown in observations]) for name in observations[0]}
    return np.stack(observations)


def check_players(policy: str, trusted: bool) -> None:
    """Refuses who can't play, as far as names tell.

    Raises:
        ConfigError: If a name is none of a baseline, a file of a policy or a function.
        DependencyError: If the module of a function isn't there.
    """
    names = [player.name for player in parse_mixture(policy)]
    for name in names:
        if name.endswith(ARCHIVE):
            if not Path(name).is_file():
                raise ConfigError(f"there is no policy {name}; expected a .zip that stable-baselines3 saved")
        elif ":" in name:
            function_named(name)
        elif name not in BASELINES:
            raise ConfigError(
                f"no policy {name!r}: {suggest(name, BASELINES)}, the path of a .zip, or MODULE:FUNCTION"
            )
    if trusted and not any(name.endswith(ARCHIVE) for name in names):
        raise ConfigError(
            f"--trust-policy is for a .zip of stable-baselines3, not for {policy}: leave it out"
        )


def function_named(name: str) -> Choose:
    """Finds a function by ``MODULE:FUNCTION``.

    Raises:
        ConfigError: If the module has no such function.
        DependencyError: If there is no such module.
    """
    module, _, function = name.rpartition(":")
    found = getattr(import_module(module, name), function, None)
    if not callable(found):
        raise ConfigError(f"the policy {name} is {found!r}, expected a function of {module}")
    chosen: Choose = found
    return chosen


def make_players(
    env: AnyVectorEnv, generator: np.random.Generator, policy: str | Choose, trusted: bool = False
) -> Agent:
    """Makes who plays in an environment of any kind.

    Args:
        env: The environment.
        generator: Where chance comes from.
        policy: A function; or names with weights, as `rnem_world.agents.mixture.parse_mixture` reads them, of
            baselines, functions and files of stable-baselines3.
        trusted: Whether the user vouches for such files.

    Raises:
        RnemWorldError: If a policy can't be loaded or doesn't suit the environment.
    """
    if not isinstance(policy, str):
        return FunctionAgent(policy, env, generator, getattr(policy, "__name__", "given"))
    players = parse_mixture(policy)
    draws, *generators = generator.spawn(1 + len(players))
    agents = [
        _player(env, own, player.name, trusted) for own, player in zip(generators, players, strict=True)
    ]
    return agents[0] if len(agents) == 1 else MixedAgent(agents, [player.share for player in players], draws)


def _player(env: AnyVectorEnv, generator: np.random.Generator, name: str, trusted: bool) -> Agent:
    if name.endswith(ARCHIVE):
        from rnem_world.agents.policy_agent import load_sb3_policy

        model = load_sb3_policy(Path(name), trusted, int(generator.integers(2**31)))
        return TrainedGuest(model, env, Path(name).name)
    if ":" in name:
        return FunctionAgent(function_named(name), env, generator, name)
    return baseline(name, ActionSpace.of(env.single_action_space), generator)
