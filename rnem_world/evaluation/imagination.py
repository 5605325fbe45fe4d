"""Evaluating imagined frames: how long they stay what really comes, by pixels, slots, objects, player and rewards."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace

import torch
from jaxtyping import Float, Num
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.evaluation.imagination_figures import RETRIEVED_AFTER, ImaginationFigures, imagination_figures
from rnem_world.evaluation.metrics import SlotCentroids, foreground_ari, slot_centroids
from rnem_world.evaluation.truth import Objects, Truth, match_slots
from rnem_world.models.layers import own_precision
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.rollout import RolloutConfig, imagine, observe
from rnem_world.models.world_model import SlotState, Transition, WorldModel


def check_length(config: RolloutConfig, available: int) -> None:
    """Checks that dreams of this length can be measured.

    Args:
        config: Frames to watch, of which two give the velocities that guessing needs, and frames to imagine.
        available: Frames of a sequence.

    Raises:
        ConfigError: If not.
    """
    if config.context < 2 or config.horizon < 1:
        raise ConfigError(
            f"a context of {config.context} and {config.horizon} imagined frames are asked for: at least 2 and 1 are "
            "needed"
        )
    config.check_length(available)


@torch.no_grad()
@own_precision
def evaluate_imagination(
    model: WorldModel,
    truth: Truth,
    config: RolloutConfig,
    generator: torch.Generator,
    batch_size: int = 32,
) -> ImaginationFigures:
    """Measures imagined frames against what happened; the same again under other sequences' actions.

    Args:
        model: The model, in evaluation mode.
        truth: What happened in at least ``context + horizon + 1`` frames.
        config: How to imagine. A model that was trained with noise of one strength needs it here too.
        generator: Draws first responsibilities and the noise, on the model's device.
        batch_size: Sequences at once.

    Raises:
        ConfigError: If there are too few sequences or frames, or fewer slots than balls.
    """
    check_length(config, truth.frames.shape[1])
    sequences = truth.frames.shape[0]
    if sequences < 1 or batch_size < 1:
        raise ConfigError(f"{sequences} sequences, {batch_size} at once: at least 1 of each is needed")
    if not model.config.takes_actions:
        truth = replace(truth, actions=None)
    parts = [slice(start, start + batch_size) for start in range(0, sequences, batch_size)]

    def dreams(actions: Tensor | None, watches_on: bool) -> dict[str, Tensor]:
        found = [
            _dream(model, truth.rows(rows), actions, rows, config, generator, watches_on) for rows in parts
        ]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    result, shuffled = dreams(truth.actions, True), None
    if truth.actions is not None and sequences > 1:
        shuffled = dreams(truth.actions.roll(1, dims=0), False)
    return imagination_figures(model.likelihood, truth, result, shuffled, config)


def _dream(
    model: WorldModel,
    truth: Truth,
    actions: Num[Tensor, "n t ..."] | None,
    rows: slice,
    config: RolloutConfig,
    generator: torch.Generator,
    watches_on: bool,
) -> dict[str, Tensor]:
    """Watches, then imagines under the actions given, and beside it watches on.

    Args:
        model: The model.
        truth: Of some rows of all sequences.
        actions: What is done while imagining, in all sequences.
        rows: Which rows they are.
        config: How to imagine.
        generator: Draws first responsibilities and noise.
        watches_on: Whether to watch on.

    Returns:
        Tensors with the sequences first: ``bce`` Float (b, horizon), ``drawn`` Float (b, horizon, c, h, w), imagined
        frames made hard, and with heads ``rewards``, the ``likeliest`` ones, and ``ends``, logits, Float (b, horizon);
        with known objects, what :class:`_Tracker` measures. Having watched on, ``watched rewards`` and ``watched
        likeliest``, told one frame ahead; and where objects aren't known ``watched`` frames, told likewise, and Float
        (b, k, d) the slots that were ``imagined 1`` frame on, and ``true 1``, likewise 5 and 10, and ``true 0``.
    """
    likelihood, frames, context, horizon = model.likelihood, truth.frames, config.context, config.horizon
    state = model.initial_state(frames.shape[0], config.slots, generator)
    seen = likelihood.noisy(frames[:, : context + horizon], config.noise, generator)
    found: dict[str, Tensor] = {}
    series: dict[str, list[Tensor]] = defaultdict(list)
    last: deque[tuple[Transition, Tensor]] = deque(maxlen=5)
    for transition, after in observe(
        model, state, seen[:, :context], frames[:, 1 : context + 1], truth.actions
    ):
        state = after
        last.append((transition, after.gamma))
    # Positions tell more than slots that are found again, which takes long.
    retrieves = watches_on and truth.objects is None
    tracker = None
    if truth.objects is not None:
        tracker = _Tracker(likelihood, truth.objects, context, last)
        found["fg_ari"] = tracker.fg_ari
    future = slice(context, context + horizon)
    future_actions = None if actions is None else actions[rows, future]
    for step, (_, transition, own) in enumerate(
        imagine(
            model,
            state,
            horizon,
            future_actions,
            config.imagination,
            config.noise,
            generator,
            frames[:, context],
        ),
        start=1,
    ):
        expected = likelihood.soft_frame(transition.prediction)
        series["bce"].append(likelihood.frame_loss(expected, frames[:, context + step]))
        series["drawn"].append(likelihood.own_frame(transition.prediction))
        if transition.heads is not None:
            series["rewards"].append(transition.heads.rewards.sum(dim=1))
            series["likeliest"].append(model.likeliest_reward(transition.heads))
            series["ends"].append(transition.heads.termination)
        if tracker is not None:
            errors, masses = tracker.measure(transition, own.gamma, context + step)
            series["errors"].append(errors)
            series["masses"].append(masses)
        if step in RETRIEVED_AFTER and retrieves:
            found[f"imagined {step}"] = _look(model, own, series["drawn"][-1])
    if watches_on:
        if retrieves:
            found["true 0"] = _look(model, state, frames[:, context])
        targets = frames[:, context + 1 : context + horizon + 1]
        done = None if truth.actions is None else truth.actions[:, future]
        for step, (transition, after) in enumerate(
            observe(model, state, seen[:, context:], targets, done), start=1
        ):
            if retrieves:
                series["watched"].append(likelihood.own_frame(transition.prediction))
            if transition.heads is not None:
                series["watched rewards"].append(transition.heads.rewards.sum(dim=1))
                series["watched likeliest"].append(model.likeliest_reward(transition.heads))
            if step in RETRIEVED_AFTER and retrieves:
                found[f"true {step}"] = _look(model, after, targets[:, step - 1])
    return found | {name: torch.stack(values, dim=1) for name, values in series.items()}


class _Tracker:
    """Follows the slots of balls, to which it matches them once, at the end of the context.

    Args:
        likelihood: The model's.
        objects: Where the balls are.
        context: The context.
        last: The last transitions of the context, and the responsibilities after them.

    Attributes:
        fg_ari: Float (b,), over these last frames.
    """

    def __init__(
        self, likelihood: Likelihood, objects: Objects, context: int, last: deque[tuple[Transition, Tensor]]
    ) -> None:
        self.likelihood, self.objects = likelihood, objects
        gammas = torch.stack([gamma[:, :, 0] for _, gamma in last], dim=1)
        self.fg_ari = foreground_ari(gammas, objects.groups[:, context + 1 - len(last) : context + 1]).mean(
            dim=1
        )
        found = self._find(*last[-1])
        match = match_slots(found.positions[:, 0], found.masses[:, 0], objects.positions[:, context])
        self.match, self.numbers = match, torch.arange(1, match.shape[1] + 1, device=match.device)

    def measure(
        self, transition: Transition, gamma: Tensor, frame: int
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Gives each ball's distance from its slot, in radii, and the slot's mass over its visible pixels."""
        found, objects = self._find(transition, gamma), self.objects
        positions = found.positions[:, 0].gather(1, self.match[..., None].expand(-1, -1, 2))
        errors: Tensor = (positions - objects.positions[:, frame]).norm(dim=2) / objects.radii
        visible = (objects.groups[:, frame, None] == self.numbers[:, None, None]).sum(dim=(2, 3))
        return errors, found.masses[:, 0].gather(1, self.match) / visible.clamp(min=1)

    def _find(self, transition: Transition, gamma: Tensor) -> SlotCentroids:
        return slot_centroids(self.likelihood.object_weights(transition.prediction, gamma)[:, None])


def _look(model: WorldModel, state: SlotState, frame: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k d"]:
    """Gives the slots once they have seen a frame, all under action 0, so that no action tells sequences apart."""
    actions = None if model.action_embedding is None else model.action_embedding.zeros(frame.shape[0])
    return model.predict(state, frame, actions).theta
