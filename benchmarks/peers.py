"""How fast other libraries' learned worlds are stepped, beside our own: one thread, steps per second of its work.

Usage: ``python -m rnem_world.benchmarks.peers [WORLD] [SECONDS]``. Prints a Markdown table with a row for each peer
that is installed, and says of every other one which command installs it. Of each is measured a latent step with its
reward, and the same step with the frame that the peer decodes from it.

Only speed is compared: the peers have random weights and the sizes that they have by default, and nothing is said of
how well any of them predicts. All compute without gradients and keep everything in PyTorch's tensors. Seconds are those
that this process has worked, so that other programs on the machine count as little as possible.

mbrl-lib is left out: it wants Gymnasium 0.26.3 and no other version, and we need 1.1 or newer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from rnem_world.envs.learned import LearnedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, RnemWorldError

BATCHES = (1, 16, 256)
ROUNDS = 5
ACTION_SIZE = 9
"""Numbers that tell a peer an action: as many as the world `balls` has actions, each of which is one of them."""
STATE_SIZE, MEMORY_SIZE, LAYER_SIZE = 30, 200, 400
"""Of both peers' Dreamers by default: a state's drawn and remembered part, and the hidden layers of the reward."""

Step = Callable[[], None]


@dataclass(frozen=True)
class Peer:
    """A library whose learned world is stepped.

    Attributes:
        package: Its name for pip.
        frame: The size of its frames, to be read by people.
        make: Makes what steps so many dreams at once, and decodes their frames if the second argument says so. Raises
            ImportError where the package isn't installed.
    """

    package: str
    frame: str
    make: Callable[[int, bool], Step]


def own_world(checkpoint: str, engine: str) -> Callable[[int, bool], Step]:
    """Chooses a world of ours and what computes it; what is returned is a `Peer.make`."""

    def make(batch: int, frames: bool) -> Step:
        envs = LearnedVectorEnv(batch, checkpoint, imagination="latent", obs_type="slots", engine=engine)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        dreams, actions = envs.dreams, envs.world.encoded(envs.action_space.sample())

        def step() -> None:
            dreams.step(actions)
            if frames:
                dreams.frames()

        return step

    return make


def torchrl_modules(batch: int, frames: bool) -> Step:
    """Makes a step of TorchRL's Dreamer, its modules called one after the other."""
    prior, reward, decoder = _torchrl_parts()
    actions = _actions(batch)
    state, belief = torch.zeros(batch, STATE_SIZE), torch.zeros(batch, MEMORY_SIZE)

    def step() -> None:
        nonlocal state, belief
        _, _, state, belief = prior(state, belief, actions)
        reward(state, belief)
        if frames:
            decoder(state, belief)

    return step


def torchrl_environment(batch: int, frames: bool) -> Step:
    """Makes a step of TorchRL's ``DreamerEnv``, as its rollouts make them."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs.model_based import DreamerEnv
    from torchrl.modules import WorldModelWrapper

    prior, reward, decoder = _torchrl_parts()
    parts = ["state", "belief"]
    world = WorldModelWrapper(
        TensorDictModule(prior, [*parts, "action"], ["_", "_", *parts]),
        # The expected reward: TorchRL's own recipe draws one around it, which would take a little longer.
        TensorDictModule(reward, parts, ["reward"]),
    )
    env = DreamerEnv(world, (STATE_SIZE,), (MEMORY_SIZE,), TensorDictModule(decoder, parts, ["pixels"]))
    specs = {"state": Unbounded((STATE_SIZE,)), "belief": Unbounded((MEMORY_SIZE,))}
    env.observation_spec, env.state_spec = Composite(specs), Composite(specs)
    env.action_spec, env.reward_spec = Bounded(-1.0, 1.0, (ACTION_SIZE,)), Unbounded((1,))
    actions = _actions(batch)
    zeros = {name: torch.zeros(batch, *spec.shape) for name, spec in specs.items()}
    dreams = env.reset(TensorDict(zeros, batch_size=[batch]))

    def step() -> None:
        nonlocal dreams
        _, dreams = env.step_and_maybe_reset(dreams.set("action", actions))
        if frames:
            env.decode_obs(dreams)

    return step


def _torchrl_parts() -> tuple[Any, Any, Any]:
    """Makes what imagines, what rewards and what draws."""
    from torchrl.data import Unbounded
    from torchrl.modules import MLP, ObsDecoder, RSSMPrior

    prior = RSSMPrior(Unbounded((ACTION_SIZE,)), action_dim=ACTION_SIZE)
    size = STATE_SIZE + MEMORY_SIZE
    reward = MLP(size, 1, depth=2, num_cells=LAYER_SIZE, activation_class=torch.nn.ELU)
    return prior, reward, ObsDecoder(latent_dim=size)


def simulusion(batch: int, frames: bool) -> Step:
    """Makes a step of Simulusion's Dreamer of the first version."""
    from simulusion.models import DreamerRSSM
    from simulusion.vision import ConvDecoder, DenseDecoder

    sizes, hidden, embedding = (STATE_SIZE, MEMORY_SIZE), MEMORY_SIZE, 1024
    rssm = DreamerRSSM(ACTION_SIZE, *sizes, hidden, embedding, "elu")
    reward = DenseDecoder(*sizes, (1,), n_layers=2, units=LAYER_SIZE, activation="elu", dist="normal")
    decoder = ConvDecoder(*sizes, (3, 64, 64), "relu")
    actions = _actions(batch)
    state = rssm.init_state(batch, torch.device("cpu"))

    def step() -> None:
        nonlocal state
        state = rssm.imagine_step(state, actions)
        features = torch.cat([state["stoch"], state["deter"]], dim=-1)
        # What both find is a distribution, whose mean is the answer.
        _ = reward(features).mean
        if frames:
            _ = decoder(features).mean

    return step


def _actions(batch: int) -> torch.Tensor:
    return 2.0 * torch.rand(batch, ACTION_SIZE) - 1.0


PEERS = {
    "TorchRL, DreamerEnv": Peer("torchrl", "64 x 64 x 3", torchrl_environment),
    "TorchRL, its modules alone": Peer("torchrl", "64 x 64 x 3", torchrl_modules),
    "Simulusion, Dreamer": Peer("simulusion", "64 x 64 x 3", simulusion),
}
ENGINES = ("torch", "onnx", "openvino-bf16")


def report(
    checkpoint: str = "balls",
    seconds: float = 1.0,
    batches: tuple[int, ...] = BATCHES,
    engines: tuple[str, ...] | None = None,
) -> str:
    """Steps our own world and every peer.

    Args:
        checkpoint: Our world.
        seconds: How long each figure is measured, at least.
        batches: Numbers of dreams.
        engines: What computes our world; None for all of `ENGINES`.

    Returns:
        A table with a row for each that is there, and a line for each that isn't.

    Raises:
        RnemWorldError: If there is no such world, or seconds isn't above 0.
    """
    if not seconds > 0.0:
        raise ConfigError(f"seconds is {seconds}, expected a number above 0")
    frame = " x ".join(map(str, World.load(checkpoint).frame_shape))
    own = {
        f"`{checkpoint}`, {engine}": Peer("rnem-world", frame, own_world(checkpoint, engine))
        for engine in (ENGINES if engines is None else engines)
    }
    cells = [(size, frames) for frames in (False, True) for size in batches]
    steps: dict[str, list[Step]] = {}
    missing = []
    for name, peer in (own | PEERS).items():
        torch.manual_seed(0)
        try:
            steps[name] = [peer.make(size, frames) for size, frames in cells]
        except RnemWorldError as error:
            missing.append(f"{name}: {error}")
        except ImportError as error:
            missing.append(f"{name}: not installed ({error}): pip install {peer.package}")
    taken = iter(_seconds_of_work([step for some in steps.values() for step in some], seconds))
    heads = [f"{size}, with frames" if frames else str(size) for size, frames in cells]
    lines = [["steps per second of work", "frames", *heads], ["---"] * (2 + len(heads))]
    for name in steps:
        peer = (own | PEERS)[name]
        rates = [f"{size / next(taken):,.0f}" for size, _ in cells]
        lines.append([f"{name} ({peer.package}{_version(peer.package)})", peer.frame, *rates])
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *([""] if missing else []), *missing])


@torch.inference_mode()
def _seconds_of_work(steps: list[Step], seconds: float) -> list[float]:
    """Times steps, each the median of several rounds: all take turns, so that a busy minute doesn't hit only one."""
    for step in steps:
        step()
        step()
    rounds: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS):
        for step, found in zip(steps, rounds, strict=True):
            count, passed, begin = 0, 0.0, time.process_time()
            while count == 0 or passed < seconds / ROUNDS:
                step()
                count, passed = count + 1, time.process_time() - begin
            found.append(max(passed, 1e-9) / count)
    return [statistics.median(found) for found in rounds]


def _version(package: str) -> str:
    try:
        return f" {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    given = sys.argv[1:]
    print(report(given[0] if given else "balls", float(given[1]) if len(given) > 1 else 1.0))


if __name__ == "__main__":
    main()
