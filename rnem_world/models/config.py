"""What a model is made of: the image architecture, the recurrent core, slots and actions; and how losses weigh."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from rnem_world.errors import ConfigError, suggest

CoreName = Literal["relational", "relational_no_attention", "rnn", "lstm"]
SlotInputs = Literal["error", "error_frame_motion"]
ThetaUpdate = Literal["sigmoid", "gated"]
HeadsSee = Literal["slots", "slots_and_effects"]
LikelihoodName = Literal["bernoulli", "mixture"]
ActionKind = Literal["multi_discrete", "multi_binary", "box"]

# The models by the names of the paper's comparison: the core, and the slots they are trained with.
MODELS: dict[str, tuple[CoreName, int]] = {
    "r_nem": ("relational", 5),
    "r_nem_no_attention": ("relational_no_attention", 5),
    "rnn_em": ("rnn", 5),
    "rnn": ("rnn", 1),
    "lstm": ("lstm", 1),
}


@dataclass(frozen=True)
class ConvolutionConfig:
    """One convolution of the encoder, followed by layer norm and ELU."""

    channels: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class UpsamplingConfig:
    """One layer of the decoder: nearest-neighbour resize to ``scale * size + offset``, then a convolution."""

    channels: int
    kernel: int
    scale: int
    offset: int = 0


@dataclass(frozen=True)
class ProjectionArchitecture:
    """An encoder and a decoder without convolutions, for small frames of few, compact objects on a CPU.

    The encoder sees a map's row sums, column sums and means over squares; the decoder draws the sum of a column
    profile, a row profile and ``rank`` products of both. Hundreds of times cheaper than convolutions, and quicker to
    learn where discs are.

    Attributes:
        size: Height and width of a frame in pixels.
        pooled_size: Height and width of the map of means.
        encoding_size: Width of the encoder's two layers.
        decoder_hidden_size: Width of the decoder's two hidden layers.
        rank: Number of products of a row and a column profile.
    """

    size: tuple[int, int]
    pooled_size: tuple[int, int]
    encoding_size: int
    decoder_hidden_size: int
    rank: int


@dataclass(frozen=True)
class ImageArchitecture:
    """The convolutional encoder and decoder for frames of one size.

    Attributes:
        size: Height and width of a frame in pixels.
        convolutions: The encoder's convolutions, first to last.
        encoding_size: Width of the fully connected layer that ends the encoder.
        decoder_hidden_size: Width of the decoder's first fully connected layer.
        decoder_map: Height, width and channels of the map that the second one yields.
        upsamplings: The decoder's layers, first to last; the last one has the frame's channels and no norm. What they
            draw beyond the frame, to its right and below, is cut off.
    """

    size: tuple[int, int]
    convolutions: tuple[ConvolutionConfig, ...]
    encoding_size: int
    decoder_hidden_size: int
    decoder_map: tuple[int, int, int]
    upsamplings: tuple[UpsamplingConfig, ...]


ARCHITECTURES: dict[str, ImageArchitecture | ProjectionArchitecture] = {
    # The two of the paper (van Steenkiste et al., 2018, appendix) ...
    "conv64": ImageArchitecture(
        size=(64, 64),
        convolutions=(
            ConvolutionConfig(16, 4, 2),
            ConvolutionConfig(32, 4, 2),
            ConvolutionConfig(64, 4, 2),
        ),
        encoding_size=512,
        decoder_hidden_size=512,
        decoder_map=(8, 8, 64),
        upsamplings=(UpsamplingConfig(32, 4, 2), UpsamplingConfig(16, 4, 2), UpsamplingConfig(1, 4, 2)),
    ),
    "conv84": ImageArchitecture(
        size=(84, 84),
        convolutions=(ConvolutionConfig(16, 8, 4), ConvolutionConfig(32, 4, 2)),
        encoding_size=250,
        decoder_hidden_size=250,
        decoder_map=(10, 10, 32),
        upsamplings=(UpsamplingConfig(16, 4, 2, offset=1), UpsamplingConfig(1, 8, 4)),
    ),
    # ... and a smaller one of the same family, for CPUs.
    "conv32": ImageArchitecture(
        size=(32, 32),
        convolutions=(ConvolutionConfig(16, 4, 2), ConvolutionConfig(32, 4, 2)),
        encoding_size=256,
        decoder_hidden_size=256,
        decoder_map=(8, 8, 32),
        upsamplings=(UpsamplingConfig(16, 4, 2), UpsamplingConfig(1, 4, 2)),
    ),
    # The world models' own.
    "projection32": ProjectionArchitecture(
        size=(32, 32), pooled_size=(8, 8), encoding_size=192, decoder_hidden_size=256, rank=8
    ),
    "projection84": ProjectionArchitecture(
        size=(84, 84), pooled_size=(14, 14), encoding_size=256, decoder_hidden_size=256, rank=16
    ),
}


def projection_family(height: int, width: int) -> ProjectionArchitecture:
    """Gives the architecture without convolutions for frames of any size; those that have a name are among them.

    Means are taken over squares of a pixel in the smallest frames, and of 6 x 6 in large ones.
    """
    largest = max(height, width)
    side = 1 if largest <= 12 else 2 if largest <= 24 else 4 if largest <= 48 else 6
    is_small = largest <= 48
    return ProjectionArchitecture(
        size=(height, width),
        pooled_size=(-(-height // side), -(-width // side)),
        encoding_size=192 if is_small else 256,
        decoder_hidden_size=256,
        rank=8 if is_small else 16,
    )


def convolutional_family(height: int, width: int) -> ImageArchitecture:
    """Gives the convolutional architecture for frames of any size; ``conv32`` and ``conv64`` are among them.

    Frames are halved until they are at most 8 pixels high and wide; those that are so from the first keep their size.
    """
    halvings = max(math.ceil(math.log2(max(height, width) / 8)), 0)
    channels = [min(16 * 2**layer, 64) for layer in range(max(halvings, 1))]
    kernel, stride = (4, 2) if halvings else (3, 1)
    width_of_layers = 512 if halvings > 2 else 256
    return ImageArchitecture(
        size=(height, width),
        convolutions=tuple(ConvolutionConfig(number, kernel, stride) for number in channels),
        encoding_size=width_of_layers,
        decoder_hidden_size=width_of_layers,
        decoder_map=(-(-height // 2**halvings), -(-width // 2**halvings), channels[-1]),
        upsamplings=tuple(UpsamplingConfig(number, kernel, stride) for number in (*channels[-2::-1], 1)),
    )


# Architectures for frames of any size, by the names of their families.
FAMILIES: dict[str, Callable[[int, int], ImageArchitecture | ProjectionArchitecture]] = {
    "conv": convolutional_family,
    "projection": projection_family,
}


def architecture_for(height: int, width: int, family: str = "conv") -> str:
    """Names the architecture of a family for frames of some size: one with a name of its own, or the family."""
    name = f"{family}{height}"
    return name if height == width and name in ARCHITECTURES else family


@dataclass(frozen=True)
class ActionsConfig:
    """Actions that are more than one number, as Gymnasium's spaces of these names have them, flat.

    Attributes:
        kind: ``multi_discrete``, several whole numbers; ``multi_binary``, several bits; ``box``, several real numbers.
        sizes: How many values each whole number has, from 0 on; 2 for each bit.
        low: The least value of each real number.
        high: The greatest.
    """

    kind: ActionKind
    sizes: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(ActionKind):
            raise ConfigError(
                f"unknown kind of actions {self.kind!r}: {suggest(self.kind, get_args(ActionKind))}"
            )
        is_box = self.kind == "box"
        if is_box == bool(self.sizes) or is_box != bool(self.low) or len(self.low) != len(self.high):
            raise ConfigError(
                f"actions of the kind {self.kind} were given sizes {self.sizes}, low {self.low} and high {self.high}: "
                "a box has as many low as high and no sizes, other kinds have sizes alone"
            )
        if any(size < 1 for size in self.sizes) or (self.kind == "multi_binary" and set(self.sizes) != {2}):
            raise ConfigError(
                f"sizes of {self.kind} actions are {self.sizes}: at least 1 each, and 2 for bits"
            )
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"a box of actions has the bounds {low} and {high}: both must be finite and the first less; "
                    "where an environment has none, take those that occur in the data"
                )

    @property
    def length(self) -> int:
        """How many numbers an action has."""
        return len(self.sizes) or len(self.low)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes a model's parameters, and the number of slots it runs with by default.

    Attributes:
        core: The recurrent core. ``relational`` and ``relational_no_attention`` are R-NEM's.
        architecture: A key of :data:`ARCHITECTURES`, or of :data:`FAMILIES` for frames of any size.
        size: Height and width of a frame, for an architecture that is named by its family; the others have their own.
        slots: K, the number of slots in training; a trained model runs with any other number too.
        channels: Channels of a frame.
        likelihood: What a pixel is: ``bernoulli`` for channels of bits, ``mixture`` for colours and greys.
        deviation: Of a mixture: the standard deviation of a pixel, which lies in [0, 1], from the mean of its slot.
            0.10 to 0.15 part coloured balls alike, 0.25 doesn't; less tells finer where things are that have parted.
        hidden_size: H, the width of theta and of the relational core's layers.
        attention_size: Width of the attention's hidden layer.
        number_of_actions: Actions fed to the core, where an action is one number; 0 for a model without actions, or
            with other ones.
        actions: Actions fed to the core that are more than one number; None if they are one, or there are none.
        action_size: Width of an action's embedding.
        initial_prediction: What every slot predicts before the first frame.
        slot_inputs: What a slot sees of a frame: the paper's masked ``error`` gamma * (x - mu), or beside it its part
            of the frame, gamma * x, and of the motion, gamma * (x - previous x).
        theta_update: How theta changes: the paper's ``sigmoid``, or ``gated``, by which a slot may keep what it knows.
        heads: Whether slots also tell the transition's reward and whether it ends the episode.
        heads_see: What the heads see: ``slots``, or ``slots_and_effects``, beside each slot what the others did to it,
            for rewards that two objects earn together, by a collision for example.
        reward_values: The values that rewards take, in increasing order, one of which the heads choose; None tells
            rewards as numbers.
        prior_code: Whether a small network learns to expect what the encoder would make of the model's own frame, so
            that it can imagine without drawing.
    """

    core: CoreName = "relational"
    architecture: str = "conv64"
    size: tuple[int, int] | None = None
    slots: int = 5
    channels: int = 1
    likelihood: LikelihoodName = "bernoulli"
    deviation: float = 0.12
    hidden_size: int = 250
    attention_size: int = 100
    number_of_actions: int = 0
    actions: ActionsConfig | None = None
    action_size: int = 10
    initial_prediction: float = 0.0
    slot_inputs: SlotInputs = "error"
    theta_update: ThetaUpdate = "sigmoid"
    heads: bool = False
    heads_see: HeadsSee = "slots"
    reward_values: tuple[float, ...] | None = None
    prior_code: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("core", get_args(CoreName)),
            ("architecture", (*ARCHITECTURES, *FAMILIES)),
            ("likelihood", get_args(LikelihoodName)),
            ("slot_inputs", get_args(SlotInputs)),
            ("theta_update", get_args(ThetaUpdate)),
            ("heads_see", get_args(HeadsSee)),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}: {suggest(value, known)}")
        if (self.size is not None) != (self.architecture in FAMILIES):
            raise ConfigError(
                f"the architecture is {self.architecture} and the size {self.size}: {', '.join(FAMILIES)} need the "
                "height and width of a frame, the others have their own"
            )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 2):
            raise ConfigError(f"size is {self.size}, it must be a height and a width of at least 2 pixels")
        if self.theta_update == "gated" and not self.is_relational:
            raise ConfigError(
                f"theta_update gated belongs to the relational cores, not to {self.core}: choose sigmoid"
            )
        if self.heads_see == "slots_and_effects" and not self.is_relational:
            raise ConfigError(
                f"heads_see slots_and_effects belongs to the relational cores, not to {self.core}: choose slots"
            )
        if self.reward_values is not None:
            values = self.reward_values
            if not values or not all(map(math.isfinite, values)) or list(values) != sorted(set(values)):
                raise ConfigError(
                    f"reward_values is {values}, expected finite numbers in increasing order, at least one"
                )
        if self.likelihood == "mixture" and self.slot_inputs != "error_frame_motion":
            raise ConfigError(
                f"slot_inputs is {self.slot_inputs}, and the slots of a mixture see their part of the frame and its "
                "motion beside the error: choose error_frame_motion"
            )
        validate_slots(self.core, self.slots)
        for name in ("channels", "hidden_size", "attention_size", "action_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.number_of_actions < 0:
            raise ConfigError(f"number_of_actions is {self.number_of_actions}, it must be 0 (none) or more")
        if self.number_of_actions and self.actions is not None:
            raise ConfigError(
                f"number_of_actions is {self.number_of_actions}, and actions are {self.actions.kind}: choose one"
            )
        if not 0.0 < self.deviation <= 1.0:
            raise ConfigError(f"deviation is {self.deviation}, pixels lie in [0, 1]: choose it in (0, 1]")
        if not 0.0 <= self.initial_prediction <= 1.0:
            raise ConfigError(
                f"initial_prediction is {self.initial_prediction}, it is a probability: choose it in [0, 1]"
            )

    @property
    def image(self) -> ImageArchitecture | ProjectionArchitecture:
        """The layers of the encoder and the decoder."""
        if self.size is not None:
            return FAMILIES[self.architecture](*self.size)
        return ARCHITECTURES[self.architecture]

    @property
    def takes_actions(self) -> bool:
        """Whether the core is fed actions."""
        return self.number_of_actions > 0 or self.actions is not None

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.image.size

    @property
    def is_world_model(self) -> bool:
        """Whether it departs from the paper in order to dream: motion, gates, heads or a prior code."""
        return self.slot_inputs != "error" or self.theta_update != "sigmoid" or self.heads or self.prior_code

    @property
    def is_relational(self) -> bool:
        """Whether slots interact."""
        return self.core in ("relational", "relational_no_attention")


def validate_slots(core: str, slots: int) -> None:
    """Checks that ``core`` can run with this number of slots.

    Raises:
        ConfigError: If there are too few slots.
    """
    if slots < 1:
        raise ConfigError(f"the number of slots is {slots}, it must be at least 1")
    if slots < 2 and core.startswith("relational"):
        raise ConfigError(
            "R-NEM needs at least 2 slots, it models their interactions, and was given 1: "
            "choose --slots 2 or more, or the model rnn or lstm"
        )


@dataclass(frozen=True)
class LossConfig:
    """How the losses are weighted.

    Attributes:
        inter_weight: Weight of the inter-slot loss, which keeps a slot dark where it is not responsible.
        pixel_prior: Mean of the Bernoulli prior that a slot is drawn to where it is not responsible.
        motion_weight: In training, weight of the pixels that change from the frame before; 1 weighs all alike. Small
            fast objects are few pixels among many that stay as they are. Losses that are reported don't use it.
    """

    inter_weight: float = 1.0
    pixel_prior: float = 0.0
    motion_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.inter_weight) and self.inter_weight >= 0.0):
            raise ConfigError(f"inter_weight is {self.inter_weight}, it must be a number of at least 0")
        if not (math.isfinite(self.motion_weight) and self.motion_weight > 0.0):
            raise ConfigError(f"motion_weight is {self.motion_weight}, it must be a number above 0")
        if not (self.pixel_prior == 0.0 or 1e-6 <= self.pixel_prior <= 1.0 - 1e-6):
            raise ConfigError(
                f"pixel_prior is {self.pixel_prior}, it must be 0 or lie between 1e-6 and 1 - 1e-6"
            )
