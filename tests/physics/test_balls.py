from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnem_world.errors import ConfigError
from rnem_world.physics import (
    DIRECTIONS,
    PRESETS,
    BallsConfig,
    BallsState,
    number_of_actions,
    player_velocity,
    preset,
    sample_state,
    step,
)


def worlds_of(rules: BallsConfig, number: int, seed: int = 0) -> BallsState:
    return sample_state(rules, [np.random.default_rng([seed, world]) for world in range(number)])


def world(positions, velocities, radii, masses) -> BallsState:
    return BallsState(
        np.array([positions], dtype=float),
        np.array([velocities], dtype=float),
        np.array([radii], dtype=float),
        np.array([masses], dtype=float),
        np.ones((1, len(radii)), dtype=bool),
        np.zeros((1, 2), dtype=np.int64),
    )


def energy(state: BallsState) -> np.ndarray:
    return 0.5 * (state.masses * (state.velocities**2).sum(axis=2)).sum(axis=1)


def largest_overlap(state: BallsState) -> float:
    first, second = np.triu_indices(state.radii.shape[1], 1)
    distance = np.linalg.norm(state.positions[:, first] - state.positions[:, second], axis=2)
    overlap = state.radii[:, first] + state.radii[:, second] - distance
    return float(overlap[state.present[:, first] & state.present[:, second]].max(initial=-np.inf))


def furthest_outside(state: BallsState, box_size: float) -> float:
    radius = state.radii[..., None]
    outside = np.maximum(radius - state.positions, state.positions + radius - box_size)
    return float(outside[state.present].max())


@pytest.mark.parametrize(
    ("name", "frames"), [("balls4mass64", 200), ("balls678mass64", 1000), ("balls3small32", 200)]
)
def test_energy_is_kept_and_nothing_overlaps_or_leaves(name, frames):
    rules = preset(name)
    state = worlds_of(rules, 12)
    before = energy(state)
    for _ in range(frames):
        state, _ = step(state, rules)
        assert largest_overlap(state) < 1e-9
        assert furthest_outside(state, rules.box_size) < 1e-9
    np.testing.assert_allclose(energy(state), before, rtol=1e-9)


def test_eight_fast_balls_stay_inside_for_500_frames():
    rules = replace(preset("balls678mass64"), numbers_of_balls=(8,), initial_speed=3.0)
    state = worlds_of(rules, 6)
    before = energy(state)
    for _ in range(500):
        state, _ = step(state, rules)
        assert furthest_outside(state, rules.box_size) < 1e-9
        assert largest_overlap(state) < 1e-9
    np.testing.assert_allclose(energy(state), before, rtol=1e-9)


@pytest.mark.parametrize("big_speed", [0.0, 0.3])
def test_big_and_small_share_velocity_in_the_inverse_ratio_of_their_masses(big_speed):
    state = world([[3, 5], [6, 5]], [[big_speed, 0], [-0.8, 0]], [1.0, 0.8], [6.0, 1.0])
    rules = BallsConfig(numbers_of_balls=(2,))
    after = state
    for _ in range(4):
        after, touching = step(after, rules)
        if touching.any():
            break
    change = np.abs(after.velocities - state.velocities)[0, :, 0]
    assert change[1] / change[0] == pytest.approx(6.0, rel=1e-9)
    assert after.velocities[0, 1, 0] > after.velocities[0, 0, 0]


def test_a_head_on_collision_of_equals_swaps_velocities_at_the_exact_time():
    # A gap of 0.5 closes at 1 a frame: contact at 0.5 frames, then half a frame apart.
    state = world([[4, 5], [6.5, 5]], [[0.6, 0], [-0.4, 0]], [1.0, 1.0], [1.0, 1.0])
    after, touching = step(state, BallsConfig(numbers_of_balls=(2,)))
    np.testing.assert_allclose(after.velocities[0], [[-0.4, 0], [0.6, 0]], atol=1e-12)
    np.testing.assert_allclose(after.positions[0], [[4 + 0.3 - 0.2, 5], [6.5 - 0.2 + 0.3, 5]], atol=1e-12)
    assert touching.all()


def test_momentum_is_conserved_away_from_the_walls():
    rng = np.random.default_rng(3)
    rules = BallsConfig(numbers_of_balls=(2,), box_size=1000.0)
    angle, impact = rng.uniform(0, 2 * np.pi, 200), rng.uniform(-1.7, 1.7, 200)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    positions = 500.0 + np.stack([np.zeros((200, 2)), 3.0 * along + impact[:, None] * across], axis=1)
    velocities = np.stack(
        [rng.normal(size=(200, 2)) * 0.1 + 3.0 * along, rng.normal(size=(200, 2)) * 0.1], axis=1
    )
    masses = np.tile([1.0, 6.0], (200, 1))
    state = BallsState(
        positions,
        velocities,
        np.tile([0.8, 1.0], (200, 1)),
        masses,
        np.ones((200, 2), dtype=bool),
        np.zeros((200, 2), dtype=np.int64),
    )
    after, touching = step(state, rules)
    momentum = (masses[..., None] * state.velocities).sum(axis=1)
    assert touching.any(axis=1).sum() > 100
    np.testing.assert_allclose((masses[..., None] * after.velocities).sum(axis=1), momentum, atol=1e-12)
    np.testing.assert_allclose(energy(after), energy(state), rtol=1e-12)


def test_balls_that_move_apart_are_left_alone():
    state = world([[4, 5], [5.9, 5]], [[-0.1, 0], [0.1, 0]], [1.0, 1.0], [1.0, 1.0])  # overlapping by 0.1
    after, touching = step(state, BallsConfig(numbers_of_balls=(2,)))
    np.testing.assert_array_equal(after.velocities, state.velocities)
    assert not touching.any()


def test_a_wall_reflects_one_component():
    state = world([[1.0, 5.0]], [[-0.4, 0.2]], [0.8], [1.0])
    after, touching = step(state, BallsConfig(numbers_of_balls=(1,)))
    np.testing.assert_allclose(after.velocities[0, 0], [0.4, 0.2], atol=1e-12)
    np.testing.assert_allclose(after.positions[0, 0], [0.8 + 0.2, 5.2], atol=1e-12)
    assert not touching.any()


@pytest.mark.parametrize("name", ["balls678mass64", "control"])
def test_a_world_doesnt_depend_on_the_others(name):
    rules = preset(name)
    together = worlds_of(rules, 12)
    alone = together.take(np.array([7]))
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = rng.integers(number_of_actions(rules), size=12)
        together, _ = step(together, rules, player_velocity(rules, actions))
        alone, _ = step(alone, rules, player_velocity(rules, actions[7:8]))
    np.testing.assert_array_equal(alone.positions[0], together.positions[7])
    np.testing.assert_array_equal(alone.velocities[0], together.velocities[7])


def test_a_step_leaves_its_argument_as_it_is():
    rules = preset("control")
    state = worlds_of(rules, 5)
    copy = state.copy()
    step(state, rules, np.full((5, 2), 0.3))
    np.testing.assert_array_equal(state.positions, copy.positions)
    np.testing.assert_array_equal(state.velocities, copy.velocities)


@pytest.mark.parametrize("action", range(9))
def test_the_player_moves_as_the_action_says(action):
    rules = replace(preset("control"), numbers_of_balls=(1,))
    state = worlds_of(rules, 1)
    state.positions[:] = 5.0
    velocity = player_velocity(rules, np.array([action]))
    after, _ = step(state, rules, velocity)
    np.testing.assert_allclose(after.positions[0, 0] - 5.0, 0.6 * DIRECTIONS[action], atol=1e-12)
    assert np.hypot(*velocity[0]) == pytest.approx(0.6 if action else 0.0)


def test_actions_are_stay_and_then_clockwise_from_up():
    # (column, row) steps; rows grow downwards.
    signs = [(0, 0), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)]
    np.testing.assert_array_equal(np.sign(DIRECTIONS), signs)
    np.testing.assert_allclose(np.linalg.norm(DIRECTIONS[1:], axis=1), 1.0)


def test_the_player_stops_at_walls():
    rules = replace(preset("control"), numbers_of_balls=(1,))
    state = worlds_of(rules, 1)
    for _ in range(40):
        state, _ = step(state, rules, player_velocity(rules, np.array([2])))  # up and to the right
    np.testing.assert_allclose(state.positions[0, 0], [9.0, 1.0], atol=1e-12)


def test_others_bounce_off_the_player_and_dont_move_it():
    rules = replace(preset("stove"), numbers_of_balls=(2,))
    state = world([[5, 5], [7.2, 5]], [[0, 0], [-0.4, 0]], [1.0, 1.0], [10_000.0, 1.0])
    after, touching = step(state, rules, np.zeros((1, 2)))
    np.testing.assert_array_equal(after.positions[0, 0], [5, 5])
    np.testing.assert_array_equal(after.velocities[0, 0], [0, 0])
    assert after.velocities[0, 1, 0] == pytest.approx(0.4, rel=1e-12)
    assert touching.all()


@pytest.mark.parametrize("name", ["control", "stove"])
def test_no_policy_makes_balls_overlap_leave_or_gain_energy(name):
    rules = preset(name)
    state = worlds_of(rules, 60)
    before = energy(state)
    rng = np.random.default_rng(0)
    for frame in range(300):
        if frame % 12 == 0:  # long pushes drive balls against the walls
            actions = rng.integers(9, size=60)
        state, _ = step(state, rules, player_velocity(rules, actions))
        assert largest_overlap(state) < 1e-9
        assert furthest_outside(state, rules.box_size) < 1e-9
    state.velocities[:, 0] = 0.0
    np.testing.assert_allclose(energy(state), before, rtol=1e-9)


def test_a_ball_caught_between_player_and_wall_stays_whole():
    rules = replace(preset("stove"), numbers_of_balls=(2,))
    state = world([[5, 5], [8, 5]], [[0, 0], [0.3, 0]], [1.0, 1.0], [10_000.0, 1.0])
    for _ in range(30):
        state, _ = step(state, rules, player_velocity(rules, np.array([3])))
        assert largest_overlap(state) < 1e-9
        assert state.positions[0, 0, 0] <= 10.0 - 3.0 - 0.05 + 1e-9  # the ball keeps room for its bounces
    released = state
    for _ in range(30):
        released, _ = step(released, rules, player_velocity(rules, np.array([7])))
    assert released.positions[0, 0, 0] == pytest.approx(1.0)
    assert np.ptp([state.positions[0, 1, 0], released.positions[0, 1, 0]]) > 0.5


def test_starts_are_without_overlap_and_have_the_speed_and_the_kinds_of_the_preset():
    for name, rules in PRESETS.items():
        state = worlds_of(rules, 400)
        assert largest_overlap(state) <= 0, name
        assert furthest_outside(state, rules.box_size) <= 0, name
        speed = np.sqrt((state.velocities**2).sum(axis=(1, 2)))
        if rules.player:
            assert (state.velocities[:, 0] == 0).all()
            assert (state.masses[:, 0] == 10_000).all()
            assert (speed < rules.initial_speed).all()
        else:
            np.testing.assert_allclose(speed, rules.initial_speed)
        for number in rules.numbers_of_balls:
            share = (state.present.sum(axis=1) == number).mean()
            assert share == pytest.approx(1 / len(rules.numbers_of_balls), abs=0.1), name
        drawn = state.present.copy()
        drawn[:, 0] &= not rules.player
        for radius, mass in rules.kinds:
            share = ((state.radii == radius) & (state.masses == mass))[drawn].mean()
            assert share == pytest.approx(1 / len(rules.kinds), abs=0.06), name
        assert (state.radii[~state.present] == 0).all()
        assert (state.positions[~state.present] == 0).all()


def test_a_start_depends_on_its_own_generator_only():
    rules = preset("balls678mass64")
    many = sample_state(rules, [np.random.default_rng(seed) for seed in range(20)])
    one = sample_state(rules, [np.random.default_rng(13)])
    np.testing.assert_array_equal(one.positions[0], many.positions[13])
    np.testing.assert_array_equal(one.velocities[0], many.velocities[13])


@pytest.mark.parametrize(
    "change",
    [
        {"numbers_of_balls": ()},
        {"numbers_of_balls": (0,)},
        {"kinds": ((1.0, -1.0),)},
        {"kinds": ((float("nan"), 1.0),)},
        {"box_size": 0.0},
        {"initial_speed": -1.0},
        {"image_size": 4},
        {"sub_steps": 9},
        {"curtain_size": 65},
        {"start_region": 0.0},
        {"kinds": ((3.0, 1.0),)},
        {"player_speed": float("inf")},
    ],
)
def test_rules_that_make_no_sense_are_refused(change):
    with pytest.raises(
        ConfigError, match=next(iter(change)) if change != {"kinds": ((3.0, 1.0),)} else "cover"
    ):
        BallsConfig(**change)


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'balls4mass64'"):
        preset("ball4mass64")


def test_a_velocity_without_a_player_is_refused():
    rules = preset("balls3small32")
    with pytest.raises(ConfigError, match="player"):
        step(worlds_of(rules, 1), rules, np.zeros((1, 2)))
