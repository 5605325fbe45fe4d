"""A checkpoint of the original program as one of ours."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rnem_world.errors import CheckpointError, OutputError
from rnem_world.models.config import MODELS
from rnem_world.models.tensorflow_files import read_tensorflow_checkpoint
from rnem_world.models.tensorflow_names import load_tensorflow_arrays, model_config_of, tensorflow_parameters
from rnem_world.models.world_model import WorldModel
from rnem_world.training.checkpoint import save_checkpoint
from rnem_world.training.config import RunConfig
from rnem_world.training.presets import paper_model


@dataclass(frozen=True)
class Imported:
    """What a checkpoint of the original held.

    Attributes:
        config: The run as the paper's options have it; the model as the variables have it.
        parameters: How many numbers the model has.
        left_out: Variables that are no weights: the optimizer's, counters.
    """

    config: RunConfig
    parameters: int
    left_out: tuple[str, ...]


def import_tensorflow(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    slots: int | None = None,
    data: str = "",
) -> Imported:
    """Writes a checkpoint of the original program as a checkpoint folder.

    Args:
        checkpoint: See :func:`rnem_world.models.tensorflow_files.read_tensorflow_checkpoint`.
        out: The folder to make.
        slots: Number of slots, which a checkpoint doesn't tell; None takes the paper's: 4 for Atari, 1 for an LSTM,
            else 5.
        data: What the model was trained on: a preset's or a game's name, or a path.

    Raises:
        CheckpointError: If it can't be read, or is of another program.
        ConfigError: If the model can't run with so few slots.
        DependencyError: If google-crc32c isn't installed, which reads the checkpoint's checksums.
        OutputError: If ``out`` exists or can't be written.
    """
    out = Path(out)
    if out.exists():
        raise OutputError(f"{out} already exists: choose another folder, or remove it first")
    arrays = read_tensorflow_checkpoint(checkpoint)
    try:
        model_config = model_config_of(arrays, slots)
        model = WorldModel(model_config)
        load_tensorflow_arrays(model, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    kind = next(name for name, (core, _) in MODELS.items() if core == model_config.core)
    usual = paper_model(kind, "atari" if model_config.architecture == "conv84" else "balls")
    config = replace(usual, model=model_config, data=data)
    if config.data_path is not None:
        config = replace(config, data=str(config.data_path.absolute()))
    save_checkpoint(out, model, config)
    return Imported(
        config,
        sum(parameter.numel() for parameter in model.parameters()),
        tuple(sorted(arrays.keys() - tensorflow_parameters(model).keys())),
    )
