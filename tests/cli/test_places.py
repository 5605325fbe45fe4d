"""What is named and what is a path: nothing depends on the working directory, on what lies in it, or on its change."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rnem_world
from rnem_world.agents.collecting import collect
from rnem_world.cli.main import group
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.real import game_of
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, DataError
from rnem_world.training import checkpoint

TINY = "--hidden-size 16 --steps 12 --chunk-steps 6 --batch-size 4 --threads 1 --max-updates 1"
SIZES = {"num_train": 8, "num_valid": 3, "num_test": 3, "frames": 26}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in which a world was trained, with every path given relative to it."""
    folder = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(folder)
    try:
        collect("balls", "data/balls.h5", preset="avoid", **SIZES, progress=False)
        train = f"train --world-model --data data/balls.h5 {TINY} --out runs/world"
        group(train.split(), standalone_mode=False)
        export = "export runs/world --starts data/balls.h5 --out exported"
        group(export.split(), standalone_mode=False)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def elsewhere(project, tmp_path, monkeypatch) -> Path:
    """Another working directory, with a copy of the run."""
    shutil.copytree(project / "runs" / "world", tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.fixture
def good(rnem):
    def run(arguments: str, note: str = "") -> str:
        outcome = rnem(*arguments.split())
        assert outcome.code == 0, outcome
        assert note in outcome.err
        return outcome.out

    return run


COMMANDS = (
    "evaluate {} --threads 1 --ami-sequences 0",
    "evaluate {} --imagine 3 --context 4 --threads 1",
    "rollout {} --steps 2 --out x.gif",
    "env info {}",
    "env record {} --steps 2 --out x.gif --threads 1",
    "export {} --out x",
)


@pytest.mark.parametrize(
    ("command", "run"),
    [
        *((command, "../moved") for command in COMMANDS),
        *((command, "../moved/checkpoints/update-000000002") for command in (COMMANDS[0], COMMANDS[4])),
    ],
)
def test_a_run_that_was_moved_knows_its_data_from_any_working_directory(
    command, run, elsewhere, project, good
):
    config = checkpoint.read_config(elsewhere / run)
    assert config.data == str(project / "data" / "balls.h5")
    good(command.format(run))


def test_a_run_that_was_moved_goes_on_from_any_working_directory(elsewhere, project, good):
    out = good("train --resume --out ../moved --max-updates 3 --threads 1")
    assert "resumed after update 2" in out
    assert checkpoint.read_config(elsewhere / "../moved").data == str(project / "data" / "balls.h5")


def test_a_run_goes_on_with_other_data_and_then_knows_that(elsewhere, project, good):
    shutil.copy(project / "data" / "balls.h5", "other.h5")
    good("train --resume --out ../moved --max-updates 3 --threads 1 --data other.h5")
    assert checkpoint.read_config(elsewhere / "../moved").data == str(elsewhere / "other.h5")


def test_data_that_is_gone_is_an_error_that_says_how_to_give_it(elsewhere, rnem):
    for file in ("config.json", *Path("../moved").glob("checkpoints/*/config.json")):
        path = Path("../moved") / file if file == "config.json" else file
        path.write_text(path.read_text().replace("/data/balls.h5", "/gone/balls.h5"))
    for command in ("evaluate ../moved", "train --resume --out ../moved --max-updates 3"):
        outcome = rnem(*command.split())
        assert outcome.code == 2
        assert "/gone/balls.h5" in outcome.err
        assert "--data" in outcome.err


def test_data_that_was_moved_along_with_the_run_is_found(project, tmp_path, monkeypatch, good):
    """But what is still in the first place is it."""
    for number in (1, 2):
        shutil.copytree(project, tmp_path / f"project-{number}")
    monkeypatch.chdir(tmp_path / "project-1")
    run = "train --resume --out runs/world --max-updates 3 --threads 1 --data data/balls.h5"
    good(run)
    (tmp_path / "project-1").rename(tmp_path / "renamed")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS[:3]:
        good(command.format("renamed/runs/world"))
    renamed = tmp_path / "renamed"
    assert checkpoint.read_config(renamed / "runs" / "world").data == str(renamed / "data" / "balls.h5")
    second = tmp_path / "project-2" / "runs" / "world"
    assert checkpoint.read_config(second).data == str(project / "data" / "balls.h5")
    good("train --resume --out renamed/runs/world --max-updates 5 --threads 1")
    good("train --config renamed/runs/world/config.json --threads 1 --max-updates 1 --out again")


def test_a_run_of_before_with_a_relative_path_finds_its_own_data(project, tmp_path, monkeypatch, good):
    """And no other that lies in the working directory under the same path."""
    old = tmp_path / "old"
    shutil.copytree(project, old)
    for path in old.glob("runs/**/config.json"):
        values = json.loads(path.read_text())
        del values["data_from_here"]
        path.write_text(json.dumps({**values, "data": "data/balls.h5"}))
    decoy = tmp_path / "decoy"
    (decoy / "data").mkdir(parents=True)
    (decoy / "data" / "balls.h5").write_text("something else")
    monkeypatch.chdir(decoy)
    good("evaluate ../old/runs/world --threads 1 --ami-sequences 0")
    assert checkpoint.read_config(old / "runs" / "world").data == str(old / "data" / "balls.h5")
    shutil.rmtree(old / "data")  # then the working directory, as it was before
    assert checkpoint.read_config(old / "runs" / "world").data == str(decoy / "data" / "balls.h5")


def test_training_does_not_mind_a_change_of_the_working_directory(project, tmp_path, monkeypatch):
    from rnem_world.training.presets import world_model
    from rnem_world.training.trainer import train

    place = tmp_path / "place"
    shutil.copytree(project / "data", place / "data")
    monkeypatch.chdir(place)
    small = {
        "model": {"hidden_size": 16},
        # Read from the file as it goes, and saved after every update.
        "training": {"sequence_steps": 12, "chunk_steps": 6, "batch_size": 4, "max_updates": 4}
        | {"memory_gigabytes": 0.0, "checkpoint_minutes": 1e-9},
    }
    trainer = train(
        "data/balls.h5", world_model(options=small), "run", device="cpu", report=lambda line: os.chdir("/")
    )
    assert Path.cwd() == Path("/")
    assert trainer.progress.updates == 4
    assert checkpoint.find_checkpoint(place / "run").name == "update-000000004"
    assert {path.name for path in place.iterdir()} == {"data", "run"}


@pytest.fixture
def shadowed(elsewhere, project) -> Path:
    """A working directory where other things are called as what is shipped, and as presets."""
    shutil.copytree(project / "runs" / "world", "balls")
    for name in ("stove", "space_invaders", "avoid", "control", "SpaceInvaders", "Pong"):
        Path(name).mkdir()
    return elsewhere


@pytest.mark.parametrize("name", ["balls", "stove", "space_invaders"])
def test_a_shipped_name_means_the_shipped_world(name, shadowed):
    assert World.load(name).folder == checkpoint.PRETRAINED / name
    assert checkpoint.load_model(name)[1].data == checkpoint.read_config(checkpoint.PRETRAINED / name).data


@pytest.mark.parametrize(
    ("given", "world"),
    [
        ({"id": "RNEM-Balls-v0"}, "balls"),
        ({"id": "RNEM-Balls-v0", "checkpoint": "stove"}, "stove"),
        ({"id": "RNEM-Balls-v0", "ensemble": "balls", "details": "disagreement"}, "balls"),
        ({"id": "RNEM-Atari-v0"}, "space_invaders"),
        ({"id": "RNEM-Atari-v0", "game": "SpaceInvaders"}, "space_invaders"),
    ],
)
def test_a_registered_id_does_not_depend_on_the_working_directory(given, world, shadowed):
    pytest.importorskip("ale_py" if world == "space_invaders" else "gymnasium")
    made = gymnasium.make(**given)
    dream = made.unwrapped.batch.world
    assert dream.folder == checkpoint.PRETRAINED / world
    if world == "space_invaders":
        assert game_of(dream) == "SpaceInvaders"
    made.reset(seed=0)
    made.step(0)


@pytest.mark.parametrize("given", ["./balls", "balls/", f"..{os.sep}elsewhere{os.sep}balls", Path("balls")])
def test_a_folder_called_as_a_shipped_world_is_given_as_a_path(given, shadowed):
    assert checkpoint.find_checkpoint(given).resolve().parents[1] == shadowed / "balls"
    assert LearnedEnv(given).batch.world.folder.parents[1] == shadowed / "balls"


def test_what_is_not_there_says_what_else_may_be_meant(elsewhere):
    with pytest.raises(
        CheckpointError, match=r"at \./balls: .*the shipped world is named balls, without a folder"
    ):
        checkpoint.find_checkpoint("./balls")
    with pytest.raises(CheckpointError, match="did you mean 'balls'"):
        checkpoint.find_checkpoint("bals")
    with pytest.raises(CheckpointError, match="is named hf://someone/world"):
        checkpoint.find_checkpoint("someone/world")


def test_commands_say_which_is_meant_where_there_are_both(shadowed, good, listing):
    before = listing(shadowed / "balls")
    note = "note: balls means the shipped world of that name; what is called so in this folder is ./balls"
    data = "../moved/../elsewhere/test.h5"
    collect("balls", "test.h5", preset="avoid", **SIZES, progress=False)
    out = good(f"evaluate balls --imagine 3 --context 4 --data {data} --threads 1", note)
    assert "written to imagination-test-5-slots.json" in out  # and not into the folder that isn't meant
    assert json.loads(Path("imagination-test-5-slots.json").read_text())["run"] == "balls"
    assert "video of" in good(f"rollout balls --steps 2 --data {data}", note)
    assert str(checkpoint.PRETRAINED) in good("env info balls", note)
    assert str(shadowed / "balls") in good("env info ./balls")
    assert listing(shadowed / "balls") == before
    out = good(f"evaluate ./balls --imagine 3 --context 4 --data {data} --threads 1")
    assert "written to balls/imagination-test-5-slots.json" in out


def test_a_presets_name_means_the_preset(shadowed, good, monkeypatch):
    """The shipped world knows the name of its preset, and that is not the folder ./avoid."""
    from rnem_world.cli import arguments

    monkeypatch.setattr(arguments, "TEST_SEQUENCES", 3)
    monkeypatch.setattr(arguments, "EPISODE_FRAMES", 20)
    out = good("evaluate balls --imagine 3 --context 4 --threads 1")
    assert "collecting 3 test sequences into" in out
    assert (shadowed / "data" / "avoid-test.h5").is_file()
    note = "note: avoid means the preset or game of that name; what is called so in this folder is ./avoid"
    good("evaluate balls --imagine 3 --context 4 --threads 1 --data avoid", note)
    with pytest.raises(DataError, match="trained on 'avoid', and nobody knows where that is"):
        rnem_world.evaluate("balls")
    env = LearnedEnv("balls", starts="real")
    env.reset(seed=0)


@pytest.mark.parametrize("name", ["avoid", "Pong"])
def test_data_of_a_name_are_collected_though_a_folder_has_the_name(name, shadowed, monkeypatch):
    from rnem_world.agents import collecting
    from rnem_world.cli.arguments import resolve_data

    asked = []
    monkeypatch.setattr(collecting, "collect", lambda *given, **options: asked.append(given))
    if name == "Pong":
        pytest.importorskip("ale_py")
    path = shadowed / "data" / f"{name}.h5"
    assert resolve_data(name).absolute() == path
    assert [given[1].absolute() for given in asked] == [path]
    assert resolve_data(f"./{name}") == Path(name)


def test_a_dataset_called_as_a_preset_is_given_as_a_path(elsewhere, project, good):
    shutil.copy(project / "data" / "balls.h5", "avoid")
    out = good("evaluate ../moved --imagine 3 --context 4 --threads 1 --data ./avoid --out x.json")
    assert "dreaming of test of avoid" in out
    assert json.loads(Path("x.json").read_text())["data"] == str(elsewhere / "avoid")


@pytest.fixture
def hub(project, tmp_path, monkeypatch) -> Path:
    """The Hub has what was exported; it copies it into its cache."""
    cache = tmp_path / "cache" / "models--someone--world" / "snapshots" / "0123456789abcdef"

    def snapshot_download(repository: str) -> str:
        if repository != "someone/world":
            raise FileNotFoundError(f"404: no repository {repository}\nmore lines")
        shutil.copytree(project / "exported", cache, dirs_exist_ok=True)
        return str(cache)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return cache


def test_a_world_from_the_hub_is_the_whole_world(hub, project, elsewhere):
    here, there = LearnedEnv(project / "exported"), LearnedEnv("hf://someone/world")
    assert {path.name for path in hub.iterdir()} == {path.name for path in (project / "exported").iterdir()}
    assert {"config.json", "model.safetensors", "starts.npz", "uncertainty.json"} <= {
        path.name for path in hub.iterdir()
    }
    for env in (here, there):
        env.reset(seed=3)
    np.testing.assert_array_equal(here.step(2)[0], there.step(2)[0])
    assert there.batch.starts.number_of_starts == here.batch.starts.number_of_starts
    envs = LearnedVectorEnv(2, "hf://someone/world", details="uncertainty", ensemble="hf://someone/world")
    envs.reset(seed=0)
    assert np.isfinite(envs.step(np.zeros(2, int))[4]["uncertainty"]).all()
    made = gymnasium.make("RNEM-Balls-v0", checkpoint="hf://someone/world")
    assert made.unwrapped.batch.world.fingerprint == here.batch.world.fingerprint


@pytest.mark.parametrize("command", COMMANDS)
def test_a_world_from_the_hub_is_named_wherever_worlds_are(command, hub, project, elsewhere, good, listing):
    good(command.format("hf://someone/world"))
    assert listing(hub) == listing(project / "exported")  # results come into the working directory


def test_training_starts_from_a_world_of_the_hub(hub, elsewhere, project, good):
    data = project / "data" / "balls.h5"
    good(
        f"train --world-model --data {data} {TINY} --start-from hf://someone/world --out x --learning-rate 1e-9"
    )
    start = checkpoint.read_weights(hub)
    tuned = checkpoint.read_weights(checkpoint.find_checkpoint("x"))
    assert all(float((tuned[name] - value).abs().max()) < 1e-6 for name, value in start.items())


@pytest.mark.parametrize("command", [*COMMANDS, "train --start-from {} --data ../moved/nothing.h5"])
def test_a_repository_that_is_not_there_is_one_line(command, hub, elsewhere, rnem, project):
    command = command.replace("../moved/nothing.h5", str(project / "data" / "balls.h5"))
    outcome = rnem(
        *command.format("hf://someone/else").split(), *([] if "train" not in command else TINY.split())
    )
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert (
        "hf://someone/else can't be had from the Hugging Face Hub (404: no repository someone/else)"
        in outcome.err
    )


def test_without_huggingface_hub_the_extra_is_named(monkeypatch, rnem):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    outcome = rnem("evaluate", "hf://someone/world")
    assert outcome.code == 2
    assert 'pip install "rnem-world[hub]"' in outcome.err
