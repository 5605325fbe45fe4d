"""Search trees of many worlds in the same tensors: choosing leaves and backing up what they are worth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class Leaves(NamedTuple):
    """One leaf a tree, as (node, action) from which it follows, and the way to it.

    Attributes:
        nodes: Int64 (n,), the node above the leaf.
        actions: Int64 (n,), what leads from there to the leaf.
        path: Int64 (n, s), the nodes from the root on; ``path_actions`` (n, s) what was done there.
        path_actions: See ``path``.
        on_path: Bool (n, s), which entries of the path there are.
        depth: Int64 (n,), the leaf's depth.
        can_expand: Bool (n,), False where the episode or the horizon ends, or the leaf is being expanded already.
    """

    nodes: Tensor
    actions: Tensor
    path: Tensor
    path_actions: Tensor
    on_path: Tensor
    depth: Tensor
    can_expand: Tensor


class Tree:
    """N trees. A node is an expanded state; what is known of its children is kept at the node, by action.

    Args:
        worlds: N.
        actions: Number of actions, A.
        horizon: Depth at which the trees end.
        exploration: Weight of UCT's bonus.
        trusts_best: Whether a child is worth its best rollout, not the mean.
        device: Where it lives.

    Attributes:
        expansions: Nodes that every tree has room for and that have been used.
        best_returns: Float (n, a), the best return that was seen after each first action.
        best_sequences: Int64 (n, a, h), how it was earned.
    """

    def __init__(
        self,
        *,
        worlds: int,
        actions: int,
        horizon: int,
        exploration: float,
        trusts_best: bool,
        device: torch.device,
    ) -> None:
        self.expansions = 0
        self._horizon, self._exploration = horizon, exploration
        self._trusts_best = trusts_best
        self._numbers = torch.arange(worlds, device=device)
        shape = (worlds, 0, actions)
        self._visits = torch.zeros(shape, device=device)
        self._pending = torch.zeros(shape, device=device)
        self._totals = torch.zeros(shape, device=device)
        self._best = torch.zeros(shape, device=device)
        self._rewards = torch.zeros(shape, device=device)
        self._worth = torch.zeros(shape, device=device)
        self._children = torch.zeros(shape, dtype=torch.int64, device=device)
        self._low = torch.full((worlds,), torch.inf, device=device)
        self._high = torch.full((worlds,), -torch.inf, device=device)
        self.best_returns = torch.full((worlds, actions), -torch.inf, device=device)
        self.best_sequences = torch.zeros((worlds, actions, horizon), dtype=torch.int64, device=device)

    @property
    def capacity(self) -> int:
        """Nodes that every tree has room for."""
        return self._visits.shape[1]

    def grow(self, nodes: int) -> None:
        """Makes room for so many nodes in every tree."""
        more = nodes - self.capacity
        for name in ("_visits", "_pending", "_totals", "_best", "_rewards", "_worth", "_children"):
            old = getattr(self, name)
            fill = -1 if name == "_children" else 0
            new = torch.full((old.shape[0], more, old.shape[2]), fill, dtype=old.dtype, device=old.device)
            setattr(self, name, torch.cat([old, new], dim=1))

    def root(self) -> Leaves:
        """Returns the roots, which are the leaves of empty trees."""
        zeros = torch.zeros_like(self._numbers)
        nothing = torch.zeros((len(zeros), 0), dtype=torch.int64, device=zeros.device)
        return Leaves(zeros, zeros, nothing, nothing, nothing.bool(), zeros, torch.ones_like(zeros).bool())

    def descend(self, first_new: int, node: int) -> Leaves:
        """Walks down every tree to a leaf, which will become a node.

        Args:
            first_new: Nodes from here on are being expanded and have no children yet.
            node: The number of the node that the leaf will be.
        """
        at = torch.zeros_like(self._numbers)
        active = torch.ones_like(at, dtype=torch.bool)
        nodes, actions, walked = [], [], []
        last_node, last_action, depth = at, at, torch.zeros_like(at)
        can_expand = torch.zeros_like(active)
        for level in range(1, self._horizon + 1):
            action = self._scores(at).argmax(dim=1)
            nodes.append(at)
            actions.append(action)
            walked.append(active)
            last_node = torch.where(active, at, last_node)
            last_action = torch.where(active, action, last_action)
            depth = depth + active
            child = self._children[self._numbers, at, action]
            ended = self._worth[self._numbers, at, action] == 0.0
            can_expand |= active & (child < 0) & ~ended & (level < self._horizon)
            active = active & (child >= 0) & (child < first_new)
            if not bool(active.any()):
                break
            at = torch.where(active, child, at)
        path, path_actions, on_path = (torch.stack(steps, 1) for steps in (nodes, actions, walked))
        # Visits that are under way are counted, so that the next leaf of the same batch is another (WU-UCT).
        self._pending.index_put_(
            (self._numbers[:, None], path, path_actions), on_path.float(), accumulate=True
        )
        leaf = (self._numbers, last_node, last_action)
        self._children[leaf] = torch.where(can_expand, node, self._children[leaf])
        return Leaves(last_node, last_action, path, path_actions, on_path, depth, can_expand)

    def add(
        self,
        leaves: Leaves,
        node: int,
        rewards: Float[Tensor, "n a"],
        worth: Float[Tensor, "n a"],
        returns: Float[Tensor, "n a"],
        rollouts: Int64[Tensor, "n a h"],
    ) -> None:
        """Makes leaves into nodes and backs up what their children have earned.

        Args:
            leaves: The leaves.
            node: The number of the nodes that they become.
            rewards: What the step to each child earned.
            worth: What the rewards behind it are worth: the discount, by how probable it is that the episode goes on.
            returns: That and what the child's rollout earned.
            rollouts: The actions from each child on; those beyond the horizon aren't looked at.
        """
        self.expansions = max(self.expansions, node + 1)
        real = leaves.can_expand
        self._visits[:, node] = real[:, None].float().expand_as(returns)
        self._totals[:, node] = returns
        self._best[:, node] = returns
        self._rewards[:, node] = rewards
        self._worth[:, node] = worth
        self._see(returns, real)
        for level in range(leaves.path.shape[1] - 1, -1, -1):
            here = leaves.on_path[:, level]
            edge = (self._numbers, leaves.path[:, level], leaves.path_actions[:, level])
            above = self._rewards[edge][:, None] + self._worth[edge][:, None] * returns
            # Where nothing could be expanded, a visit repeats what is known of the last edge.
            known = self._totals[edge] / self._visits[edge].clamp(min=1.0)
            count = torch.where(real, float(returns.shape[1]), 1.0)
            total = torch.where(real, above.sum(dim=1), known)
            self._visits[edge] += torch.where(here, count, 0.0)
            self._totals[edge] += torch.where(here, total, 0.0)
            best = torch.maximum(self._best[edge], above.amax(dim=1))
            self._best[edge] = torch.where(here & real, best, self._best[edge])
            returns = torch.where(here[:, None], above, returns)
            self._see(returns, here & real)
        self._remember(leaves, returns, rollouts)
        self._pending.zero_()

    def _see(self, returns: Float[Tensor, "n a"], counts: Bool[Tensor, " n"]) -> None:
        """Widens the range of values by which they are scaled."""
        self._low = torch.where(counts, torch.minimum(self._low, returns.amin(dim=1)), self._low)
        self._high = torch.where(counts, torch.maximum(self._high, returns.amax(dim=1)), self._high)

    def _remember(
        self, leaves: Leaves, returns: Float[Tensor, "n a"], rollouts: Int64[Tensor, "n a h"]
    ) -> None:
        """Keeps the best sequence after each first action."""
        n, a = returns.shape
        steps = leaves.path.shape[1]
        padded = torch.nn.functional.pad(leaves.path_actions, (0, self._horizon - steps))
        position = torch.arange(self._horizon, device=returns.device)
        since = position - leaves.depth[:, None]
        tail = torch.cat(
            [torch.arange(a, device=returns.device)[None, :, None].expand(n, -1, -1), rollouts], dim=2
        )
        tail = tail.gather(2, since.clamp(min=0)[:, None].expand(-1, a, -1))
        sequences = torch.where((since >= 0)[:, None], tail, padded[:, None])
        if steps:
            value, child = returns.max(dim=1)
            first, best = leaves.path_actions[:, 0], sequences[self._numbers, child]
            edge = (self._numbers, first)
            better = leaves.can_expand & (value > self.best_returns[edge])
            self.best_returns[edge] = torch.where(better, value, self.best_returns[edge])
            self.best_sequences[edge] = torch.where(better[:, None], best, self.best_sequences[edge])
        else:
            self.best_returns, self.best_sequences = returns, sequences

    def decision(self) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        """Returns the roots' best actions and what they are worth.

        With ``trusts_best`` the action with the best rollout, among equals that with the best mean; else the one
        that was tried most often, among equals that with the best mean.
        """
        visits, means = self._visits[:, 0], self._totals[:, 0] / self._visits[:, 0]
        first = self._best[:, 0] if self._trusts_best else visits
        among = first >= first.amax(dim=1, keepdim=True) - 1e-6
        action = torch.where(among, means, -torch.inf).argmax(dim=1)
        values = (self._best[:, 0] if self._trusts_best else means)[self._numbers, action]
        return action, values

    def _scores(self, nodes: Int64[Tensor, " n"]) -> Float[Tensor, "n a"]:
        """UCT's scores of the children: value scaled to 0 to 1, and a bonus."""
        visits = self._visits[self._numbers, nodes]
        totals, best = self._totals[self._numbers, nodes], self._best[self._numbers, nodes]
        values = best if self._trusts_best else totals / visits.clamp(min=1.0)
        scale = (self._high - self._low).clamp(min=1e-6)
        scaled = (values - self._low[:, None]) / scale[:, None]
        tried = (visits + self._pending[self._numbers, nodes]).clamp(min=1.0)
        bonus = torch.sqrt(torch.log(tried.sum(dim=1, keepdim=True)) / tried)
        return scaled + self._exploration * bonus
