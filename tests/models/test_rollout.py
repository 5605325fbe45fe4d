"""Running a model over frames of several episodes."""

from __future__ import annotations

import torch

from rnem_world.models.config import ModelConfig
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import WorldModel


@torch.no_grad()
def test_slots_begin_anew_with_an_episode():
    model = WorldModel(
        ModelConfig(architecture="conv32", slots=3, hidden_size=16, slot_inputs="error_frame_motion")
    ).eval()
    generator = torch.Generator().manual_seed(0)
    frames = (torch.rand(2, 8, 1, 32, 32, generator=generator) < 0.2).float()
    first = model.initial_state(2, generator=generator)
    begins = torch.zeros(2, 7, dtype=torch.bool)
    begins[1, 3] = True  # frame 4 of the second sequence begins an episode
    together = list(observe(model, first, frames, frames[:, 1:], None, begins))
    never = list(observe(model, first, frames, frames[:, 1:], None))
    tail = list(observe(model, first.rows(slice(1, 2)), frames[1:, 4:], frames[1:, 5:], None))
    for step in range(7):
        torch.testing.assert_close(together[step][0].logits[0], never[step][0].logits[0])
        if step >= 4:
            torch.testing.assert_close(together[step][0].logits[1], tail[step - 4][0].logits[0])
            assert not torch.allclose(together[step][0].logits[1], never[step][0].logits[1])
