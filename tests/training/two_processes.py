"""What ``test_distributed.py`` runs in each of two processes: ``torchrun ... two_processes.py DATA FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worlds_to_train import run_config

from rnem_world.data.dataset import Dataset
from rnem_world.distributed import from_torchrun, process_group
from rnem_world.errors import RnemWorldError
from rnem_world.evaluation.one_step import EvaluationConfig, evaluate
from rnem_world.seeding import torch_generator
from rnem_world.training.presets import make_loader
from rnem_world.training.trainer import Trainer

PROCESSES = from_torchrun()
REPORTS: list[str] = []


@contextmanager
def trainer(dataset: Dataset, run: Path, resume: bool = False, **options: Any) -> Iterator[Trainer]:
    """Makes a trainer of this process."""
    yield Trainer(
        run_config(**options), dataset, run, torch.device("cpu"), REPORTS.append, resume, processes=PROCESSES
    )


def main() -> None:
    """Trains, resumes, stops and evaluates; what a process found goes to ``FOLDER/RANK.json``."""
    data, folder = (Path(argument) for argument in sys.argv[1:])
    found: dict[str, Any] = {}
    torch.set_num_threads(1)
    black = np.zeros((4, 4, 3), np.uint8)
    Trainer.overview = lambda *arguments: black  # type: ignore[method-assign,assignment,return-value]
    with process_group(PROCESSES, torch.device("cpu")), Dataset.open(data) as dataset:
        with trainer(dataset, folder / "two", max_updates=9) as two:
            evaluation = two.fit()
            assert evaluation is not None
            found["validation"] = evaluation.to_dict()
            found["progress"] = two.progress.updates, two.progress.best_loss, two.progress.sequences
        for number, updates in enumerate((3, 6, 9)):
            with trainer(dataset, folder / "parts", resume=number > 0, max_updates=updates) as parts:
                parts.fit()
        with trainer(dataset, folder / "accumulated", max_updates=9, accumulate=2) as accumulated:
            accumulated.fit()
        with trainer(dataset, folder / "stopped") as stopped:
            learn = stopped.learner.learn

            def interrupted(batch: Any, updates: int, with_score: bool) -> Any:
                if updates == 3 and PROCESSES.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                    os.kill(os.getpid(), signal.SIGTERM)  # torchrun may pass one on that came already
                return learn(batch, updates, with_score)

            stopped.learner.learn = interrupted  # type: ignore[method-assign]
            stopped.fit()
            found["signal"] = stopped.signal, stopped.progress.updates
        config = run_config()
        # The last batch is smaller than the number of processes.
        loader = make_loader(dataset, "validation", config, config.training.batch_size + 1, PROCESSES)
        how = EvaluationConfig(config.training.weights, noise=0.1, ami_sequences=3)
        found["evaluation"] = evaluate(
            two.model, loader.epoch(0), how, torch_generator(1), PROCESSES
        ).to_dict()
        try:
            with trainer(dataset, folder / "uneven", batch_size=5):
                pass
        except RnemWorldError as error:
            found["error"] = str(error)
    found["reports"] = len(REPORTS)
    (folder / f"{PROCESSES.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
