"""Infos of vector environments: whom an entry is of, and what episodes that have just ended showed last."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray


def with_masks(infos: dict[str, Any], mask: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """Puts beside every entry, under its name with ``_`` before it, of which sub-environments it is."""
    return infos | {f"_{name}": mask.copy() for name in infos}


def final_infos(
    observations: NDArray[Any], infos: dict[str, Any], over: Bool[np.ndarray, " n"]
) -> dict[str, Any]:
    """Returns what infos hold of episodes that have ended, where the next ones begin in the same step.

    Args:
        observations: The last ones, of all N; those that are needed are copied.
        infos: The last ones, without masks.
        over: Which episodes have ended.
    """
    last = np.full(len(over), None, dtype=object)
    for row in np.flatnonzero(over).tolist():
        last[row] = observations[row].copy()
    return {
        "final_obs": last,
        "_final_obs": over.copy(),
        "final_info": with_masks(infos, over),
        "_final_info": over.copy(),
    }
