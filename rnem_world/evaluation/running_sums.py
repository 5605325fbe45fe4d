"""Sums of curves and scores over sequences, added up batch by batch and over processes."""

from __future__ import annotations

import torch
from torch import Tensor

from rnem_world.distributed import Processes


class RunningSums:
    """Running sums over sequences of curves and scores.

    Attributes:
        values: Sums by name.
        counts: Number of sequences by name.
        counts_in: Whether what is added counts; else only the names do.
    """

    def __init__(self) -> None:
        self.counts_in = True
        self.values: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Adds what some sequences sum up to.

        Args:
            name: Of what.
            total: Their sum.
            count: How many they are.
        """
        total = total.detach().double().cpu()
        if not self.counts_in:
            total, count = torch.zeros_like(total), 0
        self.values[name] = self.values[name] + total if name in self.values else total
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, processes: Processes) -> None:
        """Adds up the sums of all processes, which have the same names."""
        for name, value in self.values.items():
            merged = processes.sum(torch.cat([value.reshape(-1), value.new_tensor([self.counts[name]])]))
            self.values[name], self.counts[name] = merged[:-1].reshape(value.shape), int(merged[-1])

    def mean(self, name: str) -> Tensor:
        """Gives the mean over the sequences that were counted."""
        return self.values[name] / self.counts[name]
