"""What an action is: Gymnasium's spaces as plain numbers that files and configurations can hold, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from rnem_world.config import build
from rnem_world.errors import ConfigError, suggest

if TYPE_CHECKING:
    from gymnasium.spaces import Space

ActionKind = Literal["discrete", "multi_discrete", "multi_binary", "box"]

_CLASSES = {
    "Discrete": "discrete",
    "MultiDiscrete": "multi_discrete",
    "MultiBinary": "multi_binary",
    "Box": "box",
}


@dataclass(frozen=True)
class ActionSpace:
    """A space of actions, and how its actions are stored: whole numbers from 0 on, or real numbers, flat.

    Attributes:
        kind: ``discrete``, one whole number; ``multi_discrete``, several; ``multi_binary``, several bits; ``box``,
            several real numbers.
        sizes: How many values each whole number has; 2 for each bit.
        starts: The least value of each whole number in the environment; empty if all are 0.
        low: The least value of each real number; None where it has none.
        high: The greatest.
        shape: Of an action in the environment; empty for one whole number.
        dtype: Of an action in the environment.

    Raises:
        ConfigError: If these contradict one another.
    """

    kind: ActionKind
    sizes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "int64"

    def __post_init__(self) -> None:
        if self.kind not in get_args(ActionKind):
            raise ConfigError(
                f"unknown kind of actions {self.kind!r}: {suggest(self.kind, get_args(ActionKind))}"
            )
        is_box = self.kind == "box"
        numbers = len(self.low) if is_box else len(self.sizes)
        if (
            numbers < 1
            or (is_box and (self.sizes or self.starts or len(self.high) != numbers))
            or (not is_box and (self.low or self.high or len(self.starts) not in (0, numbers)))
            or (self.kind == "discrete" and self.shape)
            or math.prod(self.shape) != numbers
        ):
            raise ConfigError(
                f"actions of the kind {self.kind} were given sizes {self.sizes}, starts {self.starts}, low {self.low}, "
                f"high {self.high} and the shape {self.shape}: a box has as many low as high and nothing else, other "
                "kinds have sizes and perhaps starts, one for each number of the shape"
            )
        if any(size < 1 for size in self.sizes) or (self.kind == "multi_binary" and set(self.sizes) != {2}):
            raise ConfigError(
                f"sizes of {self.kind} actions are {self.sizes}: at least 1 each, and 2 for bits"
            )
        for low, high in zip(self.low, self.high, strict=True):
            if low is not None and high is not None and not low < high:
                raise ConfigError(
                    f"a box of actions has the bounds {low} and {high}: expected the first to be less"
                )
        try:
            np.dtype(self.dtype)
        except TypeError as error:
            raise ConfigError(
                f"actions have the dtype {self.dtype!r}, expected one that NumPy knows"
            ) from error

    @classmethod
    def discrete(cls, number: int, start: int = 0) -> ActionSpace:
        """Describes one whole number of ``number`` values."""
        return cls("discrete", (number,), (start,) if start else ())

    @classmethod
    def of(cls, space: Space[Any]) -> ActionSpace:
        """Describes a space of Gymnasium.

        Raises:
            ConfigError: If it is of a kind that no model here knows.
        """
        from gymnasium import spaces

        shape = tuple(space.shape or ())
        if isinstance(space, spaces.Discrete):
            return cls(
                "discrete",
                (int(space.n),),
                (int(space.start),) if space.start else (),
                dtype=space.dtype.name,
            )
        if isinstance(space, spaces.MultiDiscrete):
            starts = tuple(int(start) for start in np.asarray(space.start).ravel())
            sizes = tuple(int(size) for size in np.asarray(space.nvec).ravel())
            return cls(
                "multi_discrete", sizes, starts if any(starts) else (), shape=shape, dtype=space.dtype.name
            )
        if isinstance(space, spaces.MultiBinary):
            return cls("multi_binary", (2,) * math.prod(shape), shape=shape, dtype=space.dtype.name)
        if isinstance(space, spaces.Box) and math.prod(shape) > 0:
            dtype = np.dtype(space.dtype)
            if dtype.kind != "f" and not np.isfinite([space.low, space.high]).all():
                raise ConfigError(
                    f"actions are {space}, whole numbers without bounds: expected bounds, or floats"
                )
            # What is infinite, or as good as that, has no bound.
            most = 1e30 if dtype.kind == "f" else math.inf

            def bounds(values: NDArray[Any]) -> tuple[float | None, ...]:
                return tuple(float(value) if abs(value) < most else None for value in values.ravel())

            return cls("box", low=bounds(space.low), high=bounds(space.high), shape=shape, dtype=dtype.name)
        raise ConfigError(
            f"the environment's actions are {space}, expected {', '.join(_CLASSES)}: turn others into one of these "
            "first, for example by gymnasium.wrappers.TransformAction or by flattening a Dict or Tuple into a Box"
        )

    def space(self) -> Space[Any]:
        """Makes Gymnasium's space again."""
        from gymnasium import spaces

        starts = np.array(self.starts or (0,) * len(self.sizes), dtype=np.int64)
        dtype: Any = np.dtype(self.dtype)
        if self.kind == "discrete":
            return spaces.Discrete(self.sizes[0], start=int(starts[0]), dtype=dtype.type)
        if self.kind == "multi_discrete":
            sizes = np.array(self.sizes, np.int64).reshape(self.shape)
            return spaces.MultiDiscrete(sizes, dtype=dtype.type, start=starts.reshape(self.shape))
        if self.kind == "multi_binary":
            return spaces.MultiBinary(self.shape if len(self.shape) > 1 else self.shape[0])
        low = np.array([-math.inf if value is None else value for value in self.low], dtype).reshape(
            self.shape
        )
        high = np.array([math.inf if value is None else value for value in self.high], dtype).reshape(
            self.shape
        )
        return spaces.Box(low, high, dtype=dtype.type)

    @property
    def is_discrete(self) -> bool:
        """Whether an action is one whole number."""
        return self.kind == "discrete"

    @property
    def length(self) -> int:
        """How many numbers a stored action has; 1 for one whole number, which is stored without an axis of its own."""
        return len(self.sizes) or len(self.low)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of one stored action: () or (d,)."""
        return () if self.is_discrete else (self.length,)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The dtype of stored actions: int64, or float32 for real numbers."""
        return np.dtype(np.float32 if self.kind == "box" else np.int64)

    @property
    def described(self) -> str:
        """What an action is, for people: ``3 actions``, ``2 real numbers``."""
        many = "" if self.length == 1 else "s"
        return {
            "discrete": f"{self.sizes[0] if self.sizes else 0} actions",
            "multi_discrete": f"{self.length} whole number{many} of {', '.join(map(str, self.sizes))} values",
            "multi_binary": f"{self.length} bit{many}",
            "box": f"{self.length} real number{many}",
        }[self.kind]

    def still(self, values: tuple[int, ...] | None, turn: int = 0) -> Shaped[np.ndarray, "..."]:
        """Gives an action, as it is stored, under which a frame can be watched for some steps though nothing moves.

        Where no value of a whole number leaves the picture as it is, each has its turn: slots that watch a still frame
        under one that pushes would believe that all the others move things twice as far.

        Args:
            values: Of each whole number the value that leaves the picture as it is, -1 where none does; None where
                nobody has looked, or for real numbers: 0 then stands for it.
            turn: Which of the steps.
        """
        if values is None:
            return np.zeros(self.stored_shape, self.stored_dtype)
        taken = [turn % size if value < 0 else value for value, size in zip(values, self.sizes, strict=True)]
        return np.array(taken, self.stored_dtype).reshape(self.stored_shape)

    def drawn(self, number: int, generator: np.random.Generator) -> Shaped[np.ndarray, "n ..."]:
        """Draws actions by chance, as they are stored: evenly, and normally where real numbers have no bounds.

        The standard deviation is 1; where a number has one bound, it is drawn from the half of one that begins there.

        Args:
            number: How many, n.
            generator: Where chance comes from.

        Returns:
            (n,) int64 for one whole number, (n, d) int64 for several and bits, (n, d) float64 for real numbers.
        """
        if self.is_discrete:
            return generator.integers(self.sizes[0], size=number)
        if self.kind != "box":
            return generator.integers(self.sizes, size=(number, self.length))
        even, normal = generator.random((number, self.length)), None
        columns = []
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low is not None and high is not None:
                columns.append(low + (high - low) * even[:, index])
                continue
            # Drawn for all numbers at once, so that none depends on which of the others have bounds.
            normal = generator.standard_normal(even.shape) if normal is None else normal
            column = normal[:, index]
            if low is not None:
                column = low + np.abs(column)
            elif high is not None:
                column = high - np.abs(column)
            columns.append(column)
        return np.stack(columns, axis=1)

    def encode(self, actions: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Turns an environment's actions into stored ones.

        Args:
            actions: (n, *shape).

        Returns:
            (n,) int64 for one whole number, (n, d) int64 for several and bits, (n, d) float32 for real numbers.
        """
        flat = np.asarray(actions).reshape(len(actions), *self.stored_shape)
        if self.kind == "box":
            return flat.astype(np.float32)
        whole = flat.astype(np.int64)
        if self.starts:
            whole = whole - np.array(self.starts if self.stored_shape else self.starts[0], np.int64)
        return whole

    def decode(self, stored: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Turns stored actions into such as the environment takes; real numbers are brought within its bounds.

        Args:
            stored: (n,) or (n, d), as `encode` gives them.
        """
        values = np.asarray(stored)
        if self.kind == "box":
            low = np.array([-math.inf if value is None else value for value in self.low])
            high = np.array([math.inf if value is None else value for value in self.high])
            values = np.clip(values, low, high)
            if np.dtype(self.dtype).kind != "f":
                values = np.rint(values)
        elif self.starts:
            values = values + np.array(self.starts if self.stored_shape else self.starts[0], np.int64)
        return values.astype(self.dtype).reshape(len(values), *self.shape)

    def to_json(self) -> dict[str, Any]:
        """Returns it as numbers, strings and lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != ()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ActionSpace:
        """Reads what :meth:`to_json` gave.

        Raises:
            ConfigError: If it is something else.
        """
        return build(cls, values, "action_space")
