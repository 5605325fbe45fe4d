from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import read_batch
from rnem_world.errors import ConfigError, OutputError
from rnem_world.evaluation import pictures
from rnem_world.evaluation.pictures import (
    attention_matrix,
    brightness,
    colour_gamma,
    colour_grouping,
    coloured,
    curves_figure,
    figure_to_array,
    overview,
    rollout_panels,
    save_figure,
    slot_colours,
)
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import ModelConfig
from rnem_world.models.rollout import Rollout, RolloutConfig, roll_out
from rnem_world.models.world_model import WorldModel


def test_a_pixel_of_one_layer_is_as_bright_as_a_white_one():
    """Among four layers of bits an object in one of them isn't shown at a quarter of its slot's colour."""
    np.testing.assert_allclose(brightness(np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])), [1.0, 0.0])
    np.testing.assert_allclose(brightness(np.array([[0.25], [1.0]])), [0.25, 1.0])
    np.testing.assert_allclose(brightness(np.array([[0.0, 0.6, 0.3]])), [0.3])


def test_attention_is_set_beside_the_diagonal_in_order():
    attention = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    expected = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.0, 0.4], [0.5, 0.6, 0.0]])
    assert torch.equal(attention_matrix(attention), expected)
    batched = attention_matrix(torch.stack([attention, 2 * attention])[None])
    assert torch.equal(batched, torch.stack([expected, 2 * expected])[None])


@pytest.fixture(scope="module")
def frames(discs_file) -> torch.Tensor:
    with Dataset.open(discs_file) as dataset:
        return Bernoulli.from_uint8(read_batch(dataset, "test", [0, 1], 6).frames, 1)


@pytest.fixture(scope="module", params=["relational", "rnn"])
def rollout(request, frames) -> Rollout:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(ModelConfig(core=request.param, architecture="conv32", slots=3, hidden_size=8))
    return roll_out(model, frames, RolloutConfig(3, 2), generator=torch.Generator().manual_seed(0))


def test_panels(rollout, frames):
    panels = rollout_panels(rollout, frames, 1)
    assert list(panels) == ["truth", "prediction", "grouping"]
    assert {panel.shape for panel in panels.values()} == {(5, 32, 32, 3)}
    assert {panel.dtype for panel in panels.values()} == {np.dtype(np.uint8)}
    truth = frames[1, 1:, 0].numpy() * 255
    assert (panels["truth"] == truth[..., None]).all()
    mixture = (rollout.predictions[1] * rollout.gammas[1]).sum(dim=1)[:, 0].numpy()
    assert (np.abs(panels["prediction"].astype(float) - 255 * mixture[..., None]) <= 0.51).all()
    # A pixel's colour is the slots' colours, mixed by responsibility, as bright as the prediction.
    colours = np.einsum("tkhw,kc->thwc", rollout.gammas[1, :, :, 0].numpy(), slot_colours(3))
    assert (np.abs(panels["grouping"] - 255 * colours * mixture[..., None]) <= 1.0).all()


def test_a_panel_for_each_slot(rollout, frames):
    panels = rollout_panels(rollout, frames, 0, with_slots=True)
    assert list(panels)[3:] == ["slot 1", "slot 2", "slot 3"]
    for slot, colour in enumerate(slot_colours(3)):
        means = rollout.predictions[0, :, slot, 0].numpy()
        assert (np.abs(panels[f"slot {slot + 1}"] - 255 * means[..., None] * colour) <= 0.51).all()


def test_the_overview_is_drawn_with_and_without_attention(rollout, frames):
    drawn = figure_to_array(overview(rollout, frames, 0, "title"))
    assert drawn.std() > 0
    assert (drawn != figure_to_array(overview(rollout, frames, 1, "title"))).any()


def sequence(
    steps: int = 6, slots: int = 3, size: int = 16, channels: int = 1
) -> tuple[Rollout, torch.Tensor]:
    """A rollout of one sequence, and its frames."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(1, *shape, generator=generator)

    gammas = rand(steps, slots, 1, size, size)
    gammas = gammas / gammas.sum(dim=2, keepdim=True)
    predictions = rand(steps, slots, channels, size, size)
    inputs = rand(steps, channels, size, size).round()
    attentions = rand(steps, slots, slots - 1)
    likelihood = Bernoulli(channels)
    rollout = Rollout(likelihood, steps, inputs, predictions, predictions, gammas, gammas, attentions)
    return rollout, rand(steps + 1, channels, size, size).round()


@pytest.mark.parametrize("slots", [1, 2, 5, 8, 12])
def test_slot_colours_are_bright_and_distinct(slots: int) -> None:
    colours = slot_colours(slots)
    assert colours.shape == (slots, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert colours.max(axis=1).min() > 0.8
    distances = [np.abs(a - b).max() for a, b in itertools.combinations(colours, 2)]
    assert min(distances, default=1) > 0.3


def test_a_pixel_of_one_slot_has_its_colour_and_a_shared_one_the_mixture() -> None:
    gamma = np.zeros((2, 4, 2, 3))
    gamma[:, 1] = 1
    gamma[0, :, 0, 0] = [0.5, 0, 0.5, 0]
    colours = slot_colours(4)
    found = colour_gamma(gamma)
    assert found.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(found[1], np.broadcast_to(colours[1], (2, 3, 3)))
    np.testing.assert_allclose(found[0, 0, 0], (colours[0] + colours[2]) / 2)


def test_grouping_is_black_where_the_prediction_is() -> None:
    gamma = np.full((3, 2, 2), 1 / 3)
    prediction = np.array([[0.0, 0.5], [1.0, 0.0]])
    found = colour_grouping(gamma, prediction)
    np.testing.assert_allclose(found, colour_gamma(gamma) * prediction[..., None])
    assert found[0, 0].max() == 0


def shape_of(rollout: Rollout, frames: torch.Tensor) -> tuple[int, ...]:
    return figure_to_array(overview(rollout, frames, 0, "title")).shape


@pytest.mark.parametrize("channels", [1, 3])
def test_overview_grows_with_its_rows_and_columns(channels: int) -> None:
    full, shorter = shape_of(*sequence(channels=channels)), shape_of(*sequence(steps=4, channels=channels))
    cell = (full[1] - shorter[1]) // 2
    assert cell >= 64
    rollout, frames = sequence(channels=channels)
    assert full[0] - shape_of(replace(rollout, attentions=None), frames)[0] == 3 * cell
    most = pictures.MOST_COLUMNS
    assert shape_of(*sequence(steps=3 * most)) == shape_of(*sequence(steps=most))


def test_overview_contains_the_target_pixel_for_pixel() -> None:
    rollout, frames = sequence(size=64)
    picture = figure_to_array(overview(rollout, frames, 0))
    target = (frames[0, 3, 0].numpy() * 255).astype(np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(picture[:140, :, 0], (64, 64))
    assert (windows[:, ::1] == target).all(axis=(2, 3)).any()


def test_attention_row_shows_the_context_slot_that_is_attended_to() -> None:
    rollout, frames = sequence(steps=1, slots=2, size=64)
    rollout.predictions[:] = 0
    rollout.predictions[0, 0, 1, 0, 20:40, 20:40] = 1
    rows = {}
    for strength in (0.0, 1.0):
        attending = replace(rollout, attentions=torch.full((1, 1, 2, 1), strength))
        rows[strength] = figure_to_array(overview(attending, frames, 0)).astype(int)
    changed = np.abs(rows[1.0] - rows[0.0]).max(axis=-1) > 0
    # Focus 1 sees slot 2 appear; focus 2 sees nothing of the empty slot 1, and itself doesn't count.
    assert changed.sum() == 400
    colour = rows[1.0][changed]
    np.testing.assert_allclose(colour, np.broadcast_to(slot_colours(2)[1] * 255, colour.shape), atol=1)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_are_saved_alone(suffix: str, tmp_path: Path) -> None:
    figure = curves_figure({"a": [1.0, 2.0, float("nan")], "b": [3.0]}, "title", "step", "nats")
    save_figure(figure, tmp_path / "new" / f"curves{suffix}")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"curves{suffix}"]
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert (tmp_path / "new" / f"curves{suffix}").read_bytes().startswith(start)


def test_curves_are_drawn_over_counting_numbers() -> None:
    figure = curves_figure({"a": [1.0, 2.0], "b": [3.0]}, "title", "step", "nats")
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2], [1]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_unknown_suffix_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    figure = curves_figure({}, "title", "x", "y")
    with pytest.raises(ConfigError, match=r"did you mean '\.png'"):
        save_figure(figure, tmp_path / "a.pngg")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="is a file; give another folder"):
        save_figure(figure, tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="folder"):
        save_figure(figure, tmp_path / "folder.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_importing_plots_imports_no_matplotlib_and_drawing_no_pyplot() -> None:
    code = (
        "import sys; from rnem_world.evaluation import pictures; assert 'matplotlib' not in sys.modules;"
        "pictures.figure_to_array(pictures.curves_figure({'a': [1.0]}, '', '', ''));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_get_colours_and_the_last_is_on_top():
    frames = np.zeros((2, 3, 4))
    frames[0, 0, 0] = frames[0, 1, 3] = 1.0
    frames[1, 0, [0, 3]] = 1.0
    frames[1, 1, 0] = 0.5
    shown = coloured(frames)
    colours = slot_colours(4)
    assert np.allclose(shown[0, 0], colours[0])
    assert np.allclose(shown[0, 1], colours[3])
    assert np.allclose(shown[1, 0], colours[3])
    assert np.allclose(shown[1, 1], colours[0] / 2)
    assert not shown[0, 2].any()
    assert np.array_equal(coloured(frames[..., :3]), frames[..., :3])
    assert np.array_equal(coloured(frames[..., :1]), frames[..., [0, 0, 0]])
