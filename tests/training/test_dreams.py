"""Rewards of a few dreams are measured at every validation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from worlds_to_train import MODEL, run_config

from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.models.world_model import WorldModel
from rnem_world.training.dreams import measure_dreams
from rnem_world.training.logging import read_log
from rnem_world.training.presets import fit_model_to
from rnem_world.training.trainer import Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return collect(
        "balls",
        tmp_path_factory.mktemp("avoid") / "avoid.h5",
        preset="avoid",
        num_train=4,
        num_valid=6,
        num_test=0,
        frames=30,
        progress=False,
    )


def test_a_validation_tells_which_reward_is_told_for_which(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(max_updates=3)
    with Dataset.open(data) as dataset:
        config = fit_model_to(dataset, config, True, "projection32")
        assert config.model.reward_values == (-1.0, 0.0)
        Trainer(config, dataset, tmp_path / "run", torch.device("cpu"), lambda line: None).fit()
    (entry,) = (entry for entry in read_log(tmp_path / "run") if entry["kind"] == "dreams")
    assert entry["reward_values"] == [-1.0, 0.0]
    assert {name: sum(map(sum, matrix)) for name, matrix in entry["reward_counts"].items()} == {
        "watching": 60,
        "1": 6,
        "5": 6,
        "10": 6,
    }
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert events.Images("rewards")[-1].width > 300
    assert "dreams/reward_rate" in events.Tags()["scalars"]


def test_measuring_is_always_the_same_and_leaves_the_model_as_it_was(data):
    torch.manual_seed(0)
    options = run_config().training
    model = WorldModel(replace(MODEL, reward_values=(-1.0, 0.0))).train()
    torch.nn.init.normal_(model.heads.parts.weight)
    with Dataset.open(data) as dataset:
        one, other = (measure_dreams(model, dataset, options, torch.device("cpu")) for _ in range(2))
        assert one == other
        assert one is not None
        assert model.training
        assert one.imagination == "latent"
        assert (
            measure_dreams(WorldModel(replace(MODEL, heads=False)), dataset, options, torch.device("cpu"))
            is None
        )
