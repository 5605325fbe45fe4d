"""Whether dreams obey: dreams under the actions of other players than those of the training data.

A world that has learnt what its players would do may dream that, whatever it is told. So the real environment is played
by others: who act by chance, hold one action, stay, or do the opposite of the data's players. Beside each plays a twin
who does something else (`rnem_world.agents.twins`): the pixels in which the two differ are those that the actions
decide, and a dream obeys if these are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from rnem_world.actions import ActionSpace
from rnem_world.agents.base import BASELINES, Agent, RandomAgent, StayAgent, baseline
from rnem_world.agents.guests import make_players
from rnem_world.agents.mixture import MixedAgent, parse_mixture
from rnem_world.agents.scores import columns
from rnem_world.agents.twins import Twins, is_of_balls, play_twins
from rnem_world.config import check_at_least
from rnem_world.data.dataset import Dataset
from rnem_world.envs.any import AnyVectorEnv
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.real import is_game, real_game, real_rules
from rnem_world.envs.start_source import context_frames
from rnem_world.envs.vector import BatchedVectorEnv
from rnem_world.envs.world import World
from rnem_world.errors import ConfigError, DataError
from rnem_world.evaluation.imagination import evaluate_imagination
from rnem_world.evaluation.imagination_figures import NOTHING, ImaginationFigures
from rnem_world.evaluation.truth import LANES, Truth, objects_of
from rnem_world.models.rollout import RolloutConfig
from rnem_world.seeding import derive_seed, numpy_generator, torch_generator

USUAL_PLAYERS = "random:0.5,repeated-random:0.5"
"""Who plays as the data's players, where nobody knows who they were."""
OTHERS = ("random", "hold", "stay", "opposite")
"""Who plays beside them: by chance with every step, holding one action for an episode, staying, doing the opposite."""
LEADS = (0, 8, 32)
"""Steps after which the frames begin that are watched, each for a third of the environments."""
SHORTEST_CONTEXT = 3
HORIZONS = (1, 5, 10, 20)


@dataclass(frozen=True)
class ObedienceConfig:
    """What is measured.

    Attributes:
        horizon: Frames to imagine.
        context: Real frames before; None takes 16, or what a quarter of an episode has.
        episodes: Real episodes for each player.
        players: The data's players, see `rnem_world.agents.guests.make_players`; None for those that the data names.
        trust_policy: Whether the user vouches for files of policies among them.
        imagination: ``latent``, ``pixels``, or None: latent if the model can.
        seed: Of everything.

    Raises:
        ConfigError: If a value makes no sense.
    """

    horizon: int = 20
    context: int | None = None
    episodes: int = 96
    players: str | None = None
    trust_policy: bool = False
    imagination: str | None = None
    seed: int = 20_000

    def __post_init__(self) -> None:
        check_at_least(self, 1, "horizon", "episodes")
        check_at_least(self, SHORTEST_CONTEXT, "context")
        check_at_least(self, 0, "seed")


@dataclass(frozen=True)
class ObedienceFigures:
    """How dreams under one player's actions compare with reality. Lists have one entry for each imagined frame.

    Attributes:
        player: Who has acted.
        steered: Part of the pixels that the actions decide which the dream has right; -1 where they decide none.
        steered_exact: Part of the frames in which it has all of them right.
        steered_copy: The part that a copy of the last real frame has right.
        figures: Of whole frames, of objects or the player where they are known, rewards and ends.
    """

    player: str
    steered: list[float]
    steered_exact: list[float]
    steered_copy: list[float]
    figures: ImaginationFigures

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        return {**vars(self), "figures": self.figures.to_dict()}


class HoldAgent(RandomAgent):
    """Draws an action for each episode and holds it to its end."""

    def reset(self, num_envs: int) -> None:
        """Draws anew everywhere."""
        self._held = self._drawn(num_envs)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Draws anew for episodes that have begun."""
        drawn = self._drawn(len(begun))
        self._held = np.where(begun.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, self._held)

    def act(self, observations: Any) -> NDArray[Any]:
        """Gives what is held."""
        return self.actions.decode(self._held)


class OppositeAgent:
    """Does the opposite of what another chooses: the last action for the first, and so on; real numbers mirrored.

    Args:
        agent: The other.
        actions: What there is to do.
    """

    def __init__(self, agent: Agent, actions: ActionSpace) -> None:
        self._agent, self._actions = agent, actions

    def reset(self, num_envs: int) -> None:
        """Lets the other start anew."""
        self._agent.reset(num_envs)

    def restart(self, begun: Bool[np.ndarray, " n"]) -> None:
        """Lets the other forget."""
        self._agent.restart(begun)

    def act(self, observations: Any) -> NDArray[Any]:
        """Turns the other's choice around."""
        space = self._actions
        chosen = space.encode(self._agent.act(observations))
        if space.kind == "box":
            bounds = zip(space.low, space.high, strict=True)
            ends = [0.0 if low is None or high is None else low + high for low, high in bounds]
            return space.decode(np.array(ends) - chosen)
        last = np.array(space.sizes if space.stored_shape else space.sizes[0]) - 1
        return space.decode(last - chosen)


def measure_obedience(
    world: World, config: ObedienceConfig, report: Callable[[str], None] = lambda line: None
) -> list[ObedienceFigures]:
    """Measures dreams under the actions of the data's players, and of others.

    Args:
        world: The world, which knows its real environment.
        config: What is measured.
        report: Is told what happens.

    Returns:
        The figures of the data's players, then those of the others.

    Raises:
        ConfigError: If the world takes no actions, there is but one, or its real environment isn't known.
        RnemWorldError: If the environment can't be played.
    """
    if not world.takes_actions or world.actions.sizes == (1,):
        raise ConfigError(
            f"{world.folder.name} knows no actions to choose from, so that it can't be told to do anything"
        )
    own = players_of(world) if config.players is None else config.players
    makers: dict[str, Callable[[BatchedVectorEnv, np.random.Generator], Agent]] = {
        own: partial(_own_players, policy=own, trusted=config.trust_policy),
        "random": lambda env, generator: RandomAgent(world.actions, generator),
        "hold": lambda env, generator: HoldAgent(world.actions, generator),
        "stay": lambda env, generator: StayAgent(world.actions, generator),
    }
    if any(each.name not in BASELINES for each in parse_mixture(own)):  # the opposite of chance is chance
        make_own = makers[own]
        makers["opposite"] = lambda env, generator: OppositeAgent(make_own(env, generator), world.actions)
    context = config.context or max(context_frames(world), SHORTEST_CONTEXT)
    found = []
    for name, make in makers.items():
        report(f"playing: {name}")
        parts = [
            play_twins(
                world,
                lambda env, make=make, name=name: make(env, numpy_generator(config.seed, "player", name)),  # type: ignore[misc]
                number,
                lead,
                context,
                config.horizon,
                config.seed + 1000 * index,
            )
            for index, (lead, number) in enumerate(_shares(config.episodes))
        ]
        found.append(_measured(world, name, [part for part in parts if part.lasts.shape[1]], config))
    return found


def _shares(episodes: int) -> Iterator[tuple[int, int]]:
    """Shares episodes out among the leads."""
    for index, lead in enumerate(LEADS):
        number = (episodes - index + len(LEADS) - 1) // len(LEADS)
        if number:
            yield lead, number


def players_of(world: World) -> str:
    """Names the players of the data that a world was learned from, or the usual ones where nobody knows them."""
    data = world.config.data_path
    if data is None or not data.exists():
        return USUAL_PLAYERS
    try:
        with Dataset.open(data) as dataset:
            named = str(dataset.attributes.settings.get("policy") or USUAL_PLAYERS).replace(" + ", ",")
        players = parse_mixture(named)
    except (ConfigError, DataError):
        return USUAL_PLAYERS
    can_play = all(each.name in BASELINES or (":" in each.name and world.config.recipe) for each in players)
    return named if can_play else USUAL_PLAYERS


def _own_players(env: BatchedVectorEnv, generator: np.random.Generator, policy: str, trusted: bool) -> Agent:
    if isinstance(env, AnyVectorEnv):
        return make_players(env, generator, policy, trusted)
    players = parse_mixture(policy)
    draws, *generators = generator.spawn(1 + len(players))
    space = ActionSpace.of(env.single_action_space)
    agents = [baseline(each.name, space, own) for each, own in zip(players, generators, strict=True)]
    return MixedAgent(agents, [each.share for each in players], draws)


def _measured(world: World, player: str, parts: list[Twins], config: ObedienceConfig) -> ObedienceFigures:
    """Dreams on from the contexts of some twins, and compares."""
    if not parts:
        raise DataError(
            f"no episode that {player} plays goes on after the frames that are watched: give a shorter context"
        )
    context = len(parts[0].frames) - config.horizon
    truth = _truth(world, parts)
    imagination = config.imagination or world.ways[0]
    noise = world.config.training.noise.usual_strength
    how = RolloutConfig(context - 1, config.horizon, imagination, noise)  # type: ignore[arg-type]  # checked by dreams
    generator = torch_generator(derive_seed(config.seed, player), device=world.device)
    figures = evaluate_imagination(world.model, truth, how, generator)
    others, twin_lasts = (
        torch.from_numpy(np.concatenate([getattr(part, name) for part in parts], axis=1).swapaxes(0, 1))
        for name in ("others", "twin_lasts")
    )
    drawn = _dreamt(world, truth, context, config.horizon, imagination)
    real = truth.frames[:, context:]
    decided = world.model.likelihood.differ(real, _as_seen(world, others.numpy()))
    decided &= (truth.lasting(slice(context, None)) & twin_lasts.to(world.device))[..., None, None]

    def part(frames: Float[Tensor, "n t c h w"]) -> tuple[list[float], list[float]]:
        """Gives the part of the decided pixels that are right, and of the frames in which all are."""
        right = ~world.model.likelihood.differ(frames, real) & decided
        counts, hits = decided.sum(dim=(2, 3)).double(), right.sum(dim=(2, 3)).double()
        share = torch.where(counts > 0, hits / counts.clamp(min=1.0), torch.nan)
        exact = torch.where(counts > 0, (hits == counts).double(), torch.nan)
        return tuple(  # type: ignore[return-value]
            [round(value, 4) for value in each.nanmean(dim=0).nan_to_num(nan=NOTHING).tolist()]
            for each in (share, exact)
        )

    steered, exact = part(drawn)
    copied, _ = part(truth.frames[:, context - 1, None].expand_as(real))
    return ObedienceFigures(player, steered, exact, copied, figures)


def _truth(world: World, parts: list[Twins]) -> Truth:
    """Puts what happened together, as imagination is measured by it."""

    def together(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts], axis=1).swapaxes(0, 1)

    def on_device(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(world.device)

    objects = lane = None
    if is_of_balls(world):
        groups, positions = (
            on_device(np.concatenate([part.truth[name] for part in parts], axis=1).swapaxes(0, 1))
            for name in ("groups", "positions")
        )
        rules = vars(real_rules(world))
        objects = objects_of(groups[..., 0].to(torch.uint8), positions.to(torch.float32), rules)
    elif is_game(world):
        lane = LANES.get(real_game(world)) if world.model.likelihood.is_binary else None
    return Truth(
        _as_seen(world, together("frames")),
        on_device(together("actions")),
        on_device(together("rewards")),
        on_device(together("terminations")),
        on_device(together("lasts")),
        objects,
        lane,
    )


def _as_seen(world: World, frames: NDArray[Any]) -> Float[Tensor, "n t c h w"]:
    return world.inputs(world.frames_for_model(frames))


def _dreamt(
    world: World, truth: Truth, context: int, horizon: int, imagination: str
) -> Float[Tensor, "n t c h w"]:
    """Dreams on as environments do, and gives the frames that they would show."""
    actions = truth.actions
    if actions is None:
        raise ConfigError("no actions were recorded, and dreams are to obey them")
    dreams = DreamBatch(world, len(truth.frames), None, imagination)
    begun = world.encode(truth.frames[:, :context], actions[:, : context - 1], dreams.slots)
    dreams.begin(torch.arange(len(truth.frames), device=world.device), begun)
    shown = []
    for step in range(context - 1, context - 1 + horizon):
        dreams.step(actions[:, step])
        shown.append(world.inputs(dreams.frames()))
    return torch.stack(shown, dim=1)


def obedience_table(found: list[ObedienceFigures]) -> list[str]:
    """Lays figures out as lines of text, a row for each player."""
    horizon = found[0].figures.horizon
    after = [number for number in HORIZONS if number <= horizon]
    rows = [["after so many imagined frames", *map(str, after)]]
    curves_of = [_curves(each) for each in found]
    for title in curves_of[0]:
        rows.append([title, *[""] * len(after)])
        for each, curves in zip(found, curves_of, strict=True):
            cells = [curves[title][number - 1] for number in after]
            rows.append([f"  {each.player}", *("-" if cell == NOTHING else f"{cell:.3f}" for cell in cells)])
    return columns(rows)


def _curves(found: ObedienceFigures) -> dict[str, list[float]]:
    """Names the curves of a player that are worth a table; those that there are not are left out."""
    figures = found.figures
    curves = {
        "what actions decide, right": found.steered,
        "all of it right": found.steered_exact,
        "... right in a copy of the last frame": found.steered_copy,
        "wrong pixels of whole frames": figures.frames.wrong_pixels,
    }
    curves |= {f"channel {name} exact": curve for name, curve in figures.frames.exact_channels.items()}
    if figures.objects is not None:
        curves |= {
            "player's error, radii": figures.objects.player_errors,
            "player within its radius": figures.objects.player_within,
        }
    if figures.player is not None:
        curves["player's error, pixels"] = figures.player.player_error
    return curves
