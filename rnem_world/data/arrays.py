"""What an array from elsewhere means: which axis is time, which numbers are black and white, what stands beside it.

Nothing is guessed silently: an array that may be read in two ways is refused with the option that decides, and what is
assumed of the others goes into :class:`Findings`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rnem_world.actions import ActionSpace
from rnem_world.config import check_one_of
from rnem_world.data.schema import ARRAYS, NO_SEED, array_schema
from rnem_world.errors import ConfigError, DataError

Matte = Literal["black", "white"]
Array = NDArray[Any]

CHANNELS = (1, 3, 4)
AXES = "NTHWC"
"""Sequences, time, height, width and channels: the letters of an order of axes, here in that of a clip's arrays."""

TOLERANCE = 0.05
"""Floats may leave their range by this part of it, as resizing and filters make them, and are clipped then."""

OF_TRANSITIONS = ("collisions", "events", "actions", "rewards", "terminations", "truncations")
"""Arrays whose entry t belongs to the transition from frame t to t+1: one fewer than frames is enough."""

_OTHER_WORDS = {
    **dict.fromkeys(("done", "dones", "terminals", "terminated"), "terminations"),
    **dict.fromkeys(("observations", "images", "video", "frames"), "features"),
    **dict.fromkeys(("truncated", "timeouts"), "truncations"),
    **dict.fromkeys(("train",), "training"),
    **dict.fromkeys(("val", "valid", "eval"), "validation"),
    **dict.fromkeys(("num_actions", "n_actions", "actions"), "number_of_actions"),
}
"""What others call the arrays, splits and attributes of a dataset."""

_LEAST_OF_BYTES = 16
_MOST_ACTIONS = 2**31


@dataclass(frozen=True)
class Reading:
    """How frames from elsewhere are to be read.

    Attributes:
        axes: The order of an array's axes, for example ``"TNHW"``; None takes the only one that its shape allows.
        value_range: Which values of an array are black and white; None takes 0 and 1 or 0 and 255, whichever fits.
        matte: What transparent pixels are laid on.
        invert: Whether to turn black into white, for dark objects on a white ground.
        picture: Which of several pictures a frame is: the name of a camera, or of an entry of the observations.

    Raises:
        ConfigError: If a value makes no sense.
    """

    axes: str | None = None
    value_range: tuple[float | int, float | int] | None = None
    matte: Matte = "black"
    invert: bool = False
    picture: str | None = None

    def __post_init__(self) -> None:
        check_one_of(self, "matte", ("black", "white"))
        if self.axes is not None:
            letters = self.axes.upper()
            if len(set(letters)) < len(letters) or not set("THW") <= set(letters) <= set(AXES):
                raise ConfigError(
                    f"axes is {self.axes!r}, expected an order of T (time), H, W (height, width) and perhaps N "
                    "(sequences) and C (channels), for example TNHW"
                )
            object.__setattr__(self, "axes", letters)
        ends = self.value_range
        if ends is not None and not (len(ends) == 2 and np.isfinite(ends).all() and ends[0] < ends[1]):
            raise ConfigError(
                f"value_range is {ends}, expected the values of black and of white, for example (0, 255); to turn "
                "them round use invert"
            )


@dataclass
class Findings:
    """What was met while reading a source, for people.

    Attributes:
        left_out: What is in the source and was not taken.
        assumed: What was assumed, by kind.
        is_transparent: Whether a pixel was.
        milliseconds: How long frames are shown, the shortest and the longest, if pictures and videos say so.
    """

    left_out: list[str] = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)
    is_transparent: bool = False
    milliseconds: tuple[float, float] | None = None

    def see_duration(self, milliseconds: float) -> None:
        """Notes how long a frame is shown; 0 if that isn't known."""
        if milliseconds:
            shortest, longest = self.milliseconds or (milliseconds, milliseconds)
            self.milliseconds = (min(shortest, milliseconds), max(longest, milliseconds))


def lay_on(frame: Array, matte: Matte, findings: Findings) -> Array:
    """Lays a frame (h, w, 4) of uint8 on a ground, pixel by pixel as its alpha says.

    Returns:
        The frame, (h, w, 3) of uint8; those without alpha as they are.
    """
    if frame.ndim != 3 or frame.shape[-1] != 4:
        return frame
    colours, alpha = frame[..., :3], frame[..., 3:]
    if int(alpha.min()) == 255:
        return colours
    findings.is_transparent = True
    ground = 255 if matte == "white" else 0
    alpha = alpha.astype(np.uint16)
    laid: Array = ((colours * alpha + ground * (255 - alpha) + 127) // 255).astype(np.uint8)
    return laid


def to_bytes(frame: Array, ends: tuple[float, float]) -> NDArray[np.uint8]:
    """Turns values into 0..255, black and white being ``ends``; what lies beyond is clipped."""
    black, white = ends
    if frame.dtype == np.uint8 and (black, white) == (0, 255):
        return np.asarray(frame)
    scaled = (np.asarray(frame, np.float64) - black) * (255 / (white - black))
    rounded: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return rounded


def find_axes(shape: tuple[int, ...], name: str, place: str, given: str | None) -> str:
    """Says what the axes of an array of frames are.

    An array called ``features`` is laid out as in a dataset, time first. Of others time is the first axis unless there
    is a second one that may be time.

    Args:
        shape: Its shape.
        name: What it is called.
        place: Where it is, for messages.
        given: The user's word.

    Returns:
        A letter of `AXES` for each axis.

    Raises:
        DataError: If there are several ways to read it, or none.
    """
    if 0 in shape:
        raise DataError(f"{place} has the shape {shape}: it is empty")
    if given is not None:
        if len(given) != len(shape):
            raise DataError(f"{place} has the shape {shape}, and the axes {given} are {len(given)}")
        if "C" in given and shape[given.index("C")] not in CHANNELS:
            raise DataError(
                f"{place} has the shape {shape}: with the axes {given} it has {shape[given.index('C')]} channels, "
                "expected 1, 3 or 4"
            )
        return given
    found = _readings(shape, is_ours=name == "features")
    if not found:
        raise DataError(
            f"{place} has the shape {shape}, expected (T, H, W), (T, H, W, C), or with N sequences (N, T, H, W) or "
            "(N, T, H, W, C) in any order, with C 1, 3 or 4"
        )
    if len(found) > 1:
        raise DataError(
            f"{place} has the shape {shape}, which can be read as {', '.join(found[:-1])} or {found[-1]} (T time, N "
            f"sequences, H height, W width, C channels): say which with axes, for example --axes {found[0]}"
        )
    return found[0]


def _readings(shape: tuple[int, ...], is_ours: bool) -> list[str]:
    """Lists the orders of axes that a shape allows."""
    ends_in_colour = shape[-1] in CHANNELS
    # As many frames as pixels in height, and not in width: what is square may be the first two axes.
    turned = shape[0] == shape[1] != shape[2]
    if len(shape) == 3:
        if (
            ends_in_colour and shape[1] != shape[2]
        ):  # the last two: a single picture, which is nothing to learn from
            return ["THW", "HWT"]
        return ["THW", "HWT"] if turned else ["THW"]
    if len(shape) == 4 and ends_in_colour:
        return ["THWC", "HWTC"] if turned else ["THWC"]
    if len(shape) == 4:
        found = ["TCHW"] if shape[1] in CHANNELS[1:] else []
        found += ["CTHW"] if shape[0] in CHANNELS[1:] and not is_ours else []
        if shape[0] == 1 and not is_ours:
            return [*found, "NTHW"]
        return [*found, "TNHW", "NTHW"] if not is_ours and shape[1] != 1 else [*found, "TNHW"]
    if len(shape) == 5:
        if ends_in_colour or shape[2] in CHANNELS:
            rest = "HWC" if ends_in_colour else "CHW"
            if is_ours or shape[1] == 1:
                return [f"TN{rest}"]
            return [f"NT{rest}"] if shape[0] == 1 else [f"TN{rest}", f"NT{rest}"]
        return ["NCTHW", "TCNHW"] if shape[1] in CHANNELS[:2] else []
    return []


def find_range(
    array: Array, place: str, given: tuple[float | int, float | int] | None, findings: Findings
) -> tuple[float, float]:
    """Finds which values of an array of frames are black and white.

    Whole numbers up to 1 are 0 and 1, others 0..255. Floats are 0..1 if none leaves that by more than `TOLERANCE`, and
    0..255 if they are plainly larger; for what lies between the user has to say.

    Raises:
        DataError: If the values fit neither, or not what was given, or another array of the source differs.
    """
    if array.dtype.kind not in "buif":
        raise DataError(f"{place} holds {array.dtype}, expected numbers")
    extremes = np.array([[one.min(), one.max()] for one in array], dtype=np.float64)
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    is_float = array.dtype.kind == "f"
    candidates = [given] if given is not None else [(0, 1), (0, 255)]
    fitting = [ends for ends in candidates if _fits(low, high, ends, is_float)]
    if given is None and is_float and high <= _LEAST_OF_BYTES:
        fitting = [ends for ends in fitting if ends == (0, 1)]
    if not fitting:
        expected = "0..1 or 0..255" if given is None else f"{given[0]:g}..{given[1]:g}"
        if not np.isfinite([low, high]).all():
            raise DataError(f"{place} holds values from {low:g} to {high:g}, expected finite numbers")
        raise DataError(
            f"{place} holds values from {low:.7g} to {high:.7g}, expected {expected}: say which are black and white "
            f"with value_range, for example --range {low:g},{high:g}"
        )
    black, white = (float(end) for end in fitting[0])
    if array.dtype.kind != "b" and (low, high) != (0, 0):
        clipped = ", clipped" if low < black or high > white else ""
        said = f"values from {black:g} (black) to {white:g} (white)"
        if findings.assumed.setdefault("range", said) != said:
            raise DataError(
                f"{place} holds {said}, and an array before it {findings.assumed['range']}: say with value_range what "
                f"holds for all, for example --range {black:g},{white:g}"
            )
        if clipped:
            findings.assumed.setdefault(
                "clipped", f"{place}: clipped, its values go from {low:.7g} to {high:.7g}"
            )
    return black, white


def _fits(low: float, high: float, ends: tuple[float | int, float | int], is_float: bool) -> bool:
    slack = TOLERANCE * (ends[1] - ends[0]) if is_float else 0
    return low >= ends[0] - slack and high <= ends[1] + slack


def find_frames(arrays: Mapping[str, Array], place: str) -> str:
    """Finds which array of several holds the frames: ``features``, ``frames``, or the only one that may.

    Raises:
        DataError: If none does, or several may.
    """
    for name in ("features", "frames"):
        if name in arrays:
            return name
    others = [name for name, array in arrays.items() if name not in ARRAYS and array.ndim >= 3]
    if not others:
        known = [name for name in arrays if name not in ARRAYS]
        if len(known) != 1:
            raise DataError(f"{place}: no frames in it, expected an array 'features' or 'frames'")
        return known[0]  # and what is wrong with it will be said
    if len(others) > 1:
        raise DataError(f"{place}: {', '.join(others)} may all be the frames: call the one that is 'frames'")
    return others[0]


def unknown_name(name: str, known: Iterable[str] = tuple(ARRAYS)) -> str:
    """Names something that nobody will read, and what may have been meant."""
    known = [each for each in known if each != "seeds"]  # few have them, and speed looks like it
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    meant = _OTHER_WORDS.get(name.lower(), near[0] if near else "")
    return f"{name} (is it {meant}?)" if meant in known else name


def read_beside(
    arrays: Mapping[str, Array], axes: str, shape: tuple[int, ...], place: str
) -> tuple[dict[str, Array], int | None, ActionSpace | None]:
    """Reads what stands beside frames: actions, rewards and all else that a dataset may hold.

    Args:
        arrays: The arrays by name; those that a dataset doesn't know are passed over.
        axes: The axes of the frames, which the others share as far as they have them.
        shape: Those axes' sizes.
        place: Where they are, for messages.

    Returns:
        The arrays, (n, t, ...) and in the dtypes of a dataset; the number of actions, if there are any; and what they
        are, if one is real numbers. Where the transition out of the last frame is missing it has zeros, and the
        ``terminations`` of the one before it.

    Raises:
        DataError: If one doesn't fit the frames or holds something else.
    """
    sizes = dict(zip(axes, shape, strict=True)) | {"1": 1, "2": 2}
    lead = "".join(axis for axis in axes if axis in "NT")
    result: dict[str, Array] = {}
    number_of_actions = action_space = None
    for name in ARRAYS:
        if name == "features" or name not in arrays:
            continue
        where, array = f"{place}: {name}", arrays[name]
        if array.dtype.kind not in "buif":
            raise DataError(f"{where} holds {array.dtype}, expected numbers")
        if name in ("positions", "velocities"):
            sizes["B"] = array.shape[-2] if array.ndim >= 2 else 0
            array = _arrange(array, where, [f"{lead}B2"], sizes, False)
        elif name == "groups":
            array = _arrange(array, where, [axes.replace("C", "1"), axes.replace("C", "")], sizes, False)
            array = _whole(array.reshape(*array.shape[:4], 1), where, 255)
        elif name == "collisions":
            array = _arrange(array, where, [axes, axes.replace("C", "")], sizes, True)
            array = _whole(array.reshape(*array.shape[:4], -1).max(axis=-1, keepdims=True), where, 1)
        elif name == "actions":
            array, number_of_actions, action_space = _read_actions(array, where, lead, sizes)
        else:
            array = _arrange(array, where, [lead], sizes, name in OF_TRANSITIONS)
            if name == "events":
                array = array[..., None, None, None]
            if name != "rewards":
                array = _whole(array, where, {"lives": 255, "seeds": NO_SEED}.get(name, 1))
        with np.errstate(over="ignore"):
            converted = array.astype(array_schema(name, action_space).dtype)
        if converted.dtype.kind == "f" and not np.isfinite(converted).all():
            wrong = array[~np.isfinite(converted)].flat[0]
            raise DataError(f"{where} holds {wrong}, expected finite numbers")
        result[name] = _completed(name, converted, sizes["T"])
    return result, number_of_actions, action_space


def _read_actions(
    array: Array, place: str, lead: str, sizes: dict[str, int]
) -> tuple[Array, int | None, ActionSpace | None]:
    """Reads numbers of actions or one-hot rows, (n, t), and how many there are; or real numbers, (n, t, d)."""
    one_hot = sizes | {"A": array.shape[-1] if array.ndim else 1}
    if _matching(array.shape, [lead], sizes, True) is None and _matching(
        array.shape, [f"{lead}A"], one_hot, True
    ):
        rows = _arrange(array, place, [f"{lead}A"], one_hot, True)
        is_one_hot = ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=-1) == 1).all()
        if not is_one_hot and rows.dtype.kind == "f":
            length = rows.shape[-1]
            unbounded: tuple[None, ...] = (None,) * length
            return rows, None, ActionSpace("box", (), (), unbounded, unbounded, (length,), "float32")
        if not is_one_hot:
            raise DataError(
                f"{place} has rows of {array.shape[-1]} whole numbers that aren't one-hot, expected numbers of "
                "actions, a single 1 among zeros in each row, or floats for actions that are real numbers"
            )
        return rows.argmax(axis=-1), array.shape[-1], None
    numbers = _whole(_arrange(array, place, [lead], sizes, True), place, _MOST_ACTIONS)
    return numbers, int(numbers.max()) + 1, None


def _matching(
    shape: tuple[int, ...], orders: Iterable[str], sizes: Mapping[str, int], may_lack_one: bool
) -> tuple[str, tuple[int, ...]] | None:
    """Finds the order of axes that a shape has, but for axes of size 1."""
    for order in orders:
        for length in (sizes["T"], sizes["T"] - 1) if may_lack_one else (sizes["T"],):
            expected = tuple(length if axis == "T" else sizes[axis] for axis in order)
            if _without_ones(shape) == _without_ones(expected):
                return order, expected
    return None


def _arrange(
    array: Array, place: str, orders: list[str], sizes: Mapping[str, int], may_lack_one: bool
) -> Array:
    """Brings an array that has one of the orders of axes into (n, t, ...), the rest as in `AXES`."""
    found = _matching(array.shape, orders, sizes, may_lack_one)
    if found is None:
        expected = tuple(sizes[axis] for axis in orders[0])
        fewer = f", or {sizes['T'] - 1} transitions," if may_lack_one else ""
        raise DataError(f"{place} has the shape {array.shape}, expected {expected}{fewer} like the frames")
    order, expected = found
    arranged = array.reshape(expected)
    if "N" not in order:
        arranged, order = arranged[None], f"N{order}"
    known = [axis for axis in AXES if axis in order]
    wanted = known + [axis for axis in order if axis not in known]
    return arranged.transpose([order.index(axis) for axis in wanted])


def arrange_frames(array: Array, axes: str) -> Array:
    """Brings frames into (n, t, h, w) or (n, t, h, w, c) without copying them."""
    if "N" not in axes:
        array, axes = array[None], f"N{axes}"
    return array.transpose([axes.index(axis) for axis in AXES if axis in axes])


def _completed(name: str, array: Array, length: int) -> Array:
    """Adds the transition out of the last frame if it is missing, as a recording has it."""
    if array.shape[1] == length:
        return array
    last = array[:, -1:] if name == "terminations" else np.zeros_like(array[:, -1:])
    return np.concatenate([array, last], axis=1)


def _whole(array: Array, place: str, upper: int) -> Array:
    """Checks that an array holds whole numbers."""
    if not ((array >= 0) & (array <= upper) & (array == np.rint(array))).all():
        raise DataError(f"{place} holds {array.dtype}, expected whole numbers from 0 to {upper}")
    return array


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]
