"""Real frames turned into slots, so that a policy trained in a learned world acts in the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int64, Num, UInt8
from torch import Tensor

from rnem_world.envs.episodes import Array, reset_mask_of
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError
from rnem_world.models.layers import own_precision
from rnem_world.models.world_model import DreamState, SlotState

SETTLE_STEPS = 4
"""Times that the first frame is shown where nobody has measured what a world needs. Measured on `balls`, 256 sequences:
after one more frame the FG-ARI is .52 without it, .89 with 3 times, .93 with 5; more often makes slots expect that
nothing ever moves."""


class SlotFilter:
    """Slots that watch N real environments.

    Args:
        world: The world model.
        number: N.
        num_slots: Slots; None takes the model's own.
        settle_steps: How often a first frame is shown before anything happens, so that slots find their objects; None
            for what was measured when the world was trained, see `rnem_world.evaluation.settling`, else 4.
        engine: What computes steps, see `rnem_world.envs.engine.make_engine`.

    Raises:
        ConfigError: If a number makes no sense.
    """

    def __init__(
        self,
        world: World,
        number: int,
        num_slots: int | None = None,
        settle_steps: int | None = None,
        engine: str = "auto",
    ) -> None:
        if settle_steps is None:
            measured = world.config.settle_steps
            settle_steps = SETTLE_STEPS if measured is None else measured
        if settle_steps < 0:
            raise ConfigError(f"settle_steps is {settle_steps}, expected at least 0")
        self.world = world
        self.number = number
        self.slots = world.check_slots(num_slots)
        self._settle_steps = settle_steps
        world.engine(engine)  # refused here, and not at the first frame
        self._engine = engine
        self._state = world.empty_slots(number, self.slots)
        height, width, channels = world.frame_shape
        self._frames = torch.zeros(number, channels, height, width, device=world.device, dtype=torch.float32)
        self._output: Tensor | None = None

    @torch.inference_mode()
    @own_precision
    def reset(self, rows: Int64[Tensor, " m"], frames: Tensor) -> None:
        """Shows first frames, as often as the world needs it, to empty slots.

        Args:
            rows: Which of the N.
            frames: Theirs, as `World.frames_for_model` gives them.
        """
        seen = self.world.inputs(frames)
        state = self.world.empty_slots(len(rows), self.slots)
        # What is seen before is the same frame, of which nothing has moved, or none at all.
        before = state.frame if self._settle_steps == 0 else seen
        # Where none is looked at again, that still says what slots expect of the frame that is shown now.
        for step in range(max(self._settle_steps, 1)):
            stay = self.world.actions_for_model(self.world.still_actions(len(rows), step))
            settled, output = self.world.engine(self._engine).observe(state, seen, stay, seen)
            state = settled if self._settle_steps else state
        if self._output is None:
            self._output = output.new_zeros(self.number, *output.shape[1:])
        old = self._state
        self._state = SlotState(
            old.theta.index_copy(0, rows, state.theta),
            old.prediction.index_copy(0, rows, state.prediction),
            old.gamma.index_copy(0, rows, state.gamma),
            None if old.frame is None or before is None else old.frame.index_copy(0, rows, before),
        )
        self._frames = self._frames.index_copy(0, rows, seen)
        self._output = self._output.index_copy(0, rows, output)

    @torch.inference_mode()
    @own_precision
    def step(self, actions: Num[Tensor, "n ..."], frames: Tensor) -> None:
        """Shows the frames that followed the actions.

        Args:
            actions: What was done, as `World.encoded` gives it.
            frames: What came of it, as `World.frames_for_model` gives it.
        """
        seen = self.world.inputs(frames)
        taken = self.world.actions_for_model(actions)
        self._state, self._output = self.world.engine(self._engine).observe(
            self._state, self._frames, taken, seen
        )
        self._frames = seen

    def outputs(self) -> Float[Tensor, "n k d"]:
        """Gives the slots' output, as `LearnedEnv` does: what they expected of the frame that is shown now."""
        if self._output is None:
            raise ConfigError("no frames have been shown yet: call reset first")
        return self._output

    def frames(self) -> UInt8[Tensor, "n h w c"]:
        """Gives the frames that are shown now, 0 and 255."""
        return self.world.model.likelihood.to_uint8(self._frames).permute(0, 2, 3, 1)

    def gamma(self) -> Float[Tensor, "n k h w"]:
        """Gives the slots' responsibilities for the frame that is shown now."""
        return self._state.gamma[:, :, 0]

    @torch.inference_mode()
    @own_precision
    def start_imagination(self) -> DreamState:
        """Gives dreams that go on from here, for planning."""
        return self.world.model.start_imagination(self._state, self.outputs(), self._frames)


class SlotObservation(gymnasium.Wrapper[Array, Any, Array, Any], RecordConstructorArgs):
    """Shows the slots of a world model that watches the environment's frames.

    The slots are those of `LearnedEnv` with ``obs_type="slots"``: what the model expected of the frame that is shown
    now, from all frames before it and the action. What surprised it shows one step later.

    Args:
        env: An environment whose observations are frames, uint8 (H, W, C), and whose actions are the world's.
        checkpoint: As for `LearnedEnv`, as are the next two.
        num_slots: Slots.
        device: Where the model is.
        settle_steps: As for `SlotFilter`.

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
        settle_steps: int | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, checkpoint=checkpoint, num_slots=num_slots, device=device, settle_steps=settle_steps
        )
        gymnasium.Wrapper.__init__(self, env)
        world = World.load(checkpoint, device)
        world.check_spaces(env.observation_space, env.action_space)
        self.filter = SlotFilter(world, 1, num_slots, settle_steps)
        self.observation_space = world.slot_space(self.filter.slots)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Resets the environment and shows the slots its first frame."""
        frame, info = self.env.reset(seed=seed, options=options)
        device = self.filter.world.device
        self.filter.reset(torch.zeros(1, dtype=torch.int64, device=device), self._watched(frame))
        return self._slots(), info

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        """Acts, and shows the slots what came of it."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        self.filter.step(self.filter.world.encoded(np.asarray(action)[None]), self._watched(frame))
        return self._slots(), reward, terminated, truncated, info

    def _watched(self, frame: Array) -> Tensor:
        return self.filter.world.frames_for_model(np.asarray(frame)[None])

    def _slots(self) -> Array:
        return self.filter.outputs()[0].cpu().numpy().copy()


class SlotVectorObservation(VectorWrapper):
    """`SlotObservation` for vector environments, in all three autoreset modes, with one batched model.

    Args:
        env: As for `SlotObservation`, as are the next ones.
        checkpoint: The world.
        num_slots: Slots.
        device: Where the model is.
        settle_steps: As for `SlotFilter`.

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
        settle_steps: int | None = None,
    ) -> None:
        super().__init__(env)
        world = World.load(checkpoint, device)
        world.check_spaces(env.single_observation_space, env.single_action_space)
        self.filter = SlotFilter(world, env.num_envs, num_slots, settle_steps)
        self.single_observation_space = world.slot_space(self.filter.slots)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._waiting = np.zeros(env.num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Resets environments, and shows the slots their first frames."""
        mask = reset_mask_of((options or {}).get("reset_mask"), self.num_envs)
        frames, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # VectorEnv's are narrow
        self._begin(mask, frames)
        self._waiting[mask] = False
        return self._slots(), info

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Acts, and shows the slots what came of it."""
        frames, rewards, terminations, truncations, info = self.env.step(actions)
        over = np.asarray(terminations | truncations)
        shown = np.asarray(frames)
        begun = self._waiting
        if self._autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            begun = over
            shown = shown.copy()
            shown[over] = np.stack(list(info["final_obs"][over]))
        done = self.filter.world.encoded(np.asarray(actions))
        self.filter.step(done, self.filter.world.frames_for_model(shown))
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
        self.filter.reset(rows, self.filter.world.frames_for_model(np.asarray(frames)[mask]))

    def _slots(self) -> Array:
        return self.filter.outputs().cpu().numpy().copy()
