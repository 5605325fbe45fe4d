"""From an environment of a user's to its dream, by commands: collect, train, evaluate, roll out, play, film."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from click.testing import CliRunner
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import rnem_world
from rnem_world.agents.collecting import check_environment
from rnem_world.cli.main import group
from rnem_world.data.dataset import Dataset
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.training.checkpoint import read_config

ENVIRONMENTS = Path(__file__).parent.parent / "envs"
SMALL = (
    "--steps-of-data 1200 --max-updates 2 --threads 1 --batch-size 4 --slots 2 --hidden-size 16 --steps 12 "
    "--chunk-steps 6"
)
IDS = {"Masks-v0": ("--env-option", "length=11"), "Wide-v0": ()}


@pytest.fixture(scope="module", params=IDS)
def world(request, tmp_path_factory):
    """The folder of a world of an environment of a user's; the working directory is where it was made."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("any")
    sys.path.append(str(ENVIRONMENTS))
    os.chdir(folder)
    line = ("train", "--env", f"own_environments:Own/{request.param}", "--world-model", *SMALL.split())
    done = CliRunner().invoke(group, [*map(str, line), *IDS[request.param]])
    assert done.exit_code == 0, done.output
    assert "no data at hand: collecting 1,224 frames" in done.output
    yield folder / "runs" / f"world-{request.param}"
    os.chdir(before)
    sys.path.remove(str(ENVIRONMENTS))


def test_its_figures_and_its_film(rnem, world):
    for line in (
        ("evaluate", world),
        ("evaluate", world, "--imagine", 3),
        ("rollout", world, "--steps", 4, "--out", world / "r.gif"),
        ("env", "info", world),
    ):
        result = rnem(*line)
        assert result.code == 0, result.err
    assert "own_environments:Own" in result.out


def test_the_dream_and_its_real_counterpart_are_alike(world):
    dream = gymnasium.make("RNEM-World-v0", checkpoint=world)
    real = gymnasium.make("RNEM-Real-v0", checkpoint=world)
    assert dream.observation_space.shape == real.observation_space.shape
    assert dream.action_space == real.action_space
    check_env(dream.unwrapped, skip_render_check=True)
    check_env(real.unwrapped, skip_render_check=True)
    batch = gymnasium.make_vec("RNEM-World-v0", num_envs=64, checkpoint=world)
    frames, _ = batch.reset(seed=0)
    assert frames.shape == (64, *dream.observation_space.shape)
    batch.step(batch.action_space.sample())
    # What was recorded is what the real counterpart shows.
    with Dataset.open(Path("data") / f"{world.name.removeprefix('world-')}.h5") as dataset:
        read = dataset.read("training", [0], dataset.info("training").arrays)
        space, seed = dataset.attributes.action_space, dataset.attributes.seed
        scale = 255 // dataset.attributes.maximum_value
    from rnem_world.seeding import derive_seed

    again = rnem_world.real_environment(rnem_world.World.load(world), 1)
    frame, _ = again.reset(seed=[derive_seed(seed, "training", 0, 0)])
    for t in range(11):
        assert np.array_equal(frame[0], read["features"][t, 0] * scale)
        frame, rewards, *_ = again.step(space.decode(read["actions"][t]))
        assert rewards[0] == pytest.approx(read["rewards"][t, 0], abs=1e-6)


def test_slots_watch_it(world):
    env = SlotVectorObservation(rnem_world.real_environment(rnem_world.World.load(world), 2), world)
    assert env.reset(seed=0)[0].shape[:2] == (2, 2)
    env.step(env.action_space.sample())


def test_planners_play_in_it_and_are_filmed(rnem, world):
    planner = ("--agent", "shooting:horizon=2,population=3")
    result = rnem(
        "agent", "eval", "--checkpoint", world, *planner, "--episodes", 2, "--steps", 5, "--threads", 1
    )
    assert result.code == 0, result.err
    assert "shooting" in result.out
    film = world / "beside.gif"
    result = rnem("env", "record", world, "--beside-reality", "--steps", 10, "--out", film, "--threads", 1)
    assert result.code == 0, result.err
    assert "10 steps" in result.out
    assert "real in both" in result.out
    assert imageio.imread(film).ndim == 4
    result = rnem("env", "record", world, "--beside-reality", "--starts", "real", "--out", film)
    assert result.code == 2
    assert "leave it out" in result.err


def test_data_that_is_there_is_not_taken_for_another(rnem, world):
    name = world.name.removeprefix("world-")
    line = (
        "train",
        "--env",
        f"own_environments:Own/{name}",
        "--world-model",
        *SMALL.split(),
        "--out",
        "runs/other",
    )
    result = rnem(*line, *IDS[name], "--policy", "random")
    assert result.code == 2
    assert "made with another policy" in result.err
    result = rnem(*line, *IDS[name], "--crop", ":4,:")
    assert result.code == 2
    assert "made with another recipe" in result.err
    assert not Path("runs/other").exists()


def test_data_that_is_there_is_said_to_be_taken(rnem, world):
    """The environment's program may have changed since: nobody trains on old data without a line."""
    name = world.name.removeprefix("world-")
    data = Path("data") / f"{name}.h5"
    before = data.stat()
    os.utime(data, (before.st_atime, datetime(2026, 3, 4, 5, 6).timestamp()))
    line = ("train", "--env", f"own_environments:Own/{name}", "--world-model", *SMALL.split(), *IDS[name])
    result = rnem(*line, "--out", "runs/again")
    os.utime(data, (before.st_atime, before.st_mtime))
    assert result.code == 0, result.err
    (said,) = (each for each in result.out.splitlines() if each.startswith("data at hand"))
    for part in (
        f"1,224 frames of own_environments:Own/{name} in {data}",
        "made on 2026-03-04 at 05:06",
        "delete that file",
    ):
        assert part in said


def test_data_of_nobody_knows_whom_has_the_usual_options_of_others(rnem, world):
    name = world.name.removeprefix("world-")
    data = Path("data") / f"{name}.h5"
    result = rnem(
        "train", "--env", "any", "--world-model", "--data", data, *SMALL.split()[2:], "--out", "runs/any"
    )
    assert result.code == 0, result.err
    ours, theirs = (json.loads((run / "config.json").read_text()) for run in (Path("runs/any"), world))
    assert ours["training"]["head_loss"] == theirs["training"]["head_loss"]
    assert ours["environment"] == theirs["environment"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ENVIRONMENTS))
    monkeypatch.chdir(tmp_path)
    return "own_environments:Own/Wide-v0"


def test_short_and_few_sequences_of_large_frames_need_no_options(rnem, own):
    """What is shown at a time fits the data; but for what the user says, in a file or by flags."""
    Path("own.yaml").write_text("training: {chunk_steps: 5, max_updates: 1}\nmodel: {hidden_size: 16}")
    result = rnem("collect", "--env", own, "--steps-of-data", 300, "--frames", 20, "--out", "short.h5")
    assert result.code == 0, result.err
    line = ("train", "--env", own, "--world-model", "--data", "short.h5", "--threads", 1, "--slots", 2)
    for out, given, expected in (
        ("a", ("--hidden-size", 16, "--max-updates", 1), (12, 12, 13, 1e-3)),
        ("b", ("--config", "own.yaml", "--batch-size", 3, "--learning-rate", 0.01), (15, 5, 3, 0.01)),
    ):
        result = rnem(*line, *given, "--out", out)
        assert result.code == 0, result.err
        training = read_config(Path(out)).training
        rate = training.optimizer.learning_rate
        assert (training.sequence_steps, training.chunk_steps, training.batch_size, rate) == expected


def test_an_id_without_a_version_is_read_alike_by_collecting_and_training(rnem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(gymnasium.registry, "Balls-v2", EnvSpec("Balls-v2", "own_environments:Wide"))
    for name in ("CartPole", "Balls", "Balls-v2"):
        check_environment(name)
    line = ("collect", "--env", "CartPole", "--size", 8, "--steps-of-data", 300, "--frames", 20)
    result = rnem(*line)
    assert result.code == 0, result.err
    small = ("--max-updates", 1, "--threads", 1, "--batch-size", 2, "--hidden-size", 16, "--steps", 4)
    result = rnem("train", "--env", "CartPole", "--size", 8, *small)
    assert result.code == 0, result.err
    assert "collecting" not in result.out


def test_a_world_model_takes_a_named_family_of_architectures(rnem, own):
    line = ("train", "--env", own, "--world-model", *SMALL.split(), "--out", "conv")
    result = rnem(*line, "--architecture", "conv")
    assert result.code == 0, result.err
    model = read_config(Path("conv")).model
    assert model.architecture == "conv"
    assert model.size is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--steps", 12, "--chunk-steps", 5), "chunk_steps is 5, it must divide the 12 steps"),
        (("--batch-size", 0), "batch_size is 0"),
        (("--config", "own.yaml"), "model: 3"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_collected(given, message, rnem, own, listing):
    Path("own.yaml").write_text("model: 3")
    before = listing(Path())
    result = rnem("train", "--env", own, "--world-model", "--steps-of-data", 600, "--threads", 1, *given)
    assert result.code == 2
    assert message in result.err
    assert listing(Path()) == before


def test_a_loop_improves_it(rnem, world):
    """A round of collecting by random players, and one by the policy that was trained in the dream."""
    pytest.importorskip("stable_baselines3")
    if world.name != "world-Masks-v0":
        pytest.skip("one is enough")
    line = ("agent", "loop", "--checkpoint", world, "--out", "runs/loop", "--threads", 1)
    small = (
        *("--rounds", 2, "--sequences", 4, "--validation-sequences", 1, "--frames", 20, "--world-updates", 1),
        *(
            "--timesteps",
            8,
            "--num-envs",
            2,
            "--set",
            "n_steps=4",
            "--set",
            "batch_size=8",
            "--episodes",
            1,
            "--steps",
            12,
        ),
    )
    result = rnem(*line, "--preset", "avoid", *small)
    assert result.code == 2
    assert "preset is 'avoid', which is for balls" in result.err
    result = rnem(*line, *small)
    assert result.code == 0, result.err
    assert "round 2 of 2" in result.out
    with Dataset.open(Path("runs/loop/data/round-1.h5")) as dataset:
        assert dataset.attributes.settings["recipe"]["id"] == "own_environments:Own/Masks-v0"
        assert "is_first" in dataset.info("training").arrays
