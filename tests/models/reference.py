"""Loads the reference numbers in tests/goldens and makes the models they were computed with."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnem_world.models.config import ModelConfig
from rnem_world.models.rollout import Rollout, RolloutConfig, roll_out
from rnem_world.models.tensorflow_names import load_tensorflow_arrays
from rnem_world.models.world_model import SlotState, WorldModel

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"


@functools.cache
def manifest() -> dict:
    return json.loads((GOLDENS / "manifest.json").read_text())


def draw_weight(index: int, shape: list[int], kind: str) -> np.ndarray:
    """The rule by which the reference weights were drawn; ``index`` is the variable's place by name."""
    noise = np.random.default_rng(1000 + index).standard_normal(tuple(shape)).astype(np.float32)
    if kind == "kernel":
        return noise * np.float32(1.0 / np.sqrt(float(np.prod(shape[:-1]))))
    if kind in ("bias", "ln_beta"):
        return noise * np.float32(0.1)
    return np.float32(1.0) + np.float32(0.1) * noise


@dataclass
class Reference:
    """One configuration of the original: its model, inputs and outputs."""

    name: str
    model: WorldModel
    variables: list[str]
    frames: Tensor
    collisions: Tensor
    actions: Tensor | None
    state: SlotState
    context: int
    horizon: int
    pixels: np.ndarray
    expected: dict[str, np.ndarray]

    def run(self) -> Rollout:
        return roll_out(
            self.model, self.frames, RolloutConfig(self.context, self.horizon), self.actions, state=self.state
        )


def load(name: str) -> Reference:
    config = manifest()["configs"][name]
    inputs = np.load(GOLDENS / config["inputs"])
    batch, frames = config["B"], config["frames"]
    is_atari = "atari" in config["inputs"]
    model = WorldModel(
        ModelConfig(
            core="rnn" if "rnn" in config["weights"].split("_") else "relational",
            architecture="conv84" if is_atari else "conv64",
            slots=config["K"],
            number_of_actions=6 if config["actions"] else 0,
        )
    )
    changes = config["weight_changes"]
    arrays = {}
    variables = manifest()["weights"][config["weights"]]
    for index, variable in enumerate(variables):
        array = draw_weight(index, variable["shape"], variable["kind"])
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        assert digest.startswith(variable["sha256_16"]), variable["name"]
        array = array * np.float32(changes.get("multiply_after_generation", {}).get(variable["name"], 1.0))
        if variable["name"] in changes.get("override_constant", {}):
            array = np.full_like(array, changes["override_constant"][variable["name"]])
        arrays[variable["name"]] = array
    load_tensorflow_arrays(model, arrays)

    def video(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array[:frames, :batch, 0].astype(np.float32)).permute(1, 0, 4, 2, 3)

    state = model.initial_state(batch)
    gamma = torch.from_numpy(inputs[config["gamma0"].split("[")[0]][:batch]).permute(0, 1, 4, 2, 3)
    return Reference(
        name=name,
        model=model,
        variables=[variable["name"] for variable in variables],
        frames=video(inputs["features"]),
        collisions=video(inputs["collisions"]),
        actions=torch.from_numpy(inputs["action_idx"][:, :batch].T.copy()) if config["actions"] else None,
        state=SlotState(state.theta, state.prediction, gamma),
        context=config["nr_steps"],
        horizon=config["rollout_steps"] or 0,
        pixels=np.array(config["pixel_sub_indices"]),
        expected=dict(np.load(GOLDENS / f"{name}.npz")),
    )


def original_layout(tensor: Tensor) -> np.ndarray:
    """(b, t, k, c, h, w) -> (t, b, k, h, w, c)."""
    return tensor.permute(1, 0, 2, 4, 5, 3).numpy()
