"""Before a run begins: configurations by name, what the data decides in them, and the loaders that follow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnem_world.config import build, merged
from rnem_world.data.dataset import Dataset, SplitInfo
from rnem_world.data.loader import LoaderConfig, SequenceLoader, read_batch
from rnem_world.data.schema import Split
from rnem_world.data.still import still_actions
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import ConfigError, suggest
from rnem_world.models.config import FAMILIES, MODELS, ActionsConfig, architecture_for
from rnem_world.models.likelihood import Likelihood
from rnem_world.physics.rules import PRESETS
from rnem_world.training.batches import batch_options
from rnem_world.training.config import RunConfig

# What a model needs to dream in, beyond the paper; each is an option of its own, see docs/world-model.md.
WORLD_MODEL: dict[str, Any] = {
    "model": {
        "hidden_size": 128,
        "attention_size": 64,
        "slot_inputs": "error_frame_motion",
        "theta_update": "gated",
        "heads": True,
        "heads_see": "slots_and_effects",
        "prior_code": True,
    },
    "training": {
        "sequence_steps": 72,
        "chunk_steps": 12,
        "cold_start_steps": 5,
        "window": "random",
        "batch_size": 32,
        "valid_size": 200,
        "patience": 100,
        "noise": {"per_sequence": True},
        "closed_loop": {"fraction": 0.3, "steps": 2, "after_updates": 3000, "latent_fraction": 0.5},
        "prior_code": {"after_updates": 3000},
        "head_loss": {"imagined_weight": 1.0},
        "rare_fraction": 0.25,
        "optimizer": {"clip_factor": 2.0},
    },
}
# The data that a world model of balls is trained on, where the user has none.
WORLD_DATA = {"num_train": 8000, "num_valid": 500, "num_test": 500, "frames": 101}

# Rewards that take more values than these are told by bins, so many of them.
MOST_VALUES, REWARD_BINS = 16, 41
# Sequences whose rewards are read at a time.
REWARDS_AT_ONCE = 4096
# A world of any environment imagines in training after so many updates, or after half of them if these are fewer.
MOST_BEFORE_DREAMS = 1000
# Sequences that frames are read from where a few frames of the data are wanted.
MOST_SEQUENCES = 200

ENVIRONMENTS = ("balls", "atari", "any")
# The paper's options for Atari (`enc_dec_84_atari`, which follows from the size of the frames) ...
ATARI: dict[str, Any] = {
    "model": {"slots": 4},
    "training": {
        "sequence_steps": 25,
        "batch_size": 32,
        "window": "random",
        "noise": {"probability": 0.002},
    },
}
# ... and what a world model of a game takes instead of the balls'.
ATARI_WORLD: dict[str, Any] = {
    "model": {"slots": 4},
    "training": {
        "sequence_steps": 48,
        "chunk_steps": 12,
        "batch_size": 16,
        "loss": {"motion_weight": 5.0},
        "noise": {"probability": 0.002, "per_sequence": True},
        "closed_loop": {"after_updates": 8000},
        "prior_code": {"after_updates": 8000},
    },
}

# What a world model of any other environment takes instead: things move far or hardly at all, and frames are few. How
# many of them an update sees is decided by the data, see `rnem_world.training.batches`.
ANY: dict[str, Any] = {"training": {"sequence_steps": 24, "batch_size": 32, "window": "random"}}
ANY_WORLD: dict[str, Any] = {
    "training": {
        "loss": {"motion_weight": 5.0},
        "noise": {"probability": 0.01, "per_sequence": True},
        "closed_loop": {"after_updates": MOST_BEFORE_DREAMS},
        "prior_code": {"after_updates": MOST_BEFORE_DREAMS},
    },
}


def paper_model(
    model: str = "r_nem", environment: str = "balls", options: Mapping[str, Any] | None = None
) -> RunConfig:
    """Gives the configuration with which the paper trains one of its models.

    Args:
        model: A key of :data:`rnem_world.models.config.MODELS`.
        environment: ``balls`` or a preset of theirs, ``atari``, or ``any`` for others.
        options: What shall be otherwise, nested, for example ``{"training": {"batch_size": 16}}``.

    Raises:
        ConfigError: If there is no such model or environment, or an option makes no sense.
    """
    return build(RunConfig, merged(usual_options(model, environment), options or {}))


def world_model(
    environment: str = "balls",
    options: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> RunConfig:
    """Gives the configuration of a model to dream in.

    Args:
        environment: ``balls`` or a preset of theirs, ``avoid`` for example, ``atari``, or ``any`` for others.
        options: What shall be otherwise, nested, for example ``{"model": {"slots": 6}}``.
        data: The dataset that the model is to be trained on. With ``any``, batches, sequences and the learning rate are
            made to fit it, but for those that ``options`` say; None takes its frames to be small, and sequences to be
            long and many. The others' options don't depend on it.

    Raises:
        ConfigError: If there is no such environment, or an option makes no sense.
        DataError: If there is no such dataset, or it has no training split.
    """
    given = options or {}
    info = info_for_training(data) if data is not None and environment == "any" else None
    return build(RunConfig, merged(usual_options("r_nem", environment, True, given, info), given))


def info_for_training(data: str | os.PathLike[str]) -> SplitInfo:
    """Gives the sizes of the training split of a dataset; no more frames than its validation split has, too.

    Args:
        data: The dataset's path.

    Raises:
        DataError: If there is none, or it has no training split.
    """
    with Dataset.open(data) as dataset:
        info = dataset.info("training")
        if "validation" in dataset.splits:
            frames = min(info.number_of_frames, dataset.info("validation").number_of_frames)
            info = replace(info, number_of_frames=frames)
    return info


def updates_of(options: Mapping[str, Any]) -> int | None:
    """Says how many updates options ask for, if they ask for any number that makes sense.

    Args:
        options: Nested options of a run.
    """
    updates = _training_of(options).get("max_updates")
    return updates if isinstance(updates, int) and updates > 0 else None


def _training_of(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Gives the options of the training among those of a run; none if they are no options."""
    training = options.get("training")
    return training if isinstance(training, Mapping) else {}


def usual_options(
    model: str,
    environment: str,
    is_world_model: bool = False,
    given: Mapping[str, Any] = MappingProxyType({}),
    info: SplitInfo | None = None,
) -> dict[str, Any]:
    """Gives the options of a kind of run, where they differ from those of the configuration's classes.

    A world model of any environment is shown its data as suits the data. If the length of its training is known, it
    learns to imagine in the second half at the latest, and its learning rate falls along a cosine to the end.

    Args:
        model: A key of :data:`rnem_world.models.config.MODELS`.
        environment: ``balls`` or a preset of theirs, ``atari``, or ``any`` for others.
        is_world_model: Whether to train a world model.
        given: What the user has chosen, nested, which is to win over these options: a world model of any environment
            gets others that go with it.
        info: What is known of the data that a world model of any environment is trained on; None if nothing is.

    Raises:
        ConfigError: If there is no such model or environment.
    """
    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}: {suggest(model, MODELS)}")
    if environment not in (*ENVIRONMENTS, *PRESETS):
        raise ConfigError(
            f"unknown environment {environment!r}: {suggest(environment, [*ENVIRONMENTS, *PRESETS])}"
        )
    core, slots = MODELS[model]
    values: dict[str, Any] = {"model": {"core": core, "slots": slots}}
    if is_world_model:
        values = merged(values, WORLD_MODEL)
    if environment == "any":
        values = merged(values, ANY_WORLD if is_world_model else ANY)
        if is_world_model:
            values = merged(values, {"training": batch_options(info, _training_of(given))})
        updates = updates_of(given)
        if is_world_model and updates is not None:
            begin = {"after_updates": min(MOST_BEFORE_DREAMS, updates // 2)}
            falling = {"schedule": "cosine", "schedule_updates": updates}
            paced = {"closed_loop": begin, "prior_code": begin, "optimizer": falling}
            values = merged(values, {"training": paced})
    if environment == "atari":
        values = merged(values, ATARI_WORLD if is_world_model else ATARI)
        if slots == 1:  # one stays one
            values = merged(values, {"model": {"slots": 1}})
    return values


def fit_model_to(
    dataset: Dataset,
    config: RunConfig,
    feed_actions: bool = False,
    architecture: str | None = None,
    takes_all: bool = False,
) -> RunConfig:
    """Chooses what the data decides: what a pixel is, the architecture, the channels and the number of actions.

    Frames of bits get the Bernoulli likelihood; colours and greys the mixture, whose slots see motion, and Gaussian
    noise of another strength in each sequence.

    Args:
        dataset: The data; its training split is looked at.
        config: The run, complete but for that.
        feed_actions: Whether the model shall see the actions.
        architecture: The user's choice; None takes the one for the size of the frames.
        takes_all: Whether to take all that a world model can use: actions and rewards where the data has them, and the
            architecture without convolutions where there is one for the size of the frames.

    Raises:
        ConfigError: If actions or rewards are wanted and the data has none, or a named architecture doesn't fit.
        DataError: If there is no training split.
    """
    info = dataset.info("training")
    given = config.model.size
    if architecture in FAMILIES and given is not None and given != (info.height, info.width):
        raise ConfigError(
            f"model.size is {given[0]}x{given[1]}, and the frames in {dataset.path} are {info.height}x{info.width}: "
            f"leave it out, the data decides it for {architecture}, or choose other data"
        )
    if takes_all:
        architecture = architecture or architecture_for(info.height, info.width, "projection")
        feed_actions = feed_actions or info.action_space is not None
        if "rewards" not in info.arrays:
            config = replace(config, model=replace(config.model, heads=False))
    if feed_actions and info.action_space is None:
        raise ConfigError(
            f"--feed-actions: {dataset.path} holds no actions; collect from an environment with a player "
            "(`rnem-world collect --preset control`) or leave the flag out"
        )
    if config.model.heads and not {"rewards", "terminations"} & set(info.arrays):
        raise ConfigError(
            f"model.heads: {dataset.path} holds neither rewards nor terminations; collect from an environment with a "
            "player (`rnem-world collect --preset avoid`) or set heads to false"
        )
    architecture = architecture or architecture_for(info.height, info.width)
    size = (info.height, info.width) if architecture in FAMILIES else None
    values = config.model.reward_values
    if config.model.heads and values is None and "rewards" in info.arrays:
        values = values_of_rewards(dataset)
    model = replace(
        config.model,
        reward_values=values,
        architecture=architecture,
        size=size,
        channels=info.channels,
        number_of_actions=(info.number_of_actions or 0) if feed_actions else 0,
        actions=_actions(dataset) if feed_actions else None,
    )
    noise = config.training.noise
    if dataset.attributes.maximum_value != 1:
        model = replace(model, likelihood="mixture", slot_inputs="error_frame_motion", initial_prediction=0.5)
        if noise.type != "none":
            noise = replace(noise, type="gaussian", per_sequence=True)
    config = replace(
        config,
        model=model,
        training=replace(config.training, noise=noise),
        environment=dataset.attributes.environment_id,
        action_space=dataset.attributes.action_space,
        recipe=dataset.attributes.settings.get("recipe"),
        still_actions=still_actions(dataset) if feed_actions else None,
    )
    check_trains(config, dataset)
    return config


def values_of_rewards(dataset: Dataset) -> tuple[float, ...]:
    """Lists the values that rewards take in the training split, among which the heads choose.

    Of more than `MOST_VALUES` the range is covered instead: by bins that lie denser towards 0, where most rewards are
    (evenly on a logarithmic scale in both directions), and one of which is 0 where 0 lies within.

    Args:
        dataset: The data, with rewards.
    """
    info = dataset.info("training")
    names = ["rewards", *({"is_first"} & set(info.arrays))]
    found = np.zeros(0, np.float32)
    for first in range(0, info.number_of_sequences, REWARDS_AT_ONCE):
        rows = range(first, min(first + REWARDS_AT_ONCE, info.number_of_sequences))
        read = dataset.read("training", rows, names)
        is_transition = np.ones(read["rewards"].shape, np.bool_)
        if "is_first" in read:  # no transition leads to the first frame of an episode
            is_transition[:-1] = ~read["is_first"][1:]
        found = np.union1d(found, read["rewards"][is_transition])
    if len(found) <= MOST_VALUES:
        return tuple(found.tolist())
    ends = np.sign(found[[0, -1]]) * np.log1p(np.abs(found[[0, -1]].astype(np.float64)))
    scale = np.linspace(ends[0], ends[1], REWARD_BINS)
    if ends[0] < 0.0 < ends[1]:
        scale[1 + np.abs(scale[1:-1]).argmin()] = 0.0
    bins = np.sign(scale) * np.expm1(np.abs(scale))
    bins[[0, -1]] = found[[0, -1]]
    return tuple(np.unique(bins.astype(np.float32)).tolist())


def _actions(dataset: Dataset) -> ActionsConfig | None:
    """Describes actions that are more than one whole number; what has no bounds gets those of the training data."""
    space = dataset.attributes.action_space
    if space is None or space.kind == "discrete":
        return None
    if space.kind != "box":
        return ActionsConfig(space.kind, sizes=space.sizes)
    low, high = list(space.low), list(space.high)
    if None in low or None in high:
        rows = range(dataset.info("training").number_of_sequences)
        actions = dataset.read("training", rows, ("actions",))["actions"].reshape(-1, space.length)
        least, greatest = actions.min(axis=0), actions.max(axis=0)
        # An action that is always the same needs some width to lie in.
        width = np.where(greatest > least, greatest - least, 1.0)
        low = [float(end) if known is None else known for known, end in zip(low, least, strict=True)]
        high = [
            float(begin + size) if known is None else known
            for known, begin, size in zip(high, least, width, strict=True)
        ]
    return ActionsConfig("box", low=_known(low), high=_known(high))


def _known(bounds: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(bound for bound in bounds if bound is not None)


def check_trains(config: RunConfig, dataset: Dataset) -> None:
    """Checks that a model can be trained on the training split of a dataset.

    Raises:
        ConfigError: If frames or actions differ from the model's, or noise or losses are not for such frames.
    """
    training, likelihood = config.training, config.model.likelihood
    largest = dataset.attributes.maximum_value
    suits = "bernoulli" if largest == 1 else "mixture"
    if likelihood != suits:
        raise ConfigError(
            f"the frames in {dataset.path} have values 0..{largest}, which the likelihood {suits} is for, and the "
            f"model's is {likelihood}: choose other data, or train a new model on these"
        )
    noise = "bitflip" if likelihood == "bernoulli" else "gaussian"
    if training.noise.type not in (noise, "none"):
        raise ConfigError(
            f"training.noise.type is {training.noise.type}, and the noise on such frames is {noise} or none"
        )
    loss = training.loss
    if likelihood == "mixture" and (loss.inter_weight, loss.pixel_prior) != (1.0, 0.0):
        raise ConfigError(
            f"training.loss has inter_weight {loss.inter_weight} and pixel_prior {loss.pixel_prior}, which frames of "
            "colours or greys have no use for: leave them out"
        )
    check_fits(config, dataset.info("training"))


def check_fits(config: RunConfig, info: SplitInfo) -> None:
    """Checks that a split of a dataset is one the model can be trained or run on.

    Raises:
        ConfigError: If frames or actions differ from the model's.
    """
    model, actions = config.model, info.number_of_actions
    height, width = model.frame_size
    if (info.height, info.width, info.channels) != (height, width, model.channels):
        raise ConfigError(
            f"the data's frames are {info.height}x{info.width} with {info.channels} channels, and the model "
            f"({model.architecture}) needs {height}x{width} with {model.channels}: choose other data or another "
            "--architecture"
        )
    some_may_not_occur = info.actions_are_counted and (actions or 0) <= model.number_of_actions
    if model.number_of_actions and actions != model.number_of_actions and not some_may_not_occur:
        given = "no actions" if actions is None else f"{actions} actions"
        raise ConfigError(
            f"the data has {given} and the model was made for {model.number_of_actions}: choose data of the same "
            "environment, or train without --feed-actions"
        )
    known, space = model.actions, info.action_space
    if known is not None and (space is None or (space.kind, space.length) != (known.kind, known.length)):
        given = "no actions" if space is None else space.described
        raise ConfigError(
            f"the data has {given} and the model was made for {known.kind} actions of {known.length} numbers: choose "
            "data of the same environment, or train without --feed-actions"
        )


def wanted_arrays(dataset: Dataset, split: Split, config: RunConfig) -> list[str]:
    """Lists the arrays that training and evaluation can make use of, among those that are there."""
    wish = config.training.relational_loss
    there = dataset.info(split).arrays
    names = ["groups"] if "groups" in there else []
    marks = ["collisions", "events"] if wish is None else [wish]
    names += [name for name in marks if name in there][:1]
    if wish not in (None, "none") and wish not in there:
        dataset.require(split, [str(wish)])
    if config.model.takes_actions:
        dataset.require(split, ["actions"])
        names.append("actions")
    if "is_first" in there:
        names.append("is_first")
    return names


def make_loader(
    dataset: Dataset, split: Split, config: RunConfig, limit: int | None, processes: Processes = ALONE
) -> SequenceLoader:
    """Makes the loader of a split; training batches are full and shuffled, others neither.

    Of several processes each gets its share of the training batches, and the other splits' whole batches. Together
    those of a machine keep no more in memory than one would.

    Args:
        dataset: The data.
        split: Which split.
        config: The run.
        limit: At most so many sequences; None takes all.
        processes: Those that share the training batches.
    """
    options = config.training
    there = dataset.info(split).number_of_sequences
    is_training = split == "training"
    shares = processes.world_size if is_training else 1
    names = wanted_arrays(dataset, split, config)
    earned = {"rewards", "terminations"} & set(dataset.info(split).arrays)
    draws_rare = is_training and config.model.heads and bool(earned)
    if is_training:  # collisions only weigh reported losses
        names = [name for name in names if name not in ("collisions", "events")]
        if config.model.heads:
            names += [name for name in ("rewards", "terminations") if name in dataset.info(split).arrays]
    return SequenceLoader(
        dataset,
        split,
        LoaderConfig(
            batch_size=options.batch_size // shares,
            number_of_frames=options.sequence_steps + 1,
            window=options.window if is_training else "start",
            limit=None if limit is None else min(limit, there),
            memory_gigabytes=options.memory_gigabytes / processes.per_machine,
            drop_last=is_training,
            shuffle=is_training,
            rare_fraction=options.rare_fraction if draws_rare else 0.0,
        ),
        seed=options.seed,
        rank=processes.rank if is_training else 0,
        world_size=shares,
        arrays=names,
    )


def some_frames(dataset: Dataset, number: int = 1000) -> Float[Tensor, "n c h w"]:
    """Reads frames of the training split, spread evenly over its sequences and over their time, in [0, 1].

    Args:
        dataset: The data.
        number: How many, if there are as many.
    """
    info = dataset.info("training")
    sequences = min(info.number_of_sequences, MOST_SEQUENCES)
    each = min(-(-number // sequences), info.number_of_frames)
    found = []
    for position, index in enumerate(np.linspace(0, info.number_of_sequences - 1, sequences).astype(int)):
        batch = read_batch(dataset, "training", [int(index)], arrays=())
        # Shifted from sequence to sequence, so that all times are met.
        times = (np.arange(each) * info.number_of_frames // each + position) % info.number_of_frames
        found.append(Likelihood.from_uint8(batch.frames[0, times], batch.maximum_value))
    return torch.cat(found)[:number]
