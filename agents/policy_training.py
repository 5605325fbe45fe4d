"""Training a policy with stable-baselines3, in a dream or in a real environment, and going on with it."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor

from rnem_world.agents.config import CONFIG_FILE, PolicyConfig
from rnem_world.agents.policy import (
    CHECKPOINTS,
    channels_first,
    check_policy_spaces,
    checkpoints_of,
    describe_spaces,
    last_checkpoint,
    read_policy_config,
    read_policy_weights,
    read_trainer,
    shows_frames,
    write_policy_checkpoint,
    write_policy_config,
)
from rnem_world.agents.policy_agent import ALGORITHMS, policy_kind
from rnem_world.agents.sb3 import VectorEnvAdapter
from rnem_world.distributed import Stop
from rnem_world.envs.ids import make_environment
from rnem_world.envs.slots import SlotVectorObservation
from rnem_world.errors import CheckpointError, ConfigError, TrainingError, suggest
from rnem_world.io import Lock, tidy_folders, writing
from rnem_world.seeding import derive_seed
from rnem_world.training.run import LOCK_FILE

LOG_FILE = "log.jsonl"
LOG_ENTRIES = 200
"""Entries of the log in a whole training, about."""


def make_training_environment(config: PolicyConfig, device: str = "cpu") -> VecEnv:
    """Makes the environments of a training, with monitors and, for frames, a stack.

    Those whose episode is over are reset in the same step, so that no observation is made twice. World models are on
    the device, unless the environment's options say otherwise.

    Raises:
        RnemWorldError: If there is no such environment, or it refuses its options.
    """
    environment = make_environment(
        config.env, config.num_envs, config.env_options, AutoresetMode.SAME_STEP, device
    )
    if config.slots_of:
        environment = SlotVectorObservation(environment, config.slots_of, device=device)
    adapter = VectorEnvAdapter(environment)
    env: VecEnv = VecMonitor(adapter)
    if shows_frames(adapter.observation_space) and config.frame_stack > 1:
        order = "first" if channels_first(adapter.observation_space) else "last"
        env = VecFrameStack(env, config.frame_stack, channels_order=order)
    return env


def make_algorithm(config: PolicyConfig, env: VecEnv, device: str) -> BaseAlgorithm:
    """Makes the algorithm.

    Raises:
        ConfigError: If a hyperparameter is unknown or refused, or the algorithm can't act there.
    """
    algorithm: Any = ALGORITHMS[config.algorithm]
    # A stack of frames is told as the frames are.
    name, policy_arguments = policy_kind(config, env.unwrapped.observation_space)
    known = set(inspect.signature(algorithm).parameters) - {"self", "policy", "env", "seed", "device"}
    for given in config.arguments:
        if given not in known:
            cure = "give --policy" if given == "policy" else suggest(given, known)
            raise ConfigError(f"{config.algorithm} has no hyperparameter {given!r}: {cure}")
    arguments = {**config.arguments, "policy_kwargs": policy_arguments}
    if (name == "MultiInputPolicy") != isinstance(env.observation_space, spaces.Dict):
        raise ConfigError(
            f"{name} doesn't suit the observations {env.observation_space}: MultiInputPolicy is for those with names, "
            "and only it is; leave --policy out to have what fits"
        )
    seed = derive_seed(config.seed, "policy") % 2**31
    try:
        model: BaseAlgorithm = algorithm(name, env, seed=seed, device=device, **arguments)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.algorithm} with {name} refuses what it is given: {error}") from error
    return model


def train_policy(
    config: PolicyConfig,
    folder: Path,
    resume: bool = False,
    device: str = "cpu",
    max_minutes: float | None = None,
    report: Callable[[str], None] = lambda line: None,
    start_from: Path | None = None,
) -> int | None:
    """Trains a policy, or goes on.

    Args:
        config: What with. When resuming, the number of steps and the checkpoints' options may have changed.
        folder: Where configuration, checkpoints, log and TensorBoard files go.
        resume: Whether to go on with what is there.
        device: Where the policy is, and world models of the environments.
        max_minutes: Minutes after which it stops; None for no limit.
        report: Is told what happens.
        start_from: Another policy's folder, whose weights a new training begins with.

    Returns:
        The number of the signal that has stopped it, None if none has.

    Raises:
        CheckpointError: If there is something in the folder already, or nothing to resume.
        OutputError: If another process is training in the folder, or it can't be written.
        RnemWorldError: If an option makes no sense, the dream diverges, or the policy becomes NaN.
    """
    shown, folder = folder, folder.absolute()
    if not resume and (folder / CONFIG_FILE).exists():
        raise CheckpointError(f"{shown} holds an agent already: add --resume, or give another folder")
    env = make_training_environment(config, device)
    both = env.unwrapped.observation_space, env.unwrapped.action_space  # without stacks of frames
    try:
        before = folder if resume else start_from
        if before is not None:
            check_policy_spaces(before, read_policy_config(before)[1], *both)
        model = make_algorithm(config, env, device)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder / LOCK_FILE, f"{folder} is being trained"):
            tidy_folders(folder / CHECKPOINTS)
            if resume:
                restore_training(model, folder)
                report(f"resumed after {model.num_timesteps:,} steps")
            elif start_from is not None:
                model.policy.load_state_dict(read_policy_weights(last_checkpoint(start_from)))
            write_policy_config(folder, config, describe_spaces(*both))
            return _learn(model, env, config, folder, Stop(max_minutes), report, shown)
    finally:
        env.close()


def _learn(
    model: BaseAlgorithm,
    env: VecEnv,
    config: PolicyConfig,
    folder: Path,
    stop: Stop,
    report: Callable[[str], None],
    shown: Path,
) -> int | None:
    with writing(folder / "tensorboard"):
        model.set_logger(configure(str(folder / "tensorboard"), ["tensorboard"]))
    remaining = config.timesteps - model.num_timesteps
    if remaining <= 0:
        report(f"the {config.timesteps:,} steps are done already: give more --timesteps")
        return None
    # Every start of a training has its own seeds, so that a resumed one doesn't see the same episodes again.
    env.seed(derive_seed(config.seed, "environments", model.num_timesteps) % 2**31)
    watch = _Watch(config, folder, stop)
    with stop.watching():
        try:
            model.learn(remaining, callback=watch, reset_num_timesteps=False)
        except ValueError as error:
            # This is how torch refuses to draw actions.
            if str(error).startswith("Expected parameter") and "invalid values" in str(error):
                raise watch.failure() from error
            raise
        finally:
            watch.close()
    watch.save()
    if stop.reason is not None:
        report(stop.reason)
    report(f"{model.num_timesteps:,} steps, {shown}")
    return stop.signal


class _Watch(BaseCallback):
    """Shows progress, writes the log and checkpoints, and stops in order."""

    def __init__(self, config: PolicyConfig, folder: Path, stop: Stop) -> None:
        super().__init__()
        self._config, self._folder, self._stop = config, folder, stop
        self._saved = time.monotonic()
        self._logged = 0
        self._largest = 0.0
        self._bar: Any = None

    def _on_training_start(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=self._config.timesteps,
            initial=self.num_timesteps,
            unit="step",
            unit_scale=True,
            disable=None,
        )
        self._logged = self.num_timesteps
        if not checkpoints_of(self._folder):
            self.save()

    def _on_rollout_start(self) -> None:
        # At the start, what the last rollout has taught is in the weights.
        if time.monotonic() - self._saved >= 60.0 * self._config.checkpoint_minutes:
            self.save()
        self._log()

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        self._largest = max(self._largest, float(np.abs(self.locals["rewards"]).max()))
        self._stop.look()
        return self._stop.reason is None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def failure(self) -> TrainingError:
        """Says what is known of a policy that has become NaN: what it was shown is finite, or had been refused."""
        rate = self._config.arguments["learning_rate"]
        return TrainingError(
            f"the policy became NaN or infinite after {self.num_timesteps:,} steps with learning_rate={rate:g} and "
            f"rewards of up to {self._largest:g}: train anew, into another folder, with a lower learning_rate, or with "
            "smaller rewards if these are large"
        )

    def _check(self) -> None:
        if not all(bool(value.isfinite().all()) for value in self.model.policy.state_dict().values()):
            raise self.failure()

    def save(self) -> None:
        self._check()
        save_training(self.model, self._folder, self._config.keep_checkpoints)
        self._saved = time.monotonic()

    def _log(self) -> None:
        if self.num_timesteps - self._logged < self._config.timesteps / LOG_ENTRIES:
            return
        self._check()
        self._logged = self.num_timesteps
        returns = [entry["r"] for entry in self.model.ep_info_buffer or ()]
        entry: dict[str, Any] = {"steps": self.num_timesteps, "episodes": len(returns)}
        if returns:
            entry["mean_return"] = float(np.mean(returns))
            self._bar.set_postfix_str(f"return {entry['mean_return']:.2f}")
        path = self._folder / LOG_FILE
        with writing(path), path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""What a replay buffer holds; the next observations not where it saves memory."""

_COUNTERS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num")


def save_training(model: BaseAlgorithm, folder: Path, keep: int) -> None:
    """Writes a checkpoint: weights, optimizer, counters, random generators, and DQN's replay buffer.

    Args:
        model: The algorithm.
        folder: The policy's folder.
        keep: How many checkpoints stay there.

    Raises:
        OutputError: If it can't be written.
    """
    keys: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    trainer = {
        "steps": model.num_timesteps,
        "counters": {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)},
        "optimizer": model.policy.optimizer.state_dict(),
        "torch_generator": torch.get_rng_state(),
        "numpy_keys": torch.from_numpy(np.asarray(keys[1]).astype(np.int64)),
        "numpy_rest": [int(keys[2]), int(keys[3]), float(keys[4])],
    }
    if model.device.type == "cuda":
        trainer["cuda_generator"] = torch.cuda.get_rng_state(model.device)
    buffer, replay = getattr(model, "replay_buffer", None), None
    if buffer is not None:
        filled = buffer.buffer_size if buffer.full else buffer.pos
        replay = {name: array[:filled] for name, array in _arrays_of(buffer).items()}
        replay |= {"position": np.asarray(buffer.pos), "full": np.asarray(buffer.full)}
    write_policy_checkpoint(folder, model.num_timesteps, model.policy.state_dict(), trainer, replay, keep)


def _arrays_of(buffer: Any) -> dict[str, NDArray[Any]]:
    """Names the arrays of a replay buffer; those of named observations are ``observations/NAME``."""
    found: dict[str, NDArray[Any]] = {}
    for name in _REPLAY:
        part = getattr(buffer, name, {})
        found |= {f"{name}/{key}": part[key] for key in part} if isinstance(part, dict) else {name: part}
    return found


def restore_training(model: BaseAlgorithm, folder: Path) -> None:
    """Goes on from the last checkpoint.

    Args:
        model: The algorithm, as new.
        folder: The policy's folder.

    Raises:
        CheckpointError: If there is none, or it doesn't fit the algorithm.
    """
    checkpoint = last_checkpoint(folder)
    weights, (trainer, replay) = read_policy_weights(checkpoint), read_trainer(checkpoint)
    try:
        parameters: dict[str, Any] = {"policy": weights, "policy.optimizer": trainer["optimizer"]}
        model.set_parameters(parameters)
        # Checkpoints of earlier versions have two of the counters.
        earlier = {"num_timesteps": trainer["steps"], "_n_updates": trainer.get("updates")}
        for name, value in trainer.get("counters", earlier).items():
            setattr(model, name, value)
        if replay is not None:
            buffer: Any = getattr(model, "replay_buffer")  # noqa: B009  # DQN has one
            for name, array in _arrays_of(buffer).items():
                array[: len(replay[name])] = replay[name]
            buffer.pos, buffer.full = int(replay["position"]), bool(replay["full"])
        torch.set_rng_state(trainer["torch_generator"])
        if model.device.type == "cuda" and "cuda_generator" in trainer:
            torch.cuda.set_rng_state(trainer["cuda_generator"], model.device)
        keys = trainer["numpy_keys"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, *trainer["numpy_rest"]))  # noqa: NPY002
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint} doesn't fit {folder / CONFIG_FILE}: {str(error).splitlines()[0]}"
        ) from error
