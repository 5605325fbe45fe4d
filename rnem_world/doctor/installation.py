"""What is installed, and whether it works on this machine: each part is tried, not only looked for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from rnem_world.doctor.findings import Finding

SECONDS = 60
"""How long a part that is tried in a process of its own may take."""

_LEAST_DISK, _LEAST_MEMORY = 5e9, 4e9
_DEVELOPMENT = ("dev", "all")
_NAME, _EXTRA = re.compile(r"[\w.-]+"), re.compile(r"extra == ['\"]([\w-]+)['\"]")

_PLAY_ATARI = """
import ale_py, gymnasium
env = gymnasium.make("ALE/Pong-v5")
env.reset(seed=0)
print(ale_py.__version__, "played a step of Pong,", env.step(0)[0].shape)
"""
_OPEN_WINDOW = """
import pygame
pygame.display.init()
pygame.display.set_mode((8, 8)).fill((1, 2, 3))
pygame.display.flip()
print(pygame.version.ver, "opened a window by", pygame.display.get_driver())
"""


def examine_installation(device: str = "auto") -> Iterator[Finding]:
    """Tries the parts of the installation, one after the other.

    Args:
        device: Where models are to run.

    Raises:
        ConfigError: If there is no such device.
    """
    yield _program()
    yield from _packages()
    yield from _machine()
    yield _threads()
    yield from _device(device)
    yield _onednn()
    advice = "dreams are stepped by PyTorch: pass engine='torch'"
    yield _tried("ONNX Runtime", lambda: _step_by("onnx", "onnxruntime", 1e-3), advice)
    if _version("openvino") and _has_bfloat16():
        yield _tried(
            "OpenVINO", lambda: _step_by("openvino-bf16", "openvino", 0.1), "leave the engine to 'auto'"
        )
    yield _tried("video", _write_video, 'pip install "imageio[ffmpeg]"; GIF and PNG work without')
    if _version("ale-py"):
        yield _tried("Atari", lambda: _in_a_process(_PLAY_ATARI), "install ale-py anew")
    if _version("pygame-ce") or _version("pygame"):
        yield _window()


def _program() -> Finding:
    version = _version("rnem-world") or "not installed, run from its folder"
    return Finding(
        "rnem-world", "good", f"{version}; Python {platform.python_version()}, {platform.platform()}"
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _packages() -> Iterator[Finding]:
    """Says which of the packages that are asked for are there, extra by extra."""
    try:
        requirements = importlib.metadata.requires("rnem-world") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "note", "nobody knows which are needed", "pip install -e .")
        return
    wanted: dict[str, list[str]] = defaultdict(list)
    for requirement in requirements:
        marker, name = _EXTRA.search(requirement), _NAME.match(requirement)
        if name is not None:
            wanted[marker[1] if marker else ""].append(name[0])
    for extra, names in wanted.items():
        if extra in _DEVELOPMENT:
            continue
        there = [f"{name} {_version(name)}" for name in names if _version(name)]
        missing = [name for name in names if not _version(name)]
        text = ", ".join(there + [f"no {name}" for name in missing])
        if not extra:
            advice = "pip install --upgrade rnem-world" if missing else ""
            yield Finding("packages", "bad" if missing else "good", text, advice)
        else:
            advice = f'pip install "rnem-world[{extra}]", if you want it' if missing else ""
            yield Finding(f"[{extra}]", "note" if missing else "good", text, advice)


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    few = free < _LEAST_DISK
    yield Finding(
        "disk",
        "note" if few else "good",
        f"{free / 1e9:.1f} GB free in {Path.cwd()}",
        "datasets and checkpoints take gigabytes: free some" if few else "",
    )
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a Unix
        return
    small = memory < _LEAST_MEMORY
    yield Finding(
        "memory",
        "note" if small else "good",
        f"{memory / 1e9:.1f} GB",
        "train with a small --batch-size and --memory-gigabytes 0.5" if small else "",
    )


def _threads() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, told = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    text = f"{threads} of PyTorch on {cores} cores" + (f", OMP_NUM_THREADS is {told}" if told else "")
    if threads > cores:
        return Finding(
            "threads", "note", text, f"more threads than cores wait for one another: --threads {cores}"
        )
    if threads < cores:
        return Finding(
            "threads", "note", text, f"if nothing else runs, training may take all: --threads {cores}"
        )
    return Finding("threads", "good", text)


def _device(name: str) -> Iterator[Finding]:
    import torch

    from rnem_world.device import choose_device, has_bfloat16, has_compiler, has_tf32

    device = choose_device(name)
    matrix = torch.eye(64, device=device) * 2.0
    right = bool(((matrix @ matrix).cpu() == torch.eye(64) * 4.0).all())
    named = f"PyTorch {torch.__version__} computes on {device}"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        named += f", {properties.name}, {properties.total_memory / 1e9:.0f} GB"
    yield Finding(
        "device",
        "good" if right else "bad",
        named if right else f"{named}, and 2 x 2 isn't 4 there",
        "" if right else "--device cpu; install a PyTorch that knows this device (pytorch.org)",
    )
    seen = _graphics_card()
    if device.type == "cpu" and seen:
        yield Finding("graphics card", "note", f"{seen}, which this PyTorch doesn't use", "see pytorch.org")
    quicker = [
        option
        for option, is_there in (
            ("--precision bf16", has_bfloat16(device)),
            ("--precision tf32", has_tf32(device)),
            ("--compile", device.type == "cuda" or has_compiler()),
        )
        if is_there
    ]
    yield Finding("precision", "good", f"training may take {', '.join(quicker) or 'float32 alone'}")


def _graphics_card() -> str:
    """Names a graphics card that the system knows; empty if there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S607
    return asked.stdout.splitlines()[0].partition(" (")[0] if asked.returncode == 0 and asked.stdout else ""


def _onednn() -> Finding:
    from rnem_world.models.layers import has_onednn

    if has_onednn():
        return Finding("oneDNN", "good", "multiplies as it should")
    return Finding(
        "oneDNN",
        "note",
        "this PyTorch hasn't the operator, so products go by PyTorch's own, right but on some processors slower",
        "use PyTorch's own package for your processor (pytorch.org)",
    )


def _tried(name: str, attempt: Callable[[], str], advice: str) -> Finding:
    """Tries something that says what it did; whatever it raises is what was found."""
    try:
        return Finding(name, "good", attempt())
    except Exception as error:  # libraries fail in many ways, and that is what is asked for here
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        return Finding(name, "bad", f"doesn't work: {reason}", advice)


def _has_bfloat16() -> bool:
    import torch

    from rnem_world.device import has_bfloat16

    return has_bfloat16(torch.device("cpu"))


def _step_by(engine: str, package: str, tolerance: float) -> str:
    """Steps a shipped world by a runtime of graphs and by PyTorch.

    Raises:
        ArithmeticError: If they differ by more than the tolerance.
    """
    import torch

    from rnem_world.envs.world import World

    world = World.load("balls")
    frames = torch.zeros(1, 2, 1, *world.frame_shape[:2])
    dreams = world.encode(frames, torch.zeros(1, 1, dtype=torch.int64), world.config.model.slots)
    actions = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        outputs = [
            world.engine(name).dream_step(dreams, actions, "latent").state.output
            for name in (engine, "torch")
        ]
    difference = float((outputs[0] - outputs[1]).abs().max())
    if not difference < tolerance:
        raise ArithmeticError(f"a step differs by {difference:.2g} from PyTorch's")
    return f"{_version(package)} steps a dream as PyTorch does, to {difference:.0e}"


def _write_video() -> str:
    import imageio_ffmpeg
    import numpy as np

    from rnem_world.evaluation.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "try.mp4", np.zeros((4, 32, 32, 3), np.uint8), fps=10)
    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()} writes mp4"


def _in_a_process(code: str, **environment: str) -> str:
    """Runs code by itself, so that a native library may crash, and gives what it printed last.

    Raises:
        RuntimeError: If it failed, with the last line of its complaint.
    """
    ran = subprocess.run(  # noqa: S603 the code is this module's
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "PYGAME_HIDE_SUPPORT_PROMPT": "1", **environment},
    )
    if ran.returncode:
        complaint = ran.stderr.strip().splitlines()
        raise RuntimeError(complaint[-1] if complaint else f"it ended with {ran.returncode}")
    return ran.stdout.strip().splitlines()[-1]


def _window() -> Finding:
    """Opens a window; where there is no screen, one that nobody sees."""
    from rnem_world.envs.window import has_screen, unseen_window

    finding = _tried(
        "pygame",
        lambda: _in_a_process(_OPEN_WINDOW, **unseen_window()),
        "install pygame-ce anew; videos work without it",
    )
    if finding.verdict == "good" and not has_screen():
        advice = "record videos (`rnem-world env record`) instead of render_mode='human'"
        return Finding("pygame", "note", f"{finding.text}: there is no screen here", advice)
    return finding
