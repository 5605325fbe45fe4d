"""One batch at a time: chunks, closed loops, heads, noise, outliers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from worlds_to_train import MODEL as WORLD
from worlds_to_train import SIZE, STEPS

from rnem_world.data.loader import Batch
from rnem_world.distributed import Processes
from rnem_world.errors import ConfigError, TrainingError
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import ModelConfig
from rnem_world.models.world_model import WorldModel
from rnem_world.training.config import (
    ClosedLoopConfig,
    HeadLossConfig,
    NoiseConfig,
    OptimizerConfig,
    PriorCodeConfig,
    RunConfig,
    TrainingConfig,
)
from rnem_world.training.learner import NORM_RATE, Learner, check_shares
from rnem_world.training.losses import draw_own_frames, without_beginnings

# Plain gradient descent whose steps are far below rounding: weights stay as they are.
STILL = OptimizerConfig("sgd", 1e-30)
MODEL = dataclasses.replace(WORLD, number_of_actions=3, prior_code=False)


def learner_of(model: ModelConfig = MODEL, **training: object) -> Learner:
    torch.manual_seed(0)
    options = {"sequence_steps": STEPS, "batch_size": SIZE, "optimizer": STILL, "seed": 2, **training}
    return Learner(WorldModel(model), RunConfig(model, TrainingConfig(**options)))


def make_batch(size: int = SIZE, seed: int = 0, steps: int = STEPS) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    groups = (torch.rand(size, steps + 1, 32, 32, generator=generator) < 0.2).to(torch.uint8)
    return Batch(
        frames=groups[:, :, None].clone(),
        indices=torch.arange(size),
        groups=groups,
        actions=torch.randint(0, 3, (size, steps + 1), generator=generator),
        rewards=-torch.rand(size, steps + 1, generator=generator),
        terminations=torch.rand(size, steps + 1, generator=generator) < 0.3,
    )


def weights(learner: Learner) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in learner.model.parameters()]


def test_one_chunk_is_no_chunks():
    results = []
    for chunk in (None, STEPS):
        learner = learner_of(chunk_steps=chunk, optimizer=OptimizerConfig())
        results.append((learner.learn(make_batch(), 0, True), weights(learner)))
    assert results[0][0] == results[1][0]
    assert results[0][0].updates == 1
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_carry_the_slots_on_and_make_an_update_each(chunk):
    whole = learner_of().learn(make_batch(), 0, True)
    parts = learner_of(chunk_steps=chunk).learn(make_batch(), 0, True)
    assert parts.updates == STEPS // chunk
    assert parts.steps == pytest.approx(whole.steps, abs=2e-3)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.figures == pytest.approx(whole.figures, rel=1e-5)


def test_chunks_truncate_the_gradient_and_their_updates_are_seen_by_the_next():
    whole, parts = learner_of(), learner_of(chunk_steps=3)
    gradients = []
    for learner in (whole, parts):
        kept: list[float] = []
        gradients.append(kept)
        step = learner.optimizer.step

        def spied(learner=learner, kept=kept, step=step):
            kept.append(float(learner.model.core.update.weight.grad.norm()))
            step()

        learner.optimizer.step = spied
        learner.learn(make_batch(), 0, False)
    assert [len(kept) for kept in gradients] == [1, 2]
    assert sum(gradients[1]) / 2 != pytest.approx(gradients[0][0], rel=1e-4)
    moved = learner_of(chunk_steps=3, optimizer=OptimizerConfig("sgd", 1e-5)).learn(make_batch(), 0, False)
    still = learner_of(chunk_steps=3).learn(make_batch(), 0, False)
    assert moved.steps[:3] == still.steps[:3]
    assert moved.steps[3:] != still.steps[3:]


def test_the_gradient_does_not_pass_from_chunk_to_chunk():
    """Else the second backward pass would go through a graph that is gone."""
    learner = learner_of(chunk_steps=1)
    states = []
    forward = learner.loss.forward

    def spied(state, *arguments, **options):
        states.append(state)
        return forward(state, *arguments, **options)

    learner.loss.forward = spied
    learner.learn(make_batch(), 0, False)
    assert not any(state.theta.requires_grad or state.prediction.requires_grad for state in states)
    assert states[1].theta.abs().max() > 0


class TestClosedLoops:
    def draw(self, steps: int, fraction: float, longest: int, size: int = 4000) -> np.ndarray:
        return draw_own_frames(size, steps, fraction, longest, torch.Generator().manual_seed(0))

    def test_where_they_are_drawn(self):
        own = self.draw(12, 0.3, 3)
        assert own.shape == (4000, 12)
        assert not own[:, 0].any()
        assert own.any(axis=1).mean() == pytest.approx(0.3, abs=0.03)
        starts = (own[:, 1:] & ~own[:, :-1]).sum(axis=1)
        assert starts.max() == 1  # one a sequence
        assert own[:, 1:].any(axis=0).all()  # anywhere

    def test_how_long_they_are(self):
        own = self.draw(50, 1.0, 3)
        counts = np.bincount(own.sum(axis=1), minlength=4)
        assert counts[0] == 0
        assert len(counts) == 4
        # A third each; those that begin at the end are cut off.
        assert (counts[1:] / 4000).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)

    @pytest.mark.parametrize(("steps", "fraction"), [(1, 1.0), (12, 0.0)])
    def test_where_there_are_none(self, steps, fraction):
        assert not self.draw(steps, fraction, 2).any()

    def spied(self, learner: Learner, batch: Batch) -> tuple[list, list]:
        shown, transitions = [], []
        predict = learner.model.predict

        def spy(state, frame, actions=None):
            transition = predict(state, frame, actions)
            shown.append((frame, state.gamma))
            transitions.append(transition)
            return transition

        learner.model.predict = spy
        learner.learn(batch, 0, False)
        return shown, transitions

    def test_the_model_is_shown_its_own_frames_and_learns_from_the_true_ones(self, monkeypatch):
        from rnem_world.training import learner as module

        own = np.zeros((SIZE, STEPS), bool)
        own[1, 2:4] = own[3, 5] = True
        monkeypatch.setattr(module, "draw_own_frames", lambda *arguments: own)
        loop = ClosedLoopConfig(0.5, 2)
        learner = learner_of(closed_loop=loop, noise=NoiseConfig("none"))
        batch = make_batch()
        shown, transitions = self.spied(learner, batch)
        frames = batch.frames.float()
        for step in range(STEPS):
            frame, gamma = shown[step]
            expected = frames[:, step].clone()
            if step:
                drawn = Bernoulli(1).own_frame(transitions[step - 1].prediction)
                rows = torch.from_numpy(own[:, step])
                expected[rows] = drawn[rows]
                # The responsibilities too are those of the frame that is shown.
                torch.testing.assert_close(
                    gamma, Bernoulli(1).e_step(transitions[step - 1].prediction, expected)
                )
            torch.testing.assert_close(frame, expected)
        assert not torch.equal(shown[2][0][1], frames[1, 2])

    def test_they_begin_after_so_many_updates(self):
        plain = learner_of(chunk_steps=3).learn(make_batch(), 4, False)
        late = learner_of(chunk_steps=3, closed_loop=ClosedLoopConfig(1.0, 2, 5))
        steps = late.learn(make_batch(), 4, False).steps
        assert steps[:3] == plain.steps[:3]  # update 4
        assert steps[3:] != plain.steps[3:]  # update 5
        late = learner_of(chunk_steps=3, closed_loop=ClosedLoopConfig(1.0, 2, 6))
        assert late.learn(make_batch(), 4, False).steps == plain.steps

    def test_noise_flips_own_frames_too(self):
        learner = learner_of(
            closed_loop=ClosedLoopConfig(1.0, 5), noise=NoiseConfig("bitflip", 1.0), model=MODEL
        )
        shown, transitions = self.spied(learner, make_batch())
        clean = 1.0 - shown[3][0]
        drawn = Bernoulli(1).own_frame(transitions[2].prediction)
        is_own = [torch.equal(clean[row], drawn[row]) for row in range(SIZE)]
        assert any(is_own)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_add_up_to_the_batch(chunk, parts):
    """Noise, first responsibilities, closed loops, heads, prior code: each sequence keeps its own."""
    options = {
        "model": dataclasses.replace(MODEL, prior_code=True),
        "chunk_steps": chunk,
        "closed_loop": ClosedLoopConfig(0.7, 2, latent_fraction=0.5),
        "prior_code": PriorCodeConfig(0.25, 3),  # one sequence
        "noise": NoiseConfig(per_sequence=True),
        "optimizer": OptimizerConfig("sgd", 1e-5),
    }
    whole, cut = learner_of(**options), learner_of(accumulate=parts, **options)
    sizes = []
    forward = cut.loss.forward

    def spied(state, batch, *arguments, **keywords):
        sizes.append(batch.frames.shape[0])
        return forward(state, batch, *arguments, **keywords)

    cut.loss.forward = spied
    lessons = [learner.learn(make_batch(), 0, True) for learner in (whole, cut)]
    assert sizes == [SIZE // parts] * parts * lessons[0].updates
    assert lessons[0].updates == lessons[1].updates
    assert lessons[0].loss == pytest.approx(lessons[1].loss, rel=1e-5)
    assert lessons[0].steps == pytest.approx(lessons[1].steps, rel=1e-5, abs=2e-3)
    assert lessons[0].figures == pytest.approx(lessons[1].figures, rel=1e-4)
    gradients = [[parameter.grad for parameter in learner.model.parameters()] for learner in (whole, cut)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))
    for one, other in zip(weights(whole), weights(cut), strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_that_is_not_a_number_in_one_micro_batch_stops_the_update():
    learner = learner_of(accumulate=2, optimizer=OptimizerConfig())
    batch = make_batch()
    batch.rewards[0, 0] = math.nan
    before = weights(learner)
    with pytest.raises(TrainingError, match="the loss is nan at update 1"):
        learner.learn(batch, 0, False)
    assert all(torch.equal(one, other) for one, other in zip(before, weights(learner), strict=True))


@pytest.mark.parametrize(("processes", "accumulate"), [(3, 1), (2, 4), (1, 3)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(processes, accumulate):
    options = TrainingConfig(batch_size=24, accumulate=accumulate)
    check_shares(options, Processes(0, processes))
    with pytest.raises(ConfigError, match=r"batch_size is 10.*multiple of|divide the batch_size of 10"):
        check_shares(dataclasses.replace(options, batch_size=10), Processes(0, processes))


def test_every_update_takes_its_own_learning_rate():
    """With plain gradient descent and a falling rate the last update changes nothing."""
    options = OptimizerConfig("sgd", 1e-6, schedule="linear", schedule_updates=7, final_learning_rate=0.0)
    learner = learner_of(chunk_steps=3, optimizer=options)
    taken = []
    step = learner.optimizer.step

    def spied():
        taken.append(learner.optimizer.param_groups[0]["lr"])
        step()

    learner.optimizer.step = spied
    learner.learn(make_batch(), 4, False)
    assert taken == [options.rate_at(4), options.rate_at(5)]
    before = weights(learner)
    learner.learn(make_batch(), 7, False)
    assert all(torch.equal(one, other) for one, other in zip(before, weights(learner), strict=True))


def test_every_sequence_draws_its_own_strength_of_noise():
    learner = learner_of(noise=NoiseConfig("bitflip", 0.4, per_sequence=True))
    learner.generator.manual_seed(0)
    flips = learner._sequences(make_batch(size=200)).noise
    rates = flips.float().mean(dim=(1, 2, 3, 4)).sort().values
    # Uniform between 0 and 0.4.
    expected = 0.4 * (torch.arange(200) + 0.5) / 200
    assert (rates - expected).abs().max() < 0.05
    per_step = flips.float().mean(dim=(2, 3, 4))
    assert (per_step.std(dim=1) < 0.03).all()  # one strength a sequence
    fixed = learner_of(noise=NoiseConfig("bitflip", 0.4))
    rates = fixed._sequences(make_batch(size=20)).noise.float().mean(dim=(1, 2, 3, 4))
    assert (rates - 0.4).abs().max() < 0.03
    assert learner_of(noise=NoiseConfig("none"))._sequences(make_batch()).noise is None


class TestEpisodesThatBeginWithin:
    """What comes before a reset must not be seen in what comes behind it."""

    BEGINS = 3

    def batch(self, seed: int = 0) -> Batch:
        is_first = torch.zeros(SIZE, STEPS + 1, dtype=torch.bool)
        is_first[:, 0] = is_first[:, self.BEGINS] = True
        return dataclasses.replace(make_batch(seed=seed), is_first=is_first)

    def learn(self, batch: Batch, **training: object):
        learner = learner_of(noise=NoiseConfig("none"), **training)
        lesson = learner.learn(batch, 0, False)
        return lesson, [parameter.grad for parameter in learner.model.parameters()]

    def test_a_batch_without_resets_is_learnt_as_ever(self):
        plain, marked = make_batch(), make_batch()
        marked = dataclasses.replace(marked, is_first=torch.zeros(SIZE, STEPS + 1, dtype=torch.bool))
        assert self.learn(plain)[0] == self.learn(marked)[0]

    @pytest.mark.parametrize("chunk_steps", [None, 2, 3])
    def test_the_past_does_not_matter(self, chunk_steps):
        here, other = self.batch(), self.batch(seed=1)

        def tail_of_here(name):
            mine, theirs = getattr(here, name), getattr(other, name)
            return torch.cat([theirs[:, : self.BEGINS], mine[:, self.BEGINS :]], dim=1)

        names = ("frames", "groups", "actions", "rewards", "terminations")
        mixed = dataclasses.replace(here, **{name: tail_of_here(name) for name in names})
        (mine, _), (theirs, _) = (self.learn(batch, chunk_steps=chunk_steps) for batch in (here, mixed))
        assert mine.steps[: self.BEGINS - 1] != theirs.steps[: self.BEGINS - 1]
        assert mine.steps[self.BEGINS :] == theirs.steps[self.BEGINS :]
        assert mine.steps[self.BEGINS - 1] == 0.0

    def test_what_is_stored_of_the_transition_between_means_nothing(self):
        here = self.batch()
        between = self.BEGINS - 1
        actions, rewards, ends = here.actions.clone(), here.rewards.clone(), here.terminations.clone()
        actions[:, between] = (actions[:, between] + 1) % 3
        rewards[:, between] += 5.0
        ends[:, between] = ~ends[:, between]
        changed = dataclasses.replace(here, actions=actions, rewards=rewards, terminations=ends)
        (mine, my_gradients), (theirs, their_gradients) = self.learn(here), self.learn(changed)
        assert mine == theirs
        for my_gradient, their_gradient in zip(my_gradients, their_gradients, strict=True):
            torch.testing.assert_close(my_gradient, their_gradient)

    def test_sequences_that_go_on_weigh_as_much_as_ever(self):
        here = self.batch()
        is_first = here.is_first.clone()
        is_first[1:, self.BEGINS] = False
        lesson, _ = self.learn(dataclasses.replace(here, is_first=is_first))
        alone, _ = self.learn(dataclasses.replace(make_batch(), is_first=None))
        # The mean over those that go on is near the mean over all; without weights it would be less by a share.
        assert lesson.steps[self.BEGINS - 1] == pytest.approx(alone.steps[self.BEGINS - 1], rel=0.1)

    def test_loops_end_where_an_episode_begins(self):
        own = np.array([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1]], np.bool_)
        is_first = np.zeros_like(own)
        is_first[:, 3] = True
        expected = np.array([[0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]], np.bool_)
        np.testing.assert_array_equal(without_beginnings(own, is_first), expected)

    def test_micro_batches_add_up_to_the_batch(self):
        here = self.batch()
        is_first = here.is_first.clone()
        is_first[::2, self.BEGINS] = False
        batch = dataclasses.replace(here, is_first=is_first)
        (whole, _), (cut, _) = self.learn(batch), self.learn(batch, accumulate=2)
        assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
        assert cut.steps == pytest.approx(whole.steps, rel=1e-4)


class TestHeads:
    def gradient(self, batch: Batch, **weights: float) -> tuple[float, float]:
        """Norms of the gradients of the reward's share and of the termination's."""
        learner = learner_of(head_loss=HeadLossConfig(**weights))
        learner.learn(batch, 0, False)
        gradient = learner.model.heads.shares.weight.grad
        if gradient is None:
            return 0.0, 0.0
        return float(gradient[0].norm()), float(gradient[1].norm())

    def test_both_losses_enter_the_gradient_with_their_weights(self):
        reward, termination = self.gradient(make_batch(), reward_weight=1.0, termination_weight=1.0)
        assert reward > 0
        assert termination > 0
        assert self.gradient(make_batch(), reward_weight=3.0, termination_weight=0.0) == (
            pytest.approx(3 * reward, rel=1e-4),
            0.0,
        )
        assert self.gradient(make_batch(), reward_weight=0.0, termination_weight=2.0) == (
            0.0,
            pytest.approx(2 * termination, rel=1e-4),
        )

    def test_data_without_rewards_or_terminations_trains(self):
        batch = dataclasses.replace(make_batch(), terminations=None)
        reward, termination = self.gradient(batch)
        assert reward > 0
        assert termination == 0.0
        assert self.gradient(dataclasses.replace(batch, rewards=None)) == (0.0, 0.0)

    def test_the_loss_is_the_weighted_sum(self):
        learner = learner_of(step_weights=(1.0, 0.0, 0.0, 0.0, 0.0, 3.0), noise=NoiseConfig("none"))
        batch = make_batch()
        heads = []
        predict = learner.model.predict

        def spy(*arguments):
            transition = predict(*arguments)
            heads.append(transition.heads)
            return transition

        learner.model.predict = spy
        lesson = learner.learn(batch, 0, False)
        expected = 0.0
        for step, weight in ((0, 0.25), (5, 0.75)):
            error = heads[step].rewards.sum(dim=1) - batch.rewards[:, step]
            ends = batch.terminations[:, step].float()
            p = torch.sigmoid(heads[step].termination)
            entropy = -(ends * p.log() + (1 - ends) * (1 - p).log())
            expected += weight * 20.0 * float((error.square().mean() + entropy.mean()).detach())
        assert lesson.figures["heads"] == pytest.approx(expected, rel=1e-4)
        pixels = 0.25 * lesson.steps[0] + 0.75 * lesson.steps[5]
        assert lesson.loss == pytest.approx(pixels + expected, abs=2e-3)

    def test_rewards_reach_the_learner_from_the_file(self, tmp_path):
        from rnem_world.agents.collecting import collect
        from rnem_world.data.dataset import Dataset
        from rnem_world.training.presets import make_loader

        data = collect(
            "balls",
            tmp_path / "a.h5",
            preset="avoid",
            num_train=4,
            num_valid=2,
            num_test=2,
            frames=8,
            progress=False,
        )
        config = RunConfig(
            dataclasses.replace(MODEL, number_of_actions=9), TrainingConfig(sequence_steps=3, batch_size=2)
        )
        with Dataset.open(data) as dataset:
            batch = next(make_loader(dataset, "training", config, None).epoch(0))
        assert batch.actions is not None
        assert batch.rewards is not None
        assert batch.terminations is not None


class TestOutliers:
    def run(self, learner: Learner, gradient: float) -> float:
        """Makes an update whose gradient has this norm, and gives the norm of the step."""
        parameters = list(learner.model.parameters())
        before = weights(learner)
        direction = sum(parameter.sum() for parameter in parameters)
        count = sum(parameter.numel() for parameter in parameters)
        learner.optimizer.zero_grad()
        (direction * (gradient / math.sqrt(count))).backward()
        learner._update(torch.ones(1), 0)
        moved = [new.detach() - old for new, old in zip(parameters, before, strict=True)]
        return float(torch.cat([move.flatten() for move in moved]).double().norm())

    def test_an_outlier_is_scaled_to_a_multiple_of_the_running_norm(self):
        learner = learner_of(optimizer=OptimizerConfig("sgd", 1.0, clip_factor=2.0))
        assert self.run(learner, 3.0) == pytest.approx(3.0, rel=1e-3)
        assert learner.gradient_norm == pytest.approx(3.0, rel=1e-3)
        assert self.run(learner, 5.0) == pytest.approx(5.0, rel=1e-3)  # no outlier
        running = 3.0 + NORM_RATE * 2.0
        assert learner.gradient_norm == pytest.approx(running, rel=1e-3)
        assert self.run(learner, 500.0) == pytest.approx(2 * running, rel=1e-3)
        # What the outlier adds to the running norm is limited too.
        assert learner.gradient_norm == pytest.approx(running * (1 + NORM_RATE), rel=1e-3)

    def test_without_the_factor_nothing_is_scaled(self):
        learner = learner_of(optimizer=OptimizerConfig("sgd", 1.0))
        assert [self.run(learner, norm) for norm in (1.0, 50.0)] == pytest.approx([1.0, 50.0], rel=1e-3)

    def test_a_norm_limit_holds_beside_it_and_is_not_applied_twice(self):
        options = OptimizerConfig("sgd", 1.0, clip_norm=4.0, clip_by="global", clip_factor=2.0)
        learner = learner_of(optimizer=options)
        self.run(learner, 3.0)
        assert self.run(learner, 5.0) == pytest.approx(4.0, rel=1e-3)
        assert self.run(learner, 500.0) == pytest.approx(4.0, rel=1e-3)

    def test_the_running_norm_is_saved_and_restored(self):
        learner, other = (learner_of(optimizer=OptimizerConfig(clip_factor=2.0)) for _ in range(2))
        learner.learn(make_batch(), 0, False)
        assert learner.gradient_norm > 0
        other.load_state_dict(learner.state_dict())
        assert other.gradient_norm == learner.gradient_norm


def test_a_resumed_run_with_everything_equals_an_uninterrupted_one(tmp_path):
    """Chunks, closed loops, noise per sequence, heads, actions, clipping, on collected data."""
    from rnem_world.agents.collecting import collect
    from rnem_world.data.dataset import Dataset
    from rnem_world.training import checkpoint
    from rnem_world.training.logging import LOG_FILE
    from rnem_world.training.presets import fit_model_to
    from rnem_world.training.trainer import Trainer

    data = collect(
        "balls",
        tmp_path / "a.h5",
        preset="avoid",
        num_train=12,
        num_valid=2,
        num_test=2,
        frames=12,
        progress=False,
    )
    options = {
        "sequence_steps": STEPS,
        "chunk_steps": 2,
        "cold_start_steps": 1,
        "window": "random",
        "batch_size": SIZE,
        "noise": NoiseConfig(per_sequence=True),
        "closed_loop": ClosedLoopConfig(0.7, 2, 4),
        "optimizer": OptimizerConfig(
            clip_factor=1.05, schedule="cosine", schedule_updates=18, warm_up_updates=3
        ),
        "epochs": 3,
        "score_every": 1,
    }

    def sit(run, updates, resume):
        config = RunConfig(MODEL, TrainingConfig(max_updates=updates, **options))
        with Dataset.open(data) as dataset:
            config = fit_model_to(dataset, config, True, "projection32")
            Trainer(config, dataset, run, torch.device("cpu"), lambda line: None, resume=resume).fit()

    with pytest.MonkeyPatch.context() as patch:
        black = np.zeros((4, 4, 3), np.uint8)
        patch.setattr(Trainer, "overview", lambda trainer: black)
        sit(tmp_path / "whole", 20, False)
        for number, updates in enumerate((4, 9, 13, 20)):
            sit(tmp_path / "parts", updates, number > 0)
    latest = [checkpoint.updates_of(tmp_path / name)[-1] for name in ("whole", "parts")]
    assert latest[0].name == latest[1].name == "update-000000021"  # a batch is never cut in two
    one, other = (checkpoint.read_weights(folder) for folder in latest)
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [checkpoint.load_trainer(folder) for folder in latest]
    assert states[0]["gradient_norm"] == states[1]["gradient_norm"] > 0
    logs = [(tmp_path / name / LOG_FILE).read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_the_prior_code_learns_alone_and_the_others_without_it() -> None:
    config = dataclasses.replace(MODEL, prior_code=True)
    options = {"sequence_steps": 6, "chunk_steps": 3, "prior_code": PriorCodeConfig(0.5, 3)}
    learner = learner_of(config, **options)
    own = {name for name, _ in learner.model.named_parameters() if name.startswith("prior_code.")}
    batch = learner._sequences(make_batch())._replace(imagined=np.array([2.0, 0.0, 2.0, 0.0], np.float32))
    state = learner.model.initial_state(SIZE, generator=torch.Generator().manual_seed(0))
    learner.loss._imagine(state, batch).codes.backward()
    moved = {name for name, parameter in learner.model.named_parameters() if parameter.grad is not None}
    assert moved == own
    lesson = learner.learn(make_batch(), 0, with_score=False)
    assert lesson.figures["prior_code"] > 0
    without = learner_of(MODEL, sequence_steps=6, chunk_steps=3)
    state_dict = {
        name: value
        for name, value in learner.model.state_dict().items()
        if not name.startswith("prior_code.")
    }
    without.model.load_state_dict(state_dict)
    assert without.learn(make_batch(), 0, with_score=False).steps == lesson.steps


def test_the_prior_code_learns_to_imagine_as_in_pixels() -> None:
    config = dataclasses.replace(MODEL, prior_code=True)
    learner = learner_of(config, prior_code=PriorCodeConfig(1.0, 3), optimizer=OptimizerConfig("adam", 3e-3))
    batch = learner._sequences(make_batch())._replace(imagined=np.ones(SIZE, np.float32))
    state = learner.model.initial_state(SIZE, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(learner.model.prior_code.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = learner.loss._imagine(state, batch).codes
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_slots_watch_a_chunk_before_they_train_the_prior_code() -> None:
    config = dataclasses.replace(MODEL, prior_code=True)
    chunked = learner_of(config, chunk_steps=3, prior_code=PriorCodeConfig(0.5, 3, after_updates=10))
    whole = chunked._sequences(make_batch())
    assert chunked._chunk(whole, 0, 3, 20).imagined is None
    assert chunked._chunk(whole, 3, 3, 20).imagined.tolist() == [2.0, 0.0, 2.0, 0.0]
    assert chunked._chunk(whole, 3, 3, 9).imagined is None
    assert learner_of(MODEL, chunk_steps=3)._chunk(whole, 3, 3, 20).imagined is None


def test_latent_closed_loops_are_part_of_the_closed_loops_and_teach_the_prior_code() -> None:
    config = dataclasses.replace(MODEL, prior_code=True)
    learner = learner_of(config, closed_loop=ClosedLoopConfig(1.0, 3, latent_fraction=0.5))
    whole = learner._sequences(make_batch(64))
    chunk = learner._chunk(whole, 0, STEPS, 0)
    assert chunk.own_frames is not None
    assert chunk.expected_codes is not None
    assert not (chunk.expected_codes & ~chunk.own_frames).any()
    latent = chunk.expected_codes.any(axis=1)
    assert 16 < int(latent.sum()) < 48
    assert np.array_equal(chunk.expected_codes[latent], chunk.own_frames[latent])
    state = learner.model.initial_state(64, generator=torch.Generator().manual_seed(0))
    learner.loss(state, chunk._replace(imagined=None), learner.step_weights).loss.backward()
    gradients = [parameter.grad for parameter in learner.model.prior_code.parameters()]
    assert min(gradient.abs().max().item() for gradient in gradients) > 0
    everything = learner.model.state_dict()
    plain = learner_of(MODEL, closed_loop=ClosedLoopConfig(1.0, 3, latent_fraction=0.5))
    plain.model.load_state_dict(
        {name: value for name, value in everything.items() if "prior_code" not in name}
    )
    assert plain._chunk(whole, 0, STEPS, 0).expected_codes is None
