from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

import rnem_world
from rnem_world.agents import dyna, policy_training
from rnem_world.agents.config import LoopConfig
from rnem_world.agents.dyna import Loop, loop_table, read_loop
from rnem_world.agents.dynamics import LearnedDynamics, WatchedState
from rnem_world.agents.exploring import ExploringAgent, ExploringPlanner
from rnem_world.agents.planning import PlannerAgent, make_planner
from rnem_world.data.dataset import Dataset
from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, ConfigError, DataError


def small(world, **values) -> LoopConfig:
    options = {
        "rounds": 2,
        "checkpoint": str(world),
        "sequences": 4,
        "validation_sequences": 2,
        "frames": 18,
        "world_updates": 1,
        "timesteps": 16,
        "num_envs": 2,
        "hyperparameters": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
        "episodes": 2,
        "steps": 4,
        "oracle": "shooting:population=2,horizon=1",
    }
    return LoopConfig(**{**options, **values})


def test_a_loop_that_is_stopped_goes_on_and_data_grows(tiny_world, tmp_path, monkeypatch):
    calls = []
    train = policy_training.train_policy

    def stopped_once(config, folder, *rest, **named):
        calls.append((folder.name, named["start_from"]))
        return signal.SIGTERM if len(calls) == 1 else train(config, folder, *rest, **named)

    monkeypatch.setattr(policy_training, "train_policy", stopped_once)
    assert Loop(small(tiny_world, rounds=1), tmp_path).run() == signal.SIGTERM
    data, world = tmp_path / "data" / "round-0.h5", tmp_path / "worlds" / "round-0"
    before = data.stat().st_mtime_ns, (world / "log.jsonl").read_bytes()
    assert read_loop(tmp_path)[1] == []
    loop = Loop(small(tiny_world, rounds=1), tmp_path)
    assert loop.run() is None
    assert (data.stat().st_mtime_ns, (world / "log.jsonl").read_bytes()) == before
    assert len(read_loop(tmp_path)[1]) == 1
    assert Loop(small(tiny_world), tmp_path).run() is None
    assert calls == [("round-0", None), ("round-0", None), ("round-1", tmp_path / "agents" / "round-0")]
    config, rows = read_loop(tmp_path)
    assert config.rounds == 2
    assert [row["real_transitions"] for row in rows] == [6 * 17, 12 * 17]
    assert len(loop_table(rows)) == 3
    with Dataset.open(tmp_path / "data") as dataset:
        assert dataset.info("training").number_of_sequences == 8
    scores = json.loads((tmp_path / "scores" / "round-1.json").read_text())
    assert scores["contest"]["checkpoint"] == str(tmp_path / "worlds" / "round-1")
    with pytest.raises(CheckpointError, match="another configuration"):
        Loop(small(tiny_world, sequences=5), tmp_path)


def test_a_world_whose_last_batch_went_beyond_its_updates_is_done(tiny_world, tmp_path, monkeypatch):
    updates = [tmp_path / f"update-{number:09d}" for number in (0, 6)]
    monkeypatch.setattr(dyna.checkpoint, "updates_of", lambda run: updates)

    def make_trainer(*given):
        raise AssertionError("it is trained again")

    monkeypatch.setattr(dyna, "Trainer", make_trainer)
    assert Loop(small(tiny_world, world_updates=5), tmp_path)._train_world(0) is None


class Slots:
    """Remembers what it is shown and always goes up."""

    def __init__(self) -> None:
        self.seen = []

    def reset(self, num_envs: int) -> None:
        self.seen = []

    def restart(self, begun) -> None:
        pass

    def act(self, observations):
        self.seen.append(observations)
        return np.ones(len(observations), dtype=np.int64)


def test_an_exploring_agent_sees_what_the_wrapper_shows(tiny_world):
    inner = Slots()
    explorer = ExploringAgent(inner, World.load(tiny_world), 0.5, np.random.default_rng(0))
    plain = BouncingBallsVectorEnv(3, preset="avoid")
    wrapped = SlotVectorObservation(BouncingBallsVectorEnv(3, preset="avoid"), tiny_world)
    frames, _ = plain.reset(seed=0)
    slots, _ = wrapped.reset(seed=0)
    explorer.reset(3)
    ups = 0
    for _ in range(6):
        actions = explorer.act(frames)
        np.testing.assert_allclose(inner.seen[-1], slots, atol=1e-5)
        frames, *_ = plain.step(actions)
        slots, *_ = wrapped.step(actions)
        ups += int((actions == 1).sum())
    assert 6 < ups < 18


def test_a_planner_needs_no_training_and_collects_in_the_second_round(tiny_world, tmp_path, monkeypatch):
    collecting = []
    make = dyna.ExploringPlanner

    def noted(*given):
        collecting.append(given)
        return make(*given)

    monkeypatch.setattr(dyna, "ExploringPlanner", noted)
    planner = "shooting:population=4,horizon=2"
    assert Loop(small(tiny_world, agent=planner), tmp_path).run() is None
    assert {share for _, _, share, _ in collecting} == {0.2}
    assert not (tmp_path / "agents").exists()
    config, rows = read_loop(tmp_path)
    assert config.agent == planner
    assert [row["real_transitions"] for row in rows] == [6 * 17, 12 * 17]
    names = [
        score["name"] for score in json.loads((tmp_path / "scores" / "round-1.json").read_text())["scores"]
    ]
    assert planner in names


def test_a_world_goes_on_learning_from_what_it_has_learned_from(tiny_world, tmp_path, monkeypatch):
    """Then the planner collects in the first round already, and the loop's own data keeps its share."""
    earlier = str(tmp_path / "earlier.h5")
    rnem_world.collect("balls", earlier, preset="avoid", num_train=24, num_valid=2, num_test=1, frames=18)
    collecting, learned_from = [], []
    make, make_trainer = dyna.ExploringPlanner, dyna.Trainer

    def noted(*given):
        collecting.append(given)
        return make(*given)

    def learning(config, dataset, *rest):
        learned_from.append((config.training, dataset.info("training").number_of_sequences))
        return make_trainer(config, dataset, *rest)

    monkeypatch.setattr(dyna, "ExploringPlanner", noted)
    monkeypatch.setattr(dyna, "Trainer", learning)
    config = small(
        tiny_world,
        agent="shooting:population=4,horizon=2",
        data=earlier,
        own_share=0.25,
        imagination="pixels",
    )
    loop = Loop(config, tmp_path / "loop")
    assert loop.run() is None
    assert {(share, planner.planner.dynamics.imagination) for planner, _, share, _ in collecting} == {
        (0.2, "pixels")
    }
    # 24 earlier sequences and 8 that are the loop's: its 4 of the first round twice, its 8 of both once.
    assert [number for _, number in learned_from] == [32, 32]
    assert {training.prior_code.after_updates for training, _ in learned_from} == {0}
    assert [row["real_transitions"] for row in loop.rows] == [(27 + 6) * 17, (27 + 12) * 17]
    with pytest.raises(ConfigError, match="--frames"):
        Loop(small(tiny_world, data=earlier, frames=19), tmp_path / "other")
    with pytest.raises(DataError, match="what the loop collects: settings is"):
        Loop(small(tiny_world, data=earlier, preset="stove"), tmp_path / "other").run()
    assert not (tmp_path / "other" / "data").exists()


def test_a_planner_is_told_what_was_done_instead(tiny_world):
    world, told = World.load(tiny_world), []

    def source(observations, actions, begun):
        told.append(actions)
        return watched.observe(observations, actions, begun)

    watched = WatchedState(world)
    planner = make_planner(
        "shooting", LearnedDynamics(world), {"population": 2, "horizon": 1}, torch.Generator().manual_seed(0)
    )
    env = BouncingBallsVectorEnv(3, preset="avoid")
    explorer = ExploringPlanner(PlannerAgent(planner, source), world.actions, 1.0, np.random.default_rng(0))
    frames, _ = env.reset(seed=0)
    explorer.reset(3)
    done = []
    for _ in range(4):
        done.append(explorer.act(frames))
        frames, *_ = env.step(done[-1])
    assert told[0] is None
    np.testing.assert_array_equal(told[1:], done[:-1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"agent": "orakle"}, "no planner 'orakle'"),
        ({"agent": "mcts:depth=3"}, "unknown option"),
        ({"frames": 16}, "more than 16"),
        ({"preset": "balls4mass64"}, "no player"),
        ({"exploration": 2.0}, "exploration"),
        ({"oracle": "orakle"}, "no planner"),
        ({"own_share": 1.0}, "own_share"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**values)


def test_a_broken_loop_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no loop"):
        read_loop(tmp_path)
    (tmp_path / "loop.json").write_text("{")
    with pytest.raises(CheckpointError, match="broken"):
        read_loop(tmp_path)
