from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import read_batch
from rnem_world.evaluation.pictures import (
    attention_matrix,
    figure_to_array,
    overview,
    rollout_panels,
    slot_colours,
)
from rnem_world.models.config import ModelConfig
from rnem_world.models.likelihood import Bernoulli
from rnem_world.models.rollout import Rollout, RolloutConfig, roll_out
from rnem_world.models.world_model import WorldModel


def test_attention_is_set_beside_the_diagonal_in_order():
    attention = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    expected = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.0, 0.4], [0.5, 0.6, 0.0]])
    assert torch.equal(attention_matrix(attention), expected)
    batched = attention_matrix(torch.stack([attention, 2 * attention])[None])
    assert torch.equal(batched, torch.stack([expected, 2 * expected])[None])


@pytest.fixture(scope="module")
def frames(discs_file) -> torch.Tensor:
    with Dataset.open(discs_file) as dataset:
        return Bernoulli.from_uint8(read_batch(dataset, "test", [0, 1], 6).frames, 1)


@pytest.fixture(scope="module", params=["relational", "rnn"])
def rollout(request, frames) -> Rollout:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(ModelConfig(core=request.param, architecture="conv32", slots=3, hidden_size=8))
    return roll_out(model, frames, RolloutConfig(3, 2), generator=torch.Generator().manual_seed(0))


def test_panels(rollout, frames):
    panels = rollout_panels(rollout, frames, 1)
    assert list(panels) == ["truth", "prediction", "grouping"]
    assert {panel.shape for panel in panels.values()} == {(5, 32, 32, 3)}
    assert {panel.dtype for panel in panels.values()} == {np.dtype(np.uint8)}
    truth = frames[1, 1:, 0].numpy() * 255
    assert (panels["truth"] == truth[..., None]).all()
    mixture = (rollout.predictions[1] * rollout.gammas[1]).sum(dim=1)[:, 0].numpy()
    assert (np.abs(panels["prediction"].astype(float) - 255 * mixture[..., None]) <= 0.51).all()
    # A pixel's colour is the slots' colours, mixed by responsibility, as bright as the prediction.
    colours = np.einsum("tkhw,kc->thwc", rollout.gammas[1, :, :, 0].numpy(), slot_colours(3))
    assert (np.abs(panels["grouping"] - 255 * colours * mixture[..., None]) <= 1.0).all()


def test_a_panel_for_each_slot(rollout, frames):
    panels = rollout_panels(rollout, frames, 0, with_slots=True)
    assert list(panels)[3:] == ["slot 1", "slot 2", "slot 3"]
    for slot, colour in enumerate(slot_colours(3)):
        means = rollout.predictions[0, :, slot, 0].numpy()
        assert (np.abs(panels[f"slot {slot + 1}"] - 255 * means[..., None] * colour) <= 0.51).all()


def test_the_overview_is_drawn_with_and_without_attention(rollout, frames):
    drawn = figure_to_array(overview(rollout, frames, 0, "title"))
    assert drawn.std() > 0
    assert (drawn != figure_to_array(overview(rollout, frames, 1, "title"))).any()
