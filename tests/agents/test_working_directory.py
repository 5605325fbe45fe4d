"""Paths mean the same after a change of the working directory, and where all was moved together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3")

from rnem_world.agents.config import ContestConfig, LoopConfig, PolicyConfig, absolute
from rnem_world.agents.contest import Contest
from rnem_world.agents.dyna import Loop, read_loop
from rnem_world.agents.policy import read_policy_config, read_trainer
from rnem_world.agents.policy_training import train_policy
from rnem_world.errors import CheckpointError

SMALL = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}


@pytest.fixture
def here(tiny_world, tmp_path, monkeypatch) -> Path:
    """A working directory with a world in it, beside another one."""
    shutil.copytree(tiny_world, tmp_path / "here" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def dreaming(**values) -> PolicyConfig:
    options = {
        "checkpoint": "tiny",
        "obs_type": "slots",
        "max_episode_steps": 4,
        "ensemble": ["tiny", "balls"],
    }
    return PolicyConfig(env_options=options, num_envs=2, timesteps=16, hyperparameters=SMALL, **values)


def test_paths_become_absolute_where_they_are_given(here):
    options = dreaming().env_options
    assert options["checkpoint"] == str(here / "tiny")
    assert options["ensemble"] == [str(here / "tiny"), "balls"]
    assert PolicyConfig(env="rnem_world:RNEM-Balls-v0", env_options={"starts": Path("tiny")}).env_options == {
        "starts": str(here / "tiny")
    }
    assert PolicyConfig(slots_of="tiny").slots_of == str(here / "tiny")
    assert ContestConfig(checkpoint="tiny").checkpoint == str(here / "tiny")
    assert LoopConfig(checkpoint="./tiny").checkpoint == str(here / "tiny")
    (here / "background.npy").touch()
    real = {"env": "RNEM-AtariReal-v0", "env_options": {"background": "background.npy"}}
    for kind in (PolicyConfig, ContestConfig):
        assert kind(**real).env_options == {"background": str(here / "background.npy")}


def test_names_stay_names_whatever_lies_in_the_working_directory(here):
    for name in ("balls", "real", "real:avoid", "mcts"):
        shutil.copytree("tiny", name)
    for name in ("balls", "hf://owner/name", "", "real", "nowhere", None, 3, ["balls", "nowhere"]):
        assert absolute(name) == name
    assert absolute("./balls") == absolute("balls/") == absolute(Path("balls")) == str(here / "balls")
    # What an option of somebody else's environment means, nobody knows.
    assert PolicyConfig(env="CartPole-v1", env_options={"checkpoint": "tiny"}).env_options == {
        "checkpoint": "tiny"
    }
    (here / "mcts" / "agent.json").write_text("{}")
    assert ContestConfig(agents=("mcts", "./mcts")).planners == ["mcts"]
    assert ContestConfig(agents=("mcts", "./mcts")).policies == ["./mcts"]


def test_a_policy_is_resumed_and_evaluated_from_another_working_directory(here, monkeypatch):
    train_policy(dreaming(), Path("agent"))
    trained, _ = read_policy_config(here / "agent")
    contest = ContestConfig(
        ("agent", "shooting:population=2,horizon=1"),
        "tiny",
        env_options={"preset": "avoid"},
        episodes=1,
        steps=3,
    )
    monkeypatch.chdir("../elsewhere")
    found = Contest(contest).play(progress=False)
    assert "agent" in [score.name for score in found]
    assert train_policy(replace(trained, timesteps=32), Path("../here/agent"), resume=True) is None
    assert [path.name for path in (here / "agent" / "checkpoints").iterdir()] == [
        "step-000000000016",
        "step-000000000032",
    ]
    same = ContestConfig(("../here/agent",), "../here/tiny", episodes=1, steps=3)
    assert "../here/agent" in [score.name for score in Contest(same).play(progress=False)]


def test_the_working_directory_may_change_while_a_policy_is_trained(here, monkeypatch):
    lines = []

    def report(line: str) -> None:
        lines.append(line)

    from rnem_world.agents import policy_training

    step = policy_training._Watch._on_step

    def changing(self) -> bool:
        monkeypatch.chdir(here.parent / "elsewhere")
        return step(self)

    monkeypatch.setattr(policy_training._Watch, "_on_step", changing)
    train_policy(dreaming(), Path("agent"), report=report)
    assert lines == ["16 steps, agent"]
    assert read_trainer(here / "agent" / "checkpoints" / "step-000000000016")[0]["steps"] == 16
    assert list((here.parent / "elsewhere").iterdir()) == []


def test_a_policy_and_its_world_may_be_moved_together(here, monkeypatch):
    train_policy(dreaming(slots_of=""), Path("agents/one"))
    moved = here.rename(here.parent / "moved")
    monkeypatch.chdir(moved.parent)
    config, _ = read_policy_config(Path("moved/agents/one"))
    assert config.env_options["checkpoint"] == str(moved / "tiny")
    assert config.env_options["ensemble"] == [str(moved / "tiny"), "balls"]
    contest = ContestConfig(("moved/agents/one",), "moved/tiny", episodes=1, steps=3)
    assert Contest(contest).play(progress=False)
    train_policy(replace(config, timesteps=32), Path("moved/agents/one"), resume=True)
    (moved / "tiny").rename(moved / "lost")
    config, _ = read_policy_config(moved / "agents" / "one")
    with pytest.raises(CheckpointError, match="tiny"):
        train_policy(replace(config, timesteps=64), moved / "agents" / "one", resume=True)


def test_policies_of_before_are_read(here):
    train_policy(dreaming(), Path("agent"))
    values = json.loads(Path("agent/agent.json").read_text())
    del values["folder"], values["policy"]
    values["env_options"]["checkpoint"] = "tiny"
    Path("agent/agent.json").write_text(json.dumps(values))
    config, _ = read_policy_config(Path("agent"))
    assert config.env_options["checkpoint"] == str(here / "tiny")


def test_a_loop_goes_on_from_another_working_directory_and_after_it_was_moved(here, monkeypatch):
    config = LoopConfig(
        rounds=1,
        checkpoint="tiny",
        sequences=4,
        validation_sequences=2,
        frames=18,
        world_updates=1,
        timesteps=16,
        num_envs=2,
        hyperparameters=SMALL,
        episodes=2,
        steps=4,
        oracle="shooting:population=2,horizon=1",
    )
    loop = Loop(config, Path("loop"))
    monkeypatch.chdir("../elsewhere")
    assert loop.run() is None
    assert list(Path.cwd().iterdir()) == []
    assert Loop(replace(config, rounds=2), Path("../here/loop")).run() is None
    moved = here.rename(here.parent / "moved")
    stored, rows = read_loop(moved / "loop")
    assert (stored.checkpoint, len(rows)) == (str(moved / "tiny"), 2)
    assert Loop(replace(stored, rounds=3), moved / "loop").run() is None
    assert len(read_loop(moved / "loop")[1]) == 3
