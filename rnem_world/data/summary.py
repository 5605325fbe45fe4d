"""What a look at some sequences of a dataset shows: sizes, brightness, motion, actions, rewards and ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import Split

MOST_SEQUENCES, MOST_BYTES = 64, 2**26
"""So much is looked at."""

_WANTED = ("features", "actions", "rewards", "terminations", "truncations", "is_first")
_FEW_VALUES = 4


def describe_split(dataset: Dataset, split: Split) -> str:
    """Says in a line for people what was seen of a split.

    Args:
        dataset: The data; some of its sequences are read, spread evenly over the split.
        split: Which part.

    Raises:
        DataError: If there is no such split, or it is damaged.
    """
    info = dataset.info(split)
    size = info.number_of_frames * info.height * info.width * info.channels
    count = max(1, min(info.number_of_sequences, MOST_SEQUENCES, MOST_BYTES // size))
    rows = np.linspace(0, info.number_of_sequences - 1, count).astype(np.int64)
    arrays = dataset.read(split, rows, [name for name in _WANTED if name in info.arrays])
    colours = {1: "grey", 3: "colours"}.get(info.channels, f"{info.channels} channels")
    pixels = "black and white" if dataset.attributes.maximum_value == 1 else colours
    if dataset.attributes.maximum_value == 1 and info.channels > 1:
        pixels = f"{info.channels} channels of 0 and 1"
    sizes = (
        f"{info.number_of_sequences:,} sequences of {info.number_of_frames} frames, {info.height} x {info.width}, "
        f"{pixels}"
    )
    parts = [sizes, *_seen(arrays, dataset.attributes.action_space, info.number_of_actions)]
    return f"{split}: {'; '.join(parts)} (seen in {count} of them)"


def _seen(
    arrays: dict[str, NDArray[Any]], space: ActionSpace | None, number_of_actions: int | None
) -> Iterator[str]:
    frames, firsts = arrays["features"], arrays.get("is_first")
    # A transition into another episode's first frame is none.
    real = np.ones(frames.shape[:2], np.bool_)
    real[-1] = False
    if firsts is not None:
        real[:-1] &= ~firsts[1:]
    moved = (frames[1:] != frames[:-1]).any(axis=-1).mean(axis=(2, 3))[real[:-1]]
    yield (
        f"values {frames.min()} to {frames.max()}, mean {frames.mean():.3g}, "
        f"{100 * (moved.mean() if moved.size else 0.0):.2g} % of the pixels change in a step"
    )
    if "actions" in arrays:
        yield _actions(arrays["actions"][real], space, number_of_actions)
    else:
        yield "no actions"
    yield _rewards(arrays["rewards"][real]) if "rewards" in arrays else "no rewards"
    yield from _ends(arrays, real)


def _actions(actions: NDArray[Any], space: ActionSpace | None, number: int | None) -> str:
    if actions.ndim == 1:
        counts = np.bincount(actions, minlength=number or 0)
        shares = 100 * counts / max(counts.sum(), 1)
        missing = int((counts == 0).sum())
        never = f", {missing} of them never" if missing else ""
        return f"{len(counts)} actions{never}, the commonest {shares.max():.0f} %"
    described = space.described if space is not None else f"{actions.shape[1]} numbers"
    numbers = actions.astype(np.float64)  # whole numbers know no infinity
    low, high = numbers.min(axis=0, initial=np.inf), numbers.max(axis=0, initial=-np.inf)
    ranges = ", ".join(f"{least:.3g} to {most:.3g}" for least, most in zip(low[:3], high[:3], strict=True))
    return f"actions of {described}, {ranges}{', ...' if actions.shape[1] > 3 else ''}"


def _rewards(rewards: NDArray[Any]) -> str:
    values = np.unique(rewards)
    share = 100 * float((rewards != 0).mean()) if rewards.size else 0.0
    if len(values) <= _FEW_VALUES:
        return f"rewards {', '.join(f'{value:.4g}' for value in values)} ({share:.2g} % aren't 0)"
    return f"rewards {values[0]:.4g} to {values[-1]:.4g} ({share:.2g} % aren't 0)"


def _ends(arrays: dict[str, NDArray[Any]], real: NDArray[np.bool_]) -> Iterator[str]:
    firsts = arrays.get("is_first")
    if "terminations" not in arrays:
        yield "no ends"
        return
    ends = arrays["terminations"]
    # What is behind an end repeats it, unless another episode has begun.
    fresh = ends & real
    repeats = ends[:-1] if firsts is None else ends[:-1] & ~firsts[1:]
    fresh[1:] &= ~repeats
    text = f"{int(fresh.sum())} ends"
    if "truncations" in arrays:
        text += f", {int((arrays['truncations'] & real).sum())} cuts"
    if firsts is not None:
        text += f", {int(firsts.sum())} episodes begin"
    yield text
