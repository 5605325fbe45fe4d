"""Other worlds that dream alongside a learned world, from the same starts and under the same actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rnem_world.envs.learned_world import LearnedWorld, load_world
from rnem_world.envs.learned_worlds import LearnedWorlds
from rnem_world.errors import ConfigError


def load_members(
    world: LearnedWorld, ensemble: Sequence[str | Path] | str | Path, device: str | torch.device
) -> list[LearnedWorld]:
    """Loads the other worlds.

    Args:
        world: Whom they dream alongside.
        ensemble: Their checkpoints, or a single one.
        device: Where they are to be.

    Raises:
        ConfigError: If one has other frames or actions.
        CheckpointError: If there is no such checkpoint.
    """
    checkpoints = [ensemble] if isinstance(ensemble, str | Path) else ensemble
    expected = (world.frame_shape, world.number_of_actions)
    members = []
    for checkpoint in checkpoints:
        member = load_world(checkpoint, device)
        given = (member.frame_shape, member.number_of_actions)
        if given != expected:
            raise ConfigError(
                f"the ensemble's world {member.folder.name} has frames and actions {given}, expected {expected}"
            )
        members.append(member)
    return members


def refuse_edits(members: Sequence[LearnedWorlds]) -> None:
    """Refuses to edit dreams that others dream alongside.

    Raises:
        ConfigError: If there are others.
    """
    if members:
        raise ConfigError(
            "worlds of an ensemble have other slots, so edits mean nothing to them: leave one out"
        )


def disagreement(
    worlds: LearnedWorlds, members: Sequence[LearnedWorlds], rows: Int64[Tensor, " m"] | None = None
) -> Float[Tensor, " m"]:
    """Measures in which share of a frame's white pixels other worlds' frames differ from it, on the average of them.

    Args:
        worlds: Whose frames they are.
        members: The others, at least one.
        rows: Of which dreams; None for all.
    """
    own = worlds.frames(rows).flatten(1) > 0
    white = own.sum(dim=1).clamp(min=1)
    others = torch.stack([member.frames(rows).flatten(1) > 0 for member in members])
    return ((others != own).sum(dim=2) / white).mean(dim=0)
