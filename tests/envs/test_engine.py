"""ONNX Runtime and PyTorch compute the same world."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamers import balls_starts, write_graphs, write_world

from rnem_world.envs.balls import BouncingBallsEnv
from rnem_world.envs.engine import OnnxEngine, TorchEngine
from rnem_world.envs.learned import LearnedEnv, LearnedVectorEnv
from rnem_world.envs.slots import SlotFilter
from rnem_world.envs.starts import STARTS_FILE, write_starts
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, ConfigError, DependencyError
from rnem_world.models.export import graphs_of
from rnem_world.models.world_model import SlotState
from rnem_world.training.checkpoint import find_checkpoint, load_model, save_checkpoint

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[2]
WAYS = ["latent", "pixels"]
DETAILS = ("slot_rewards", "masses", "attention")


def actions_of(steps: int, n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(9, size=(steps, n))


@pytest.mark.parametrize("name", ["balls", "stove"])
@pytest.mark.parametrize("imagination", WAYS)
@pytest.mark.parametrize("obs_type", ["slots", "frame"])
def test_both_engines_dream_alike(name, imagination, obs_type):
    options = {"imagination": imagination, "obs_type": obs_type, "details": DETAILS}
    one, other = (LearnedVectorEnv(5, name, engine=engine, **options) for engine in ("torch", "onnx"))
    np.testing.assert_array_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    for number, row in enumerate(actions_of(20, 5)):
        first, second = one.step(row), other.step(row)
        tolerance = 1e-5 if number == 0 else 2e-3
        if obs_type == "slots":
            np.testing.assert_allclose(first[0], second[0], atol=tolerance)
        else:
            assert (first[0] != second[0]).mean() < 0.001
        np.testing.assert_allclose(first[1], second[1], atol=tolerance)
        np.testing.assert_allclose(first[4]["slot_rewards"], second[4]["slot_rewards"], atol=tolerance)


@pytest.mark.parametrize("imagination", WAYS)
def test_dreams_in_onnx_runtime_go_the_same_way_in_batches_of_any_size(imagination):
    options = {"imagination": imagination, "obs_type": "slots", "engine": "onnx"}
    whole = LearnedVectorEnv(64, max_episode_steps=None, **options)
    whole.reset(seed=3)
    state = whole.get_state()
    parts = {
        rows: LearnedVectorEnv(len(rows), max_episode_steps=None, **options)
        for rows in ((0,), (63,), tuple(range(7)))
    }
    for rows, env in parts.items():
        env.set_state(state.pick(rows))
    for row in actions_of(40, 64):
        slots, rewards, *_ = whole.step(row)
        for rows, env in parts.items():
            found = env.step(row[list(rows)])
            np.testing.assert_array_equal(found[0], slots[list(rows)])
            np.testing.assert_array_equal(found[1], rewards[list(rows)])


def test_other_numbers_of_slots_run_too():
    one, other = (LearnedEnv(num_slots=7, obs_type="slots", engine=engine) for engine in ("torch", "onnx"))
    np.testing.assert_array_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    np.testing.assert_allclose(one.step(2)[0], other.step(2)[0], atol=1e-5)


def test_real_frames_are_watched_alike():
    world, real = World.load("balls"), BouncingBallsEnv()
    frames = [real.reset(seed=0)[0][None] > 0]
    frames += [real.step(action)[0][None] > 0 for action in (1, 2, 3)]
    watching = [SlotFilter(world, 1, engine=engine) for engine in ("torch", "onnx")]
    for each in watching:
        each.reset(torch.zeros(1, dtype=torch.int64), torch.from_numpy(frames[0]))
        for action, frame in zip((1, 2, 3), frames[1:], strict=True):
            each.step(torch.tensor([action]), torch.from_numpy(frame))
    torch.testing.assert_close(watching[0].outputs(), watching[1].outputs(), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(watching[0].gamma(), watching[1].gamma(), atol=1e-3, rtol=0.0)


def test_auto_takes_what_there_is(tmp_path, monkeypatch):
    assert isinstance(World.load("balls").engine(), OnnxEngine)
    assert isinstance(World.load("balls").engine("torch"), TorchEngine)
    folder = write_world(tmp_path / "world")
    assert isinstance(World.load(folder).engine(), TorchEngine)
    with pytest.raises(CheckpointError, match=r"no graphs.*--onnx"):
        LearnedEnv(folder, engine="onnx")
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        LearnedEnv(folder, engine="torhc")
    shutil.copytree(find_checkpoint("balls"), tmp_path / "copy")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(World.load(tmp_path / "copy").engine(), TorchEngine)
    with pytest.raises(DependencyError, match="pip install onnxruntime"):
        LearnedEnv(tmp_path / "copy", engine="onnx")


def test_graphs_of_other_weights_are_not_run(tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(find_checkpoint("balls"), folder)
    described = json.loads((folder / "graphs.json").read_text())
    (folder / "graphs.json").write_text(json.dumps({**described, "weights": "0"}))
    assert isinstance(World.load(folder).engine(), TorchEngine)
    with pytest.raises(CheckpointError, match="belong to other weights"):
        LearnedEnv(folder, engine="onnx")
    (folder / "graphs.json").write_text("{")
    with pytest.raises(CheckpointError, match="export anew"):
        LearnedEnv(folder, engine="onnx")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"core": "rnn", "theta_update": "sigmoid", "slot_inputs": "error"},
        {"likelihood": "mixture", "initial_prediction": 0.5},
        {"heads_see": "slots_and_effects", "reward_values": (-1.0, 0.0, 2.5)},
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_exporting(tmp_path, options, half):
    pytest.importorskip("onnxscript")
    if half and options:
        pytest.skip("one is enough")
    folder = write_world(tmp_path / "world", -30.0, **options)
    if half:
        model, config = load_model(folder)
        save_checkpoint(folder, model.half(), config)
        write_starts(folder / STARTS_FILE, balls_starts())
    model, _ = load_model(folder)
    write_graphs(folder)
    files = [*folder.glob("*.onnx"), folder / "graphs.json"]
    assert sorted(file.stem for file in files if file.suffix == ".onnx") == sorted(
        each.name for each in graphs_of(model)
    )
    # The weights are not stored a second time.
    assert sum(file.stat().st_size for file in files) < (folder / "model.safetensors").stat().st_size
    one, other = (
        LearnedEnv(folder, obs_type="slots", imagination="pixels", engine=engine)
        for engine in ("torch", "onnx")
    )
    one.reset(seed=0)
    other.reset(seed=0)
    for action in range(4):
        np.testing.assert_allclose(one.step(action)[0], other.step(action)[0], atol=1e-4)


def test_shipped_graphs_belong_to_their_weights():
    for name in ("balls", "stove", "space_invaders"):
        assert isinstance(World.load(name).engine("onnx"), OnnxEngine), Path(name)


def modules_of_node() -> Path | None:
    """Where onnxruntime-web is, if it is anywhere: `npm install onnxruntime-web`, and say so by NODE_MODULES."""
    folder = Path(os.environ.get("NODE_MODULES", ROOT / "node_modules"))
    return folder if shutil.which("node") and (folder / "onnxruntime-web").is_dir() else None


def test_a_program_without_python_dreams_the_same(tmp_path):
    modules = modules_of_node()
    if modules is None:
        pytest.skip(
            "needs node and onnxruntime-web: npm install onnxruntime-web, and NODE_MODULES names node_modules"
        )
    (tmp_path / "node_modules").symlink_to(modules.resolve())
    shutil.copy(ROOT / "docs" / "examples" / "dream.mjs", tmp_path)
    folder = find_checkpoint("balls")
    done = subprocess.run(
        ["node", "dream.mjs", str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    lines = done.stdout.strip().splitlines()
    engine = World.load("balls").engine("onnx")
    noise = np.abs(np.fmod(np.sin(np.arange(5 * 1024) * 12.9898) * 43758.5453, 1)).reshape(1, 5, 1, 32, 32)
    gamma = torch.from_numpy(noise / noise.sum(axis=1, keepdims=True)).float()

    def video(t: int) -> torch.Tensor:
        frame = torch.zeros(1, 1, 32, 32)
        for left in (4 + t / 2, 22 - t / 2):
            frame[..., 12:18, int(left + 0.5) : int(left + 0.5) + 6] = 1.0
        return frame

    none = torch.zeros(1, dtype=torch.int64)
    state = SlotState(torch.zeros(1, 5, 128), torch.zeros(1, 5, 1, 32, 32), gamma, torch.zeros(1, 1, 32, 32))
    for t in range(15):
        state, output = engine.observe(state, video(t), none, video(t + 1))
    dreams = World.load("balls").model.start_imagination(state, output, video(15))
    for line in lines:
        step = engine.dream_step(dreams, none, "latent")
        dreams = step.state
        assert float(line.rsplit(" ", 1)[1]) == pytest.approx(float(step.rewards.sum()), abs=2e-3)
    assert len(lines) == 10
