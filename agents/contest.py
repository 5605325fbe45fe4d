"""A contest: baselines, planners, policies and oracles over the same episodes, real and dreamt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import BASELINES, Agent, baseline
from rnem_world.agents.config import REAL_BALLS, ContestConfig
from rnem_world.agents.dynamics import (
    BallsDynamics,
    LearnedDynamics,
    WatchedState,
    dreamt_states,
    simulator_states,
)
from rnem_world.agents.planning import PlannerAgent, make_planner, parse_planner
from rnem_world.agents.policy import read_policy_config, saw_slots
from rnem_world.agents.scores import Played, Score, compared, play
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.ids import make_environment
from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.real import REAL_ENVIRONMENT, has_recipe, world_of
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, ConfigError, suggest
from rnem_world.seeding import numpy_generator, torch_generator

USUAL_STEPS, STEPS_WITHOUT_LIMIT = 100, 1000
"""Steps of an episode where the user doesn't say: of our environments, and of others that have no limit."""

Entrant = tuple[Agent, VectorEnv[Any, Any, Any]]
"""An agent, and the environments in which it acts."""


class Contest:
    """Lets all agents of a configuration play.

    Attributes:
        env: Gymnasium id of the real environment.
        steps: Steps of an episode.

    Args:
        config: Who plays what.

    Raises:
        RnemWorldError: If there is no such world or environment, or they don't fit one another.
    """

    def __init__(self, config: ContestConfig) -> None:
        self.config = config
        self.steps = config.steps or USUAL_STEPS
        self.env, self._options = config.env, dict(config.env_options)
        if not config.env:
            self.env = REAL_BALLS
            if has_recipe(config.checkpoint) and "preset" not in self._options:
                self.env, self._options = REAL_ENVIRONMENT, {"checkpoint": config.checkpoint, **self._options}
        self.world: World | None = World.load(config.checkpoint, config.device) if config.agents else None
        with closing(self.real(1)) as env:
            if config.steps is None and isinstance(env, AnyVectorEnv):
                self.steps = env.own_limit or STEPS_WITHOUT_LIMIT
            if self.world is not None:
                self.world.check_spaces(env.single_observation_space, env.single_action_space)
            self.has_oracle = isinstance(env, BouncingBallsVectorEnv)
            if isinstance(env, BouncingBallsVectorEnv):
                BallsDynamics(env.rules)  # refuses balls without a player before anything is played
        if config.oracle and not self.has_oracle:
            raise ConfigError(f"{self.env} has no oracle, only {REAL_BALLS} has: leave out the oracle")

    def real(self, number: int) -> VectorEnv[Any, Any, Any]:
        """Makes real environments.

        Raises:
            RnemWorldError: If there is no such environment, or it refuses its options.
        """
        options = {**self._options, "max_episode_steps": self.steps}
        return make_environment(self.env, number, options)

    def dream(self, number: int, obs_type: str = "frame") -> LearnedVectorEnv:
        """Makes dreamt environments."""
        config = self.config
        return LearnedVectorEnv(
            number,
            config.checkpoint,
            obs_type=obs_type,
            imagination=config.imagination,
            engine=config.engine,
            device=config.device,
            max_episode_steps=self.steps,
        )

    def play(self, progress: bool = True) -> list[Score]:
        """Lets all play and compares them.

        Raises:
            RnemWorldError: If an agent doesn't fit the world, or the world diverges.
        """
        config = self.config
        played: dict[bool, dict[str, Played]] = {False: {}, True: {}}
        for name, (make, dreams) in self._entrants().items():
            for dreaming in (False, True) if dreams else (False,):
                title = f"{name}, dreaming" if dreaming else name
                agent, env = make(dreaming, config.episodes)
                with closing(env):
                    played[dreaming][name] = play(
                        agent, env, config.seed, self.steps, title if progress else None
                    )
        return compared(played[False], played[True], self._oracle_of(played[False]))

    def agent(self, name: str, number: int) -> Entrant:
        """Makes one of the agents, and the real environments in which it acts, which the caller closes."""
        entrants = self._entrants()
        if name not in entrants:
            raise ConfigError(f"no agent {name!r} plays: {suggest(name, entrants)}")
        return entrants[name][0](False, number)

    def _entrants(self) -> dict[str, tuple[Callable[[bool, int], Entrant], bool]]:
        """Gives, by name, what makes an agent (is it dreaming, in how many environments) and whether it dreams too."""
        has_world = self.world is not None
        return {
            **{name: (partial(self._baseline, name), has_world) for name in BASELINES},
            **{text: (partial(self._planner, text), True) for text in self.config.planners},
            **{text: (partial(self._policy, text), True) for text in self.config.policies},
            **{f"oracle {text}": (partial(self._oracle, text), False) for text in self._oracles()},
        }

    def _oracles(self) -> list[str]:
        if not self.has_oracle:
            return []
        chosen = [self.config.oracle] if self.config.oracle else []
        return list(dict.fromkeys([*self.config.planners, *chosen])) or ["shooting"]

    def _oracle_of(self, real: dict[str, Played]) -> dict[str, str]:
        """A planner is compared with itself on the true simulator, all others with the best oracle or the one named."""
        oracles = [f"oracle {text}" for text in self._oracles()]
        if not oracles:
            return {}
        chosen = self.config.oracle
        best = f"oracle {chosen}" if chosen else max(oracles, key=lambda name: real[name].mean)
        own = {text: f"oracle {text}" for text in self.config.planners}
        return {name: own.get(name, best) for name in real}

    def _baseline(self, name: str, dreaming: bool, number: int) -> Entrant:
        env = self.dream(number) if dreaming else self.real(number)
        generator = numpy_generator(self.config.seed, "baseline", name)
        return baseline(name, ActionSpace.of(env.single_action_space), generator), env

    def _planner(self, text: str, dreaming: bool, number: int) -> Entrant:
        world = self._world()
        generator = torch_generator(self.config.seed, "planner", device=world.device)
        name, options = parse_planner(text)
        dynamics = LearnedDynamics(world, self.config.imagination, self.config.engine)
        planner = make_planner(name, dynamics, options, generator)
        if dreaming:
            dream = self.dream(number)
            return PlannerAgent(planner, dreamt_states(dream)), dream
        return PlannerAgent(planner, WatchedState(world).observe), self.real(number)

    def _oracle(self, text: str, dreaming: bool, number: int) -> Entrant:
        env: Any = self.real(number)
        name, options = parse_planner(text)
        planner = make_planner(
            name, BallsDynamics(env.rules), options, torch_generator(self.config.seed, "planner")
        )
        return PlannerAgent(planner, simulator_states(env)), env

    def _policy(self, folder: str, dreaming: bool, number: int) -> Entrant:
        from rnem_world.agents.policy_agent import load_policy

        place = Path(self.config.folders[folder])
        trained, seen = read_policy_config(place)
        sees_slots = saw_slots(seen)
        if sees_slots:
            self._check_world(folder, trained.slots_of or world_of(trained.env, trained.env_options))
        env: VectorEnv[Any, Any, Any]
        if dreaming:
            env = self.dream(number, "slots" if sees_slots else "frame")
        else:
            env = self.real(number)
            if sees_slots:
                env = SlotVectorObservation(env, self.config.checkpoint, device=self.config.device)
        agent = load_policy(place, env.single_observation_space, env.single_action_space, self.config.device)
        return agent, env

    def _check_world(self, folder: str, checkpoint: str) -> None:
        if checkpoint == self.config.checkpoint:
            return
        if World.load(checkpoint, self.config.device).fingerprint != self._world().fingerprint:
            raise CheckpointError(
                f"the agent {folder} sees the slots of the world {checkpoint}, and the world here is "
                f"{self.config.checkpoint}: give --checkpoint {checkpoint}"
            )

    def _world(self) -> World:
        if self.world is None:
            self.world = World.load(self.config.checkpoint, self.config.device)
        return self.world
