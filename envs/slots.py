"""Wrappers that turn real frames into slots, so that a policy trained in a learned world acts in the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool
from numpy.typing import NDArray
from rnem_world.envs.vector_arguments import reset_mask_of
from torch import Tensor

from rnem_world.envs.contexts import black_and_white
from rnem_world.envs.learned_observation import observation_space
from rnem_world.envs.learned_world import LearnedWorld, load_world
from rnem_world.envs.slot_filter import SETTLE_STEPS, SlotFilter
from rnem_world.errors import ConfigError

Array = NDArray[Any]


class SlotObservation(gymnasium.Wrapper[Array, np.int64, Array, np.int64], RecordConstructorArgs):
    """Shows the slots of a world model that watches the environment's frames.

    The slots are those of `LearnedEnv` with ``obs_type="slots"``: what the model expected of the frame that is shown
    now, from all frames before it and the action. What surprised it shows one step later.

    Args:
        env: An environment whose observations are frames, uint8 (H, W, C), and whose actions are the world's.
        checkpoint: As for `LearnedEnv`, as are the next two.
        num_slots: Slots.
        device: Where the model is.
        settle_steps: How often the first frame of an episode is shown, so that slots find their objects.

    Raises:
        ConfigError: If the environment isn't one that the world was learned from.
        CheckpointError: If there is no such checkpoint.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        checkpoint: str | Path = "balls",
        num_slots: int | None = None,
        device: str = "cpu",
        settle_steps: int = SETTLE_STEPS,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, checkpoint=checkpoint, num_slots=num_slots, device=device, settle_steps=settle_steps
        )
        gymnasium.Wrapper.__init__(self, env)
        world = load_world(checkpoint, device)
        check_spaces(world, env.observation_space, env.action_space)
        self.filter = SlotFilter(world, 1, num_slots, settle_steps)
        self.observation_space = observation_space(world, "slots", self.filter.slots)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Resets the environment and shows the slots its first frame."""
        frame, info = self.env.reset(seed=seed, options=options)
        device = self.filter.world.device
        self.filter.reset(torch.zeros(1, dtype=torch.int64, device=device), self._watched(frame))
        return self._slots(), info

    def step(self, action: np.int64) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """Acts, and shows the slots what came of it."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        done = torch.tensor([int(action)], device=self.filter.world.device)
        self.filter.step(done, self._watched(frame))
        return self._slots(), reward, terminated, truncated, info

    def _watched(self, frame: Array) -> Tensor:
        return watched(np.asarray(frame)[None], self.filter.world)

    def _slots(self) -> Array:
        return self.filter.outputs()[0].cpu().numpy().copy()


class SlotVectorObservation(VectorWrapper):
    """`SlotObservation` for vector environments, in all three autoreset modes, with one batched model.

    Args:
        env: As for `SlotObservation`, as are the next ones.
        checkpoint: The world.
        num_slots: Slots.
        device: Where the model is.
        settle_steps: How often the first frame of an episode is shown.

    Raises:
        ConfigError: If the environment isn't one that the world was learned from.
        CheckpointError: If there is no such checkpoint.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        checkpoint: str | Path = "balls",
        num_slots: int | None = None,
        device: str = "cpu",
        settle_steps: int = SETTLE_STEPS,
    ) -> None:
        super().__init__(env)
        world = load_world(checkpoint, device)
        check_spaces(world, env.single_observation_space, env.single_action_space)
        self.filter = SlotFilter(world, env.num_envs, num_slots, settle_steps)
        self.single_observation_space = observation_space(world, "slots", self.filter.slots)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._waiting = np.zeros(env.num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Resets environments, and shows the slots their first frames."""
        mask = reset_mask_of(options, self.num_envs)
        frames, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # VectorEnv's are narrow
        self._begin(mask, frames)
        self._waiting[mask] = False
        return self._slots(), info

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Acts, and shows the slots what came of it."""
        frames, rewards, terminations, truncations, info = self.env.step(actions)
        over = np.asarray(terminations | truncations)
        device = self.filter.world.device
        shown = np.asarray(frames)
        begun = self._waiting
        if self._autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            begun = over
            shown = shown.copy()
            shown[over] = np.stack(list(info["final_obs"][over]))
        done = torch.from_numpy(np.array(actions, dtype=np.int64)).to(device)
        self.filter.step(done, watched(shown, self.filter.world))
        if self._autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            slots, final = self._slots(), np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(over).tolist():
                final[row] = slots[row]
            info = {**info, "final_obs": final}
        if begun.any():
            self._begin(begun, frames)
        if self._autoreset_mode is AutoresetMode.NEXT_STEP:
            self._waiting = over.copy()
        return self._slots(), rewards, terminations, truncations, info

    def _begin(self, mask: Bool[np.ndarray, " n"], frames: Array) -> None:
        rows = torch.from_numpy(np.flatnonzero(mask)).to(self.filter.world.device)
        self.filter.reset(rows, watched(np.asarray(frames)[mask], self.filter.world))

    def _slots(self) -> Array:
        return self.filter.outputs().cpu().numpy().copy()


def watched(frames: Array, world: LearnedWorld) -> Bool[Tensor, "n h w c"]:
    """Copies real frames to the model's device, black and white."""
    return torch.from_numpy(np.ascontiguousarray(black_and_white(frames))).to(world.device)


def check_spaces(world: LearnedWorld, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
    """Refuses environments that the world wasn't learned from.

    Raises:
        ConfigError: If the frames or the actions are others.
    """
    frame = observations.shape
    if not isinstance(observations, spaces.Box) or frame != world.frame_shape:
        raise ConfigError(
            f"the environment's observations are {observations}, expected frames {world.frame_shape} as the world "
            f"{world.folder.name} has them"
        )
    number = actions.n if isinstance(actions, spaces.Discrete) else None
    if number != world.number_of_actions:
        raise ConfigError(
            f"the environment's actions are {actions}, expected Discrete({world.number_of_actions}) as the world "
            f"{world.folder.name} knows them"
        )
