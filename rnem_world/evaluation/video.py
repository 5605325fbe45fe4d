"""Videos: panels side by side with captions, written as mp4, gif, webp, or as a sheet of stills."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from rnem_world.errors import ConfigError
from rnem_world.io import atomic_file

if TYPE_CHECKING:
    from PIL import ImageFont

_BLOCK = 16
"""Video coders work in blocks of this many pixels and rescale pictures of other sizes."""

_BACKGROUND = (38, 38, 44)
_TEXT = (232, 232, 232)
_CONTEXT = (150, 150, 150)
_IMAGINED = (255, 150, 40)
_FONT_SIZE = 18
_STRIP = 30
_BAR = 6
_GAP = 16
_PANEL = 256
_SHEET_FRAMES = 12


def compose_panels(
    panels: Mapping[str, UInt8[np.ndarray, "t h w 3"]],
    imagined: Sequence[bool],
    texts: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "t canvas_h canvas_w 3"]:
    """Sets panels side by side, each with its caption above it, enlarged so that they are pleasant to look at.

    Args:
        panels: The panels by their captions, all of one size and length; captions wider than their panel are shortened.
        imagined: For each frame, whether the model imagined it (orange bar below) or saw it (grey bar).
        texts: For each frame, a text below the panels, for example the action.

    Returns:
        Frames whose sides are multiples of 16, so that no video coder rescales them.

    Raises:
        ConfigError: There are no panels, they differ in size or length, or something isn't given once for each frame.
    """
    shapes = {panel.shape for panel in panels.values()}
    if len(shapes) != 1:
        raise ConfigError(
            f"panels of the shapes {sorted(shapes)}; give at least one, and cut or resize them to one (t, h, w, 3)"
        )
    steps, height, width = shapes.pop()[:3]
    texts = [""] * steps if texts is None else texts
    for name, values in (("imagined", imagined), ("texts", texts)):
        if len(values) != steps:
            raise ConfigError(
                f"got {len(values)} values of {name} for {steps} frames; give one for each frame"
            )
    # By a whole number, so that pixels stay square and sharp.
    scale = max(1, round(_PANEL / min(height, width)))
    height, width = height * scale, width * scale
    lefts = [_GAP + position * (width + _GAP) for position in range(len(panels))]
    canvas = np.empty((steps, _STRIP + height + _BAR + _STRIP, lefts[-1] + width + _GAP, 3), np.uint8)
    canvas[:] = _BACKGROUND
    canvas[:, :_STRIP] = _header(list(panels), lefts, width, canvas.shape[2])
    bottom = _STRIP + height
    for left, panel in zip(lefts, panels.values(), strict=True):
        canvas[:, _STRIP:bottom, left : left + width] = panel.repeat(scale, axis=1).repeat(scale, axis=2)
    bars = np.where(np.asarray(imagined)[:, None], _IMAGINED, _CONTEXT)[:, None, None]
    canvas[:, bottom : bottom + _BAR, _GAP:-_GAP] = bars
    canvas[:, bottom + _BAR :] = _footers(imagined, texts, canvas.shape[2])
    return _padded(canvas)


def write_video(path: str | Path, frames: UInt8[np.ndarray, "t h w 3"], fps: float | int) -> None:
    """Writes a video, whole or not at all; the suffix says how.

    - ``.mp4``: H.264, plays everywhere. Sides that aren't multiples of 16 are padded.
    - ``.gif``: 256 colours a frame, loops, at most 50 frames a second.
    - ``.webp``: lossless, loops.
    - ``.png``: no video but a sheet of up to 12 frames, evenly spread, for looking at once.

    Equal neighbours may be merged into one longer frame in gif and webp.

    Args:
        path: Where to.
        frames: At least one.
        fps: Frames a second.

    Raises:
        ConfigError: Another suffix, no frames, or fps not above 0.
        OutputError: The file can't be written.
    """
    path = Path(path)
    writers = {".mp4": _write_mp4, ".gif": _write_gif, ".webp": _write_webp, ".png": _write_sheet}
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise ConfigError(
            f"can't write a video as {path.name!r}: the suffix {path.suffix!r} is unknown; "
            f"use .mp4, .gif or .webp (or .png for a sheet of stills)"
        )
    if not frames.size:
        raise ConfigError(f"got frames of shape {frames.shape}; expected at least one frame with pixels")
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"got fps={fps}; expected a number of frames a second above 0")
    with atomic_file(path) as temporary:
        writers[suffix](temporary, frames, float(fps))


def _write_mp4(path: Path, frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
    import imageio_ffmpeg

    frames = _padded(frames)
    height, width = frames.shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        quality=8,
        macro_block_size=_BLOCK,
        output_params=["-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
    # ffmpeg's exit code is lost: when the disk fills up at the end, only the file itself tells.
    try:
        written = imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    except RuntimeError as error:
        raise OSError("ffmpeg left an unreadable file, probably because the disk is full") from error
    if written != len(frames):
        raise OSError(f"ffmpeg wrote {written} of {len(frames)} frames, probably because the disk is full")


def _write_gif(path: Path, frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
    # Browsers play frames of less than 20 ms at a tenth of the speed.
    path.write_bytes(_encoded(".gif", frames, duration=max(20, round(1000 / fps)), loop=0))


def _write_webp(path: Path, frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
    duration = max(1, round(1000 / fps))
    path.write_bytes(_encoded(".webp", frames, duration=duration, loop=0, lossless=True))


def _write_sheet(path: Path, frames: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
    """Lays frames out in a grid, row by row."""
    shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _SHEET_FRAMES)).round().astype(int))
    height, width = frames.shape[1:3]
    columns = min(len(shown), max(1, round(math.sqrt(1.5 * len(shown) * height / width))))
    rows = math.ceil(len(shown) / columns)
    cells = np.empty((rows * columns, height, width, 3), np.uint8)
    cells[:] = _BACKGROUND
    cells[: len(shown)] = frames[shown]
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    path.write_bytes(_encoded(".png", grid.reshape(rows * height, columns * width, 3)))


def _encoded(suffix: str, frames: UInt8[np.ndarray, "*t h w 3"], **options: Any) -> bytes:
    """Encodes in memory: imageio's own writing to a file closes it twice when the disk is full."""
    import imageio.v3 as imageio

    encoded: bytes = imageio.imwrite("<bytes>", frames, extension=suffix, plugin="pillow", **options)
    return encoded


def _padded(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t padded_h padded_w 3"]:
    """Adds background below and to the right, as evenly as possible around, up to multiples of the block."""
    height, width = frames.shape[1:3]
    rows, columns = -height % _BLOCK, -width % _BLOCK
    if not rows and not columns:
        return frames
    padded = np.empty((len(frames), height + rows, width + columns, 3), np.uint8)
    padded[:] = _BACKGROUND
    top, left = rows // 2, columns // 2
    padded[:, top : top + height, left : left + width] = frames
    return padded


def _header(
    labels: Sequence[str], lefts: Sequence[int], width: int, canvas_width: int
) -> UInt8[np.ndarray, "strip canvas_w 3"]:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    strip = Image.new("RGB", (canvas_width, _STRIP), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for label, left in zip(labels, lefts, strict=True):
        text = _shortened(label, float(width), font)
        draw.text((left + width / 2, _STRIP / 2), text, fill=_TEXT, font=font, anchor="mm")
    return np.asarray(strip)


def _footers(
    imagined: Sequence[bool], texts: Sequence[str], canvas_width: int
) -> UInt8[np.ndarray, "t strip canvas_w 3"]:
    """Draws each frame's text on the left and, on the right, whether it is context or imagined."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)

    @functools.cache  # most frames share their text with others, and drawing text is the slow part
    def strip(text: str, is_imagined: bool) -> np.ndarray:
        picture = Image.new("RGB", (canvas_width, _STRIP), _BACKGROUND)
        draw = ImageDraw.Draw(picture)
        word, colour = ("imagined", _IMAGINED) if is_imagined else ("context", _CONTEXT)
        draw.text((canvas_width - _GAP, _STRIP / 2), word, fill=colour, font=font, anchor="rm")
        room = canvas_width - 3 * _GAP - font.getlength(word)
        draw.text((_GAP, _STRIP / 2), _shortened(text, room, font), fill=_TEXT, font=font, anchor="lm")
        return np.asarray(picture)

    return np.stack([strip(text, bool(told)) for text, told in zip(texts, imagined, strict=True)])


def _shortened(text: str, room: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..." if text else ""
