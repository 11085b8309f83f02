"""Two searches in a row: the second begins where the first ended, as a descent that settles what sampling found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.search import Found, Search, Task


@dataclass(frozen=True)
class Mixture(Search):
    """Plans with ``first``, then with ``then`` from the plan found so far; the better of the two is the plan.

    Sampling looks round walls that a gradient does not see, and a gradient settles in a few steps what sampling only
    surrounds. Source of the idea: Bharadhwaj et al. 2020, "Model-predictive control via cross-entropy and
    gradient-based optimization".
    """

    first: Search
    then: Search

    def __post_init__(self) -> None:
        if self.first.together != self.then.together:
            raise ValueError(
                f"the first search imagines {self.first.together} plans together and the second "
                f"{self.then.together}; give both the same"
            )

    @property
    def together(self) -> int:
        """Plans imagined in one call of the model."""
        return self.first.together

    @property
    def descends(self) -> bool:
        """Whether either does."""
        return self.first.descends or self.then.descends

    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """Those of the first search, then those of the second."""
        best = None
        for leader in self.first.leaders(task, guess, generators):
            best = leader if best is None else best.or_better(leader)
            yield leader
        assert best is not None, "a search makes at least one call of the model"
        yield from self.then.leaders(task, best.actions, generators)
