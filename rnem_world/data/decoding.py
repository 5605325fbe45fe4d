"""Turns the arrays of a file, ours or one of the original program, into the dtypes of the schema.

The original program stores frames as bool or as floats, groups and collisions as floats, and actions as
one-hot floats (T, N, A).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnem_world.data.schema import ARRAYS
from rnem_world.errors import DataError

Array = NDArray[Any]


def is_binary(array: Array) -> bool:
    """Tells whether an array holds only 0 and 1."""
    return array.dtype.kind == "b" or bool(((array == 0) | (array == 1)).all())


def stored_axes(name: str, rank: int) -> tuple[str, ...]:
    """Names the axes of a stored array; only actions may have a rank other than the schema's (one-hot)."""
    axes = ARRAYS[name].axes
    return (*axes, "actions") if name == "actions" and rank == len(axes) + 1 else axes


def decode(name: str, array: Array, maximum_value: int, place: str) -> Array:
    """Converts an array as it was stored, without losing anything silently.

    Args:
        name: Its name in the schema.
        array: Its values, time first.
        maximum_value: 1 or 255, what frames are to reach; floats in [0, 1] are scaled by 255 if it is 255.
        place: Where it stands, for error messages.

    Returns:
        The values in the schema's dtype; one-hot actions as their numbers.

    Raises:
        DataError: If the values can't be those of such an array.
    """
    if name == "actions" and array.ndim == 3:
        return _decode_one_hot(array, place)
    dtype = ARRAYS[name].dtype
    if name == "features":
        return _decode_features(array, maximum_value, place)
    if dtype.kind == "f":
        return array.astype(dtype, copy=False)
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        converted = array.astype(dtype)
    if not np.array_equal(converted, array):
        wrong = array[converted != array].flat[0]
        raise DataError(f"{place} holds {wrong}, expected {_expected(dtype)}")
    return converted


def _expected(dtype: np.dtype[Any]) -> str:
    return {"b": "0 or 1", "u": "whole numbers from 0 to 255"}.get(dtype.kind, "whole numbers")


def _decode_features(array: Array, maximum_value: int, place: str) -> Array:
    if maximum_value == 1:
        if array.dtype.kind == "b":
            return array.view(np.uint8)
        if array.dtype == np.uint8:
            fine = array.size == 0 or int(array.max()) <= 1
        else:
            fine = is_binary(array)
        if not fine:
            wrong = array[(array != 0) & (array != 1)].flat[0]
            raise DataError(
                f"{place} holds {wrong}, but the file's frames are binary (0 or 1); for grey or colour "
                "frames give the file an attribute maximum_value = 255"
            )
        return array.astype(np.uint8, copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{place} holds floats from {low:g} to {high:g}, expected values in [0, 1] (or uint8 in "
                "0..255); divide them by their maximum, or store them as uint8"
            )
        return np.rint(array * 255.0).astype(np.uint8)
    if array.dtype.kind not in "iu" or low < 0 or high > 255:
        raise DataError(f"{place} holds {array.dtype} from {low:g} to {high:g}, expected 0..255")
    return array.astype(np.uint8)


def _decode_one_hot(array: Array, place: str) -> Array:
    number = np.argmax(array, axis=-1)
    one = np.take_along_axis(array, number[..., None], axis=-1)[..., 0] == 1
    fine = one & ((array != 0).sum(axis=-1) == 1)
    if not fine.all():
        t, n = (int(index[0]) for index in np.nonzero(~fine))
        row = np.array2string(array[t, n], separator=", ", threshold=12)
        raise DataError(
            f"{place} isn't one-hot: in frame {t} the row is {row}, expected a single 1 among zeros"
        )
    actions: Array = number.astype(np.int64)
    return actions
