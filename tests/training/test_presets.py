"""Named configurations, and what a dataset decides in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.presets import fit_model_to, paper_model, world_model
from rnem_world.training.trainer import Trainer, train


def test_the_papers_model_of_balls_is_the_default():
    assert paper_model() == RunConfig()
    assert paper_model("lstm").model.slots == 1


def test_a_world_model_by_the_name_of_its_balls_or_of_atari():
    config = world_model("avoid")
    assert config == world_model()
    assert config.model.is_world_model
    assert config.training.closed_loop.fraction > 0
    game = world_model("atari", {"model": {"slots": 6}, "training": {"seed": 7}})
    assert (game.model.slots, game.training.seed, game.training.loss.motion_weight) == (6, 7, 5.0)
    assert game.model.prior_code


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (world_model, ["avoidd"], "did you mean 'avoid'"),
        (paper_model, ["r_nemm"], "did you mean 'r_nem'"),
        (paper_model, ["r_nem", "balls", {"training": {"batch": 3}}], "unknown option 'training.batch'"),
    ],
)
def test_unknown_names_are_refused(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(*arguments)


def test_training_from_python(discs_file, tmp_path):
    lines: list[str] = []
    options = {"model": {"hidden_size": 16, "slots": 2}, "training": {"sequence_steps": 3, "batch_size": 4}}
    config = paper_model(options=options)
    limited = dataclasses.replace(config, training=dataclasses.replace(config.training, max_updates=1))
    trainer = train(discs_file, limited, tmp_path / "run", device="cpu", report=lines.append)
    assert trainer.evaluation is not None
    assert trainer.model.config.architecture == "conv32"
    assert "training relational" in lines[0]
    again = train(discs_file, trainer.config, tmp_path / "run", device=torch.device("cpu"), resume=True)
    assert again.progress.updates == 1


@pytest.mark.parametrize(("maximum_value", "channels"), [(255, 1), (1, 3), (255, 3)])
def test_grey_and_coloured_frames_are_refused(maximum_value, channels, tmp_path):
    """They would be taken for probabilities that a pixel is white."""
    shape = (5, 6, 32, 32, channels)
    frames = np.random.default_rng(0).integers(0, 2, shape, np.uint8) * np.uint8(maximum_value)
    splits = dict.fromkeys(("training", "validation"), EpisodeBatch(features=frames))
    write_shard(
        tmp_path / "grey.h5", splits, DatasetAttributes("Discs-v0", {}, 0, maximum_value=maximum_value)
    )
    config = RunConfig(training=TrainingConfig(sequence_steps=3, batch_size=4))
    with Dataset.open(tmp_path / "grey.h5") as dataset:
        message = rf"{channels} channels of values 0..{maximum_value}.*--binarise"
        with pytest.raises(ConfigError, match=message):
            fit_model_to(dataset, config)
        with pytest.raises(ConfigError, match=message):
            Trainer(config, dataset, tmp_path / "run", torch.device("cpu"), lambda line: None)
    assert not (tmp_path / "run").exists()
