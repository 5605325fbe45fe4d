"""The claims of the R-NEM paper: what has to be trained for them, and measuring what has been trained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rnem_world.agents import collecting
from rnem_world.agents.following import Following, follow, is_complete
from rnem_world.api import Trained
from rnem_world.benchmarks.claim_measures import Watching, closed_loop, prediction
from rnem_world.benchmarks.slot_measures import attention, hidden
from rnem_world.data.schema import Split
from rnem_world.errors import ConfigError, suggest
from rnem_world.io import write_json
from rnem_world.models.config import MODELS
from rnem_world.training.checkpoint import find_checkpoint

SIZES = (32, 64)
FIGURES = "figures.json"
TEST_SEED = 100
"""Of the data that models are measured on; they are trained on other seeds."""


@dataclass(frozen=True)
class Variant:
    """A model of the comparison, trained by a recipe with something otherwise.

    Attributes:
        model: A key of :data:`rnem_world.models.config.MODELS`.
        recipe: The recipe's name without the size of the frames.
        options: What is otherwise, nested.
        after: The variant whose model of the same seed it goes on from; None begins anew.
        seeds: At most so many seeds, for what is only an ablation; None takes all that are asked for.
    """

    model: str
    recipe: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None
    seeds: int | None = None


VARIANTS: Mapping[str, Variant] = {
    **{name: Variant(name) for name in ("r_nem", "rnn_em", "lstm", "rnn", "r_nem_no_attention")},
    "r_nem_curtain": Variant("r_nem", "curtain", after="r_nem"),
    "rnn_em_curtain": Variant("rnn_em", "curtain", after="rnn_em"),
    "r_nem_3_slots": Variant("r_nem", options={"model": {"slots": 3}}, seeds=1),
    "r_nem_no_noise": Variant("r_nem", options={"training": {"noise": {"type": "none"}}}, seeds=1),
}
"""All that is trained, the most important first."""


@dataclass(frozen=True)
class Plan:
    """What to train and measure.

    Attributes:
        size: Height and width of the frames, 32 or 64.
        out: Where runs and figures are.
        variants: Keys of :data:`VARIANTS`.
        seeds: Seeds of the weights, the noise and the order of the data.
        sequences: Test sequences of each kind.
        options: What is otherwise in all trainings, nested.
        split: The part of the test data that is measured; choose on ``validation``, report on ``test``.
    """

    size: int
    out: Path
    variants: tuple[str, ...] = tuple(VARIANTS)
    seeds: tuple[int, ...] = (0, 1, 2)
    sequences: int = 128
    options: Mapping[str, Any] = field(default_factory=dict)
    split: Split = "test"

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"the size is {self.size}: choose {' or '.join(map(str, SIZES))}")
        for name in self.variants:
            if name not in VARIANTS:
                raise ConfigError(f"no variant {name!r}: {suggest(name, VARIANTS)}")

    def runs(self) -> Iterator[tuple[str, int]]:
        """Gives variants and seeds in the order in which they are trained: a seed of all, then the next."""
        for number, seed in enumerate(self.seeds):
            for name in self.variants:
                limit = VARIANTS[name].seeds
                if limit is None or number < limit:
                    yield name, seed

    def run(self, name: str, seed: int) -> Path:
        """Says where a run is."""
        return self.out / "runs" / f"{name}-{seed}"

    def following(self, name: str, seed: int) -> Following:
        """Says by what it is trained."""
        variant = VARIANTS[name]
        training = {**self.options.get("training", {}), **variant.options.get("training", {}), "seed": seed}
        options = {**self.options, **variant.options, "training": training}
        before = None if variant.after is None else str(self.run(variant.after, seed).absolute())
        return Following(f"{variant.recipe}{self.size}", variant.model, options, before)


def train_all(
    plan: Plan,
    *,
    hours: float | None = None,
    device: torch.device | str = "auto",
    workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> bool:
    """Trains what isn't yet, one run after the other; what was begun goes on.

    Args:
        plan: What.
        hours: Stop after so many; None doesn't.
        device: Where to train.
        workers: Processes that collect.
        report: Receives lines for people.

    Returns:
        Whether all is trained.

    Raises:
        RnemWorldError: See `rnem_world.agents.following.follow`.
    """
    started = time.monotonic()
    for name, seed in plan.runs():
        run, following = plan.run(name, seed), plan.following(name, seed)
        if is_complete(run):
            continue
        left = None if hours is None else 60 * hours - (time.monotonic() - started) / 60
        if left is not None and left <= 0:
            return False
        report(f"{name}, seed {seed}")
        is_begun = (run / "recipe.json").is_file()
        trainer = follow(
            Following.read(run) if is_begun else following,
            run,
            resume=is_begun,
            max_minutes=left,
            device=device,
            workers=workers,
            report=report,
        )
        if trainer is not None and trainer.is_interrupted:
            return False
    return True


def measure_all(
    plan: Plan,
    *,
    device: torch.device | str = "auto",
    workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Measures all runs that are complete; figures are kept with each run, and taken from there the next time.

    Args:
        plan: What.
        device: Where to compute.
        workers: Processes that collect test data.
        report: Receives lines for people.

    Returns:
        The figures by variant and seed, the seed as text.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, seed in plan.runs():
        run = plan.run(name, seed)
        if not is_complete(run):
            continue
        kept = run / FIGURES
        origin = {
            "checkpoint": find_checkpoint(run).name,
            "split": plan.split,
            "sequences": plan.sequences,
            "version": 1,
        }
        figures = _read_figures(kept, origin)
        if figures is None:
            report(f"measuring {name}, seed {seed}")
            figures = measure(plan, name, Trained.load(run, device), workers)
            write_json(kept, {**origin, "figures": figures})
        found.setdefault(name, {})[str(seed)] = figures
    return found


def measure(plan: Plan, name: str, trained: Trained, workers: int = 1) -> dict[str, Any]:
    """Measures one model; see :mod:`rnem_world.benchmarks.claim_measures` for the figures."""
    variant, count = VARIANTS[name], plan.sequences
    is_split = MODELS[variant.model][1] > 1
    five, eight = (5, 8) if is_split else (1, 1)

    def on(data: Path, slots: int) -> Watching:
        return Watching(trained, data, plan.split, count, slots)

    if variant.recipe == "curtain":
        curtain = on(tested_on(f"balls3curtain{plan.size}", count, workers), five)
        return {"curtain": prediction(curtain), "hidden": hidden(curtain)}
    four, more, two = (
        tested_on(f"{kind}{plan.size}", count, workers)
        for kind in ("balls4mass", "balls678mass", "balls2mass")
    )
    figures = {
        "four": prediction(on(four, five)),
        "two": prediction(on(two, five)),
        "more": prediction(on(more, eight)),
        "pixels": closed_loop(on(four, five), "pixels"),
        "soft": closed_loop(on(four, five), "soft"),
    }
    if is_split:
        figures["more_5_slots"] = prediction(on(more, five))
        figures["four_8_slots"] = prediction(on(four, eight))
        figures["four_noisy"] = prediction(on(four, five), noise=0.2)
    if trained.model.config.core == "relational":
        figures["attention"] = attention(on(four, five))
    return figures


def tested_on(preset: str, sequences: int, workers: int) -> Path:
    """Collects test data unless it is there: as many sequences for choosing (validation) as for reporting (test)."""
    place = collecting.DATA_FOLDER / f"claims-{preset}-{sequences}.h5"
    if not place.exists():
        sizes: dict[str, Any] = {"num_train": 0, "num_valid": sequences, "num_test": sequences}
        collecting.collect("balls", place, workers=workers, preset=preset, seed=TEST_SEED, **sizes)
    return place


def curves_of(plan: Plan, name: str, seed: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Reads the entries of a run's logs, by stage."""
    from rnem_world.training.logging import read_log

    run = plan.run(name, seed)
    folders = [*sorted((run / "stages").glob("*")), run]
    return [(folder.name, list(read_log(folder))) for folder in folders if (folder / "log.jsonl").is_file()]


def _read_figures(path: Path, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads kept figures; None if there are none, or they are of another checkpoint or another request."""
    try:
        values = json.loads(path.read_text())
        kept = {name: values[name] for name in origin}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return values["figures"] if kept == dict(origin) else None
