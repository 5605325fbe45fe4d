"""From a dataset and options to a trainer that is ready to run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import LoaderConfig, SequenceLoader
from rnem_world.data.schema import Split
from rnem_world.distributed import ALONE, Processes
from rnem_world.errors import CheckpointError, ConfigError, OutputError
from rnem_world.io import writing
from rnem_world.models.config import architecture_for
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import derive_seed
from rnem_world.training import checkpoint, run_folder
from rnem_world.training.config import RunConfig, TrainingConfig
from rnem_world.training.execution import check_device
from rnem_world.training.learner import check_shares
from rnem_world.training.run_lock import RunLock
from rnem_world.training.trainer import Trainer


def fit_model_to(
    dataset: Dataset, config: RunConfig, feed_actions: bool, architecture: str | None
) -> RunConfig:
    """Chooses what the data decides: the architecture, the channels and the number of actions.

    Args:
        dataset: The data; its training split is looked at.
        config: The run, complete but for that.
        feed_actions: Whether the model is told the actions.
        architecture: The user's choice; None takes the one for the size of the frames.

    Raises:
        ConfigError: If actions or rewards are wanted and the data has none, or no architecture fits.
        DataError: If there is no training split.
    """
    info = dataset.info("training")
    if feed_actions and info.number_of_actions is None:
        raise ConfigError(
            f"--feed-actions: {dataset.path} holds no actions; collect from an environment with a player "
            "(`rnem-world collect --preset control`) or leave the flag out"
        )
    if config.model.heads and not {"rewards", "terminations"} & set(info.arrays):
        raise ConfigError(
            f"model.heads: {dataset.path} holds neither rewards nor terminations; collect from an environment with a "
            "player (`rnem-world collect --preset avoid`) or set heads to false"
        )
    if architecture is None:
        if info.height != info.width:
            raise ConfigError(
                f"the frames in {dataset.path} are {info.height}x{info.width}, square ones are needed: import them "
                "again with --size"
            )
        architecture = architecture_for(info.height)
    actions = info.number_of_actions if feed_actions else None
    model = replace(
        config.model, architecture=architecture, channels=info.channels, number_of_actions=actions or 0
    )
    config = replace(
        config, model=model, data=str(dataset.path), environment=dataset.attributes.environment_id
    )
    check_fits(config, info.channels, (info.height, info.width), info.number_of_actions)
    return config


def wanted_arrays(dataset: Dataset, split: Split, config: RunConfig) -> list[str]:
    """Lists the arrays that training and evaluation can make use of, among those that are there."""
    wish = config.training.relational_loss
    there = dataset.info(split).arrays
    names = ["groups"] if "groups" in there else []
    marks = ["collisions", "events"] if wish is None else [wish]
    names += [name for name in marks if name in there][:1]
    if wish not in (None, "none") and wish not in there:
        dataset.require(split, [str(wish)])
    if config.model.number_of_actions:
        dataset.require(split, ["actions"])
        names.append("actions")
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
        ),
        seed=options.seed,
        rank=processes.rank if is_training else 0,
        world_size=shares,
        arrays=names,
    )


def make_trainer(
    config: RunConfig,
    dataset: Dataset,
    run: Path,
    device: torch.device,
    report: Callable[[str], None],
    resume: bool = False,
    start_from: str | None = None,
    processes: Processes = ALONE,
) -> Trainer:
    """Prepares a run's folder and its trainer.

    Args:
        config: The run, as :func:`fit_model_to` completes it.
        dataset: The data.
        run: The run's folder.
        device: Where to train.
        report: Receives lines for people.
        resume: Continue the run that is there.
        start_from: A checkpoint whose weights the model starts with.
        processes: Those that train together; the first one writes.

    Raises:
        ConfigError: If data and model don't fit, or the processes can't share a batch evenly.
        CheckpointError: If there is nothing to resume, or the starting weights belong to another model.
        DataError: If the data is damaged.
        OutputError: If a run is in the way, another training has the folder, or it can't be made; nothing is left
            behind then.
    """
    options: TrainingConfig = config.training
    info = dataset.info("training")
    check_fits(config, info.channels, (info.height, info.width), info.number_of_actions)
    check_shares(options, processes)
    check_device(options.execution, device)
    training = make_loader(dataset, "training", config, options.train_size, processes)
    validation = make_loader(dataset, "validation", config, options.valid_size, processes)
    if start_from is not None:
        model = checkpoint.start_model(config.model, start_from)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(options.seed, "weights"))
            model = WorldModel(config.model)
    model = checkpoint.to_device(model, device)
    trainer = Trainer(model, config, run, training, validation, report, processes)
    if resume:
        if processes.is_first and run.is_dir():
            trainer.lock.acquire()
        trainer.resume()
        if processes.is_first:
            checkpoint.write_run_config(run, config)
    elif processes.is_first:
        with _folder_of(run, trainer.lock):
            _check_free(run)
            checkpoint.write_run_config(run, config)
            trainer.begin()
    else:
        trainer.begin()
    return trainer


def _check_free(run: Path) -> None:
    """Refuses a folder in which a run would overwrite something; what a run left before its first checkpoint may go."""
    if run_folder.updates_of(run):
        raise OutputError(
            f"{run} already holds a run: continue it with --resume, or choose another folder with --out"
        )
    if (run / run_folder.CONFIG_FILE).is_file():
        try:
            checkpoint.read_config(run)
        except CheckpointError as error:
            raise OutputError(
                f"{error}; it would be overwritten: choose another folder with --out"
            ) from error


@contextmanager
def _folder_of(run: Path, lock: RunLock) -> Iterator[None]:
    """Makes a run's folder and takes its lock; if the block fails, what wasn't there before is removed."""
    made = next((folder for folder in (*reversed(run.parents), run) if not folder.exists()), None)
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    before = set(run.iterdir())
    lock.acquire()
    try:
        yield
    except BaseException:
        lock.release()
        for path in [made] if made is not None else set(run.iterdir()) - before:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def check_fits(config: RunConfig, channels: int, size: tuple[int, int], actions: int | None) -> None:
    """Checks that a dataset is one the model can be trained or run on.

    Args:
        config: The run.
        channels: Channels of the data's frames.
        size: Height and width of the data's frames.
        actions: Number of actions in the data; None if it has none.

    Raises:
        ConfigError: If frames or actions differ from the model's.
    """
    model = config.model
    needed = model.image.image_size
    if size != (needed, needed) or channels != model.channels:
        raise ConfigError(
            f"the data's frames are {size[0]}x{size[1]} with {channels} channels, and the model "
            f"({model.architecture}) needs {needed}x{needed} with {model.channels}: choose other data or another "
            "--architecture"
        )
    if model.number_of_actions and actions != model.number_of_actions:
        given = "no actions" if actions is None else f"{actions} actions"
        raise ConfigError(
            f"the data has {given} and the model was made for {model.number_of_actions}: choose data of the same "
            "environment, or train without --feed-actions"
        )
