"""R-NEM written plainly: the yardstick of tests and benchmarks.

The same model as :class:`~rnem_world.models.world_model.WorldModel`, as one would write it down from the paper without
a thought for speed: frames are resized before they are convolved, norms are spelled out, every pair of slots is laid
out in memory, the loss takes logarithms of clipped means, and autograd finds all gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from rnem_world.errors import ConfigError
from rnem_world.models.config import ImageArchitecture
from rnem_world.models.layers import EPSILON, same_padding
from rnem_world.models.world_model import SlotState, WorldModel

CLIP = 1e-6


class PlainOutput(NamedTuple):
    """What the plain model makes of a batch of sequences.

    Attributes:
        loss: Float (), the mean over steps and sequences, in nats a frame.
        predictions: Float (b, t, k, c, h, w), each slot's means.
        gammas: Float (b, t, k, 1, h, w), each slot's responsibilities.
    """

    loss: Tensor
    predictions: Tensor
    gammas: Tensor


def layer_norm(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm over all axes but the first; on maps (n, c, h, w) the scale and the shift are per channel."""
    axes = tuple(range(1, values.ndim))
    mean = values.mean(dim=axes, keepdim=True)
    variance = ((values - mean) ** 2).mean(dim=axes, keepdim=True)
    shape = (1, -1, *[1] * (values.ndim - 2))
    return (values - mean) / torch.sqrt(variance + EPSILON) * scale.view(shape) + shift.view(shape)


class PlainModel(nn.Module):
    """A plain copy of a world model, with weights of its own under the same names.

    Raises:
        ConfigError: If the model is not the paper's: a relational core, convolutions, masked errors as inputs.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        config = model.config
        if (
            not isinstance(config.image, ImageArchitecture)
            or not config.is_relational
            or config.heads
            or config.slot_inputs != "error"
            or config.theta_update != "sigmoid"
        ):
            raise ConfigError(
                "only R-NEM as in the paper has a plain version: choose the core relational or "
                "relational_no_attention, an architecture conv32, conv64 or conv84, no heads, slot_inputs error and "
                f"theta_update sigmoid in place of {config}"
            )
        self.config, self.image = config, config.image
        self.names = [name for name, _ in model.named_parameters()]
        self.values = nn.ParameterList(parameter.detach().clone() for parameter in model.parameters())

    def forward(
        self,
        state: SlotState,
        frames: Float[Tensor, "b t1 c h w"],
        flips: Bool[Tensor, "b t c h w"] | None = None,
        actions: Int64[Tensor, "b t"] | None = None,
    ) -> PlainOutput:
        """Unrolls the model over sequences, as :class:`rnem_world.training.losses.SequenceLoss` does."""
        theta, prediction, gamma = state.theta, state.prediction, state.gamma
        losses, predictions, gammas = [], [], []
        for step in range(frames.shape[1] - 1):
            seen, target = frames[:, step], frames[:, step + 1].unsqueeze(1)
            if flips is not None:
                noise = flips[:, step].to(frames.dtype)
                seen = seen + noise - 2 * seen * noise
            error = gamma.detach() * (seen.unsqueeze(1) - prediction)
            output, theta = self._core(theta, self._encode(error), self._embed(actions, step))
            prediction = self._decode(output)
            likelihood = target * prediction + (1 - target) * (1 - prediction) + CLIP
            likelihood = likelihood.prod(dim=2, keepdim=True)
            gamma = (likelihood / likelihood.sum(dim=1, keepdim=True)).detach()
            mean = prediction.clamp(CLIP, 1 - CLIP)
            intra = -(target * torch.log(mean) + (1 - target) * torch.log(1 - mean))
            inter = torch.log(1 / (1 - prediction).clamp(min=CLIP))
            losses.append((gamma * intra + (1 - gamma) * inter).sum(dim=(1, 2, 3, 4)).mean())
            predictions.append(prediction)
            gammas.append(gamma)
        return PlainOutput(
            torch.stack(losses).mean(), torch.stack(predictions, dim=1), torch.stack(gammas, dim=1)
        )

    def _value(self, name: str) -> Tensor:
        value: Tensor = self.values[self.names.index(name)]
        return value

    def _affine(self, name: str, values: Tensor) -> Tensor:
        return torch.matmul(values, self._value(f"{name}.weight").t()) + self._value(f"{name}.bias")

    def _norm(self, name: str, values: Tensor) -> Tensor:
        return layer_norm(values, self._value(f"{name}.weight"), self._value(f"{name}.bias"))

    def _embed(self, actions: Tensor | None, step: int) -> Tensor | None:
        if actions is None:
            return None
        one_hot = F.one_hot(actions[:, step], self.config.number_of_actions).to(self.values[0].dtype)
        return torch.relu(
            self._norm("action_embedding.norm", self._affine("action_embedding.linear", one_hot))
        )

    def _encode(self, error: Tensor) -> Tensor:
        batch, slots = error.shape[:2]
        maps = error.reshape(batch * slots, *error.shape[2:])
        for index, layer in enumerate(self.image.convolutions):
            before, after = same_padding(maps.shape[2], layer.kernel, layer.stride)
            name = f"encoder.convolutions.{index}"
            maps = F.conv2d(
                F.pad(maps, (before, after, before, after)),
                self._value(f"{name}.weight"),
                self._value(f"{name}.bias"),
                stride=layer.stride,
            )
            maps = F.elu(self._norm(f"encoder.norms.{index}", maps))
        vectors = maps.permute(0, 2, 3, 1).reshape(batch * slots, -1)
        vectors = F.elu(self._norm("encoder.norm", self._affine("encoder.linear", vectors)))
        return vectors.reshape(batch, slots, -1)

    def _core(self, theta: Tensor, encoding: Tensor, action: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, slots, size = theta.shape
        actions = [] if action is None else [action.unsqueeze(1).repeat(1, slots, 1).flatten(0, 1)]
        state = self._affine("core.encoder", torch.cat([theta.flatten(0, 1), *actions], dim=1))
        state = torch.relu(self._norm("core.encoder_norm", state)).reshape(batch, slots, size)
        focus = state.unsqueeze(2).repeat(1, 1, slots - 1, 1)
        context = torch.stack(
            [torch.cat([state[:, :slot], state[:, slot + 1 :]], dim=1) for slot in range(slots)], dim=1
        )
        pairs = torch.cat([focus, context], dim=3).reshape(batch * slots * (slots - 1), 2 * size)
        pairs = torch.relu(self._norm("core.pair_norm", self._affine("core.pair", pairs)))
        effects = torch.relu(self._norm("core.context_norm", self._affine("core.context", pairs)))
        if self.config.core == "relational":
            hidden = torch.tanh(self._norm("core.attention_norm", self._affine("core.attention", pairs)))
            effects = torch.sigmoid(self._affine("core.attention_logit", hidden)) * effects
        effect = effects.reshape(batch * slots, slots - 1, size).sum(dim=1)
        new = torch.cat([state.flatten(0, 1), effect, encoding.flatten(0, 1), *actions], dim=1)
        new = self._affine("core.update", new)
        output = torch.sigmoid(self._norm("core.output_norm", new))
        return output.reshape(batch, slots, size), torch.sigmoid(new).reshape(batch, slots, size)

    def _decode(self, output: Tensor) -> Tensor:
        batch, slots = output.shape[:2]
        vectors = output.flatten(0, 1)
        for index in range(2):
            vectors = self._affine(f"decoder.linears.{index}", vectors)
            vectors = torch.relu(self._norm(f"decoder.linear_norms.{index}", vectors))
        size, _, channels = self.image.decoder_map
        maps = vectors.reshape(batch * slots, size, size, channels).permute(0, 3, 1, 2).contiguous()
        last = len(self.image.upsamplings) - 1
        for index, layer in enumerate(self.image.upsamplings):
            side = layer.scale * maps.shape[2] + layer.offset
            maps = F.interpolate(maps, size=(side, side), mode="nearest")
            before, after = same_padding(side, layer.kernel, 1)
            name = f"decoder.convolutions.{index}"
            maps = F.conv2d(
                F.pad(maps, (before, after, before, after)),
                self._value(f"{name}.weight"),
                self._value(f"{name}.bias"),
            )
            if index < last:
                maps = torch.relu(self._norm(f"decoder.norms.{index}", maps))
        means = torch.sigmoid(maps)
        return means.reshape(batch, slots, *means.shape[1:])
