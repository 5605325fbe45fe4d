"""Tiny worlds and runs that the tests of training, evaluation and the command line share."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.models.config import MODELS


def moving_discs(n: int, t: int, size: int, seed: int, actions: int | None) -> EpisodeBatch:
    """Two discs that move straight on and come back in at the other side."""
    generator = np.random.default_rng(seed)
    start, velocity = generator.uniform(0, size, (n, 2, 2)), generator.uniform(-2, 2, (n, 2, 2))
    centres = (start + velocity * np.arange(t)[:, None, None, None]) % size
    axis = np.arange(size) + 0.5
    squares = (axis[:, None] - centres[..., 0, None, None]) ** 2 + (axis - centres[..., 1, None, None]) ** 2
    groups = ((squares <= (size / 7) ** 2) * np.arange(1, 3)[:, None, None]).max(axis=2).astype(np.uint8)
    return EpisodeBatch(
        features=(groups > 0).astype(np.uint8)[..., None],
        groups=groups[..., None],
        collisions=(groups == 2).astype(np.uint8)[..., None],
        actions=None if actions is None else generator.integers(0, actions, (t, n)),
    )


def write_discs(
    path: Path,
    size: int = 32,
    frames: int = 8,
    actions: int | None = None,
    sizes: dict[str, int] | None = None,
    drop: tuple[str, ...] = (),
) -> Path:
    """Writes 12 training, 6 validation and 6 test sequences unless told otherwise."""
    splits: dict[Any, EpisodeBatch] = {}
    for seed, (split, n) in enumerate((sizes or {"training": 12, "validation": 6, "test": 6}).items()):
        episodes = moving_discs(n, frames, size, seed, actions)
        splits[split] = dataclasses.replace(episodes, **dict.fromkeys(drop))
    write_shard(path, splits, DatasetAttributes("Discs-v0", {}, 0, number_of_actions=actions))
    return path


@pytest.fixture(scope="session")
def make_discs() -> Callable[..., Path]:
    return write_discs


@pytest.fixture(scope="session")
def discs_file(tmp_path_factory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs") / "discs.h5")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a graphics card where there is none."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and os.environ.get("RNEM_TEST_DEVICE", "cuda") == "cuda":
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="there is no graphics card"))


# Windows open nowhere.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _one_process() -> Iterator[None]:
    """Commands that collect what isn't at hand do so here: a process of its own takes seconds to import everything.

    Tests of several processes ask for them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


@pytest.fixture(autouse=True, scope="session")
def _an_overview_of_each_kind() -> Iterator[None]:
    """Draws the picture of a validation once for each kind of model: it takes longer than most trainings here."""
    from rnem_world.training.trainer import Trainer

    draw, drawn = Trainer.overview, {}

    @functools.wraps(draw)
    def overview(trainer: Any) -> Any:
        model = trainer.config.model
        parts = (model.core, model.architecture, model.likelihood, model.frame_size, model.channels)
        kind = (*parts, model.slots, model.takes_actions)
        if kind not in drawn:
            drawn[kind] = draw(trainer)
        return drawn[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "overview", overview)
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_starts() -> Iterator[None]:
    """Worlds have at most 64 starts of their own: one group to encode, where 2048 take half a minute."""
    from rnem_world.envs import start_source

    all_of = start_source.own_starts

    def few(world: Any) -> Any:
        starts = all_of(world)
        return dataclasses.replace(starts, packed=starts.packed[:64], actions=starts.actions[:64])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_source, "own_starts", few)
        yield


def tiny_config(model: str = "r_nem", **training: Any) -> Any:
    """A run that takes 3 updates an epoch on `write_discs`, each a few hundredths of a second."""
    from rnem_world.models.config import ModelConfig
    from rnem_world.training.config import RunConfig, TrainingConfig

    core, slots = MODELS[model]
    options = {
        "sequence_steps": 3,
        "batch_size": 4,
        "epochs": 3,
        "last_steps": 2,
        "score_every": 2,
        "seed": 5,
    }
    return RunConfig(
        ModelConfig(core=core, architecture="conv32", slots=min(slots, 2), hidden_size=16, attention_size=8),
        TrainingConfig(**{**options, **training}),
    )


class Tiny(NamedTuple):
    """Makes runs; `config` and `trainer` may be called with options of the training."""

    data: Path
    config: Callable[..., Any] = tiny_config

    @contextmanager
    def trainer(self, run: Path, config: Any = None, resume: bool = False, **options: Any) -> Iterator[Any]:
        import torch

        from rnem_world.training.presets import fit_model_to
        from rnem_world.training.trainer import Trainer

        with Dataset.open(self.data) as dataset:
            fitted = fit_model_to(dataset, config or tiny_config(**options), False, None)
            yield Trainer(fitted, dataset, run, torch.device("cpu"), lambda line: None, resume)

    def fit(self, run: Path, config: Any = None, resume: bool = False, **options: Any) -> Any:
        with self.trainer(run, config, resume, **options) as trainer:
            trainer.fit()
        return trainer


@pytest.fixture(scope="session")
def tiny(discs_file) -> Tiny:
    return Tiny(discs_file)


@pytest.fixture(scope="session")
def trained_run(tiny, tmp_path_factory) -> Path:
    """A run of one epoch; not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny.fit(run, epochs=1)
    return run


@pytest.fixture(scope="session")
def file_size_limit() -> Callable[[int], Any]:
    """What a full disk does: no file may become larger."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def contents(folder: Path) -> dict[str, int]:
    """Every path below a folder, and its size."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="session")
def listing() -> Callable[[Path], dict[str, int]]:
    return contents


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json_file(self) -> Any:
        return json.loads(Path(self.out.strip().rsplit(" ", 1)[-1]).read_text())


@pytest.fixture
def rnem(monkeypatch, capfd) -> Callable[..., Outcome]:
    """Runs ``rnem-world`` in this process."""
    from rnem_world.cli.main import main

    def run(*arguments: Any) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["rnem-world", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return Outcome(code or 0, out, err)

    return run
