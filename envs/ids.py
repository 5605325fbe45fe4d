"""Environments of any kind by their Gymnasium id."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import gymnasium
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from rnem_world.envs import register_environments
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.envs.window import unseen_window
from rnem_world.errors import ConfigError, DependencyError, RnemWorldError, suggest

AnyEnv = gymnasium.Env[Any, Any]
MakeEnv = Callable[[], AnyEnv]

MISSING = (ImportError, gymnasium.error.DependencyNotInstalled)
"""The errors by which environments say that a package isn't there."""

ALE, MINATAR, MINIGRID = "ALE/", "MinAtar/", ("MiniGrid-", "BabyAI-")
"""How the ids begin of what ale-py, minatar and minigrid register."""


def environment_spec(name: str) -> EnvSpec:
    """Finds what an id means, as `gymnasium.make` does; those of ale-py, minatar and minigrid need no import.

    Args:
        name: A Gymnasium id, ``MODULE:ID`` where importing a module registers it; without a version the newest.

    Raises:
        ConfigError: If there is no such environment.
        DependencyError: If it is in a package that isn't there.
    """
    register_environments()
    module, colon, plain = name.rpartition(":")
    if colon:
        import_module(module, name)
    else:
        _register_known(name)
    try:
        namespace, title, version = parse_env_id(plain)
        newest = find_highest_version(namespace, title)
        if version is None and newest is not None:
            plain = get_env_id(namespace, title, newest)
        return gymnasium.spec(plain)
    except gymnasium.error.Error as error:
        raise ConfigError(
            f"no environment {name!r} ({first_line(error)}): {_nearest(plain)}; what another package registers "
            "is named MODULE:ID, MODULE being what has to be imported for it"
        ) from error


def _nearest(name: str) -> str:
    """Names the registered id that is nearest to a wrong one, or those of this package."""
    near = difflib.get_close_matches(name, gymnasium.registry, n=1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]!r}?"
    return suggest(name, [known for known in gymnasium.registry if known.startswith("RNEM-")])


def _register_known(name: str) -> None:
    """Imports the package that registers an id, where its beginning tells which."""
    from rnem_world.envs.atari_console import require_ale

    if name.startswith(ALE):
        require_ale()
    elif name.startswith(MINATAR):
        with _quiet():
            module = _package("minatar.gym", "minatar", name)
        if f"{MINATAR}Breakout-v1" not in gymnasium.registry:
            module.register_envs()
    elif name.startswith(MINIGRID):
        _package("minigrid", "minigrid", name)


def _package(module: str, extra: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"{name} is of the package {extra}, which can't be imported ({first_line(error)}): `pip install {extra}`, "
            f"the extra {extra!r} of rnem-world"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps a package from remarking on what it could do with others."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def import_module(module: str, name: str) -> Any:
    """Imports the module that an id names.

    Args:
        module: The module.
        name: The whole id, for messages.

    Raises:
        ConfigError: If it raises an error.
        DependencyError: If it isn't there, or something that it imports isn't.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module of a user's raises errors of any kind
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise DependencyError(
                f"there is no module {module!r}, which {name!r} names: install it, or put its folder into PYTHONPATH"
            ) from error
        kind = DependencyError if isinstance(error, ImportError) else ConfigError
        raise kind(
            f"importing {module!r}, which {name!r} names, fails: {type(error).__name__}: {first_line(error)}"
        ) from error


def make_environment(
    name: str,
    num_envs: int,
    options: Mapping[str, Any],
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    device: str | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Makes N environments that honour ``options["reset_mask"]``: one batch of ours, single ones of others.

    Args:
        name: A Gymnasium id, see `environment_spec`.
        num_envs: N.
        options: Keyword arguments of the environment, ``max_episode_steps`` among them.
        autoreset_mode: When a finished episode is reset, unless the options say so.
        device: Where the model of a learned one is, unless the options say so; None for its own default.

    Raises:
        ConfigError: If there is no such environment, or it doesn't take these options.
        RnemWorldError: If the environment itself refuses them.
    """
    spec = environment_spec(name)
    entry_point: Any = spec.vector_entry_point
    ours = str(entry_point).startswith("rnem_world.")
    try:
        if ours:
            given: dict[str, Any] = {"autoreset_mode": autoreset_mode}
            if device is not None and ".learned:" in str(entry_point):
                given["device"] = device
            options = {**given, **options}
            return gymnasium.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **options)
        mode = {"autoreset_mode": autoreset_mode}
        return gymnasium.make_vec(spec, num_envs, vectorization_mode="sync", vector_kwargs=mode, **options)
    except RnemWorldError:
        raise
    except MISSING as error:
        refuse_missing(name, error)
    except Exception as error:  # environments of others refuse options by errors of any kind
        if ours and not isinstance(error, TypeError | ValueError | gymnasium.error.Error):
            raise
        raise ConfigError(
            f"can't make {name} with the options {dict(options)}: {'' if ours else type(error).__name__ + ': '}"
            f"{first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or what kind of error it is where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def make_raw(recipe: EnvironmentRecipe, draws: bool, make: MakeEnv | None = None) -> AnyEnv:
    """Makes the environment that a recipe names, as it is.

    Args:
        recipe: Which, with its options and wrappers.
        draws: Whether it is asked to draw what happens.
        make: Makes it instead.

    Raises:
        ConfigError: If there is none, or it refuses its options, or can't draw.
        DependencyError: If a package is missing.
    """
    if make is None and not recipe.id:
        raise ConfigError(
            "the environment was made by a program and has no id: nobody else can make it again"
        )
    options = {**recipe.options, **({"render_mode": "rgb_array"} if draws else {})}
    name = recipe.id or "the environment"
    if draws:
        os.environ.update(unseen_window())
    try:
        env = _named(recipe, options) if make is None else make()
        for wrapper in recipe.wrappers if make is None else ():
            env = _class_named(wrapper["entry_point"], gymnasium.Wrapper)(env, **(wrapper["kwargs"] or {}))
    except RnemWorldError:
        raise
    except MISSING as error:
        refuse_missing(name, error)
    except Exception as error:  # environments of others refuse options by errors of any kind
        raise ConfigError(
            f"can't make {name} with the options {options}: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(f"{name} is a {type(env).__name__}, expected an environment (gymnasium.Env)")
    for space in ("observation_space", "action_space"):
        found = getattr(env, space, None)
        if not isinstance(found, gymnasium.Space):
            raise ConfigError(
                f"the {space} of {name} is {found!r}, expected one of gymnasium.spaces: set self.{space} in its "
                "__init__"
            )
    if make is not None:
        env = _limited(env, recipe)
    if draws and env.render_mode != "rgb_array":
        modes = (env.metadata or {}).get("render_modes", [])
        close_quietly(env)
        raise ConfigError(
            f"the observations of {name} are {env.observation_space}, no picture, and its render_mode is "
            f"{env.render_mode!r} (it knows {modes}): frames need an environment that shows or draws them "
            "(render_mode='rgb_array')"
        )
    return env


def close_quietly(env: AnyEnv) -> None:
    """Closes an environment; one that fails at that is of no more use, and what went wrong before matters more."""
    with contextlib.suppress(Exception):
        env.close()


def _named(recipe: EnvironmentRecipe, options: Mapping[str, Any]) -> AnyEnv:
    module, _, name = recipe.id.rpartition(":")
    if module and name.isidentifier() and hasattr(import_module(module, recipe.id), name):
        return _limited(_class_named(recipe.id, gymnasium.Env)(**options), recipe)
    spec = environment_spec(recipe.id)
    limit = {} if recipe.max_episode_steps is None else {"max_episode_steps": recipe.max_episode_steps}
    return gymnasium.make(spec, disable_env_checker=True, **limit, **options)


def _limited(env: AnyEnv, recipe: EnvironmentRecipe) -> AnyEnv:
    return env if recipe.max_episode_steps is None else TimeLimit(env, recipe.max_episode_steps)


def _class_named(entry_point: Any, kind: type) -> Any:
    """Finds a class by ``MODULE:CLASS``. Recipes come with worlds of others: nothing but such classes is called."""
    module, _, name = str(entry_point).rpartition(":")
    found = getattr(import_module(module, str(entry_point)), name, None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{entry_point} is {found!r}, expected a class derived from {kind.__name__}")
    return found


def refuse_missing(name: str, error: Exception) -> NoReturn:
    """Says which package an environment misses.

    Raises:
        DependencyError: Always.
    """
    text = first_line(error)
    cure = (
        "`pip install 'rnem-world[control]'` (pygame-ce)"
        if "pygame" in text
        else "install it, or what its package calls the extra"
    )
    raise DependencyError(f"{name} needs what is not installed ({text}): {cure}") from error


def versions_of(name: str) -> dict[str, str]:
    """Notes the versions of Gymnasium, of this package, and of the one that an environment comes from."""
    tops = ["gymnasium", "rnem_world"]
    module, _, plain = name.rpartition(":")
    if module:
        tops.append(module.split(".")[0])
    elif name:
        entry_point = environment_spec(plain).entry_point
        tops.append(str(entry_point).split(":")[0].split(".")[0])
    found = {}
    for top in dict.fromkeys(tops):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[top] = importlib.metadata.version(top)
    return found
