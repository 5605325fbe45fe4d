"""Any Gymnasium ``VectorEnv`` as a ``VecEnv`` of stable-baselines3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rnem_world.errors import ConfigError, DependencyError, DivergenceError

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise DependencyError(
        "stable-baselines3 is not installed: `pip install 'stable-baselines3>=2.7,<3'`, the extra 'agents'"
    ) from error

Observations = NDArray[Any] | dict[str, NDArray[Any]]


class VectorEnvAdapter(VecEnv):
    """Gives stable-baselines3 the transitions that it expects of a ``VecEnv``, in all three autoreset modes.

    When an episode ends, the observation returned is the first of the next one. ``info["terminal_observation"]`` is
    the last one, and ``info["TimeLimit.truncated"]`` tells whether the episode was only cut off. With ``SAME_STEP``
    the environment says all of that by itself. With ``NEXT_STEP`` and ``DISABLED`` finished episodes are reset at once
    by ``options["reset_mask"]``, so that no step is lost on a reset; the environment has to honour it, as Gymnasium's
    ``SyncVectorEnv`` and the environments of rnem-world do.

    Attributes and methods are those of the sub-environments where there are any (``SyncVectorEnv``,
    ``AsyncVectorEnv``), else those of the batched environment, which are then the same for all. Observations are handed
    on as they are, without a copy, unless the environment says that it writes into them again (``copy=False``).

    Args:
        env: The environment. Observations are arrays or flat dictionaries of arrays.

    Raises:
        ConfigError: If the environment doesn't say how it resets, or shows observations of another kind.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ConfigError(
                f"metadata['autoreset_mode'] of {env} is {mode!r}, expected an AutoresetMode: how does it reset?"
            )
        space = env.single_observation_space
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
        if any(isinstance(part, spaces.Dict | spaces.Tuple) or part.shape is None for part in parts):
            raise ConfigError(f"the observations are {space}, expected arrays or a flat dictionary of arrays")
        self.env = env
        self.mode = mode
        self._reuses_memory = not getattr(env.unwrapped, "copy", True)
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> Observations:
        """Resets all sub-environments, with the seeds and options that were set since the last time."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ConfigError(
                "a batched environment is reset with the same options everywhere: set one dictionary"
            )
        observations, infos = self.env.reset(seed=self._seed_argument(), options=dict(options) or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = unbatched(infos, self.num_envs)
        return self._own(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Takes the step.

        Returns:
            Observations, rewards (n,), which episodes are over (n,), and n infos.

        Raises:
            ConfigError: If the environment should reset some sub-environments and resets others too.
            DivergenceError: If rewards or observations aren't finite.
        """
        observations, rewards, terminations, truncations, infos = self.env.step(self._actions)
        _check_finite(observations, rewards)
        over = terminations | truncations
        finished = np.flatnonzero(over).tolist()
        entries = unbatched({key: infos[key] for key in infos if "final_" not in key}, self.num_envs)
        if finished and self.mode is AutoresetMode.SAME_STEP:
            last = unbatched(infos.get("final_info", {}), self.num_envs)
            for row in finished:
                self.reset_infos[row] = entries[row]
                entries[row] = last[row] | {"terminal_observation": infos["final_obs"][row]}
        elif finished:
            for row in finished:
                entries[row]["terminal_observation"] = _map(
                    lambda part, row=row: part[row].copy(), observations
                )
            observations = self._restarted(over, observations)
        for entry, cut in zip(entries, (truncations & ~terminations).tolist(), strict=True):
            entry["TimeLimit.truncated"] = cut
        return self._own(observations), rewards.astype(np.float32), over.copy(), entries

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Returns a picture of every sub-environment."""
        images: Any = self.env.render()
        return [None] * self.num_envs if images is None else list(images)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Returns an attribute of sub-environments."""
        rows = list(self._get_indices(indices))
        if self._has_sub_environments():
            values = self.env.get_attr(attr_name)  # type: ignore[attr-defined]
            return [values[row] for row in rows]
        return [getattr(self.env, attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of sub-environments.

        Raises:
            ConfigError: If a batched environment is to have it in some sub-environments only.
        """
        rows = list(self._get_indices(indices))
        if self._has_sub_environments():
            some = len(rows) < self.num_envs
            values = self.get_attr(attr_name) if some else [value] * self.num_envs
            for row in rows:
                values[row] = value
            self.env.set_attr(attr_name, values)  # type: ignore[attr-defined]
        else:
            self._check_all(rows, f"set {attr_name!r}")
            setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of sub-environments; a batched environment's own method is called once.

        Raises:
            ConfigError: If it can't be called for some sub-environments only.
        """
        rows = list(self._get_indices(indices))
        children = getattr(self.env, "envs", None)
        if children is not None:
            methods = [children[row].get_wrapper_attr(method_name) for row in rows]
            return [method(*method_args, **method_kwargs) for method in methods]
        self._check_all(rows, f"call {method_name!r}")
        if self._has_sub_environments():
            return list(self.env.call(method_name, *method_args, **method_kwargs))  # type: ignore[attr-defined]
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * len(rows)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Tells whether sub-environments, or all of them together, are wrapped in the given class."""
        rows = list(self._get_indices(indices))
        layer: Any = self.env
        while isinstance(layer, VectorWrapper):
            if isinstance(layer, wrapper_class):
                return [True] * len(rows)
            layer = layer.env
        children = getattr(self.env, "envs", None)
        return [children is not None and is_wrapped(children[row], wrapper_class) for row in rows]

    def _restarted(self, over: NDArray[np.bool_], observations: Observations) -> Observations:
        fresh, infos = self.env.reset(options={"reset_mask": over.copy()})
        alike: Any = _map(lambda new, old: np.array_equal(new[~over], old[~over]), fresh, observations)
        if not (all(alike.values()) if isinstance(alike, dict) else alike):
            raise ConfigError(
                f"{self.env} resets all sub-environments where options['reset_mask'] names some: make it with "
                "vectorization_mode='sync', or with the autoreset mode SAME_STEP"
            )
        entries = unbatched(infos, self.num_envs)
        for row in np.flatnonzero(over).tolist():
            self.reset_infos[row] = entries[row]
        restarted: Observations = fresh
        return restarted

    def _own(self, observations: Observations) -> Observations:
        own: Observations = _map(np.copy, observations) if self._reuses_memory else observations
        return own

    def _seed_argument(self) -> Any:
        first = self._seeds[0]
        if all(seed is None for seed in self._seeds):
            return None
        if first is not None and self._seeds == list(range(first, first + self.num_envs)):
            return first  # what every VectorEnv understands
        return list(self._seeds)

    def _has_sub_environments(self) -> bool:
        return hasattr(self.env, "get_attr") and hasattr(self.env, "call")

    def _check_all(self, rows: list[int], what: str) -> None:
        if len(rows) != self.num_envs:
            raise ConfigError(
                f"can't {what} in {len(rows)} of {self.num_envs} environments that are one batch"
            )


def unbatched(infos: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Turns the infos of a vector environment into one dictionary for each sub-environment.

    Args:
        infos: Arrays or dictionaries of them by name; ``_name`` tells for which sub-environments there is one.
        number: Number of sub-environments.
    """
    entries: list[dict[str, Any]] = [{} for _ in range(number)]
    for name, values in infos.items():
        if name.startswith("_") and name[1:] in infos:
            continue
        mask = infos.get(f"_{name}", np.ones(number, dtype=np.bool_))
        parts = unbatched(values, number) if isinstance(values, dict) else values
        for row in np.flatnonzero(mask).tolist():
            entries[row][name] = parts[row]
    return entries


def _map(function: Callable[..., Any], first: Observations, *others: Observations) -> Any:
    """Applies a function to arrays of observations, by name where there are several."""
    if isinstance(first, dict):
        return {key: function(first[key], *(other[key] for other in others)) for key in first}
    return function(first, *others)


def _check_finite(observations: Observations, rewards: NDArray[Any]) -> None:
    parts = observations.values() if isinstance(observations, dict) else [observations]
    # A sum is finite only if all its terms are; overflow would need numbers that no network can use either.
    numbers = [part for part in (*parts, rewards) if not np.issubdtype(part.dtype, np.integer)]
    if not all(np.isfinite(part.sum(dtype=np.float64)) for part in numbers):
        raise DivergenceError(
            "an environment gave observations or rewards that are NaN or infinite: a dream that diverges? Use another "
            "checkpoint of the world, or shorter episodes (max_episode_steps)"
        )
