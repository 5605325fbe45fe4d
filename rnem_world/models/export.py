"""A model as ONNX graphs, which programs without PyTorch run, and ONNX Runtime faster than PyTorch on a processor.

Every graph has a free number of dreams ``b`` and of slots ``k``. Weights are not written a second time: the graphs'
initialisers lie in the checkpoint's own ``model.safetensors``, whatever its precision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import struct
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnem_world.errors import CheckpointError, DependencyError
from rnem_world.io import atomic_file, write_json
from rnem_world.models.actions import Actions
from rnem_world.models.world_model import DreamImagination, DreamState, SlotState, WorldModel

GraphName = Literal["latent_step", "pixels_step", "draw", "observe", "encode"]
GRAPHS_FILE = "graphs.json"
INSTALL = 'pip install "rnem-world[export]"'
MOST_SLOTS = 64


class _Step(nn.Module):
    """One imagined transition, see `WorldModel.dream_step`."""

    def __init__(self, model: WorldModel, imagination: DreamImagination) -> None:
        super().__init__()
        self.model = model
        self.imagination = imagination

    def forward(
        self,
        theta: Float[Tensor, "b k s"],
        code: Float[Tensor, "b k e"],
        frame: Float[Tensor, "b c h w"] | None,
        actions: Actions | None,
    ) -> tuple[Tensor, ...]:
        # The output of the step before isn't looked at.
        step = self.model.dream_step(DreamState(theta, theta, code, frame), actions, self.imagination)
        found = (
            step.state.theta,
            step.state.output,
            step.state.code,
            step.state.frame,
            step.rewards,
            step.termination,
            step.attention,
            step.prediction,
        )
        return tuple(tensor for tensor in found if tensor is not None)


class _Draw(nn.Module):
    """What slots draw, see `WorldModel.draw`."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, output: Float[Tensor, "b k d"]) -> tuple[Tensor, ...]:
        picture = self.model.draw(output)
        return picture.prediction, picture.frame, picture.gamma


class _Observe(nn.Module):
    """One watched transition: `WorldModel.predict`, then `WorldModel.update` by what followed."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        theta: Float[Tensor, "b k s"],
        prediction: Float[Tensor, "b k m h w"],
        gamma: Float[Tensor, "b k 1 h w"],
        previous: Float[Tensor, "b c h w"] | None,
        frame: Float[Tensor, "b c h w"],
        actions: Actions | None,
        following: Float[Tensor, "b c h w"],
    ) -> tuple[Tensor, ...]:
        transition = self.model.predict(SlotState(theta, prediction, gamma, previous), frame, actions)
        state = self.model.update(transition, following)
        return state.theta, state.prediction, state.gamma, transition.output


class _Encode(nn.Module):
    """What slots see of the last real frame, with which a dream starts, see `WorldModel.start_imagination`."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        prediction: Float[Tensor, "b k m h w"],
        gamma: Float[Tensor, "b k 1 h w"],
        previous: Float[Tensor, "b c h w"] | None,
        frame: Float[Tensor, "b c h w"],
    ) -> tuple[Tensor, ...]:
        return (self.model.encode(SlotState(gamma, prediction, gamma, previous), frame),)


@dataclass(frozen=True)
class Graph:
    """What a graph takes and gives, by name in order.

    Attributes:
        name: Its file is this with ``.onnx`` behind it.
        module: Computes it.
        inputs: Examples of the inputs; those that the model has not are left out.
        outputs: Names of what it gives.
    """

    name: GraphName
    module: nn.Module
    inputs: dict[str, Tensor | None]
    outputs: tuple[str, ...]


def graphs_of(model: WorldModel) -> list[Graph]:
    """Lists the graphs that a model has, with examples of 3 dreams of one slot more than usual."""
    batch, slots = 3, model.config.slots + 1
    state = model.initial_state(batch, slots)
    sees_motion = model.likelihood.sees_motion
    frame = torch.zeros(batch, model.config.channels, *state.gamma.shape[-2:])
    code = torch.zeros(batch, slots, model.config.image.encoding_size)
    actions = None if model.action_embedding is None else model.action_embedding.zeros(batch)
    output = model.core(state.theta, code, model.embed(actions, slots)).output
    earned = ("rewards", "termination") if model.heads is not None else ()
    attention = ("attention",) if model.config.core == "relational" else ()
    carried = ("next_theta", "next_output", "next_code")
    graphs = []
    if model.prior_code is not None:
        inputs = {"theta": state.theta, "code": code, "frame": None, "actions": actions}
        outputs = (*carried, *earned, *attention)
        graphs.append(Graph("latent_step", _Step(model, "latent"), inputs, outputs))
    inputs = {"theta": state.theta, "code": code, "frame": frame if sees_motion else None, "actions": actions}
    seen = ("next_frame",) if sees_motion else ()
    outputs = (*carried, *seen, *earned, *attention, "prediction")
    graphs.append(Graph("pixels_step", _Step(model, "pixels"), inputs, outputs))
    graphs.append(Graph("draw", _Draw(model), {"output": output}, ("prediction", "frame", "gamma")))
    watched = {
        "theta": state.theta,
        "prediction": state.prediction,
        "gamma": state.gamma,
        "previous": state.frame,
        "frame": frame,
        "actions": actions,
        "following": frame.clone(),  # the same tensor twice would be taken for one input
    }
    outputs = ("next_theta", "next_prediction", "next_gamma", "next_output")
    graphs.append(Graph("observe", _Observe(model), watched, outputs))
    last = {name: watched[name] for name in ("prediction", "gamma", "previous", "frame")}
    graphs.append(Graph("encode", _Encode(model), last, ("code",)))
    return graphs


def export_graphs(model: WorldModel, weights: Path) -> list[Path]:
    """Writes a checkpoint's graphs beside its weights, and ``graphs.json``, which says what they take and give.

    Args:
        model: The model, in evaluation mode, on the CPU, in single precision.
        weights: Its ``model.safetensors``.

    Returns:
        The files.

    Raises:
        DependencyError: If onnx or onnxscript is not installed.
        CheckpointError: If the weights are no safetensors file.
        OutputError: If a file can't be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch exports by it
    except ImportError as error:
        raise DependencyError(f"graphs need {error.name or error}, which is missing: {INSTALL}") from error
    tensors = _tensors_of(weights)
    files, described = [], {}
    for graph in graphs_of(model):
        given = {name: tensor for name, tensor in graph.inputs.items() if tensor is not None}
        proto = _traced(graph)
        for value, name in zip(proto.graph.output, graph.outputs, strict=True):
            _rename(proto.graph, value.name, name)
        _refer_to(proto, weights.name, tensors)
        _tidy(proto, proto.graph.input[0])
        path = weights.parent / f"{graph.name}.onnx"
        with atomic_file(path) as temporary:
            onnx.save(proto, str(temporary))
        files.append(path)
        described[graph.name] = {
            "inputs": {name: _shape_of(proto.graph.input, name) for name in given},
            "outputs": {name: _shape_of(proto.graph.output, name) for name in graph.outputs},
        }
    path = weights.parent / GRAPHS_FILE
    config = model.config
    shape = (*config.frame_size, config.channels)
    actions = config.number_of_actions if config.actions is None else asdict(config.actions)
    facts = {"slots": config.slots, "frame": shape, "actions": actions}
    write_json(path, {"weights": fingerprint(weights), **facts, "graphs": described})
    return [*files, path]


def fingerprint(weights: Path) -> str:
    """Tells the weights of one model from those of another."""
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def _traced(graph: Graph) -> Any:
    batch = torch.export.Dim("b", min=1, max=2**20)
    slots = torch.export.Dim("k", min=2, max=MOST_SLOTS)
    shapes = {
        name: None if tensor is None else {0: batch, 1: slots} if _has_slots(name) else {0: batch}
        for name, tensor in graph.inputs.items()
    }
    given = [name for name, tensor in graph.inputs.items() if tensor is not None]
    with _quietly():
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=given,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise CheckpointError(f"PyTorch gave no graph for {graph.name}")
    return program.model_proto


def _has_slots(name: str) -> bool:
    return name in ("theta", "code", "output", "prediction", "gamma")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences what the exporter has to say of its own implementation."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in a safetensors file, and as what."""

    dtype: str
    offset: int
    length: int


def _tensors_of(weights: Path) -> dict[str, _Stored]:
    """Reads the header of a safetensors file: its length in 8 bytes, then JSON; offsets count from its end."""
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{weights} is no safetensors file: {error}") from error
    return {
        name: _Stored(
            entry["dtype"],
            8 + length + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _refer_to(proto: Any, location: str, tensors: dict[str, _Stored]) -> None:
    """Lets a graph's initialisers lie in the weights' file; half precision is turned into single when it is loaded."""
    import onnx

    casts = []
    for initializer in proto.graph.initializer:
        stored = tensors.get(initializer.name.removeprefix("model."))
        if stored is None:
            continue
        if stored.dtype == "F16":
            name = initializer.name
            initializer.name = f"{name}.half"
            initializer.data_type = onnx.TensorProto.FLOAT16
            casts.append(onnx.helper.make_node("Cast", [initializer.name], [name], to=onnx.TensorProto.FLOAT))
        elif stored.dtype != "F32":
            raise CheckpointError(
                f"weights of the type {stored.dtype} can't be exported: save them as F32 or F16"
            )
        initializer.ClearField("raw_data")
        initializer.ClearField("float_data")
        initializer.data_location = onnx.TensorProto.EXTERNAL
        del initializer.external_data[:]
        for key, value in (("location", location), ("offset", stored.offset), ("length", stored.length)):
            initializer.external_data.add(key=key, value=str(value))
    for cast in reversed(casts):
        proto.graph.node.insert(0, cast)


def _rename(graph: Any, old: str, new: str) -> None:
    """Renames a value of a graph wherever it is made and used."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _tidy(proto: Any, first: Any) -> None:
    """Names the free axes ``b`` and ``k``, as the first input has them, and drops where in the code nodes come from."""
    batch, slots = (size.dim_param for size in first.type.tensor_type.shape.dim[:2])
    graph = proto.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = size.dim_param.replace(batch, "b").replace(slots, "k")
        del value.metadata_props[:]
    for each in (*graph.node, *graph.initializer):
        each.doc_string = ""
        del each.metadata_props[:]
    del graph.metadata_props[:], proto.metadata_props[:]


def _shape_of(values: Any, name: str) -> list[int | str]:
    value = next(each for each in values if each.name == name)
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
