from __future__ import annotations

import torch
from torch.nn import functional as F
from worlds import disc, videos, world_model

from rnem_world.models.config import ARCHITECTURES, ProjectionArchitecture
from rnem_world.models.rollout import observe
from rnem_world.models.vision import ProjectionDecoder, ProjectionEncoder
from rnem_world.models.world_model import SlotState

ARCHITECTURE = ARCHITECTURES["projection32"]
assert isinstance(ARCHITECTURE, ProjectionArchitecture)


def test_shapes() -> None:
    for channels in (1, 3):
        encoder = ProjectionEncoder(ARCHITECTURE, channels)
        assert encoder(torch.rand(5, channels, 32, 32)).shape == (5, ARCHITECTURE.encoding_size)
        decoder = ProjectionDecoder(ARCHITECTURE, 7, channels)
        assert decoder(torch.rand(5, 7)).shape == (5, channels, 32, 32)


def test_a_disc_s_encoding_changes_with_its_place_on_either_axis() -> None:
    torch.manual_seed(0)
    encoder = ProjectionEncoder(ARCHITECTURE, 1)
    places = [(10.0, 12.0), (11.0, 12.0), (10.0, 13.0), (20.0, 12.0)]
    codes = encoder(torch.stack([disc(x, y) for x, y in places])[:, None])
    moved = (codes[1:] - codes[0]).norm(dim=1)
    assert (moved > 0.01 * codes[0].norm()).all()
    assert moved[2] > moved[0]  # further away, more different


def test_the_encoder_sees_row_sums_column_sums_and_square_means() -> None:
    """Maps that agree in all three have the same encoding, others don't."""
    torch.manual_seed(0)
    encoder = ProjectionEncoder(ARCHITECTURE, 1)
    one, other = torch.zeros(2, 1, 1, 32, 32)
    one[0, 0, 0, 0] = one[0, 0, 1, 1] = 1.0
    other[0, 0, 0, 1] = other[0, 0, 1, 0] = 1.0
    torch.testing.assert_close(encoder(one), encoder(other))
    other[0, 0, 0, 1], other[0, 0, 0, 2] = 0.0, 1.0
    assert (encoder(one) - encoder(other)).abs().max() > 1e-4


def test_logits_are_the_sum_of_profiles_and_their_products() -> None:
    torch.manual_seed(0)
    decoder = ProjectionDecoder(ARCHITECTURE, 6, 1).double()
    vector = torch.randn(1, 6, dtype=torch.float64)
    hidden = F.relu(decoder.first_norm(decoder.first(vector)))
    hidden = F.relu(decoder.second_norm(decoder.second(hidden)))
    profiles = decoder.profiles(hidden).view(2, 1 + ARCHITECTURE.rank, 32)
    logits = decoder(vector)[0, 0]
    for row, column in [(0, 0), (3, 17), (31, 5)]:
        expected = profiles[0, 0, row] + profiles[1, 0, column]
        for product in range(1, 1 + ARCHITECTURE.rank):
            expected = expected + profiles[0, product, row] * profiles[1, product, column]
        torch.testing.assert_close(logits[row, column], expected)


def test_channels_have_profiles_of_their_own() -> None:
    torch.manual_seed(0)
    decoder = ProjectionDecoder(ARCHITECTURE, 6, 3)
    vector = torch.randn(2, 6)
    before = decoder(vector)
    with torch.no_grad():
        decoder.profiles.bias[: 2 * 32 * (1 + ARCHITECTURE.rank)] += 1.0  # those of the first
    changed = (decoder(vector) - before).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [True, False, False]


@torch.no_grad()
def test_permuting_slots_permutes_everything_the_shares_of_the_reward_too() -> None:
    model = world_model().double()
    frames, actions = videos(2, 6)
    frames = frames.double()
    state, order = model.initial_state(2), [2, 0, 3, 1]
    other = SlotState(state.theta[:, order], state.prediction[:, order], state.gamma[:, order], state.frame)
    steps = observe(model, state, frames, frames[:, 1:], actions)
    others = observe(model, other, frames, frames[:, 1:], actions)
    for (one, after), (two, after_two) in zip(steps, others, strict=True):
        assert one.heads is not None
        assert two.heads is not None
        torch.testing.assert_close(two.heads.rewards, one.heads.rewards[:, order])
        torch.testing.assert_close(two.heads.termination, one.heads.termination)
        torch.testing.assert_close(two.logits, one.logits[:, order])
        torch.testing.assert_close(after_two.theta, after.theta[:, order])
        torch.testing.assert_close(after_two.gamma, after.gamma[:, order])
    assert after.theta.std(dim=1).max() > 1e-3  # the slots do differ
