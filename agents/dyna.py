"""Dyna in rounds: collect with the agent, fine-tune the world, train on in its dream, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

import rnem_world
from rnem_world import physics
from rnem_world.agents.base import Agent, RepeatedRandomAgent
from rnem_world.agents.contest import REAL_BALLS, Contest, ContestConfig
from rnem_world.agents.dynamics import WatchedState
from rnem_world.agents.policy import CONFIG_FILE, PolicyConfig
from rnem_world.config import build
from rnem_world.data.collector import CollectorConfig, collect
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.starts import CONTEXT_FRAMES
from rnem_world.envs.world import World, find_world
from rnem_world.errors import CheckpointError, ConfigError
from rnem_world.io import write_json
from rnem_world.training import checkpoint, run_folder
from rnem_world.training.setup import make_trainer


@dataclass(frozen=True)
class LoopConfig:
    """What the rounds do.

    Attributes:
        rounds: Number of rounds; may be more when the loop is resumed.
        preset: The real balls.
        checkpoint: The learned world to begin with.
        sequences: Real sequences that are collected for training in every round.
        validation_sequences: And for validation.
        frames: Frames of a sequence.
        exploration: Share of random steps while collecting. The first round has random steps only.
        world_updates: Updates by which the world is fine-tuned in every round.
        world_learning_rate: Their step size.
        timesteps: Dreamt steps by which the policy is trained on in every round.
        num_envs: Dreams side by side.
        hyperparameters: PPO's, beside the usual ones.
        episodes: Real episodes of every evaluation.
        steps: Steps of an episode, real or dreamt.
        oracle: Planner on the true simulator that scores are normalised by.
        seed: Of everything.

    Raises:
        ConfigError: If a value makes no sense.
    """

    rounds: int = 3
    preset: str = "avoid"
    checkpoint: str = "balls"
    sequences: int = 500
    validation_sequences: int = 50
    frames: int = 101
    exploration: float = 0.2
    world_updates: int = 500
    world_learning_rate: float = 3e-4
    timesteps: int = 500_000
    num_envs: int = 64
    hyperparameters: Any = None
    episodes: int = 100
    steps: int = 100
    oracle: str = "shooting"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "sequences", "validation_sequences", "world_updates", "timesteps", "episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.frames <= CONTEXT_FRAMES:
            raise ConfigError(
                f"frames is {self.frames}, expected more than {CONTEXT_FRAMES}, the context that a dream begins with"
            )
        if not 0.0 <= self.exploration <= 1.0:
            raise ConfigError(f"exploration is {self.exploration}, expected 0 to 1")
        if not physics.preset(self.preset).player:
            raise ConfigError(
                f"the balls of {self.preset} have no player: choose a preset with a player, avoid say"
            )
        ContestConfig(oracle=self.oracle)


LOOP_FILE = "loop.json"


def write_loop(folder: Path, config: LoopConfig, rows: list[dict[str, Any]]) -> None:
    """Writes a loop's configuration and its rows.

    Raises:
        OutputError: If they can't be written.
    """
    write_json(folder / LOOP_FILE, {"config": asdict(config), "rounds": rows})


def read_loop(folder: Path) -> tuple[LoopConfig, list[dict[str, Any]]]:
    """Reads a loop's configuration and its rows.

    Raises:
        CheckpointError: If there is none, or it is broken.
    """
    path = folder / LOOP_FILE
    try:
        values = json.loads(path.read_text())
        return build(LoopConfig, values["config"]), list(values["rounds"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no loop to resume (no {LOOP_FILE}): run without --resume"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is broken: {error}") from error


def loop_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lays rounds out as lines of text."""
    names = ("round", "real transitions", "return", "in the dream", "normalised", "p against stay")
    table = [names]
    for row in rows:
        score = row["normalised_score"]
        table.append(
            (
                str(row["round"] + 1),
                f"{row['real_transitions']:,}",
                f"{row['return']:.2f} +- {row['standard_error']:.2f}",
                f"{row['dream_return']:.2f}",
                "-" if score is None else f"{score:.2f}",
                f"{row['p_value_against_stay']:.2g}",
            )
        )
    return [
        "  ".join(cell.rjust(max(len(name), 16)) for cell, name in zip(row, names, strict=True))
        for row in table
    ]


class WatchingAgent:
    """Lets an agent that acts on slots act on frames.

    Args:
        agent: Acts on slots, as `SlotVectorObservation` shows them.
        world: Watches the frames.
    """

    def __init__(self, agent: Agent, world: World) -> None:
        self._agent = agent
        self._source = WatchedState(world)
        self._actions: NDArray[Any] | None = None

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._agent.reset(num_envs)
        self._source.reset(num_envs)
        self._actions = None

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Watches the frames (n, h, w, c) and chooses the next actions."""
        self._source.observe(observations, self._actions)
        self._actions = np.asarray(self._agent.act(self._source.slots()), dtype=np.int64)
        return self._actions.copy()

    def was_done(self, actions: Int64[np.ndarray, " n"]) -> None:
        """Tells which actions were taken in the end, instead of the chosen ones."""
        self._actions = actions.copy()


class ExploringAgent:
    """Follows an agent, and takes some steps at random, so that data stays varied.

    Args:
        agent: Who is followed.
        number_of_actions: Actions are 0 to this minus 1.
        share: Share of the steps that are random.
        generator: Where chance comes from.

    Raises:
        ConfigError: If the share is none.
    """

    def __init__(
        self, agent: Agent, number_of_actions: int, share: float, generator: np.random.Generator
    ) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"share is {share}, expected 0 to 1")
        self._agent, self._share, self._generator = agent, share, generator
        self._random = RepeatedRandomAgent(number_of_actions, generator)

    def reset(self, num_envs: int) -> None:
        """Starts anew with N environments."""
        self._agent.reset(num_envs)
        self._random.reset(num_envs)

    def act(self, observations: NDArray[Any]) -> Int64[np.ndarray, " n"]:
        """Chooses the next actions."""
        chosen, drawn = self._agent.act(observations), self._random.act(observations)
        done = np.where(self._generator.random(len(chosen)) < self._share, drawn, chosen)
        if isinstance(self._agent, WatchingAgent):
            self._agent.was_done(done)
        return done


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
        from rnem_world.agents.policy_agent import load_policy

        world = World.load(self._world(number - 1), self.device)
        space = world.slot_space(world.check_slots(None))
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
        resumes = bool(run_folder.updates_of(run))
        if resumes and run_folder.updates_of(run)[-1].name == f"update-{self.config.world_updates:09d}":
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
