"""Sequences in which there is next to nothing to see, which a model would be trained on in vain."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

BLACK_SHARE = 0.001
"""A sequence whose brightness is below this part of the full one is nearly all black: 4 pixels of 64 x 64."""

WHITE_SHARE = 0.75
"""One above this part is nearly all white; objects are taken to be bright on a dark ground."""

_INVERT = "for dark objects on a white ground import with --invert"
_KINDS = {
    "are all black": "",
    "are all white": _INVERT,
    "have the same value in all pixels": "",
    "are nearly all black": "is the threshold of --binarise right?",
    "are nearly all white": _INVERT,
    "don't move, all their frames are the same": "",
}
_NAMED_SEQUENCES = 5


class BlankCounter:
    """Counts sequences with nothing to see, part by part.

    Args:
        maximum_value: The frames' full brightness.
    """

    def __init__(self, maximum_value: int) -> None:
        self._maximum_value = maximum_value
        self._seen = 0
        self._found: dict[str, list[int]] = {kind: [] for kind in _KINDS}

    def add(self, features: UInt8[np.ndarray, "t n h w c"]) -> None:
        """Looks at the next sequences."""
        axes = (0, 2, 3, 4)
        low, high = features.min(axis=axes), features.max(axis=axes)
        shares = features.mean(axis=axes) / self._maximum_value
        still = (features == features[:1]).all(axis=axes) & (len(features) > 1)
        conditions = (
            high == 0,
            low == self._maximum_value,
            low == high,
            shares < BLACK_SHARE,
            shares > WHITE_SHARE,
            still,
        )
        rest = np.ones(features.shape[1], np.bool_)
        for kind, condition in zip(_KINDS, conditions, strict=True):
            self._found[kind] += (self._seen + np.flatnonzero(condition & rest)).tolist()
            rest &= ~condition
        self._seen += features.shape[1]

    def warnings(self, where: str = "") -> list[str]:
        """Says what was found.

        Args:
            where: Put before each line, for example ``"training: "``.
        """
        lines = []
        for kind, hint in _KINDS.items():
            found = self._found[kind]
            if found:
                named = ", ".join(map(str, found[:_NAMED_SEQUENCES]))
                more = ", ..." if len(found) > _NAMED_SEQUENCES else ""
                advice = f": {hint}" if hint else ""
                lines.append(f"{where}{len(found)} of {self._seen} sequences {kind} ({named}{more}){advice}")
        return lines


def go_on_after_the_end(terminations: np.ndarray) -> int:
    """Counts sequences (t, n) with frames after the end of an episode.

    The frame after the transition that ended an episode is its last; the end may be repeated there.
    """
    return int(terminations[:-2].any(axis=0).sum())


def episode_warning(count: int, total: int, where: str = "") -> list[str]:
    """Says that sequences hold more than one episode, if some do."""
    if not count:
        return []
    return [
        f"{where}{count} of {total} sequences go on after the end of an episode, as terminations tells: a model learns "
        "the jump to the next one; give each episode as a sequence of its own"
    ]
