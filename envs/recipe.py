"""The recipe of an environment's frames: which environment, and what is done to what it shows until a model sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, Literal

from rnem_world.config import build, check_at_least, check_between, check_one_of, check_types
from rnem_world.errors import ConfigError

Source = Literal["auto", "observation", "render"]
Layout = Literal["HWC", "CHW", "HW"]
Pixels = Literal["bits", "bytes", "units"]
Binarise = Literal["threshold", "background"]

_SLICE = re.compile(r"(\d*):(\d*),(\d*):(\d*)")
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


@dataclass(frozen=True)
class EnvironmentRecipe:
    """An environment of any kind, and how frames are made of what it shows.

    ``auto`` and None are decided by looking at the environment, see `rnem_world.envs.any.complete`; a recipe that is
    stored has nothing left to decide, so that the same frames come of it at any time.

    Attributes:
        id: A Gymnasium id, ``MODULE:ID`` where importing a module registers it, or ``MODULE:CLASS``; empty for what a
            program made by itself, which can't be made again.
        options: Its keyword arguments.
        wrappers: Wrappers of Gymnasium around it, the innermost first: each has an ``entry_point`` and ``kwargs``.
        obs_key: The entry of a dictionary of observations that is the picture; None where there is no dictionary.
        frames: Whether frames are the environment's ``observation``, or what it draws (``render``).
        layout: The axes of a picture.
        crop: Rows and columns that are kept, such as ``34:194,0:160``; each end may be left out. None keeps all.
        size: Height and width of a frame in pixels; areas of the picture are averaged.
        grayscale: Whether colours become greys.
        binarise: None; ``threshold``: a pixel is on where its grey is above ``threshold``; ``background``: on where it
            differs from the grey that it has most often.
        threshold: 0 to 254.
        background: The background, as text; found by a short run of random actions.
        frame_skip: Steps of the environment for which an action is held; their rewards are added.
        max_episode_steps: Steps of the environment after which an episode is cut off; None for its own limit.
        pixels: What the numbers of a picture are: ``bits``, ``bytes`` (0 to 255), or ``units`` (0 to 1).
        picture_shape: Shape of a picture, as the environment shows it.
        versions: Of the packages that it was made with.

    Raises:
        ConfigError: If a value makes no sense.
    """

    id: str = ""
    options: Any = field(default_factory=dict)
    wrappers: Any = ()
    obs_key: str | None = None
    frames: Source = "auto"
    layout: Layout | None = None
    crop: str | None = None
    size: tuple[int, ...] | None = None
    grayscale: bool = False
    binarise: Binarise | None = None
    threshold: int = 127
    background: str = ""
    frame_skip: int = 1
    max_episode_steps: int | None = None
    pixels: Pixels | None = None
    picture_shape: tuple[int, ...] = ()
    versions: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (
            ("frames", ("auto", "observation", "render")),
            ("layout", ("HWC", "CHW", "HW")),
            ("binarise", ("threshold", "background")),
            ("pixels", ("bits", "bytes", "units")),
        ):
            if getattr(self, name) is not None:
                check_one_of(self, name, known)
        if self.size is not None and not _is_size(self.size):
            raise ConfigError(
                f"size is {self.size!r}, expected a height and a width of at least 1 pixel, as in (24, 48)"
            )
        if self.crop is not None and not (isinstance(self.crop, str) and _SLICE.fullmatch(self.crop)):
            raise ConfigError(
                f"crop is {self.crop!r}, expected a text of the rows and columns that are kept, as in "
                "'34:194,0:160' or '34:194,:'"
            )
        check_types(self)
        for name in ("options", "versions"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected names and values")
        wrappers = self.wrappers if isinstance(self.wrappers, Sequence) else [self.wrappers]
        for wrapper in wrappers:
            if not (isinstance(wrapper, Mapping) and {"entry_point", "kwargs"} <= wrapper.keys()):
                raise ConfigError(
                    f"{wrapper!r} is among the wrappers, expected mappings as {{'entry_point': 'MODULE:CLASS', "
                    "'kwargs': {...}}"
                )
        check_at_least(self, 1, "frame_skip", "max_episode_steps")
        check_between(self, 0, 254, "threshold")
        if self.obs_key is not None and self.frames == "render":
            raise ConfigError(
                f"obs_key is {self.obs_key!r}, but frames are what the environment draws: leave one out"
            )

    @property
    def title(self) -> str:
        """A short name: of ``MODULE:ALE/Pong-v5`` it is ``Pong-v5``."""
        return re.split("[/:]", self.id)[-1] or "environment"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to decide."""
        decided = self.frames != "auto" and self.pixels and self.picture_shape and self.layout and self.size
        return bool(decided) and (self.binarise != "background" or bool(self.background))

    @property
    def is_binary(self) -> bool:
        """Whether frames hold only 0 and 255."""
        return self.pixels == "bits" or self.binarise is not None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a frame.

        Raises:
            ConfigError: If that is left to decide.
        """
        if self.size is None or self.layout is None:
            raise ConfigError(f"the recipe of {self.title} leaves the size of frames open: complete it first")
        channels = 1 if self.layout == "HW" else self.picture_shape[self.layout.index("C")]
        height, width = self.size
        return height, width, 1 if self.grayscale or self.binarise else channels

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON can hold it, without what is as usual."""
        usual = asdict(EnvironmentRecipe())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != usual[name]
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EnvironmentRecipe:
        """Reads what `to_json` returned.

        Raises:
            ConfigError: If it is something else.
        """
        return build(cls, values, "recipe")


def _is_size(given: Any) -> bool:
    return (
        isinstance(given, list | tuple)
        and len(given) == 2
        and all(isinstance(side, Integral) and int(side) >= 1 for side in given)
    )


def parse_size(text: str) -> tuple[int, int]:
    """Reads ``48`` (a square) or ``36x64`` (height and width).

    Raises:
        ConfigError: If it is neither.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or not all(int(side) for side in found.groups() if side):
        raise ConfigError(f"the size is {text!r}, expected pixels as in 48, or height and width as in 36x64")
    height, width = int(found[1]), int(found[2] or found[1])
    return height, width


def cropped_to(crop: str | None, height: int, width: int) -> tuple[slice, slice]:
    """Reads which rows and columns of a picture are kept.

    Raises:
        ConfigError: If that leaves nothing, or the picture has no such rows or columns.
    """
    found = _SLICE.fullmatch(crop or ":,:")
    if found is None:
        raise ConfigError(f"crop is {crop!r}, expected rows and columns as in 34:194,0:160")
    top, bottom, left, right = (
        int(text) if text else default
        for text, default in zip(found.groups(), (0, height, 0, width), strict=True)
    )
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ConfigError(
            f"crop is {crop}, and a picture has {height} rows and {width} columns: nothing would be left, or there are "
            "not as many"
        )
    return slice(top, bottom), slice(left, right)
