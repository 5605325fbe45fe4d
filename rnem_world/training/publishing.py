"""A world as others get it: the files that matter, with a card, and nothing of this machine."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from rnem_world.errors import CheckpointError, OutputError
from rnem_world.io import atomic_folder
from rnem_world.training.card import CARD_FILE, make_card, read_figures, without_head
from rnem_world.training.checkpoint import (
    CONFIG_FILE,
    MODEL_FILE,
    find_checkpoint,
    read_config,
    read_weights,
    write_run_config,
)
from rnem_world.training.hub import HUB, parse_repository, upload

FILES = (MODEL_FILE, "*.onnx", "graphs.json", "starts.npz", "uncertainty.json")
"""What a world consists of beside its configuration; of an earlier version of it these go."""

_PICTURES = ("*.png", "*.gif", "*.webp", "*.mp4")


def publish(
    checkpoint: str | Path,
    repository: str,
    *,
    prefer: str = "best",
    license_name: str = "mit",
    private: bool = False,
    message: str = "",
) -> str:
    """Pushes a world to the Hugging Face Hub.

    Args:
        checkpoint: A run, a checkpoint, or the name of a shipped world.
        repository: ``hf://owner/name``, made if there is none.
        prefer: Of a run, the ``best`` or the ``last`` checkpoint.
        license_name: As the Hub has it.
        private: Whether a new repository is private.
        message: What the commit says.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigError: If the repository's name is none.
        DependencyError: If huggingface_hub isn't installed.
        OutputError: If the Hub refuses, or can't be reached.
    """
    parse_repository(repository)
    with tempfile.TemporaryDirectory() as place:
        folder = write_world(checkpoint, Path(place) / "world", repository, prefer, license_name)
        replaces = (*FILES, CONFIG_FILE, CARD_FILE)
        return upload(
            folder, repository, replaces=replaces, message=message or "Push a world", private=private
        )


def write_world(
    checkpoint: str | Path,
    out: Path,
    repository: str,
    prefer: str = "best",
    license_name: str = "mit",
) -> Path:
    """Writes the folder that :func:`publish` pushes; for its arguments see there.

    The configuration loses the paths of this machine. A README that stands beside the checkpoint becomes the card's
    text.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is broken.
        OutputError: If ``out`` exists or can't be written.
    """
    if out.exists():
        raise OutputError(f"{out} already exists: choose another folder, or remove it first")
    if str(checkpoint).startswith(HUB):
        raise CheckpointError(
            f"{checkpoint} is on the Hub already: give a run, a checkpoint or a shipped world"
        )
    folder = find_checkpoint(checkpoint, prefer)
    config, weights = read_config(folder), read_weights(folder)
    if config.data_path is not None:
        config = replace(config, data=config.data_path.stem)
    figures = read_figures(_folders(folder, Path(checkpoint)))
    card = folder / CARD_FILE
    own_text = without_head(card.read_text()) if card.is_file() else None
    name = parse_repository(repository)[0].partition("/")[2]
    parameters = sum(tensor.numel() for tensor in weights.values())
    with atomic_folder(out) as temporary:
        for pattern in (*FILES, *_PICTURES):
            for file in folder.glob(pattern):
                shutil.copyfile(file, temporary / file.name)
        write_run_config(temporary, config)
        text = make_card(name, repository, config, parameters, figures, license_name, own_text)
        (temporary / CARD_FILE).write_text(text)
    return out


def _folders(checkpoint: Path, given: Path) -> list[Path]:
    """Lists where figures of a checkpoint may be: beside it, and in its run's folder, into which evaluations go."""
    run = checkpoint.parent.parent
    return [checkpoint, *([run] if given.absolute() == run else [])]
