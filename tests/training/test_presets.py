"""Named configurations, and what a dataset decides in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rnem_world.actions import ActionSpace
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError
from rnem_world.models.config import LossConfig
from rnem_world.models.heads import shares_of_values
from rnem_world.models.world_model import WorldModel
from rnem_world.training.checkpoint import load_model, save_checkpoint, start_model
from rnem_world.training.config import NoiseConfig, RunConfig, TrainingConfig
from rnem_world.training.presets import (
    check_trains,
    fit_model_to,
    paper_model,
    some_frames,
    values_of_rewards,
    world_model,
)
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


def test_a_world_of_any_environment_is_paced_by_the_length_of_its_training():
    unknown = world_model("any").training
    assert unknown.optimizer.schedule == "constant"
    for updates in (1, 300, 10_000):
        training = world_model("any", {"training": {"max_updates": updates}}).training
        assert training.optimizer.rate_at(0) == unknown.optimizer.learning_rate
        assert training.optimizer.rate_at(updates) < 0.02 * unknown.optimizer.learning_rate
        begin = training.prior_code.after_updates
        assert (
            training.closed_loop.after_updates == begin == min(unknown.prior_code.after_updates, updates // 2)
        )
    own = {"max_updates": 300, "prior_code": {"after_updates": 7}, "optimizer": {"schedule": "linear"}}
    training = world_model("any", {"training": own}).training
    assert (training.prior_code.after_updates, training.closed_loop.after_updates) == (7, 150)
    assert (training.optimizer.schedule, training.optimizer.schedule_updates) == ("linear", 300)
    assert world_model("avoid", {"training": {"max_updates": 300}}).training.optimizer.schedule == "constant"


def data_of(path: Path, frames: int, sequences: int, shape: tuple[int, ...], validation: int = 0) -> Path:
    """Black frames; validation sequences have another number of them if one is given."""
    splits = {
        split: EpisodeBatch(np.zeros((length, number, *shape), np.uint8))
        for split, length, number in (
            ("training", frames, sequences),
            ("validation", validation or frames, 2),
        )
    }
    write_shard(path, splits, DatasetAttributes())
    return path


def shown(data: Path | None = None, **options: object) -> tuple[int, int | None, int, float]:
    """How a world of any environment is shown its data: steps, those of a chunk, the batch, the learning rate."""
    training = world_model("any", {"training": options}, data).training
    rate = training.optimizer.learning_rate
    return training.sequence_steps, training.chunk_steps, training.batch_size, rate


@pytest.mark.parametrize(
    ("frames", "sequences", "shape", "expected"),
    [
        (51, 70, (32, 48, 3), (48, 6, 64, 2e-3)),
        (51, 70, (36, 64, 3), (48, 12, 16, 1e-3)),
        (49, 64, (8, 8, 1), (48, 6, 64, 2e-3)),
        (48, 63, (8, 8, 1), (42, 6, 63, 2e-3)),
        (20, 15, (36, 64, 3), (12, 12, 15, 1e-3)),
        (12, 3, (36, 64, 3), (11, 11, 3, 1e-3)),
        (2, 1, (8, 8, 1), (1, 1, 1, 2e-3)),
    ],
)
def test_a_world_of_any_environment_is_shown_its_data_as_suits_that(
    frames, sequences, shape, expected, tmp_path
):
    data = data_of(tmp_path / "a.h5", frames, sequences, shape)
    assert shown(data) == expected
    assert world_model("avoid", data=data) == world_model("avoid")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 64}, (12, 12, 64, 1e-3)),
        ({"optimizer": {"learning_rate": 0.5}}, (12, 12, 10, 0.5)),
        ({"optimizer": {"final_learning_rate": 1.5e-3}}, (12, 12, 10, 1.5e-3)),
        ({"optimizer": {"final_learning_rate": 5e-4}}, (12, 12, 10, 1e-3)),
        ({"sequence_steps": 14, "chunk_steps": 2}, (14, 2, 10, 1e-3)),
        # What is given makes the other fit.
        ({"sequence_steps": 16}, (16, 16, 10, 1e-3)),
        ({"sequence_steps": 15}, (15, 15, 10, 1e-3)),
        ({"sequence_steps": 40}, (40, 10, 10, 1e-3)),
        ({"chunk_steps": 5}, (15, 5, 10, 1e-3)),
        ({"chunk_steps": None}, (19, None, 10, 1e-3)),
        ({"accumulate": 4}, (12, 12, 8, 1e-3)),
        ({"train_size": 7}, (12, 12, 7, 1e-3)),
        # More than the data has is refused by the training, which says what there is.
        ({"chunk_steps": 30}, (30, 30, 10, 1e-3)),
        ({"accumulate": 20}, (12, 12, 20, 1e-3)),
    ],
)
def test_what_the_user_says_of_it_wins_over_what_suits_the_data(options, expected, tmp_path):
    data = data_of(tmp_path / "a.h5", 20, 10, (36, 64, 3))
    assert shown(data, **options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (48, 6, 64, 2e-3)),
        ({"sequence_steps": 40}, (40, 5, 64, 2e-3)),
        ({"sequence_steps": 41}, (41, 41, 64, 2e-3)),
        ({"sequence_steps": 1}, (1, 1, 64, 2e-3)),
        ({"chunk_steps": 10}, (40, 10, 64, 2e-3)),
        ({"chunk_steps": 50}, (50, 50, 64, 2e-3)),
        ({"train_size": 5}, (48, 6, 5, 2e-3)),
        ({"accumulate": 3}, (48, 6, 63, 2e-3)),
    ],
)
def test_before_there_is_data_only_the_user_decides(options, expected):
    assert shown(**options) == expected


def test_short_validation_sequences_are_long_enough_too(tmp_path):
    data = data_of(tmp_path / "a.h5", 30, 8, (8, 8, 1), validation=15)
    assert shown(data)[:2] == (12, 6)
    options = {"model": {"hidden_size": 16, "slots": 2, "heads": False}, "training": {"max_updates": 1}}
    trainer = train(data, world_model("any", options, data), tmp_path / "run", device="cpu")
    assert trainer.evaluation is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_steps": 0}, "sequence_steps is 0"),
        ({"optimizer": {"final_learning_rate": 3e-3}}, "final_learning_rate is 0.003"),
        ({"sequence_steps": "x"}, "sequence_steps is 'x'"),
        ({"chunk_steps": -2}, "chunk_steps is -2"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"train_size": 0}, "train_size is 0"),
        ({"sequence_steps": 10, "chunk_steps": 4}, "chunk_steps is 4, it must divide the 10 steps"),
        ({"batch_size": 10, "accumulate": 4}, "accumulate is 4, it must divide"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_their_own_names(options, message):
    with pytest.raises(ConfigError, match=message):
        shown(**options)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (world_model, ["avoidd"], "did you mean 'avoid'"),
        (paper_model, ["r_nemm"], "did you mean 'r_nem'"),
        (paper_model, ["r_nem", "balls", {"training": {"batch": 3}}], "unknown option 'training.batch'"),
        (world_model, ["any", {"training": {"max_updates": 0}}], "max_updates is 0"),
        (world_model, ["any", {"training": 3}], "training"),
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


def frames_file(path: Path, maximum_value: int, channels: int) -> Path:
    """Discs' size of frames with random bits, over a grey, or bits alone, where the maximum is 1."""
    frames = np.random.default_rng(0).integers(0, 2, (5, 6, 32, 32, channels), np.uint8)
    if maximum_value > 1:
        frames = 40 + frames * np.uint8(200) * (np.arange(32) < 8).astype(np.uint8)[:, None, None]
    splits = dict.fromkeys(("training", "validation"), EpisodeBatch(features=frames))
    attributes = DatasetAttributes("Discs-v0", {}, 0, maximum_value=maximum_value)
    write_shard(path, splits, attributes)
    return path


TINY = TrainingConfig(sequence_steps=3, batch_size=4, max_updates=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_bits_get_a_bernoulli(channels, tmp_path):
    with Dataset.open(frames_file(tmp_path / "bits.h5", 1, channels)) as dataset:
        config = fit_model_to(dataset, RunConfig(training=TINY))
    assert (config.model.likelihood, config.model.channels) == ("bernoulli", channels)
    assert config.training.noise == TINY.noise


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_and_greys_get_a_mixture(channels, tmp_path):
    path = frames_file(tmp_path / "colours.h5", 255, channels)
    trainer = train(path, RunConfig(training=TINY), tmp_path / "run", device="cpu")
    model, noise = trainer.model.config, trainer.config.training.noise
    assert (model.likelihood, model.channels, model.initial_prediction) == ("mixture", channels, 0.5)
    assert (noise.type, noise.strength, noise.usual_strength) == ("gaussian", 0.3, 0.0)
    assert trainer.evaluation is not None
    assert np.isfinite(trainer.evaluation.loss)
    background = load_model(tmp_path / "run")[0].likelihood.background
    # The median of the training frames, and one update of 0.001.
    torch.testing.assert_close(background[:, 8:].mean(), torch.tensor(40 / 255), atol=2e-3, rtol=0)
    again = train(path, trainer.config, tmp_path / "run", device="cpu", resume=True)
    torch.testing.assert_close(again.model.likelihood.background, background)


@pytest.mark.parametrize(
    ("shape", "takes_all", "architecture"),
    [
        ((5, 5, 5), False, "conv"),
        ((36, 64, 1), True, "projection"),
        ((64, 64, 1), False, "conv64"),
        ((84, 84, 1), True, "projection84"),
    ],
)
def test_frames_of_any_size(shape, takes_all, architecture, tmp_path):
    frames = np.random.default_rng(0).integers(0, 2, (5, 4, *shape), np.uint8)
    splits = dict.fromkeys(("training", "validation"), EpisodeBatch(features=frames))
    write_shard(tmp_path / "a.h5", splits, DatasetAttributes())
    with Dataset.open(tmp_path / "a.h5") as dataset:
        config = fit_model_to(dataset, RunConfig(training=TINY), takes_all=takes_all)
    assert config.model.architecture == architecture
    assert (*config.model.frame_size, config.model.channels) == shape
    if max(shape) < 64:
        trainer = train(tmp_path / "a.h5", config, tmp_path / "run", device="cpu", takes_all=takes_all)
        assert trainer.progress.updates == 1
        assert load_model(tmp_path / "run")[0].config == config.model


def test_what_suits_other_frames_is_refused(tmp_path):
    bits = frames_file(tmp_path / "bits.h5", 1, 3)
    colours = frames_file(tmp_path / "colours.h5", 255, 3)
    with Dataset.open(colours) as dataset:
        config = fit_model_to(dataset, RunConfig(training=TINY))
        loss = dataclasses.replace(TINY, loss=LossConfig(pixel_prior=0.1))
        with pytest.raises(ConfigError, match="no use for"):
            fit_model_to(dataset, RunConfig(training=loss))
        with pytest.raises(ConfigError, match="type is bitflip, and the noise on such frames is gaussian"):
            check_trains(dataclasses.replace(config, training=TINY), dataset)
    with Dataset.open(bits) as dataset:
        with pytest.raises(ConfigError, match=r"values 0\.\.1, which the likelihood bernoulli is for"):
            Trainer(config, dataset, tmp_path / "run", torch.device("cpu"), lambda line: None)
        gaussian = dataclasses.replace(TINY, noise=NoiseConfig("gaussian"))
        with pytest.raises(ConfigError, match="noise on such frames is bitflip"):
            fit_model_to(dataset, RunConfig(training=gaussian))
    assert not (tmp_path / "run").exists()


def test_some_frames_are_of_all_sequences_and_times(tmp_path):
    features = np.zeros((4, 3, 32, 32, 1), np.uint8)
    features[:] = (10 * np.arange(4)[:, None] + np.arange(3))[..., None, None, None]
    attributes = DatasetAttributes(maximum_value=255)
    write_shard(tmp_path / "a.h5", {"training": EpisodeBatch(features)}, attributes)
    with Dataset.open(tmp_path / "a.h5") as dataset:
        every = some_frames(dataset, 1000)[:, 0, 0, 0] * 255
        assert sorted(every.round().int().tolist()) == sorted(features[:, :, 0, 0, 0].flatten().tolist())
        few = (some_frames(dataset, 3)[:, 0, 0, 0] * 255).round().int().tolist()
    assert [frame % 10 for frame in few] == [0, 1, 2]
    assert len({frame // 10 for frame in few}) == 3


def rewarded(path: Path, rewards: np.ndarray) -> Dataset:
    frames = np.zeros((*rewards.shape, 8, 8, 1), np.uint8)
    batch = EpisodeBatch(
        frames,
        actions=np.zeros(rewards.shape, np.int64),
        rewards=rewards.astype(np.float32),
        terminations=np.zeros(rewards.shape, np.bool_),
    )
    write_shard(path, {"training": batch}, DatasetAttributes(number_of_actions=2))
    return Dataset.open(path)


def test_rewards_of_few_values_become_classes(tmp_path):
    rewards = np.random.default_rng(0).choice([-1.0, 0.0, 0.1, 5.0], size=(6, 40))
    with rewarded(tmp_path / "few.h5", rewards) as dataset:
        model = fit_model_to(dataset, world_model(), takes_all=True).model
    assert model.reward_values == tuple(np.float32([-1.0, 0.0, 0.1, 5.0]).tolist())
    assert model.heads_see == "slots_and_effects"


def test_rewards_of_many_values_get_bins_over_their_range(tmp_path):
    rewards = np.random.default_rng(0).normal(0.5, 20.0, size=(6, 40)).astype(np.float32)
    with rewarded(tmp_path / "many.h5", rewards) as dataset:
        values = values_of_rewards(dataset)
    assert (values[0], values[-1]) == (float(rewards.min()), float(rewards.max()))
    assert 0.0 in values
    assert 30 < len(values) <= 41
    gaps = np.diff(values)
    assert gaps[np.argmin(np.abs(values)) - 1] < 0.1 * gaps.max()  # denser towards 0
    targets = shares_of_values(torch.from_numpy(rewards), torch.tensor(values))
    torch.testing.assert_close(
        targets @ torch.tensor(values), torch.from_numpy(rewards), atol=1e-4, rtol=1e-4
    )


def test_what_is_no_transition_has_no_reward(tmp_path):
    """As in a game that pays 1 for every step: the way to the first frame of the next episode pays nothing."""
    rewards, is_first = np.ones((6, 4), np.float32), np.zeros((6, 4), np.bool_)
    is_first[3], rewards[2] = True, 0.0
    batch = EpisodeBatch(np.zeros((6, 4, 8, 8, 1), np.uint8), rewards=rewards, is_first=is_first)
    write_shard(tmp_path / "paid.h5", {"training": batch}, DatasetAttributes())
    with Dataset.open(tmp_path / "paid.h5") as dataset:
        assert values_of_rewards(dataset) == (1.0,)


def test_values_that_are_configured_stay(tmp_path):
    config = world_model(options={"model": {"reward_values": (-2.0, 0.0)}})
    with rewarded(tmp_path / "few.h5", np.zeros((6, 4))) as dataset:
        assert fit_model_to(dataset, config, takes_all=True).model.reward_values == (-2.0, 0.0)


def test_weights_of_other_heads_leave_new_ones_as_they_are(tmp_path):
    old = WorldModel(dataclasses.replace(world_model().model, architecture="projection32", heads_see="slots"))
    save_checkpoint(tmp_path / "old", old, RunConfig(old.config))
    torch.manual_seed(1)
    config = dataclasses.replace(old.config, heads_see="slots_and_effects", reward_values=(-1.0, 0.0))
    new = start_model(config, tmp_path / "old")
    assert torch.equal(new.core.update.weight, old.core.update.weight)
    assert torch.equal(new.prior_code.code.weight, old.prior_code.code.weight)
    assert not new.heads.parts.weight.any()


SPACES = {
    "discrete": ActionSpace("discrete", (3,), (-1,)),
    "multi_discrete": ActionSpace("multi_discrete", (2, 5), shape=(2,)),
    "multi_binary": ActionSpace("multi_binary", (2, 2, 2), shape=(3,), dtype="int8"),
    "box": ActionSpace("box", low=(-1.0,), high=(2.0,), shape=(1,), dtype="float32"),
    "unbounded": ActionSpace("box", low=(None, 0.0), high=(None, None), shape=(2,), dtype="float32"),
}


@pytest.mark.parametrize("kind", SPACES)
def test_actions_of_every_kind_are_trained_on(kind, tmp_path):
    space, generator = SPACES[kind], np.random.default_rng(0)
    shape = (7, 6, *space.stored_shape)
    if space.kind == "box":
        actions = generator.normal(size=shape).astype(np.float32)
    else:
        actions = generator.integers(0, space.sizes if space.stored_shape else space.sizes[0], shape)
    is_first = np.zeros((7, 6), np.bool_)
    is_first[3, ::2] = True
    episodes = EpisodeBatch(
        features=generator.integers(0, 2, (7, 6, 8, 12, 2), np.uint8),
        actions=actions,
        rewards=generator.normal(size=(7, 6)).astype(np.float32),
        terminations=np.roll(is_first, -2, axis=0),
        truncations=np.zeros_like(is_first),
        is_first=is_first,
    )
    attributes = DatasetAttributes(
        "Any-v0",
        {"recipe": {"id": "Any-v0", "size": [8, 12]}},
        0,
        number_of_actions=space.sizes[0] if space.is_discrete else None,
        action_space=space,
    )
    path = tmp_path / "any.h5"
    write_shard(path, dict.fromkeys(("training", "validation"), episodes), attributes)
    with Dataset.open(path) as dataset:
        assert dataset.attributes == attributes
        read = dataset.read("training", range(6), ("actions", "is_first"))
    np.testing.assert_array_equal(read["actions"], actions)
    np.testing.assert_array_equal(read["is_first"], is_first)
    options = {
        "model": {"hidden_size": 16, "attention_size": 8, "slots": 2},
        "training": {"sequence_steps": 6, "chunk_steps": 3, "batch_size": 4, "max_updates": 2},
    }
    config = world_model(options=options)
    trainer = train(path, config, tmp_path / "run", device="cpu", takes_all=True, report=lambda line: None)
    assert trainer.evaluation is not None
    _, known = load_model(tmp_path / "run")
    assert known.action_space == space
    assert known.recipe == {"id": "Any-v0", "size": [8, 12]}
    model = known.model
    if space.is_discrete:
        assert (model.number_of_actions, model.actions) == (3, None)
    else:
        assert model.actions is not None
        assert (model.actions.kind, model.actions.length) == (space.kind, space.length)
    if kind == "unbounded":
        assert model.actions.low == (pytest.approx(actions[..., 0].min()), 0.0)
        assert model.actions.high == pytest.approx(tuple(actions.max(axis=(0, 1))))
