from __future__ import annotations

import dataclasses
import json
import math

import pytest

from rnem_world.config import build
from rnem_world.errors import ConfigError
from rnem_world.models.config import LossConfig, ModelConfig
from rnem_world.training.config import (
    ClosedLoopConfig,
    HeadLossConfig,
    NoiseConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)


def test_defaults_are_the_originals():
    config = TrainingConfig()
    assert (config.sequence_steps, config.batch_size, config.epochs, config.patience) == (30, 64, 500, 10)
    assert (config.noise.type, config.noise.strength) == ("bitflip", 0.2)
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


def test_cold_starts_weigh_a_fifth():
    assert TrainingConfig(sequence_steps=4, cold_start_steps=2).weights == (0.2, 0.2, 1.0, 1.0)
    # The last step always counts.
    assert TrainingConfig(sequence_steps=2, cold_start_steps=5).weights == (0.2, 1.0)


def test_a_chunk_without_weight_is_refused():
    TrainingConfig(sequence_steps=4, chunk_steps=2, step_weights=(0.0, 1.0, 1.0, 0.0))
    with pytest.raises(ConfigError, match="only zeros in the chunk of 2 steps from step 0"):
        TrainingConfig(sequence_steps=4, chunk_steps=2, step_weights="last")


@pytest.mark.parametrize(
    ("noise", "usual"),
    [
        (NoiseConfig("bitflip", 0.2), 0.2),
        (NoiseConfig("bitflip", 0.2, per_sequence=True), 0.0),
        (NoiseConfig("none", 0.2), 0.0),
    ],
)
def test_only_a_model_that_knows_one_strength_of_noise_keeps_it(noise, usual):
    assert noise.usual_strength == usual


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
        (OptimizerConfig, {"clip_factor": 0.5}),
        (OptimizerConfig, {"clip_factor": math.nan}),
        (OptimizerConfig, {"schedule": "cosin"}),
        (OptimizerConfig, {"schedule_updates": 0}),
        (OptimizerConfig, {"schedule_after": -1}),
        (OptimizerConfig, {"warm_up_updates": -1}),
        (OptimizerConfig, {"final_learning_rate": 0.5}),
        (OptimizerConfig, {"final_learning_rate": math.nan}),
        (TrainingConfig, {"accumulate": 0}),
        (TrainingConfig, {"accumulate": 7}),
        (TrainingConfig, {"chunk_steps": 7}),
        (TrainingConfig, {"chunk_steps": 0}),
        (TrainingConfig, {"cold_start_steps": -1}),
        (ClosedLoopConfig, {"fraction": 1.5}),
        (ClosedLoopConfig, {"steps": 0}),
        (ClosedLoopConfig, {"after_updates": -1}),
        (HeadLossConfig, {"reward_weight": -1.0}),
        (HeadLossConfig, {"termination_weight": math.inf}),
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
        ModelConfig(slots=3, initial_prediction=0.25, heads=True, theta_update="gated"),
        TrainingConfig(
            sequence_steps=2,
            step_weights=(1.0, 0.5),
            chunk_steps=1,
            closed_loop=ClosedLoopConfig(0.5, 3, 10),
            head_loss=HeadLossConfig(2.0, 3.0),
            loss=LossConfig(0.5, 1e-3),
            noise=NoiseConfig("none", 0.1, per_sequence=True),
            optimizer=OptimizerConfig(
                "sgd",
                1e-4,
                clip_norm=2.0,
                clip_by="global",
                clip_factor=1.5,
                schedule="cosine",
                schedule_after=5,
                schedule_updates=20,
                final_learning_rate=1e-5,
                warm_up_updates=3,
            ),
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
