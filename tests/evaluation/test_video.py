from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from rnem_world.errors import ConfigError, OutputError
from rnem_world.evaluation.video import compose_panels, write_video

CONTEXT, IMAGINED = [150, 150, 150], [255, 150, 40]


def frames_of(steps: int = 7, height: int = 64, width: int = 96) -> np.ndarray:
    """A white square walks over black, so that all frames differ and no codec has trouble."""
    frames = np.zeros((steps, height, width, 3), np.uint8)
    for step in range(steps):
        frames[step, 8:24, 4 * step : 4 * step + 16] = 255
    return frames


def noise(steps: int = 3, size: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (steps, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("size", [(64, 64), (84, 84), (33, 47)])
def test_composed_sides_are_multiples_of_sixteen(number: int, size: tuple[int, int]) -> None:
    panels = {f"caption {index}": np.zeros((2, *size, 3), np.uint8) for index in range(number)}
    found = compose_panels(panels, [False, True])
    assert found.shape[0] == 2
    assert found.shape[1] % 16 == found.shape[2] % 16 == 0
    assert found.shape[1] >= size[0]


def test_panels_are_enlarged_pixel_by_pixel_and_stand_side_by_side() -> None:
    left, right = noise(size=80), noise(size=80)[::-1]
    found = compose_panels({"a": left, "b": right}, [False] * 3)
    enlarged = [np.kron(panel, np.ones((1, 3, 3, 1), np.uint8)) for panel in (left, right)]
    gap = np.broadcast_to(found[:, :1, :1], (3, 240, 16, 3))
    both = np.concatenate([enlarged[0], gap, enlarged[1]], axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(found, both.shape)
    assert (windows == both).all(axis=(-1, -2, -3, -4)).sum() == 1


def test_small_frames_become_pleasantly_large() -> None:
    assert compose_panels({"a": np.zeros((1, 64, 64, 3), np.uint8)}, [False]).shape[1] > 256


def test_bar_tells_context_from_imagination() -> None:
    found = compose_panels({"a": noise()}, [False, True, True])
    has = [[(frame == colour).all(-1).sum() > 500 for colour in (CONTEXT, IMAGINED)] for frame in found]
    assert has == [[True, False], [False, True], [False, True]]


def test_texts_and_labels_are_drawn() -> None:
    panel, seen = np.zeros((3, 64, 64, 3), np.uint8), [False] * 3
    found = compose_panels({"label": panel}, seen, ["up", "down", "up"])
    assert not (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert not (compose_panels({"other": panel}, seen)[0, :30] == found[0, :30]).all()


def test_a_long_label_stays_inside_its_panel() -> None:
    panel = np.zeros((1, 64, 64, 3), np.uint8)
    found = compose_panels({"a very long caption of a panel " * 3: panel, "": panel}, [False])
    background = found[0, 0, 0]
    right_half = found[0, :30, found.shape[2] // 2 :]
    assert (right_half == background).all()
    assert not (found[0, :30] == background).all()


def test_mismatched_panels_are_refused() -> None:
    panel = np.zeros((2, 8, 8, 3), np.uint8)
    for panels in ({}, {"a": panel, "b": panel[:1]}):
        with pytest.raises(ConfigError, match="give at least one, and cut or resize"):
            compose_panels(panels, [False] * 2)
    with pytest.raises(ConfigError, match="3 values of texts for 2 frames"):
        compose_panels({"a": panel}, [False] * 2, ["x"] * 3)


def test_mp4_keeps_size_count_rate_and_picture(tmp_path: Path) -> None:
    frames = frames_of()
    write_video(tmp_path / "a.mp4", frames, fps=20)
    read = imageio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 3
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    metadata = next(reader)
    reader.close()
    assert metadata["fps"] == 20
    assert metadata["pix_fmt"].startswith("yuv420p")


def test_mp4_pads_odd_sizes_instead_of_rescaling_them(tmp_path: Path) -> None:
    frames = frames_of(height=51, width=83)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    read = imageio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert read.shape == (7, 64, 96, 3)
    assert np.abs(read[:, 6 : 6 + 51, 6 : 6 + 83].astype(int) - frames).mean() < 3


def test_gif_keeps_size_count_and_rate(tmp_path: Path) -> None:
    frames = frames_of(height=50, width=70)
    write_video(tmp_path / "a.gif", frames, fps=10)
    assert (imageio.imread(tmp_path / "a.gif", plugin="pillow", mode="RGB") == frames).all()
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0


def test_webp_is_lossless(tmp_path: Path) -> None:
    frames = noise(steps=5, size=48)
    write_video(tmp_path / "a.webp", frames, fps=20)
    assert (imageio.imread(tmp_path / "a.webp", plugin="pillow", index=...) == frames).all()


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_a_single_frame_can_be_written(suffix: str, tmp_path: Path) -> None:
    write_video(tmp_path / f"a{suffix.upper()}", frames_of(steps=1), fps=30)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix.upper()}"]
    assert np.abs(imageio.imread(tmp_path / f"a{suffix.upper()}").squeeze()[..., :3].mean() - 10.6) < 2


def test_a_sheet_runs_row_by_row(tmp_path: Path) -> None:
    frames = noise(steps=5, size=4)
    write_video(tmp_path / "a.png", frames, fps=1)
    sheet = imageio.imread(tmp_path / "a.png")
    assert sheet.shape == (8, 12, 3)
    assert (sheet[:4, 8:] == frames[2]).all()
    assert (sheet[4:, 4:8] == frames[4]).all()


def test_sheet_shows_first_and_last_frame(tmp_path: Path) -> None:
    frames = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    write_video(tmp_path / "a.png", frames, fps=1)
    shown = set(np.unique(imageio.imread(tmp_path / "a.png")))
    assert {0, 99} <= shown
    assert len(shown) == 12


@pytest.mark.parametrize("name", ["a.avi", "a"])
def test_unknown_suffix_names_the_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.mp4, \.gif or \.webp"):
        write_video(tmp_path / name, frames_of(), fps=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(fps: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        write_video(tmp_path / "a.mp4", frames_of(), fps=fps)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one frame"):
        write_video(tmp_path / "a.gif", frames_of(steps=0), fps=10)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_a_folder_in_the_way_stays_and_no_temporary_is_left(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").mkdir()
    with pytest.raises(OutputError, match="can't write") as caught:
        write_video(tmp_path / f"a{suffix}", frames_of(), fps=10)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_a_full_disk_keeps_the_old_file(
    suffix: str, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"precious")
    # Within the limit nothing else may be written: the tests' own output may be a file too.
    with (
        pytest.raises(OutputError, match=r"File too large|disk is full") as caught,
        file_size_limit(2000),
    ):
        write_video(path, noise(steps=20, size=64), fps=10)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
