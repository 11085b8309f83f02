"""Planning to a budget of milliseconds: the best so far when the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.search import Found, Search, Task


@dataclass(frozen=True)
class Anytime(Search):
    """Plans with another search, and stops it in time.

    The first guess is imagined before anything else, alone: with a budget of 0 it is the plan. No call of the model is
    begun that would not end in time if it took as long as the slowest so far, so an answer is never late by more than
    one call. Each group of plans imagined together has the whole budget, so that planning for many episodes at once
    gives each what it would have alone.
    """

    search: Search
    budget_ms: float
    clock: Callable[[], float] = time.perf_counter  # seconds

    def __post_init__(self) -> None:
        if not self.budget_ms >= 0:
            raise ValueError(f"a budget is 0 milliseconds or more, not {self.budget_ms}")

    @property
    def together(self) -> int:
        """Plans imagined in one call of the model."""
        return self.search.together

    @property
    def descends(self) -> bool:
        """Whether that search does."""
        return self.search.descends

    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """The first guess, then those of the search until the time is up."""
        begun = self.clock()
        deadline, slowest = begun + self.budget_ms / 1000, 0.0
        alone = task.imagine(guess[:, None])[1]
        for leader in chain([alone], self.search.leaders(task, guess, generators)):
            leader.cost.tolist()  # a GPU answers at once and works on: wait, or the clock tells nothing
            yield leader
            now = self.clock()
            slowest = max(slowest, now - begun)
            if now + slowest >= deadline:
                return
            begun = now
