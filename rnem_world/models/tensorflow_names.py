"""The names and layouts that the original TensorFlow program gave to the parameters.

They let in its checkpoints and the reference numbers that were made with it. TensorFlow stores
fully connected weights as (inputs, outputs) and convolutions as (height, width, inputs, outputs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnem_world.errors import CheckpointError
from rnem_world.models.config import ARCHITECTURES, MODELS, CoreName, ImageArchitecture, ModelConfig
from rnem_world.models.cores import LongShortTermMemoryCore, RecurrentCore, RelationalCore
from rnem_world.models.vision import Decoder, Encoder
from rnem_world.models.world_model import WorldModel

SCOPE = "R-RNNEM"


def _affine(name: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{name}/weights": layer.weight, f"{name}/biases": layer.bias}  # type: ignore[dict-item]


def _norm(name: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{name}/gamma": layer.weight, f"{name}/beta": layer.bias}  # type: ignore[dict-item]


def _encoder(encoder: Encoder) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {}
    layers = zip(encoder.convolutions, encoder.norms, strict=True)
    # The original numbers its list of layers, reshapes included: one before the convolutions, one behind.
    for index, (convolution, norm) in enumerate(layers, start=1):
        names |= _affine(f"InputWrapper{index}/Conv", convolution)
        names |= _norm(f"LayerNormI{index}/LayerNorm", norm)
    last = len(encoder.convolutions) + 2
    names |= _affine(f"InputWrapper{last}/fully_connected", encoder.linear)
    return names | _norm(f"LayerNormI{last}/LayerNorm", encoder.norm)


def _decoder(decoder: Decoder) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {}
    for index, (layer, norm) in enumerate(zip(decoder.linears, decoder.linear_norms, strict=True)):
        names |= _affine(f"OutputWrapper{index}/fully_connected", layer)
        names |= _norm(f"LayerNormO{index}/LayerNorm", norm)
    for index, convolution in enumerate(decoder.convolutions, start=3):
        names |= _affine(f"OutputWrapper{index}/Conv", convolution)
    for index, norm in enumerate(decoder.norms, start=3):
        names |= _norm(f"LayerNormO{index}/LayerNorm", norm)
    return names


def _relational(model: WorldModel, core: RelationalCore) -> dict[str, Tensor]:
    # Layers and norms are numbered in the order of their calls, each with a counter of its own.
    layers: list[nn.Module] = [core.encoder, core.pair, core.context]
    norms: list[nn.Module] = [core.encoder_norm, core.pair_norm, core.context_norm]
    if model.action_embedding is not None:
        layers.insert(0, model.action_embedding.linear)
        norms.insert(0, model.action_embedding.norm)
    if core.attends:
        layers += [core.attention, core.attention_logit]
        norms.append(core.attention_norm)
    layers.append(core.update)
    names: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        names |= _affine(f"NPE/fully_connected{f'_{index}' if index else ''}", layer)
    for index, norm in enumerate(norms):
        names |= _norm(f"NPE/LayerNorm{f'_{index}' if index else ''}", norm)
    return names | _norm("LayerNormR0/LayerNorm", core.output_norm)


def tensorflow_parameters(model: WorldModel) -> dict[str, Tensor]:
    """Lists the model's parameters under the original's variable names (without the trailing ``:0``).

    Raises:
        CheckpointError: If the original has no such model, such as an RNN or LSTM with actions.
    """
    core, encoder, decoder, config = model.core, model.encoder, model.decoder, model.config
    is_original = config.slot_inputs == "error" and config.theta_update == "sigmoid" and not config.heads
    if not (is_original and isinstance(encoder, Encoder) and isinstance(decoder, Decoder)):
        raise CheckpointError(
            "the original program has no such model: it knows convolutions alone, masked errors as inputs, the "
            "sigmoid update and no heads"
        )
    names = _encoder(encoder) | _decoder(decoder)
    if isinstance(core, RelationalCore):
        names |= _relational(model, core)
    else:
        if model.action_embedding is not None:
            raise CheckpointError("the original program has no RNN or LSTM with actions: use a model without")
        if isinstance(core, RecurrentCore):
            names["basic_rnn_cell/kernel"] = core.update.weight
            names["basic_rnn_cell/bias"] = core.update.bias
            names |= _norm("LayerNormR0/LayerNorm", core.output_norm)
        elif isinstance(core, LongShortTermMemoryCore):
            scope = "layer_norm_basic_lstm_cell"
            names[f"{scope}/kernel"] = core.gates.weight
            for gate, norm in (
                ("input", core.input_norm),
                ("transform", core.candidate_norm),
                ("forget", core.forget_norm),
                ("output", core.output_norm),
                ("state", core.cell_norm),
            ):
                names |= _norm(f"{scope}/{gate}", norm)
    return {f"{SCOPE}/{name}": tensor for name, tensor in names.items()}


def model_config_of(arrays: Mapping[str, np.ndarray], slots: int | None = None) -> ModelConfig:
    """Finds out which model variables belong to, by their names and shapes.

    Args:
        arrays: The variables, by name.
        slots: Number of slots, which no variable tells; None takes the paper's.

    Raises:
        CheckpointError: If they are of no model of the original, or of layers that have no name here.
        ConfigError: If the model can't run with so few slots.
    """
    shapes = {
        name.removesuffix(":0").removeprefix(f"{SCOPE}/"): array.shape for name, array in arrays.items()
    }
    architecture = _architecture_of(shapes)
    options: dict[str, Any] = {}
    layers = [name for name in shapes if re.fullmatch(r"NPE/fully_connected(_\d+)?/weights", name)]
    core: CoreName
    if layers:
        # Four layers, two more with attention, one more with actions.
        attends, acts = len(layers) >= 6, len(layers) % 2 == 1
        core = "relational" if attends else "relational_no_attention"
        options["hidden_size"] = shapes.get("LayerNormR0/LayerNorm/beta", (0,))[0]
        if acts:
            options["number_of_actions"], options["action_size"] = shapes["NPE/fully_connected/weights"]
        if attends:
            options["attention_size"] = shapes.get(f"NPE/fully_connected_{3 + acts}/biases", (0,))[0]
    elif "basic_rnn_cell/kernel" in shapes:
        core, options["hidden_size"] = "rnn", shapes["basic_rnn_cell/kernel"][1]
    elif "layer_norm_basic_lstm_cell/kernel" in shapes:
        core, options["hidden_size"] = "lstm", shapes["layer_norm_basic_lstm_cell/kernel"][1] // 4
    else:
        raise CheckpointError("the variables are of no recurrent network that the original program has")
    if slots is None:
        # An RNN of several slots is RNN-EM, which is the one that finds objects.
        usual = max(number for kind, number in MODELS.values() if kind == core)
        slots = 4 if architecture == "conv84" and usual > 1 else usual
    return ModelConfig(core=core, architecture=architecture, slots=slots, **options)


def _architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Finds the architecture with such convolutions; the other layers are checked when they are loaded."""

    def found(pattern: str) -> list[tuple[int, ...]]:
        names = [match for name in shapes if (match := re.fullmatch(pattern, name))]
        return [shapes[match[0]] for match in sorted(names, key=lambda match: int(match[1]))]

    encoder = found(r"InputWrapper(\d+)/Conv/weights")
    decoder = found(r"OutputWrapper(\d+)/Conv/weights")
    known = {name: image for name, image in ARCHITECTURES.items() if isinstance(image, ImageArchitecture)}
    for name, image in known.items():
        layers = [(layer.kernel, layer.kernel, layer.channels) for layer in image.convolutions]
        layers += [(layer.kernel, layer.kernel, layer.channels) for layer in image.upsamplings]
        if layers == [(*shape[:2], shape[3]) for shape in (*encoder, *decoder) if len(shape) == 4]:
            return name
    raise CheckpointError(
        f"the variables have convolutions of the shapes {[*encoder, *decoder]}, which are those of none of "
        f"{', '.join(known)}"
        if encoder or decoder
        else f"there are no variables of R-NEM (such as {SCOPE}/InputWrapper1/Conv/weights): it is another program's"
    )


def from_tensorflow_layout(array: Tensor) -> Tensor:
    """Turns a weight from TensorFlow's layout to torch's."""
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def to_tensorflow_layout(tensor: Tensor) -> Tensor:
    """Turns a weight from torch's layout to TensorFlow's."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


@torch.no_grad()
def load_tensorflow_arrays(model: WorldModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies the original's variables into the model; nothing is changed unless all of them fit.

    Args:
        model: The model to fill.
        arrays: Float arrays in TensorFlow's layout, by variable name, with or without ``:0``. Names that are no
            parameter (optimizer slots, step counters) are passed over.

    Raises:
        CheckpointError: If a variable is missing or has another shape.
    """
    given = {name.removesuffix(":0"): array for name, array in arrays.items()}
    loaded: list[tuple[Tensor, Tensor]] = []
    for name, parameter in tensorflow_parameters(model).items():
        if name not in given:
            raise CheckpointError(
                f"the arrays lack the variable {name!r}: they belong to another model than "
                f"{model.config.core} with {model.config.architecture}"
            )
        value = from_tensorflow_layout(torch.as_tensor(given[name]))
        if value.shape != parameter.shape:
            raise CheckpointError(
                f"the variable {name!r} has shape {tuple(given[name].shape)}, and the model needs "
                f"{tuple(to_tensorflow_layout(parameter).shape)}: choose the model's configuration to match"
            )
        loaded.append((parameter, value))
    for parameter, value in loaded:
        parameter.copy_(value)
