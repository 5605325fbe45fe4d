"""Environments of any kind, shown as frames: what a recipe decides, and that episodes are the environment's own."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import own_environments
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from rnem_world.envs.any import AnyRealEnv, AnyVectorEnv, complete
from rnem_world.envs.ids import make_raw
from rnem_world.envs.recipe import EnvironmentRecipe
from rnem_world.errors import ConfigError, DependencyError, SimulationError

BYTES = spaces.Box(0, 255, (20, 20, 3), np.uint8)
FRAME = np.full((20, 20, 3), 9, np.uint8)


def shown(space, frames, infos=None, **options):
    """Two environments that show what they are told."""
    return AnyVectorEnv(
        2,
        EnvironmentRecipe(**options),
        None,
        "Disabled",
        make=lambda: own_environments.Shown(space, frames, infos),
    )


def test_masks_under_a_key_become_frames_of_bits():
    env = AnyVectorEnv(3, "own_environments:Own/Masks-v0", autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.recipe.frame_shape == (5, 5, 5)
    assert env.recipe.is_binary
    assert env.recipe.obs_key == "masks"
    frames, _ = env.reset(seed=3)
    raw = gymnasium.make("Own/Masks-v0")
    masks = raw.reset(seed=4)[0]["masks"]
    assert np.array_equal(frames[1], masks * np.uint8(255))
    assert env.single_action_space == spaces.MultiDiscrete([3, 3])
    for step in range(7):
        action = np.array([[0, 1], [2, 0], [1, 1]])
        frames, rewards, terminations, truncations, infos = env.step(action)
        masks, reward, terminated, _, _ = raw.step(action[1])
        last = infos["final_obs"][1] if terminated else frames[1]
        assert np.array_equal(last, masks["masks"] * np.uint8(255))
        assert rewards[1] == reward
        assert terminations.all() == terminated == (step == 6)
        assert not truncations.any()


def test_drawing_without_a_screen_says_nothing(monkeypatch, capfd):
    """Where none is, SDL would ask for one of Wayland, which complains on stderr."""
    pygame = pytest.importorskip("pygame")
    pygame.quit()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    env = AnyVectorEnv(1, "CartPole-v1")
    env.reset(seed=0)
    env.close()
    pygame.quit()
    assert capfd.readouterr().err == ""
    monkeypatch.undo()  # what drawing set is unset


def test_wide_frames_and_actions_of_real_numbers():
    env = AnyVectorEnv(2, "own_environments:Own/Wide-v0", autoreset_mode="NextStep")
    assert env.recipe.frame_shape == (36, 64, 3)
    frames, _ = env.reset(seed=0)
    assert frames[0, 16, 28].tolist() == [250, 180, 20]
    frames, rewards, *_ = env.step(np.array([[1.0, -2.0], [0.0, 0.5]]))
    assert frames[0, 26, 4].tolist() == [250, 180, 20]
    assert rewards.tolist() == [-2.0, 0.5]
    for step in range(12):
        _, _, terminations, truncations, _ = env.step(np.zeros((2, 2)))
        assert truncations.all() == (step == 10)
        assert not terminations.any()


def test_what_shows_a_state_is_drawn():
    env = AnyRealEnv("own_environments:Own/Blind-v0")
    recipe = env.batch.recipe
    assert (recipe.frames, recipe.size, recipe.pixels) == ("render", (20, 30), "bytes")
    frame, _ = env.reset(seed=1)
    assert frame.any()
    moved, reward, *_ = env.step(1)
    assert np.array_equal(np.roll(frame, 1, axis=1)[:, :10], moved[:, :10]) or not np.array_equal(
        frame, moved
    )
    assert reward == 1.0


def test_a_recipe_is_complete_once_and_makes_the_same_frames_ever_after():
    recipe = EnvironmentRecipe("own_environments:Own/Blind-v0", {"picture": [90, 120, 3]}, grayscale=True)
    found = complete(recipe)
    assert found.size == (48, 48)
    assert found.versions["gymnasium"] == gymnasium.__version__
    again = EnvironmentRecipe.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert complete(again) is again
    one, two = AnyVectorEnv(2, recipe), AnyVectorEnv(2, again)
    assert np.array_equal(one.reset(seed=5)[0], two.reset(seed=5)[0])
    assert one.recipe.frame_shape == (48, 48, 1)


def test_the_background_is_what_is_there_most_often():
    recipe = complete(EnvironmentRecipe("own_environments:Own/Blind-v0", binarise="background"))
    assert recipe == complete(EnvironmentRecipe("own_environments:Own/Blind-v0", binarise="background"))
    env = AnyRealEnv(recipe)
    frame, _ = env.reset(seed=2)
    assert set(np.unique(frame)) == {0, 255}
    assert (frame > 0).sum() == 20  # one column, and nothing else
    assert EnvironmentRecipe.from_json(recipe.to_json()) == recipe


def test_an_action_is_held_and_its_rewards_are_added():
    env = AnyRealEnv(EnvironmentRecipe("own_environments:Own/Masks-v0", {"length": 5}, frame_skip=3))
    env.reset(seed=0)
    _, reward, terminated, _, _ = env.step(np.array([2, 1]))
    assert (reward, terminated) == (6.0, False)
    _, reward, terminated, _, _ = env.step(np.array([2, 1]))
    assert (reward, terminated) == (4.0, True)


def test_limits_are_the_environments_own_the_recipes_or_the_callers():
    def length(env):
        env.reset(seed=0)
        for step in range(1, 200):
            if env.step(np.zeros(1, np.int64))[3][0]:
                return step
        return None

    name = "own_environments:Own/Blind-v0"
    assert length(AnyVectorEnv(1, name)) == 30
    assert length(AnyVectorEnv(1, EnvironmentRecipe(name, max_episode_steps=50))) == 50
    assert length(AnyVectorEnv(1, name, max_episode_steps=4)) == 4
    assert (
        length(AnyVectorEnv(1, EnvironmentRecipe(name.replace("Own/Blind-v0", "Blind"), max_episode_steps=6)))
        == 6
    )


def test_a_class_needs_no_id_and_nothing_but_environments_and_wrappers_is_called():
    recipe = EnvironmentRecipe(
        "own_environments:Masks",
        {"length": 3},
        ({"entry_point": "gymnasium.wrappers:TimeLimit", "kwargs": {"max_episode_steps": 2}},),
    )
    env = make_raw(recipe, False)
    env.reset(seed=0)
    env.step(np.array([1, 1]))
    assert env.step(np.array([1, 1]))[3]
    for name in ("os:system", "own_environments:register"):
        with pytest.raises(ConfigError, match="expected a class derived from Env"):
            make_raw(EnvironmentRecipe(name, {"command": "exit 1"}), False)
    dangerous = ({"entry_point": "os:system", "kwargs": {}},)
    with pytest.raises(ConfigError, match="expected a class derived from Wrapper"):
        make_raw(EnvironmentRecipe("CartPole-v1", wrappers=dangerous), False)


def test_gymnasiums_own_check_finds_nothing():
    gymnasium.register(
        "Own/Framed-v0", lambda **options: AnyRealEnv("own_environments:Own/Wide-v0", **options)
    )
    check_env(gymnasium.make("Own/Framed-v0").unwrapped)
    del gymnasium.registry["Own/Framed-v0"]


def test_what_is_said_of_every_frame_is_handed_on():
    env = shown(BYTES, [FRAME], [{"lives": 3, "other": "x"}, {"lives": 2}])
    _, infos = env.reset(seed=0)
    assert infos["lives"].tolist() == [3, 3]
    assert "other" not in infos
    _, _, _, _, infos = env.step(np.array([3, 4]))
    assert infos["lives"].tolist() == [2, 2]
    env = shown(BYTES, [FRAME], [{"lives": 3}, {}])
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="'lives' of some frames"):
        env.step(np.array([3, 3]))


@pytest.mark.parametrize(
    ("space", "frames", "message"),
    [
        (
            BYTES,
            [FRAME, FRAME[:10]],
            r"step 1 of an episode, shows wrong frames.*\(10, 20, 3\).*\(20, 20, 3\)",
        ),
        (
            spaces.Box(0.0, 1.0, (9, 9), np.float32),
            [np.zeros((9, 9)), np.full((9, 9), np.nan)],
            "step 1.*NaN",
        ),
        (
            BYTES,
            [FRAME, ValueError("the wheel\ncame off")],
            "step 1 of an episode, fails: ValueError: the wheel; mend",
        ),
        (BYTES, [FRAME, KeyError()], "fails: KeyError"),
        (spaces.Dict({"a": BYTES}), [{"a": FRAME}, {}], "fails: KeyError: 'a'"),
    ],
)
def test_environments_that_break_are_named_with_the_step(space, frames, message):
    env = shown(space, frames)
    env.reset(seed=0)
    with pytest.raises(SimulationError, match=message) as caught:
        env.step(np.array([3, 3]))
    assert "\n" not in str(caught.value)


def test_an_environment_that_fails_at_once_and_rewards_that_are_no_numbers():
    env = shown(BYTES, [RuntimeError("no display")])
    with pytest.raises(SimulationError, match="reset of an episode, fails: RuntimeError: no display"):
        env.reset(seed=0)

    class Priceless(own_environments.Masks):
        def step(self, action):
            return (*super().step(action)[:1], float("inf"), False, False, {})

    env = AnyVectorEnv(1, EnvironmentRecipe(), make=Priceless)
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="reward inf"):
        env.step(np.array([[0, 0]]))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (EnvironmentRecipe("CartPole-v77"), "CartPole-v1|v77"),
        (EnvironmentRecipe("CartPool-v1"), "did you mean 'CartPole-v1'"),
        (EnvironmentRecipe("own_environments:Own/Masks-v0", {"colour": 3}), "can't make .*colour"),
        (EnvironmentRecipe("own_environments:Own/Masks-v0", frames="render"), "render_mode"),
        (
            EnvironmentRecipe("own_environments:Own/Blind-v0", frames="observation"),
            "no picture is among them",
        ),
        (EnvironmentRecipe("own_environments:Own/Blind-v0", {"picture": [3]}), r"draws \(3,\)"),
        (EnvironmentRecipe("own_environments:Own/Masks-v0", obs_key="mask"), "did you mean 'masks'"),
        (EnvironmentRecipe("own_environments:Own/Masks-v0", crop="0:9,:"), "5 rows and 5 columns"),
        (EnvironmentRecipe(""), "made by a program"),
    ],
)
def test_environments_that_cannot_be_are_refused_in_one_line(recipe, message):
    with pytest.raises(ConfigError, match=message) as caught:
        AnyVectorEnv(1, recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "info",
    [
        {"lives": None},
        {"lives": -1},
        {"lives": 2.5},
        {"lives": True},
        {"lives": 999},
        {"positions": {"agent": (1, 2)}},
        {"positions": np.ones((3, 2)), "velocities": np.ones((3, 2))},
    ],
)
def test_infos_that_bear_the_name_of_an_array_and_mean_something_else_are_left_out(info):
    env = shown(BYTES, [FRAME], [info, {}])
    assert env.reset(seed=0)[1] == {}
    assert env.step(np.array([3, 3]))[4] == {}


def test_a_function_that_makes_the_same_environment_again_is_refused():
    only = own_environments.Masks()
    with pytest.raises(ConfigError, match="made the same environment again"):
        AnyVectorEnv(2, EnvironmentRecipe(), make=lambda: only)
    AnyVectorEnv(1, EnvironmentRecipe(), make=lambda: only)


def test_what_fails_at_being_closed_hides_nothing():
    class Sticks(own_environments.Masks):
        def step(self, action):
            raise ValueError("broken step")

        def close(self):
            raise RuntimeError("broken close")

    env = AnyVectorEnv(2, EnvironmentRecipe(), make=Sticks)
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="broken step"):
        env.step(np.array([[0, 0], [0, 0]]))
    env.close()


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_environments_without_a_space_are_refused(space):
    class Bare(gymnasium.Env):
        pass

    setattr(Bare, {"observation_space": "action_space"}.get(space, "observation_space"), BYTES)
    with pytest.raises(ConfigError, match=f"the {space} of the environment is None.*set self.{space}"):
        AnyVectorEnv(1, EnvironmentRecipe(), make=Bare)


def test_bits_are_bits():
    space = spaces.Box(0, 1, (20, 20, 3), np.uint8)
    env = shown(space, [FRAME * 0, FRAME])
    env.reset(seed=0)
    with pytest.raises(SimulationError, match="picture of bits holds numbers from 9 to 9, expected 0 and 1"):
        env.step(np.array([3, 3]))
    for options in ({"grayscale": True}, {"binarise": "threshold"}):
        with pytest.raises(ConfigError, match="3 channels of bits, and greys"):
            shown(space, [FRAME * 0], **options)
    with pytest.raises(ConfigError, match="threshold is 9, and what the environment shows are bits"):
        shown(spaces.Box(0, 1, (20, 20), np.uint8), [FRAME[..., 0]], binarise="threshold", threshold=9)


def test_actions_of_other_kinds_are_refused():
    class Composite(own_environments.Masks):
        action_space = spaces.Dict({"a": spaces.Discrete(2)})

    with pytest.raises(ConfigError, match="the environment's actions are Dict"):
        AnyVectorEnv(1, EnvironmentRecipe(), make=Composite)
    with pytest.raises(ConfigError, match="expected an environment"):
        AnyVectorEnv(1, EnvironmentRecipe(), make=lambda: 3)


def test_what_draws_without_pygame_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DependencyError, match=r"CartPole-v1 needs.*pygame.*rnem-world\[control\]"):
        AnyVectorEnv(1, "CartPole-v1")


def test_others_can_not_be_copied():
    env = AnyVectorEnv(1, "own_environments:Own/Masks-v0")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="can't be copied"):
        env.get_state()


def test_people_see_the_frames_large():
    env = AnyVectorEnv(2, "own_environments:Own/Masks-v0", render_mode="rgb_array")
    env.reset(seed=0)
    one, two = env.render()
    assert one.shape == two.shape == (260, 260, 3)
    env.close()


def test_minatar_needs_no_import():
    pytest.importorskip("minatar")
    env = AnyVectorEnv(2, "MinAtar/Breakout-v1", autoreset_mode="SameStep")
    assert env.recipe.frame_shape == (10, 10, 4)
    frames, _ = env.reset(seed=1)
    again = AnyVectorEnv(2, "MinAtar/Breakout-v1", autoreset_mode="SameStep")
    assert np.array_equal(frames, again.reset(seed=1)[0])
    for _ in range(40):
        actions = env.action_space.sample()
        for one, two in zip(env.step(actions)[:4], again.step(actions)[:4], strict=True):
            assert np.array_equal(one, two)


def test_seeds_of_any_size_reach_environments_that_know_smaller_ones():
    pytest.importorskip("minatar")
    env = AnyVectorEnv(1, "MinAtar/Breakout-v1")
    for seed in (5, 2**32 - 1, 2**32 + 5, 2**62):
        env.reset(seed=[seed])
    env.close()


def test_without_a_package_its_environments_are_refused_with_the_cure(monkeypatch):
    import sys

    for package in ("minatar", "minigrid"):
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
    for name, extra in (("MinAtar/Breakout-v1", "minatar"), ("MiniGrid-Empty-5x5-v0", "minigrid")):
        with pytest.raises(DependencyError, match=f"the extra '{extra}'"):
            AnyVectorEnv(1, name)
