from __future__ import annotations

import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import rnem_world  # noqa: F401  # registers the environments
from rnem_world.envs import atari_frames
from rnem_world.envs.atari import AtariEnv, AtariVectorEnv
from rnem_world.envs.atari_console import game_named, games, require_ale
from rnem_world.envs.atari_frames import background_of, from_text, to_text
from rnem_world.errors import ConfigError, DataError, DependencyError
from tests.envs.atari_cache import black, short_run

pytest.importorskip("ale_py")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    short_run(monkeypatch, tmp_path)
    yield tmp_path
    atari_frames._background_of.cache_clear()


def play(env, steps: int, seed: int = 0) -> list[tuple]:
    generator = np.random.default_rng(seed)
    number = int(getattr(env, "single_action_space", env.action_space).n)
    size = getattr(env, "num_envs", None)
    return [env.step(generator.integers(number, size=size))[:4] for _ in range(steps)]


def same(one: list[tuple], other: list[tuple]) -> bool:
    return all(
        np.array_equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("colour", ["grayscale", "rgb"])
def test_frames_are_those_of_gymnasiums_preprocessing(colour):
    gymnasium.register_envs(require_ale())
    raw = gymnasium.make("ALE/SpaceInvaders-v5", frameskip=1, repeat_action_probability=0.0)
    theirs = gymnasium.wrappers.AtariPreprocessing(raw, noop_max=0, grayscale_obs=colour == "grayscale")
    ours = AtariEnv("SpaceInvaders", colour, repeat_probability=0.0)
    theirs.reset(seed=0)
    ours.reset(seed=0)
    points = 0.0
    for time in range(150):
        action = (1, 4, 5)[time // 10 % 3]  # shoot, and move to and fro
        expected, reward, terminated, _, info = theirs.step(action)
        frame, our_reward, our_terminated, _, our_info = ours.step(action)
        np.testing.assert_array_equal(frame.squeeze(), expected)
        assert (our_reward, our_terminated, our_info["lives"]) == (reward, terminated, info["lives"])
        points += reward
    assert points > 0


def test_a_binary_pixel_is_on_where_grey_differs_from_the_background(cache):
    background = background_of("SpaceInvaders")
    binary, grey = AtariEnv("SpaceInvaders"), AtariEnv("SpaceInvaders", "grayscale")
    for env in (binary, grey):
        env.reset(seed=3)
    for (frame, *_), (shades, *_) in zip(play(binary, 60), play(grey, 60), strict=True):
        np.testing.assert_array_equal(frame, 255 * (shades != background[..., None]))
    assert 0.0 < (frame > 0).mean() < 0.3  # most of the screen is background


def test_the_background_is_found_once_and_kept(cache, monkeypatch):
    first = background_of("Breakout")
    atari_frames._background_of.cache_clear()
    (path,) = cache.rglob("*.npy")
    monkeypatch.setattr(atari_frames, "_play", lambda game: pytest.fail("played again"))
    np.testing.assert_array_equal(background_of("breakout"), first)
    monkeypatch.undo()
    short_run(monkeypatch, cache)
    path.write_bytes(b"damaged")
    np.testing.assert_array_equal(background_of("Breakout"), first)  # the run is always the same one


def test_a_cache_that_cannot_be_written_does_no_harm(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert background_of("Breakout").shape == (84, 84)


def test_backgrounds_round_trip_as_text():
    background = np.random.default_rng(0).integers(0, 256, (84, 84), np.uint8)
    np.testing.assert_array_equal(from_text(to_text(background)), background)
    for wrong in ("", "no background", to_text(background)[:-9]):
        with pytest.raises(DataError, match="background"):
            from_text(wrong)


def test_single_and_vector_environment_are_the_same_game():
    vector = AtariVectorEnv(2, "Breakout", background=black(), reward="sign")
    singles = [AtariEnv("Breakout", background=black(), reward="sign") for _ in range(2)]
    frames, _ = vector.reset(seed=7)
    for index, env in enumerate(singles):
        np.testing.assert_array_equal(env.reset(seed=7 + index)[0], frames[index])
    generator = np.random.default_rng(0)
    waiting = [False, False]
    resets = lost = 0
    for _ in range(330):
        actions = generator.integers(4, size=2)
        frames, rewards, terminations, truncations, infos = vector.step(actions)
        for index, env in enumerate(singles):
            if waiting[index]:
                frame, info = env.reset()
                reward = terminated = False
                resets += 1
            else:
                frame, reward, terminated, _, info = env.step(actions[index])
            waiting[index] = terminated
            np.testing.assert_array_equal(frames[index], frame)
            assert (rewards[index], terminations[index]) == (reward, terminated)
            assert infos["lives"][index] == info["lives"]
            assert infos["life_lost"][index] == info["life_lost"]
            assert reward in (0.0, 1.0)
            lost += info["life_lost"]
        assert not truncations.any()
    assert resets >= 2
    assert lost >= 10


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_a_copy_goes_on_exactly_sticky_actions_included(kind):
    env = (
        AtariEnv("SpaceInvaders", "grayscale")
        if kind == "single"
        else AtariVectorEnv(2, "SpaceInvaders", "grayscale")
    )
    with pytest.raises(ResetNeeded):
        env.get_state()
    env.reset(seed=0)
    play(env, 30)
    copy, before = env.get_state(), play(env, 40, seed=5)
    play(env, 3)
    env.set_state(copy)
    assert same(play(env, 40, seed=5), before)
    env.set_state(copy)
    assert not same(play(env, 40, seed=6), before)


def test_a_copy_of_another_kind_is_refused():
    colour, grey = AtariEnv(obs_type="rgb"), AtariEnv(obs_type="grayscale")
    colour.reset(seed=0)
    with pytest.raises(ConfigError, match="other observations"):
        grey.set_state(colour.get_state())


def test_the_same_seed_is_the_same_game_and_another_is_another():
    env = AtariEnv("SpaceInvaders", "grayscale")
    games = []
    for seed in (4, 4, 5):
        env.reset(seed=seed)
        games.append(play(env, 120))
    assert same(games[0], games[1])
    assert not same(games[0], games[2])


def test_what_happens_at_the_end_of_an_episode():
    def run(mode: str) -> tuple[AtariVectorEnv, list]:
        env = AtariVectorEnv(2, "Breakout", background=black(), max_episode_steps=5, autoreset_mode=mode)
        env.reset(seed=0)
        return env, [env.step(np.array([0, 2])) for _ in range(5)]

    env, steps = run("NextStep")
    assert steps[4][3].all()
    assert not steps[3][3].any()
    first, rewards, _, truncations, _ = env.step(np.array([0, 2]))
    assert not rewards.any()
    assert not truncations.any()
    assert (env.episodes.elapsed == 0).all()

    env, same_step = run("SameStep")
    np.testing.assert_array_equal(np.stack(same_step[4][4]["final_obs"]), steps[4][0])
    np.testing.assert_array_equal(same_step[4][0], first)
    assert same_step[4][4]["final_info"]["lives"].tolist() == [5, 5]

    env, _ = run("Disabled")
    with pytest.raises(ResetNeeded, match=r"\[0, 1\]"):
        env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": np.array([True, False])})
    assert env.episodes.elapsed.tolist() == [0, 5]
    with pytest.raises(ResetNeeded, match=r"\[1\]"):
        env.step(np.array([0, 0]))


def test_gymnasium_is_content():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(AtariEnv(background=black(), render_mode="rgb_array"), skip_render_check=True)
        env = gymnasium.make("RNEM-AtariReal-v0", game="Pong", background=black(), render_mode="rgb_array")
        env.reset(seed=0)
        assert env.render().shape == (210, 160, 3)
        assert env.spec.max_episode_steps == 27_000
        vector = gymnasium.make_vec("RNEM-AtariReal-v0", num_envs=2, background=black(), game="pong")
        frames, _ = vector.reset(seed=0)
    assert frames.shape == (2, 84, 84, 1)
    assert vector.max_episode_steps == 27_000
    assert frames in vector.observation_space


def test_names_of_games():
    assert len(games()) > 100
    assert {"SpaceInvaders", "Pong", "Breakout", "MsPacman"} <= set(games())
    for name in ("space_invaders", "SPACEINVADERS", "Space Invaders"):
        assert game_named(name) == "SpaceInvaders"
    with pytest.raises(ConfigError, match="did you mean 'SpaceInvaders'"):
        AtariEnv("SpaceInvader")
    with pytest.raises(ConfigError, match="no Atari game 'xyzzy': 108 games"):
        AtariEnv("xyzzy")


def test_bad_arguments_are_named(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((4, 4), np.uint8))
    for error, match, arguments in (
        (ConfigError, "obs_type is 'grey'", {"obs_type": "grey"}),
        (ConfigError, "reward is 'clip'", {"reward": "clip"}),
        (ConfigError, "leave it out", {"obs_type": "rgb", "background": black()}),
        (ConfigError, "repeat_probability is 2", {"repeat_probability": 2.0, "background": black()}),
        (ConfigError, "background is 3", {"background": 3}),
        (DataError, "expected \\(84, 84\\)", {"background": black()[:3]}),
        (DataError, "small.npy", {"background": tmp_path / "small.npy"}),
        (DataError, "nothing.npy", {"background": tmp_path / "nothing.npy"}),
        (ConfigError, "render_mode", {"render_mode": "ansi"}),
    ):
        with pytest.raises(error, match=match):
            AtariEnv(**arguments)
    env = AtariEnv(background=black())
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="expected 0 to 5"):
        env.step(6)
    vector = AtariVectorEnv(2, background=black())
    vector.reset(seed=0)
    with pytest.raises(ConfigError, match="expected 0 to 5"):
        vector.step(np.array([0, 6]))
    with pytest.raises(ConfigError, match="integers"):
        vector.step(np.array([0.0, 1.0]))


def test_without_ale_py_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DependencyError, match=r'ale_py is missing: pip install "rnem-world\[atari\]"'):
        AtariEnv()


@pytest.mark.parametrize(
    ("game", "action", "sign"), [("SpaceInvaders", 2, 1), ("Pong", 2, -1), ("Breakout", 3, -1)]
)
def test_the_player_is_found_and_moves_as_it_is_told(game, action, sign):
    import torch

    from rnem_world.evaluation.truth import LANES

    grey = AtariEnv(game, "grayscale")
    grey.reset(seed=0)
    shades = [grey.step(0)[0] for _ in range(30)][-1]
    background = np.full((84, 84), np.bincount(shades.ravel()).argmax(), np.uint8)
    if game == "Pong":  # its field has a frame
        background = shades[..., 0].copy()
        background[:, 73:76] = background[:, 68:71]
    env = AtariEnv(game, background=background)
    env.reset(seed=0)
    for _ in range(70 if game == "SpaceInvaders" else 30):  # until the player is there
        env.step(0)
    frames = np.stack([env.step(action)[0] for _ in range(5 if game == "Pong" else 12)])
    found = LANES[game].find(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255.0)
    assert found.found.all()
    assert sign * float(found.positions[-1] - found.positions[0]) > 8
    assert (sign * found.positions.diff() >= 0).all()


def test_wrappers_of_stable_baselines3_fit():
    wrappers = pytest.importorskip("stable_baselines3.common.atari_wrappers")
    env = wrappers.AtariWrapper(AtariEnv("Breakout", "rgb", repeat_probability=0.0), frame_skip=1)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2] for _ in range(60)]
    assert any(ends)  # a lost life ends an episode for it
    assert env.unwrapped.ale.lives() < 5


def test_a_user_without_a_home_plays_all_the_same(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(atari_frames.Path, "home", no_home)
    monkeypatch.setattr(atari_frames, "GAMES", 1)
    monkeypatch.setattr(atari_frames, "STEPS", 20)
    atari_frames._background_of.cache_clear()
    try:
        assert AtariEnv("Pong").reset(seed=0)[0].shape == (84, 84, 1)
    finally:
        atari_frames._background_of.cache_clear()


def test_no_game_is_named():
    with pytest.raises((ConfigError, TypeError), match="game"):
        AtariEnv(None)
