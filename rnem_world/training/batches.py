"""How a world of any environment is shown its data: length of sequences and chunks, batch, learning rate."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnem_world.data.dataset import SplitInfo

# Frames of more numbers are large: arithmetic takes the time there, not calls; docs/environments.md has the figures.
LARGE_FRAME = 5000
# Predictions in a sequence, where the data's sequences are as long.
MOST_STEPS = 48


@dataclass(frozen=True)
class Pace:
    """What suits frames of a size.

    Attributes:
        batch_size: Sequences in an update.
        chunk_steps: Steps of a sequence in an update.
        learning_rate: The optimizer's.
    """

    batch_size: int
    chunk_steps: int
    learning_rate: float


# Most trainings are short: large batches in short chunks cost little more where frames are small, and bear a higher
# rate; of large frames they show fewer a minute.
SMALL_FRAMES, LARGE_FRAMES = Pace(64, 6, 2e-3), Pace(16, 12, 1e-3)


def batch_options(info: SplitInfo | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Chooses how the data is shown, around what the user has chosen.

    Steps and chunks are made to fit each other, and the batch what is accumulated, whichever of them is given.

    Args:
        info: What the training may use; None, where nobody knows it yet, for small frames, long sequences and many.
        given: The user's options of the training, which win over what is returned. Those that make no sense are looked
            over here: the configuration refuses them.

    Returns:
        Options of the training.
    """
    is_large = info is not None and info.height * info.width * info.channels > LARGE_FRAME
    pace = LARGE_FRAMES if is_large else SMALL_FRAMES
    longest = MOST_STEPS if info is None else max(min(MOST_STEPS, info.number_of_frames - 1), 1)
    steps, chunk = _steps_and_chunk(given, longest, pace.chunk_steps)
    there = None if info is None else info.number_of_sequences
    limits = [pace.batch_size, _count(given, "train_size"), there]
    shares = _count(given, "accumulate") or 1
    share = min(limit for limit in limits if limit is not None) // shares
    return {
        "sequence_steps": steps,
        "chunk_steps": chunk,
        "batch_size": max(share, 1) * shares,
        "optimizer": {"learning_rate": _rate(given, pace.learning_rate)},
    }


def _rate(given: Mapping[str, Any], usual: float) -> float:
    """Gives the usual learning rate, or where it shall end if that is above it.

    Rates above all usual ones are refused before there is data, and this keeps those below from being refused after it.
    """
    optimizer = given.get("optimizer")
    final = optimizer.get("final_learning_rate") if isinstance(optimizer, Mapping) else None
    return (
        max(usual, min(float(final), SMALL_FRAMES.learning_rate))
        if isinstance(final, (int, float))
        else usual
    )


def _steps_and_chunk(given: Mapping[str, Any], longest: int, usual: int) -> tuple[int, int | None]:
    """Chooses the steps of a sequence and of a chunk, which divides them."""
    steps, chunk = _count(given, "sequence_steps"), _count(given, "chunk_steps")
    if steps is not None:
        return steps, chunk or _divisor_near(usual, steps)
    if chunk is None and "chunk_steps" in given:  # sequences are not cut
        return longest, None
    chunk = chunk or min(usual, longest)
    return chunk * max(longest // chunk, 1), chunk


def _divisor_near(usual: int, steps: int) -> int:
    """Gives a chunk that divides the steps: as nearly as long as the usual one, but no single step, or all of them."""
    divisors = [chunk for chunk in range(2, min(steps, MOST_STEPS) + 1) if steps % chunk == 0]
    return min(divisors or [steps], key=lambda chunk: max(chunk / usual, usual / chunk))


def _count(given: Mapping[str, Any], name: str) -> int | None:
    """Gives a number above 0 among the options, if it is one."""
    number = given.get(name)
    return int(number) if isinstance(number, numbers.Integral) and int(number) > 0 else None
