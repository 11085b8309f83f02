"""Who looks for a thing: goes to where it was seen, and as long as it was not, to where nobody looked yet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ami.nn.places import outlook
from ami.planning.routes import Field, Routes, follow
from ami.training.loop import drawn_from
from ami.training.optim import Optimisation
from ami.types import Belief, Latent, WorldModel

_SURE = 0.5  # a column shows a thing if that is likelier
_WIDE = 0.3  # metres: sights of one thing are so far apart
_AGAIN = 5  # steps for which a way is followed before another is looked for
_ENOUGH = 1.0  # weight of the sights of a thing: with less it is not known where it is
_BESIDE = 0.5  # metres: who is so near a place where nobody looked turns round until all of it was seen
_UNKNOWN = 0.04  # a place that is neither open nor shut by more was not looked at


class Sight(nn.Module):
    """What each column of a latent shows: how likely each thing is, and how far away it is then."""

    def __init__(self, dim: int, things: int, width: int = 128) -> None:
        super().__init__()
        self.things = things
        self.layers = nn.Sequential(
            nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * things)
        )

    def forward(
        self, tokens: Float[Tensor, "*rows column dim"]
    ) -> tuple[Float[Tensor, "*rows column thing"], Float[Tensor, "*rows column thing"]]:
        """Logits, and the logarithms of distances along the camera's axis (m)."""
        likely, far = self.layers(tokens).split(self.things, -1)
        return likely, far.clamp(-3.0, 3.0)


def fit_sight(
    tokens: Float[Tensor, "n column dim"], true: Float[Tensor, "n column thing"], steps: int, seed: int
) -> Sight:
    """Learn it from what is so: how far away each thing is that a column shows (m), 0 where it shows none of it."""
    generator = torch.Generator().manual_seed(seed)
    with drawn_from(seed):
        sight = Sight(tokens.shape[-1], true.shape[-1])
    optimisation = Optimisation(rate=5e-3)
    optimiser = optimisation.build(sight.parameters())
    for step in range(steps):
        row = torch.randint(len(tokens), (64,), generator=generator)
        with torch.enable_grad():
            likely, far = sight(tokens[row])
            shows = (true[row] > 0).float()
            apart = (far - true[row].clamp_min(0.05).log()).square()
            loss = functional.binary_cross_entropy_with_logits(likely, shows)
            loss = loss + (apart * shows).sum() / shows.sum().clamp_min(1.0)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = optimisation.rate_at(step, steps)
        optimiser.step()
    return sight.eval()


@dataclass(frozen=True)
class Legs:
    """How somebody walks and looks."""

    stride: float  # metres of a step
    turn: float  # radians of a step
    half: float  # tangent of half the angle that the camera spans
    routes: Routes = field(default_factory=lambda: Routes(spacing=0.2, body=0.2, reach=9.0))


@dataclass
class Seeker:
    """Somebody who seeks things by what a world model believes: where one is, what is open, and what is seen.

    With ``window`` the belief begins anew with the last few steps every so often, and what was noted of things goes
    with the old one: who remembers nothing else. Grows by :meth:`see` and :meth:`wish`, once each in a step.
    """

    model: WorldModel
    name: str  # of the embodiment
    sight: Sight
    legs: Legs
    rng: np.random.Generator
    window: int | None = None
    belief: Belief | None = None
    _lived: deque[tuple[Tensor, Tensor]] = field(init=False)  # the last latents, and what led to each
    _age: int = 0  # steps
    _notes: Float[Tensor, "note 4"] = field(default_factory=lambda: torch.zeros(0, 4))  # thing, x, y and weight
    _way: tuple[int, Tensor, Field, bool] | None = None  # the thing, the goal, and whether the thing is there
    _since: int = 0  # steps that the way was followed for
    _turned: int = 0  # steps in which one looked round where one is
    _looked: Float[Tensor, "place 2"] = field(default_factory=lambda: torch.zeros(0, 2))  # where one looked all round

    def __post_init__(self) -> None:
        self._lived = deque(maxlen=self.window or 1)

    def see(self, latent: Latent, action: Float[Tensor, "action"]) -> None:
        """Live through one more step, to which ``action`` led."""
        self._age += 1
        self._lived.append((latent.values, action[None, None]))
        if self.window is None or self._age % _AGAIN:
            self._live(*self._lived[-1])
            return
        self.belief, self._notes, self._way, self._looked = None, self._notes[:0], None, self._looked[:0]
        for values, done in self._lived:
            self._live(values, done)

    def wish(self, thing: int) -> Float[Tensor, "2"]:
        """What to do to find a thing: how far ahead and how far to the left, shares of a step."""
        pose = self.pose
        if self._way is None or self._way[0] != thing or self._since >= _AGAIN:
            self._way, self._since = self._plan(thing, pose), 0
        _, goal, ways, there = self._way
        if there and float((goal - pose[:2]).norm()) < 0.5 * _WIDE:  # one is where it should be, and it is not
            apart = (self._notes[:, 1:3] - goal).norm(dim=-1)
            self._notes = self._notes[(self._notes[:, 0] != thing) | (apart > 2 * _WIDE)]
            self._way, self._since = self._plan(thing, pose), 0
            _, goal, ways, there = self._way
        self._since += 1
        if not there and float((goal - pose[:2]).norm()) < _BESIDE:
            return self._look_round(goal)
        self._turned = 0
        return follow(ways, pose, stride=self.legs.stride, turn=self.legs.turn)

    def _look_round(self, goal: Float[Tensor, "2"]) -> Float[Tensor, "2"]:
        """Turn, always the same way; what a whole turn does not show is not asked for again."""
        self._turned += 1
        if self._turned * self.legs.turn > 2 * torch.pi:
            self._looked, self._way, self._turned = torch.cat([self._looked, goal[None]]), None, 0
        return torch.tensor([0.0, 1.0])

    def place(self, thing: int) -> Float[Tensor, "2"] | None:
        """Where it believes a thing to be, from where the belief began (m): where most sights of it lie together."""
        mine = self._notes[self._notes[:, 0] == thing]
        if not len(mine):
            return None
        near = (torch.cdist(mine[:, 1:3], mine[:, 1:3]) < _WIDE) * mine[:, 3]
        best = near[near.sum(1).argmax()]
        return (best @ mine[:, 1:3]) / best.sum() if float(best.sum()) > _ENOUGH else None

    def _live(self, values: Tensor, done: Tensor) -> None:
        latent = Latent(values, torch.zeros(1, 1))
        self.belief = self.model.believe(self.belief, latent, None if self.belief is None else done, self.name)
        likely, far = self.sight(values[0, 0])
        column, thing = (likely.sigmoid() > _SURE).nonzero().unbind(1)
        points = outlook(self.pose[None, None], far.exp()[None, None], self.legs.half)[0, 0, column, thing]
        weight = 1 / far[column, thing].exp().clamp_min(0.3)  # who is near sees better how far it is
        noted = torch.cat([thing[:, None].float(), points, weight[:, None]], 1)
        self._notes = torch.cat([self._notes, noted])

    @property
    def pose(self) -> Float[Tensor, "3"]:
        """Where it believes to be, from where its belief began."""
        assert self.belief is not None
        return self.model.where(self.belief)[0]

    def _open(self, points: Float[Tensor, "point 2"]) -> Float[Tensor, "point"]:
        assert self.belief is not None
        return self.model.free(self.belief, points[None])[0]

    def _plan(self, thing: int, pose: Float[Tensor, "3"]) -> tuple[int, Tensor, Field, bool]:
        known = self.place(thing)
        goal = self._unseen(pose) if known is None else known
        return thing, goal, self.legs.routes.to(goal, self._open), known is not None

    def _unseen(self, pose: Float[Tensor, "3"]) -> Float[Tensor, "2"]:
        """The open place beside some where nobody looked that takes the fewest steps; any open one where there is none.

        Turns count too: of two places as far away the one ahead is gone to, and the next plan does not turn back.
        """
        here = pose[:2]
        points = lattice(here, self.legs.routes)
        open_ = self._open(points.flatten(0, 1)).view(points.shape[:2])
        unknown = ((open_ - 0.5).abs() < _UNKNOWN).float()
        around = functional.avg_pool2d(unknown[None, None], 5, 1, 2)[0, 0]
        beside = functional.max_pool2d(unknown[None, None], 3, 1, 1)[0, 0]
        free = open_ > 0.6
        edge = free & (beside > 0) & (around > 0.2)
        if len(self._looked):
            edge &= torch.cdist(points.flatten(0, 1), self._looked).amin(1).view(edge.shape) > 2 * _BESIDE
        dear = self.legs.routes.to(here, self._open)(points.flatten(0, 1)).view(points.shape[:2])
        apart = points - here
        aside = torch.atan2(apart[..., 1], apart[..., 0]) - pose[2]
        turn = (torch.remainder(aside + torch.pi, 2 * torch.pi) - torch.pi).abs()
        dear = dear + turn * (self.legs.stride / self.legs.turn)
        if edge.any():
            return points.flatten(0, 1)[torch.where(edge, dear, torch.inf).argmin()]
        some = points[free & (dear < torch.inf)] if free.any() else here[None]
        return some[int(self.rng.integers(len(some)))]


def lattice(here: Float[Tensor, "2"], routes: Routes) -> Float[Tensor, "x y 2"]:
    """All places within reach of one."""
    count = int(routes.reach / routes.spacing)
    steps = torch.arange(-count, count + 1) * routes.spacing
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1) + here
