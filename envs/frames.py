"""From what an environment shows to the frames that a model sees."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import UInt8
from numpy.typing import NDArray

from rnem_world.envs.recipe import EnvironmentRecipe, Layout, Pixels, Source, cropped_to
from rnem_world.errors import ConfigError, DataError, SimulationError, suggest
from rnem_world.evaluation.pictures import coloured

Array = NDArray[Any]

SMALLEST_PICTURE = 16
"""Observations of bytes that are smaller are taken for codes, not colours, unless the user says otherwise."""

LARGEST_KEPT, OBSERVED_SIZE, RENDERED_SIZE = 64, (64, 64), (48, 48)
"""Larger pictures are made smaller unless the user says otherwise: to these sizes."""


def kind_of_picture(space: spaces.Space[Any]) -> Pixels | None:
    """Says what the numbers of a space are if it may be a picture: bits, bytes, or floats from 0 to 1; else None."""
    if space.shape is None or len(space.shape) not in (2, 3) or 0 in space.shape:
        return None
    if isinstance(space, spaces.MultiBinary):
        return "bits"
    if not isinstance(space, spaces.Box):
        return None
    low, high = float(np.min(space.low)), float(np.max(space.high))
    if space.dtype == np.bool_ or (
        space.dtype is not None and space.dtype.kind in "iu" and (low, high) == (0, 1)
    ):
        return "bits"
    if (low, high) == (0.0, 255.0):
        return "bytes"
    if (low, high) == (0.0, 1.0):
        return "units"
    return None


def picture_space(
    space: spaces.Space[Any], key: str | None, frames: Source
) -> tuple[str | None, Pixels] | None:
    """Finds the picture in the observations of an environment.

    Args:
        space: Of its observations.
        key: The entry of a dictionary that the user names.
        frames: What the user wants.

    Returns:
        The entry of the dictionary (None where there is none) and the kind of its numbers; None if there is no picture.

    Raises:
        ConfigError: If there is no such entry, or it is no picture, or several may be meant.
    """
    if key is not None:
        entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
        if key not in entries:
            known = suggest(key, entries) if entries else f"they are {space}, and no dictionary"
            raise ConfigError(f"the observations have no entry {key!r}: {known}")
        kind = kind_of_picture(entries[key])
        if kind is None:
            raise ConfigError(f"the observation {key!r} is {entries[key]}, {EXPECTED_PICTURE}")
        return key, kind
    if isinstance(space, spaces.Dict):
        found = {name: kind_of_picture(each) for name, each in space.spaces.items()}
        pictures = {
            name: kind
            for name, kind in found.items()
            if kind is not None and (frames == "observation" or _is_large(space[name], kind))
        }
        if len(pictures) > 1:
            raise ConfigError(
                f"the observations {', '.join(map(repr, pictures))} may all be the picture: say which, by --obs-key "
                "(obs_key), or give frames='render'"
            )
        return next(iter(pictures.items()), None)
    kind = kind_of_picture(space)
    return (None, kind) if kind is not None and (frames == "observation" or _is_large(space, kind)) else None


EXPECTED_PICTURE = (
    "expected a picture: two or three axes of bits, of bytes (0 to 255), or of floats from 0 to 1"
)


def _is_large(space: spaces.Space[Any], kind: Pixels) -> bool:
    """Tells pictures from codes, which small observations of bytes often are."""
    return kind != "bytes" or sorted(space.shape or ())[-2] >= SMALLEST_PICTURE


def pixels_of(picture: Array) -> Pixels:
    """Says what the numbers of a picture that was drawn are: floats up to 1 are the share of a full colour."""
    if picture.dtype == np.bool_:
        return "bits"
    return "units" if picture.dtype.kind == "f" and picture.max(initial=0.0) <= 1.0 else "bytes"


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Guesses the axes of a picture: the channels are fewer than rows and columns, and come last if nothing tells."""
    if len(shape) == 2:
        return "HW"
    first, middle, last = shape
    return "CHW" if first < min(middle, last) else "HWC"


def usual_size(height: int, width: int, frames: Source) -> tuple[int, int]:
    """Chooses the size of frames where the user doesn't: that of the picture unless it is large."""
    if max(height, width) <= LARGEST_KEPT:
        return height, width
    return RENDERED_SIZE if frames == "render" else OBSERVED_SIZE


LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""How much red, green and blue contribute to a grey (ITU-R BT.601)."""

HALF = 127
"""Greater is on, where bits were averaged."""


class FrameMaker:
    """Makes frames of the pictures of one environment.

    Attributes:
        cropped: Height and width of a picture once it is cropped.

    Args:
        recipe: How; it knows what a picture is like, and its layout.

    Raises:
        ConfigError: If such frames can't be made of such pictures.
        DataError: If the recipe's background can't be read.
    """

    def __init__(self, recipe: EnvironmentRecipe) -> None:
        self.recipe, shape = recipe, recipe.picture_shape
        self._layout = recipe.layout or layout_of(shape)
        if len(self._layout) != len(shape):
            raise ConfigError(f"the layout is {self._layout}, and a picture has the shape {shape}")
        sizes = dict(zip(self._layout, shape, strict=True))
        channels = sizes.get("C", 1)
        is_colour = channels == 3 and recipe.pixels != "bits"
        if (recipe.grayscale or recipe.binarise) and channels > 1 and not is_colour:
            raise ConfigError(
                f"a picture has {channels} channels{' of bits' * (recipe.pixels == 'bits')}, and greys are made of "
                "red, green and blue: leave out grayscale and binarise"
            )
        self._rows, self._columns = cropped_to(recipe.crop, sizes["H"], sizes["W"])
        self.cropped = (self._rows.stop - self._rows.start, self._columns.stop - self._columns.start)
        self._size = recipe.size or self.cropped
        self._is_grey = channels > 1 and (recipe.grayscale or recipe.binarise is not None)
        self._background = from_text(recipe.background, self._size) if recipe.background else None

    def __call__(self, picture: Any) -> UInt8[np.ndarray, "h w c"]:
        """Makes a frame.

        Args:
            picture: What the environment shows.

        Raises:
            SimulationError: If it isn't what the environment said that it would show.
        """
        frame = self.greys_or_colours(picture)
        if self.recipe.binarise == "background" and self._background is not None:
            return _on(frame != self._background)
        if self.recipe.is_binary:
            threshold = HALF if self.recipe.pixels == "bits" else self.recipe.threshold
            return _on(frame > threshold)
        return frame

    def greys_or_colours(self, picture: Any) -> UInt8[np.ndarray, "h w c"]:
        """Makes a frame, but for what makes it binary.

        Raises:
            SimulationError: If the picture isn't what the environment said that it would show.
        """
        given = np.asarray(picture)
        if given.shape != self.recipe.picture_shape:
            raise SimulationError(
                f"a picture has the shape {given.shape}, and those before it {self.recipe.picture_shape}: pictures "
                "must keep their size"
            )
        if self._layout == "HW":
            given = given[..., None]
        elif self._layout == "CHW":
            given = given.transpose(1, 2, 0)
        shown = self._bytes(given[self._rows, self._columns])
        if self._is_grey:
            shown = (shown @ LUMA + 0.5).astype(np.uint8)[..., None]
        return resized(shown, self._size)

    def _bytes(self, picture: Array) -> UInt8[np.ndarray, "h w c"]:
        if self.recipe.pixels == "bits":
            if picture.dtype != np.bool_ and not np.isin(picture, (0, 1)).all():
                raise SimulationError(
                    f"a picture of bits holds numbers from {picture.min():g} to {picture.max():g}, expected 0 and 1"
                )
            return _on(picture != 0)
        if picture.dtype == np.uint8 and self.recipe.pixels == "bytes":
            return picture
        if picture.dtype.kind == "f" and not np.isfinite(picture).all():
            raise SimulationError("a picture holds NaN or infinite numbers, expected none")
        most = 1.0 if self.recipe.pixels == "units" else 255.0
        if picture.min() < 0 or picture.max() > most:
            raise SimulationError(
                f"a picture holds numbers from {picture.min():g} to {picture.max():g}, expected 0 to {most:g}"
            )
        scaled: UInt8[np.ndarray, "h w c"] = (picture * (255.0 / most) + 0.5).astype(np.uint8)
        return scaled


def _on(where: Array) -> UInt8[np.ndarray, "h w c"]:
    """Turns truths into 255 and 0."""
    shown: UInt8[np.ndarray, "h w c"] = where.view(np.uint8) * np.uint8(255)
    return shown


def resized(frame: UInt8[np.ndarray, "h w c"], size: tuple[int, ...]) -> UInt8[np.ndarray, "height width c"]:
    """Takes means over the pixels whose centres lie in a new one; where a frame grows, pixels are repeated."""
    if frame.shape[:2] == tuple(size):
        return np.ascontiguousarray(frame)
    from PIL import Image

    height, width = size
    if frame.shape[2] == 3:
        return np.asarray(
            Image.fromarray(np.ascontiguousarray(frame)).resize((width, height), Image.Resampling.BOX)
        )
    channels = (np.ascontiguousarray(frame[..., channel]) for channel in range(frame.shape[2]))
    small = [Image.fromarray(each).resize((width, height), Image.Resampling.BOX) for each in channels]
    return np.stack([np.asarray(each) for each in small], axis=-1)


def to_text(background: UInt8[np.ndarray, "h w 1"]) -> str:
    """Writes a background as text, for a recipe."""
    return base64.b85encode(zlib.compress(background.tobytes(), 9)).decode()


def from_text(text: str, size: tuple[int, ...]) -> UInt8[np.ndarray, "h w 1"]:
    """Reads what `to_text` wrote.

    Raises:
        DataError: If it is something else.
    """
    try:
        values = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
        return values.reshape(size[0], size[1], 1).copy()
    except (ValueError, zlib.error) as error:
        raise DataError(f"the background is no picture of {size[0]} x {size[1]} pixels: {error}") from error


def to_picture(frame: UInt8[np.ndarray, "h w c"], least: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draws a frame for people, magnified to at least so many pixels a side; channels that are no colours get some."""
    shown = (coloured(frame / 255.0) * 255.0).round().astype(np.uint8)
    factor = max(1, -(-least // min(frame.shape[:2])))
    return np.ascontiguousarray(shown.repeat(factor, axis=0).repeat(factor, axis=1))
