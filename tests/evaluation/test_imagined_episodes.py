"""Imagination is measured while episodes last, and by whether dreams end when they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rnem_world.api import evaluate_dreams, rollout_input
from rnem_world.data.dataset import Dataset
from rnem_world.errors import DataError
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.imagined_ends import EndFigures, end_figures
from rnem_world.evaluation.report import imagination_table
from rnem_world.evaluation.truth import Truth, lasting_frames, read_truth
from rnem_world.models.rollout import RolloutConfig
from tests.envs.dreamers import write_world
from tests.models.worlds import videos, world_model
from tests.streams import write_streams

CPU = torch.device("cpu")
NEVER, LATER = -1.0, 1.0


def logits_of(end: int | None, steps: int = 6) -> list[float]:
    return [LATER if end is not None and step >= end else NEVER for step in range(steps)]


def ends(told: list[int | None], true: list[int | None], lasting: list[int]) -> EndFigures:
    ended = torch.zeros(len(true), 6, dtype=torch.bool)
    for row, end in enumerate(true):
        if end is not None:
            ended[row, end] = True
    lasts = torch.arange(6) < torch.tensor(lasting)[:, None]
    return end_figures(torch.tensor([logits_of(end) for end in told]), ended, lasts)


def test_an_end_may_be_a_step_too_early_or_too_late():
    figures = ends([2, 3, 4, 1, 5], [3, 3, 3, 3, 3], [4] * 5)
    assert (figures.told_precision, figures.told_recall, figures.ends) == (0.6, 0.6, 5)


def test_dreams_that_go_on_and_ends_that_never_come():
    figures = ends([None, 2, 0], [4, None, None], [5, 6, 6])
    assert (figures.told_precision, figures.told_recall, figures.ends) == (0.0, 0.0, 1)
    figures = ends([3, None], [3, None], [4, 6])
    assert (figures.told_precision, figures.told_recall) == (1.0, 1.0)


def test_after_the_record_is_over_nobody_knows():
    # The first episode was cut off after three steps: that its dream ends later is no mistake, that of another is.
    figures = ends([4, 1, 3], [None, None, 3], [3, 3, 4])
    assert (figures.told_precision, figures.told_recall) == (0.5, 1.0)
    nothing = ends([None, None], [None, None], [6, 3])
    assert (nothing.told_precision, nothing.told_recall, nothing.ends) == (None, None, 0)


def test_the_rate_of_ends_counts_what_lasts():
    figures = ends([3, None], [3, None], [4, 4])
    assert figures.end_rate == pytest.approx(1 / 8)
    assert figures.end_precision == pytest.approx(1.0)


def measured(truth: Truth, batch_size: int = 6):
    generator = torch.Generator().manual_seed(0)
    model = world_model().eval()
    return evaluate_imagination(model, truth, RolloutConfig(4, 6, "pixels"), generator, batch_size)


def test_what_comes_after_a_reset_changes_nothing():
    frames, actions = videos(6, 12)
    is_first = torch.zeros(6, 12, dtype=torch.bool)
    for row, begin in enumerate([7, 8, 9, 12, 12, 6]):
        is_first[row, begin:] = True
    terminations = torch.zeros_like(is_first)
    terminations[:, :-1] = is_first[:, 1:]
    lasts = lasting_frames(is_first)
    truth = Truth(frames, actions, (actions == 1).float(), terminations, lasts)
    other = replace(
        truth,
        frames=torch.where(lasts[..., None, None, None], frames, 1.0 - frames),
        rewards=torch.where(lasts, truth.rewards, 1.0),
        terminations=terminations | ~lasts,
    )
    one, two = measured(truth), measured(other)
    assert one.to_dict() == two.to_dict()
    assert one.lasting == [6, 5, 4, 3, 2, 2]
    assert replace(other, lasts=None).lasting(slice(0, 3)).all()
    assert measured(replace(other, lasts=None)).to_dict() != one.to_dict()
    table = "\n".join(imagination_table(one))
    assert "episodes that still last" in table
    assert "under shuffled actions" in table


def test_where_no_episode_lasts_there_is_no_figure():
    frames, actions = videos(6, 12)
    is_first = torch.zeros(6, 12, dtype=torch.bool)
    is_first[:, 7] = True
    figures = measured(Truth(frames, actions, lasts=lasting_frames(is_first)))
    assert figures.lasting == [6, 6, 0, 0, 0, 0]
    assert (
        figures.frames.bce[2:] == figures.frames.wrong_pixels[2:] == figures.frames.told_bce[2:] == [-1.0] * 4
    )
    assert min(figures.frames.bce[:2]) >= 0.0


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> Path:
    return write_streams(tmp_path_factory.mktemp("streams") / "discs.h5")


def test_contexts_are_read_from_within_one_episode(streams):
    with Dataset.open(streams) as dataset:
        truth = read_truth(dataset, "test", 9, 15, CPU, together=5)
        first = dataset.read("test", range(6), ["is_first"])["is_first"]
        with pytest.raises(DataError, match=r"no episode in test of .* has 12 frames"):
            read_truth(dataset, "test", 9, 15, CPU, together=12)
    assert len(truth.frames) == 6
    assert truth.lasts[:, :5].all()
    assert not truth.lasts[:, -1].any()
    # Whatever is of the same episode lasts, and nothing else: sequence i is i frames into it.
    np.testing.assert_array_equal(truth.lasts.sum(dim=1), [11 - row if row < 7 else 11 for row in range(6)])
    assert first[:, 0].tolist() == [frame % 11 == 0 for frame in range(40)]


def test_dreams_of_short_episodes_are_measured(streams, tmp_path):
    world = write_world(tmp_path / "world", number_of_actions=3)
    dreams = evaluate_dreams(world, streams, 12)
    assert dreams.drawn.context == 2
    assert dreams.drawn.lasting[0] == dreams.sequences == 6
    assert dreams.drawn.lasting[-1] == 0
    assert dreams.drawn.ends.ends == 6
    assert dreams.latent.ends.end_rate == dreams.drawn.ends.end_rate > 0
    assert evaluate_dreams(world, streams, 5, context=6).drawn.context == 6


def test_rollouts_begin_where_an_episode_goes_on(streams, tmp_path, rnem):
    from rnem_world.api import Trained

    world = write_world(tmp_path / "world", number_of_actions=3)
    given = rollout_input(Trained.load(world, "cpu"), streams, context=3, horizon=4)
    assert given.sequences == [0, 1, 2]
    assert given.lasts.all()
    given = rollout_input(Trained.load(world, "cpu"), streams, context=3, horizon=9, sequences=[5, 1])
    assert given.sequences == [5, 1]
    assert given.lasts[:, :4].all()
    assert not given.lasts[:, -1].any()
    with pytest.raises(DataError, match="no episode has the 13 frames to watch"):
        rollout_input(Trained.load(world, "cpu"), streams, context=12, horizon=4)
    out = tmp_path / "film.gif"
    done = rnem("rollout", world, "--data", streams, "--steps", 12, "--context", 3, "--out", out)
    assert done.code == 0, done.err
    assert out.stat().st_size > 0
    assert len(done.json_file["plain_bce"]) == 15
