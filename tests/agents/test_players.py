"""Scripted players: in the real environments they get further than chance."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rnem_world.agents import players
from rnem_world.envs.ids import environment_spec


def mean_return(name: str, choose, episodes: int, steps: int = 500) -> float:
    """Plays some episodes of at most so many steps; without a player by chance."""
    env, generator, total = gymnasium.make(environment_spec(name)), np.random.default_rng(0), 0.0
    env.action_space.seed(0)
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        for _ in range(steps):
            action = env.action_space.sample() if choose is None else choose(observation, generator)
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
    env.close()
    return total / episodes


@pytest.mark.parametrize(
    ("name", "choose", "episodes", "least"),
    [
        ("CartPole-v1", players.balance, 5, 100.0),
        ("CartPole-v1", players.wander, 5, 30.0),
        ("Pendulum-v1", players.swing_up, 5, 500.0),
        ("MinAtar/Breakout-v1", players.follow_ball, 20, 1.5),
        ("MinAtar/Breakout-v1", players.follow_ball_carelessly, 40, 0.4),
        ("MinAtar/Freeway-v1", players.cross, 2, 2.5),
        ("ALE/Pong-v5", players.follow_ball_of_pong, 1, 2.0),
    ],
)
def test_they_play_better_than_chance(name, choose, episodes, least):
    package = {"MinAtar": "minatar", "ALE": "ale_py"}.get(name.partition("/")[0])
    if package is not None:
        pytest.importorskip(package)
    assert mean_return(name, choose, episodes) > mean_return(name, None, episodes) + least
