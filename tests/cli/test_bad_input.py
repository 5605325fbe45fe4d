"""Whatever is wrong with what was given: exit code 2, one line that says what, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rnem_world.cli.main import group
from rnem_world.data.schema import DatasetAttributes
from rnem_world.data.writer import write_shard
from rnem_world.training import checkpoint
from tests.conftest import moving_discs

TINY = "--hidden-size 16 --slots 2 --steps 3 --batch-size 4 --threads 1 --max-updates 1"
TRAIN = f"train --data discs.h5 {TINY}"
# Nothing of this may ever be seen on the standard error.
FORBIDDEN = ("Traceback", "Error(", "  File ")


class Malicious:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_discs) -> Path:
    """A folder with data and runs, good and bad."""
    folder = tmp_path_factory.mktemp("place")
    small = {"training": 4, "validation": 2, "test": 2}
    make_discs(folder / "discs.h5", sizes=small)
    make_discs(folder / "large.h5", size=64, sizes=small)
    make_discs(folder / "five.h5", actions=5, sizes=small)
    make_discs(folder / "three.h5", actions=3, sizes=small)
    make_discs(folder / "short.h5", frames=3, sizes=small)
    make_discs(folder / "odd.h5", size=20, sizes=small)
    make_discs(folder / "only_training.h5", sizes={"training": 4})
    make_discs(folder / "bare.h5", sizes=small, drop=("groups", "collisions"))
    of_poles = DatasetAttributes("CartPole-v1", {"recipe": {"id": "CartPole-v1"}})
    discs = {split: moving_discs(4, 8, 32, 0, None) for split in small}
    write_shard(folder / "poles.h5", discs, of_poles)
    content = (folder / "discs.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(content[: len(content) // 2])
    (folder / "text.h5").write_text("no data")
    (folder / "empty").mkdir()
    (folder / "file").write_text("a regular file")
    for name, text in {
        "unknown.yaml": "training: {epoch: 3}",
        "wrong.yaml": "training: {batch_size: many}",
        "wrong.json": '{"model": {"slots": 2.5}}',
        "wrong_data.yaml": "data: 5",
        "data.yaml": "data: discs.h5",
        "size.yaml": "model: {architecture: conv, size: [20, 20]}",
        "list.yaml": "[1, 2]",
        "broken.yaml": "training: {epochs: [",
        "broken.json": "{",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    before = Path.cwd()
    os.chdir(folder)
    try:
        for arguments in (
            f"{TRAIN} --out run",
            f"{TRAIN} --out lstm --model lstm --slots 1",
            f"{TRAIN} --out acting --data five.h5 --feed-actions",
        ):
            group(arguments.split(), standalone_mode=False)
    finally:
        os.chdir(before)

    def damaged(name: str) -> Path:
        shutil.copytree(folder / "run", folder / name)
        (latest,) = (entry for entry in checkpoint.updates_of(folder / name) if entry.name.endswith("1"))
        return latest

    lstm = checkpoint.updates_of(folder / "lstm")[-1]
    shutil.copy(lstm / "model.safetensors", damaged("swapped") / "model.safetensors")
    torch.save({"weights": Malicious(folder / "mark")}, damaged("pickled") / "model.safetensors")
    torch.save({"optimizer": Malicious(folder / "mark")}, damaged("malicious") / "trainer.pt")
    latest = damaged("cut")
    for file in ("model.safetensors", "trainer.pt"):
        (latest / file).write_bytes((latest / file).read_bytes()[:1000])
    (damaged("misconfigured") / "config.json").write_text("{")
    damaged("best").parents[1].joinpath("best.json").write_text("{")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "config.json").write_text('{"mine": true}')
    return folder


@pytest.fixture
def refused(place, monkeypatch, rnem, listing):
    """Runs a command that must be refused, and returns its one line."""
    monkeypatch.chdir(place)

    def run(arguments: str) -> str:
        before = listing(place)
        outcome = rnem(*arguments.split())
        assert outcome.code == 2, outcome
        assert not any(word in outcome.err for word in FORBIDDEN), outcome.err
        assert listing(place) == before
        assert not (place / "mark").exists()
        return outcome.err

    return run


CASES = {
    # data
    "truncated data": ("train --data truncated.h5 --out x", ["truncated.h5", "truncated", "copy it again"]),
    "truncated data, evaluated": ("evaluate run --data truncated.h5", ["truncated.h5", "truncated"]),
    "no HDF5 file": ("train --data text.h5 --out x", ["text.h5", "not an HDF5 file", "data import"]),
    "no file": ("train --data dics.h5 --out x", ["dics.h5", "known:"]),
    "no file below a file": ("evaluate run --data file/x.h5", ["file/x.h5"]),
    "a folder without shards": ("train --data empty --out x", ["empty"]),
    "data checked": ("data check truncated.h5", ["truncated.h5", "truncated"]),
    "no validation split": (f"{TRAIN} --data only_training.h5 --out x", ["only_training.h5", "'validation'"]),
    "no test split": (
        "evaluate run --data only_training.h5",
        ["only_training.h5", "'test'", "known: training"],
    ),
    "no collisions": (
        f"{TRAIN} --data bare.h5 --relational-loss collisions --out x",
        ["bare.h5", "'collisions'", "known: features"],
    ),
    "short sequences": (f"{TRAIN} --data short.h5 --out x", ["short.h5", "4 frames", "have 3"]),
    "a large batch": (f"{TRAIN} --batch-size 9 --out x", ["9 sequences", "the 4", "--batch-size"]),
    "another architecture": (
        f"{TRAIN} --data odd.h5 --architecture conv32 --out x",
        ["20x20", "32x32", "--architecture"],
    ),
    "unknown preset": ("train --preset stov --out x", ["stov", "did you mean 'stove'"]),
    "unknown environment, collected": ("collect --env atai", ["atai", "did you mean 'atari'"]),
    "a typing error in an id without a version, collected": (
        "collect --env CartPol",
        ["'CartPol'", "did you mean 'CartPole-v1'"],
    ),
    "a typing error in an id without a version, trained on": (
        "train --env CartPol",
        ["'CartPol'", "did you mean 'CartPole-v1'"],
    ),
    # An id of a user's own that resembles a name of ours is looked for among Gymnasium's.
    **{
        f"an id like a name of ours: {command} {name}": (f"{command} --env {name}", [name, words])
        for command in ("train", "collect")
        for name, words in (
            ("Balls-v0", "MODULE:ID"),
            ("my/balls", "MODULE:ID"),
            ("atari:Ball", "PYTHONPATH"),
        )
    },
    "unknown id, collected": ("collect --env CartPol-v1", ["CartPol-v1", "did you mean 'CartPole-v1'"]),
    "unknown id, trained on": ("train --env CartPol-v1 --world-model", ["did you mean 'CartPole-v1'"]),
    "no environment in particular": ("train --env any --world-model", ["--env any", "give --data"]),
    "frames of balls": ("collect --env balls --size 48", ["--size", "other environments"]),
    "balls' preset for others": ("train --env CartPole-v1 --preset stove", ["--preset names balls"]),
    "a game's rewards for others": (
        "collect --env CartPole-v1 --reward raw",
        ["--reward is for --env atari"],
    ),
    "frames of data that is there": ("train --env CartPole-v1 --size 48 --data x.h5", ["--size", "--data"]),
    # What is collected, beside data that is there: named by a flag, or by a file of options.
    **{
        f"{flag} beside {name}": (f"train {chosen} {flag} {given} --out x", [flag.split()[0], *parts])
        for chosen, flag in (
            ("", "--preset avoid"),
            ("--env atari", "--game Pong"),
            ("--env CartPole-v1", "--size 48"),
            ("--env CartPole-v1", "--policy random"),
            ("--env CartPole-v1", "--env-option a=1"),
        )
        for name, given, parts in (
            ("data", "--data discs.h5", ["--data was given", "leave one out"]),
            ("a file's data", "--config data.yaml", ["data.yaml says data: discs.h5", "out of the file"]),
        )
    },
    "data of another environment": (
        "train --env Rev/Nowhere-v0 --data poles.h5 --out x",
        ["--env Rev/Nowhere-v0", "poles.h5 was collected from CartPole-v1", "--env CartPole-v1"],
    ),
    "unknown preset, collected": ("collect --preset stov", ["stov", "did you mean 'stove'"]),
    "unknown preset, evaluated": ("evaluate run --data stov", ["stov", "did you mean 'stove'"]),
    # data and model
    "other frames, evaluated": ("evaluate run --data large.h5", ["64x64", "32x32", "conv32", "choose"]),
    "other frames, imagined": ("rollout run --data large.h5", ["64x64", "32x32", "conv32", "choose"]),
    "other frames, trained": (f"{TRAIN} --data large.h5 --architecture conv32 --out x", ["64x64", "32x32"]),
    "other frames, resumed": ("train --resume --out run --data large.h5 --max-updates 2", ["64x64", "32x32"]),
    "no actions": ("evaluate acting --data discs.h5", ["no actions", "made for 5"]),
    "other actions": ("evaluate acting --data three.h5", ["3 actions", "made for 5", "--feed-actions"]),
    "other actions, imagined": ("rollout acting --data three.h5", ["3 actions", "made for 5"]),
    "no actions to feed": (f"{TRAIN} --feed-actions --out x", ["--feed-actions", "discs.h5", "no actions"]),
    # options
    "one slot": (f"{TRAIN} --slots 1 --out x", ["at least 2 slots", "given 1", "--slots 2", "rnn or lstm"]),
    "one slot, no data": ("train --slots 1 --out x", ["at least 2 slots"]),
    "one slot, evaluated": ("evaluate run --slots 1", ["at least 2 slots", "given 1"]),
    "one slot, imagined": ("rollout run --slots 1 --steps 2", ["at least 2 slots", "given 1"]),
    "no slot": (f"{TRAIN} --slots 0 --out x", ["0", "at least 1"]),
    "unknown model": (f"{TRAIN} --model rnem --out x", ["'rnem'", "did you mean 'r_nem'"]),
    "another size in a file": (
        f"{TRAIN} --config size.yaml --out x",
        ["size is 20x20", "discs.h5 are 32x32", "leave it out"],
    ),
    "unknown architecture": (f"{TRAIN} --architecture conv3 --out x", ["'conv3'", "did you mean 'conv32'"]),
    "unknown architecture, no data": ("train --architecture conv3 --out x", ["did you mean 'conv32'"]),
    "unknown environment": (f"{TRAIN} --env ball --out x", ["'ball'", "did you mean 'balls'"]),
    "unknown optimizer": (f"{TRAIN} --optimizer adm --out x", ["'adm'", "did you mean 'adam'"]),
    "unknown noise": (f"{TRAIN} --noise flip --out x", ["'flip'", "bitflip"]),
    "a window": (f"{TRAIN} --window begin --out x", ["'begin'", "random, start"]),
    "no learning rate": (f"{TRAIN} --learning-rate -1 --out x", ["learning_rate is -1.0", "above 0"]),
    "schedule without an end": (
        f"{TRAIN} --learning-rate-schedule cosine --out x",
        ["needs schedule_updates (--schedule-updates)"],
    ),
    "end without a schedule": (
        f"{TRAIN} --schedule-updates 9 --out x",
        ["--schedule-updates was given", "--learning-rate-schedule cosine"],
    ),
    "not a number": (f"{TRAIN} --learning-rate nan --out x", ["learning_rate is nan"]),
    "too much noise": (
        f"{TRAIN} --noise-probability 2 --out x",
        ["probability is 2.0", "training.noise: probability", "0 to 1"],
    ),
    "too much noise, evaluated": ("evaluate run --noise-probability 2", ["probability is 2.0", "[0, 1]"]),
    "too much noise, imagined": ("rollout run --steps 2 --noise-probability 2", ["probability is 2.0"]),
    "few weights": (f"{TRAIN} --step-weights 1,2 --out x", ["2 numbers", "3 steps"]),
    "no last steps": (f"{TRAIN} --last-steps 0 --out x", ["last_steps is 0", "at least 1"]),
    "no device": (f"{TRAIN} --device gpu --out x", ["'gpu'", "--device cpu"]),
    "no thread": (f"{TRAIN} --threads 0 --out x", ["--threads is 0"]),
    "unknown option in a file": (f"{TRAIN} --config unknown.yaml --out x", ["'training.epoch'", "'epochs'"]),
    "wrong value in a file": ("train --config wrong.yaml --out x", ["training.batch_size is 'many'", "int"]),
    "wrong number in a file": ("train --config wrong.json --out x", ["model.slots is 2.5", "int"]),
    "wrong data in a file": ("train --config wrong_data.yaml --out x", ["data is 5", "str"]),
    "a list in a file": ("train --config list.yaml --out x", ["list.yaml", "mapping"]),
    "a broken YAML file": ("train --config broken.yaml --out x", ["broken.yaml", "no valid .yaml"]),
    "a broken JSON file": ("train --config broken.json --out x", ["broken.json", "no valid .json"]),
    "a binary options file": ("train --config binary.yaml --out x", ["binary.yaml"]),
    "no options file": ("train --config nothing.yaml --out x", ["nothing.yaml", "No such file"]),
    "no starting point": (f"{TRAIN} --start-from nothing --out x", ["nothing", "no checkpoint"]),
    "another starting point": (f"{TRAIN} --start-from lstm --out x", ["another model"]),
    # checkpoints
    "no run": ("evaluate nothing", ["nothing", "give a run folder"]),
    "a folder without a run": ("rollout empty", ["empty", "holds no checkpoint"]),
    "a file for a run": ("evaluate file", ["file", "holds no checkpoint"]),
    "another model's weights": ("evaluate swapped", ["model.safetensors", "another model", "'core"]),
    "another model's weights, imagined": ("rollout swapped", ["model.safetensors", "another model"]),
    "another model's weights, resumed": ("train --resume --out swapped", ["another model"]),
    "a pickle for weights": ("evaluate pickled", ["model.safetensors", "never loaded"]),
    "a pickle for weights, resumed": ("train --resume --out pickled", ["model.safetensors", "never loaded"]),
    "a pickle for the training state": ("train --resume --out malicious", ["trainer.pt", "never loaded"]),
    "truncated weights": ("evaluate cut", ["model.safetensors", "not a whole safetensors file"]),
    "a truncated training state": ("train --resume --out cut", ["trainer.pt", "older checkpoint"]),
    "a broken configuration": ("evaluate misconfigured", ["config.json", "no JSON"]),
    "a broken best.json": ("evaluate best", ["best.json is broken"]),
    # runs
    "a run in use": (f"{TRAIN} --out run", ["run already holds a run", "--resume", "--out"]),
    "somebody's own folder": (f"{TRAIN} --out foreign", ["config.json", "another folder"]),
    "nothing to resume": ("train --resume --out nothing", ["nothing holds no run", "without --resume"]),
    "resume what": ("train --resume", ["--resume needs --out"]),
    "a new model when resuming": ("train --resume --out run --model lstm", ["leave out", "--start-from"]),
    "new slots when resuming": ("train --resume --out run --slots 0", ["leave out"]),
    "a new architecture when resuming": ("train --resume --out run --architecture conv64", ["leave out"]),
    "new steps when resuming": ("train --resume --out run --steps 4", ["leave out"]),
    "actions when resuming": ("train --resume --out run --feed-actions", ["leave out"]),
    "a file when resuming": ("train --resume --out run --config wrong.yaml", ["leave out"]),
    **{
        f"{given} when resuming": (f"train --resume --out run {given}", ["leave out"])
        for given in ("--env CartPole-v1", "--env balls", "--preset avoid", "--env atari --game Pong")
    },
    "a start when resuming": ("train --resume --out run --start-from lstm", ["leave out"]),
    # rollouts
    "a long context": ("rollout run --context 6 --steps 2", ["context of 6", "9 frames", "have 8", "fewer"]),
    "many steps": ("rollout run --steps 20", ["20 imagined frames", "have 8", "fewer"]),
    "no context": ("rollout run --context 0 --steps 2", ["context of 0", "at least 1"]),
    "no such sequence": ("rollout run --sequence 7 --steps 2", ["[7]", "0 to 1"]),
    "no such sequence, negative": ("rollout run --sequence -1 --steps 2", ["[-1]", "0 to 1"]),
    "a video's suffix": ("rollout run --steps 2 --out x.avi", ["x.avi", ".mp4, .gif, .webp"]),
    "figures over data": ("evaluate run --out data/a.h5", ["a.h5", ".json"]),
    "losses over data": ("rollout run --steps 2 --out x.gif --json data/a.h5", ["a.h5", ".json"]),
    "speeds over data": ("env bench balls --out data/a.h5", ["a.h5", ".json"]),
    "a figure's suffix": ("rollout run --steps 2 --out x.gif --figure x.bmp", ["x.bmp", ".png, .pdf, .svg"]),
    "an evaluation's figure": ("evaluate run --figure x.bmp", ["x.bmp", ".png, .pdf, .svg"]),
    "no speed": ("rollout run --steps 2 --fps 0 --out x.gif", ["fps=0", "above 0"]),
    "steps in an evaluation": ("evaluate run --steps 20", ["21 frames", "have 8"]),
    # Each measure refuses what it has no use for.
    **{
        f"{option.split()[0]} beside {measure or 'none'}": (
            f"evaluate run {measure} {option}",
            [option.split()[0], *([measure.split()[0], "leave one out"] if measure else ["give that too"])],
        )
        for measure, options in {
            "": ("--context 7", "--players random", "--trust-policy"),
            "--imagine 2": ("--steps 3", "--ami-sequences 100", "--players random", "--trust-policy"),
            "--obedience 3": (
                *(
                    "--data nonexistent.h5",
                    "--split test",
                    "--slots 99",
                    "--steps 3",
                    "--noise-probability 0",
                ),
                *("--ami-sequences 1", "--imagine 2", "--batch-size 32", "--figure x.png"),
            ),
        }.items()
        for option in options
    },
    # seeds
    **{
        f"a negative seed: {command}": (f"{command} --seed -1", ["seed is -1", "at least 0"])
        for command in (
            f"{TRAIN} --out x",
            "evaluate run",
            "evaluate run --imagine 2 --context 2",
            "rollout run --steps 2",
            "env record --steps 2 --out x.gif",
            "collect --preset stove --num-train 2 --out x.h5",
            "collect --env atari --num-train 2 --out x.h5",
            "data import discs.npy --out x.h5",
            "agent train --env RNEM-Balls-v0 --timesteps 8 --out x",
            "agent eval --agent mcts",
        )
    },
    # output
    "a run below a file": (f"{TRAIN} --out file/x", ["file/x", "Not a directory"]),
    "a run below /proc": (f"{TRAIN} --out /proc/x/y", ["/proc/x", "choose a folder"]),
    "an evaluation below a file": ("evaluate run --out file/x.json", ["file/x.json", "no folder"]),
    "an evaluation below /proc": ("evaluate run --out /proc/x.json", ["/proc/x.json"]),
    "an evaluation in place of a folder": ("evaluate run --out empty", ["empty", "it is a folder"]),
    "a video below a file": ("rollout run --steps 2 --out file/x.mp4", ["file/x.mp4", "no folder"]),
    "a figure below a file": ("rollout run --steps 2 --out x.gif --figure file/x.png", ["file/x.png"]),
    "losses below a file": ("rollout run --steps 2 --out x.gif --json file/x.json", ["file/x.json"]),
    "data below a file": ("collect --preset stove --num-train 2 --frames 3 --out file/x.h5", ["file/x.h5"]),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case, refused):
    arguments, parts = CASES[case]
    err = refused(arguments)
    assert err.startswith("rnem-world: error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err, err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("trian", "no command 'trian': did you mean 'train'"),
        ("train --epoch 3", "No such option"),
        ("train --epochs three", "'three' is not a valid integer"),
        ("train --save-epochs 1,b", "'1,b' is not a list such as 1,5,10"),
        ("train --step-weights a,b", "'a,b' is not a list"),
        ("evaluate", "Missing argument 'RUN'"),
        ("evaluate run --seed 1.5", "'1.5' is not a valid integer"),
        ("evaluate run --split tset", "'tset' is not one of"),
        ("rollout run --imagination hard", "'hard' is not one of"),
        ("rollout run --steps -1", "-1 is not in the range"),
    ],
)
def test_usage_errors_say_one_thing(arguments, part, refused):
    err = refused(arguments)
    assert err.startswith("Usage: ")
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert part in errors[0]
    assert err.splitlines()[-1] == errors[0]


def test_a_full_disk(refused, file_size_limit):
    for arguments in (
        f"{TRAIN} --out full",
        "rollout run --steps 2 --out full.mp4",
        "rollout run --steps 2 --out full.gif",
        "collect --preset stove --num-train 40 --num-valid 0 --num-test 0 --out full.h5",
    ):
        with file_size_limit(1000):
            err = refused(arguments)
        assert err.startswith("rnem-world: error: ")
        assert err.count("\n") == 1
        assert "full" in err


def test_a_full_disk_while_resuming_harms_no_checkpoint(
    place, tmp_path, rnem, monkeypatch, file_size_limit, listing
):
    monkeypatch.chdir(place)
    shutil.copytree("run", tmp_path / "run")
    checkpoints = tmp_path / "run" / checkpoint.CHECKPOINTS
    before = listing(checkpoints)
    with file_size_limit(10**6):
        outcome = rnem(*f"train --resume --out {tmp_path / 'run'} --threads 1 --max-updates 3".split())
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "can't write" in outcome.err
    assert listing(checkpoints) == before
    assert rnem("evaluate", tmp_path / "run", "--ami-sequences", 0).code == 0


def test_a_diverged_training_says_so(place, tmp_path, rnem, monkeypatch):
    monkeypatch.chdir(place)
    run = tmp_path / "run"
    outcome = rnem(
        *TRAIN.split(), "--max-updates", 9, "--learning-rate", 1e38, "--optimizer", "sgd", "--out", run
    )
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "at update 2 (epoch 2)" in outcome.err
    assert "lower --learning-rate" in outcome.err


def test_in_a_process_of_its_own(place, listing):
    """What only a process of its own shows: warnings, threads that fail, what is written when it ends."""
    before = listing(place)
    malicious = [sys.executable, "-m", "rnem_world.cli.main", *["train", "--resume", "--out", "malicious"]]
    full = f"ulimit -f 1; exec {sys.executable} -m rnem_world.cli.main {TRAIN} --out x"
    for command in (malicious, ["bash", "-c", full]):
        result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert result.returncode == 2, result
        assert result.stderr.startswith("rnem-world: error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert listing(place) == before


def test_a_full_disk_below_the_standard_output(place):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "rnem_world.cli.main", "data", "info", "discs.h5"]
        result = subprocess.run(
            command, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "No space left on device" in result.stderr


def test_the_original_is_fine(place, rnem, monkeypatch):
    """The good run of the cases above is good, so that each was refused for its own reason."""
    monkeypatch.chdir(place)
    outcome = rnem("evaluate", "run", "--ami-sequences", 0)
    assert outcome.code == 0, outcome
    assert json.loads(Path("run/evaluation-discs-2-slots.json").read_text())["evaluations"]
