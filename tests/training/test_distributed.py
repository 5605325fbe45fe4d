"""Two processes do what one does on the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from worlds_to_train import run_config

from rnem_world.data.dataset import Dataset
from rnem_world.device import choose_device
from rnem_world.distributed import ALONE, Processes, from_torchrun, process_group
from rnem_world.errors import ConfigError, ProcessError
from rnem_world.evaluation.one_step import EvaluationConfig, evaluate
from rnem_world.seeding import torch_generator
from rnem_world.training import checkpoint
from rnem_world.training.logging import LOG_FILE, read_log
from rnem_world.training.presets import make_loader
from rnem_world.training.trainer import Trainer

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Both(NamedTuple):
    """What two processes did.

    Attributes:
        data: Their dataset.
        folder: Where their runs are.
        found: What each of them found.
    """

    data: Path
    folder: Path
    found: list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Both:
    from rnem_world.agents.collecting import collect

    folder = tmp_path_factory.mktemp("both")
    data = collect(
        "balls",
        folder / "a.h5",
        preset="avoid",
        num_train=12,
        num_valid=6,
        num_test=2,
        frames=12,
        progress=False,
    )
    program = Path(__file__).with_name("two_processes.py")
    command = [*TORCHRUN, str(program), str(data), str(folder)]
    result = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return Both(data, folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)])


def one_process(both: Both, run: Path, resume: bool = False, **options: Any) -> Any:
    black = np.zeros((4, 4, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch, Dataset.open(both.data) as dataset:
        patch.setattr(Trainer, "overview", lambda trainer: black)
        config = run_config(**options)
        trainer = Trainer(config, dataset, run, torch.device("cpu"), lambda line: None, resume)
        trainer.fit()
    return trainer


def assert_same_log(one: Path, other: Path) -> None:
    """Losses, responsibilities' scores and validations agree up to rounding."""
    entries = [read_log(run) for run in (one, other)]
    assert [entry["update"] for entry in entries[0]] == [entry["update"] for entry in entries[1]]
    for first, second in zip(*entries, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() & {"loss", "heads", "prior_code", "steps"}:
            assert first[name] == pytest.approx(second[name], rel=2e-4, abs=2e-3), (first["update"], name)
        if "ari" in first:
            assert first["ari"] == pytest.approx(second["ari"], abs=0.02)
        if "losses" in first:
            assert first["losses"]["loss"] == pytest.approx(second["losses"]["loss"], rel=2e-4)


def assert_same_weights(one: Path, other: Path, exactly: bool) -> None:
    states = [checkpoint.read_weights(checkpoint.updates_of(run)[-1]) for run in (one, other)]
    for name, value in states[0].items():
        if exactly:
            assert torch.equal(value, states[1][name]), name
        else:
            torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-5)


def test_two_processes_train_as_one_does(both, tmp_path):
    trainer = one_process(both, tmp_path / "one", max_updates=9)
    assert_same_log(tmp_path / "one", both.folder / "two")
    assert_same_weights(tmp_path / "one", both.folder / "two", exactly=False)
    states = [
        checkpoint.load_trainer(checkpoint.updates_of(run)[-1])
        for run in (tmp_path / "one", both.folder / "two")
    ]
    assert states[0]["gradient_norm"] == pytest.approx(states[1]["gradient_norm"], rel=1e-3)
    updates, best_loss, sequences = both.found[0]["progress"]
    assert (updates, sequences) == (trainer.progress.updates, trainer.progress.sequences) == (9, 12)
    assert best_loss == pytest.approx(trainer.progress.best_loss, rel=2e-4)


def test_both_know_the_same_and_the_first_alone_reports(both):
    for name in ("validation", "progress", "evaluation", "signal"):
        assert both.found[0][name] == both.found[1][name], name
    assert (
        both.found[0]["reports"] == both.found[1]["reports"] > 0
    )  # what they would; the command line asks the first


def test_two_processes_resume_exactly(both):
    assert (both.folder / "two" / LOG_FILE).read_text() == (both.folder / "parts" / LOG_FILE).read_text()
    assert_same_weights(both.folder / "two", both.folder / "parts", exactly=True)


def test_micro_batches_in_two_processes(both):
    assert_same_log(both.folder / "accumulated", both.folder / "two")
    assert_same_weights(both.folder / "accumulated", both.folder / "two", exactly=False)


def test_two_processes_are_two_micro_batches_bit_for_bit(both, tmp_path):
    """Nothing but the order of additions sets them apart from one process, and here that is the same."""
    one_process(both, tmp_path / "one", max_updates=9, accumulate=2)
    assert_same_weights(tmp_path / "one", both.folder / "two", exactly=True)
    training = [
        [entry["loss"] for entry in read_log(run) if entry["kind"] == "training"]
        for run in (tmp_path / "one", both.folder / "two")
    ]
    assert training[0] == training[1]


def test_a_signal_to_one_stops_both_at_the_same_update(both, tmp_path):
    assert both.found[0]["signal"] == [signal.SIGTERM, 6]
    assert checkpoint.updates_of(both.folder / "stopped")[-1].name == "update-000000006"
    # One process goes on where two have stopped.
    one_process(both, both.folder / "stopped", resume=True, max_updates=9)
    assert_same_weights(both.folder / "stopped", both.folder / "two", exactly=False)


def test_the_figures_of_a_shared_evaluation_are_those_of_one_process(both):
    config = run_config()
    model, _ = checkpoint.load_model(both.folder / "two", prefer="last")
    with Dataset.open(both.data) as dataset:
        loader = make_loader(dataset, "validation", config, config.training.batch_size + 1)
        how = EvaluationConfig(config.training.weights, noise=0.1, ami_sequences=3)
        alone = evaluate(model, loader.epoch(0), how, torch_generator(1)).to_dict()
    shared = both.found[0]["evaluation"]
    assert alone["sequences"] == shared["sequences"] == 5
    assert alone["scores"] == pytest.approx(shared["scores"], abs=1e-4)
    for name, curve in alone["curves"].items():
        assert curve == pytest.approx(shared["curves"][name], rel=1e-4, abs=1e-4), name


def test_a_batch_that_cannot_be_shared_is_refused(both):
    assert "batch_size is 5, which 2 processes" in both.found[0]["error"]
    assert "a multiple of 2" in both.found[0]["error"]
    assert not (both.folder / "uneven").exists()


def test_the_command_line_under_torchrun_stops_in_order_and_goes_on_alone(tiny, tmp_path, rnem):
    run = tmp_path / "run"
    common = ["--epochs", 10**6, "--patience", 10**6, "--threads", 1]
    shape = ["--hidden-size", 16, "--slots", 2, "--steps", 3, "--batch-size", 4, "--score-every", 1]
    words = [
        *TORCHRUN,
        "-m",
        "rnem_world.cli.main",
        "train",
        "--data",
        tiny.data,
        "--out",
        run,
        *common,
        *shape,
    ]
    process = subprocess.Popen(
        [str(word) for word in words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not read_log(run):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=600)
    assert out.count("SIGTERM received; continue with --resume") == 1
    assert out.count("by 2 processes") == 1
    assert "rnem-world" not in err
    assert "find_unused_parameters" not in err
    updates = checkpoint.load_trainer(checkpoint.updates_of(run)[-1])["progress"]["updates"]
    assert checkpoint.updates_of(run)[-1].name == f"update-{updates:09d}"
    assert rnem("train", "--resume", "--out", run, *common, "--max-updates", updates + 1).code == 0
    assert checkpoint.updates_of(run)[-1].name == f"update-{updates + 1:09d}"


def test_who_a_process_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert from_torchrun() == ALONE
    assert ALONE.is_first
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert from_torchrun() == Processes(5, 8, 4, 1)
    assert not from_torchrun().is_first


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_shares_cover_all_rows_once(size):
    covered = [row for rank in range(4) for row in range(size)[Processes(rank, 4).rows(size)]]
    assert covered == list(range(size))


def test_a_single_device_for_several_processes_is_refused():
    with pytest.raises(ConfigError, match="use --device cuda"):
        choose_device("cuda:1", Processes(0, 2, 2, 0))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:598] Connection closed by peer [127.0.0.1]:2"),
            "has ended",
        ),
        (torch.distributed.DistNetworkError("timed out after 300000ms"), "has ended"),
        (
            torch.distributed.DistBackendError("NCCL error: ncclRemoteError: remote process exited"),
            "has ended",
        ),
        (
            torch.distributed.DistBackendError("NCCL error: invalid usage\nDuplicate GPU detected"),
            "can't work together: NCCL error: invalid usage",
        ),
        (RuntimeError("gloo: no such operation"), None),
        (RuntimeError("nccl is not compiled in"), None),
    ],
)
def test_only_what_says_that_a_process_is_gone_is_reported_as_such(error, expected, monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    kind = RuntimeError if expected is None else ProcessError
    with pytest.raises(kind) as caught, process_group(Processes(0, 2, 2, 0), torch.device("cpu")):
        raise error
    if expected is None:
        assert caught.value is error
    else:
        assert expected in str(caught.value)


def test_several_processes_do_not_collect(rnem, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    outcome = rnem("train", "--data", "balls3small32")
    assert outcome.code == 2
    assert "error in process 1" in outcome.err
    assert "rnem-world collect --preset balls3small32" in outcome.err
