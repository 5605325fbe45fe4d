"""Monte Carlo tree search over many worlds at once, with leaves that are expanded in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium import spaces
from jaxtyping import Bool, Int64
from torch import Tensor

from rnem_world.agents.dynamics import Dynamics, State
from rnem_world.agents.planner import Deadline, Plan, Planner, PlannerConfig, check_finite, follow
from rnem_world.agents.tree import Leaves, Tree
from rnem_world.config import check_at_least, check_between, check_one_of
from rnem_world.errors import ConfigError


@dataclass(frozen=True)
class MCTSConfig(PlannerConfig):
    """What MCTS can be told beside what `PlannerConfig` says.

    Attributes:
        horizon: Depth: a simulation's steps in the tree and in its rollout are as many together.
        simulations: Leaves that are tried with a rollout for one decision, in every world. All children of a leaf
            are tried at once, so that it is rounded up to a multiple of the number of actions.
        exploration: Weight of the bonus for what has seldom been tried, UCT's c. Values are scaled to 0 to 1.
        leaves: Leaves that are expanded at once in every tree. More are faster and a little less well chosen.
        backup: ``mean`` averages rollouts; ``max`` believes the best one, which is right where the world does what
            it says.
        rollout: ``random`` actions, ``hold`` the one that led to the leaf, or ``mixed``: either of them by chance.
        warm_start: Whether the first rollout follows the last plan.
    """

    horizon: int = 10
    simulations: int = 100
    exploration: float = 1.0
    leaves: int = 3
    backup: str = "max"
    rollout: str = "mixed"
    warm_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "simulations", "leaves")
        check_between(self, 0.0, 1000.0, "exploration")
        check_one_of(self, "backup", ("mean", "max"))
        check_one_of(self, "rollout", ("random", "hold", "mixed"))


class MCTSPlanner(Planner[State]):
    """UCT (Kocsis and Szepesvari, 2006) for deterministic worlds with discrete actions.

    One tree for each world, all in the same tensors: a simulation walks down all trees, expands their leaves by all
    actions in one call of the dynamics, and tries all children by rollouts in one batch. The best sequence of a plan
    guides the first rollout of the next one.

    Raises:
        ConfigError: If the world's actions aren't discrete.
    """

    config: MCTSConfig

    def __init__(self, dynamics: Dynamics[State], config: MCTSConfig, generator: torch.Generator) -> None:
        if not isinstance(dynamics.action_space, spaces.Discrete):
            raise ConfigError(
                f"mcts needs discrete actions, and these are {dynamics.action_space}: use icem or mppi"
            )
        super().__init__(dynamics, config, generator)
        self._actions = int(dynamics.action_space.n)

    def forget(self, worlds: Bool[Tensor, " n"] | None = None) -> None:
        """Forgets the last plan, for all worlds or for some."""
        if worlds is None:
            self._incumbent = None
        elif self._incumbent is not None:
            self._incumbent[worlds] = -1  # what no action is, so that no rollout follows it

    @torch.no_grad()
    def plan(self, state: State) -> Plan:
        """Plans; see `Planner.plan`."""
        config, dynamics = self.config, self.dynamics
        deadline = Deadline(config.milliseconds, dynamics.device)
        n = dynamics.size(state)
        if self._incumbent is not None and len(self._incumbent) != n:
            self._incumbent = None
        tree = Tree(
            worlds=n,
            actions=self._actions,
            horizon=config.horizon,
            exploration=config.exploration,
            trusts_best=config.backup == "max",
            device=dynamics.device,
        )
        nodes = -(-config.simulations // self._actions)
        tree.grow(nodes)
        numbers = torch.arange(n, device=dynamics.device)
        # Row (node * n + world) * actions + action of the store is the state of that child.
        store = dynamics.select(
            state, torch.zeros(nodes * n * self._actions, dtype=torch.int64, device=numbers.device)
        )
        self._expand(tree, [tree.root()], state, numbers, store)
        while not deadline.is_over() if deadline.is_set else tree.expansions < nodes:
            first = tree.expansions
            leaves = config.leaves if deadline.is_set else min(config.leaves, nodes - first)
            if first + leaves > tree.capacity:
                tree.grow(2 * (first + leaves))
                store = self._grown(store, tree.capacity * n * self._actions)
            chosen = [tree.descend(first, first + index) for index in range(leaves)]
            rows = torch.cat([(leaf.nodes * n + numbers) * self._actions + leaf.actions for leaf in chosen])
            self._expand(tree, chosen, store, rows, store)
        actions, values = tree.decision()
        if config.warm_start:
            best = tree.best_sequences[numbers, actions]
            self._incumbent = torch.cat([best[:, 1:], best[:, -1:]], dim=1)
        return Plan(actions, values, tree.expansions * self._actions)

    def _expand(
        self, tree: Tree, leaves: list[Leaves], source: State, rows: Int64[Tensor, " m"], store: State
    ) -> None:
        """Tries all children of the leaves, stores their states and backs up their returns.

        Args:
            tree: The trees.
            leaves: Leaves to become the next nodes.
            source: Where the leaves' states are.
            rows: In which rows.
            store: Where the children's states go.
        """
        a, n, first = self._actions, len(leaves[0].nodes), tree.expansions
        device = rows.device
        repeated = rows.repeat_interleave(a)
        children = first * n * a + torch.arange(len(repeated), device=device)
        actions = torch.arange(a, device=device).repeat(len(rows))
        left = self.config.horizon - 1 - torch.cat([leaf.depth for leaf in leaves]).repeat_interleave(a)
        rollouts = self._rollouts(actions, n, is_root=first == 0)
        longest = int(left.max())
        parts = []
        size, discount, repeat = self.config.rows, self.config.discount, self.config.action_repeat
        for start in range(0, len(repeated), size):
            part = slice(start, start + size)
            worlds = self.dynamics.select(source, repeated[part])
            ones = torch.ones(len(repeated[part]), device=device)
            state, earned, weights = follow(
                self.dynamics, worlds, actions[part, None], ones, discount, repeat
            )
            # Stored before the rollouts go on from it, since a state may be one that is changed in place.
            self.dynamics.put(store, children[part], state)
            tails = rollouts[part, :longest]
            rest = follow(self.dynamics, state, tails, weights, discount, repeat, left[part])[1]
            parts.append((earned, weights, earned + rest))
        rewards, worth, returns = (torch.cat(column).reshape(-1, n, a) for column in zip(*parts, strict=True))
        # A leaf that can't be expanded was stepped for nothing; what its world did is of no interest.
        real = torch.stack([leaf.can_expand for leaf in leaves])[:, :, None]
        rewards, returns = torch.where(real, rewards, 0.0), torch.where(real, returns, 0.0)
        check_finite(returns)
        for index, leaf in enumerate(leaves):
            tail = rollouts.reshape(len(leaves), n, a, rollouts.shape[1])[index]
            tree.add(leaf, first + index, rewards[index], worth[index], returns[index], tail)

    def _rollouts(self, actions: Int64[Tensor, " m"], worlds: int, is_root: bool) -> Int64[Tensor, "m h"]:
        """Draws what to do from each child on."""
        shape = (len(actions), self.config.horizon - 1)
        if self.config.rollout == "hold":
            drawn = actions[:, None].repeat(1, shape[1])
        else:
            drawn = torch.randint(self._actions, shape, generator=self._generator, device=actions.device)
        if self.config.rollout == "mixed":
            held = torch.rand(len(actions), 1, generator=self._generator, device=actions.device) < 0.5
            drawn = torch.where(held, actions[:, None], drawn)
        if is_root and self._incumbent is not None:
            follows = self._incumbent[:, 0].repeat_interleave(self._actions) == actions
            last = self._incumbent[:, 1:].repeat_interleave(self._actions, dim=0)
            drawn = torch.where(follows[:, None], last, drawn)
        return drawn

    def _grown(self, store: State, rows: int) -> State:
        """Returns a store with more rows."""
        old = torch.arange(self.dynamics.size(store), device=self.dynamics.device)
        return self.dynamics.select(store, torch.cat([old, old.new_zeros(rows - len(old))]))
