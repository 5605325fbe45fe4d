"""Collecting sequences from Atari games: what ``rnem-world collect --env atari`` does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnem_world.errors import ConfigError, OutputError, suggest
from rnem_world.training.presets import GAME

if TYPE_CHECKING:
    import numpy as np

    from rnem_world.agents.base import Agent
    from rnem_world.envs.atari_vector import AtariVectorEnv

ATARI_SIZES = {"num_train": 4000, "num_valid": 200, "num_test": 200, "frames": 51, "shard_size": 200}
"""A default set: 224,400 frames, some minutes."""

CONSOLES = 4
"""Games that run side by side in one process: so few that each runs through several episodes in a shard."""


def _make_atari(num_envs: int, game: str, obs_type: str, reward: str, background: Any) -> AtariVectorEnv:
    from rnem_world.envs.atari_vector import AtariVectorEnv

    return AtariVectorEnv(num_envs, game, obs_type, reward, background, autoreset_mode="Disabled")


def _make_agent(
    env: Any, generator: np.random.Generator, policy: str, trusted: bool, policy_frames: str
) -> Agent:
    from rnem_world.agents.base import baseline

    if not policy.endswith(".zip"):
        return baseline(policy, int(env.single_action_space.n), generator)
    from rnem_world.agents.policy_agent import TrainedPolicyAgent, load_sb3_policy

    model = load_sb3_policy(Path(policy), trusted, int(generator.integers(2**31)))
    return TrainedPolicyAgent(model, env, policy_frames)  # type: ignore[arg-type]  # checked before


def atari_dataset(game: str, folder: Path, obs_type: str = "binary", keep_shards: bool = False) -> Path:
    """Names the dataset of a game that is found or collected where none is given.

    Raises:
        ConfigError: If there is no such game.
        DependencyError: If ale-py is not installed.
    """
    from rnem_world.envs.atari_games import game_named

    name = game_named(game) + ("" if obs_type == "binary" else f"-{obs_type}")
    return folder / (name if keep_shards else f"{name}.h5")


def collect_atari(
    game: str = GAME,
    out: Path | None = None,
    num_train: int = ATARI_SIZES["num_train"],
    num_valid: int = ATARI_SIZES["num_valid"],
    num_test: int = ATARI_SIZES["num_test"],
    frames: int = ATARI_SIZES["frames"],
    seed: int = 0,
    workers: int = 1,
    shard_size: int = ATARI_SIZES["shard_size"],
    policy: str = "repeated-random",
    obs_type: str = "binary",
    reward: str = "sign",
    background: Any = None,
    trust_policy: bool = False,
    policy_frames: str = "grayscale",
    keep_shards: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Collects sequences of an Atari game; whole episodes are cut into them.

    Args:
        game: The game's name.
        out: The file; without it ``data/GAME.h5`` (``data/GAME`` with ``keep_shards``), and for frames that aren't
            binary ``data/GAME-grayscale.h5`` or ``data/GAME-rgb.h5``.
        num_train: Sequences for training.
        num_valid: Sequences for validation.
        num_test: Sequences for testing.
        frames: Frames of a sequence.
        seed: Seed of everything.
        workers: Processes.
        shard_size: Sequences of a shard.
        policy: ``random``, ``repeated-random``, ``stay``, or the path of a checkpoint of stable-baselines3.
        obs_type: ``binary``, ``grayscale`` or ``rgb``.
        reward: ``sign`` or ``raw``.
        background: The background of binary frames, or a file with it; see `chosen_background`.
        trust_policy: Whether the user vouches for the checkpoint; see `load_sb3_policy`.
        policy_frames: What the policy sees; see `TrainedPolicyAgent`.
        keep_shards: Whether to leave a folder of shards.
        overwrite: Whether ``out`` may be replaced.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        Where the dataset is.

    Raises:
        ConfigError: If an argument makes no sense.
        CheckpointError: If the policy can't be loaded.
        DataError: If parts of another collection are in the way, or the background can't be read.
        DependencyError: If ale-py is not installed, or for a trained policy stable-baselines3.
        OutputError: If the dataset can't be written.
    """
    import zlib

    import numpy as np

    import rnem_world
    from rnem_world.cli.collect import DATA_FOLDER
    from rnem_world.data.collector import CollectorConfig, Source, check_out_is_free, collect_dataset
    from rnem_world.data.schema import DatasetAttributes
    from rnem_world.envs.atari_background import RULE, to_text
    from rnem_world.envs.atari_emulator import FRAME_SKIP, REPEAT_PROBABILITY
    from rnem_world.envs.atari_observation import AtariRules

    _check_policy(policy, policy_frames, trust_policy)
    out = out or atari_dataset(game, DATA_FOLDER, obs_type, keep_shards)
    check_out_is_free(out, overwrite)
    rules = AtariRules(game, obs_type, reward, background, REPEAT_PROBABILITY)
    settings: dict[str, Any] = {
        "game": rules.game,
        "frames": obs_type,
        "frame_skip": FRAME_SKIP,
        "repeat_probability": REPEAT_PROBABILITY,
        "reward": reward,
        "policy": policy,
    }
    if policy.endswith(".zip"):
        try:
            settings["policy_crc32"] = zlib.crc32(Path(policy).read_bytes())
        except OSError as error:
            raise OutputError(f"can't read {policy}: {error.strerror}") from error
        settings["policy_frames"] = policy_frames
    if rules.background is not None:
        settings |= {"rule": RULE, "background": to_text(rules.background)}
    make_env = partial(
        _make_atari, game=rules.game, obs_type=obs_type, reward=reward, background=rules.background
    )
    make_agent = partial(_make_agent, policy=policy, trusted=trust_policy, policy_frames=policy_frames)
    env = make_env(1)
    names = env.action_names
    make_agent(env, np.random.default_rng(0))  # a policy that doesn't fit is refused here, not in a process
    env.close()
    attributes = DatasetAttributes(
        environment_id="RNEM-AtariReal-v0",
        settings=settings | {"action_names": names},
        seed=seed,
        number_of_actions=len(names),
        maximum_value=1 if obs_type == "binary" else 255,
        package_version=rnem_world.__version__,
    )
    config = CollectorConfig(
        num_train, num_valid, num_test, frames, seed, shard_size, batch_size=CONSOLES, whole_episodes=True
    )
    return collect_dataset(
        Source(make_env, make_agent, attributes),
        config,
        out,
        workers=workers,
        progress=progress,
        keep_shards=keep_shards,
        overwrite=overwrite,
    )


def _check_policy(policy: str, policy_frames: str, trusted: bool) -> None:
    from rnem_world.agents.base import BASELINES

    if policy_frames not in ("grayscale", "observations"):
        raise ConfigError(
            f"policy_frames is {policy_frames!r}: {suggest(policy_frames, ['grayscale', 'observations'])}"
        )
    if policy.endswith(".zip"):
        if not Path(policy).is_file():
            raise ConfigError(f"there is no policy {policy}; expected a .zip that stable-baselines3 saved")
    elif policy not in BASELINES:
        raise ConfigError(f"no policy {policy!r}: {suggest(policy, BASELINES)}, or the path of a .zip")
    elif trusted:
        raise ConfigError(
            f"--trust-policy is for a .zip of stable-baselines3, not for {policy}: leave it out"
        )
