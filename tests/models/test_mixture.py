"""A mixture of slots and a background: its formulas, and that a model learns, imagines and is measured with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from rnem_world.data.loader import Batch
from rnem_world.errors import ConfigError
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.one_step import EvaluationConfig, evaluate
from rnem_world.evaluation.pictures import overview, rollout_panels
from rnem_world.evaluation.report import imagination_table
from rnem_world.evaluation.truth import Objects, Truth
from rnem_world.models.config import LossConfig, ModelConfig
from rnem_world.models.mixture import UNSEEN, Mixture
from rnem_world.models.rollout import RolloutConfig, roll_out
from rnem_world.models.world_model import WorldModel, make_likelihood
from rnem_world.training.config import HeadLossConfig
from rnem_world.training.losses import SequenceBatch, SequenceLoss
from tests.models.worlds import videos, world_model

BATCH, SLOTS, CHANNELS, SIZE = 2, 3, 3, (5, 6)


@pytest.fixture
def model() -> WorldModel:
    model = world_model(channels=3, likelihood="mixture", initial_prediction=0.5, prior_code=True)
    model.likelihood.prepare(coloured(8, 4)[0].flatten(0, 1))
    return model


@pytest.fixture(params=[0.12, 0.05])
def mixture(request) -> Mixture:
    torch.manual_seed(0)
    mixture = Mixture(CHANNELS, SIZE, deviation=request.param).double()
    mixture.prepare(torch.rand(7, CHANNELS, *SIZE, dtype=torch.float64))
    return mixture


def coloured(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """An orange disc on dark grey."""
    pixels, actions = videos(batch, frames)
    return 0.1 + pixels * torch.tensor([0.8, 0.4, 0.0]).view(3, 1, 1), actions


def some_logits(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(BATCH, SLOTS, CHANNELS + 1, *SIZE, dtype=torch.float64)


def some_frame() -> Tensor:
    return torch.rand(BATCH, CHANNELS, *SIZE, dtype=torch.float64)


def naive_terms(mixture: Mixture, logits: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Log shares (b, k + 1, h, w) of the slots and of the background, without and with the frame's likelihood."""
    masks = torch.cat([logits[:, :, 0] - 2.0, torch.zeros_like(logits[:, :1, 0])], dim=1)
    colours = torch.cat([logits[:, :, 1:].sigmoid(), mixture.background.expand(BATCH, 1, -1, -1, -1)], dim=1)
    distances = (colours - frame[:, None]).square().sum(dim=2)
    return masks, masks - distances / (2 * mixture.deviation**2)


def test_a_model_has_the_deviation_that_it_is_given() -> None:
    grey = {"likelihood": "mixture", "slot_inputs": "error_frame_motion"}
    assert make_likelihood(ModelConfig(**grey)).deviation == 0.12
    assert make_likelihood(ModelConfig(**grey, deviation=0.05)).precision == pytest.approx(400.0)
    for deviation in (0.0, -0.1, 1.5):
        with pytest.raises(ConfigError, match=f"deviation is {deviation}"):
            ModelConfig(**grey, deviation=deviation)
    with pytest.raises(ConfigError, match=r"deviation is 0\.05.*pixels are bits: leave it out"):
        make_likelihood(ModelConfig(deviation=0.05))


class TestFormulas:
    def test_the_background_is_the_median(self) -> None:
        mixture = Mixture(1, (1, 2))
        mixture.prepare(torch.tensor([[0.1, 0.9], [0.2, 0.8], [1.0, 0.0]]).view(3, 1, 1, 2))
        torch.testing.assert_close(mixture.background.data, torch.tensor([[[0.2, 0.8]]]))

    def test_e_step(self, mixture: Mixture) -> None:
        logits, frame = some_logits(3.0), some_frame()
        gamma = mixture.e_step(mixture.predict(logits), frame)
        expected = naive_terms(mixture, logits, frame)[1].softmax(dim=1)[:, :-1]
        torch.testing.assert_close(gamma[:, :, 0], expected)
        shares = mixture.soft_gamma(mixture.predict(logits))
        torch.testing.assert_close(shares[:, :, 0], naive_terms(mixture, logits, frame)[0].softmax(1)[:, :-1])

    def test_far_colours_overflow_nothing(self, mixture: Mixture) -> None:
        logits = some_logits(60.0).float()
        gamma = mixture.float().e_step(mixture.predict(logits), some_frame().float() * 40 - 20)
        assert gamma.isfinite().all()
        assert (gamma.sum(dim=1) <= 1 + 1e-5).all()

    @pytest.mark.parametrize("weighs", [False, True])
    def test_loss(self, mixture: Mixture, weighs: bool) -> None:
        logits, frame, before = some_logits(2.0).requires_grad_(), some_frame(), some_frame()
        config = LossConfig(motion_weight=4.0 if weighs else 1.0)
        weights = 1 + 3 * (frame - before).abs().amax(dim=1) if weighs else torch.ones(BATCH, *SIZE)
        prior, posterior = naive_terms(mixture, logits, frame)
        naive = ((prior.logsumexp(dim=1) - posterior.logsumexp(dim=1)) * weights).flatten(1).sum(dim=1)
        prediction = mixture.predict(logits)
        gamma = mixture.e_step(prediction, frame)
        short = mixture.training_loss(logits, prediction, gamma, frame, config, before)
        mask = weights[:, None] if weighs else None
        terms = mixture.slot_losses(logits, gamma, frame, config, mask)
        torch.testing.assert_close(short, naive)
        torch.testing.assert_close(terms.total, naive)
        assert terms.intra is terms.total
        assert not terms.inter.any()
        wanted = (logits, mixture.background)
        upstream = torch.tensor([0.3, 1.7], dtype=torch.float64)
        for ours, theirs in zip(
            torch.autograd.grad(short, wanted, upstream, retain_graph=True),
            torch.autograd.grad(naive, wanted, upstream),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)

    def test_gradient_against_differences(self, mixture: Mixture) -> None:
        frame = some_frame()

        def loss(logits: Tensor) -> Tensor:
            prediction = mixture.predict(logits)
            gamma = mixture.e_step(prediction, frame)
            return mixture.training_loss(logits, prediction, gamma, frame, LossConfig())

        assert gradcheck(loss, some_logits().requires_grad_())

    @torch.no_grad()
    def test_own_frame(self) -> None:
        mixture = Mixture(1, (1, 3))
        mixture.prepare(torch.full((1, 1, 1, 3), 0.3))
        masks = torch.tensor([[-9.0, 2.0, -0.5], [-9.0, 1.0, -0.5]]).view(1, 2, 1, 1, 3)
        means = torch.tensor([0.6, 0.9]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 3)
        prediction = torch.cat([masks, means], dim=2)
        # The background's, the first slot's, and one that both slots together win, of whom the first is named first.
        torch.testing.assert_close(mixture.own_frame(prediction).flatten(), torch.tensor([0.3, 0.6, 0.6]))
        soft = mixture.soft_frame(prediction).flatten()
        assert soft[0] == pytest.approx(0.3, abs=1e-3)
        assert 0.6 < soft[1] < 0.75

    def test_what_slots_see(self, mixture: Mixture) -> None:
        frame, previous = some_frame(), some_frame()
        prediction = mixture.predict(some_logits())
        gamma = mixture.e_step(prediction, frame)
        seen = mixture.slot_inputs(frame, prediction, gamma, previous)
        assert seen.shape == (BATCH, SLOTS, 10, *SIZE)
        error, part, motion, share = seen.split([3, 3, 3, 1], dim=2)
        torch.testing.assert_close(share, gamma)
        torch.testing.assert_close(part, gamma * frame[:, None])
        torch.testing.assert_close(error, gamma * (frame[:, None] - mixture.means(prediction)))
        torch.testing.assert_close(motion, gamma * (frame - previous)[:, None])

    def test_what_slots_see_first(self, mixture: Mixture) -> None:
        frame = some_frame()
        frame[:, :, 0] = mixture.background.detach()[:, 0]  # nothing is there
        prediction = mixture.initial_prediction(BATCH, SLOTS, SIZE, frame)
        gamma = mixture.initial_gamma(BATCH, SLOTS, SIZE, torch.Generator().manual_seed(0), "cpu").double()
        previous = mixture.initial_frame(BATCH, SIZE, frame)
        assert previous is not None
        assert (previous == UNSEEN).all()
        seen = mixture.slot_inputs(frame, prediction, gamma, previous)
        behind = torch.exp(-(mixture.background - frame).square().sum(dim=1) * mixture.precision / 2)
        slots = gamma[:, :, 0] * np.exp(-4.5)
        torch.testing.assert_close(seen[:, :, -1], slots / (slots.sum(dim=1) + behind)[:, None])
        assert not seen[:, :, 6:9].any()
        assert float(seen[:, :, -1, 0].sum(dim=1).max()) < 0.02
        # Sequences that begin and such that go on may stand in one batch.
        previous[1] = some_frame()[1]
        mixed = mixture.slot_inputs(frame, prediction, gamma, previous)
        torch.testing.assert_close(mixed[0], seen[0])
        torch.testing.assert_close(mixed[1, :, -1:], gamma[1])

    def test_noise_and_bytes(self, mixture: Mixture) -> None:
        shape = torch.Size([4000, 3])
        noise = mixture.draw_noise(shape, 0.2, torch.Generator().manual_seed(0), torch.device("cpu"))
        assert noise is not None
        assert float(noise.std()) == pytest.approx(0.2, rel=0.05)
        assert mixture.draw_noise(shape, 0.0, None, torch.device("cpu")) is None
        frames = torch.tensor([-0.1, 0.5, 1.2])
        assert mixture.to_uint8(frames).tolist() == [0, 128, 255]
        torch.testing.assert_close(mixture.quantise(frames), torch.tensor([0.0, 0.5, 1.0]))
        torch.testing.assert_close(mixture.add_noise(frames, torch.ones(3)), frames + 1)


def test_it_wants_slots_that_see_motion() -> None:
    with pytest.raises(ConfigError, match="error_frame_motion"):
        ModelConfig(likelihood="mixture")


def test_it_learns(model: WorldModel) -> None:
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
        state = model.initial_state(3, generator=torch.Generator().manual_seed(0))
        result = loss(state, batch, torch.ones(5))
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.steps.mean()))
    assert losses[-1] < 0.8 * losses[0]
    background = model.likelihood.background
    assert background.grad is not None
    assert background.grad.any()
    assert "likelihood.background" in model.state_dict()


@pytest.mark.parametrize("imagination", ["soft", "pixels", "latent"])
def test_it_imagines_and_is_measured_and_drawn(model: WorldModel, imagination: str) -> None:
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
    generator = torch.Generator().manual_seed(0)
    figures = evaluate_imagination(model, Truth(frames, actions, objects=objects), how, generator)
    assert figures.objects is not None
    assert len(figures.objects.position_errors) == len(figures.frames.bce) == 4
    # Where nobody knows the objects, pixels are compared: visibly other ones, and those that show something.
    figures = evaluate_imagination(model, Truth(frames, actions), how, generator)
    assert figures.frames.told_bce == figures.frames.copy_bce == []
    assert figures.frames.small_recall is None
    assert all(0 <= share <= 1 for share in figures.frames.foreground_iou)
    assert figures.frames.copy_foreground_iou[0] > figures.frames.copy_foreground_iou[-1] > 0
    assert any("IoU" in line for line in imagination_table(figures))


def test_it_is_evaluated_one_step_ahead(model: WorldModel) -> None:
    frames, actions = coloured(3, 5)
    batch = Batch((frames * 255).round().to(torch.uint8), torch.arange(3), actions=actions, maximum_value=255)
    how = EvaluationConfig((1.0, 1.0, 1.0, 1.0), noise=0.1)
    found = evaluate(model, [batch], how, torch.Generator().manual_seed(0))
    assert found.losses["loss"] == found.losses["upper_bound"]
    assert found.losses["loss"]["total"] == found.losses["loss"]["intra"] > 0
    assert found.scores["plain_error"] > 0
    assert "plain_bce" not in found.scores


@torch.no_grad()
def test_it_dreams_step_by_step(model: WorldModel) -> None:
    frames, actions = coloured(2, 3)
    state = model.initial_state(2)
    transition = model.predict(state, frames[:, 0], actions[:, 0])
    state = model.update(transition, frames[:, 1])
    dream = model.start_imagination(state, transition.output, frames[:, 1])
    for imagination in ("latent", "pixels"):
        step = model.dream_step(dream, actions[:, 1], imagination)
        picture = model.draw(step.state.output)
        assert picture.frame.shape == (2, 3, 32, 32)
        assert model.likelihood.to_uint8(picture.frame).dtype == torch.uint8
