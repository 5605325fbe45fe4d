"""The bash scripts: they parse, and every ``rnem-world`` line in them is one that the program accepts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from command_lines import parse

from rnem_world.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "scripts" / "experiments"
BASH = sorted(
    path
    for folder in ("scripts", "scripts/experiments", ".ci")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and (path.name == "common" or path.read_text().startswith("#!/usr/bin/env bash"))
)
MODELS = {
    "r_nem": ("r_nem", 5),
    "r_nem_k8": ("r_nem", 8),
    "r_nem_no_attention": ("r_nem_no_attention", 5),
    "rnn_em": ("rnn_em", 5),
    "rnn": ("rnn", 1),
    "lstm": ("lstm", 1),
}
# Stands in for rnem-world: notes its arguments, and leaves what the scripts look for.
STUB = """
import json, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
out = pathlib.Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None
if arguments[0] == "collect":
    out.parent.mkdir(parents=True, exist_ok=True)
    out.touch()
if arguments[0] == "train":
    (out / "checkpoints" / "update-000000001").mkdir(parents=True, exist_ok=True)
"""


class Experiment:
    """Runs experiments with a stub for the program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.stub = folder / "work", folder / "log", folder / "rnem-world"
        code = STUB.format(log=str(self.log))
        self.stub.write_text(f"#!{sys.executable}\n{code}")
        self.stub.chmod(0o755)

    def run(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        settings = {"RNEM_WORLD": str(self.stub), "FOLDER": str(self.folder), **variables}
        return subprocess.run(
            [EXPERIMENTS / name, *arguments],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, *arguments: str, **variables: str) -> list[tuple[str, dict[str, Any]]]:
        """The commands that an experiment gives, each parsed by the program itself."""
        self.log.write_text("")
        result = self.run(*arguments, **variables)
        assert result.returncode == 0, result.stderr
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line[0], parse(line)) for line in lines]


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return Experiment(tmp_path)


@pytest.mark.parametrize("path", BASH, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_bash_can_read_it_and_it_may_be_run(path):
    result = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert os.access(path, os.X_OK) == (path.name != "common")


def test_every_experiment_is_tested():
    others = {"atari", "common", "curtain", "distributed", "end_to_end", "world_options"}
    assert {path.name for path in EXPERIMENTS.iterdir()} == {*MODELS, *others}


def test_environments_of_every_kind_are_known_by_name(tmp_path):
    """What it does with one is tested in tests/benchmarks/test_end_to_end.py."""
    result = subprocess.run(
        [EXPERIMENTS / "end_to_end", tmp_path, "Cartpole"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "did you mean 'CartPole'" in result.stderr


def demo(folder: Path, program: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {"RNEM_WORLD": str(program), "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [ROOT / "scripts" / "demo", folder],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_goes_from_a_real_environment_to_its_dream(tmp_path):
    """The whole way, with so little data and training that it takes seconds."""
    program = tmp_path / "rnem-world"
    program.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} -m rnem_world.cli.main "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "demo"
    little = {"UPDATES": "8", "STEPS_OF_DATA": "4000", "EPISODES": "1"}
    result = demo(folder, program, **little)
    assert result.returncode == 0, result.stderr
    agents = {score["name"] for score in json.loads((folder / "scores.json").read_text())["scores"]}
    assert {"random", "stay"} < agents
    assert any(name.startswith("shooting") for name in agents)
    told = set(re.findall(r"(?<![\w/-])[\w-]+\.(?:mp4|json|py|yaml)\b", result.stdout.split("== ")[-1]))
    assert {"beside-reality.mp4", "scores.json", "tag.py", "tag.yaml"} == told
    assert all((folder / name).is_file() for name in told)
    line = re.search(r"python -c '(.*)'", result.stdout)
    assert line is not None
    inside = subprocess.run(
        [sys.executable, "-c", line[1]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert inside.stdout == "(12, 12, 1)\n", inside.stderr
    play = re.search(r"rnem-world (play \S+)", result.stdout)
    assert play is not None
    assert parse(shlex.split(play[1])) != {}
    again = demo(folder, program, **little)
    assert again.returncode == 2
    assert "already exists" in again.stderr


def test_the_demo_is_of_usual_length_unless_told(experiment):
    result = demo(experiment.folder, experiment.stub)
    assert result.returncode == 0, result.stderr
    calls = [parse(json.loads(line)) for line in experiment.log.read_text().splitlines()]
    assert (calls[0]["environment"], calls[0]["max_updates"]) == ("tag:Tag-v0", 800)
    assert [call.get("checkpoint") for call in calls[2:]] == ["runs/world-Tag-v0"] * 2


@pytest.mark.parametrize("name", MODELS)
def test_an_experiment_trains_evaluates_and_imagines(experiment, name):
    model, slots = MODELS[name]
    calls = experiment.calls(name)
    run = str(experiment.folder / "runs" / f"{name}-balls4mass64")
    assert [call for call, _ in calls] == ["collect", "train", "evaluate", "collect", "evaluate", "rollout"]
    (_, collect), (_, train), (_, four), (_, more), (_, eight), (_, rollout) = calls
    assert (collect["preset"], more["preset"]) == ("balls4mass64", "balls678mass64")
    assert [collect[f"num_{split}"] for split in ("train", "valid", "test")] == [50_000, 10_000, 10_000]
    assert (train["model_name"], train["slots"], str(train["out"])) == (model, slots, run)
    assert train["data"] == str(collect["out"]) == four["data"] == rollout["data"]
    assert four["slots"] is None
    assert (eight["data"], eight["slots"]) == (str(more["out"]), 8 if slots > 1 else 1)
    assert {four["run"], eight["run"], rollout["run"]} == {run}


def test_flags_go_to_training_and_a_dataset_may_come_first(experiment):
    calls = dict(experiment.calls("rnn", "balls3curtain64", "--max-updates", "5", SEQUENCES="100"))
    assert list(calls) == ["collect", "train", "evaluate", "rollout"]
    assert calls["collect"]["preset"] == "balls3curtain64"
    assert (calls["collect"]["num_train"], calls["collect"]["num_test"]) == (100, 20)
    assert calls["train"]["max_updates"] == 5


def test_the_second_time_it_goes_on(experiment):
    experiment.calls("lstm")
    calls = experiment.calls("lstm", "--epochs", "3")
    assert [call for call, _ in calls] == ["train", "evaluate", "evaluate", "rollout"]
    assert calls[0][1]["resume"]
    assert calls[0][1]["epochs"] == 3


def test_curtain_runs_every_model(experiment):
    calls = experiment.calls("curtain", "--max-updates", "5")
    trained = [parameters for call, parameters in calls if call == "train"]
    assert [(run["model_name"], run["slots"]) for run in trained] == list(MODELS.values())
    assert len({run["out"] for run in trained}) == len(MODELS)
    assert {run["max_updates"] for run in trained} == {5}
    assert [parameters["preset"] for call, parameters in calls if call == "collect"] == ["balls3curtain64"]


def test_atari_trains_with_actions_and_goes_on(experiment):
    calls = experiment.calls("atari", "Pong", "--max-updates", "5", SEQUENCES="100")
    assert [call for call, _ in calls] == ["collect", "train", "evaluate", "evaluate", "rollout"]
    (_, collect), (_, train), (_, one), (_, dreams), (_, rollout) = calls
    assert (collect["environment"], collect["game"], collect["num_train"]) == ("atari", "Pong", 100)
    assert (train["environment"], train["feed_actions"], train["max_updates"]) == ("atari", True, 5)
    assert train["data"] == str(collect["out"]) == one["data"] == dreams["data"] == rollout["data"]
    assert dreams["imagine"] == 25
    again = experiment.calls("atari", "Pong")
    assert [call for call, _ in again] == ["train", "evaluate", "evaluate", "rollout"]
    assert again[0][1]["resume"]


def test_world_options_change_what_they_say(experiment):
    from rnem_world.config import build, merged, read_options_file
    from rnem_world.training.config import RunConfig
    from rnem_world.training.presets import WORLD_MODEL

    calls = experiment.calls("world_options", UPDATES="10", SEEDS="0 2")
    trained = [parameters for call, parameters in calls if call == "train"]
    assert [call for call, _ in calls] == ["collect", *["train", "evaluate"] * 22]
    assert {(run["world_model"], run["max_updates"]) for run in trained} == {(True, 10)}
    configs = {
        Path(run["out"]).name: build(RunConfig, merged(WORLD_MODEL, read_options_file(run["options_file"])))
        for run in trained
    }
    assert len(set(configs.values())) == 22
    whole = configs["options-all-2"]
    assert (whole.training.seed, whole.training.optimizer.schedule_updates) == (2, 10)
    assert configs["options-error-only-0"].model.slot_inputs == "error"
    assert configs["options-no-clipping-0"].training.optimizer.clip_factor is None
    assert configs["options-no-closed-loop-0"].training.closed_loop.fraction == 0.0
    assert replace(configs["options-all-0"].training, seed=2) == whole.training
    calls = experiment.calls(
        "world_options", "all", "convolutions", "--", "--threads", "1", UPDATES="10", SEEDS="1"
    )
    assert [call for call, _ in calls] == ["train", "evaluate"] * 2
    result = experiment.run("world_options", "al")
    assert result.returncode == 2
    assert "all" in result.stderr


def test_another_dataset_is_refused_before_anything_happens(experiment):
    result = experiment.run("rnn", "balls4mas64")
    assert result.returncode == 2
    assert "balls4mas64" in result.stderr
    assert not experiment.log.exists()


@pytest.mark.parametrize(
    "line",
    [
        "train --modell r_nem",
        "train --model r_nemm",
        "train --slots five",
        "train --slots 1",
        "train --noise blur",
        "train --data balls4",
        "collect --preset ball",
        "evaluate",
        "data information x.h5",
    ],
)
def test_a_wrong_line_is_noticed(line):
    with pytest.raises((click.ClickException, ConfigError)):
        parse(line.split())


def test_the_check_of_a_graphics_card_runs_on_the_processor(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "scripts" / "gpu_check", "--device", "cpu", "--seconds", "200"]
    parts = [
        "tests",
        "training",
        "environments",
        "planners",
        "paper",
    ]  # compiling takes minutes on the processor
    command += ["--tests", "put_back or host_waits", "--out", out, "--parts", *parts]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((out / "results.json").read_text())["parts"]
    assert list(found) == parts
    assert {part["end"] for part in found.values()} == {"exit 0"}
    assert (found["tests"]["passed"], found["tests"]["failed"]) == (3, 0)
    for name in parts[1:]:
        assert found[name]["rows"]
        assert not any("error" in row or "not measured" in row for row in found[name]["rows"])
    assert found["paper"]["rows"][0]["updates"] == 2
    assert (out / "paper" / "model.safetensors").stat().st_size < 15 * 2**20
    assert "validation_loss" in (out / "results.txt").read_text()


def test_the_check_of_a_graphics_card_says_what_is_missing(tmp_path):
    script = ROOT / "scripts" / "gpu_check"
    command = [
        sys.executable,
        "-S",
        script,
        "--device",
        "cpu",
        "--wheels",
        tmp_path,
        "--out",
        tmp_path / "out",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "gymnasium" in result.stderr
    assert f"{tmp_path} has no wheels of them" in result.stderr
