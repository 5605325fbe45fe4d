"""Following a recipe: collects each stage's data, trains one stage after the other, and goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnem_world.agents import collecting
from rnem_world.config import build, merged
from rnem_world.errors import CheckpointError, OutputError
from rnem_world.io import write_json
from rnem_world.training.recipes import Recipe, Stage, recipe

if TYPE_CHECKING:
    import torch

    from rnem_world.training.config import RunConfig
    from rnem_world.training.trainer import Trainer

RECIPE_FILE = "recipe.json"
"""In the folder of a run by a recipe: which recipe, which model, and what is otherwise."""
EARLIER = "stages"
"""The folder, within the run's, of the runs of all stages but the last."""


@dataclass(frozen=True)
class Following:
    """A training by a recipe, as it is kept in its folder.

    Attributes:
        recipe: The recipe's name.
        model: A key of :data:`rnem_world.models.config.MODELS`; None is the recipe's own.
        options: What is otherwise in all stages, nested.
        start_from: What the first stage takes its weights of; None is the recipe's own.
    """

    recipe: str
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | None = None

    @classmethod
    def read(cls, run: Path) -> Following:
        """Reads what is kept in a folder.

        Raises:
            CheckpointError: If nothing is, or it is broken.
        """
        path = run / RECIPE_FILE
        try:
            values = json.loads(path.read_text())
            return cls(values["recipe"], values["model"], values["options"], values["start_from"])
        except OSError as error:
            raise CheckpointError(f"{run} holds no training by a recipe: train without --resume") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is broken ({error}): delete it, and begin again in another folder"
            ) from error


def is_followed(run: Path) -> bool:
    """Tells whether a folder holds a training by a recipe."""
    return (run / RECIPE_FILE).is_file()


def is_complete(run: Path) -> bool:
    """Tells whether a folder holds a training by a recipe that has made all updates of its last stage."""
    from rnem_world.training.checkpoint import updates_of

    if not is_followed(run):
        return False
    following = Following.read(run)
    chosen, checkpoints = recipe(following.recipe), updates_of(run)
    config = chosen.config_of(chosen.stages[-1], following.model, following.options)
    return bool(checkpoints) and _updates(checkpoints[-1]) >= (config.training.max_updates or 0)


def data_place(name: str, stage: Stage) -> Path:
    """Says where the data of a stage is: ``data/RECIPE-STAGE.h5``, or a folder where it is collected in parts.

    Args:
        name: The recipe's name.
        stage: The stage that it is collected for.
    """
    place = collecting.DATA_FOLDER / f"{name}-{stage.name}"
    return place if len(stage.collect) > 1 else place.with_name(f"{place.name}.h5")


def collect_stage(name: str, stage: Stage, report: Callable[[str], None], workers: int = 1) -> Path:
    """Collects what a stage says, unless it is there; an interrupted collection goes on.

    Args:
        name: The recipe's name.
        stage: A stage that collects.
        report: Receives lines for people.
        workers: Processes that collect.

    Returns:
        Where the data is.

    Raises:
        RnemWorldError: See `rnem_world.agents.collecting.collect`.
    """
    place = data_place(name, stage)
    parts = [place] if len(stage.collect) == 1 else [place / f"{n + 1}.h5" for n in range(len(stage.collect))]
    for part, options in zip(parts, stage.collect, strict=True):
        if part.exists():
            continue
        report(f"collecting {part}")
        collecting.collect(**options, out=part, workers=workers)
    return place


def stage_run(recipe: Recipe, stage: Stage, run: Path) -> Path:
    """Says where the run of a stage is: the last one's is the folder itself, which is named as any other run then."""
    return run if stage is recipe.stages[-1] else run / EARLIER / stage.name


def follow(
    following: Following,
    run: str | Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    device: torch.device | str = "auto",
    workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Trainer | None:
    """Trains by a recipe, in a new folder or one that holds a part of such a training.

    A stage is complete when its run has made its ``max_updates``; the next begins with its best weights.

    Args:
        following: Which recipe, and what is otherwise; to go on, as it was read from the folder, with options that may
            change when a run is resumed.
        run: The folder of the last stage's run; the others' are in ``stages`` within it.
        resume: Whether to go on with what is there.
        max_minutes: Stop after so many minutes of training.
        device: Where to train; ``auto`` takes CUDA where there is any.
        workers: Processes that collect.
        report: Receives lines for people.

    Returns:
        The trainer of the stage that was trained last; None if all were complete.

    Raises:
        OutputError: If a run is in the way.
        RnemWorldError: See :func:`collect_stage` and `rnem_world.training.trainer.train`.
    """
    from rnem_world.training.checkpoint import updates_of
    from rnem_world.training.trainer import train

    run, chosen = Path(run), recipe(following.recipe)
    configs = [chosen.config_of(stage, following.model, following.options) for stage in chosen.stages]
    if not resume and (is_followed(run) or updates_of(run)):
        raise OutputError(
            f"{run} already holds a run: continue it with --resume, or choose another folder with --out"
        )
    write_json(run / RECIPE_FILE, asdict(following))
    before, left, trainer = following.start_from or chosen.start_from, max_minutes, None
    for number, (stage, config) in enumerate(zip(chosen.stages, configs, strict=True), start=1):
        place, limit = stage_run(chosen, stage, run), config.training.max_updates or 0
        checkpoints = updates_of(place)
        done = _updates(checkpoints[-1]) if checkpoints else 0
        if done < limit:
            report(f"stage {number} of {len(chosen.stages)}, {stage.name}: {done} of {limit} updates done")
            data = collect_stage(following.recipe, chosen.data_of(stage), report, workers)
            started = time.monotonic()
            trainer = train(
                data,
                _limited(place, config, following.options, left, bool(checkpoints)),
                place,
                device=device,
                resume=bool(checkpoints),
                start_from=None if checkpoints else before,
                report=report,
            )
            if trainer.is_interrupted:
                return trainer
            left = None if left is None else max(left - (time.monotonic() - started) / 60, 1e-3)
        before = str(place.absolute())
    return trainer


def _updates(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("update-"))


def _limited(
    place: Path, config: RunConfig, options: Mapping[str, Any], max_minutes: float | None, resume: bool
) -> RunConfig:
    """Gives a stage's configuration for this sitting; that of a run that goes on is what the run keeps."""
    from rnem_world.training.checkpoint import read_config

    values = asdict(read_config(place) if resume else config)
    if resume:
        values = merged(values, options)
    return build(type(config), merged(values, {"training": {"max_minutes": max_minutes}}))
