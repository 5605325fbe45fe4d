"""What tests of evaluation share: a small dataset of the preset `avoid`, and what happened in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.evaluation.truth import Truth, read_truth

FRAMES, N = 12, 5


@pytest.fixture(scope="session")
def avoid(tmp_path_factory) -> Path:
    return collect(
        "balls",
        tmp_path_factory.mktemp("avoid") / "a.h5",
        preset="avoid",
        num_train=4,
        num_valid=2,
        num_test=N,
        frames=FRAMES,
        progress=False,
    )


@pytest.fixture(scope="session")
def truth(avoid) -> Truth:
    with Dataset.open(avoid) as dataset:
        return read_truth(dataset, "test", N, FRAMES, torch.device("cpu"))
