"""The training loss of a batch of sequences."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rnem_world.models.losses import LossConfig, training_loss
from rnem_world.models.rollout import observe
from rnem_world.models.world_model import SlotState, WorldModel


class SequenceLosses(NamedTuple):
    """What a batch costs.

    Attributes:
        loss: Float (), the weighted mean over steps of the mean over sequences, in nats a frame.
        steps: Float (t,), the mean over sequences of each step, without gradient.
        gammas: Float (b, t, k, h, w), the responsibilities for a grouping score; None unless asked for.
    """

    loss: Tensor
    steps: Tensor
    gammas: Tensor | None


class SequenceLoss(nn.Module):
    """Unrolls a model over sequences and adds up its losses.

    It is a module so that distributed wrappers, which act on ``forward``, can hold it.
    """

    def __init__(self, model: WorldModel, config: LossConfig, step_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.register_buffer("step_weights", torch.tensor(step_weights), persistent=False)
        self.step_weights: Tensor

    def forward(
        self,
        state: SlotState,
        inputs: Float[Tensor, "b t c h w"],
        targets: Float[Tensor, "b t c h w"],
        actions: Int64[Tensor, "b t"] | None,
        with_gammas: bool = False,
    ) -> SequenceLosses:
        """Computes the loss.

        Args:
            state: The slots before the first frame.
            inputs: The frames the model sees, with noise.
            targets: The frames that follow them, without.
            actions: The actions between them; None for a model without.
            with_gammas: Whether to return the responsibilities.
        """
        losses: list[Tensor] = []
        gammas: list[Tensor] = []
        for step, (transition, after) in enumerate(observe(self.model, state, inputs, targets, actions)):
            loss = training_loss(
                transition.logits, transition.prediction, after.gamma, targets[:, step], self.config
            )
            losses.append(loss.mean())
            if with_gammas:
                gammas.append(after.gamma[:, :, 0])
        steps = torch.stack(losses)
        total = (steps * self.step_weights).sum() / self.step_weights.sum()
        return SequenceLosses(total, steps.detach(), torch.stack(gammas, dim=1) if with_gammas else None)
