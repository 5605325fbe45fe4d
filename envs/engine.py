"""What computes a learned world's steps: PyTorch, or a runtime of graphs, which is quicker on a processor.

All take and give torch tensors. ONNX Runtime runs the graphs beside a checkpoint's weights (`rnem_world.models.export`
makes them) and agrees with PyTorch to rounding; a step there costs a seventh of the calls that PyTorch needs for it.
OpenVINO runs the same graphs with products in bfloat16, which is quicker by the hundreds and a little less exact.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.errors import CheckpointError, ConfigError, DependencyError, suggest
from rnem_world.models.export import GRAPHS_FILE, GraphName
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamImagination, DreamState, DreamStep, SlotState, WorldModel

EngineName = Literal["auto", "torch", "onnx", "openvino-bf16"]


class Engine(ABC):
    """Steps one model.

    Attributes:
        name: ``torch``, ``onnx`` or ``openvino-bf16``.
    """

    name: EngineName

    @abstractmethod
    def dream_step(
        self, dreams: DreamState, actions: Num[Tensor, "n ..."] | None, imagination: DreamImagination
    ) -> DreamStep:
        """Imagines one transition, as `WorldModel.dream_step` does."""

    @abstractmethod
    def predict(self, output: Float[Tensor, "n k d"]) -> Float[Tensor, "n k m h w"]:
        """Gives what slots predict, from which their likelihood makes frames."""

    @abstractmethod
    def observe(
        self,
        state: SlotState,
        frame: Float[Tensor, "n c h w"],
        actions: Num[Tensor, "n ..."] | None,
        following: Float[Tensor, "n c h w"],
    ) -> tuple[SlotState, Float[Tensor, "n k d"]]:
        """Watches one transition: predicts from a frame, and takes in the one that followed.

        Returns:
            The slots, and the output that they had for the prediction.
        """


class TorchEngine(Engine):
    """PyTorch, on any device.

    Args:
        model: The model.
    """

    name = "torch"

    def __init__(self, model: WorldModel) -> None:
        self._model = model

    @own_precision
    def dream_step(
        self, dreams: DreamState, actions: Num[Tensor, "n ..."] | None, imagination: DreamImagination
    ) -> DreamStep:
        """See `Engine`."""
        return self._model.dream_step(dreams, actions, imagination)

    @own_precision
    def predict(self, output: Float[Tensor, "n k d"]) -> Float[Tensor, "n k m h w"]:
        """See `Engine`."""
        return self._model.likelihood.predict(self._model.decode(output))

    @own_precision
    def observe(
        self,
        state: SlotState,
        frame: Float[Tensor, "n c h w"],
        actions: Num[Tensor, "n ..."] | None,
        following: Float[Tensor, "n c h w"],
    ) -> tuple[SlotState, Float[Tensor, "n k d"]]:
        """See `Engine`."""
        transition = self._model.predict(state, frame, actions)
        return self._model.update(transition, following), transition.output


class GraphEngine(Engine):
    """Runs the graphs beside a checkpoint's weights on the processor.

    Args:
        folder: The checkpoint, with its graphs.
        fingerprint: Of the weights that the graphs have to belong to.

    Raises:
        CheckpointError: If there are no graphs, or they belong to other weights.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        path = folder / GRAPHS_FILE
        try:
            described = json.loads(path.read_text())
            weights, self._graphs = described["weights"], described["graphs"]
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} has no graphs ({GRAPHS_FILE}), which engine={self.name!r} runs: make a folder with them by "
                "`rnem-world export RUN --out FOLDER --onnx`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} doesn't say which graphs there are ({error!r}): export anew"
            ) from error
        if weights != fingerprint:
            raise CheckpointError(
                f"the graphs in {folder} belong to other weights ({weights}, expected {fingerprint}): export anew"
            )
        self._folder = folder
        self._loaded: dict[str, Any] = {}

    def dream_step(
        self, dreams: DreamState, actions: Num[Tensor, "n ..."] | None, imagination: DreamImagination
    ) -> DreamStep:
        """See `Engine`."""
        name: GraphName = "latent_step" if imagination == "latent" else "pixels_step"
        found = self._run(
            name, {"theta": dreams.theta, "code": dreams.code, "frame": dreams.frame, "actions": actions}
        )
        state = DreamState(
            found["next_theta"], found["next_output"], found["next_code"], found.get("next_frame")
        )
        earned = (found.get("rewards"), found.get("termination"))
        return DreamStep(state, *earned, found.get("attention"), found.get("prediction"))

    def predict(self, output: Float[Tensor, "n k d"]) -> Float[Tensor, "n k m h w"]:
        """See `Engine`."""
        return self._run("draw", {"output": output}, ["prediction"])["prediction"]

    def observe(
        self,
        state: SlotState,
        frame: Float[Tensor, "n c h w"],
        actions: Num[Tensor, "n ..."] | None,
        following: Float[Tensor, "n c h w"],
    ) -> tuple[SlotState, Float[Tensor, "n k d"]]:
        """See `Engine`."""
        given = {
            "theta": state.theta,
            "prediction": state.prediction,
            "gamma": state.gamma,
            "previous": state.frame,
            "frame": frame,
            "actions": actions,
            "following": following,
        }
        found = self._run("observe", given)
        previous = None if state.frame is None else frame
        after = SlotState(found["next_theta"], found["next_prediction"], found["next_gamma"], previous)
        return after, found["next_output"]

    def _run(
        self, name: GraphName, given: dict[str, Tensor | None], wanted: list[str] | None = None
    ) -> dict[str, Tensor]:
        graph = self._graphs[name]
        arrays = {
            key: np.ascontiguousarray(tensor.numpy())
            for key, tensor in given.items()
            if tensor is not None and key in graph["inputs"]
        }
        wanted = list(graph["outputs"]) if wanted is None else wanted
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(self._folder / f"{name}.onnx")
            except Exception as error:  # runtimes have errors of their own for each reason
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise CheckpointError(
                    f"{self._folder / name}.onnx can't be run ({reason}): export anew"
                ) from error
        results = self._compute(self._loaded[name], arrays, wanted)
        return {key: torch.from_numpy(array) for key, array in zip(wanted, results, strict=True)}

    @abstractmethod
    def _load(self, graph: Path) -> Any:
        """Makes a graph ready to run, with as many threads as PyTorch has."""

    @abstractmethod
    def _compute(self, loaded: Any, arrays: dict[str, NDArray[Any]], wanted: list[str]) -> list[NDArray[Any]]:
        """Runs a graph that `_load` has made ready; nobody else keeps the arrays that it gives."""


class OnnxEngine(GraphEngine):
    """ONNX Runtime. It rounds as PyTorch does, and any number of dreams go the way that each would go alone.

    Raises:
        DependencyError: If onnxruntime is not installed.
        CheckpointError: If there are no graphs, or they belong to other weights.
    """

    name = "onnx"

    def __init__(self, folder: Path, fingerprint: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise DependencyError("engine='onnx' needs onnxruntime: pip install onnxruntime") from error
        super().__init__(folder, fingerprint)
        self._runtime = onnxruntime

    def _load(self, graph: Path) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Threads that wait in a loop take the processor from everybody else.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        return self._runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def _compute(self, loaded: Any, arrays: dict[str, NDArray[Any]], wanted: list[str]) -> list[NDArray[Any]]:
        results: list[NDArray[Any]] = loaded.run(wanted, arrays)
        return results


class OpenVinoEngine(GraphEngine):
    """OpenVINO with products in bfloat16, on processors that have them (AVX512-BF16, AMX).

    Raises:
        DependencyError: If openvino is not installed.
        ConfigError: If this processor has no bfloat16.
        CheckpointError: If there are no graphs, or they belong to other weights.
    """

    name = "openvino-bf16"

    def __init__(self, folder: Path, fingerprint: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DependencyError(
                "engine='openvino-bf16' needs openvino: pip install openvino, the extra 'openvino'"
            ) from error
        self._runtime = openvino.Core()
        self._one_at_a_time = threading.Lock()  # a request can't be used by two threads at once
        if "BF16" not in self._runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(
                "this processor has no bfloat16 of its own, and engine='openvino-bf16' would gain nothing: take "
                "engine='onnx'"
            )
        super().__init__(folder, fingerprint)

    def _load(self, graph: Path) -> Any:
        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16",
            "PERFORMANCE_HINT": "LATENCY",
        }
        return self._runtime.compile_model(str(graph), "CPU", options).create_infer_request()

    def _compute(self, loaded: Any, arrays: dict[str, NDArray[Any]], wanted: list[str]) -> list[NDArray[Any]]:
        with self._one_at_a_time:
            loaded.infer(arrays, share_inputs=True)
            # Its own memory holds the results until the next run, so that they are copied.
            return [np.array(loaded.get_tensor(name).data) for name in wanted]


GRAPH_ENGINES: dict[str, type[OnnxEngine] | type[OpenVinoEngine]] = {
    engine.name: engine for engine in (OnnxEngine, OpenVinoEngine)
}


def make_engine(name: str, model: WorldModel, folder: Path, fingerprint: str) -> Engine:
    """Makes the engine that a user asks for.

    Args:
        name: ``torch``, ``onnx``, ``openvino-bf16``, or ``auto``: ONNX Runtime for a model on the processor where it is
            installed and the checkpoint has graphs of these weights, else PyTorch.
        model: The model.
        folder: Its checkpoint.
        fingerprint: Of its weights.

    Raises:
        ConfigError: If there is no such engine, or it can't compute on this device.
        DependencyError: If a runtime is asked for and not installed.
        CheckpointError: If a runtime is asked for and there are no graphs of these weights.
    """
    if name not in get_args(EngineName):
        raise ConfigError(f"engine is {name!r}: {suggest(str(name), get_args(EngineName))}")
    device = next(model.parameters()).device.type
    if name in GRAPH_ENGINES and device != "cpu":
        raise ConfigError(
            f"engine={name!r} runs on the processor, and the world is on {device}: take engine='torch'"
        )
    if name in GRAPH_ENGINES:
        return GRAPH_ENGINES[name](folder, fingerprint)
    if name == "torch" or device != "cpu":
        return TorchEngine(model)
    try:
        return OnnxEngine(folder, fingerprint)
    except (DependencyError, CheckpointError):
        return TorchEngine(model)
