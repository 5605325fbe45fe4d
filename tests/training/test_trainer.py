from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rnem_world.errors import CheckpointError, ConfigError, OutputError, TrainingError
from rnem_world.models.config import MODELS
from rnem_world.training import checkpoint, presets
from rnem_world.training import trainer as module
from rnem_world.training.config import OptimizerConfig
from rnem_world.training.logging import LOG_FILE, read_log
from rnem_world.training.run import RunFolder


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """The overview takes longer than an epoch here; one test looks at it."""
    if "with_pictures" not in request.fixturenames:
        black = np.zeros((4, 4, 3), np.uint8)
        monkeypatch.setattr(module.Trainer, "overview", lambda trainer: black)


@pytest.fixture
def with_pictures(monkeypatch) -> None:
    """Draws every overview anew."""
    monkeypatch.setattr(module.Trainer, "overview", module.Trainer.overview.__wrapped__)


def seen_batches(trainer) -> list[list[int]]:
    """Records which sequences the updates of a trainer see."""
    batches = []
    update = trainer._learn

    def recorded(batch):
        batches.append(batch.indices.tolist())
        return update(batch)

    trainer._learn = recorded
    return batches


def tensors(state, prefix: str = "") -> dict[str, object]:
    if isinstance(state, dict):
        entries = state.items()
    elif isinstance(state, list):
        entries = enumerate(state)
    else:
        return {prefix: state}
    return {name: value for key, part in entries for name, value in tensors(part, f"{prefix}/{key}").items()}


def assert_same_state(one: Path, other: Path) -> None:
    """Weights, optimizer and progress of two checkpoints are the same, bit for bit."""
    weights, others = checkpoint.read_weights(one), checkpoint.read_weights(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    first, second = tensors(checkpoint.load_trainer(one)), tensors(checkpoint.load_trainer(other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name == "/progress/minutes":
            continue
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        else:
            assert value == second[name], name


def assert_same_run(one: Path, other: Path, same_folders: bool = True) -> None:
    for name in (LOG_FILE, checkpoint.BEST_FILE):
        assert (one / name).read_text() == (other / name).read_text(), name
    folders = [sorted(path.name for path in (run / checkpoint.CHECKPOINTS).iterdir()) for run in (one, other)]
    assert folders[0] == folders[1] or not same_folders
    assert_same_state(checkpoint.updates_of(one)[-1], checkpoint.updates_of(other)[-1])


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_an_uninterrupted_one(model, tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with tiny.trainer(whole, tiny.config(model, max_updates=7)) as trainer:
        expected = seen_batches(trainer)
        trainer.fit()
    seen = []
    # Stopped in the middle of an epoch, at its end, after one update more, and where the whole run ends.
    for number, updates in enumerate((2, 3, 4, 7)):
        config = tiny.config(model, max_updates=updates)
        with tiny.trainer(parts, config, resume=number > 0) as trainer:
            batches = seen_batches(trainer)
            trainer.fit()
            seen += batches
    assert seen == expected
    assert len({tuple(sorted(batch)) for batch in seen}) > 3  # the order changes with the epoch
    assert_same_run(whole, parts)


def test_a_run_can_be_resumed_between_any_two_updates_by_time(tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny.fit(whole, epochs=2)
    sittings = 0
    while not read_log(parts) or read_log(parts)[-1].get("epoch") != 2:
        tiny.fit(parts, epochs=2, max_minutes=1e-9, resume=sittings > 0)
        sittings += 1
        assert sittings < 12
    assert sittings > 6
    assert_same_run(whole, parts, same_folders=False)  # the latest ones are of other moments


def test_sigterm_stops_and_the_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, rnem):
    common = ["--epochs", 10**6, "--patience", 10**6, "--threads", 1]
    shape = ["--hidden-size", 16, "--slots", 2, "--steps", 3, "--batch-size", 4, "--seed", 3]
    start = ["train", "--data", tiny.data, *common, *shape]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "rnem_world.cli.main", *start, "--out", killed]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not any(entry["update"] > 2 for entry in read_log(killed)):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGTERM, b"")
    assert b"SIGTERM received; continue with --resume" in out
    last = checkpoint.load_trainer(checkpoint.updates_of(killed)[-1])["progress"]
    updates = last["updates"] + 2
    assert rnem("train", "--resume", "--out", killed, *common, "--max-updates", updates).code == 0
    assert rnem(*start, "--out", whole, "--max-updates", updates).code == 0
    assert_same_state(checkpoint.updates_of(killed)[-1], checkpoint.updates_of(whole)[-1])
    assert (killed / LOG_FILE).read_text() == (whole / LOG_FILE).read_text()


def test_a_signal_during_validation_stops_at_once_and_the_resumed_run_validates_again(
    tiny, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny.fit(whole, epochs=2)
    with tiny.trainer(parts, epochs=2) as trainer:
        batches = trainer.validation.epoch

        def interrupted(epoch):
            for batch in batches(epoch):
                os.kill(os.getpid(), signal.SIGINT)
                yield batch

        monkeypatch.setattr(trainer.validation, "epoch", interrupted)
        assert trainer.fit() is None
    assert not [entry for entry in read_log(parts) if entry["kind"] != "training"]
    assert checkpoint.updates_of(parts)[-1].name == "update-000000003"
    tiny.fit(parts, epochs=2, resume=True)
    assert_same_run(whole, parts)


def test_a_second_signal_ends_training_at_once_and_costs_only_what_was_not_saved(tiny, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    handler = signal.getsignal(signal.SIGINT)  # in the background of a shell, it is ignored
    tiny.fit(whole, epochs=2)
    with tiny.trainer(parts, epochs=2) as trainer:
        batches = trainer.validation.epoch

        def interrupted(epoch):
            for batch in batches(epoch):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                yield batch

        monkeypatch.setattr(trainer.validation, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    assert signal.getsignal(signal.SIGINT) is handler
    tiny.fit(parts, epochs=2, resume=True)
    assert_same_run(whole, parts)


def test_random_kills_lose_nothing():
    script = Path(__file__).parents[2] / "scripts" / "kill_test"
    command = [sys.executable, str(script), "--kills", "4", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "train: 4 kills" in result.stdout
    assert "collect: 4 kills" in result.stdout


def test_max_updates_in_the_middle_of_an_epoch_ends_with_a_validation_and_a_best_checkpoint(tiny, tmp_path):
    with tiny.trainer(tmp_path / "run", max_updates=2) as trainer:
        evaluation = trainer.fit()
    best = json.loads((tmp_path / "run" / checkpoint.BEST_FILE).read_text())
    assert best == {"checkpoint": "update-000000002", "validation_loss": evaluation.loss, "epoch": 0}
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "update-000000002"
    assert read_log(tmp_path / "run")[-1]["kind"] == "validation"
    # Once more without a higher limit: the same validation, and no double in the log.
    log = (tmp_path / "run" / LOG_FILE).read_text()
    tiny.fit(tmp_path / "run", max_updates=2, resume=True)
    assert (tmp_path / "run" / LOG_FILE).read_text() == log
    assert json.loads((tmp_path / "run" / checkpoint.BEST_FILE).read_text()) == best


def test_the_best_checkpoint_survives_a_validation_midway_and_a_resumption(tiny, tmp_path, monkeypatch):
    losses = iter([10.0, 5.0, 20.0])  # at the end of epoch 1, midway, at the end of epoch 2
    evaluate = module.evaluate

    def scripted(*arguments):
        evaluation = evaluate(*arguments)
        evaluation.losses["loss"]["total"] = next(losses)
        return evaluation

    monkeypatch.setattr(module, "evaluate", scripted)
    run = tmp_path / "run"
    options = {"keep_checkpoints": 1, "checkpoint_minutes": 1e-9}
    tiny.fit(run, max_updates=5, **options)
    assert checkpoint.find_checkpoint(run).name == "update-000000005"
    tiny.fit(run, max_updates=6, resume=True, **options)
    assert checkpoint.find_checkpoint(run).name == "update-000000003"
    assert [folder.name for folder in checkpoint.updates_of(run)] == ["update-000000003", "update-000000006"]


def test_what_a_kill_between_checkpoint_and_best_json_leaves_is_mended(tiny, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny.fit(whole, epochs=2)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, tiny.trainer(parts, epochs=2) as trainer:
        patch.setattr(RunFolder, "_write_best", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    tiny.fit(parts, epochs=2, resume=True)
    assert_same_run(whole, parts)


def test_loss_falls(tiny, tmp_path):
    trainer = tiny.fit(tmp_path / "run", epochs=12, patience=100)
    losses = [entry["loss"] for entry in read_log(tmp_path / "run") if entry["kind"] == "epoch"]
    assert losses[-1] < 0.6 * losses[0]
    assert trainer.progress.best_loss < 0.7 * losses[0]
    assert trainer.progress.sequences == 12 * 12


def test_one_update_is_the_plain_thing(tiny, tmp_path):
    """The loss by hand, from the same noise and responsibilities; and Adam's first step: the gradient's sign."""
    from rnem_world.models.config import LossConfig
    from rnem_world.seeding import derive_seed

    with tiny.trainer(tmp_path / "run", step_weights=(1.0, 0.0, 3.0)) as trainer:
        model = trainer.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        batch = next(iter(trainer.training.epoch(0)))
        generator = torch.Generator().manual_seed(derive_seed(5, "update", 0))
        frames = model.likelihood.from_uint8(batch.frames, 1)
        inputs = model.likelihood.noisy(frames[:, :-1], 0.2, generator)
        assert 0.15 < (inputs != frames[:, :-1]).float().mean() < 0.25
        state = model.initial_state(4, generator=generator)
        losses = []
        for step in range(3):
            transition = model.predict(state, inputs[:, step])
            state = model.update(transition, frames[:, step + 1])
            terms = model.likelihood.slot_losses(
                transition.logits, state.gamma, frames[:, step + 1], LossConfig()
            )
            losses.append(terms.total.mean())
        loss = (losses[0] + 3.0 * losses[2]) / 4.0
        loss.backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
        figures = trainer._learn(batch)
    assert figures["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, gradient in gradients.items():
        step = model.state_dict()[name] - before[name]
        clear = gradient.abs() > 1e-3
        assert torch.allclose(step[clear], -1e-3 * gradient[clear].sign(), rtol=0.02, atol=1e-7), name


def test_runs_of_one_seed_are_equal_and_of_another_are_not(tiny, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # the global generator must not matter
        tiny.fit(tmp_path / name, epochs=1, seed=seed)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    logs = [(tmp_path / name / LOG_FILE).read_text() for name in "ac"]
    assert logs[0] != logs[1]


def test_training_leaves_the_global_generator_alone(tiny, tmp_path):
    before = torch.random.get_rng_state()
    tiny.fit(tmp_path / "run", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_probability_0_is_no_noise(tiny, tmp_path):
    from rnem_world.training.config import NoiseConfig

    for name, noise in (("a", NoiseConfig("bitflip", 0.0)), ("b", NoiseConfig("none"))):
        tiny.fit(tmp_path / name, epochs=1, noise=noise)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    tiny.fit(tmp_path / "c", epochs=1)
    assert (tmp_path / "c" / LOG_FILE).read_text() != (tmp_path / "a" / LOG_FILE).read_text()


def test_patience_ends_training(tiny, tmp_path, monkeypatch):
    evaluate = module.evaluate

    def never_better(*arguments):
        evaluation = evaluate(*arguments)
        evaluation.losses["loss"]["total"] = 7.0
        return evaluation

    monkeypatch.setattr(module, "evaluate", never_better)
    trainer = tiny.fit(tmp_path / "run", epochs=9, patience=2, train_size=4)
    assert (trainer.progress.epoch, trainer.progress.best_epoch) == (3, 1)
    resumed = tiny.fit(tmp_path / "run", epochs=9, patience=2, train_size=4, resume=True)
    assert resumed.progress.epoch == 3


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_training_before_it_reaches_a_checkpoint(what, tiny, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with tiny.trainer(run, checkpoint_minutes=1e-9) as trainer:
        update = trainer._learn

        def poisoned(batch):
            if trainer.progress.updates == 2:
                parameter = next(trainer.model.parameters())
                if what == "loss":
                    parameter.data.fill_(torch.nan)
                else:
                    parameter.register_hook(lambda gradient: gradient * torch.inf)
            return update(batch)

        monkeypatch.setattr(trainer, "_learn", poisoned)
        with pytest.raises(TrainingError, match=f"the {what}.* at update 3 .epoch 1.*update-000000002"):
            trainer.fit()
    model, _ = checkpoint.load_model(run, prefer="last")
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    trainer = tiny.fit(run, epochs=1, resume=True)
    assert trainer.progress.updates == 3


def test_a_huge_learning_rate_is_an_error_that_names_the_update(tiny, tmp_path):

    with pytest.raises(TrainingError, match=r"at update \d.*lower --learning-rate"):
        tiny.fit(tmp_path / "run", optimizer=OptimizerConfig("sgd", 1e38))
    checkpoint.load_model(tmp_path / "run")


@pytest.mark.parametrize("value", [1e30, -1e25])
def test_rewards_too_large_are_not_blamed_on_the_learning_rate(
    value, tmp_path, tiny, make_discs, monkeypatch
):
    # Heads that tell rewards as a number square them, as those of older runs do.
    monkeypatch.setattr(presets, "values_of_rewards", lambda dataset: None)
    path = make_discs(tmp_path / "discs.h5")
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group["rewards"] = np.full(group["features"].shape[:2], value, np.float32)
    config = tiny.config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, heads=True))
    with pytest.raises(
        TrainingError, match=f"rewards are too large to be squared: scale them in {path}"
    ) as error:
        module.train(path, config, tmp_path / "run", device="cpu")
    assert "learning-rate" not in str(error.value)


def test_a_resumed_run_takes_the_new_learning_rate(tiny, tmp_path):

    tiny.fit(tmp_path / "run", max_updates=1)
    with tiny.trainer(
        tmp_path / "run", resume=True, optimizer=OptimizerConfig(learning_rate=1e-9)
    ) as trainer:
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        trainer._learn(next(iter(trainer.training.epoch(0, 1))))
        assert {group["lr"] for group in trainer.learner.optimizer.param_groups} == {1e-9}
        after = list(trainer.model.parameters())
    assert all(float((new - old).detach().abs().max()) < 1e-7 for new, old in zip(after, before, strict=True))


def test_checkpoints_that_are_kept(tiny, tmp_path):
    tiny.fit(tmp_path / "run", epochs=4, save_epochs=(1, 3), keep_checkpoints=2, checkpoint_minutes=1e-9)
    names = sorted(path.name for path in (tmp_path / "run" / checkpoint.CHECKPOINTS).iterdir())
    best = checkpoint.find_checkpoint(tmp_path / "run").name
    latest = {"update-000000011", "update-000000012"}
    assert set(names) == {"epoch-0001", "epoch-0003", best} | latest
    first = checkpoint.read_weights(tmp_path / "run" / checkpoint.CHECKPOINTS / "epoch-0001")
    tiny.fit(tmp_path / "other", epochs=1)
    other = checkpoint.read_weights(tmp_path / "other" / checkpoint.CHECKPOINTS / "update-000000003")
    assert all(torch.equal(first[name], other[name]) for name in first)


def test_a_full_disk_while_training_harms_no_checkpoint(tiny, tmp_path, file_size_limit, listing):
    run = tmp_path / "run"
    tiny.fit(run, max_updates=2)
    before = checkpoint.read_weights(checkpoint.updates_of(run)[-1])
    with (
        tiny.trainer(run, resume=True, save_epochs=()) as trainer,
        file_size_limit(10**6),
        pytest.raises(OutputError, match=r"can't write .*update-000000003"),
    ):
        trainer.fit()
    assert not [name for name in listing(run) if name.endswith(".tmp")]
    after = checkpoint.read_weights(checkpoint.updates_of(run)[-1])
    assert all(torch.equal(after[name], before[name]) for name in before)
    tiny.fit(tmp_path / "whole", max_updates=4)
    tiny.fit(run, max_updates=4, resume=True)
    assert_same_run(tmp_path / "whole", run)


def test_a_full_disk_at_the_start_leaves_nothing(tiny, tmp_path, file_size_limit, listing):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    before = listing(tmp_path)
    for run in (tmp_path / "new" / "run", tmp_path / "mine"):
        with file_size_limit(10**6), pytest.raises(OutputError, match="can't write"):
            tiny.fit(run)
        assert listing(tmp_path) == before


def test_damaged_data_leaves_no_run(tmp_path, make_discs, tiny):
    path = make_discs(tmp_path / "discs.h5")
    import h5py

    with h5py.File(path) as file:
        chunk = file["validation/features"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    with pytest.raises(Exception, match="damaged"):
        tiny._replace(data=path).fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_in_use_is_refused_and_what_is_not_ours_is_not_overwritten(tiny, tmp_path, listing):
    tiny.fit(tmp_path / "run", max_updates=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"mine": 1}')
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="already holds a run"):
        tiny.fit(tmp_path / "run")
    with pytest.raises(OutputError, match="choose another folder"):
        tiny.fit(tmp_path / "other")
    assert listing(tmp_path) == before


def test_a_run_that_was_killed_before_its_first_checkpoint_can_begin_again(tiny, tmp_path):
    run = tmp_path / "run"
    tiny.fit(tmp_path / "whole", max_updates=2)
    run.mkdir()
    (run / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    (run / LOG_FILE).write_text("left over\n")
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        tiny.fit(run, resume=True)
    tiny.fit(run, max_updates=2)
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize("other", ["lstm", "wider"])
def test_training_state_of_another_run_is_refused(other, tiny, tmp_path):
    config = tiny.config("lstm" if other == "lstm" else "r_nem", max_updates=1)
    if other == "wider":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, hidden_size=17))
    tiny.fit(tmp_path / "run", max_updates=1)
    tiny.fit(tmp_path / "other", config)
    place, source = (
        checkpoint.updates_of(tmp_path / name)[-1] / checkpoint.TRAINER_FILE for name in ("run", "other")
    )
    place.write_bytes(source.read_bytes())
    with pytest.raises(CheckpointError, match="doesn't fit this run"):
        tiny.fit(tmp_path / "run", resume=True)


def test_data_that_does_not_fit_is_refused_when_resuming(tiny, tmp_path, make_discs, listing):
    from rnem_world.data.dataset import Dataset
    from rnem_world.training.trainer import Trainer

    trainer = tiny.fit(tmp_path / "run", max_updates=1)
    make_discs(tmp_path / "large.h5", size=64)
    before = listing(tmp_path)
    with Dataset.open(tmp_path / "large.h5") as dataset, pytest.raises(ConfigError, match=r"64x64.*32x32"):
        Trainer(
            trainer.config, dataset, tmp_path / "run", torch.device("cpu"), lambda line: None, resume=True
        )
    assert listing(tmp_path) == before


def test_data_without_groups_or_collisions_trains_and_logs(tiny, tmp_path, make_discs):
    data = make_discs(tmp_path / "bare.h5", drop=("groups", "collisions"))
    tiny._replace(data=data).fit(tmp_path / "run", epochs=1)
    kinds = [entry["kind"] for entry in read_log(tmp_path / "run")]
    assert kinds == ["training", "training", "epoch", "validation"]
    assert all("ari" not in entry for entry in read_log(tmp_path / "run"))


def test_tensorboard_shows_figures_and_an_overview_picture(tiny, tmp_path, with_pictures):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny.fit(tmp_path / "run", max_updates=4)
    tiny.fit(tmp_path / "run", max_updates=6, resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"training/loss", "training/ari", "epoch/loss", "validation/losses/loss/total"} <= set(
        tags["scalars"]
    )
    for name, entries in [("training/loss", [1, 3, 5]), ("epoch/loss", [3, 6])]:
        assert [event.step for event in events.Scalars(name)] == entries
    assert events.Images("overview")[-1].step == 6
    assert events.Images("overview")[-1].width > 100
