from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from rnem_world.agents.proposals import Categorical, coloured_noise, uninformed


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0, 4.0])
def test_noise_is_standard_normal_whatever_its_colour(steps, exponent):
    noise = coloured_noise((20_000, 2, steps), exponent, generator())
    assert noise.mean(dim=0).abs().max() < 0.04
    assert (noise.var(dim=0) - 1).abs().max() < 0.06


def test_neighbours_resemble_one_another_the_more_the_larger_the_exponent():
    likeness = []
    for exponent in (0.0, 1.0, 2.0, 4.0):
        noise = coloured_noise((5000, 20), exponent, generator())
        likeness.append(float((noise[:, 1:] * noise[:, :-1]).mean()))
    assert abs(likeness[0]) < 0.02
    assert likeness == sorted(likeness)
    assert likeness[-1] > 0.8


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_coloured_sequences_have_the_right_frequencies_of_actions(exponent):
    probabilities = torch.tensor([[[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]])
    noise = coloured_noise((1, 40_000, 3, 4), exponent, generator())
    sequences = Categorical(probabilities).sample(noise)
    frequencies = torch.nn.functional.one_hot(sequences, 3).double().mean(dim=1)
    torch.testing.assert_close(frequencies.float(), probabilities, atol=0.012, rtol=0)


def test_refitting_goes_where_the_weights_are():
    sequences = torch.tensor([[[0, 1], [2, 1], [2, 2]]])
    weights = torch.tensor([[0.2, 0.3, 0.5]])
    old = uninformed(spaces.Discrete(3), 1, 2, torch.device("cpu"))
    fitted = old.refit(sequences, weights, 0.0)
    torch.testing.assert_close(fitted.probabilities, torch.tensor([[[0.2, 0.0, 0.8], [0.0, 0.5, 0.5]]]))
    assert fitted.mode()[0, 0] == 2
    half = old.refit(sequences, weights, 0.5).probabilities
    torch.testing.assert_close(half, 0.5 * fitted.probabilities + 1 / 6)
    torch.testing.assert_close(half.sum(dim=2), torch.ones(1, 2))


def test_gaussian_refits_shifts_and_forgets():
    old = uninformed(spaces.Box(0.0, 4.0, (1,)), 2, 2, torch.device("cpu"))
    sequences = torch.tensor([[1.0, 3.0], [3.0, 3.0]])[None, :, :, None].repeat(2, 1, 1, 1)
    fitted = old.refit(sequences, torch.full((2, 2), 0.5), 0.0)
    assert fitted.mean[0, :, 0].tolist() == [2.0, 3.0]
    assert fitted.deviation[0, :, 0].tolist() == [1.0, 0.0]
    shifted = fitted.shifted(1)
    assert shifted.mean[0, :, 0].tolist() == [3.0, 2.0]
    assert shifted.deviation[0, :, 0].tolist() == [2.0, 2.0]
    forgotten = shifted.restarted(torch.tensor([True, False]))
    assert forgotten.mean[:, 0, 0].tolist() == [2.0, 3.0]
    samples = fitted.sample(10 * torch.randn(2, 50, 1, 2, generator=generator()))
    assert samples.min() >= 0.0
    assert samples.max() <= 4.0


def test_discrete_shifts_and_forgets():
    proposal = Categorical(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(2, 1, 1))
    shifted = proposal.shifted(1)
    torch.testing.assert_close(shifted.probabilities[0], torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    forgotten = proposal.restarted(torch.tensor([True, False])).probabilities
    assert forgotten[0].unique().tolist() == [0.5]
    assert torch.equal(forgotten[1], proposal.probabilities[1])
