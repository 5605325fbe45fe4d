"""Another kind of pixel takes the place of the paper's, and nothing beside the likelihood has to know of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.pictures import overview, rollout_panels
from rnem_world.evaluation.truth import Objects, Truth
from rnem_world.models import world_model as module
from rnem_world.models.config import LossConfig
from rnem_world.models.likelihood import Likelihood, LossTerms
from rnem_world.models.rollout import RolloutConfig, roll_out
from rnem_world.training.config import HeadLossConfig
from rnem_world.training.losses import SequenceBatch, SequenceLoss
from tests.models.worlds import videos, world_model

SIGMA, START = 0.12, -2.0


class Mixture(Likelihood):
    """A mixture of the slots' colours and of a background: mask logits and means of each slot."""

    sees_motion = True

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.channels, self.maps, self.inputs = channels, channels + 1, 3 * channels + 1
        self.background = nn.Parameter(torch.full((channels, size, size), 0.1))

    def predict(self, logits):
        return torch.cat([logits[..., :1, :, :] + START, torch.sigmoid(logits[..., 1:, :, :])], dim=-3)

    def means(self, prediction):
        return prediction[..., 1:, :, :]

    def initial_prediction(self, batch_size, slots, size, like):
        return like.new_full((batch_size, slots, self.maps, size, size), 0.5)

    def initial_frame(self, batch_size, size, like):
        return None

    def _shares(self, prediction, frame=None):
        """Log shares of the slots and, last, of the background; with a frame, weighted by its likelihood."""
        masks = torch.cat(
            [prediction[..., :1, :, :], torch.zeros_like(prediction[..., :1, :1, :, :])], dim=-4
        )
        if frame is not None:
            back = self.background.expand_as(prediction[..., :1, 1:, :, :])
            colours = torch.cat([self.means(prediction), back], dim=-4)
            distance = (frame.unsqueeze(-4) - colours).square().sum(dim=-3, keepdim=True)
            masks = masks - distance / (2 * SIGMA**2)
        return masks

    def e_step(self, prediction, frame):
        with torch.no_grad():
            return self._shares(prediction, frame).softmax(dim=-4)[..., :-1, :, :, :]

    def soft_gamma(self, prediction):
        return self._shares(prediction).softmax(dim=-4)[..., :-1, :, :, :].detach()

    def slot_inputs(self, frame, prediction, gamma, previous):
        if previous is None:  # the random responsibilities, and the background beside them
            previous = frame
            masks = torch.cat([gamma.log() - 4.5, gamma[..., :1, :, :, :] * 0], dim=-4)
            distance = (self.background - frame).square().sum(dim=-3, keepdim=True).unsqueeze(-4)
            masks = masks - torch.cat([gamma * 0, distance / (2 * SIGMA**2)], dim=-4)
            gamma = masks.softmax(dim=-4)[..., :-1, :, :, :]
        seen = [
            frame.unsqueeze(-4) - self.means(prediction),
            frame.unsqueeze(-4),
            (frame - previous).unsqueeze(-4),
        ]
        return torch.cat([*(gamma * part for part in seen), gamma], dim=-3).detach()

    def mix(self, prediction, gamma):
        rest = 1.0 - gamma.sum(dim=-4)
        return (self.means(prediction) * gamma).sum(dim=-4) + rest * self.background

    def soft_frame(self, prediction):
        return self.mix(prediction, self.soft_gamma(prediction))

    def own_frame(self, prediction):
        shares = self.soft_gamma(prediction)
        best = shares.argmax(dim=-4, keepdim=True).expand_as(self.means(prediction)[..., :1, :, :, :])
        drawn = self.means(prediction).gather(-4, best).squeeze(-4)
        return torch.where(shares.sum(dim=-4) > 0.5, drawn, self.background.expand_as(drawn))

    def object_weights(self, prediction, gamma):
        return gamma.squeeze(-3)

    def slot_losses(self, logits, gamma, target, config, mask=None):
        prediction = self.predict(logits)
        nats = self._shares(prediction).logsumexp(dim=-4) - self._shares(prediction, target).logsumexp(dim=-4)
        total = (nats if mask is None else nats * mask.amax(dim=-3, keepdim=True)).flatten(1).sum(dim=1)
        return LossTerms(total, total, torch.zeros_like(total))

    def upper_bound_losses(self, logits, target, config, mask=None):
        return self.slot_losses(logits, None, target, config, mask)

    def training_loss(self, logits, prediction, gamma, target, config, before=None):
        return self.slot_losses(logits, gamma, target, config).total

    def frame_loss(self, expected, frame):
        return ((expected - frame).square() / (2 * SIGMA**2)).sum(dim=(-3, -2, -1))

    def draw_noise(self, shape, strength, generator, device):
        return torch.randn(shape, generator=generator, device=device) * strength

    def add_noise(self, frames, noise):
        return frames if noise is None else frames + noise

    def quantise(self, frames):
        return frames


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "make_likelihood", lambda config: Mixture(config.channels, 32))
    return world_model(channels=3, prior_code=True)


def coloured(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    pixels, actions = videos(batch, frames)
    return 0.1 + pixels * torch.tensor([0.8, 0.2, 0.5]).view(3, 1, 1), actions


def test_it_learns(model) -> None:
    frames, actions = coloured(3, 6)
    noise = model.likelihood.draw_noise(frames[:, 1:].shape, 0.1, None, frames.device)
    own = np.zeros((3, 5), dtype=np.bool_)
    own[1, 2] = True
    batch = SequenceBatch(frames, noise, actions[:, :5], own_frames=own, imagined=np.ones(3, np.float32))
    loss = SequenceLoss(model, LossConfig(), HeadLossConfig())
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        result = loss(
            model.initial_state(3, generator=torch.Generator().manual_seed(0)), batch, torch.ones(5)
        )
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.steps.mean()))
    assert losses[-1] < 0.8 * losses[0]
    assert float(model.likelihood.background.grad.abs().max()) > 0.0
    assert "likelihood.background" in model.state_dict()


@pytest.mark.parametrize("imagination", ["soft", "pixels", "latent"])
def test_it_imagines_and_is_measured_and_drawn(model, imagination: str) -> None:
    frames, actions = coloured(2, 10)
    how = RolloutConfig(3, 4, imagination)
    rollout = roll_out(model, frames, how, actions, torch.Generator().manual_seed(0))
    assert rollout.inputs.shape == (2, 7, 3, 32, 32)
    assert rollout.predictions.shape == (2, 7, 4, 4, 32, 32)
    assert rollout.gammas.sum(dim=2).max() <= 1.0 + 1e-5
    assert rollout_panels(rollout, frames, 0, with_slots=True)["slot 1"].shape == (7, 32, 32, 3)
    assert overview(rollout, frames, 0).axes
    places = torch.full((2, 10, 1, 2), 16.0)
    objects = Objects((frames[:, :, 0] > 0.5).to(torch.uint8), places, torch.full((2, 1), 4.0))
    figures = evaluate_imagination(
        model, Truth(frames, actions, objects=objects), how, torch.Generator().manual_seed(0)
    )
    assert figures.objects is not None
    assert len(figures.objects.position_errors) == len(figures.frames.bce) == 4


@torch.no_grad()
def test_it_dreams_step_by_step(model) -> None:
    frames, actions = coloured(2, 3)
    state = model.initial_state(2)
    transition = model.predict(state, frames[:, 0], actions[:, 0])
    state = model.update(transition, frames[:, 1])
    dream = model.start_imagination(state, transition.output, frames[:, 1])
    for imagination in ("latent", "pixels"):
        step = model.dream_step(dream, actions[:, 1], imagination)
        picture = model.draw(step.state.output)
        assert picture.frame.shape == (2, 3, 32, 32)
        assert model.likelihood.to_uint8(picture.frame.clamp(0, 1)).dtype == torch.uint8
