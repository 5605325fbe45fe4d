"""Dreams stepped one action at a time, and the prior code behind latent ones."""

from __future__ import annotations

import pytest
import torch
from worlds import videos, world_model

from rnem_world.errors import ConfigError
from rnem_world.models.rollout import imagine, observe
from rnem_world.models.world_model import DreamState, WorldModel


def asleep(model: WorldModel, batch: int = 3, context: int = 4) -> tuple[DreamState, list, torch.Tensor]:
    """Dreams after some context, and what `imagine` needs to go on from there."""
    frames, actions = videos(batch, context + 7)
    state = model.initial_state(batch, generator=torch.Generator().manual_seed(1))
    watched = observe(model, state, frames[:, :context], frames[:, 1 : context + 1], actions)
    transition, state = list(watched)[-1]
    dream = model.start_imagination(state, transition.output, frames[:, context])
    return dream, [state, frames[:, context]], actions[:, context:]


@pytest.mark.parametrize("imagination", ["pixels", "latent"])
@pytest.mark.parametrize("slot_inputs", ["error", "error_frame_motion"])
@torch.no_grad()
def test_stepping_equals_imagining(imagination: str, slot_inputs: str) -> None:
    model = world_model(prior_code=True, slot_inputs=slot_inputs)
    dream, (state, frame), actions = asleep(model)
    expected = list(imagine(model, state, 5, actions, imagination, first_frame=frame))
    for number, (_, transition, after) in enumerate(expected):
        step = model.dream_step(dream, actions[:, number], imagination)
        dream = step.state
        torch.testing.assert_close(dream.theta, transition.theta)
        torch.testing.assert_close(step.rewards, transition.heads.rewards)
        torch.testing.assert_close(step.termination, transition.heads.termination)
        torch.testing.assert_close(step.attention, transition.attention)
        picture = model.draw(dream.output)
        torch.testing.assert_close(picture.prediction, transition.prediction)
        torch.testing.assert_close(picture.gamma, after.gamma)
        assert (step.prediction is None) == (imagination == "latent")


@pytest.mark.parametrize("imagination", ["pixels", "latent"])
@torch.no_grad()
def test_picked_and_repeated_dreams_go_on_as_the_originals(imagination: str) -> None:
    model = world_model(prior_code=True)
    dream, _, actions = asleep(model)
    dream = model.dream_step(dream, actions[:, 0], imagination).state
    rows = torch.tensor([2, 0, 2, 1])
    together = model.dream_step(dream, actions[:, 1], imagination)
    picked = model.dream_step(dream.map(lambda tensor: tensor[rows]), actions[rows, 1], imagination)
    torch.testing.assert_close(picked.state.theta, together.state.theta[rows])
    torch.testing.assert_close(picked.rewards, together.rewards[rows])


@torch.no_grad()
def test_permuting_slots_permutes_latent_dreams() -> None:
    model = world_model(prior_code=True)
    dream, _, actions = asleep(model)
    order = [2, 0, 3, 1]
    moved = DreamState(*(getattr(dream, name)[:, order] for name in ("theta", "output", "code")))
    for number in range(3):
        dream = model.dream_step(dream, actions[:, number]).state
        moved = model.dream_step(moved, actions[:, number]).state
    torch.testing.assert_close(moved.theta, dream.theta[:, order])


def test_latent_imagination_draws_nothing() -> None:
    model = world_model(prior_code=True)
    dream, _, actions = asleep(model)
    for module in (model.encoder, model.decoder):
        module.register_forward_hook(lambda *_: pytest.fail("a pixel was drawn"))
    model.dream_step(dream, actions[:, 0], "latent")


def test_a_model_without_prior_code_says_so() -> None:
    model = world_model()
    dream, (state, frame), actions = asleep(model)
    model.check_imagination("pixels")
    for call in (
        lambda: model.check_imagination("latent"),
        lambda: model.dream_step(dream, actions[:, 0], "latent"),
        lambda: next(imagine(model, state, 2, actions, "latent", first_frame=frame)),
    ):
        with pytest.raises(ConfigError, match=r"no prior code.*imagine in pixels"):
            call()
    with pytest.raises(ConfigError, match=r"unknown imagination 'pixel'.*pixels"):
        model.check_imagination("pixel")
