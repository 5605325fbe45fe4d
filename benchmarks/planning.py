"""How many decisions a second do planners make, and what does stepping dreams in batches gain?

Usage: python -m rnem_world.benchmarks.planning [WORLD] [THREADS] [ENGINE]. Prints, for one environment and for sixteen
that are planned for at once, the decisions a second of every planner in the learned world (latent imagination) and in
the true simulator, and those of MCTS where dreams are stepped one by one. Planners take turns; figures are medians. The
table in docs/agents.md.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from rnem_world.agents.dynamics import BallsDynamics, Dynamics, DynamicsStep, LearnedDynamics
from rnem_world.agents.planning import make_planner, parse_planner
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World, joined
from rnem_world.models.world_model import DreamState
from rnem_world.physics import preset

PLANNERS = (
    "mcts:simulations=100,horizon=10",
    "shooting:population=128,horizon=10",
    "cem:population=64,iterations=3,horizon=10",
    "icem:population=64,iterations=3,horizon=10",
    "mppi:population=64,iterations=3,horizon=10",
)
ROUNDS, ENVIRONMENTS = 7, (1, 16)


class OneByOne(LearnedDynamics):
    """The same dreams, stepped one after the other."""

    def step(self, state: DreamState, actions: torch.Tensor) -> DynamicsStep[DreamState]:
        """Imagines one transition of each dream."""
        steps = [
            super(OneByOne, self).step(self.select(state, row), actions[row])
            for row in torch.arange(len(actions)).split(1)
        ]
        states, rewards, ends = zip(
            *((step.state, step.rewards, step.termination) for step in steps), strict=True
        )
        return DynamicsStep(joined(list(states)), torch.cat(rewards), torch.cat(ends))


def decisions(name: str, dynamics: Dynamics, state: object) -> Callable[[], None]:  # type: ignore[type-arg]
    """Makes a planner that has found its first plan, and returns its next decision, which waits for the device."""
    kind, options = parse_planner(name)
    planner = make_planner(kind, dynamics, options, torch.Generator(dynamics.device).manual_seed(0))
    planner.plan(state)

    def decide() -> None:
        planner.plan(state).actions.cpu()

    return decide


def main() -> None:
    """Measures and prints."""
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else "balls"
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else torch.get_num_threads())
    engine = sys.argv[3] if len(sys.argv) > 3 else "auto"
    world, rules = World.load(checkpoint, "cpu"), preset("avoid")
    for number in ENVIRONMENTS:
        env = LearnedVectorEnv(number, checkpoint, obs_type="slots")
        env.reset(seed=0)
        dreams = env.dreams.state.dreams.map(torch.clone)
        balls = BouncingBallsVectorEnv(number, rules)
        balls.reset(seed=0)
        works = {}
        for name in PLANNERS:
            works[name, "latent"] = decisions(name, LearnedDynamics(world, "latent", engine), dreams)
            works[name, "simulator"] = decisions(name, BallsDynamics(rules), balls.get_state().state.balls)
        if number == 1:
            one_by_one = OneByOne(world, "latent", engine)
            works[PLANNERS[0], "latent, one by one"] = decisions(PLANNERS[0], one_by_one, dreams)
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in works}
        for _ in range(ROUNDS):
            for key, decide in works.items():
                begin = time.perf_counter()
                decide()
                seconds[key].append(time.perf_counter() - begin)
        for (name, where), taken in seconds.items():
            rate = number / statistics.median(taken)
            print(f"{number:3d} environments  {name:45s} {where:20s} {rate:8.1f} decisions/s")


if __name__ == "__main__":
    main()
