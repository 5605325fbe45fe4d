"""Datasets of Minari, read as clips and written from a dataset: https://minari.farama.org.

An episode of L steps has L + 1 observations there, which is how frames and transitions line up here as well: step t
leads from observation t to t + 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.data.arrays import Findings, Reading, to_bytes
from rnem_world.data.clips import Clip
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import NO_SEED, SPLITS, Split
from rnem_world.errors import ConfigError, DataError, DependencyError, OutputError, suggest
from rnem_world.io import atomic_folder

PREFIX = "minari:"
"""How the name of a dataset of Minari begins."""

_METADATA, _SPLIT, _BEGINS, _ENDS = (
    "metadata.json",
    "rnem_world_split",
    "rnem_world_begins",
    "rnem_world_ends",
)
_EXTRA = 'pip install "rnem-world[formats]"'
_CHANNELS = (1, 3, 4)


def _minari(what: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise DependencyError(f"{what} needs Minari, which isn't installed: {_EXTRA}") from error
    return minari


def is_minari(path: Path) -> bool:
    """Whether a path is the folder of a dataset of Minari, or the folder ``data`` within."""
    return _data_folder(path) is not None


def _data_folder(path: Path) -> Path | None:
    for folder in (path, path / "data"):
        if (folder / _METADATA).is_file() and any(folder.glob("main_data.*")):
            return folder
        if (folder / _METADATA).is_file() and any(folder.glob("*/*.arrow")):
            return folder
    return None


def find_minari(name: str) -> Path:
    """Finds the folder of a dataset that Minari knows by its id, which it downloads if it isn't there.

    Args:
        name: ``minari:ID``, or ``minari:FOLDER``.

    Raises:
        DataError: If there is none.
        DependencyError: If Minari isn't installed.
    """
    identity = name.removeprefix(PREFIX)
    if (folder := _data_folder(Path(identity))) is not None:
        return folder.absolute()
    minari = _minari(name)
    try:
        minari.load_dataset(identity, download=True)
        from minari.storage import get_dataset_path

        return Path(get_dataset_path(identity)) / "data"
    except Exception as error:  # Minari, the network and stores raise errors of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: Minari has no such dataset at hand, and it can't be downloaded ({reason}): `minari list local` "
            "and `minari list remote` name those that there are"
        ) from error


def read_minari(path: Path, reading: Reading, findings: Findings) -> Iterator[Clip]:
    """Yields the episodes of a dataset; one is in memory at a time.

    Raises:
        DataError: If its observations are no pictures, or it can't be read.
        DependencyError: If Minari isn't installed.
    """
    minari = _minari(str(path))
    try:
        dataset = minari.MinariDataset(_data_folder(path))
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        keys, picture = _picture(dataset.observation_space, reading.picture, str(path))
        action_space = ActionSpace.of(dataset.action_space)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    except (DataError, DependencyError):
        raise
    except Exception as error:  # Minari has no errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: Minari can't read its own dataset ({reason})") from error
    findings.assumed.setdefault("minari", f"Minari's dataset {dataset.id}")
    if keys:
        findings.assumed.setdefault("picture", f"frames are the observations' {keys[-1]}")
    has_seeds = any(entry.get("seed") is not None for entry in metadata)
    for episode, entry in zip(dataset.iterate_episodes(), metadata, strict=True):
        observations = episode.observations
        for key in keys:
            observations = observations[key]
        observations = np.asarray(observations)
        ends = reading.value_range or _ends(picture, observations)
        pictures = _arranged(observations, findings)
        steps = len(episode.rewards)
        if len(observations) != steps + 1:
            raise DataError(
                f"{path}: episode {episode.id} has {len(observations)} observations and {steps} steps"
            )
        arrays = {
            "actions": action_space.encode(np.asarray(episode.actions)),
            "rewards": np.asarray(episode.rewards, np.float32),
            "terminations": np.asarray(episode.terminations, np.bool_),
            "truncations": np.asarray(episode.truncations, np.bool_),
        }
        # What rnem-world itself wrote says whether an episode was cut by the sequence that it stood in.
        if not entry.get(_ENDS, True):
            arrays["truncations"][-1] = False
        arrays = {name: np.concatenate([array, np.zeros_like(array[:1])]) for name, array in arrays.items()}
        arrays["is_first"] = np.arange(steps + 1) == (0 if entry.get(_BEGINS, True) else -1)
        if has_seeds:
            arrays["seeds"] = np.full(steps + 1, NO_SEED, np.uint64)
            if entry.get("seed") is not None:
                arrays["seeds"][0] = int(entry["seed"]) % 2**64
        split = str(entry.get(_SPLIT, ""))
        yield Clip(
            name=f"{path}: episode {episode.id}",
            frames=(to_bytes(frame, ends) for frame in pictures),
            arrays=arrays,
            number_of_actions=action_space.sizes[0] if action_space.is_discrete else None,
            action_space=action_space,
            split=split if split in SPLITS else None,
        )


def _picture(
    space: spaces.Space[Any], wanted: str | None, place: str
) -> tuple[tuple[str, ...], spaces.Space[Any]]:
    """Finds the entry of the observations that is a picture: the keys that lead to it, and its space."""
    found = dict(_pictures(space, ()))
    if not found:
        raise DataError(
            f"{place}: observations are {str(space)[:80]}, and models here learn from pictures: collect with an "
            "environment that shows some (gymnasium.wrappers.AddRenderObservation)"
        )
    names = {"/".join(keys): keys for keys in found}
    if wanted is not None:
        if wanted not in names or not names[wanted]:
            raise DataError(
                f"{place}: no picture {wanted!r} among the observations: {suggest(wanted, names)}"
            )
        return names[wanted], found[names[wanted]]
    if len(found) > 1:
        raise DataError(f"{place}: several pictures, say which one by --picture: {', '.join(names)}")
    return next(iter(found.items()))


def _pictures(
    space: spaces.Space[Any], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], spaces.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        for key, entry in space.spaces.items():
            yield from _pictures(entry, (*keys, str(key)))
    elif isinstance(space, spaces.Box | spaces.MultiBinary) and len(space.shape) in (2, 3):
        yield keys, space


def _ends(space: spaces.Space[Any], pictures: NDArray[Any]) -> tuple[float, float]:
    """Says which values are black and white: the bounds of the space, or those of its dtype."""
    if not isinstance(space, spaces.Box):
        return 0.0, 1.0
    low, high = float(space.low.min()), float(space.high.max())
    if np.isfinite([low, high]).all() and low < high and (space.dtype != np.uint8 or high <= 1):
        return low, high
    return (0.0, 255.0) if pictures.dtype.kind == "u" else (0.0, 1.0)


def _arranged(pictures: NDArray[Any], findings: Findings) -> NDArray[Any]:
    """Brings pictures into (t, h, w) or (t, h, w, c)."""
    if pictures.ndim == 3 or pictures.shape[-1] in _CHANNELS:
        return pictures
    if pictures.shape[1] in _CHANNELS[:2]:
        findings.assumed.setdefault("layout", "pictures have their channels first")
        return np.moveaxis(pictures, 1, -1)
    if pictures.shape[1] < min(pictures.shape[2:]) // 4:
        findings.assumed.setdefault(
            "stack", f"of the {pictures.shape[1]} pictures of an observation the last"
        )
        return pictures[:, -1]
    return pictures


def write_minari(
    dataset: Dataset, identity: str, *, description: str = "", author: str = ""
) -> tuple[int, int]:
    """Writes a dataset as one of Minari, whose environment variable MINARI_DATASETS_PATH says where they are.

    Each stretch of a sequence that is of one episode becomes an episode. One that ends because the sequence does is
    marked as truncated, because Minari's episodes end; that it wasn't is kept in the episode's metadata, as is its
    split, so that reading it again gives the dataset again. The transition out of a sequence's last frame is left out,
    for the frame that it leads to isn't there. Frames of bits become 0 and 255.

    Args:
        dataset: The dataset.
        identity: The id, ``name-v0`` or ``namespace/name-v0``.
        description: What it is.
        author: Whose.

    Returns:
        How many episodes and how many steps.

    Raises:
        ConfigError: If the id is none.
        DataError: If the dataset has no actions, or no episode of a step.
        DependencyError: If Minari isn't installed.
        OutputError: If there is a dataset of that id, or it can't be written.
    """
    minari = _minari(f"writing {identity}")
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path

    try:
        namespace = parse_dataset_id(identity)[0]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{identity!r} is no id of Minari, expected one such as balls/avoid-v0") from error
    place = Path(get_dataset_path(identity))
    if place.exists():
        raise OutputError(f"{identity} exists already in {place}: choose another version, or delete it first")
    for split in dataset.splits:
        dataset.require(split, ["actions"])
    said = dataset.attributes
    action_space = said.action_space or ActionSpace.discrete(said.number_of_actions or 1)
    info = dataset.info(dataset.splits[0])
    observations = spaces.Box(0, 255, (info.height, info.width, info.channels), np.uint8)
    extra = {"description": description} if description else {}
    metadata: dict[str, Any] = {"dataset_id": identity, "minari_version": minari.__version__, **extra}
    if author:
        metadata["author"] = {author}
    metadata["rnem_world_environment"] = said.environment_id
    episodes = steps = 0
    with _removed_if_empty(place), atomic_folder(place / "data") as folder:
        storage = MinariStorage.new(
            folder, observations, action_space.space(), _environment(said.environment_id), jpeg_encoding=False
        )
        storage.update_metadata(metadata)
        for split in dataset.splits:
            for row in range(dataset.info(split).number_of_sequences):
                buffers, marks = _episodes(dataset, split, row, action_space, episodes)
                if not buffers:
                    continue
                storage.update_episodes(buffers)
                storage.update_episode_metadata(marks, range(episodes, episodes + len(buffers)))
                episodes += len(buffers)
                steps += sum(len(buffer.rewards) for buffer in buffers)
        if not episodes:
            raise DataError(f"{dataset.path} has no episode of at least one step")
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
    return episodes, steps


@contextmanager
def _removed_if_empty(place: Path) -> Iterator[None]:
    """Leaves no folder behind that nothing was written into."""
    try:
        yield
    finally:
        with suppress(OSError):
            place.rmdir()


def _environment(identity: str) -> Any:
    """Gives the specification of the environment, if Gymnasium knows it."""
    import gymnasium

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.spec(identity)
    except Exception:  # an id may be anything
        return None


def _episodes(
    dataset: Dataset, split: Split, row: int, action_space: ActionSpace, first: int
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Cuts a sequence into Minari's episodes; those of one frame have no step and are left out."""
    from minari.data_collector import EpisodeBuffer

    wanted = ("features", "actions", "rewards", "terminations", "truncations", "is_first", "seeds")
    there = dataset.info(split).arrays
    read = {
        name: array[:, 0]
        for name, array in dataset.read(split, [row], [name for name in wanted if name in there]).items()
    }
    frames = read["features"] * np.uint8(255 if dataset.attributes.maximum_value == 1 else 1)
    length = len(frames)
    begins = read.get("is_first", np.arange(length) == 0)
    edges = sorted({0, *np.flatnonzero(begins).tolist(), length})
    buffers: list[Any] = []
    marks: list[dict[str, Any]] = []
    for start, end in pairwise(edges):
        steps = slice(start, end - 1)
        count = end - 1 - start
        if count < 1:
            continue
        terminations = read.get("terminations", np.zeros(length, np.bool_))[steps].copy()
        truncations = read.get("truncations", np.zeros(length, np.bool_))[steps].copy()
        really_ends = bool(terminations[-1] or truncations[-1])
        truncations[-1] |= not really_ends
        seed = read["seeds"][start] if "seeds" in read else NO_SEED
        buffers.append(
            EpisodeBuffer(
                id=first + len(buffers),
                seed=None if int(seed) == NO_SEED else int(seed),
                observations=frames[start:end],
                actions=action_space.decode(read["actions"][steps]),
                rewards=read.get("rewards", np.zeros(length, np.float32))[steps],
                terminations=terminations,
                truncations=truncations,
            )
        )
        marks.append({_SPLIT: split, _BEGINS: bool(begins[start]), _ENDS: really_ends})
    return buffers, marks
