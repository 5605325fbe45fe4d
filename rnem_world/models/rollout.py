"""Running the model over frames, and on without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from rnem_world.errors import ConfigError
from rnem_world.models.layers import own_precision
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.world_model import DreamImagination, SlotState, Transition, WorldModel

Imagination = Literal["soft", DreamImagination]


@dataclass(frozen=True)
class RolloutConfig:
    """How a model watches and imagines.

    Attributes:
        context: Number of predictions from real frames, at least 1.
        horizon: Number of imagined frames, at least 0.
        imagination: How an imagined frame becomes the next input; see :func:`imagine`.
        noise: Strength of the inputs' noise, real or fed back: the probability that a bit flips.
        slots: Number of slots; None takes the model's own.
    """

    context: int
    horizon: int
    imagination: Imagination = "soft"
    noise: float = 0.0
    slots: int | None = None

    def __post_init__(self) -> None:
        if self.context < 1 or self.horizon < 0:
            raise ConfigError(
                f"a context of {self.context} and {self.horizon} imagined frames are asked for: at least 1 and 0 are "
                "needed"
            )
        if not 0.0 <= self.noise <= 1.0:
            raise ConfigError(f"the noise's probability is {self.noise}, it must lie in [0, 1]")

    def check_length(self, available: int) -> None:
        """Checks that sequences are long enough.

        Args:
            available: Their frames.

        Raises:
            ConfigError: If they aren't.
        """
        needed = self.context + self.horizon + 1
        if available < needed:
            raise ConfigError(
                f"a context of {self.context} and {self.horizon} imagined frames need sequences of {needed} frames, "
                f"and these have {available}: choose fewer"
            )


def observe(
    model: WorldModel,
    state: SlotState,
    frames: Float[Tensor, "b t c h w"],
    targets: Float[Tensor, "b s c h w"],
    actions: Num[Tensor, "b n ..."] | None,
    begins: Bool[Tensor, "b s"] | None = None,
) -> Iterator[tuple[Transition, SlotState]]:
    """Runs the model over real frames.

    Args:
        model: The model.
        state: The slots before the first frame.
        frames: The inputs, with noise if any; one more than the targets is allowed and not looked at.
        targets: The frames to predict, without noise: ``targets[:, t]`` follows ``frames[:, t]``.
        actions: The actions between them, at least as many as targets.
        begins: Which targets are the first frame of an episode; None if none is. What was predicted of them means
            nothing, and the slots begin there as before the first frame.

    Yields:
        For each step the prediction, and the slots after the E-step on its target.
    """
    first = state
    for step in range(targets.shape[1]):
        transition = model.predict(state, frames[:, step], None if actions is None else actions[:, step])
        state = model.update(transition, targets[:, step])
        if begins is not None:
            state = state.where(begins[:, step], first)
        yield transition, state


def imagine(
    model: WorldModel,
    state: SlotState,
    horizon: int,
    actions: Num[Tensor, "b s ..."] | None,
    imagination: str = "soft",
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    first_frame: Float[Tensor, "b c h w"] | None = None,
) -> Iterator[tuple[Tensor, Transition, SlotState]]:
    """Runs the model on its own frames.

    ``soft`` is the original's rollout: the next input is sum_k gamma_k mu_k. ``pixels`` feeds back the frame in black
    and white, so that imagining is filtering one's own frames. Both estimate gamma on the binarised frame. ``latent``
    is the same without drawing: the prior code tells what the slots would see. What is yielded is drawn all the same,
    to be looked at; :func:`rnem_world.models.world_model.WorldModel.dream_step` draws nothing.

    Args:
        model: The model.
        state: The slots after the last real frame; its gamma may have seen that frame.
        horizon: Number of frames to imagine.
        actions: The actions, at least ``horizon`` of them.
        imagination: How an imagined frame becomes the next input.
        noise: Probability that a pixel of a fed-back frame is flipped. A model that was trained with noise has never
            seen clean inputs; the original keeps its noise here too.
        generator: Draws the noise, on the model's device.
        first_frame: The last real frame, to be the first input in place of the model's own.

    Yields:
        For each step the frame that was fed back, the prediction from it, and the slots with the gamma that the
        model itself estimates.

    Raises:
        ConfigError: If the way to imagine is unknown, there are too few actions, or the model has no prior code.
    """
    model.check_imagination(imagination, get_args(Imagination))
    if actions is not None and actions.shape[1] < horizon:
        raise ConfigError(
            f"{actions.shape[1]} actions were given to imagine {horizon} frames: give one a frame"
        )
    likelihood = model.likelihood
    expected: Tensor | None = None
    following = first_frame
    for step in range(horizon):
        if following is not None:
            frame = following
        elif imagination == "soft":
            frame = likelihood.mix(state.prediction, state.gamma)
        else:
            frame = likelihood.own_frame(state.prediction)
        frame = likelihood.noisy(frame, noise, generator)
        code = expected if expected is not None else model.encode(state, frame)
        transition = model.predict_from(
            state.theta, code, None if actions is None else actions[:, step], frame
        )
        if imagination == "latent":
            expected = model.expect(state.theta, transition.theta)
        prediction = transition.prediction
        if imagination == "soft":
            following, gamma = None, likelihood.soft_gamma(prediction)
        else:
            picture = model.picture(prediction)
            following, gamma = picture.frame, picture.gamma
        state = SlotState(transition.theta, prediction, gamma, transition.frame)
        yield frame, transition, state


@dataclass(frozen=True)
class Rollout:
    """A recorded rollout: context frames followed by imagined ones, one entry a predicted frame.

    Attributes:
        likelihood: Reads logits and predictions.
        context: Number of entries that were predicted from real frames.
        inputs: Float (b, t, c, h, w), what the model was fed: real frames, then its own, with their noise.
        logits: Float (b, t, k, m, h, w).
        predictions: Float (b, t, k, m, h, w).
        gammas: Float (b, t, k, 1, h, w); from the real frame in the context, the model's own when imagining.
        estep_gammas: Float (b, t, k, 1, h, w), from the E-step on the true frame at every entry.
        attentions: Float (b, t, k, k - 1), or None.
    """

    likelihood: Likelihood
    context: int
    inputs: Tensor
    logits: Tensor
    predictions: Tensor
    gammas: Tensor
    estep_gammas: Tensor
    attentions: Tensor | None


@torch.no_grad()
@own_precision
def roll_out(
    model: WorldModel,
    frames: Float[Tensor, "b t c h w"],
    config: RolloutConfig,
    actions: Num[Tensor, "b s ..."] | None = None,
    generator: torch.Generator | None = None,
    state: SlotState | None = None,
) -> Rollout:
    """Watches ``context`` frames and imagines ``horizon`` more, as the original's rollouts do.

    Entry t predicts frame t + 1. The last real frame that the model is told of is ``frames[:, context]``. In soft
    imagination the E-step sees it and the encoder does not, as in the original; otherwise both do.

    Args:
        model: The model.
        frames: The true frames in [0, 1]; at least ``context + horizon + 1``.
        config: How far and how to imagine.
        actions: The true actions, at least ``context + horizon``; needed by a model with actions.
        generator: Draws the noise and the first responsibilities, on the model's device.
        state: A state to start from instead of the initial one.

    Raises:
        ConfigError: If there are too few frames.
    """
    config.check_length(frames.shape[1])
    context, horizon = config.context, config.horizon
    if state is None:
        state = model.initial_state(frames.shape[0], config.slots, generator)
    likelihood = model.likelihood
    inputs = likelihood.noisy(frames[:, :context], config.noise, generator)
    seen = None if actions is None else actions[:, :context]
    fed = list(inputs.unbind(dim=1))
    steps: list[tuple[Transition, Tensor]] = []
    for transition, after in observe(model, state, inputs, frames[:, 1 : context + 1], seen):
        steps.append((transition, after.gamma))
        state = after
    future = None if actions is None else actions[:, context : context + horizon]
    for frame, transition, after in imagine(
        model,
        state,
        horizon,
        future,
        config.imagination,
        config.noise,
        generator,
        first_frame=None if config.imagination == "soft" else frames[:, context],
    ):
        fed.append(frame)
        steps.append((transition, after.gamma))
    predictions = torch.stack([transition.prediction for transition, _ in steps], dim=1)
    gammas = torch.stack([gamma for _, gamma in steps], dim=1)
    estep_gammas = likelihood.e_step(predictions, frames[:, 1 : context + horizon + 1])
    attentions = [transition.attention for transition, _ in steps if transition.attention is not None]
    return Rollout(
        likelihood=likelihood,
        context=context,
        inputs=torch.stack(fed, dim=1),
        logits=torch.stack([transition.logits for transition, _ in steps], dim=1),
        predictions=predictions,
        gammas=gammas,
        estep_gammas=estep_gammas,
        attentions=torch.stack(attentions, dim=1) if attentions else None,
    )
