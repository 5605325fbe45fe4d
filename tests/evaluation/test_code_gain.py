"""Spreading expected codes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rnem_world.agents.collecting import collect
from rnem_world.data.dataset import Dataset
from rnem_world.data.episodes import Windows
from rnem_world.evaluation.code_gain import EXPONENTS, CodeSpread, choose, fit_code_gain
from rnem_world.models.world_model import WorldModel
from rnem_world.seeding import torch_generator
from rnem_world.training.checkpoint import MODEL_FILE, load_model, save_checkpoint
from rnem_world.training.presets import fit_model_to, world_model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "avoid.h5"
    return collect("balls", path, preset="avoid", num_train=4, num_valid=6, num_test=2, frames=40)


def model_of(data: Path) -> tuple[WorldModel, object]:
    """A world whose slots draw something, and whose prior code is as good as learnt."""
    torch.manual_seed(0)
    with Dataset.open(data) as dataset:
        config = fit_model_to(dataset, world_model("avoid"), takes_all=True)
    model = WorldModel(config.model).eval()
    torch.nn.init.normal_(model.decoder.profiles.weight, 0.0, 0.3)
    torch.nn.init.normal_(model.prior_code.code_norm.bias, 0.0, 0.1)
    return model, config


def test_with_an_exponent_of_one_codes_are_spread_as_those_that_are_seen():
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(4000, 5, generator=generator) * torch.tensor([0.2, 0.5, 1.0, 1.5, 2.0]) + 3.0
    flat = 0.6 * seen + 0.2 * torch.randn(4000, 5, generator=generator)
    spread = CodeSpread(flat.mean(dim=0), seen.mean(dim=0), seen.std(dim=0) / flat.std(dim=0))
    gain, shift = spread.gain(1.0)
    torch.testing.assert_close((flat * gain + shift).std(dim=0), seen.std(dim=0))
    torch.testing.assert_close((flat * gain + shift).mean(dim=0), seen.mean(dim=0))
    gain, shift = spread.gain(0.0)
    assert gain.eq(1.0).all()
    assert shift.eq(0.0).all()


def test_no_gain_is_boundless():
    spread = CodeSpread(torch.zeros(3), torch.zeros(3), torch.tensor([1e-6, 1.0, 1e6]))
    torch.testing.assert_close(spread.gain(1.0)[0], torch.tensor([1 / 3, 1.0, 3.0]))


def test_what_moves_enough_is_left_alone_and_accuracy_counts_as_motion_does():
    assert choose({0.0: 1.0, 1.0: 0.9, 2.0: 1.1}, dict.fromkeys((0.0, 1.0, 2.0), 0.1)) == 0.0
    assert choose({0.0: 0.5, 1.0: 0.7, 2.0: 0.9}, dict.fromkeys((0.0, 1.0, 2.0), 0.1)) == 2.0
    assert choose({0.0: 0.5, 1.0: 0.7, 2.0: 0.75}, {0.0: 0.1, 1.0: 0.11, 2.0: 0.2}) == 1.0
    assert choose({0.0: 2.0, 1.0: 3.0}, dict.fromkeys((0.0, 1.0), 0.1)) == 0.0


def test_a_gain_is_chosen_and_put_into_the_model(data):
    model, _ = model_of(data)
    found = []
    with Dataset.open(data) as dataset:
        for _ in range(2):  # a gain that is there already changes nothing
            found.append(fit_code_gain(model, dataset, "validation", torch.Generator().manual_seed(3)))
    assert found[0] == found[1]
    assert set(found[0].motion) == set(found[0].errors) == set(EXPONENTS)
    assert found[0].exponent == choose(found[0].motion, found[0].errors)
    before, theta = torch.rand(2, 3, 4, model.core.state_size, generator=torch.Generator().manual_seed(1))
    prior = model.prior_code
    expected = prior.mean(before, theta) * prior.gain + prior.shift
    torch.testing.assert_close(model.expect(before, theta), expected)
    assert bool((prior.gain != 1.0).any()) == (found[0].exponent > 0)


def test_a_world_that_has_not_learned_to_imagine_is_left_alone(data):
    model, _ = model_of(data)
    torch.nn.init.zeros_(model.prior_code.code_norm.bias)
    with Dataset.open(data) as dataset:
        assert fit_code_gain(model, dataset, "validation", torch.Generator()) is None
    assert model.prior_code.gain.eq(1.0).all()
    assert model.prior_code.shift.eq(0.0).all()


def test_data_whose_episodes_are_too_short_chooses_nothing(data, monkeypatch):
    model, _ = model_of(data)
    none = Windows(np.zeros(0, np.int64), np.zeros(0, np.int64))
    monkeypatch.setattr("rnem_world.evaluation.truth.find_windows", lambda *_: none)
    with Dataset.open(data) as dataset:
        assert fit_code_gain(model, dataset, "validation", torch.Generator()) is None
    assert model.prior_code.gain.eq(1.0).all()


def test_a_gain_is_kept_with_the_weights_and_older_weights_have_none(data, tmp_path):
    model, config = model_of(data)
    model.prior_code.gain.fill_(1.5)
    save_checkpoint(tmp_path / "new", model, config)
    assert load_model(tmp_path / "new")[0].prior_code.gain.eq(1.5).all()
    weights = load_file(tmp_path / "new" / MODEL_FILE)
    del weights["prior_code.gain"], weights["prior_code.shift"]
    save_file(weights, tmp_path / "new" / MODEL_FILE)
    old, _ = load_model(tmp_path / "new")
    assert old.prior_code.gain.eq(1.0).all()
    assert old.prior_code.shift.eq(0.0).all()


def test_motion_is_that_of_frames(data):
    """A dream whose slots draw the same everywhere, all white together, doesn't move."""
    model, _ = model_of(data)
    torch.nn.init.zeros_(model.decoder.profiles.weight)
    with Dataset.open(data) as dataset:
        found = fit_code_gain(model, dataset, "validation", torch.Generator().manual_seed(3))
        frames = dataset.read("validation", range(6), ["features"])["features"]
    assert set(found.motion.values()) == {0.0}
    # It is wrong wherever the real frame is black.
    assert found.errors[0.0] == pytest.approx(1.0 - float(np.mean(frames[17:27])), rel=1e-4)


def test_export_spreads_codes_unless_it_is_told_not_to(data, tmp_path, rnem):
    model, config = model_of(data)
    with Dataset.open(data) as dataset:
        fit_code_gain(model, dataset, "validation", torch_generator(0, "code gain", device="cpu"))
    wanted = model.prior_code.gain.clone()
    model.prior_code.gain.fill_(1.0)
    model.prior_code.shift.fill_(0.0)
    save_checkpoint(tmp_path / "world", model, config)
    export = ("export", tmp_path / "world", "--starts", data, "--number-of-starts", 2, "--out")
    outcome = rnem(*export, tmp_path / "spread")
    assert outcome.code == 0, outcome.err
    assert "codes spread with the exponent" in outcome.out
    assert torch.equal(load_model(tmp_path / "spread")[0].prior_code.gain, wanted)
    outcome = rnem(*export, tmp_path / "plain", "--no-spread-codes")
    assert outcome.code == 0, outcome.err
    assert "codes spread" not in outcome.out
    assert load_model(tmp_path / "plain")[0].prior_code.gain.eq(1.0).all()
