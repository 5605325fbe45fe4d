"""Any Gymnasium ``VectorEnv`` as a ``VecEnv`` of stable-baselines3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import NormalizeObservation, NormalizeReward
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
Space = spaces.Space[Any]

LARGEST = float(np.finfo(np.float32).max)
"""The largest number that a policy can be shown."""


class VectorEnvAdapter(VecEnv):
    """Gives stable-baselines3 the transitions that it expects of a ``VecEnv``, in all three autoreset modes.

    When an episode ends, the observation returned is the first of the next one. ``info["terminal_observation"]`` is
    the last one, and ``info["TimeLimit.truncated"]`` tells whether the episode was only cut off. With ``SAME_STEP``
    the environment says all of that by itself. With ``NEXT_STEP`` and ``DISABLED`` finished episodes are reset at once
    by ``options["reset_mask"]``, so that no step is lost on a reset; the environment has to honour it, as Gymnasium's
    ``SyncVectorEnv`` and the environments of rnem-world do.

    What vector wrappers add to the infos of a step, statistics of episodes say, belongs to that step, in all three
    modes. For that each wrapper's ``env`` becomes a `_Beneath` it, which also keeps one from taking the mask out of the
    options that another needs. The metadata are the environment's.

    Attributes and methods are those of the sub-environments where there are any (``SyncVectorEnv``,
    ``AsyncVectorEnv``), else those of the batched environment, which are then the same for all. Observations are handed
    on as they are, without a copy, unless the environment says that it writes into them again (``copy=False``).

    stable-baselines3 counts from 0: spaces that begin elsewhere (``Discrete(3, start=1)``) are shifted.

    Args:
        env: The environment. Observations are arrays or flat dictionaries of arrays.

    Raises:
        ConfigError: If the environment doesn't say how it resets, shows observations of another kind, or is wrapped in
            what can't reset some of several environments.
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
        self._layers = _layers(env)
        self._check_layers()
        self._beneath = _slip_beneath(self._layers)
        self._reuses_memory = not getattr(env.unwrapped, "copy", True)
        self._shown, self._done = space, env.single_action_space
        super().__init__(env.num_envs, from_zero(self._shown), from_zero(self._done))
        # Resetting is the adapter's business: of that, those who look at the metadata needn't know.
        self.metadata = {name: value for name, value in env.metadata.items() if name != "autoreset_mode"}

    def _check_layers(self) -> None:
        some = self.mode is not AutoresetMode.SAME_STEP and self.env.num_envs > 1
        if some and any(isinstance(layer, NormalizeObservation) for layer in self._layers):
            raise ConfigError(
                "NormalizeObservation of Gymnasium can't reset some environments only, as is needed where an episode "
                "ends: leave it out, and wrap this adapter in stable-baselines3's VecNormalize"
            )

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
        _check_numbers("observations", observations)
        return self._own(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = shifted(actions, self._done)

    def step_wait(self) -> tuple[Observations, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Takes the step.

        Returns:
            Observations, rewards (n,), which episodes are over (n,), and n infos.

        Raises:
            ConfigError: If the environment should reset some sub-environments and resets others too.
            DivergenceError: If rewards or observations aren't finite.
        """
        observations, rewards, terminations, truncations, infos = self.env.step(self._actions)
        _check_numbers("rewards", rewards)
        _check_numbers("observations", observations)
        over = terminations | truncations
        entries = unbatched(infos, self.num_envs)
        if self.mode is AutoresetMode.SAME_STEP:
            self._part(over, entries)
        elif over.any():
            for row in np.flatnonzero(over).tolist():
                entries[row]["terminal_observation"] = _map(
                    lambda part, row=row: part[row].copy(), observations
                )
            observations = self._restarted(over, observations)
        for row, cut in enumerate((truncations & ~terminations).tolist()):
            entries[row]["TimeLimit.truncated"] = cut
            if "terminal_observation" in entries[row]:
                entries[row]["terminal_observation"] = unshifted(
                    entries[row]["terminal_observation"], self._shown
                )
        return self._own(observations), rewards.astype(np.float32), over.copy(), entries

    def _part(self, over: NDArray[np.bool_], entries: list[dict[str, Any]]) -> None:
        """Parts the infos of last steps from those of first observations, where both come at once."""
        finals = [(entry.pop("final_obs", None), entry.pop("final_info", None) or {}) for entry in entries]
        if not over.any():
            return
        # What is there beside the first observations' infos was added by wrappers, which saw the last step.
        begun = entries if self._beneath is None else unbatched(self._beneath.infos, self.num_envs)
        for row in np.flatnonzero(over).tolist():
            observation, last = finals[row]
            self.reset_infos[row] = {key: entries[row][key] for key in entries[row] if key in begun[row]}
            added = {key: entries[row][key] for key in entries[row] if key not in begun[row]}
            _check_numbers("observations", _map(np.asarray, observation))
            entries[row] = last | added | {"terminal_observation": observation}

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
        children, base = self._sub_environments(), self._base()
        if children is not None:
            return [children[row].get_wrapper_attr(attr_name) for row in rows]
        if hasattr(base, "get_attr"):
            values = base.get_attr(attr_name)
            return [values[row] for row in rows]
        return [getattr(self._holder(attr_name), attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of sub-environments.

        Raises:
            ConfigError: If a batched environment is to have it in some sub-environments only.
        """
        rows = list(self._get_indices(indices))
        base = self._base()
        if hasattr(base, "set_attr"):
            some = len(rows) < self.num_envs
            values = self.get_attr(attr_name) if some else [value] * self.num_envs
            for row in rows:
                values[row] = value
            base.set_attr(attr_name, values)
        else:
            self._check_all(rows, f"set {attr_name!r}")
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of sub-environments; a batched environment's own method is called once.

        Raises:
            ConfigError: If it can't be called for some sub-environments only.
        """
        rows = list(self._get_indices(indices))
        children, base = self._sub_environments(), self._base()
        if children is not None:
            methods = [children[row].get_wrapper_attr(method_name) for row in rows]
            return [method(*method_args, **method_kwargs) for method in methods]
        self._check_all(rows, f"call {method_name!r}")
        if hasattr(base, "call"):
            return list(base.call(method_name, *method_args, **method_kwargs))
        method = getattr(self._holder(method_name), method_name)
        return [method(*method_args, **method_kwargs)] * len(rows)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Tells whether sub-environments, or all of them together, are wrapped in the given class."""
        rows = list(self._get_indices(indices))
        if any(isinstance(layer, wrapper_class) for layer in self._layers):
            return [True] * len(rows)
        children = self._sub_environments()
        return [children is not None and is_wrapped(children[row], wrapper_class) for row in rows]

    def _restarted(self, over: NDArray[np.bool_], observations: Observations) -> Observations:
        # Gymnasium's wrapper forgets the returns of all when some are reset.
        kept = [
            (layer, layer.accumulated_reward.copy())
            for layer in self._layers
            if isinstance(layer, NormalizeReward)
        ]
        fresh, infos = self.env.reset(options={"reset_mask": over.copy()})
        for layer, returns in kept:
            layer.accumulated_reward[~over] = returns[~over]
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
        shown: Observations = unshifted(own, self._shown)
        return shown

    def _seed_argument(self) -> Any:
        first = self._seeds[0]
        if all(seed is None for seed in self._seeds):
            return None
        if first is not None and self._seeds == list(range(first, first + self.num_envs)):
            return first  # what every VectorEnv understands
        return list(self._seeds)

    def _base(self) -> Any:
        return self.env.unwrapped

    def _sub_environments(self) -> Any:
        return getattr(self._base(), "envs", None)

    def _holder(self, name: str) -> Any:
        """Finds which of the wrappers, or the batched environment, has an attribute."""
        return next((layer for layer in self._layers if hasattr(layer, name)), self._base())

    def _check_all(self, rows: list[int], what: str) -> None:
        if len(rows) != self.num_envs:
            raise ConfigError(
                f"can't {what} in {len(rows)} of {self.num_envs} environments that are one batch"
            )


class _Beneath(VectorWrapper[Any, Any, Any, Any, Any]):
    """Stands between a wrapper and what it wraps, so that what either does with options and infos is its own affair.

    Attributes:
        infos: Those of the last step, as what is wrapped gave them.
    """

    infos: dict[str, Any]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets, with a copy of the options: some take those out that are for them."""
        return self.env.reset(seed=seed, options=None if options is None else dict(options))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps, and keeps the infos."""
        *rest, infos = self.env.step(actions)
        self.infos = infos.copy()
        return (*rest, infos)


def _layers(env: VectorEnv[Any, Any, Any]) -> list[VectorWrapper[Any, Any, Any, Any, Any]]:
    """Lists the wrappers of an environment, the outermost first."""
    found = []
    while isinstance(env, VectorWrapper):
        if not isinstance(env, _Beneath):
            found.append(env)
        env = env.env
    return found


def _slip_beneath(layers: list[VectorWrapper[Any, Any, Any, Any, Any]]) -> _Beneath | None:
    """Slips a `_Beneath` under each wrapper, unless there is one already, and returns the innermost."""
    innermost = None
    for layer in layers:
        if not isinstance(layer.env, _Beneath):
            layer.env = _Beneath(layer.env)
        innermost = layer.env
    return innermost


def from_zero(space: Space) -> Space:
    """Gives the space in which choices are counted from 0, and which else is the same."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: from_zero(part) for name, part in space.spaces.items()})
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(space.n, dtype=space.dtype)
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start):
        return spaces.MultiDiscrete(space.nvec, dtype=space.dtype)
    return space


def shifted(values: Any, space: Space) -> Any:
    """Turns choices that are counted from 0 into those of a space; bits come as real numbers there."""
    if isinstance(space, spaces.MultiBinary):
        return np.asarray(values).astype(space.dtype)
    return values + space.start if _begins_elsewhere(space) else values


def unshifted(values: Any, space: Space) -> Any:
    """Undoes `shifted`, with observations by name too."""
    if isinstance(space, spaces.Dict):
        return {name: unshifted(values[name], part) for name, part in space.spaces.items()}
    return values - space.start if _begins_elsewhere(space) else values


def _begins_elsewhere(space: Space) -> TypeGuard[spaces.Discrete | spaces.MultiDiscrete]:
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and bool(np.any(space.start))


def unbatched(infos: dict[str, Any] | list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Turns the infos of a vector environment into one dictionary for each sub-environment.

    Args:
        infos: Arrays or dictionaries of them by name; ``_name`` tells for which sub-environments there is one. Or what
            Gymnasium's ``DictInfoToList`` has made of them.
        number: Number of sub-environments.
    """
    if isinstance(infos, list):
        return [dict(entry) for entry in infos]
    entries: list[dict[str, Any]] = [{} for _ in range(number)]
    for name, values in infos.items():
        if name.startswith("_") and name[1:] in infos:
            continue
        mask = infos.get(f"_{name}", np.ones(number, dtype=np.bool_))
        parts = unbatched(values, number) if isinstance(values, dict) else values
        for row in np.flatnonzero(mask).tolist():
            entries[row][name] = parts[row]
    return entries


def _map(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Applies a function to observations, one or many, by name where they have names."""
    if isinstance(first, dict):
        return {key: function(first[key], *(other[key] for other in others)) for key in first}
    return function(first, *others)


def _check_numbers(what: str, given: Any) -> None:
    """Refuses what is no array, and numbers that are NaN or infinite, or would be in the 32 bits that a policy sees."""
    for array in given.values() if isinstance(given, dict) else [given]:
        if not isinstance(array, np.ndarray | np.generic):
            raise ConfigError(
                f"the environment's {what} are a {type(array).__name__}, expected arrays of NumPy: leave out wrappers "
                "that turn them into something else"
            )
        if not np.issubdtype(array.dtype, np.floating):
            continue
        # A sum takes half the time of a maximum; overflow would need numbers that no network can use either.
        largest = array.sum(dtype=np.float64) if array.itemsize <= 4 else np.abs(array).max(initial=0.0)
        if not abs(largest) <= LARGEST:
            raise DivergenceError(
                f"an environment gave {what} that are NaN or infinite, or too large for 32 bits: nothing can be "
                "learned from them. If it is a dream, it diverges: use another checkpoint of the world, or shorter "
                "episodes (max_episode_steps); if not, mend the environment"
            )
