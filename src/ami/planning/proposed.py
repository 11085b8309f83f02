"""No search: what the model proposes toward the goal is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.costs import goals_of
from ami.planning.search import Found, Search, Task, groups
from ami.types import Belief, Cost, Latent, Plan, WorldModel


@dataclass(frozen=True)
class Proposed(Search):
    """Mode 1: the model's own proposal is the plan, imagined once to know where it leads and what it costs.

    Source: LeCun 2022, "A path towards autonomous machine intelligence", section 3.1.
    """

    goal: Latent  # one step, a row for each plan
    together: int = 1  # plans imagined in one call of the model

    @torch.no_grad()
    def plan(self, model: WorldModel, cost: Cost, belief: Belief, *, horizon: int, **asked: Any) -> Plan:
        """As any search, from what the model proposes in place of ``first_guess``."""
        parts = [
            model.propose(belief.rows(index), goals_of(self.goal, index), horizon)
            for index in groups(len(belief), self.together, belief.latents.values.device)
        ]
        asked["first_guess"] = torch.cat(parts)[: len(belief)]
        return super().plan(model, cost, belief, horizon=horizon, **asked)

    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """The proposal, and nothing else."""
        yield task.imagine(guess[:, None])[1]
