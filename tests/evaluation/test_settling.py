"""How often a first frame is shown before anything happens is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamers import write_world_of

from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import find_windows
from rnem_world.envs.slots import SlotFilter
from rnem_world.envs.world import World
from rnem_world.evaluation import settling
from rnem_world.evaluation.settling import SETTLE_STEPS, TRANSITIONS, fit_settle_steps
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import load_model, read_config, save_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "masks.h5"
    return collect("own_environments:Own/Masks-v0", path, num_train=3, num_valid=5, num_test=3, frames=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world_of(tmp_path_factory.mktemp("worlds") / "masks", "own_environments:Own/Masks-v0")


def fit(data: Path, world: Path, still=None, generator=None):
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model, config = load_model(world)
    with Dataset.open(data) as dataset:
        return fit_settle_steps(model.eval(), dataset, "validation", config.actions, still, generator)


@pytest.mark.parametrize("still", [None, (1, -1)])
def test_losses_are_those_of_slots_that_watch_real_episodes(data, world, tmp_path, monkeypatch, still):
    """What the filter of agents then expects, frame by frame, up to the end of each episode and no further."""
    found = fit(data, world, still)
    assert found.steps == min(found.losses, key=found.losses.get)
    assert tuple(found.losses) == SETTLE_STEPS
    assert len(set(found.losses.values())) == len(SETTLE_STEPS)
    model, config = load_model(world)
    save_checkpoint(tmp_path / "known", model, replace(config, still_actions=still))
    known = World.load(tmp_path / "known")
    with Dataset.open(data) as dataset:
        windows = find_windows(dataset, "validation", 2, TRANSITIONS + 1, settling.SEQUENCES, at_first=True)
        names = ["features", "actions", "is_first"]
        read = dataset.read(
            "validation", windows.sequences.tolist(), names, windows.begins.tolist(), TRANSITIONS + 1
        )
    assert read["is_first"][0].all()
    assert read["is_first"][1:].any(), "an episode ought to end among those frames"
    number = read["features"].shape[1]
    gamma = known.model.initial_state(number, generator=torch.Generator().manual_seed(0)).gamma
    likelihood = known.model.likelihood
    for steps in (0, 1, 3):
        watching = SlotFilter(known, number, settle_steps=steps, engine="torch")
        empty = known.empty_slots(number, watching.slots)
        state = type(empty)(empty.theta, empty.prediction, gamma, empty.frame)
        monkeypatch.setattr(known, "empty_slots", lambda batch, slots, state=state: state)
        frames = [known.frames_for_model(frame > 0) for frame in read["features"]]
        watching.reset(torch.arange(number), frames[0])
        total, count, goes_on = 0.0, 0, np.ones(number, np.bool_)
        for step in range(TRANSITIONS):
            goes_on = goes_on & ~read["is_first"][step + 1]
            watching.step(torch.from_numpy(read["actions"][step]), frames[step + 1])
            expected = likelihood.soft_frame(watching._state.prediction)
            losses = likelihood.frame_loss(expected, known.inputs(frames[step + 1]))
            total += float(losses[torch.from_numpy(goes_on)].sum())
            count += int(goes_on.sum())
        assert total / count == pytest.approx(found.losses[steps], rel=1e-5)
        monkeypatch.undo()


def test_sequences_that_are_too_short_tell_nothing(tmp_path, world):
    path = collect("own_environments:Own/Masks-v0", tmp_path / "short.h5", num_train=2, num_valid=2, frames=8)
    assert fit(path, world) is None


def test_training_measures_it_and_agents_heed_it(data, tmp_path, rnem, monkeypatch):
    real = settling.fit_settle_steps

    def chosen(*arguments):
        return real(*arguments)._replace(steps=2)

    monkeypatch.setattr("rnem_world.training.trainer.fit_settle_steps", chosen)
    run = tmp_path / "run"
    outcome = rnem(
        *("train", "--world-model", "--data", data, "--out", run, "--max-updates", 2, "--threads", 1),
        *("--steps", 12, "--chunk-steps", 12, "--batch-size", 3),
    )
    assert outcome.code == 0, outcome.err
    assert read_config(run).settle_steps == 2
    known = World.load(run)
    assert known.config.settle_steps == 2
    watching = SlotFilter(known, 1, engine="torch")
    looks = []
    engine = type(known.engine("torch"))
    observe = engine.observe
    monkeypatch.setattr(engine, "observe", lambda *given: looks.append(1) or observe(*given))
    watching.reset(torch.arange(1), known.frames_for_model(np.zeros((1, 5, 5, 5), np.bool_)))
    assert len(looks) == 2


def test_export_measures_it_on_the_data_that_dreams_begin_with(data, world, tmp_path, rnem):
    outcome = rnem("export", world, "--starts", data, "--out", tmp_path / "new")
    assert outcome.code == 0, outcome.err
    found = fit(data, world, generator=torch_generator(0, "settling", device="cpu"))
    assert f"shown a first frame {found.steps} times" in outcome.out
    assert read_config(tmp_path / "new").settle_steps == found.steps
