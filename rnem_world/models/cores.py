"""The networks on slots: cores that update them (R-NEM's, a plain RNN, an LSTM), and what slots will see next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.models.layers import Affine, VectorNorm, affine

FORGET_BIAS = 1.0


class CoreOutput(NamedTuple):
    """What a recurrent core makes of a step.

    Attributes:
        output: Float (b, k, h), for the decoder.
        theta: Float (b, k, s), the state for the next step.
        attention: Float (b, k, k - 1), how far each slot attends to the others in increasing order; None where
            slots don't attend.
        effect: Float (b, k, h), what the other slots did to each, all pairs added up; None where slots don't act on
            one another.
    """

    output: Tensor
    theta: Tensor
    attention: Tensor | None
    effect: Tensor | None = None


class RecurrentCore(nn.Module):
    """A sigmoid RNN; with several slots it is the RNN-EM of Greff et al. (2017)."""

    def __init__(self, inputs: int, hidden_size: int, action_size: int) -> None:
        super().__init__()
        self.state_size = hidden_size
        self.update = Affine(inputs + action_size + hidden_size, hidden_size)
        self.output_norm = VectorNorm(hidden_size)

    def forward(
        self,
        theta: Float[Tensor, "b k h"],
        encoding: Float[Tensor, "b k e"],
        action: Float[Tensor, "b k a"] | None,
    ) -> CoreOutput:
        """Updates every slot by itself; see :class:`RelationalCore`."""
        actions = [] if action is None else [action]
        update = self.update(torch.cat([encoding, *actions, theta], dim=2))
        return CoreOutput(torch.sigmoid(self.output_norm(update)), torch.sigmoid(update), None)


class LongShortTermMemoryCore(nn.Module):
    """An LSTM with layer norm on each gate and on the stored cell (Ba et al., 2016); theta is (cell, output)."""

    def __init__(self, inputs: int, hidden_size: int, action_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.state_size = 2 * hidden_size
        self.gates = Affine(inputs + action_size + hidden_size, 4 * hidden_size, bias=False)
        self.input_norm = VectorNorm(hidden_size)
        self.candidate_norm = VectorNorm(hidden_size)
        self.forget_norm = VectorNorm(hidden_size)
        self.output_norm = VectorNorm(hidden_size)
        self.cell_norm = VectorNorm(hidden_size)

    def forward(
        self,
        theta: Float[Tensor, "b k s"],
        encoding: Float[Tensor, "b k e"],
        action: Float[Tensor, "b k a"] | None,
    ) -> CoreOutput:
        """Updates every slot by itself; see :class:`RelationalCore`."""
        actions = [] if action is None else [action]
        cell, hidden = theta.split(self.hidden_size, dim=2)
        gates = self.gates(torch.cat([encoding, *actions, hidden], dim=2))
        admit, candidate, forget, emit = gates.split(self.hidden_size, dim=2)
        admit = torch.sigmoid(self.input_norm(admit))
        candidate = torch.tanh(self.candidate_norm(candidate))
        forget = torch.sigmoid(self.forget_norm(forget) + FORGET_BIAS)
        cell = self.cell_norm(cell * forget + admit * candidate)
        hidden = torch.tanh(cell) * torch.sigmoid(self.output_norm(emit))
        return CoreOutput(hidden, torch.cat([cell, hidden], dim=2), None)


def other_slots(slots: int, device: torch.device) -> Tensor:
    """Lists for each slot all the others in increasing order: an int64 tensor (slots, slots - 1)."""
    own = torch.arange(slots, device=device)[:, None]
    others = torch.arange(slots - 1, device=device)[None, :]
    return others + (others >= own)


class RelationalCore(nn.Module):
    """The relational update of van Steenkiste et al. (2018), equations 4 and 5.

    Each ordered pair of a focus slot and a context slot goes through a shared layer; from it come the context's
    effect and how far the focus attends to it. The effects are summed, not normalised.
    """

    def __init__(
        self,
        inputs: int,
        hidden_size: int,
        attention_size: int,
        action_size: int,
        attends: bool,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.state_size = hidden_size
        self.encoder = Affine(hidden_size + action_size, hidden_size)
        self.encoder_norm = VectorNorm(hidden_size)
        self.pair = Affine(2 * hidden_size, hidden_size)
        self.pair_norm = VectorNorm(hidden_size)
        self.context = Affine(hidden_size, hidden_size)
        self.context_norm = VectorNorm(hidden_size)
        self.attends = attends
        if attends:
            self.attention = Affine(hidden_size, attention_size)
            self.attention_norm = VectorNorm(attention_size)
            self.attention_logit = Affine(attention_size, 1)
        self.gated = gated
        self.update = Affine(2 * hidden_size + inputs + action_size, (2 if gated else 1) * hidden_size)
        self.output_norm = VectorNorm(hidden_size)

    def forward(
        self,
        theta: Float[Tensor, "b k h"],
        encoding: Float[Tensor, "b k e"],
        action: Float[Tensor, "b k a"] | None,
    ) -> CoreOutput:
        """Updates all slots at once.

        Args:
            theta: The slots' states.
            encoding: What the encoder made of the slots' masked errors.
            action: The action's embedding, the same for all slots of a sequence; None without actions.

        Returns:
            The output for the decoder (behind layer norm), the new theta (without it), and the attention.
        """
        actions = [] if action is None else [action]
        state = F.relu(self.encoder_norm(self.encoder(torch.cat([theta, *actions], dim=2))))
        effect, attention = self._effects(state)
        update = self.update(torch.cat([state, effect, encoding, *actions], dim=2))
        if self.gated:
            gate, candidate = update.chunk(2, dim=2)
            # The gate starts out mostly closed: what a slot knows persists until there is reason to change it.
            theta = theta + torch.sigmoid(gate - 1.0) * (torch.tanh(candidate) - theta)
            return CoreOutput(self.output_norm(theta), theta, attention, effect)
        output = torch.sigmoid(self.output_norm(update))
        return CoreOutput(output, torch.sigmoid(update), attention, effect)

    def _effects(
        self, state: Float[Tensor, "b k h"]
    ) -> tuple[Float[Tensor, "b k h"], Float[Tensor, "b k j"] | None]:
        batch, slots, size = state.shape
        # The pair layer is linear in (focus, context): two products a slot instead of one a pair, side by side.
        weight = self.pair.weight.unflatten(1, (2, size)).transpose(0, 1).flatten(0, 1)
        products = affine(state, weight, F.pad(self.pair.bias, (0, size)))
        focus, context = products.split(size, dim=2)
        others = other_slots(slots, state.device)
        context = context.index_select(1, others.flatten()).view(batch, slots, slots - 1, size)
        pairs = F.relu(self.pair_norm(focus[:, :, None] + context))
        effects = F.relu(self.context_norm(self.context(pairs)))
        if not self.attends:
            return effects.sum(dim=2), None
        hidden = torch.tanh(self.attention_norm(self.attention(pairs)))
        attention = torch.sigmoid(self.attention_logit(hidden))
        return torch.matmul(attention.transpose(2, 3), effects).squeeze(2), attention.squeeze(3)


class PriorCode(nn.Module):
    """Expects a slot's code from the slot itself.

    A model that imagines in pixels draws its slots, makes the frame black and white, sorts the pixels to the slots and
    encodes them. All of that is a function of the slots, and nearly of each by itself: the slot tells what it draws
    now, and the slot of the step before what it drew then. Two hidden layers learn that function; they end as the
    encoders do, so that their codes have the same range.

    What is learnt by least squares lies nearer to the mean than what it stands for. Where slots read their own speed
    off their codes, a latent dream slows down a little with every step; so codes can be spread again afterwards, by a
    gain and a shift of each of their numbers, see `rnem_world.evaluation.code_gain`.
    """

    def __init__(self, state_size: int, encoding_size: int, hidden_size: int = 256) -> None:
        super().__init__()
        self.first = Affine(2 * state_size, hidden_size)
        self.first_norm = VectorNorm(hidden_size)
        self.second = Affine(hidden_size, hidden_size)
        self.second_norm = VectorNorm(hidden_size)
        self.code = Affine(hidden_size, encoding_size)
        self.code_norm = VectorNorm(encoding_size)
        self.gain: Tensor
        self.shift: Tensor
        self.register_buffer("gain", torch.ones(encoding_size))
        self.register_buffer("shift", torch.zeros(encoding_size))

    @property
    def has_learned(self) -> bool:
        """Whether it has learnt anything: the first gradient moves the last layer's shifts away from 0."""
        return bool(self.code_norm.bias.any())

    def forward(
        self, before: Float[Tensor, "b k s"], theta: Float[Tensor, "b k s"]
    ) -> Float[Tensor, "b k e"]:
        """Expects the codes of the frame that ``theta`` draws.

        Args:
            before: The slots one step earlier, which drew the frame before.
            theta: The slots.
        """
        return self.mean(before, theta) * self.gain + self.shift

    @torch.no_grad()
    def spread(self, gain: Float[Tensor, " e"], shift: Float[Tensor, " e"]) -> None:
        """Sets by how much each number of a code is spread, and where to."""
        self.gain.copy_(gain)
        self.shift.copy_(shift)

    def mean(self, before: Float[Tensor, "b k s"], theta: Float[Tensor, "b k s"]) -> Float[Tensor, "b k e"]:
        """Gives what was learnt, before it is spread; the arguments are those of :meth:`forward`."""
        hidden = F.elu(self.first_norm(self.first(torch.cat([before, theta], dim=2))))
        hidden = F.elu(self.second_norm(self.second(hidden)))
        return F.elu(self.code_norm(self.code(hidden)))
