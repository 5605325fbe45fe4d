"""Checkpoints: folders of ``config.json``, ``model.safetensors`` and, to train on, ``trainer.pt``; and where they are.

Shipped worlds are named (``balls``), repositories of the Hugging Face Hub too (``hf://owner/name``); all else is a
path, ``./balls`` for example. A checkpoint appears whole or not at all. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rnem_world.config import as_path, build
from rnem_world.errors import CheckpointError, ConfigError, suggest
from rnem_world.io import atomic_folder, write_json
from rnem_world.models.config import ModelConfig
from rnem_world.models.world_model import WorldModel
from rnem_world.training.config import RunConfig
from rnem_world.training.hub import HUB, download

FORMAT, FORMAT_VERSION = "rnem-world checkpoint", 1
CONFIG_FILE, MODEL_FILE, TRAINER_FILE = "config.json", "model.safetensors", "trainer.pt"
CHECKPOINTS, BEST_FILE = "checkpoints", "best.json"
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
DATA_FROM_HERE = "data_from_here"
"""In a ``config.json``: where the data is, as seen from its folder."""

ADDED: Mapping[str, float] = {"prior_code.gain": 1.0, "prior_code.shift": 0.0}
"""Numbers of a model that older files lack, with values that change nothing."""

_NAME = re.compile(r"update-\d+")


def pretrained_names() -> list[str]:
    """Lists the worlds that are shipped with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_FILE}"))


def updates_of(run: Path) -> list[Path]:
    """Lists a run's checkpoints, the oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("update-*") if _NAME.fullmatch(path.name))


def best_of(run: Path) -> Path | None:
    """Finds a run's best checkpoint; None if there is none yet, or it was deleted.

    Raises:
        CheckpointError: If ``best.json`` is broken.
    """
    path = run / BEST_FILE
    try:
        values = json.loads(path.read_text())
        best = run / CHECKPOINTS / str(values["checkpoint"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is broken ({error}): delete it, or name a checkpoint in {run / CHECKPOINTS}"
        ) from error
    return best if (best / MODEL_FILE).is_file() else None


def find_checkpoint(given: str | Path, prefer: str = "best") -> Path:
    """Finds the checkpoint folder that a path or a name means.

    What a name means doesn't depend on the working directory: a folder that is called as a shipped world is meant by
    ``./balls``, ``balls/`` or a ``Path``.

    Args:
        given: A checkpoint, a run (then its best or last checkpoint), the name of a shipped world, or
            ``hf://owner/name``, a repository of the Hugging Face Hub, all of which is downloaded first.
        prefer: ``best`` or ``last``.

    Returns:
        The folder, absolute.

    Raises:
        CheckpointError: If there is none.
        DependencyError: If it is a repository and huggingface_hub isn't installed.
    """
    if isinstance(given, str) and given.startswith(HUB):
        given = download(given)
    shipped = pretrained_names()
    folder = as_path(given, shipped)
    if folder is None:
        return PRETRAINED / given
    if (folder / MODEL_FILE).is_file():
        return folder
    updates = updates_of(folder)
    if updates:
        best = best_of(folder) if prefer == "best" else None
        return updates[-1] if best is None else best
    if folder.exists():
        raise CheckpointError(f"{given} holds no checkpoint (no {MODEL_FILE} and no {CHECKPOINTS}/update-*)")
    raise CheckpointError(
        f"there is no checkpoint at {given}: give a run folder or a checkpoint folder{_meant(given, shipped)}"
    )


def _meant(given: str | Path, shipped: list[str]) -> str:
    """Says what may be meant by a path where nothing is."""
    name, folder = str(given), Path(given)
    if folder.name in shipped:
        return f"; the shipped world is named {folder.name}, without a folder"
    hint = f"; of the shipped worlds: {suggest(name, shipped)}" if shipped else ""
    if len(folder.parts) == 2 and "." not in folder.parts[0] and not folder.parent.exists():
        hint += f"; a repository of the Hugging Face Hub is named {HUB}{name}"
    return hint


def _config_values(config: RunConfig, folder: Path) -> dict[str, Any]:
    values = {"format": FORMAT, "version": FORMAT_VERSION, **dataclasses.asdict(config)}
    if config.data_path is not None:
        values[DATA_FROM_HERE] = os.path.relpath(config.data_path, folder)
    return values


def write_run_config(run: Path, config: RunConfig) -> None:
    """Writes the run's own ``config.json``.

    Raises:
        OutputError: If it can't be written.
    """
    write_json(run / CONFIG_FILE, _config_values(config, run))


def save_checkpoint(
    folder: Path, model: WorldModel, config: RunConfig, trainer: Mapping[str, Any] | None = None
) -> None:
    """Writes a checkpoint folder at once or not at all; an existing one of that name is replaced.

    Args:
        folder: The checkpoint's own folder.
        model: The weights to keep.
        config: The run, which fixes the model.
        trainer: Training state of tensors and plain values; None leaves it out.

    Raises:
        OutputError: If it can't be written; what was there before is unharmed.
    """
    with atomic_folder(folder) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(_config_values(config, folder), indent=2) + "\n")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        try:
            save_file(tensors, temporary / MODEL_FILE)
        except SafetensorError as error:
            raise OSError(0, str(error)) from error
        if trainer is not None:
            try:
                torch.save(dict(trainer), temporary / TRAINER_FILE)
            except RuntimeError as error:  # torch reports a full disk so
                raise OSError(0, str(error).splitlines()[0]) from error


def read_config(folder: Path) -> RunConfig:
    """Reads the configuration of a run's or a checkpoint's folder.

    Data that is gone from its place is looked for where it would be if it had been moved along with the run. Runs of
    earlier versions only say what was given when they began: the folders above the run are looked through for it, then
    the working directory.

    Raises:
        CheckpointError: If it is missing, broken, or of another program.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON file ({error}): the checkpoint is broken") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} is not the configuration of a rnem-world checkpoint")
    version, from_here = values.pop("version", None), values.pop(DATA_FROM_HERE, None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the format version {version}, this program reads {FORMAT_VERSION}: update rnem-world"
        )
    try:
        config = build(RunConfig, values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    data, folder = config.data_path, folder.absolute()
    if data is None or (data.is_absolute() and data.exists()):
        return config
    if data.is_absolute():
        places = [] if from_here is None else [Path(os.path.normpath(folder / str(from_here)))]
    else:
        places = [parent / data for parent in (*folder.parents, Path.cwd())]
    return dataclasses.replace(config, data=str(next((place for place in places if place.exists()), data)))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a checkpoint folder.

    Raises:
        CheckpointError: If the file is missing or is no safetensors file, a pickle for example.
    """
    path = folder / MODEL_FILE
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); pickled weights are never loaded: convert them"
        ) from error
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror or error}") from error


def load_weights(model: WorldModel, folder: Path, may_lack: tuple[str, ...] = ()) -> None:
    """Fills a model from a checkpoint folder; half-precision weights are widened.

    Args:
        model: The model to fill.
        folder: The checkpoint.
        may_lack: Parts of the model, by the names of its modules, that a checkpoint without them, or with others of
            that name, leaves as they are.

    Raises:
        CheckpointError: If the weights are broken or of another model; the model is then unchanged.
    """
    weights = read_weights(folder)
    expected = model.state_dict()
    for name, value in ADDED.items():
        if name in expected:
            weights.setdefault(name, torch.full_like(expected[name], value))
    for part in may_lack:
        own, given = (
            {name: tensor for name, tensor in values.items() if name.startswith(f"{part}.")}
            for values in (expected, weights)
        )
        if {name: tensor.shape for name, tensor in given.items()} != {
            name: tensor.shape for name, tensor in own.items()
        }:
            weights = {name: tensor for name, tensor in weights.items() if name not in given} | own
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        detail = f"lacks {missing[0]!r}" if missing else f"has an unknown {unknown[0]!r}"
        raise CheckpointError(f"{folder / MODEL_FILE} belongs to another model: it {detail}")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder / MODEL_FILE} belongs to another model: {name!r} has shape "
                f"{tuple(weights[name].shape)}, {tuple(tensor.shape)} was expected"
            )
    model.load_state_dict(weights)


def load_model(
    given: str | Path, device: str | torch.device = "cpu", prefer: str = "best"
) -> tuple[WorldModel, RunConfig]:
    """Loads a trained model, ready to evaluate.

    Args:
        given: A checkpoint, a run, or a world's name, see :func:`find_checkpoint`.
        device: Where to put it.
        prefer: Of a run, the ``best`` or the ``last`` checkpoint.

    Raises:
        CheckpointError: If it can't be loaded.
        DependencyError: If it is a repository of the Hub and huggingface_hub isn't installed.
    """
    folder = find_checkpoint(given, prefer)
    config = read_config(folder)
    model = WorldModel(config.model)
    load_weights(model, folder)
    return to_device(model, device).eval(), config


def to_device(model: WorldModel, device: str | torch.device) -> WorldModel:
    """Moves a model, its convolutions in the memory layout that is quickest."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_trainer(folder: Path) -> dict[str, Any]:
    """Reads the training state of a checkpoint folder.

    Raises:
        CheckpointError: If there is none or it is broken.
    """
    path = folder / TRAINER_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no training state ({TRAINER_FILE}): start from it with --start-from"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is broken, or holds more than numbers, which is never loaded: delete {folder} to resume an "
            "older checkpoint"
        ) from error
    except Exception as error:  # torch raises errors of many kinds for a broken file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} is broken ({reason}): delete {folder} to resume an older checkpoint"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds no training state: delete {folder} to resume an older checkpoint"
        )
    return state


def start_model(config: ModelConfig, given: str | Path) -> WorldModel:
    """Makes a new model with the weights of a checkpoint; heads or a prior code that it has otherwise are new."""
    model = WorldModel(config)
    load_weights(model, find_checkpoint(given), may_lack=("heads", "prior_code"))
    return model
