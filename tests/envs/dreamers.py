"""Small random worlds in checkpoint folders, with starts, for the tests of learned environments."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnem_world.envs.starts import STARTS_FILE, Starts, simulated_starts, write_starts
from rnem_world.models.config import ModelConfig
from rnem_world.models.heads import Heads
from rnem_world.models.world_model import WorldModel
from rnem_world.physics import preset
from rnem_world.training.checkpoint import load_model, save_checkpoint
from rnem_world.training.config import RunConfig

STARTS = 20
FRAMES = 5


def balls_starts(number: int = STARTS, frames: int = FRAMES) -> Starts:
    return simulated_starts(preset("avoid"), np.arange(number, dtype=np.uint64), frames)


def stored_actions(config: ModelConfig, number: int, seed: int = 0) -> np.ndarray:
    """Draws actions as a model is given them."""
    generator, actions = np.random.default_rng(seed), config.actions
    if actions is None:
        return generator.integers(max(config.number_of_actions, 1), size=number)
    if actions.kind == "box":
        return generator.uniform(actions.low, actions.high, (number, actions.length)).astype(np.float32)
    return generator.integers(actions.sizes, size=(number, actions.length))


def write_world(folder: Path, ends: float = -3.0, seed: int = 0, **options: Any) -> Path:
    """Writes a world whose frames, rewards and, unless `ends` is very negative, ends vary."""
    values = {
        "architecture": "projection32",
        "slots": 4,
        "hidden_size": 24,
        "attention_size": 8,
        "number_of_actions": 9,
        "slot_inputs": "error_frame_motion",
        "theta_update": "gated",
        "heads": True,
        "prior_code": True,
    }
    torch.manual_seed(seed)
    if "actions" in options:
        values["number_of_actions"] = 0
    model = WorldModel(ModelConfig(**{**values, **options}))
    with torch.no_grad():
        if isinstance(model.heads, Heads):
            model.heads.shares.weight *= 3.0
            model.heads.shares.bias[1] = ends
        elif model.heads is not None:
            model.heads.parts.weight.normal_(0.0, 0.3)
            model.heads.parts.bias[-1] = ends
        if hasattr(model.decoder, "profiles"):
            model.decoder.profiles.weight *= 3.0
            model.decoder.profiles.bias -= 1.5
        if model.prior_code is not None:
            model.prior_code.code_norm.bias += 0.01  # as if it had learnt
    save_checkpoint(folder, model, RunConfig(model.config, data="avoid", environment="RNEM-BallsReal-v0"))
    if model.config.frame_size == (32, 32) and model.config.channels == 1:
        starts = balls_starts()
        done = stored_actions(model.config, STARTS * (FRAMES - 1))
        if model.config.actions is not None:
            starts = replace(starts, actions=done.reshape(STARTS, FRAMES - 1, -1))
        write_starts(folder / STARTS_FILE, starts)
    return folder


def write_graphs(*folders: Path) -> None:
    """Writes ONNX graphs beside checkpoints, in a process of its own: what checks types here knows no free sizes."""
    program = (
        "import sys; from pathlib import Path; from rnem_world.models.export import export_graphs; "
        "from rnem_world.training.checkpoint import load_model\n"
        "for folder in map(Path, sys.argv[1:]):\n"
        "    export_graphs(load_model(folder)[0], folder / 'model.safetensors')"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, *map(str, folders)], check=True, cwd=root)


def write_world_of(folder: Path, environment: str, **options: Any) -> Path:
    """Writes a random world of an environment of any kind, which knows its recipe and has no starts."""
    from rnem_world.actions import ActionSpace
    from rnem_world.envs.any import AnyVectorEnv
    from rnem_world.models.config import ActionsConfig

    env = AnyVectorEnv(1, environment)
    recipe, actions = env.recipe, ActionSpace.of(env.single_action_space)
    env.close()
    height, width, channels = recipe.frame_shape
    values: dict[str, Any] = {"architecture": "projection", "size": (height, width), "channels": channels}
    if not recipe.is_binary:
        values |= {"likelihood": "mixture", "initial_prediction": 0.5}
    if actions.is_discrete:
        values["number_of_actions"] = actions.sizes[0]
    else:
        # As a model has them, to which data gives the bounds that are missing.
        bounds = tuple(
            tuple(usual if bound is None else float(bound) for bound in of)
            for of, usual in ((actions.low, -3.0), (actions.high, 3.0))
        )
        values["actions"] = ActionsConfig(actions.kind, actions.sizes, *bounds)
    write_world(folder, **{**values, **options})
    model, config = load_model(folder)
    known = replace(config, data="", environment=environment, action_space=actions, recipe=recipe.to_json())
    save_checkpoint(folder, model, known)
    return folder
