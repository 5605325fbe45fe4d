"""Balls in colours on a texture: the same sequences as a black and white dataset's, to compare what is learnt of both.

Run ``python -m rnem_world.benchmarks.coloured DATA OUT``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import EpisodeBatch, Split
from rnem_world.data.writer import write_shard
from rnem_world.errors import DataError, RnemWorldError
from rnem_world.seeding import numpy_generator

# Sequences drawn at once.
BLOCK = 64
# The texture's least and greatest brightness, and the size in pixels of its grain.
TEXTURE, GRAIN = (0.15, 0.45), 4
# Balls are brighter than the texture in at least one channel.
LEAST_OF_A_COLOUR = 0.7


def colour(data: Path, out: Path, seed: int = 0) -> None:
    """Writes a dataset of balls again, in three channels.

    Each ball of each sequence has a colour of its own, the player's is white; edges are smooth, and the ground is one
    texture for all.

    Args:
        data: A dataset with ``positions`` and the rules of the balls.
        out: The file to write.
        seed: Of the colours and the texture.

    Raises:
        DataError: If the dataset has no positions or says nothing of the balls' size.
    """
    with Dataset.open(data) as dataset:
        rules = dataset.attributes.settings.get("rules", {})
        if not rules.get("kinds") or rules.get("box_size") is None:
            raise DataError(
                f"{data} doesn't say how large its balls are, expected a dataset of `rnem-world collect`"
            )
        radius = float(rules["player_radius"] if rules.get("player") else rules["kinds"][0][0])
        size = dataset.info(dataset.splits[0]).height
        texture = _texture(size, numpy_generator(seed, "texture"))
        splits: dict[Split, EpisodeBatch] = {}
        for split in dataset.splits:
            dataset.require(split, ["positions"])
            info = dataset.info(split)
            names = [name for name in info.arrays if name not in ("features", "collisions")]
            read: dict[str, Any] = dataset.read(split, range(info.number_of_sequences), names)
            scale = size / float(rules["box_size"])
            generator = numpy_generator(seed, "colours", split)
            balls = read["positions"].shape[2]
            colours = generator.random((info.number_of_sequences, balls, 3), dtype=np.float32)
            bright = generator.integers(3, size=(info.number_of_sequences, balls))
            np.put_along_axis(
                colours, bright[..., None], LEAST_OF_A_COLOUR + 0.3 * generator.random(), axis=2
            )
            if rules.get("player"):
                colours[:, 0] = 1.0
            frames = np.empty((*read["positions"].shape[:2], size, size, 3), np.uint8)
            for begin in range(0, info.number_of_sequences, BLOCK):
                rows = slice(begin, begin + BLOCK)
                frames[:, rows] = draw(
                    read["positions"][:, rows] * scale, radius * scale, colours[rows], texture
                )
            splits[split] = EpisodeBatch(features=frames, **read)
        write_shard(out, splits, replace(dataset.attributes, maximum_value=255))


def draw(
    centres: Float[np.ndarray, "t n balls 2"],
    radius: float,
    colours: Float32[np.ndarray, "n balls 3"],
    texture: Float32[np.ndarray, "h w 3"],
) -> UInt8[np.ndarray, "t n h w 3"]:
    """Draws discs with smooth edges.

    Args:
        centres: In pixels, across and down.
        radius: In pixels.
        colours: In [0, 1].
        texture: The ground, in [0, 1].
    """
    axis = np.arange(texture.shape[0], dtype=np.float32) + 0.5
    frames = np.broadcast_to(texture, (*centres.shape[:2], *texture.shape)).copy()
    for ball in range(centres.shape[2]):
        across = axis - centres[:, :, ball, 0, None].astype(np.float32)
        down = axis - centres[:, :, ball, 1, None].astype(np.float32)
        distance = np.sqrt(across[:, :, None, :] ** 2 + down[:, :, :, None] ** 2)
        share = np.clip(radius - distance + 0.5, 0.0, 1.0)[..., None]
        frames += share * (colours[None, :, ball, None, None] - frames)
    stored: UInt8[np.ndarray, "t n h w 3"] = np.rint(frames * 255.0).astype(np.uint8)
    return stored


def _texture(size: int, generator: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Draws coarse noise with smooth passages."""
    coarse = generator.random((-(-size // GRAIN) + 1, -(-size // GRAIN) + 1, 3), dtype=np.float32)
    place = np.arange(size, dtype=np.float32) / GRAIN
    whole = place.astype(int)
    part = (place - whole)[:, None]
    down = coarse[whole] * (1 - part[..., None]) + coarse[whole + 1] * part[..., None]
    smooth = down[:, whole] * (1 - part) + down[:, whole + 1] * part
    low, high = TEXTURE
    texture: Float32[np.ndarray, "h w 3"] = (low + (high - low) * smooth).astype(np.float32)
    return texture


if __name__ == "__main__":
    try:
        colour(Path(sys.argv[1]), Path(sys.argv[2]))
    except IndexError:
        sys.exit("give two paths: python -m rnem_world.benchmarks.coloured DATA OUT")
    except RnemWorldError as error:
        sys.exit(str(error))
