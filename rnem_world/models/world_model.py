"""The world model: slots that see a frame, act on one another, predict the next frame, and dream on by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rnem_world.errors import ConfigError, suggest
from rnem_world.models.actions import ActionEmbedding, Actions
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import ModelConfig, ProjectionArchitecture, validate_slots
from rnem_world.models.cores import (
    CoreOutput,
    LongShortTermMemoryCore,
    PriorCode,
    RecurrentCore,
    RelationalCore,
)
from rnem_world.models.heads import ClassHeads, HeadOutput, make_heads, read_heads
from rnem_world.models.likelihood import Likelihood
from rnem_world.models.mixture import Mixture
from rnem_world.models.vision import Decoder, Encoder, ProjectionDecoder, ProjectionEncoder

DreamImagination = Literal["latent", "pixels"]


@dataclass(frozen=True)
class SlotState:
    """All that the model carries from one frame to the next.

    Attributes:
        theta: Float (b, k, s), the slots' states.
        prediction: Float (b, k, m, h, w), what each slot predicted of the current frame; the likelihood knows how to
            read it.
        gamma: Float (b, k, 1, h, w), each slot's responsibility for the pixels of the current frame.
        frame: Float (b, c, h, w), the previous input, for models whose slots see motion; zeros before the first
            frame, None for models that don't.
    """

    theta: Tensor
    prediction: Tensor
    gamma: Tensor
    frame: Tensor | None = None

    def detach(self) -> SlotState:
        """Cuts the gradient, for truncated backpropagation through time."""
        frame = None if self.frame is None else self.frame.detach()
        return SlotState(self.theta.detach(), self.prediction.detach(), self.gamma.detach(), frame)

    def rows(self, rows: slice | Tensor) -> SlotState:
        """Takes some of the sequences, by a slice or by their numbers."""
        there = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(self, **{name: value[rows] for name, value in there.items() if value is not None})

    def where(self, mask: Bool[Tensor, " b"], other: SlotState) -> SlotState:
        """Takes another state's sequences where the mask is true."""
        there = {
            entry.name: (getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self)
        }
        chosen = {
            name: torch.where(mask.view(-1, *[1] * (mine.ndim - 1)), theirs, mine)
            for name, (mine, theirs) in there.items()
            if mine is not None and theirs is not None
        }
        return replace(self, **chosen)


@dataclass(frozen=True)
class Transition:
    """What the model expects of the next frame, before it has seen it.

    Attributes:
        theta: Float (b, k, s).
        output: Float (b, k, h), what the decoder and the heads read.
        logits: Float (b, k, m, h, w), the maps that the decoder draws of each slot.
        prediction: Float (b, k, m, h, w), what the likelihood makes of them.
        attention: Float (b, k, k - 1), each slot's attention to the others in increasing order; None without.
        heads: What the transition earns and whether it ends the episode; None for a model without heads.
        frame: Float (b, c, h, w), the input, kept for models whose slots see motion.
    """

    theta: Tensor
    output: Tensor
    logits: Tensor
    prediction: Tensor
    attention: Tensor | None
    heads: HeadOutput | None = None
    frame: Tensor | None = None


@dataclass(frozen=True)
class DreamState:
    """All that a dream's future depends on, beside the actions.

    Attributes:
        theta: Float (b, k, s), the slots.
        output: Float (b, k, d), what the decoder reads of them.
        code: Float (b, k, e), what each slot sees of the current frame, or expects to see.
        frame: Float (b, c, h, w), the current frame, made hard, for models whose slots see motion and that
            imagine in pixels; None otherwise.
    """

    theta: Tensor
    output: Tensor
    code: Tensor
    frame: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> DreamState:
        """Applies a function to every tensor, as ``lambda tensor: tensor[rows]`` to pick dreams."""
        frame = None if self.frame is None else function(self.frame)
        return DreamState(function(self.theta), function(self.output), function(self.code), frame)


@dataclass(frozen=True)
class DreamStep:
    """One imagined transition.

    Attributes:
        state: The dream after it.
        rewards: Float (b, k), each slot's share of the reward; None without heads.
        termination: Float (b,), the logit that the episode ends; None without heads.
        attention: Float (b, k, k - 1), each slot's attention to the others in increasing order; None without.
        prediction: Float (b, k, m, h, w), what the slots predict; None in latent imagination, where nothing is drawn.
    """

    state: DreamState
    rewards: Tensor | None
    termination: Tensor | None
    attention: Tensor | None
    prediction: Tensor | None


@dataclass(frozen=True)
class Picture:
    """What the slots draw.

    Attributes:
        prediction: Float (b, k, m, h, w), for each slot what its likelihood makes of it.
        frame: Float (b, c, h, w), the dream's frame, made hard.
        gamma: Float (b, k, 1, h, w), the slots' responsibilities for it.
    """

    prediction: Tensor
    frame: Tensor
    gamma: Tensor


def make_likelihood(config: ModelConfig) -> Likelihood:
    """Makes the likelihood that a model is configured with.

    Raises:
        ConfigError: If pixels that are bits are given a deviation.
    """
    if config.likelihood == "mixture":
        return Mixture(config.channels, config.frame_size, config.initial_prediction, config.deviation)
    if config.deviation != ModelConfig.deviation:
        raise ConfigError(
            f"deviation is {config.deviation}, which is for colours and greys, and pixels are bits: leave it out"
        )
    sees_motion = config.slot_inputs == "error_frame_motion"
    return Bernoulli(config.channels, sees_motion, config.initial_prediction)


class WorldModel(nn.Module):
    """R-NEM (van Steenkiste et al., 2018) or one of its baselines.

    A step has two halves: :meth:`predict` looks at the current frame and predicts the next one, :meth:`update` sees
    the next frame and decides by an E-step which slot is responsible for which pixel. Imagining replaces the
    second half; see :mod:`rnem_world.models.rollout`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        image, hidden = config.image, config.hidden_size
        self.likelihood = make_likelihood(config)
        inputs, maps = self.likelihood.inputs, self.likelihood.maps
        self.encoder: Encoder | ProjectionEncoder
        if isinstance(image, ProjectionArchitecture):
            self.encoder = ProjectionEncoder(image, inputs)
        else:
            self.encoder = Encoder(image, inputs)
        action_size = config.action_size if config.takes_actions else 0
        self.action_embedding: ActionEmbedding | None = None
        if config.takes_actions:
            self.action_embedding = ActionEmbedding(config)
        self.core: RelationalCore | RecurrentCore | LongShortTermMemoryCore
        if config.is_relational:
            attends = config.core == "relational"
            self.core = RelationalCore(
                image.encoding_size,
                hidden,
                config.attention_size,
                action_size,
                attends,
                gated=config.theta_update == "gated",
            )
        elif config.core == "rnn":
            self.core = RecurrentCore(image.encoding_size, hidden, action_size)
        else:
            self.core = LongShortTermMemoryCore(image.encoding_size, hidden, action_size)
        self.decoder: Decoder | ProjectionDecoder
        if isinstance(image, ProjectionArchitecture):
            self.decoder = ProjectionDecoder(image, hidden, maps)
        else:
            self.decoder = Decoder(image, hidden, maps)
        self.heads = make_heads(config)
        self.prior_code: PriorCode | None = None
        if config.prior_code:
            self.prior_code = PriorCode(self.core.state_size, image.encoding_size)

    def initial_state(
        self, batch_size: int, slots: int | None = None, generator: torch.Generator | None = None
    ) -> SlotState:
        """Makes the state before the first frame: empty slots with random responsibilities.

        Args:
            batch_size: Number of sequences.
            slots: Number of slots; None takes the configuration's.
            generator: Draws the responsibilities, on the model's device.

        Raises:
            ConfigError: If the core can't run with so few slots.
        """
        slots = self.config.slots if slots is None else slots
        validate_slots(self.config.core, slots)
        like = self.encoder.linear.weight
        size = self.config.frame_size
        theta = like.new_zeros(batch_size, slots, self.core.state_size)
        prediction = self.likelihood.initial_prediction(batch_size, slots, size, like)
        gamma = self.likelihood.initial_gamma(batch_size, slots, size, generator, like.device)
        frame = self.likelihood.initial_frame(batch_size, size, like)
        return SlotState(theta, prediction, gamma.to(like.dtype), frame)

    def predict(
        self,
        state: SlotState,
        frame: Float[Tensor, "b c h w"],
        actions: Actions | None = None,
    ) -> Transition:
        """Predicts the next frame from the current one.

        Args:
            state: The slots at the current frame.
            frame: The current frame in [0, 1], real, noisy or imagined.
            actions: What is done now; needed if and only if the model has actions.

        Raises:
            ConfigError: If actions are missing or not wanted.
        """
        return self.predict_from(state.theta, self.encode(state, frame), actions, frame)

    def predict_from(
        self,
        theta: Float[Tensor, "b k s"],
        code: Float[Tensor, "b k e"],
        actions: Actions | None,
        frame: Float[Tensor, "b c h w"] | None = None,
    ) -> Transition:
        """Predicts the next frame from what the encoder makes of the current one, or is expected to make of it.

        Args:
            theta: The slots' states.
            code: From :meth:`encode`, or from the prior code.
            actions: As for :meth:`predict`.
            frame: The current frame, for models whose slots see motion.
        """
        step = self.core(theta, code, self.embed(actions, theta.shape[1]))
        logits = self.decode(step.output)
        return Transition(
            step.theta,
            step.output,
            logits,
            self.likelihood.predict(logits),
            step.attention,
            self.tell(step),
            frame if self.likelihood.sees_motion else None,
        )

    def tell(self, step: CoreOutput) -> HeadOutput | None:
        """Tells what a transition earns and whether it ends the episode; None without heads."""
        return None if self.heads is None else read_heads(self.heads, step, self.config.heads_see)

    def likeliest_reward(self, heads: HeadOutput) -> Float[Tensor, " b"]:
        """Gives the reward that the heads hold for the most likely; where they tell a number, that."""
        if heads.classes is None or not isinstance(self.heads, ClassHeads):
            return heads.rewards.sum(dim=1)
        return self.heads.values[heads.classes.argmax(dim=1)]

    def encode(self, state: SlotState, frame: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k e"]:
        """Encodes what each slot sees of the current frame.

        Args:
            state: The slots at the current frame.
            frame: The current frame.
        """
        seen = self.likelihood.slot_inputs(frame, state.prediction, state.gamma, state.frame)
        code: Tensor = self.encoder(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return code

    def decode(self, output: Float[Tensor, "b k d"]) -> Float[Tensor, "b k m h w"]:
        """Draws each slot: the maps that the likelihood reads."""
        logits: Tensor = self.decoder(output.flatten(0, 1)).unflatten(0, output.shape[:2])
        return logits

    def update(self, transition: Transition, frame: Float[Tensor, "b c h w"]) -> SlotState:
        """Takes in the frame that was predicted: the E-step."""
        gamma = self.likelihood.e_step(transition.prediction, frame)
        return SlotState(transition.theta, transition.prediction, gamma, transition.frame)

    def check_imagination(self, imagination: str, known: Sequence[str] = get_args(DreamImagination)) -> None:
        """Checks that the model can imagine in this way, one of those known.

        Raises:
            ConfigError: If the way is unknown, or the model has no prior code for latent imagination.
        """
        if imagination not in known:
            raise ConfigError(f"unknown imagination {imagination!r}: {suggest(imagination, known)}")
        if imagination == "latent":
            self.require_prior_code()

    def start_imagination(
        self, state: SlotState, output: Float[Tensor, "b k d"], frame: Float[Tensor, "b c h w"]
    ) -> DreamState:
        """Starts dreams from the last real frame.

        Args:
            state: The slots after the E-step on that frame.
            output: The output of the transition that led to them.
            frame: The last real frame, in [0, 1].
        """
        kept = frame if self.likelihood.sees_motion else None
        return DreamState(state.theta, output, self.encode(state, frame), kept)

    def dream_step(
        self,
        state: DreamState,
        actions: Actions | None,
        imagination: DreamImagination = "latent",
    ) -> DreamStep:
        """Imagines one transition of every dream.

        ``pixels`` draws the slots, makes their frame hard, and lets the slots see it as if it were real;
        ``latent`` lets the prior code tell what they would see. The result equals that of
        :func:`rnem_world.models.rollout.imagine` in the same way and without noise.

        Args:
            state: The dreams.
            actions: One action each; None for a model without actions.
            imagination: ``latent`` or ``pixels``.

        Raises:
            ConfigError: If actions are missing or not wanted, or the model has no prior code.
        """
        step = self.core(state.theta, state.code, self.embed(actions, state.theta.shape[1]))
        heads = self.tell(step)
        prediction = None
        if imagination == "latent":
            after = DreamState(step.theta, step.output, self.expect(state.theta, step.theta))
        else:
            picture = self.draw(step.output)
            prediction = picture.prediction
            seen = SlotState(step.theta, prediction, picture.gamma, state.frame)
            frame = picture.frame if self.likelihood.sees_motion else None
            after = DreamState(step.theta, step.output, self.encode(seen, picture.frame), frame)
        return DreamStep(
            after,
            None if heads is None else heads.rewards,
            None if heads is None else heads.termination,
            step.attention,
            prediction,
        )

    def draw(self, output: Float[Tensor, "b k d"]) -> Picture:
        """Draws a dream's slots."""
        return self.picture(self.likelihood.predict(self.decode(output)))

    def picture(self, prediction: Float[Tensor, "b k m h w"]) -> Picture:
        """Makes the model's own frame of what the slots predict, and shares its pixels out by the E-step."""
        frame = self.likelihood.own_frame(prediction)
        return Picture(prediction, frame, self.likelihood.e_step(prediction, frame))

    def expect(self, before: Float[Tensor, "b k s"], theta: Float[Tensor, "b k s"]) -> Float[Tensor, "b k e"]:
        """Expects the code of the frame that the slots draw, without drawing it.

        Args:
            before: The slots one step earlier.
            theta: The slots.

        Raises:
            ConfigError: If the model has no prior code.
        """
        code: Tensor = self.require_prior_code()(before, theta)
        return code

    def require_prior_code(self) -> PriorCode:
        """Gives the network behind :meth:`expect`.

        Raises:
            ConfigError: If the model has none.
        """
        if self.prior_code is None:
            raise ConfigError(
                "this model has no prior code, which latent imagination needs: imagine in pixels, "
                "or train a model with --world-model"
            )
        return self.prior_code

    def embed(self, actions: Actions | None, slots: int) -> Float[Tensor, "b k a"] | None:
        """Embeds the actions, the same for all slots of a sequence; None for a model without actions.

        Raises:
            ConfigError: If actions are missing, not wanted, or of another kind.
        """
        if self.action_embedding is None:
            if actions is not None:
                raise ConfigError("actions were given to a model trained without them: leave them out")
            return None
        if actions is None:
            raise ConfigError(
                f"this model needs actions (it knows {self.action_embedding.described}) and none were given: "
                "use a dataset with actions"
            )
        embedded: Tensor = self.action_embedding(actions)
        return embedded[:, None].expand(-1, slots, -1)
