"""A way through what is believed to be open: shortest ways over a lattice of places, and what to do first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import maximum_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

# How open each point of the plane is believed to be, from 0 to 1: points (point 2), metres, to (point).
Openness = Callable[[Float[Tensor, "point 2"]], Float[Tensor, "point"]]


@dataclass(frozen=True)
class Routes:
    """How far it is to a goal from everywhere near it, by shortest ways over a lattice of places.

    A metre through what is believed to be shut costs ``shut`` metres more, so a way is found even where nothing open
    is known. Who is ``near`` the goal has arrived, if nothing but the thing itself is believed to stand between: so
    no way ends on the other side of a wall. Source: Dijkstra 1959.
    """

    spacing: float = 0.1  # metres between the points of the lattice
    body: float = 0.2  # metres that must be open all round
    reach: float = 7.5  # metres from the goal to the lattice's sides
    shut: float = 100.0
    near: float = 0.5  # metres
    thing: float = 0.25  # metres about the goal that may be shut, for something is there

    def to(self, goal: Float[Tensor, "2"], openness: Openness) -> Field:
        """The distances to ``goal`` (m), from all places within reach."""
        count = int(self.reach / self.spacing)
        steps = np.arange(-count, count + 1) * self.spacing
        side = len(steps)
        x, y = np.meshgrid(steps + float(goal[0]), steps + float(goal[1]), indexing="ij")
        open_ = openness(torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2)).float()).double().numpy()
        shut = 1 - open_.clip(0, 1).reshape(side, side)
        price = 1 + self.shut * maximum_filter(shut, size=2 * round(self.body / self.spacing) + 1)
        cell = np.arange(side * side).reshape(side, side)
        starts, ends, costs = [], [], []
        for right, up, far in ((1, 0, 1.0), (0, 1, 1.0), (1, 1, 2**0.5), (1, -1, 2**0.5)):
            one = np.s_[: side - right, max(0, -up) : side - max(0, up)]
            other = np.s_[right:, max(0, up) : side + min(0, up)]
            starts.append(cell[one].ravel())
            ends.append(cell[other].ravel())
            costs.append((price[one] + price[other]).ravel() / 2 * far * self.spacing)
        start, end, cost = (np.concatenate(each) for each in (starts, ends, costs))
        arrived, left = self._arrived(np.stack([x.ravel(), y.ravel()], -1), goal.numpy(), openness)
        goal_cell = side * side  # one more than there are places: all that have arrived lead on to it
        start, end = np.append(start, arrived), np.append(end, np.full(len(arrived), goal_cell))
        graph = coo_matrix((np.append(cost, left), (start, end)), shape=(goal_cell + 1, goal_cell + 1))
        distance = dijkstra(graph.tocsr(), directed=False, indices=goal_cell)[:-1].reshape(side, side)
        return Field(RegularGridInterpolator((x[:, 0], y[0]), distance, bounds_error=False, fill_value=np.inf))

    def _arrived(
        self, places: Float[np.ndarray, "place 2"], goal: Float[np.ndarray, "2"], openness: Openness
    ) -> tuple[Int[np.ndarray, "near"], Float[np.ndarray, "near"]]:
        """The places that are near the goal with nothing in between, and how far it still is, metres."""
        apart = places - goal
        far = np.linalg.norm(apart, axis=-1)
        near = np.nonzero(far <= self.near)[0]
        apart, far = apart[near, None], far[near]
        rest = (1 - self.thing / far.clip(self.thing))[:, None, None]
        line = goal + apart * (1 - rest * np.linspace(0, 1, 8)[:, None])
        open_ = openness(torch.from_numpy(line.reshape(-1, 2)).float()).view(len(near), -1).amin(1).numpy() > 0.5
        if not open_.any():  # nothing open is known there
            return near[far.argmin() :][:1], np.zeros(1)
        return near[open_], far[open_]


@dataclass(frozen=True)
class Field:
    """The distance to one goal from every place, metres; infinite beyond what was reached."""

    _at: RegularGridInterpolator

    def __call__(self, places: Float[Tensor, "place 2"]) -> Float[Tensor, "place"]:
        return torch.from_numpy(self._at(places.numpy())).float()


def follow(
    field: Field, pose: Float[Tensor, "3"], *, stride: float, turn: float, choices: int = 15
) -> Float[Tensor, "2"]:
    """The action (ahead, turn; shares of a ``stride``, metres, and of a ``turn``, radians) that goes down a field.

    It turns towards the way on which the distance falls most, and walks once that is nearly ahead.
    """
    turns = torch.linspace(-torch.pi, torch.pi, 4 * choices + 1)
    heading = pose[2] + turns
    ahead = pose[:2] + 1.4 * stride * torch.stack([torch.cos(heading), torch.sin(heading)], -1)
    best = turns[field(ahead).argmin()]
    return torch.stack([(1 - best.abs() / turn).clamp(0, 1), (best / turn).clamp(-1, 1)])
