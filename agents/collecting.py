"""Collecting a dataset: from an environment, a function that makes one, or a collection, to a file."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnem_world.agents.collection import AtariCollection, BallsCollection, Collection
from rnem_world.config import build
from rnem_world.data.collector import Source, check_out_is_free, collect_dataset
from rnem_world.errors import ConfigError, suggest

if TYPE_CHECKING:
    import gymnasium

DATA_FOLDER = Path("data")
"""Where datasets are that are named by their preset or game."""

COLLECTIONS: dict[str, type[BallsCollection | AtariCollection]] = {
    "balls": BallsCollection,
    "atari": AtariCollection,
}


def collect(
    what: str | Callable[[], gymnasium.Env[Any, Any]] | Collection,
    out: Path | str | None = None,
    *,
    policy: str | Callable[..., Any] | None = None,
    workers: int = 1,
    keep_shards: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Collects a dataset; a collection that was interrupted goes on when it is asked for again.

    Args:
        what: ``"balls"`` or ``"atari"``, with the options of `BallsCollection` or `AtariCollection`; any other
            environment by its Gymnasium id (``MODULE:ID``, ``MODULE:CLASS``), or a function that makes one, with those
            of `rnem_world.agents.any_collection.any_collection`; or a collection.
        out: The file to write, or with ``keep_shards`` the folder; without it ``data/NAME.h5`` (or ``data/NAME``).
        policy: Who acts: a name, or several with weights, see `Collection`; for other environments also a function
            ``policy(observation)`` or ``policy(observation, generator)``, which is shown what the environment shows.
        workers: Processes.
        keep_shards: Whether to leave a folder of shards, which can be read as one dataset.
        overwrite: Whether ``out`` may be replaced.
        progress: Whether to show a progress bar on a terminal.
        **options: Those of the collection, by name.

    Returns:
        Where the dataset is.

    Raises:
        ConfigError: If an argument makes no sense.
        DataError: If parts of another collection are in the way.
        OutputError: If the dataset can't be written.
        RnemWorldError: As the collection's ``source``.
    """
    if isinstance(what, Collection):
        if options or policy is not None:
            names = [*options, *(["policy"] if policy is not None else [])]
            raise ConfigError(f"a collection was given, and beside it {', '.join(names)}: put them into it")
        collection = what
    else:
        collection = make_collection(what, policy, options)
    place = (
        DATA_FOLDER / (collection.name if keep_shards else f"{collection.name}.h5")
        if out is None
        else Path(out)
    ).absolute()
    check_out_is_free(place, overwrite, collection.files)
    source = collection.source()
    if workers > 1:
        _check_travels(source)
    return collect_dataset(
        source,
        collection.sizes(),
        place,
        workers=workers,
        progress=progress,
        keep_shards=keep_shards,
        overwrite=overwrite,
    )


def make_collection(
    what: str | Callable[[], gymnasium.Env[Any, Any]],
    policy: str | Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Collection:
    """Makes a collection, see `collect` for the arguments.

    Raises:
        ConfigError: If an argument makes no sense.
    """
    given = dict(options or {})
    if isinstance(what, str) and what in COLLECTIONS:
        if policy is not None and not isinstance(policy, str):
            raise ConfigError(
                f"the policy of {what} is {policy!r}, expected a name: functions play elsewhere"
            )
        return build(COLLECTIONS[what], given if policy is None else {**given, "policy": policy})
    if isinstance(what, str):
        check_environment(what)
    from rnem_world.agents.any_collection import any_collection

    if policy is not None:
        given["policy" if isinstance(policy, str) else "player"] = policy
    return any_collection(what, given)


def check_environment(name: str) -> None:
    """Refuses a name that is neither one of ours nor an environment of Gymnasium's, without a version for the newest.

    What is an id by its form is left to whoever makes the environment: it may resemble a name of ours.

    Raises:
        ConfigError: Naming what may be meant.
    """
    if name in COLLECTIONS or any(mark in name for mark in ("-v", "/", ":")):
        return
    from rnem_world.envs.ids import environment_spec

    try:
        environment_spec(name)
    except ConfigError as error:
        if not difflib.get_close_matches(name, COLLECTIONS, 1, cutoff=0.6):
            raise
        raise ConfigError(
            f"no environment {name!r} to collect from: {suggest(name, COLLECTIONS)}, or a Gymnasium id such as "
            "CartPole-v1"
        ) from error


def _check_travels(source: Source) -> None:
    """Refuses functions that can't be handed to another process.

    Raises:
        ConfigError: If one can't.
    """
    try:
        pickle.dumps(source)
    except Exception as error:  # pickling raises errors of many kinds
        raise ConfigError(
            f"several processes can't share what was given ({str(error).splitlines()[0]}): give functions that are "
            "defined in a module, or workers=1"
        ) from error
