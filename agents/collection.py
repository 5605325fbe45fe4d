"""What is collected from the environments of this package: how much, and who plays."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnem_world import physics
from rnem_world.actions import ActionSpace
from rnem_world.agents.base import BASELINES, Agent, baseline
from rnem_world.agents.mixture import ARCHIVE, MixedAgent, parse_mixture, with_whole_paths, without_folders
from rnem_world.data.collector import CollectorConfig, Source
from rnem_world.data.schema import DatasetAttributes
from rnem_world.errors import ConfigError, OutputError, suggest

if TYPE_CHECKING:
    from rnem_world.envs.atari import AtariVectorEnv
    from rnem_world.envs.balls import BouncingBallsVectorEnv

EPISODE_STEPS = 100
"""Steps after which an episode of balls is cut off, where it may end before."""

CONSOLES = 4
"""Games that run side by side in one process: so few that each runs through several episodes in a shard."""


@dataclass(frozen=True)
class Collection:
    """How much is collected from an environment, and who plays.

    Attributes:
        num_train: Sequences for training.
        num_valid: Sequences for validation.
        num_test: Sequences for testing.
        frames: Frames of a sequence.
        seed: Seed of everything.
        shard_size: Sequences that a process collects and writes at once.
        policy: Who acts: one of `rnem_world.agents.base.BASELINES`, or several with weights, each of which plays that
            part of the episodes; see `rnem_world.agents.mixture.parse_mixture`.

    Raises:
        ConfigError: If a value makes no sense.
    """

    num_train: int = 50_000
    num_valid: int = 10_000
    num_test: int = 10_000
    frames: int = 51
    seed: int = 0
    shard_size: int = 500
    policy: str = "repeated-random"

    @property
    def name(self) -> str:
        """What the dataset is called unless it is told."""
        raise NotImplementedError

    def sizes(self) -> CollectorConfig:
        """Says how much to collect."""
        return CollectorConfig(
            self.num_train, self.num_valid, self.num_test, self.frames, self.seed, self.shard_size
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made with."""
        return ()

    def source(self) -> Source:
        """Makes what is recorded.

        Raises:
            RnemWorldError: If there is no such environment, or a policy doesn't suit it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class BallsCollection(Collection):
    """Sequences of simulated balls, each of an episode's first frames.

    Attributes:
        preset: The name of the rules, see `rnem_world.physics.PRESETS`; only where there is a player does it matter
            who acts.
    """

    preset: str = "balls4mass64"

    def __post_init__(self) -> None:
        rules = physics.preset(self.preset)
        for player in parse_mixture(self.policy):
            if player.name not in BASELINES:
                raise ConfigError(f"no policy {player.name!r}: {suggest(player.name, BASELINES)}")
        if not rules.player and self.policy != Collection.policy:
            raise ConfigError(
                f"the policy {self.policy} was given, and in {self.preset} nobody plays: leave it out"
            )

    @property
    def name(self) -> str:
        """The preset."""
        return self.preset

    def sizes(self) -> CollectorConfig:
        """Says how much to collect: of streams of episodes where these may end, else the starts of episodes."""
        return replace(super().sizes(), streams=physics.preset(self.preset).ends_at_touch)

    def source(self) -> Source:
        """Makes balls and a baseline."""
        import rnem_world

        rules = physics.preset(self.preset)
        settings: dict[str, Any] = {"preset": self.preset, "rules": asdict(rules)}
        if rules.player:
            settings["policy"] = self.policy
        attributes = DatasetAttributes(
            environment_id="RNEM-BallsReal-v0",
            settings=settings,
            seed=self.seed,
            number_of_actions=physics.number_of_actions(rules) if rules.player else None,
            package_version=rnem_world.__version__,
        )
        return Source(
            partial(_make_balls, rules=rules), partial(_make_players, policy=self.policy), attributes
        )


@dataclass(frozen=True)
class AtariCollection(Collection):
    """Sequences of an Atari game, into which whole episodes are cut; by default 224,400 frames, some minutes.

    Attributes:
        policy: A baseline, or the path of a ``.zip`` of stable-baselines3.
        game: The game's name.
        obs_type: ``binary``, ``grayscale`` or ``rgb``.
        reward: ``sign`` or ``raw``.
        background: The background of binary frames, or a file with it; see `chosen_background`.
        trust_policy: Whether the user vouches for a policy's file; see `load_sb3_policy`.
        policy_frames: What a trained policy sees, ``grayscale`` if None; see `TrainedPolicyAgent`.
    """

    num_train: int = 4000
    num_valid: int = 200
    num_test: int = 200
    shard_size: int = 200
    game: str = "SpaceInvaders"
    obs_type: str = "binary"
    reward: str = "sign"
    background: Any = None
    trust_policy: bool = False
    policy_frames: str | None = None

    def __post_init__(self) -> None:
        known = ("grayscale", "observations")
        if self.policy_frames not in (None, *known):
            raise ConfigError(
                f"policy_frames is {self.policy_frames!r}: {suggest(str(self.policy_frames), known)}"
            )
        # The working directory may be another one when they are opened.
        if isinstance(self.background, str | os.PathLike):
            object.__setattr__(self, "background", Path(self.background).absolute())
        for player in parse_mixture(self.policy):
            if player.name.endswith(ARCHIVE):
                if not Path(player.name).is_file():
                    raise ConfigError(
                        f"there is no policy {player.name}; expected a .zip that stable-baselines3 saved"
                    )
            elif player.name not in BASELINES:
                raise ConfigError(
                    f"no policy {player.name!r}: {suggest(player.name, BASELINES)}, or the path of a .zip"
                )
        if self.trained:
            object.__setattr__(self, "policy", with_whole_paths(self.policy))
        elif self.trust_policy or self.policy_frames:
            flag = "--trust-policy" if self.trust_policy else "--policy-frames"
            raise ConfigError(
                f"{flag} is for a .zip of stable-baselines3, not for {self.policy}: leave it out"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The policy and the background, where these are files."""
        background = (self.background,) if isinstance(self.background, Path) else ()
        return (*self.trained, *background)

    @property
    def trained(self) -> tuple[Path, ...]:
        """The files of the trained policies among those who play."""
        names = (player.name for player in parse_mixture(self.policy))
        return tuple(Path(name) for name in names if name.endswith(ARCHIVE))

    @property
    def name(self) -> str:
        """The game, and for frames that aren't binary their kind.

        Raises:
            ConfigError: If there is no such game.
            DependencyError: If ale-py is not installed.
        """
        from rnem_world.envs.atari_console import game_named

        return game_named(self.game) + ("" if self.obs_type == "binary" else f"-{self.obs_type}")

    def sizes(self) -> CollectorConfig:
        """Says how much to collect, of whole episodes."""
        numbers = (self.num_train, self.num_valid, self.num_test, self.frames, self.seed, self.shard_size)
        return CollectorConfig(*numbers, batch_size=CONSOLES, whole_episodes=True)

    def source(self) -> Source:
        """Makes consoles and who plays them.

        Raises:
            CheckpointError: If the policy can't be loaded.
            DataError: If the background can't be read.
            DependencyError: If ale-py is not installed, or for a trained policy stable-baselines3.
        """
        import rnem_world
        from rnem_world.envs.atari_console import FRAME_SKIP, REPEAT_PROBABILITY
        from rnem_world.envs.atari_frames import RULE, AtariRules, to_text

        rules = AtariRules(self.game, self.obs_type, self.reward, self.background, REPEAT_PROBABILITY)
        settings: dict[str, Any] = {
            "game": rules.game,
            "frames": self.obs_type,
            "frame_skip": FRAME_SKIP,
            "repeat_probability": REPEAT_PROBABILITY,
            "reward": self.reward,
            "policy": without_folders(self.policy),
        }
        frames = self.policy_frames or "grayscale"
        make_agent = partial(_make_players, policy=self.policy, trusted=self.trust_policy, frames=frames)
        if self.trained:
            sums = [_checksum(path) for path in self.trained]
            settings["policy_crc32"] = sums[0] if len(sums) == 1 else sums
            settings["policy_frames"] = frames
        if rules.background is not None:
            settings |= {"rule": RULE, "background": to_text(rules.background)}
        make_env = partial(
            _make_atari,
            game=rules.game,
            obs_type=self.obs_type,
            reward=self.reward,
            background=rules.background,
        )
        env = make_env(1)
        make_agent(
            env, np.random.default_rng(0)
        )  # a policy that doesn't fit is refused here, not in a process
        settings["action_names"] = env.action_names
        env.close()
        attributes = DatasetAttributes(
            environment_id="RNEM-AtariReal-v0",
            settings=settings,
            seed=self.seed,
            number_of_actions=len(settings["action_names"]),
            maximum_value=1 if self.obs_type == "binary" else 255,
            package_version=rnem_world.__version__,
        )
        return Source(make_env, make_agent, attributes)


def _make_balls(num_envs: int, rules: physics.BallsConfig) -> BouncingBallsVectorEnv:
    from rnem_world.envs.balls import BouncingBallsVectorEnv

    return BouncingBallsVectorEnv(
        num_envs,
        preset=rules,
        # Where an episode may end, those that don't are cut off as gymnasium.make does.
        max_episode_steps=EPISODE_STEPS if rules.ends_at_touch else None,
        autoreset_mode="Disabled",
        ground_truth=True,
    )


def _make_atari(num_envs: int, game: str, obs_type: str, reward: str, background: Any) -> AtariVectorEnv:
    from rnem_world.envs.atari import AtariVectorEnv

    return AtariVectorEnv(num_envs, game, obs_type, reward, background, autoreset_mode="Disabled")


def _make_players(
    env: Any, generator: np.random.Generator, policy: str, trusted: bool = False, frames: Any = "grayscale"
) -> Agent:
    """Makes who plays: one agent, or several of which each plays some of the episodes."""
    players = parse_mixture(policy)
    if len(players) == 1:
        return _make_player(env, generator, players[0].name, trusted, frames)
    draws, *generators = generator.spawn(1 + len(players))
    agents = [
        _make_player(env, own, player.name, trusted, frames)
        for own, player in zip(generators, players, strict=True)
    ]
    return MixedAgent(agents, [player.share for player in players], draws)


def _make_player(env: Any, generator: np.random.Generator, name: str, trusted: bool, frames: Any) -> Agent:
    if not name.endswith(ARCHIVE):
        return baseline(name, ActionSpace.of(env.single_action_space), generator)
    from rnem_world.agents.policy_agent import TrainedPolicyAgent, load_sb3_policy

    model = load_sb3_policy(Path(name), trusted, int(generator.integers(2**31)))
    return TrainedPolicyAgent(model, env, frames)


def _checksum(path: Path) -> int:
    try:
        return zlib.crc32(path.read_bytes())
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror}") from error
