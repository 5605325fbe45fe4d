"""Several players in one collection: each episode is played by one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from rnem_world.agents.base import Agent
from rnem_world.errors import ConfigError

ARCHIVE = ".zip"
"""How the file of a policy ends that stable-baselines3 saved."""


@dataclass(frozen=True)
class Player:
    """One of those who play.

    Attributes:
        name: A baseline, a file, or whatever else names an agent.
        share: The part of the episodes that it plays; the shares of all add up to 1.
    """

    name: str
    share: float


def parse_mixture(text: str) -> tuple[Player, ...]:
    """Reads ``random:0.4,stay:0.6``: names with their weights; weights are scaled so that they add up to 1.

    A name may have colons in it, as ``package.module:function`` has: what stands behind the last one is a weight if it
    is a number. Names without a weight share alike, as ``random,stay`` do.

    Raises:
        ConfigError: If a name or a weight is missing, a weight isn't a number above 0, or a name comes twice.
    """
    names, weights = [], []
    for part in text.split(","):
        name, colon, last = part.strip().rpartition(":")
        weight = _number(last) if colon else None
        names.append(part.strip() if weight is None else name)
        weights.append(weight)
    missing = [weight is None for weight in weights]
    if not all(names) or (any(missing) and not all(missing)):
        raise ConfigError(
            f"the policies are {text!r}, expected names with a weight each, as random:0.4,stay:0.6, or names alone"
        )
    shares = [1.0 if weight is None else weight for weight in weights]
    for name, share in zip(names, shares, strict=True):
        if not (math.isfinite(share) and share > 0.0):
            raise ConfigError(f"the weight of the policy {name} is {share:g}, expected a number above 0")
        if names.count(name) > 1:
            raise ConfigError(
                f"the policy {name} comes twice in {text!r}: name it once, with both weights added"
            )
    return tuple(Player(name, share / sum(shares)) for name, share in zip(names, shares, strict=True))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def with_whole_paths(policy: str) -> str:
    """Names files of policies by whole paths: the working directory may be another one when they are opened."""
    return _renamed(policy, lambda name: str(Path(name).absolute()))


def without_folders(policy: str) -> str:
    """Names files of policies by their names alone, as a dataset does that goes elsewhere."""
    return _renamed(policy, lambda name: Path(name).name)


def _renamed(policy: str, rename: Callable[[str], str]) -> str:
    """Renames the files among those who play; what names none stays as it is."""
    players = parse_mixture(policy)
    if not any(player.name.endswith(ARCHIVE) for player in players):
        return policy
    names = [rename(player.name) if player.name.endswith(ARCHIVE) else player.name for player in players]
    if len(players) == 1:
        return names[0]
    return ",".join(f"{name}:{player.share:g}" for name, player in zip(names, players, strict=True))


class MixedAgent:
    """Lets one of several agents play each episode of each environment, drawn by their shares.

    Every agent acts for all environments, so that what one does depends neither on the others nor on whose turn it is;
    the one whose episode it is, is heard.

    Args:
        agents: Who plays.
        shares: The part of the episodes that each plays; they add up to 1.
        generator: Draws who plays.

    Raises:
        ConfigError: If there are no agents, or not as many shares.
    """

    def __init__(
        self, agents: Sequence[Agent], shares: Sequence[float], generator: np.random.Generator
    ) -> None:
        if not agents or len(agents) != len(shares):
            raise ConfigError(f"{len(agents)} agents were given with {len(shares)} shares, expected one each")
        self._agents, self._shares, self._generator = list(agents), list(shares), generator
        self._plays = np.zeros(0, dtype=np.int64)

    def reset(self, num_envs: int) -> None:
        """Starts all agents anew, and draws who plays."""
        for agent in self._agents:
            agent.reset(num_envs)
        self._plays = self._draw(num_envs)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Draws anew who plays the episodes that have begun."""
        for agent in self._agents:
            agent.restart(begun)
        self._plays = np.where(begun, self._draw(len(begun)), self._plays)

    def act(self, observations: Any) -> NDArray[Any]:
        """Lets all choose, and takes for each environment what the one who plays there has chosen."""
        chosen = np.stack([agent.act(observations) for agent in self._agents])
        return chosen[self._plays, np.arange(len(self._plays))]

    def _draw(self, number: int) -> NDArray[np.int64]:
        return self._generator.choice(len(self._agents), size=number, p=self._shares)
