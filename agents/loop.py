"""Dyna in rounds: collect with the agent, fine-tune the world, train on in its dream, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rnem_world
from rnem_world import physics
from rnem_world.agents.base import Agent
from rnem_world.agents.baselines import RepeatedRandomAgent
from rnem_world.agents.contest import REAL_BALLS, Contest, ContestConfig
from rnem_world.agents.exploring import ExploringAgent, WatchingAgent
from rnem_world.agents.loop_config import LoopConfig
from rnem_world.agents.loop_record import LOOP_FILE, loop_table, read_loop, write_loop
from rnem_world.agents.policy_config import PolicyConfig
from rnem_world.agents.policy_folder import CONFIG_FILE
from rnem_world.data.collector import CollectorConfig, collect
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes
from rnem_world.envs.bouncing_balls_vector import BouncingBallsVectorEnv
from rnem_world.envs.learned_world import find_world, load_world
from rnem_world.errors import CheckpointError
from rnem_world.io import write_json
from rnem_world.training import checkpoint
from rnem_world.training.trainer import make_trainer


class Loop:
    """The rounds in a folder; what is done is never done again.

    The folder holds ``data``, ``worlds`` and ``agents`` with an entry a round, and ``loop.json`` with the configuration
    and a row a round.

    Args:
        config: What the rounds do.
        folder: Where.
        device: Where world and policy are.
        report: Is told what happens.

    Raises:
        CheckpointError: If the folder holds another loop.
    """

    def __init__(
        self,
        config: LoopConfig,
        folder: Path,
        device: str = "cpu",
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.config, self.folder, self.device, self.report = config, folder, device, report
        self.rows: list[dict[str, Any]] = []
        if (folder / LOOP_FILE).exists():
            stored, self.rows = read_loop(folder)
            if replace(stored, rounds=config.rounds) != config:
                raise CheckpointError(
                    f"{folder} holds a loop with another configuration: resume it with --resume, or give another folder"
                )

    def run(self) -> int | None:
        """Does the rounds that are missing.

        Returns:
            The number of the signal that has stopped it, None if none has.

        Raises:
            RnemWorldError: If a stage fails; what was done before stays.
        """
        self._write()
        for number in range(len(self.rows), self.config.rounds):
            self.report(f"round {number + 1} of {self.config.rounds}")
            self._collect(number)
            for stage in (self._train_world, self._train_policy):
                signal = stage(number)
                if signal is not None:
                    return signal
            self.rows.append(self._evaluate(number))
            self._write()
            self.report(loop_table(self.rows)[-1])
        return None

    def _write(self) -> None:
        write_loop(self.folder, self.config, self.rows)

    def _world(self, number: int) -> str:
        return self.config.checkpoint if number < 0 else str(self.folder / "worlds" / f"round-{number}")

    def _policy(self, number: int) -> Path:
        return self.folder / "agents" / f"round-{number}"

    def _collect(self, number: int) -> None:
        config = self.config
        out = self.folder / "data" / f"round-{number}.h5"
        if out.exists():
            return
        rules = physics.preset(config.preset)
        attributes = DatasetAttributes(
            environment_id=REAL_BALLS,
            settings={"preset": config.preset, "rules": asdict(rules), "policy": "loop"},
            seed=config.seed + number,
            number_of_actions=physics.number_of_actions(rules),
            maximum_value=1,
            package_version=rnem_world.__version__,
        )
        sizes = CollectorConfig(
            config.sequences, config.validation_sequences, 0, config.frames, config.seed + number
        )
        collect(
            partial(_make_balls, rules=rules),
            partial(self._collecting_agent, number),
            sizes,
            out,
            1,
            attributes,
        )

    def _collecting_agent(self, number: int, env: Any, generator: np.random.Generator) -> Agent:
        actions = int(env.single_action_space.n)
        if number == 0:
            return RepeatedRandomAgent(actions, generator)
        from rnem_world.agents.policy import load_policy
        from rnem_world.envs.learned_observation import observation_space

        world = load_world(self._world(number - 1), self.device)
        space = observation_space(world, "slots", world.check_slots(None))
        policy = load_policy(self._policy(number - 1), space, env.single_action_space, self.device)
        return ExploringAgent(WatchingAgent(policy, world), actions, self.config.exploration, generator)

    def _train_world(self, number: int) -> int | None:
        """Fine-tunes the last world on all data of the loop."""
        run = Path(self._world(number))
        before = checkpoint.read_config(find_world(self._world(number - 1)))
        training = replace(
            before.training,
            max_updates=self.config.world_updates,
            max_minutes=None,
            epochs=1_000_000,
            patience=1_000_000,
            seed=self.config.seed + number,
            train_size=None,
            batch_size=min(before.training.batch_size, self.config.sequences),
            sequence_steps=_fitting(
                before.training.sequence_steps, before.training.chunk_steps, self.config.frames
            ),
            closed_loop=replace(before.training.closed_loop, after_updates=0),
            optimizer=replace(before.training.optimizer, learning_rate=self.config.world_learning_rate),
        )
        data = self.folder / "data"
        config = replace(before, training=training, data=str(data), environment=REAL_BALLS)
        resumes = bool(checkpoint.updates_of(run))
        if resumes and checkpoint.updates_of(run)[-1].name == f"update-{self.config.world_updates:09d}":
            return None
        with Dataset.open(data) as dataset:
            trainer = make_trainer(
                config,
                dataset,
                run,
                torch.device(self.device),
                self.report,
                resumes,
                None if resumes else str(find_world(self._world(number - 1))),
            )
            trainer.fit()
        return trainer.signal

    def _train_policy(self, number: int) -> int | None:
        """Trains the last policy on in the dream of the new world."""
        from rnem_world.agents.policy_training import train_policy

        folder = self._policy(number)
        config = PolicyConfig(
            env_options={
                "checkpoint": self._world(number),
                "obs_type": "slots",
                "max_episode_steps": self.config.steps,
                "device": self.device,
            },
            num_envs=self.config.num_envs,
            timesteps=self.config.timesteps,
            hyperparameters=self.config.hyperparameters or {},
            seed=self.config.seed + number,
        )
        resumes = (folder / CONFIG_FILE).exists()
        before = self._policy(number - 1) if number else None
        return train_policy(config, folder, resumes, self.device, report=self.report, start_from=before)

    def _evaluate(self, number: int) -> dict[str, Any]:
        config = self.config
        contest = ContestConfig(
            agents=(str(self._policy(number)),),
            checkpoint=self._world(number),
            env_options={"preset": config.preset},
            episodes=config.episodes,
            steps=config.steps,
            oracle=config.oracle,
            device=self.device,
        )
        found = {score.name: score for score in Contest(contest).play()}
        write_json(
            self.folder / "scores" / f"round-{number}.json",
            {"contest": asdict(contest), "scores": [score.as_json() for score in found.values()]},
        )
        score = found[str(self._policy(number))].as_json()
        del score["returns"], score["lengths"], score["name"]
        transitions = (config.sequences + config.validation_sequences) * (config.frames - 1) * (number + 1)
        stay, oracle = found["stay"].awake.mean, found[f"oracle {config.oracle}"].awake.mean
        return {"round": number, "real_transitions": transitions, **score, "stay": stay, "oracle": oracle}


def _make_balls(number: int, rules: physics.BallsConfig) -> BouncingBallsVectorEnv:
    return BouncingBallsVectorEnv(number, preset=rules, max_episode_steps=None, ground_truth=True)


def _fitting(steps: int, chunk: int | None, frames: int) -> int:
    """Shortens training sequences to those that there are, in whole chunks."""
    longest = min(steps, frames - 1)
    return longest if chunk is None else longest - longest % chunk
