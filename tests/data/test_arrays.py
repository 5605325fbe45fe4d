from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rnem_world.data.arrays import (
    Findings,
    Reading,
    arrange_frames,
    find_axes,
    find_frames,
    find_range,
    lay_on,
    read_beside,
    to_bytes,
    unknown_name,
)
from rnem_world.errors import ConfigError, DataError


class TestAxes:
    @pytest.mark.parametrize(
        ("shape", "name", "axes"),
        [
            ((50, 64, 48), "frames", "THW"),
            ((50, 64, 48, 1), "frames", "THWC"),
            ((50, 64, 48, 3), "frames", "THWC"),
            ((50, 64, 48, 4), "frames", "THWC"),
            ((50, 1, 64, 48), "frames", "TNHW"),
            ((1, 50, 64, 48), "frames", "NTHW"),
            ((1, 50, 64, 48, 3), "frames", "NTHWC"),
            ((1, 50, 3, 64, 48), "frames", "NTCHW"),
            ((50, 1, 64, 48, 3), "frames", "TNHWC"),
            # As in a dataset, whichever of time and sequences is the longer.
            ((50, 8, 64, 48, 1), "features", "TNHWC"),
            ((8, 50, 64, 48, 3), "features", "TNHWC"),
            ((8, 50, 64, 48), "features", "TNHW"),
            ((8, 50, 3, 64, 48), "features", "TNCHW"),
        ],
    )
    def test_what_a_shape_can_only_mean(self, shape: tuple[int, ...], name: str, axes: str) -> None:
        assert find_axes(shape, name, "a", None) == axes

    @pytest.mark.parametrize(
        ("shape", "name", "readings"),
        [
            ((20, 100, 64, 64), "frames", "TNHW or NTHW"),  # Moving MNIST
            ((100, 20, 64, 64), "frames", "TNHW or NTHW"),
            ((20, 100, 64, 64, 1), "frames", "TNHWC or NTHWC"),
            ((20, 100, 3, 64, 64), "frames", "TNCHW or NTCHW"),
            ((50, 3, 64, 64), "frames", "TCHW, TNHW or NTHW"),
            ((50, 4, 64, 64), "frames", "TCHW, TNHW or NTHW"),
            ((3, 50, 64, 64), "frames", "CTHW, TNHW or NTHW"),
            ((1, 3, 64, 64), "frames", "TCHW or NTHW"),
            ((50, 3, 64, 64), "features", "TCHW or TNHW"),
            ((10, 3, 50, 64, 64), "frames", "NCTHW or TCNHW"),
            ((64, 64, 50), "frames", "THW or HWT"),
            ((64, 64, 3), "frames", "THW or HWT"),
            ((64, 64, 50, 3), "frames", "THWC or HWTC"),
        ],
    )
    def test_what_may_mean_several_things_is_refused(
        self, shape: tuple[int, ...], name: str, readings: str
    ) -> None:
        with pytest.raises(DataError, match=rf"can be read as {readings} .*say which with axes.*--axes \w+$"):
            find_axes(shape, name, "a", None)

    @pytest.mark.parametrize("axes", ["TNHW", "NTHWC", "tchw", "CTHW", "HWT", "HWCTN", "NCTHW"])
    def test_the_users_word(self, axes: str) -> None:
        sizes = {"T": 5, "N": 2, "H": 7, "W": 6, "C": 3}
        order = Reading(axes).axes
        assert order == axes.upper()
        shape = tuple(sizes[axis] for axis in order)
        values = np.random.default_rng(0).integers(0, 256, shape)
        assert find_axes(shape, "frames", "a", order) == order
        arranged = arrange_frames(values, order)
        assert arranged.shape == tuple(
            sizes[axis] if axis in order else 1 for axis in "NTHWC" if axis in f"N{order}"
        )
        index = {"N": 0 if "N" not in order else 1, "T": 4, "H": 3, "W": 5, "C": 2}
        expected = values[tuple(index[axis] for axis in order)]
        assert arranged[tuple(index[axis] for axis in "NTHWC" if axis in f"N{order}")] == expected

    @pytest.mark.parametrize("axes", ["", "TH", "TTHW", "THWX", "T,H,W"])
    def test_no_axes(self, axes: str) -> None:
        with pytest.raises(ConfigError, match="axes is"):
            Reading(axes)

    def test_axes_that_do_not_fit(self) -> None:
        with pytest.raises(DataError, match=r"the shape \(5, 6, 7\), and the axes TNHW are 4"):
            find_axes((5, 6, 7), "frames", "a", "TNHW")
        with pytest.raises(DataError, match="has 7 channels, expected 1, 3 or 4"):
            find_axes((5, 6, 6, 7), "frames", "a", "THWC")


class TestRange:
    @pytest.mark.parametrize(
        ("values", "ends"),
        [
            (np.array([False, True]), (0, 1)),
            (np.array([0, 1]), (0, 1)),
            (np.array([0, 2]), (0, 255)),
            (np.array([0, 255], np.uint8), (0, 255)),
            (np.array([0.0, 0.3]), (0, 1)),
            (np.array([0.0, 1.0]), (0, 1)),
            (np.array([-1e-7, 1 + 1e-7]), (0, 1)),
            (np.array([-0.04, 1.04], np.float32), (0, 1)),
            (np.array([0.0, 17.0]), (0, 255)),
            (np.array([-3.0, 260.0]), (0, 255)),
        ],
    )
    def test_one_rule_with_a_tolerance(self, values: np.ndarray, ends: tuple[float, float]) -> None:
        findings = Findings()
        assert find_range(values[:, None], "a", None, findings) == ends
        clipped = values.min() < ends[0] or values.max() > ends[1]
        assert ("clipped" in findings.assumed) == clipped
        if values.dtype != bool:
            assert findings.assumed["range"] == f"values from 0 (black) to {ends[1]} (white)"

    def test_a_hair_changes_nothing_of_the_others(self) -> None:
        frames = np.linspace(0, 1, 11)[:, None]
        expected = to_bytes(frames, find_range(frames, "a", None, Findings()))
        for hair in (1e-7, 1e-3, 0.05):
            frames[-1] = 1 + hair
            np.testing.assert_array_equal(
                to_bytes(frames, find_range(frames, "a", None, Findings())), expected
            )

    @pytest.mark.parametrize("values", [[0, 1.06], [0, 2.0], [-0.06, 1], [-1, 1], [0, 15.0], [0, 300.0]])
    def test_what_lies_between_is_refused(self, values: list[float]) -> None:
        with pytest.raises(
            DataError, match=r"expected 0\.\.1 or 0\.\.255: say which are black and white .*--range"
        ):
            find_range(np.array(values, np.float64)[:, None], "a", None, Findings())

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("given", [None, (0, 1)])
    def test_infinite_values(self, value: float, given: tuple[int, int] | None) -> None:
        with pytest.raises(DataError, match="expected finite numbers"):
            find_range(np.array([[0], [value]]), "a", given, Findings())

    def test_whole_numbers_have_no_tolerance(self) -> None:
        for values in ([0, 256], [-1, 255]):
            with pytest.raises(DataError, match=r"expected 0\.\.1 or 0\.\.255"):
                find_range(np.array(values)[:, None], "a", None, Findings())

    @pytest.mark.parametrize(
        ("values", "given"),
        [([-1.0, 0, 1], (-1, 1)), ([0, 2**15, 2**16 - 1], (0, 65535)), ([2, 4, 6], (2, 6))],
    )
    def test_the_users_word(self, values: list[float], given: tuple[float, float]) -> None:
        array = np.array(values)[:, None]
        ends = find_range(array, "a", given, Findings())
        assert to_bytes(array, ends).ravel().tolist() == [0, 128, 255]
        with pytest.raises(DataError, match=r"expected 0\.\.0\.5"):
            find_range(array, "a", (0, 0.5), Findings())

    @pytest.mark.parametrize("given", [(1, 0), (1, 1), (0, np.nan)])
    def test_no_range(self, given: tuple[float, ...]) -> None:
        with pytest.raises(ConfigError, match="value_range is"):
            Reading(value_range=given)  # type: ignore[arg-type]

    def test_all_arrays_of_a_source_have_one(self) -> None:
        findings = Findings()
        find_range(np.zeros((2, 1)), "black", None, findings)  # fits anything
        find_range(np.array([[0.0], [255]]), "a", None, findings)
        with pytest.raises(DataError, match=r"b holds values from 0 \(black\) to 1 .* before it .* to 255"):
            find_range(np.array([[0.0], [0.9]]), "b", None, findings)


class TestAlpha:
    @pytest.mark.parametrize("matte", ["black", "white"])
    def test_pixels_are_laid_on_the_ground(self, matte: str) -> None:
        findings = Findings()
        frame = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
        alpha = frame[..., 3:] / 255
        expected = frame[..., :3] * alpha + (255 if matte == "white" else 0) * (1 - alpha)
        laid = lay_on(frame, matte, findings)  # type: ignore[arg-type]
        assert laid.dtype == np.uint8
        np.testing.assert_allclose(laid, expected, atol=0.51)
        assert findings.is_transparent

    def test_opaque_frames_are_as_they_were(self) -> None:
        findings = Findings()
        frame = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
        frame[..., 3] = 255
        np.testing.assert_array_equal(lay_on(frame, "white", findings), frame[..., :3])
        assert not findings.is_transparent


class TestBeside:
    N, T, H, W = 2, 5, 4, 3

    def everything(self, order: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Arrays with axes in the order told, and as they are expected, (n, t, ...)."""
        generator = np.random.default_rng(0)
        lead = (self.N, self.T)
        expected = {
            "groups": generator.integers(0, 5, (*lead, self.H, self.W, 1)),
            "collisions": generator.integers(0, 2, (*lead, self.H, self.W, 1)),
            "events": generator.integers(0, 2, (*lead, 1, 1, 1)),
            "actions": generator.integers(0, 4, lead),
            "rewards": generator.normal(size=lead),
            "terminations": generator.random(lead) < 0.5,
            "truncations": generator.random(lead) < 0.5,
            "is_first": generator.random(lead) < 0.5,
            "seeds": generator.integers(0, 2**40, lead),
            "lives": generator.integers(0, 4, lead),
            "positions": generator.normal(size=(*lead, 3, 2)),
            "velocities": generator.normal(size=(*lead, 3, 2)),
        }
        expected["actions"][0, 0] = 3
        swap = order.index("T") < order.index("N")
        given = {name: array.swapaxes(0, 1) if swap else array for name, array in expected.items()}
        return given, expected

    @pytest.mark.parametrize("axes", ["NTHW", "TNHW", "TNHWC", "NTHWC"])
    def test_everything_that_a_dataset_holds(self, axes: str) -> None:
        sizes = {"N": self.N, "T": self.T, "H": self.H, "W": self.W, "C": 1}
        given, expected = self.everything(axes)
        read, actions, _ = read_beside(given, axes, tuple(sizes[axis] for axis in axes), "a")
        assert actions == 4
        assert read.keys() == expected.keys()
        for name, array in read.items():
            np.testing.assert_allclose(array, expected[name], err_msg=name, rtol=1e-6)

    @pytest.mark.parametrize("axes", ["THW", "NTHW", "TNHW"])
    def test_the_transition_out_of_the_last_frame_may_be_missing(self, axes: str) -> None:
        sizes = {"N": self.N, "T": self.T, "H": self.H, "W": self.W}
        lead = [axis for axis in axes if axis in "NT"]
        shape = tuple(sizes[axis] - (axis == "T") for axis in lead)
        generator = np.random.default_rng(0)
        given = {
            "actions": generator.integers(0, 4, shape),
            "rewards": generator.normal(size=shape),
            "terminations": np.ones(shape, np.bool_),
        }
        read, _, _ = read_beside(given, axes, tuple(sizes[axis] for axis in axes), "a")
        for name, array in given.items():
            whole = array[None] if len(lead) == 1 else array.swapaxes(0, 1) if lead == ["T", "N"] else array
            np.testing.assert_allclose(read[name][:, :-1], whole, rtol=1e-6)
            assert (read[name][:, -1] == (1 if name == "terminations" else 0)).all()  # as a recording ends

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.bool_])
    @pytest.mark.parametrize("missing", [0, 1])
    def test_one_hot_actions(self, dtype: type, missing: int) -> None:
        numbers = np.random.default_rng(0).integers(0, 3, (self.T - missing, self.N))
        rows = np.eye(6, dtype=dtype)[numbers]
        read, actions, _ = read_beside({"actions": rows}, "TNHW", (self.T, self.N, 4, 4), "a")
        assert actions == 6
        np.testing.assert_array_equal(read["actions"][:, : self.T - missing], numbers.T)

    @pytest.mark.parametrize("missing", [0, 1])
    def test_actions_that_are_real_numbers(self, missing: int) -> None:
        rows = np.random.default_rng(0).normal(size=(self.T - missing, self.N, 3))
        read, actions, space = read_beside({"actions": rows}, "TNHW", (self.T, self.N, 4, 4), "a")
        assert actions is None
        assert space is not None
        assert space.described == "3 real numbers"
        assert read["actions"].dtype == np.float32
        np.testing.assert_allclose(read["actions"][:, : self.T - missing], rows.swapaxes(0, 1), rtol=1e-6)
        assert not read["actions"][:, self.T - missing :].any()

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("actions", np.zeros((5, 2, 3), int), "rows of 3 whole numbers that aren't one-hot"),
            ("actions", np.full((5, 2, 3), 2), "rows of 3 whole numbers that aren't one-hot"),
            ("actions", np.full((5, 2, 3), np.nan), "holds nan, expected finite numbers"),
            ("actions", np.full((5, 2), 0.5), "expected whole numbers"),
            ("actions", np.zeros((3, 2)), r"\(3, 2\), expected \(5, 2\), or 4 transitions, like the frames"),
            ("actions", np.zeros((2, 5)), r"\(2, 5\), expected \(5, 2\)"),
            ("rewards", np.full((5, 2), np.nan), "holds nan, expected finite numbers"),
            ("rewards", np.full((5, 2), 1e300), "expected finite numbers"),
            ("rewards", np.full((5, 2), "x"), "expected numbers"),
            ("terminations", np.full((5, 2), 2), "whole numbers from 0 to 1"),
            ("lives", np.full((4, 2), 2), r"\(4, 2\), expected \(5, 2\) like"),
            ("positions", np.zeros((5, 2, 3)), "positions has the shape"),
        ],
    )
    def test_what_does_not_fit(self, name: str, array: np.ndarray, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_beside({name: array}, "TNHW", (5, 2, 4, 4), "a")


class TestNames:
    def test_which_array_holds_the_frames(self) -> None:
        film, flags = np.zeros((3, 4, 4)), np.zeros(3)
        assert find_frames({"features": film, "frames": film}, "a") == "features"
        assert find_frames({"rewards": flags, "frames": film}, "a") == "frames"
        assert find_frames({"rewards": flags, "video": film, "done": flags}, "a") == "video"
        with pytest.raises(DataError, match="video, more may all be the frames"):
            find_frames({"video": film, "more": film}, "a")
        with pytest.raises(DataError, match="no frames in it"):
            find_frames({"rewards": flags, "groups": film}, "a")

    def test_what_may_have_been_meant(self) -> None:
        assert unknown_name("reward") == "reward (is it rewards?)"
        assert unknown_name("dones") == "dones (is it terminations?)"
        assert unknown_name("truncated") == "truncated (is it truncations?)"
        assert unknown_name("xyz") == "xyz"
        assert unknown_name("val", ("training", "validation")) == "val (is it validation?)"


def test_reading_leaves_files_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4)))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert arrange_frames(mapped, "THW").base is not None
