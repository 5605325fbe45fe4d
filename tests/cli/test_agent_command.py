from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3")
sys.path.append(str(Path(__file__).resolve().parents[1] / "envs"))

from dreamers import write_world

TINY = "--set n_steps=8 --set batch_size=16 --set n_epochs=1 --num-envs 2 --threads 1"


@pytest.fixture
def run(tmp_path, monkeypatch, rnem):
    monkeypatch.chdir(tmp_path)
    return lambda arguments: rnem("agent", *arguments.split())


def test_a_policy_is_trained_resumed_and_scored(run, tmp_path):
    outcome = run(
        f"train --env RNEM-BallsReal-v0 --env-option preset=stove --timesteps 16 --out me --frame-stack 2 {TINY}"
    )
    assert outcome.code == 0, outcome
    config = json.loads((tmp_path / "me" / "agent.json").read_text())
    assert config["env_options"] == {"preset": "stove"}
    assert config["hyperparameters"]["n_steps"] == 8
    assert run("train --resume --out me --timesteps 32 --threads 1").code == 0
    assert json.loads((tmp_path / "me" / "agent.json").read_text())["timesteps"] == 32
    write_world(tmp_path / "tiny")
    outcome = run(
        "eval --checkpoint tiny --agent shooting:population=2,horizon=1 --preset avoid --episodes 2"
        " --steps 16 --out s.json --chart s.png --video v.gif --imagination pixels --threads 1"
    )
    assert outcome.code == 0, outcome
    assert "oracle shooting:population=2,horizon=1" in outcome.out
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    assert [len(score["returns"]) for score in scores] == [2] * 5
    assert (tmp_path / "s.png").stat().st_size > 5000
    assert (tmp_path / "v.gif").read_bytes()[:4] == b"GIF8"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --algo pop", "did you mean 'ppo'"),
        ("train --env-option preset", "NAME=VALUE"),
        ("train --resume", "--out"),
        ("train --resume --out nothing", "no agent to resume"),
        ("loop --resume", "no loop to resume"),
        ("loop --resume --sequences 3", "leave out all but --rounds"),
        ("loop --frames 9", "more than 16"),
        ("eval --agent mtcs", "did you mean 'mcts'"),
        ("eval --video v.gif", "give an --agent"),
        ("eval --chart c.txt", ".png"),
        ("eval --env-option max_episode_steps=5 --episodes 1 --steps 2", "max_episode_steps is 5"),
        (
            "eval --env CartPole-v1 --env-option max_episode_steps=5 --episodes 1 --steps 2",
            "give steps (--steps)",
        ),
        ("eval --preset avoid --env-option preset=stove --episodes 1 --steps 2", "leave one out"),
        (
            "eval --env-option preset=avoid --env-option preset=stove --episodes 1 --steps 2",
            "preset before it already",
        ),
        ("train --set n_steps=8 --set n_steps=9 --timesteps 8 --num-envs 1", "n_steps before it already"),
        ("eval --imagination latent --episodes 1 --steps 2", "--imagination is for agents that dream"),
        ("eval --engine onnx --episodes 1 --steps 2", "--engine is for agents that dream"),
        ("eval --preset stov", "did you mean 'stove'"),
        ("eval --preset balls4mass64", "no player"),
        ("eval --agent mcts --checkpoint nowhere", "nowhere"),
        ("train --seed -1", "seed is -1"),
        ("eval --seed -1", "seed is -1"),
        ("loop --seed -1", "seed is -1"),
        ("loop --steps 0", "steps is 0"),
        ("loop --num-envs 0", "num_envs is 0"),
        ("loop --set policy_kwargs=1", "policy_kwargs is 1"),
        ("train --policy MlpPolic", "did you mean 'MlpPolicy'"),
        ("train --env no_such_module:Pole-v0", "PYTHONPATH"),
        ("eval --env no_such_module:Pole-v0", "PYTHONPATH"),
    ],
)
def test_bad_input_is_one_line(run, line, message):
    outcome = run(line)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("steps", [1, 15])
def test_episodes_too_short_for_a_video_are_refused_before_anything_is_played(
    run, steps, monkeypatch, tmp_path
):
    monkeypatch.setattr("rnem_world.agents.contest.play", None)
    outcome = run(f"eval --agent mcts --video v.gif --out s.json --episodes 2 --steps {steps}")
    assert outcome.code == 2
    assert (
        f"episodes of {steps} steps are too short for a video, expected --steps of at least 16" in outcome.err
    )
    assert not list(tmp_path.iterdir())


def test_an_episode_that_ends_too_early_for_a_video_is_refused_before_the_others_are_played(
    run, monkeypatch, tmp_path
):
    from rnem_world.envs.balls import BouncingBallsVectorEnv

    step = BouncingBallsVectorEnv.step

    def ending(env, actions):
        *rest, infos = step(env, actions)
        rest[2][:] = env.elapsed >= 1
        return *rest, infos

    monkeypatch.setattr(BouncingBallsVectorEnv, "step", ending)
    monkeypatch.setattr("rnem_world.agents.contest.play", None)
    write_world(tmp_path / "tiny")
    outcome = run(
        "eval --agent shooting:population=2,horizon=1 --checkpoint tiny --video v.gif --episodes 2 --steps 20"
    )
    assert outcome.code == 2
    assert "the episode with the seed 10000 ends after 1 steps, too early for a video" in outcome.err


def test_an_agent_of_somebody_elses_environment_is_trained_by_command(run, tmp_path, monkeypatch):
    (tmp_path / "poles_of_mine.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Mine/Pole-v0', CartPoleEnv, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = run(f"train --env poles_of_mine:Mine/Pole-v0 --policy MlpPolicy --timesteps 16 {TINY}")
    assert outcome.code == 0, outcome
    assert "16 steps, runs/ppo-Pole-v0" in outcome.out
    assert run("train --resume --out runs/ppo-Pole-v0 --timesteps 32 --threads 1").code == 0
    outcome = run("eval --env poles_of_mine:Mine/Pole-v0 --episodes 2 --steps 20")
    assert outcome.code == 0, outcome
    assert "stay" in outcome.out


def test_what_is_fixed_stays_fixed(run):
    assert run(f"train --env CartPole-v1 --timesteps 16 --out me {TINY}").code == 0
    outcome = run("train --resume --out me --algo dqn")
    assert outcome.code == 2
    assert "algorithm" in outcome.err
    outcome = run(f"train --env CartPole-v1 --timesteps 16 --out me {TINY}")
    assert "--resume" in outcome.err
