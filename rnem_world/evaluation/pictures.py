"""Pictures: figures of what the slots do, curves, and the panels of a video.

A slot has the same colour in every figure and video. Figures are matplotlib's, made without pyplot: nothing
is global, nothing needs a display, and matplotlib is only imported when a figure is drawn.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from rnem_world.errors import ConfigError, suggest
from rnem_world.io import atomic_file
from rnem_world.models.cores import other_slots
from rnem_world.models.rollout import Rollout

if TYPE_CHECKING:
    import matplotlib.figure

_CELL_PIXELS = 64
_GAP = 4
_FRAME = 2
_DPI = 100
_BLANK = (1.0, 1.0, 1.0)
MOST_COLUMNS = 32


def slot_colours(k: int) -> Float[np.ndarray, "k 3"]:
    """Gives every slot its colour: hues evenly spread, all bright enough to be seen on black.

    Args:
        k: Number of slots.

    Returns:
        RGB in [0, 1].
    """
    return np.array([colorsys.hls_to_rgb(slot / k, 0.58, 0.95) for slot in range(k)])


def coloured(frames: Float[np.ndarray, "*batch c"]) -> Float[np.ndarray, "*batch 3"]:
    """Shows frames of any number of channels in RGB.

    Args:
        frames: Values in [0, 1]; one channel is a grey, three are red, green and blue. Any other number is layers, each
            in a colour of its own, the last one on top.

    Returns:
        RGB in [0, 1].
    """
    channels = frames.shape[-1]
    if channels in (1, 3):
        return np.broadcast_to(frames, (*frames.shape[:-1], 3))
    shown = np.zeros((*frames.shape[:-1], 3))
    for layer, colour in zip(np.moveaxis(frames, -1, 0), slot_colours(channels), strict=True):
        shown += layer[..., None] * (colour - shown)
    return shown


def colour_gamma(gamma: Float[np.ndarray, "*batch k h w"]) -> Float[np.ndarray, "*batch h w 3"]:
    """Mixes the slots' colours by their responsibilities.

    Args:
        gamma: Responsibilities, summing to 1 over k.

    Returns:
        RGB in [0, 1].
    """
    colours = slot_colours(gamma.shape[-3])
    mixed: np.ndarray = np.einsum("...khw,kc->...hwc", gamma, colours)
    return mixed.clip(0, 1)


def colour_grouping(
    gamma: Float[np.ndarray, "*batch k h w"], prediction_frame: Float[np.ndarray, "*batch h w"]
) -> Float[np.ndarray, "*batch h w 3"]:
    """Shows a frame in the colours of its slots: objects in their slot's colour on black.

    Args:
        gamma: Responsibilities, summing to 1 over k.
        prediction_frame: Brightness in [0, 1], for example ``sum_k gamma * prediction``.

    Returns:
        RGB in [0, 1].
    """
    coloured: np.ndarray = colour_gamma(gamma) * prediction_frame.clip(0, 1)[..., None]
    return coloured


def brightness(frames: Float[np.ndarray, "*batch c"]) -> Float[np.ndarray, "*batch"]:
    """Tells how bright pixels are: greys and colours as their mean, layers as the brightest of them.

    Args:
        frames: Values in [0, 1], of as many channels as `coloured` knows.
    """
    bright: np.ndarray = frames.mean(axis=-1) if frames.shape[-1] in (1, 3) else frames.max(axis=-1)
    return bright


def overview(
    rollout: Rollout, frames: Float[Tensor, "b t c h w"], index: int, title: str = ""
) -> matplotlib.figure.Figure:
    """Draws one sequence of a rollout: a column for each step, a row for each thing that is known about it.

    The rows, from the top: target; reconstruction ``sum_k gamma * prediction``; the same in the slots'
    colours; responsibilities in the slots' colours; each slot's prediction, framed in the slot's colour; with
    attention, for each focus slot (white) the other slots in their colours, as strongly as it attends to
    them; the input of the step, with its noise.

    Args:
        rollout: The rollout. Longer ones show `MOST_COLUMNS` steps, evenly spread, the first and last among them.
        frames: The true frames that it was made from.
        index: Which sequence of the batch.
        title: Written above.
    """
    steps, slots = rollout.predictions.shape[1:3]
    shown = np.unique(np.linspace(0, steps - 1, min(steps, MOST_COLUMNS)).round().astype(int))
    predictions, gammas = rollout.predictions[index, shown], rollout.gammas[index, shown]
    means = _array(rollout.likelihood.means(predictions))
    mixture = _array(rollout.likelihood.mix(predictions, gammas))
    grouping = _array(gammas[:, :, 0])
    rows = [
        ("target", _images(_array(frames[index, 1 + shown]))),
        ("reconstruction", _images(mixture)),
        ("slots", colour_grouping(grouping, brightness(np.moveaxis(mixture, 1, -1)))),
        ("gamma", colour_gamma(grouping)),
    ]
    rows += [(f"slot {slot + 1}", _images(means[:, slot])) for slot in range(slots)]
    colours, blank = slot_colours(slots), np.full((1, 3), _BLANK)
    frame_colours = [blank.repeat(4, axis=0), colours]
    if rollout.attentions is not None:
        attended = _attended(means.mean(axis=2), _array(attention_matrix(rollout.attentions[index, shown])))
        rows += [(f"attention {slot + 1}", attended[:, slot]) for slot in range(slots)]
        frame_colours.append(colours)
    rows.append(("input", _images(_array(rollout.inputs[index, shown]))))
    labels, images = zip(*rows, strict=True)
    columns = [str(step + 1) for step in shown]
    return _mosaic_figure(np.stack(images), np.concatenate([*frame_colours, blank]), labels, columns, title)


def curves_figure(
    curves: Mapping[str, Sequence[float | int]], title: str, x_label: str, y_label: str
) -> matplotlib.figure.Figure:
    """Draws curves over 1, 2, 3, ...

    Args:
        curves: Values by name; lengths may differ, NaN leaves a gap.
        title: Written above.
        x_label: What is counted.
        y_label: What is measured, with its unit.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    styles = ("-", "--", "-.", ":")
    for position, (name, values) in enumerate(curves.items()):
        # A curve of a few points would vanish between its gaps without markers.
        axes.plot(
            range(1, len(values) + 1),
            values,
            label=name,
            linestyle=styles[position // 10 % len(styles)],
            marker="o" if len(values) <= 30 else None,
            markersize=3,
        )
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def counts_figure(
    counts: Mapping[str, Sequence[Sequence[int]]], values: Sequence[float], title: str = ""
) -> matplotlib.figure.Figure:
    """Draws which value was told for which, one table beside the other.

    Args:
        counts: By what is counted: how often each value (rows) was told to be each (columns).
        values: The values.
        title: What is shown.
    """
    from matplotlib.figure import Figure

    side = 0.9 + 0.5 * len(values)
    figure = Figure(figsize=(max(1.4 * side * len(counts), 5.0), side + 0.8), dpi=100, layout="constrained")
    labels = [f"{value:.4g}" for value in values]
    for axes, (name, matrix) in zip(
        figure.subplots(1, len(counts), squeeze=False)[0], counts.items(), strict=True
    ):
        shares = np.array(matrix, float)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for row, column in np.ndindex(shares.shape):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, matrix[row][column], ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(values)), labels)
        axes.set_yticks(range(len(values)), labels)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("told")
    figure.axes[0].set_ylabel("true")
    figure.suptitle(title, fontsize=10)
    return figure


def save_figure(figure: matplotlib.figure.Figure, path: str | Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: What to write.
        path: Where to; the suffix says how: .png, .pdf or .svg.

    Raises:
        ConfigError: The suffix is another.
        OutputError: The file can't be written.
    """
    path = Path(path)
    known = (".pdf", ".png", ".svg")
    if path.suffix.lower() not in known:
        raise ConfigError(f"can't save a figure as {path.name!r}: {suggest(path.suffix.lower(), known)}")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."))


def figure_to_array(figure: matplotlib.figure.Figure) -> UInt8[np.ndarray, "h w 3"]:
    """Renders a figure to pixels, for example for TensorBoard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3].copy()


def _images(frames: Float[np.ndarray, "t c h w"]) -> Float[np.ndarray, "t h w 3"]:
    """Turns frames into RGB."""
    return coloured(np.moveaxis(frames, 1, -1).clip(0, 1))


def _attended(
    predictions: Float[np.ndarray, "t k h w"], attention: Float[np.ndarray, "t k k"]
) -> Float[np.ndarray, "t k h w 3"]:
    """Lays the other slots, in their colours and as opaque as they are attended to, over the focus slot."""
    slots = predictions.shape[1]
    others = attention * (1 - np.eye(slots))
    tint = np.einsum("tij,tjhw,jc->tihwc", others, predictions, slot_colours(slots), optimize=True)
    cover = np.clip(np.einsum("tij,tjhw->tihw", others, predictions, optimize=True), 0, 1)
    laid_over: np.ndarray = (predictions * (1 - cover))[..., None] + tint
    return laid_over.clip(0, 1)


def _mosaic_figure(
    images: Float[np.ndarray, "rows columns h w 3"],
    frame_colours: Float[np.ndarray, "rows 3"],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
) -> matplotlib.figure.Figure:
    """Draws all images as one, pixel for pixel, since hundreds of axes are slow."""
    from matplotlib.figure import Figure

    scale = max(1, round(_CELL_PIXELS / min(images.shape[2:4])))
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    rows, columns, height, width = images.shape[:4]
    # The frame goes around the image, not over its edge, where objects may be.
    border = 2 * _FRAME + _GAP
    cells = np.ones((rows, columns, height + border, width + border, 3))
    cells[:, :, :-_GAP, :-_GAP] = frame_colours[:, None, None, None]
    cells[:, :, _FRAME : _FRAME + height, _FRAME : _FRAME + width] = images
    canvas = cells.swapaxes(1, 2).reshape(rows * (height + border), columns * (width + border), 3)
    left, top, margin = 124, 64, 16
    full_width, full_height = canvas.shape[1] + left + margin, canvas.shape[0] + top + margin
    figure = Figure(figsize=(full_width / _DPI, full_height / _DPI), dpi=_DPI)
    axes = figure.add_axes(
        (
            left / full_width,
            margin / full_height,
            canvas.shape[1] / full_width,
            canvas.shape[0] / full_height,
        )
    )
    axes.imshow(canvas, interpolation="nearest", aspect="auto", vmin=0, vmax=1)
    axes.set_xticks(np.arange(columns) * (width + border) + _FRAME + width / 2, column_labels)
    axes.set_yticks(np.arange(rows) * (height + border) + _FRAME + height / 2, row_labels)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, loc="left", pad=18)
    return figure


def attention_matrix(attention: Float[Tensor, "*b k j"]) -> Float[Tensor, "*b k k"]:
    """Puts each slot's attention to the others (j = k - 1, in increasing order) into a matrix with zero diagonal."""
    slots = attention.shape[-2]
    matrix = attention.new_zeros(*attention.shape[:-1], slots)
    others = other_slots(slots, attention.device)
    return matrix.scatter(-1, others.expand(attention.shape), attention)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array


def _to_bytes(images: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
    return np.ascontiguousarray((coloured(images.clip(0.0, 1.0)) * 255.0).round().astype(np.uint8))


def rollout_panels(
    rollout: Rollout, frames: Float[Tensor, "b t c h w"], index: int, with_slots: bool = False
) -> dict[str, UInt8[np.ndarray, "s h w 3"]]:
    """Makes the panels of a video: truth, prediction, grouping in colour, and each slot on request.

    The prediction is the slots' means mixed by the responsibilities, which have seen the true frame only in the
    context; the grouping shows the same in the slots' colours, as the paper's animations do.

    Args:
        rollout: The rollout.
        frames: The true frames that it was made from.
        index: Which sequence of the batch.
        with_slots: Whether to add a panel for each slot, in its colour.

    Returns:
        Panels by their labels.
    """
    steps = rollout.predictions.shape[1]
    truth = _array(frames[index, 1 : steps + 1]).transpose(0, 2, 3, 1)
    predictions, gammas = rollout.predictions[index], rollout.gammas[index]
    mixture = _array(rollout.likelihood.mix(predictions, gammas)).transpose(0, 2, 3, 1)
    panels = {
        "truth": _to_bytes(truth),
        "prediction": _to_bytes(mixture),
        "grouping": _to_bytes(colour_grouping(_array(gammas[:, :, 0]), brightness(mixture))),
    }
    if with_slots:
        slots = predictions.shape[1]
        means = _array(rollout.likelihood.means(predictions).mean(dim=2))
        for slot, colour in enumerate(slot_colours(slots)):
            panels[f"slot {slot + 1}"] = _to_bytes(means[:, slot, ..., None] * colour)
    return panels
