"""Dyna in rounds: collect with the agent, fine-tune the world, train on in its dream, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rnem_world.actions import ActionSpace
from rnem_world.agents.any_collection import USUAL_POLICY, AnyCollection
from rnem_world.agents.base import Agent, RepeatedRandomAgent
from rnem_world.agents.collection import BallsCollection, Collection
from rnem_world.agents.config import CONFIG_FILE, REAL_BALLS, ContestConfig, LoopConfig, PolicyConfig, moved
from rnem_world.agents.contest import STEPS_WITHOUT_LIMIT, USUAL_STEPS, Contest
from rnem_world.agents.dynamics import LearnedDynamics, WatchedState
from rnem_world.agents.exploring import ExploringAgent, ExploringPlanner
from rnem_world.agents.guests import make_players
from rnem_world.agents.planning import PlannerAgent, make_planner, parse_planner
from rnem_world.agents.scores import columns
from rnem_world.config import build
from rnem_world.data.collector import collect_dataset
from rnem_world.data.dataset import Dataset, check_alike
from rnem_world.data.schema import DatasetAttributes
from rnem_world.data.shards import find_shards
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, ConfigError
from rnem_world.io import write_json
from rnem_world.seeding import torch_generator
from rnem_world.training import checkpoint
from rnem_world.training.checkpoint import find_checkpoint
from rnem_world.training.trainer import Trainer

LOOP_FILE = "loop.json"


def read_loop(folder: Path) -> tuple[LoopConfig, list[dict[str, Any]]]:
    """Reads a loop's configuration and its rows.

    Raises:
        CheckpointError: If there is none, or it is broken.
    """
    path = folder / LOOP_FILE
    try:
        values = json.loads(path.read_text())
        config = build(LoopConfig, values["config"])
        if "folder" in values:
            config = replace(config, checkpoint=moved(config.checkpoint, values["folder"], folder))
        return config, list(values["rounds"])
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
    return columns(table)


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
        CheckpointError: If the folder holds another loop, or there is no such world.
        ConfigError: If an option is for another kind of world.
    """

    def __init__(
        self,
        config: LoopConfig,
        folder: Path,
        device: str = "cpu",
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.config, self.folder, self.device, self.report = config, folder.absolute(), device, report
        self.rows: list[dict[str, Any]] = []
        stored_recipe = checkpoint.read_config(find_checkpoint(config.checkpoint)).recipe
        self.recipe = None if stored_recipe is None else EnvironmentRecipe.from_json(stored_recipe)
        for name in ("preset", "oracle"):
            if self.recipe is not None and getattr(config, name) is not None:
                raise ConfigError(
                    f"{name} is {getattr(config, name)!r}, which is for balls, and {config.checkpoint} was learned "
                    f"from {self.recipe.title}: leave it out"
                )
        self.oracle = (config.oracle or "shooting") if self.recipe is None else None
        self.earlier = _look_at(config)
        if (folder / LOOP_FILE).exists():
            stored, self.rows = read_loop(folder)
            if replace(stored, rounds=config.rounds) != config:
                raise CheckpointError(
                    f"{folder} holds a loop with another configuration: resume it with --resume, or give another folder"
                )

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        if self.config.steps is not None or self.recipe is None:
            return self.config.steps or USUAL_STEPS
        with closing(AnyVectorEnv(1, self.recipe)) as env:
            return env.own_limit or STEPS_WITHOUT_LIMIT

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
        values = {"config": asdict(self.config), "rounds": self.rows, "folder": str(self.folder)}
        write_json(self.folder / LOOP_FILE, values)

    def _world(self, number: int) -> str:
        return self.config.checkpoint if number < 0 else str(self.folder / "worlds" / f"round-{number}")

    def _policy(self, number: int) -> Path:
        return self.folder / "agents" / f"round-{number}"

    def _agent(self, number: int) -> str:
        return self.config.agent if self.config.plans else str(self._policy(number))

    def _collect(self, number: int) -> None:
        config = self.config
        out = self.folder / "data" / f"round-{number}.h5"
        if out.exists():
            return
        sizes: dict[str, Any] = {
            "num_train": config.sequences,
            "num_valid": config.validation_sequences,
            "num_test": 0,
            "frames": config.frames,
            "seed": config.seed + number,
        }
        collection: Collection
        if self.recipe is None:
            collection = BallsCollection(**sizes, preset=config.preset or "avoid")
        else:
            collection = AnyCollection(**sizes, recipe=self.recipe)
        source = collection.source()
        if config.data is not None and self.earlier.attributes is not None:
            check_alike(self.earlier.attributes, source.attributes, config.data, "what the loop collects")
        settings = source.attributes.settings | {"policy": "loop"}
        source = replace(
            source,
            make_agent=partial(self._collecting_agent, number),
            attributes=replace(source.attributes, settings=settings),
        )
        collect_dataset(source, collection.sizes(), out)

    def _collecting_agent(self, number: int, env: Any, generator: np.random.Generator) -> Agent:
        knows_nothing = number == 0 and not (self.config.plans and self.config.data is not None)
        if knows_nothing and self.recipe is not None:
            return make_players(env, generator, USUAL_POLICY)
        if knows_nothing:
            return RepeatedRandomAgent(ActionSpace.of(env.single_action_space), generator)
        world = World.load(self._world(number - 1), self.device)
        if self.config.plans:
            chance = torch_generator(int(generator.integers(2**31)), device=world.device)
            name, options = parse_planner(self.config.agent)
            planner = make_planner(name, LearnedDynamics(world, self.config.imagination), options, chance)
            agent = PlannerAgent(planner, WatchedState(world).observe)
            return ExploringPlanner(agent, world.actions, self.config.exploration, generator)
        from rnem_world.agents.policy_agent import load_policy

        space = world.slot_space(world.check_slots(None))
        policy = load_policy(self._policy(number - 1), space, env.single_action_space, self.device)
        return ExploringAgent(policy, world, self.config.exploration, generator)

    def _train_world(self, number: int) -> int | None:
        """Fine-tunes the last world on all data of the loop, and on what it has learned from before."""
        run = Path(self._world(number))
        before = checkpoint.read_config(find_checkpoint(self._world(number - 1)))
        schedule: dict[str, Any] = {"learning_rate": self.config.world_learning_rate, "warm_up_updates": 0}
        if before.training.optimizer.schedule != "constant":
            schedule |= {"schedule_after": 0, "schedule_updates": self.config.world_updates}
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
            prior_code=replace(before.training.prior_code, after_updates=0),
            optimizer=replace(before.training.optimizer, **schedule),
        )
        config = replace(before, training=training, data=str(self.folder / "data"))
        if self.recipe is None:
            config = replace(config, environment=REAL_BALLS)
        done = checkpoint.updates_of(run)
        # A batch of several chunks makes several updates, the last of which may go beyond the number.
        if done and int(done[-1].name.removeprefix("update-")) >= self.config.world_updates:
            return None
        with Dataset.open(self._data(number)) as dataset:
            trainer = Trainer(
                config,
                dataset,
                run,
                torch.device(self.device),
                self.report,
                bool(done),
                None if done else str(find_checkpoint(self._world(number - 1))),
            )
            trainer.fit()
        return trainer.signal

    def _data(self, number: int) -> list[Path]:
        """Lists the files that a round's world learns from; those of the loop as often as its share wants."""
        own = [self.folder / "data" / f"round-{each}.h5" for each in range(number + 1)]
        if self.config.data is None:
            return own
        share = self.config.own_share
        wanted = share / (1.0 - share) * self.earlier.training
        times = max(1, round(wanted / (self.config.sequences * len(own))))
        return [*find_shards(Path(self.config.data)), *own * times]

    def _train_policy(self, number: int) -> int | None:
        """Trains the last policy on in the dream of the new world; planners need no training."""
        if self.config.plans:
            return None
        from rnem_world.agents.policy_training import train_policy

        folder = self._policy(number)
        config = PolicyConfig(
            env_options={
                "checkpoint": self._world(number),
                "obs_type": "slots",
                "max_episode_steps": self.steps,
                **({} if self.config.imagination is None else {"imagination": self.config.imagination}),
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
            agents=(self._agent(number),),
            checkpoint=self._world(number),
            env_options={"preset": config.preset or "avoid"} if self.recipe is None else {},
            episodes=config.episodes,
            steps=self.steps,
            oracle=self.oracle,
            imagination=config.imagination,
            device=self.device,
        )
        found = {score.name: score for score in Contest(contest).play()}
        write_json(
            self.folder / "scores" / f"round-{number}.json",
            {"contest": asdict(contest), "scores": [score.as_json() for score in found.values()]},
        )
        score = found[self._agent(number)].as_json()
        del score["returns"], score["lengths"], score["name"]
        sequences = (config.sequences + config.validation_sequences) * (number + 1)
        transitions = (sequences + self.earlier.all) * (config.frames - 1)
        stay = found["stay"].real.mean
        oracle = None if self.oracle is None else found[f"oracle {self.oracle}"].real.mean
        return {"round": number, "real_transitions": transitions, **score, "stay": stay, "oracle": oracle}


class _Earlier(NamedTuple):
    """What a world has learned from before the loop: sequences for training, and in all; and what their file says."""

    training: int = 0
    all: int = 0
    attributes: DatasetAttributes | None = None


def _look_at(config: LoopConfig) -> _Earlier:
    """Counts the sequences of earlier data, and keeps its attributes.

    Raises:
        ConfigError: If they have another number of frames than the loop's.
        DataError: If there are none.
    """
    if config.data is None:
        return _Earlier()
    with Dataset.open(config.data) as dataset:
        sizes, attributes = {split: dataset.info(split) for split in dataset.splits}, dataset.attributes
    frames = sizes["training"].number_of_frames if "training" in sizes else config.frames
    if "training" not in sizes or frames != config.frames:
        raise ConfigError(
            f"{config.data} has sequences of {frames} frames for {', '.join(sizes)}, and the loop collects "
            f"{config.frames} for training: give frames={frames} (--frames), and data with a split for training"
        )
    sequences = sum(size.number_of_sequences for size in sizes.values())
    return _Earlier(sizes["training"].number_of_sequences, sequences, attributes)


def _fitting(steps: int, chunk: int | None, frames: int) -> int:
    """Shortens training sequences to those that there are, in whole chunks."""
    longest = min(steps, frames - 1)
    return longest if chunk is None else longest - longest % chunk
