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
        ("eval --preset stov", "did you mean 'stove'"),
        ("eval --preset balls4mass64", "no player"),
        ("eval --agent mcts --checkpoint nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_line(run, line, message):
    outcome = run(line)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_what_is_fixed_stays_fixed(run):
    assert run(f"train --env CartPole-v1 --timesteps 16 --out me {TINY}").code == 0
    outcome = run("train --resume --out me --algo dqn")
    assert outcome.code == 2
    assert "algorithm" in outcome.err
    outcome = run(f"train --env CartPole-v1 --timesteps 16 --out me {TINY}")
    assert "--resume" in outcome.err
