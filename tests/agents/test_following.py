"""Following a recipe by the command: every stage, the weights carried on, and going on after a stop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnem_world.agents.collecting import collect
from rnem_world.agents.following import Following, follow
from rnem_world.errors import CheckpointError, OutputError
from rnem_world.training import checkpoint, trainer
from rnem_world.training.recipes import RECIPES, recipe

SMALL = "--recipe paper32 --hidden-size 16 --batch-size 4 --threads 1"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a little data for each stage, so that nothing is collected."""
    folder = tmp_path_factory.mktemp("recipe")
    sizes = {"num_train": 8, "num_valid": 4, "num_test": 0, "frames": 31, "progress": False}
    for name in RECIPES:
        if name.endswith("32"):
            for stage in recipe(name).stages:
                collect(**{**stage.collect[0], **sizes}, out=folder / "data" / f"{name}-{stage.name}.h5")
    return folder


@pytest.fixture
def train(place, monkeypatch, rnem):
    """Trains by the command."""
    monkeypatch.chdir(place)
    return lambda arguments: rnem("train", *arguments.split())


def updates(run: Path) -> int:
    return int(checkpoint.updates_of(run)[-1].name.removeprefix("update-"))


def test_the_stages_follow_one_another_and_the_last_is_the_run(train, place, monkeypatch):
    started = []
    start_model = checkpoint.start_model
    monkeypatch.setattr(
        checkpoint, "start_model", lambda config, given: started.append(given) or start_model(config, given)
    )
    outcome = train(f"{SMALL} --max-updates 2 --model rnn_em --seed 5 --out runs/all")
    assert outcome.code == 0, outcome
    run = place / "runs" / "all"
    first = run / "stages" / "one-ball"
    assert started == [str(first)]
    assert [updates(folder) for folder in (first, run)] == [2, 2]
    configs = [checkpoint.read_config(folder) for folder in (first, run)]
    assert [config.model.slots for config in configs] == [3, 5]
    assert {config.model.core for config in configs} == {"rnn"}
    assert {config.training.seed for config in configs} == {5}
    further = train(
        f"--recipe curtain32 --start-from runs/all {SMALL[17:]} --max-updates 1 --model rnn_em --out runs/on"
    )
    assert further.code == 0, further
    assert started == [str(first), str(run)]
    again = train("--resume --out runs/all")
    assert again.code == 0
    assert "all stages are complete" in again.out
    assert train(f"{SMALL} --out runs/all").code == 2


def test_it_goes_on_where_it_was_stopped(train, place, monkeypatch):
    """A stop in the first stage begins no other; resuming ends it, with the options of the beginning."""
    run, place_of_first = place / "runs" / "stopped", place / "runs" / "stopped" / "stages" / "one-ball"
    learn = trainer.Learner.learn

    def stops(self, batch, done, with_score):
        if done == 1:
            os.kill(os.getpid(), 15)
        return learn(self, batch, done, with_score)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Learner, "learn", stops)
        assert train(f"{SMALL} --max-updates 3 --seed 6 --out runs/stopped").code == 143
    assert updates(place_of_first) == 2
    assert not checkpoint.updates_of(run)
    assert train("--resume --out runs/stopped --seed 7").code == 2
    assert train("--resume --out runs/stopped --recipe paper3").code == 2
    outcome = train("--resume --out runs/stopped --max-updates 4")
    assert outcome.code == 0, outcome
    assert "resumed after update 2" in outcome.out
    assert (updates(place_of_first), updates(run)) == (4, 4)
    assert checkpoint.read_config(run).training.seed == 6


def test_minutes_are_those_of_all_stages(train, place):
    outcome = train(f"{SMALL} --max-updates 2 --max-minutes 0.00001 --out runs/short")
    assert outcome.code == 0, outcome
    assert "--resume --out runs/short" in outcome.out
    assert not checkpoint.updates_of(place / "runs" / "short")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--recipe paper23", "did you mean 'paper32'"),
        ("--recipe paper32 --data data/x.h5", "--data was given beside --recipe"),
        ("--recipe paper32 --config x.yaml", "--config was given beside --recipe"),
        ("--recipe paper32 --world-model", "--world-model was given beside --recipe"),
        ("--recipe paper32 --env atari", "--env was given beside --recipe"),
        ("--recipe paper32 --steps 3", "step_weights has 20 numbers"),
        ("--recipe paper32 --resume", "--resume needs --out"),
        ("--recipe paper32 --resume --out runs/nothing", "holds no training by a recipe"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(train, place, arguments, message):
    outcome = train(arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (place / "runs" / "paper32").exists()


def test_several_processes_are_refused(train, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    outcome = train("--recipe paper32")
    assert outcome.code == 2
    assert "leave torchrun out" in outcome.err


def test_a_broken_note_of_the_recipe(tmp_path):
    (tmp_path / "recipe.json").write_text('{"recipe": "paper32"}')
    with pytest.raises(CheckpointError, match="broken"):
        Following.read(tmp_path)
    with pytest.raises(OutputError, match="already holds a run"):
        follow(Following("paper32"), tmp_path)
