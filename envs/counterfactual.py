"""What would have been: the same dream twice, once with something changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from rnem_world.envs.editing import Edit, apply_edits, check_edits
from rnem_world.envs.learned import LearnedEnv
from rnem_world.envs.learned_worlds import LearnedWorlds
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class Counterfactual:
    """Two futures of one state; time 0 is now. First the one that was to be, then the changed one.

    Attributes:
        centroids: Float (2, t + 1, k, 2), where each slot's object is, in pixels, x first.
        masses: Float (2, t + 1, k), each slot's pixels.
        rewards: Float (2, t).
        divergence: Float (t + 1, k), how far apart each slot's object is in the two, in pixels.
    """

    centroids: Float[np.ndarray, "2 s k 2"]
    masses: Float[np.ndarray, "2 s k"]
    rewards: Float[np.ndarray, "2 t"]
    divergence: Float[np.ndarray, "s k"]


def compare_futures(
    env: LearnedEnv,
    actions: Sequence[int] | NDArray[Any],
    edits: Sequence[Edit] | Edit = (),
    other_actions: Sequence[int] | NDArray[Any] | None = None,
) -> Counterfactual:
    """Dreams on twice from where an environment is, which stays there.

    Dreams are deterministic, so whatever differs comes from the change.

    Args:
        env: The environment, made and reset.
        actions: What is done.
        edits: What is changed at the start of the second future.
        other_actions: What is done in the second future; None does the same.

    Raises:
        ConfigError: If an action or edit makes no sense.
        gymnasium.error.ResetNeeded: Before the first reset.
    """
    batch = env.batch
    first = _checked(actions, batch.world.number_of_actions)
    second = first if other_actions is None else _checked(other_actions, batch.world.number_of_actions)
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} actions and {len(second)} other actions are given, expected as many")
    device = batch.world.device
    worlds = LearnedWorlds(batch.world, 2, batch.worlds.slots, batch.worlds.imagination)
    both = torch.arange(2, device=device)
    only = torch.zeros(1, dtype=torch.int64, device=device)
    worlds.set_state(both, batch.worlds.get_state(only).without_memory().pick(torch.zeros_like(both)))
    apply_edits(worlds, both[1:], check_edits(edits, worlds.slots))
    done = torch.from_numpy(np.stack([first, second])).to(device)
    seen = [worlds.details(("centroids", "masses"))]
    rewards = []
    for column in done.unbind(dim=1):
        rewards.append(worlds.step(column).rewards)
        seen.append(worlds.details(("centroids", "masses")))
    centroids = torch.stack([each["centroids"] for each in seen], dim=1)
    masses = torch.stack([each["masses"] for each in seen], dim=1)
    apart = (centroids[0] - centroids[1]).norm(dim=2)
    earned = torch.stack(rewards, dim=1) if rewards else centroids.new_zeros(2, 0)
    arrays = (tensor.cpu().numpy().copy() for tensor in (centroids, masses, earned, apart))
    return Counterfactual(*arrays)


def _checked(actions: Sequence[int] | NDArray[Any], number: int) -> Int64[np.ndarray, " t"]:
    given = np.asarray(actions)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ConfigError(
            f"actions have the shape {given.shape} and dtype {given.dtype}, expected a row of integers"
        )
    if given.size and (given.min() < 0 or given.max() >= number):
        raise ConfigError(f"actions lie between {given.min()} and {given.max()}, expected 0 to {number - 1}")
    return given.astype(np.int64)
