"""From what is held now and what will be done to what comes next."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ami.types import Embodiment


class ActionDoor(nn.Module):
    """One embodiment's front door: its actions, whatever their number, become a condition of the model's width.

    Actions are normalised here with the mean and deviation of the training data. A passive embodiment has only the
    learned constant, which says what kind of world this is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.weight = nn.Parameter(torch.randn(width, len(mean)) / max(len(mean), 1) ** 0.5) if mean else None
        self.kind = nn.Parameter(torch.zeros(width))

    def forward(
        self, action: Float[Tensor, "batch action"] | None, context: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch width"]:
        """The condition of one step, added to what is the same at all of them.

        One step at a time: the conditions of a whole horizon in one product would not stay in cache, and took longer.
        """
        same = context + self.kind
        if self.weight is None or action is None:
            return same
        return torch.addmm(same, self.normal(action), self.weight.T)

    def normal(self, actions: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Actions in deviations of the training data."""
        return (actions - self.mean) / self.std


class ResidualPredictor(nn.Module):
    """One step of dynamics: a residual network that adds a change to the state.

    ``context`` is what does not change on the way (the scene), so a rollout projects it once. The last layer begins at
    zero: an untrained model expects that nothing changes.
    """

    def __init__(self, *, history: int, context: int, width: int, depth: int, state: int) -> None:
        super().__init__()
        self.state = nn.Linear(history, width)
        self.context = nn.Linear(context, width, bias=False)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.change = nn.Linear(width, state)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, history: Float[Tensor, "rows history"], condition: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows state"]:
        """How the state changes in one step."""
        hidden = self.state(history).add_(condition).relu_()
        for layer in self.layers:
            more = layer(hidden).relu_()
            # In place where no gradient needs the old one: planning is a third faster for it.
            hidden = hidden + more if torch.is_grad_enabled() else hidden.add_(more)
        return self.change(hidden)


class Ways(nn.Module):
    """From a state, ``aim`` numbers of a goal and the scene: how many steps it is to the goal, and what to do first.

    Networks alike. The number is a softplus, so never negative; the action lies inside the embodiment's bounds. What
    ``judges`` also says how likely it is that any way leads there. With ``landmarks`` there is room for so many
    moments of a place, a state and a scene each.
    """

    low: Tensor
    high: Tensor
    landmarks: Tensor

    def __init__(
        self, dim: int, width: int, depth: int, body: Embodiment, *, aim: int, judges: bool = False, landmarks: int = 0
    ) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(landmarks, 2, dim), persistent=landmarks > 0)
        self.register_buffer("low", torch.tensor(body.low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(body.high, dtype=torch.float32), persistent=False)
        network = partial(ResidualPredictor, history=dim, context=aim + dim, width=width, depth=depth)
        self.far, self.first = network(state=1), network(state=body.action_dim)
        self.any = network(state=1) if judges else None

    def steps(
        self,
        state: Float[Tensor, "*batch dim"],
        goal: Float[Tensor, "*batch aim"],
        scene: Float[Tensor, "*batch dim"],
    ) -> Float[Tensor, "*batch"]:
        """How far it is."""
        return functional.softplus(self._ask(self.far, state, goal, scene)[..., 0].float())

    def action(
        self, state: Float[Tensor, "*batch dim"], goal: Float[Tensor, "*batch aim"], scene: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch action"]:
        """What to do first."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle + half * self._ask(self.first, state, goal, scene).float().clamp(-1.0, 1.0)

    def chance(
        self, state: Float[Tensor, "*batch dim"], goal: Float[Tensor, "*batch aim"], scene: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch"]:
        """The logarithm of the odds that there is any way."""
        assert self.any is not None, "it was not built to judge"
        return self._ask(self.any, state, goal, scene)[..., 0].float()

    @staticmethod
    def _ask(head: ResidualPredictor, state: Tensor, goal: Tensor, scene: Tensor) -> Tensor:
        return head(state, head.context(torch.cat([goal, scene], -1)))


_NEAR_STATE = 0.25  # deviations in each dimension: so near to a lesson's state it counts
_NEAR_ACTION = 1.1  # and so near to its action
_DOUBT = 0.1  # lessons that say "as predicted", held from the beginning


def mended(
    lessons: Float[Tensor, "batch lessons lesson"],
    state: Float[Tensor, "batch dim"],
    action: Float[Tensor, "batch action"] | None,
) -> Float[Tensor, "batch dim"]:
    """What to add to a prediction, from lessons (state, action, what was missed): a kernel regression.

    Source: Nadaraya 1964, with a prior that nothing is missed.
    """
    asked = state if action is None else torch.cat([state, action], -1)
    held, missed = lessons.split([asked.shape[-1], state.shape[-1]], -1)
    far = (asked[:, None] - held) * _nearness(state.shape[-1], asked.shape[-1], asked.device)
    weight = torch.exp(-far.square().sum(-1))
    return (weight[:, None] @ missed)[:, 0] / (weight.sum(1, keepdim=True) + _DOUBT)


@lru_cache(maxsize=32)
def _nearness(dim: int, numbers: int, device: torch.device) -> Float[Tensor, "numbers"]:
    """What each number's distance is multiplied by: those of a state, and then those of an action."""
    acted = numbers - dim
    state, action = [1 / (_NEAR_STATE * (2 * dim) ** 0.5)], [1 / (_NEAR_ACTION * (2 * max(acted, 1)) ** 0.5)]
    with torch.inference_mode(False):  # the table is kept, also for who will ask for gradients
        return torch.tensor(dim * state + acted * action, device=device)
