"""The page without a server: a folder for any web host, in which the visitor's own browser dreams by ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rnem_world.envs.uncertainty import read_calibration
from rnem_world.envs.world import World
from rnem_world.errors import CheckpointError, DependencyError, OutputError
from rnem_world.io import atomic_folder
from rnem_world.models.export import GRAPHS_FILE, export_graphs
from rnem_world.play.facts import facts_of
from rnem_world.play.imagining import Imagining
from rnem_world.play.server import page_files
from rnem_world.training.checkpoint import MODEL_FILE, load_model, save_checkpoint

NUMBER_OF_STARTS = 64

RUNTIME, RUNTIME_VERSION = "onnxruntime-web", "1.30.0"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
CDN = f"https://cdn.jsdelivr.net/npm/{RUNTIME}@{RUNTIME_VERSION}/dist/"

FROM_CDN, FROM_NPM = "cdn", "npm"


def write_site(
    checkpoint: str,
    folder: Path,
    runtime: str = FROM_CDN,
    half: bool = False,
    number_of_starts: int = NUMBER_OF_STARTS,
    starts: str | None = None,
) -> None:
    """Writes a folder that any web host can serve.

    Args:
        checkpoint: The world.
        folder: Where to; must not exist.
        runtime: Where the page gets ONNX Runtime from: ``cdn``, a public one, when it is visited; ``npm``, now, into
            the folder; or a folder with the package `RUNTIME`, to copy it from.
        half: Whether to write weights in half precision.
        number_of_starts: In how many ways a dream can begin.
        starts: Where dreams begin, see `rnem_world.envs.learned.DreamOptions`.

    Raises:
        RnemWorldError: If the world can't be loaded, has no starts, can't become graphs, or ONNX Runtime isn't there.
        OutputError: If the folder exists, or can't be written.
    """
    if folder.exists():
        raise OutputError(f"{folder} already exists: choose another folder, or remove it first")
    with atomic_folder(folder) as site, tempfile.TemporaryDirectory() as temporary:
        place = _place_runtime(runtime, site, Path(temporary))
        world = _world_with_graphs(checkpoint, half, Path(temporary) / "world")
        imagining = Imagining(world, starts=starts)
        step = "latent_step" if imagining.way == "latent" else "pixels_step"
        for name in (MODEL_FILE, *(f"{graph}.onnx" for graph in (step, "draw", "observe", "encode"))):
            shutil.copyfile(world.folder / name, site / name)
        for name, data in page_files("local.js").items():
            (site / name).write_bytes(data)
        described = _write_starts(imagining, number_of_starts, site / "starts.bin")
        facts = facts_of(imagining)
        facts |= {"world": World.load(checkpoint).name, "real": False}
        facts["attends"] = world.config.model.core == "relational"
        if imagining.uncertainty == "error":
            calibration = asdict(read_calibration(world.folder, imagining.way))
            facts["calibration"] = {name: calibration[name] for name in ("weights", "knots", "errors")}
        text = json.dumps({"facts": facts, "starts": described, "runtime": place})
        (site / "world.json").write_text(text + "\n")


def _world_with_graphs(checkpoint: str, half: bool, folder: Path) -> World:
    """Loads a world whose folder has graphs of its weights: itself, or a copy that gets them."""
    world = World.load(checkpoint)
    if not half:
        try:
            described = json.loads((world.folder / GRAPHS_FILE).read_text())
            if described.get("weights") == world.fingerprint:
                return world
        except (OSError, ValueError, AttributeError):
            pass  # they are made anew
    model, config = load_model(world.folder)
    save_checkpoint(folder, model.half() if half else model, config)
    export_graphs(load_model(folder)[0], folder / MODEL_FILE)
    for file in world.folder.iterdir():
        if file.is_file() and not (folder / file.name).exists() and file.suffix != ".onnx":
            shutil.copyfile(file, folder / file.name)
    return World.load(folder)


def _write_starts(imagining: Imagining, number: int, path: Path) -> dict[str, Any]:
    """Writes where dreams begin, as the slots are after the real frames; float32, one dream after the other.

    Returns:
        How many there are, and how many numbers of what each has.
    """
    dreams = imagining.begin_evenly(number).dreams
    parts = {name: tensor.cpu().numpy() for name, tensor in vars(dreams).items() if tensor is not None}
    rows = [part.reshape(len(part), -1) for part in parts.values()]
    path.write_bytes(np.concatenate(rows, axis=1).astype("<f4").tobytes())
    sizes = {name: row.shape[1] for name, row in zip(parts, rows, strict=True)}
    return {"states": len(rows[0]), "sizes": sizes}


def _place_runtime(runtime: str, site: Path, temporary: Path) -> str:
    """Puts ONNX Runtime into the site, or leaves it to a public host.

    Returns:
        Where the page finds it.
    """
    if runtime == FROM_CDN:
        return CDN
    package = Path(runtime)
    if runtime == FROM_NPM:
        package = _package_from_npm(temporary)
    for name in RUNTIME_FILES:
        found = next((file for file in (package / "dist" / name, package / name) if file.is_file()), None)
        if found is None:
            raise CheckpointError(
                f"{package} has no {name}: give the folder of the npm package {RUNTIME} (as "
                f"node_modules/{RUNTIME}), or npm, or cdn"
            )
        shutil.copyfile(found, site / name)
    return "./"


def _package_from_npm(temporary: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise DependencyError(
            f"npm isn't installed, which fetches {RUNTIME}: give a folder that has it, or cdn"
        )
    command = [npm, "pack", f"{RUNTIME}@{RUNTIME_VERSION}", "--pack-destination", str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=temporary)  # noqa: S603
    archives = list(temporary.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr.strip() or "no package came").splitlines()[-1]
        raise DependencyError(f"npm can't fetch {RUNTIME} ({reason}): give a folder that has it, or cdn")
    with tarfile.open(archives[0]) as archive:
        for name in RUNTIME_FILES:
            member = archive.extractfile(f"package/dist/{name}")
            if member is not None:
                (temporary / name).write_bytes(member.read())
    return temporary
