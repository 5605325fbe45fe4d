"""What the ids of environments mean, ours and those of others."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.ids import environment_spec, make_environment
from rnem_world.envs.real import world_of
from rnem_world.errors import CheckpointError, ConfigError, DependencyError

MODULE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Refusing(CartPoleEnv):
    def __init__(self, size=1, **options):
        super().__init__(**options)
        self.size = {1: "small"}[size]

gymnasium.register("MyOwn/Pole-v0", CartPoleEnv, max_episode_steps=7)
gymnasium.register("MyOwn/Pole-v3", Refusing, max_episode_steps=7)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's that registers environments when it is imported."""
    (tmp_path / "my_own_poles.py").write_text(MODULE)
    (tmp_path / "my_broken_poles.py").write_text("import nothing_of_that_name")
    (tmp_path / "my_wrong_poles.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_own_poles"
    for name in [name for name in gymnasium.registry if name.startswith("MyOwn/")]:
        del gymnasium.registry[name]
    sys.modules.pop("my_own_poles", None)


def test_what_a_module_registers_is_named_with_it(module):
    assert environment_spec("my_own_poles:MyOwn/Pole-v0").id == "MyOwn/Pole-v0"
    assert environment_spec("my_own_poles:MyOwn/Pole").id == "MyOwn/Pole-v3"
    env = make_environment("my_own_poles:MyOwn/Pole-v0", 3, {}, AutoresetMode.SAME_STEP)
    assert isinstance(env, SyncVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.num_envs == 3
    with pytest.raises(ConfigError, match="KeyError: 2"):
        make_environment("my_own_poles:MyOwn/Pole", 3, {"size": 2})


def test_ours_may_be_named_with_their_module_too():
    env = make_environment("rnem_world:RNEM-BallsReal-v0", 2, {"preset": "stove"})
    assert isinstance(env, BouncingBallsVectorEnv)
    assert world_of("rnem_world:RNEM-Balls-v0", {}) == "balls"
    assert world_of("rnem_world:RNEM-Balls-v0", {"checkpoint": "stove"}) == "stove"
    assert world_of("rnem_world:RNEM-Atari-v0", {}) == "space_invaders"
    assert environment_spec("CartPole").id == "CartPole-v1"


def test_games_of_ale_need_no_import():
    pytest.importorskip("ale_py")
    program = (
        "from rnem_world.envs.ids import make_environment;"
        "print(make_environment('ALE/Pong-v5', 2, {}).single_action_space)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "Discrete(6)\n"


def test_without_ale_its_games_are_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DependencyError, match=r"atari"):
        environment_spec("ALE/Pong-v5")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("no_such_module:Pole-v0", DependencyError, "no module 'no_such_module'.*PYTHONPATH"),
        ("no_such.module:Pole-v0", DependencyError, "no module 'no_such.module'"),
        ("my_broken_poles:Pole-v0", DependencyError, "importing 'my_broken_poles'.*nothing_of_that_name"),
        ("my_wrong_poles:Pole-v0", ConfigError, "importing 'my_wrong_poles'.*ZeroDivisionError"),
        ("my_own_poles:Pole-v0", ConfigError, "no environment 'my_own_poles:Pole-v0'"),
        ("MyOthers/Pole-v0", ConfigError, "MODULE:ID"),
        (":CartPole-v1", ConfigError, "importing ''"),
        ("CartPole-v99", ConfigError, "v99"),
        ("RNEM-BallReal-v0", ConfigError, "did you mean 'RNEM-BallsReal-v0'"),
        ("what is this", ConfigError, "no environment"),
        ("", ConfigError, "no environment"),
    ],
)
def test_what_is_no_environment_is_refused(name, kind, message, module):
    with pytest.raises(kind, match=message):
        make_environment(name, 1, {})


def test_what_an_environment_needs_is_named(module):
    gymnasium.register("MyOwn/Needy-v0", "nothing_of_that_name:Needy")
    with pytest.raises(DependencyError, match=r"MyOwn/Needy-v0 needs what is not installed.*nothing_of"):
        make_environment("MyOwn/Needy-v0", 1, {})
    with pytest.raises(CheckpointError):
        make_environment("RNEM-Balls-v0", 1, {"checkpoint": "no-such-world"})
