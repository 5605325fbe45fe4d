from __future__ import annotations

import dataclasses
import json
import math

import pytest

from rnem_world.errors import ConfigError
from rnem_world.models.config import ModelConfig
from rnem_world.models.losses import LossConfig
from rnem_world.options import build
from rnem_world.training.config import NoiseConfig, OptimizerConfig, RunConfig, TrainingConfig


def test_defaults_are_the_originals():
    config = TrainingConfig()
    assert (config.sequence_steps, config.batch_size, config.epochs, config.patience) == (30, 64, 500, 10)
    assert (config.noise.type, config.noise.flip_probability) == ("bitflip", 0.2)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.clip_norm) == (
        "adam",
        1e-3,
        None,
    )
    assert (config.valid_size, config.save_epochs, config.last_steps) == (1000, (1, 5, 10, 20, 50, 100), 10)


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ("all", (1.0, 1.0, 1.0)),
        ("last", (0.0, 0.0, 1.0)),
        ((0.5, 0.0, 2.0), (0.5, 0.0, 2.0)),
    ],
)
def test_step_weights(given, weights):
    assert TrainingConfig(sequence_steps=3, step_weights=given).weights == weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 2.0), "has 2 numbers, one for each of 3 steps"),
        ((1.0, -1.0, 1.0), "at least 0"),
        ((0.0, 0.0, 0.0), "one above 0"),
        ((1.0, math.nan, 1.0), "must be finite"),
    ],
)
def test_step_weights_that_make_no_sense(given, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(sequence_steps=3, step_weights=given)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        *((TrainingConfig, {name: 0}) for name in ("sequence_steps", "batch_size", "epochs", "patience")),
        *((TrainingConfig, {name: 0}) for name in ("keep_checkpoints", "score_every", "last_steps")),
        *((TrainingConfig, {name: 0}) for name in ("train_size", "valid_size", "test_size", "max_updates")),
        *((TrainingConfig, {name: 0.0}) for name in ("checkpoint_minutes", "max_minutes")),
        (TrainingConfig, {"max_minutes": math.nan}),
        (TrainingConfig, {"seed": -1}),
        (OptimizerConfig, {"name": "adm"}),
        (OptimizerConfig, {"learning_rate": 0.0}),
        (OptimizerConfig, {"learning_rate": math.nan}),
        (OptimizerConfig, {"momentum": 1.0}),
        (OptimizerConfig, {"clip_norm": 0.0}),
        (OptimizerConfig, {"clip_by": "parameters"}),
        (NoiseConfig, {"type": "bit"}),
        (NoiseConfig, {"probability": 1.1}),
        (LossConfig, {"inter_weight": -1.0}),
        (LossConfig, {"pixel_prior": 1.0}),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(cls, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError) as error:
        build(cls, options)
    assert str(value) in str(error.value)
    assert name in str(error.value)


def test_every_option_survives_json():
    config = RunConfig(
        ModelConfig(core="rnn", slots=3, initial_prediction=0.25),
        TrainingConfig(
            sequence_steps=2,
            step_weights=(1.0, 0.5),
            loss=LossConfig(0.5, 1e-3),
            noise=NoiseConfig("none", 0.1),
            optimizer=OptimizerConfig("sgd", 1e-4, clip_norm=2.0, clip_by="global"),
            save_epochs=(1, 4),
            max_minutes=1.5,
            relational_loss="events",
        ),
        "data/x.h5",
        "Discs-v0",
    )
    read = build(RunConfig, json.loads(json.dumps(dataclasses.asdict(config))))
    assert read == config
    assert isinstance(read.training.step_weights, tuple)
