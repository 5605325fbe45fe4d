"""From nothing to a video, with every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from rnem_world.cli.main import COMMANDS, group
from rnem_world.models.config import FAMILIES, MODELS
from rnem_world.training import checkpoint
from rnem_world.training.logging import read_log

TINY = "--hidden-size 16 --steps 3 --batch-size 4 --threads 1"
SIZES = "--num-train 8 --num-valid 4 --num-test 4 --frames 8"
HEAVY = ("torch", "matplotlib", "sklearn", "h5py", "imageio", "tensorboard")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data that was collected and a model that was trained."""
    folder = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for command in (
            f"collect --preset balls3small32 {SIZES}",
            f"collect --preset stove {SIZES}",
            f"train --data data/balls3small32.h5 --slots 3 {TINY} --epochs 1 --out run",
            f"train --data data/stove.h5 --slots 2 {TINY} --epochs 1 --feed-actions --out acting",
        ):
            group(command.split(), standalone_mode=False)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def good(place, monkeypatch, rnem):
    """Runs a command that must succeed, silent on the standard error, and returns what it says."""
    monkeypatch.chdir(place)

    def run(arguments: str) -> str:
        outcome = rnem(*arguments.split())
        assert outcome.code == 0, outcome
        assert outcome.err == ""
        return outcome.out

    return run


def test_a_look_into_the_data(good):
    assert json.loads(good("data info data/stove.h5 --json"))["attributes"]["number_of_actions"] == 9
    assert "is fine: training 8, validation 4, test 4" in good("data check data/balls3small32.h5")


def test_a_run_folder_has_everything(place):
    run = place / "run"
    assert {"best.json", "checkpoints", "config.json", "log.jsonl", "tensorboard"} <= {
        path.name for path in run.iterdir()
    }
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "epoch-0001",
        "update-000000000",
        "update-000000002",
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["slots"] == 3
    assert config["model"]["architecture"] == "conv32"
    assert config["environment"] == "RNEM-BallsReal-v0"
    assert [entry["kind"] for entry in read_log(run)] == ["training", "epoch", "validation"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_resumes_and_is_evaluated(model, good, place):
    out = good(f"train --model {model} --data data/balls3small32.h5 {TINY} --max-updates 2")
    run = place / "runs" / f"{model}-balls3small32"
    core, slots = MODELS[model]
    assert f"training {core} " in out
    assert checkpoint.read_config(run).model.slots == slots
    out = good(f"train --resume --out {run} --threads 1 --max-updates 3 --learning-rate 1e-4")
    assert "resumed after update 2" in out
    assert checkpoint.read_config(run).training.optimizer.learning_rate == 1e-4
    assert checkpoint.load_trainer(checkpoint.updates_of(run)[-1])["progress"]["updates"] == 3
    out = good(f"evaluate {run} --slots 4 --noise-probability 0 --ami-sequences 1 --threads 1")
    assert "4 sequences, 3 steps, 4 slots" in out
    assert f"written to {run / 'evaluation-balls3small32-4-slots.json'}" in out


def test_a_learning_rate_that_falls_to_the_end_falls_to_a_new_end(good, place):
    falling = "--learning-rate-schedule cosine --schedule-updates"
    good(f"train --data data/balls3small32.h5 {TINY} --max-updates 2 {falling} 2 --out falling")
    good("train --resume --out falling --threads 1 --max-updates 4")
    assert checkpoint.read_config(place / "falling").training.optimizer.schedule_updates == 4
    good("train --resume --out falling --threads 1 --max-updates 5 --schedule-updates 6")
    assert checkpoint.read_config(place / "falling").training.optimizer.schedule_updates == 6
    good("train --resume --out falling --threads 1 --max-updates 6 --schedule-updates 9")
    good("train --resume --out falling --threads 1 --max-updates 7")
    assert checkpoint.read_config(place / "falling").training.optimizer.schedule_updates == 9


def test_an_evaluation(good, place):
    out = good(
        "evaluate run --split validation --steps 4 --seed 3 --out new/e.json --figure new/e.png --threads 1"
    )
    assert "drawn to new/e.png" in out
    content = json.loads((place / "new" / "e.json").read_text())
    assert {key: content[key] for key in ("run", "data", "split", "seed")} == {
        "run": str(place / "run"),
        "data": str(place / "data" / "balls3small32.h5"),
        "split": "validation",
        "seed": 3,
    }
    noisy, clean = content["evaluations"]
    assert (noisy["noise"], clean["noise"]) == (0.2, 0.0)
    assert clean["losses"].keys() == {"loss", "upper_bound", "relational", "relational_upper_bound"}
    assert clean["losses"]["loss"].keys() == {
        f"{last}{term}" for last in ("", "last_") for term in ("total", "intra", "inter")
    }
    assert {"ari", "last_ari", "confidence", "ami", "fg_ari", "miou", "plain_bce"} <= clean["scores"].keys()
    assert {name: len(curve) for name, curve in clean["curves"].items()}["plain_bce"] == 4
    # The table says the same.
    for entry in (noisy, clean):
        for name in ("loss", "upper_bound"):
            assert f"{entry['losses'][name]['total']:.1f}" in out
        assert f"{entry['scores']['fg_ari']:.3f}" in out
    good("evaluate run --split validation --steps 4 --seed 3 --out new/f.json --threads 1")
    again = json.loads((place / "new" / "f.json").read_text())
    assert again["evaluations"][0]["curves"].keys() == noisy["curves"].keys()
    for name, curve in noisy["curves"].items():  # sums in another order may differ in the last digit
        assert again["evaluations"][0]["curves"][name] == pytest.approx(curve, rel=1e-5)


@pytest.mark.parametrize(
    ("suffix", "imagination", "slots"),
    [("mp4", "soft", ""), ("gif", "pixels", ""), ("webp", "soft", "--slots 5"), ("png", "pixels", "")],
)
def test_rollouts(suffix, imagination, slots, good, place):
    name = f"{suffix}-{imagination}.{suffix}"
    out = good(
        f"rollout run --context 3 --steps 4 --sequence 1 --sequence 0 --imagination {imagination} --with-slots {slots} "
        f"--figure o-{suffix}.png --out {name} --threads 1"
    )
    assert f"video of 3 context and 4 imagined frames: {name}" in out
    content = json.loads((place / name).with_suffix(".json").read_text())
    assert (content["context"], content["imagination"], content["sequences"]) == (3, imagination, [1, 0])
    for curve in ("loss", "upper_bound", "plain_bce"):
        assert len(content[curve]) == 7
        assert np.isfinite(content[curve]).all()
    film = np.stack(list(imageio.imiter(place / name)))
    assert film.std() > 0
    assert 2 <= len(film) <= 7 or suffix == "png"  # equal neighbours may be merged
    assert imageio.imread(place / f"o-{suffix}.png").std() > 0


def test_a_rollout_has_defaults(good, place):
    good("rollout run --steps 2 --threads 1")
    assert (place / "run" / "rollout.mp4").is_file()
    content = json.loads((place / "run" / "rollout.json").read_text())
    assert (content["context"], content["sequences"]) == (3, [0, 1, 2])


def test_a_model_that_is_told_the_actions(good, place):
    assert checkpoint.read_config(place / "acting").model.number_of_actions == 9
    good("evaluate acting --noise-probability 0 --ami-sequences 0 --threads 1")
    good("rollout acting --steps 2 --out acting.gif --threads 1")
    good("train --resume --out acting --max-updates 4 --epochs 9 --threads 1")
    good(
        f"train --config acting/config.json --threads 1 --max-updates 1 --start-from acting --out again {TINY}"
    )
    assert checkpoint.read_config(place / "again").model == checkpoint.read_config(place / "acting").model


def test_flags_win_over_the_file_and_the_file_over_the_defaults(good, place):
    (place / "options.yaml").write_text(
        "model: {core: lstm, slots: 2, hidden_size: 12}\n"
        "training: {sequence_steps: 2, batch_size: 2, max_updates: 1, noise: {probability: 0.1},"
        " optimizer: {learning_rate: 1e-4}}\n"
        f"data: {place / 'data' / 'balls3small32.h5'}\n"
    )
    good("train --config options.yaml --threads 1 --hidden-size 8 --clip-norm 1 --out filed")
    config = checkpoint.read_config(place / "filed")
    assert (config.model.core, config.model.slots, config.model.hidden_size) == ("lstm", 2, 8)
    assert (config.training.sequence_steps, config.training.noise.probability) == (2, 0.1)
    assert (config.training.optimizer.learning_rate, config.training.optimizer.clip_norm) == (1e-4, 1.0)
    good("train --config options.yaml --threads 1 --model rnn --slots 1 --out flagged --data data/stove.h5")
    config = checkpoint.read_config(place / "flagged")
    assert (config.model.core, config.model.slots, config.data) == (
        "rnn",
        1,
        str(place / "data" / "stove.h5"),
    )


@pytest.mark.parametrize("size", [20, 32])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_family_of_architectures_takes_the_size_of_the_frames(architecture, size, good, place, make_discs):
    """Named by a flag or in a file; the run's own configuration, which holds the size, serves as such a file too."""
    make_discs(place / "discs.h5", size=size)
    Path("family.yaml").write_text(f"model: {{architecture: {architecture}, size: null}}")
    runs = [f"{architecture}-{size}-{origin}" for origin in ("flag", "file", "run")]
    data = "--data discs.h5"
    flags = (
        f"{data} --architecture {architecture}",
        f"{data} --config family.yaml",
        f"--config {runs[0]}/config.json",
    )
    for run, given in zip(runs, flags, strict=True):
        good(f"train {given} {TINY} --max-updates 1 --out {run}")
        model = checkpoint.read_config(place / run).model
        assert (model.architecture, model.size) == (architecture, (size, size))


def test_starting_from_a_checkpoint(good, place):
    good(
        f"train --data data/stove.h5 --slots 2 {TINY} --start-from run --max-updates 1 --learning-rate 1e-9 --out tuned"
    )
    start = checkpoint.read_weights(checkpoint.find_checkpoint(place / "run"))
    tuned = checkpoint.read_weights(checkpoint.find_checkpoint(place / "tuned"))
    assert all(float((tuned[name] - value).abs().max()) < 1e-7 for name, value in start.items())


def test_a_preset_without_data_is_collected_first(place, tmp_path, rnem, monkeypatch):
    from rnem_world.agents import collecting

    collected = []

    def small(environment, out, *, preset, workers):
        collected.append((environment, preset, out))
        return real(environment, out, preset=preset, num_train=4, num_valid=2, num_test=2, frames=5)

    real = collecting.collect
    monkeypatch.setattr(collecting, "collect", small)
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        outcome = rnem(*f"train --preset balls3small32 {TINY} --slots 2 --max-updates 1 --out {run}".split())
        assert outcome.code == 0, outcome
    assert collected == [("balls", "balls3small32", Path("data/balls3small32.h5"))]


@pytest.fixture(scope="module")
def helps() -> list[list[str]]:
    return [[], *([name] for name in COMMANDS), *(["data", name] for name in ("info", "check", "import"))]


def test_help_of_every_command_imports_nothing_heavy(helps):
    """One process for all: each adds its imports to those before."""
    code = (
        "import sys\n"
        "from rnem_world.cli.main import group\n"
        f"for words in {helps!r}:\n"
        "    try: group([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "HEAVY []"
    assert result.stdout.count("Usage: ") == len(helps)
    assert "--clip-norm" in result.stdout


def test_a_flag_tells_its_name_default_and_help_from_the_option_it_sets():
    from rnem_world.cli.train import FIXED, RESUMABLE

    flags = {flag.name: flag for flag in (*RESUMABLE, *FIXED)}
    assert len(flags) == len(RESUMABLE) + len(FIXED)
    assert flags["batch-size"].path == "training.batch_size"
    assert flags["batch-size"].help == "Sequences in an update, over all processes. [64]"
    assert flags["save-epochs"].help.endswith("[1,5,10,20,50,100]")
    assert flags["steps"].path == "training.sequence_steps"
    assert all(flag.help[0].isupper() for flag in flags.values())


def test_python_runs_the_package_too():
    command = [sys.executable, "-m", "rnem_world", "--version"]
    assert "rnem-world" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", [[], ["train"], ["rollout"]])
def test_help_is_quick(words):
    """CPU seconds of the whole process, the best of three."""
    seconds = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "rnem_world.cli.main", *words, "--help"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        seconds.append(usage.ru_utime + usage.ru_stime)
    assert min(seconds) < 0.4


def test_the_installed_command_tells_its_version():
    import rnem_world

    command = [str(Path(sys.executable).with_name("rnem-world")), "--version"]
    assert (
        rnem_world.__version__ in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
