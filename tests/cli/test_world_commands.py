"""World models from the command line: training with ``--world-model``, measuring dreams, test data of presets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rnem_world.agents.collecting import collect
from rnem_world.cli import arguments
from rnem_world.cli.main import group
from rnem_world.data.dataset import Dataset
from rnem_world.training import checkpoint

TINY = "--hidden-size 16 --steps 12 --batch-size 4 --threads 1"


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_discs) -> Path:
    """A folder with data, and a world model that was trained for two updates."""
    folder = tmp_path_factory.mktemp("worlds")
    collect(
        "balls",
        folder / "avoid.h5",
        preset="avoid",
        num_train=8,
        num_valid=3,
        num_test=3,
        frames=20,
        progress=False,
    )
    collect(
        "balls",
        folder / "plain.h5",
        preset="balls3small32",
        num_train=8,
        num_valid=3,
        num_test=3,
        frames=20,
        progress=False,
    )
    make_discs(folder / "discs.h5", actions=9)
    before = Path.cwd()
    os.chdir(folder)
    try:
        command = f"train --world-model --data avoid.h5 {TINY} --max-updates 2 --out run"
        group(command.split(), standalone_mode=False)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(place, monkeypatch, rnem):
    monkeypatch.chdir(place)
    return lambda arguments: rnem(*arguments.split())


def test_a_world_model_has_all_its_options_and_learns_rewards(place):
    config = checkpoint.read_config(place / "run")
    model, training = config.model, config.training
    assert (model.architecture, model.number_of_actions, model.heads) == ("projection32", 9, True)
    assert (model.reward_values, model.heads_see) == ((-1.0, 0.0), "slots_and_effects")
    assert (model.slot_inputs, model.theta_update) == ("error_frame_motion", "gated")
    assert (training.chunk_steps, training.window, training.optimizer.clip_factor) == (12, "random", 2.0)
    assert training.noise.per_sequence
    assert training.closed_loop.fraction > 0
    start = checkpoint.read_weights(place / "run" / "checkpoints" / "update-000000000")
    end = checkpoint.read_weights(place / "run" / "checkpoints" / "update-000000002")
    changed = {name for name, value in start.items() if not bool((value == end[name]).all())}
    assert {"heads.parts.weight", "action_embedding.linear.weight", "decoder.profiles.weight"} <= changed
    (entry,) = (
        json.loads(line)
        for line in (place / "run" / "log.jsonl").read_text().splitlines()
        if '"training"' in line
    )
    assert entry["heads"] > 0


def test_it_resumes(run, place):
    import shutil

    shutil.copytree(place / "run", place / "more")
    outcome = run("train --resume --out more --threads 1 --max-updates 3")
    assert outcome.code == 0, outcome
    assert "resumed after update 2" in outcome.out
    assert checkpoint.load_trainer(place / "more" / "checkpoints" / "update-000000003")["gradient_norm"] > 0


def test_data_without_player_gives_a_world_without_actions_and_rewards(run, place):
    outcome = run(f"train --world-model --data plain.h5 {TINY} --max-updates 1 --out plain")
    assert outcome.code == 0, outcome
    model = checkpoint.read_config(place / "plain").model
    assert (model.number_of_actions, model.heads, model.theta_update) == (0, False, "gated")
    outcome = run("evaluate plain --imagine 5 --context 4 --threads 1")
    assert outcome.code == 0, outcome
    assert outcome.json_file["shuffled_ratio"] is None


def test_dreams_are_measured(run, place):
    outcome = run("evaluate run --imagine 5 --context 4 --batch-size 2 --threads 1")
    assert (outcome.code, outcome.err) == (0, "")
    what = f"run dreaming of test of {place / 'avoid.h5'}: 3 sequences, 4 context frames, noise 0;"
    assert what in outcome.out
    figures = outcome.json_file
    assert (figures["sequences"], figures["context"], figures["horizon"]) == (3, 4, 5)
    for name in ("position_errors", "player_errors", "constant_velocity_errors", "alive"):
        assert len(figures[name]) == 5
        assert np.isfinite(figures[name]).all()
    rows = {line[:44].strip(): line[44:].split() for line in outcome.out.splitlines()[1:]}
    assert rows["after so many imagined frames"] == ["1", "5"]
    assert rows["position error"] == [f"{figures['position_errors'][step]:.3f}" for step in (0, 4)]
    assert rows["FG-ARI, last five context frames"] == [f"{figures['fg_ari']:.3f}"]
    assert "shuffled over true actions, object 1, at 5" in rows
    again = run("evaluate run --imagine 5 --context 4 --batch-size 2 --threads 1 --out again.json")
    assert again.code == 0
    assert json.loads((place / "again.json").read_text()) == figures


@pytest.mark.parametrize("data", ["avoid.h5", "discs.h5"])
def test_dreams_are_drawn(data, run, place, monkeypatch):
    """By the balls' positions where they are known, else by pixels; beside a dream in pixels one in latents."""
    from rnem_world.evaluation import pictures

    drawn, draw = [], pictures.curves_figure

    def noted(curves, *texts):
        drawn.append((curves, *texts))
        return draw(curves, *texts)

    monkeypatch.setattr(pictures, "curves_figure", noted)
    figure = place / f"{data}.png"
    dreams = f"evaluate run --data {data} --imagine 3 --context 4 --threads 1 --out drawn.json"
    outcome = run(f"{dreams} --figure {figure}")
    assert outcome.code == 0, outcome
    assert figure.stat().st_size > 0
    ((curves, title, _, unit),) = drawn
    found = json.loads((place / "drawn.json").read_text())
    if data == "avoid.h5":
        expected = {
            "in pixels": found["position_errors"],
            "latent": found["latent"]["position_errors"],
            "constant velocity and walls": found["constant_velocity_errors"],
        }
        assert (title, unit) == ("imagined frames: errors of the balls' positions", "radii")
    else:
        expected = {
            "in pixels": found["wrong_pixels"],
            "latent": found["latent"]["wrong_pixels"],
            "copy of the last frame": found["copy_wrong_pixels"],
        }
        assert (title, unit) == ("imagined frames: wrong pixels", "pixels a frame")
    assert curves == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--imagine 5 --context 4 --slots 3", ["3 slots", "4 balls", "--slots 4"]),
        ("--imagine 5 --context 4 --slots 1", ["at least 2 slots"]),
        ("--imagine 5 --context 1", ["context of 1", "at least 2"]),
        ("--imagine 0", ["0 imagined frames", "at least 2 and 1"]),
        ("--imagine 16 --context 4", ["sequences of 21 frames", "have 20", "choose fewer"]),
        ("--imagine 5 --context 4 --sequences 0", ["0 sequences", "at least 1"]),
        ("--imagine 5 --context 4 --noise-probability 2", ["probability is 2.0", "[0, 1]"]),
        ("--imagine 5 --context 4 --data plain.h5", ["no actions", "made for 9"]),
    ],
)
def test_dreams_that_cannot_be_measured(arguments, expected, run, place, listing):
    before = listing(place)
    outcome = run(f"evaluate run {arguments} --threads 1")
    assert outcome.code == 2, outcome
    assert len(outcome.err.strip().splitlines()) == 1
    assert all(part in outcome.err for part in expected), outcome.err
    assert listing(place) == before


def test_chunks_that_do_not_divide_the_steps_are_refused(run, place, listing):
    before = listing(place)
    outcome = run("train --world-model --data avoid.h5 --steps 10 --out x")
    assert outcome.code == 2
    assert "chunk_steps is 12, it must divide the 10 steps" in outcome.err
    assert listing(place) == before


def test_heads_without_rewards_are_refused(run, place, listing):
    (place / "heads.yaml").write_text("model: {heads: true}")
    before = listing(place)
    outcome = run("train --config heads.yaml --data discs.h5 --steps 3 --batch-size 4 --out x")
    assert outcome.code == 2
    assert "discs.h5 holds neither rewards nor terminations" in outcome.err
    assert listing(place) == before


@pytest.mark.parametrize("command", ["evaluate", "rollout"])
def test_of_a_preset_that_is_not_at_hand_only_test_sequences_are_collected(
    command, place, tmp_path, monkeypatch, rnem
):
    """And they begin as those of the whole set."""
    monkeypatch.setattr(arguments, "TEST_SEQUENCES", 3)
    monkeypatch.setattr(arguments, "EPISODE_FRAMES", 20)
    monkeypatch.chdir(tmp_path)
    more = {"evaluate": "--imagine 5 --context 4", "rollout": "--steps 2 --out x.gif"}[command]
    outcome = rnem(*f"{command} {place / 'run'} --data avoid {more} --threads 1".split())
    assert outcome.code == 0, outcome
    assert f"collecting 3 test sequences into {Path('data/avoid-test.h5')}" in outcome.out
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["avoid-test.h5"]
    collect(
        "balls",
        tmp_path / "full.h5",
        preset="avoid",
        num_train=3,
        num_valid=2,
        num_test=3,
        frames=30,
        progress=False,
    )
    with Dataset.open("data/avoid-test.h5") as small, Dataset.open("full.h5") as full:
        assert small.splits == ("test",)
        info = small.info("test")
        assert (info.number_of_sequences, info.number_of_frames) == (3, 20)
        for name in info.arrays:
            first = small.read("test", [0, 1, 2], [name])[name]
            whole = full.read("test", [0, 1, 2], [name])[name]
            if name in ("rewards", "collisions", "terminations"):  # of the last frame's transition too
                first, whole = first[:19], whole[:19]
            np.testing.assert_array_equal(first, whole[: len(first)])
    outcome = rnem(*f"{command} {place / 'run'} --data avoid {more} --threads 1".split())
    assert outcome.code == 0
    assert "collecting" not in outcome.out


def test_another_split_of_a_preset_needs_the_whole_set(place, tmp_path, monkeypatch, rnem):
    from rnem_world.agents import collecting

    collected = []

    def small(environment, out, *, preset, workers):
        collected.append(out.name)
        sizes = {"num_train": 4, "num_valid": 3, "num_test": 3, "frames": 20}
        return collect(environment, out, preset=preset, **sizes, progress=False)

    monkeypatch.setattr(collecting, "collect", small)
    monkeypatch.chdir(tmp_path)
    command = f"evaluate {place / 'run'} --data avoid --split validation --imagine 5 --context 4 --threads 1"
    assert rnem(*command.split()).code == 0
    assert collected == ["avoid.h5"]


def test_an_exported_world_is_small_and_dreams_as_the_run_does(run, place, listing):
    for name, half in (("whole", ""), ("half", " --half")):
        outcome = run(f"export run --out {name} --data avoid{half}")
        assert outcome.code == 0, outcome
        assert sorted(path.name for path in (place / name).iterdir()) == ["config.json", "model.safetensors"]
        assert checkpoint.read_config(place / name).data == "avoid"
    sizes = [(place / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    dreams = [
        run(f"evaluate {name} --data avoid.h5 --imagine 5 --context 4 --threads 1").json_file
        for name in ("run", "whole", "half")
    ]
    assert dreams[1]["position_errors"] == dreams[0]["position_errors"]
    assert dreams[2]["position_errors"] == pytest.approx(dreams[0]["position_errors"], rel=0.2)
    before = listing(place)
    outcome = run("export run --out whole")
    assert outcome.code == 2
    assert "whole already exists" in outcome.err
    assert listing(place) == before
