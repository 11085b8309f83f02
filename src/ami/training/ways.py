"""Ways that lead somewhere, put together from walks that did not; and pairs of places that no walk joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ami import parallel
from ami.data.views import Over
from ami.training.perceived import PerceivedStore
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_TOGETHER = 4  # places that are connected in one go
_Lengths = tuple[int, ...]  # of the walks of a place, in moments
_BACK = 2  # steps before the start from which it is imagined, at most


@dataclass(frozen=True)
class WaySettings:
    """How the moments of a walk are joined."""

    neighbours: int = 16  # of each moment, that might be one short action away
    hop: float = 0.8  # the longest of such actions, at full effort 1: the shorter, the surer
    near: float = 2.0  # an action must be imagined to land so near, in medians of the one-step error
    least: float = 0.02  # steps that any action costs
    apart: int = 4  # moments from one goal to the next
    window: int = 1  # latents from which the model imagines what an action does
    fast: bool = False  # the model is asked in bfloat16

    @property
    def before(self) -> int:
        """Moments before the start that a clip of a way shows."""
        return _BACK + self.window - 1


class WayStore(Over[PerceivedStore]):
    """Shortest ways between the moments of each place, as clips: some moments, the start, the goal.

    A place is all walks that say so (:attr:`ami.data.episodes.EpisodeInfo.place`); what does not say is one by itself.
    Who has walked a place several times and found no way from one moment to another, nor back, takes it that there is
    none: a clip of it comes too, and there the goal comes after infinite time. The more walks, the truer that is. Where
    a way back is all that is known, nothing is said: most of what was gone through once can be gone through again.

    The time between start and goal is what the way takes at full effort, and the action between them its first. Two
    moments are joined where the action that the model proposes from one to the other is short and lands there in
    imagination, and where one really followed the other. Source: search on the replay buffer (Eysenbach et al. 2019),
    whose edges are short learned distances; here the world model checks them.
    """

    @torch.no_grad()
    def __init__(self, store: PerceivedStore, model: WorldModel, body: Embodiment, settings: WaySettings) -> None:
        super().__init__(store)
        self.settings, self.body = settings, body
        training = model.training
        model.eval()
        # By first walk: which of those that are held it belongs to, and its number there; -1 where it is none.
        self._where = np.full((len(store.episodes), 2), -1)
        self._held: list[tuple[_Lengths, _Connected]] = []
        for lengths, places in _by_lengths(store, settings.before).items():
            self._where[[walks[0] for walks in places]] = [(len(self._held), number) for number in range(len(places))]
            parts = []
            for start in range(0, len(places), _TOGETHER):
                walks = np.array(places[start : start + _TOGETHER]).T
                seen = [
                    store.clips(np.stack([episodes, np.zeros_like(episodes)], 1), length).to(parallel.device_of(model))
                    for episodes, length in zip(walks, lengths, strict=True)
                ]
                with torch.autocast(seen[0].times.device.type, torch.bfloat16, enabled=settings.fast):
                    parts.append(_connect(model, seen, body, settings))
            joined = (torch.cat(field).cpu() for field in zip(*map(_fields, parts), strict=True))
            self._held.append((lengths, _Connected(*joined)))
        model.train(training)

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (first walk, start · moments + goal) of which is known how far it is, or that no walk joins them.

        Goals are ``apart`` from one another.
        """
        found = []
        for episode in np.flatnonzero(self._where[:, 0] >= 0):
            group, number = self._where[episode]
            lengths, held = self._held[group]
            joined = held.steps[number].isfinite()
            known = joined | ~joined.T if len(lengths) > 1 else joined
            for began in _begin(lengths):
                known[began : began + self.settings.before] = False
            known[:, np.arange(sum(lengths)) % self.settings.apart != 0] = False
            pairs = known.flatten().nonzero().numpy()
            found.append(np.concatenate([np.full_like(pairs, episode), pairs], 1))
        return np.concatenate(found)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those ways, each as some moments, the start and the goal."""
        before = self.settings.before
        assert (steps, frames_per_step) == (before + 2, 1), "a way is some moments, its start and its goal"
        where, rows, found = self._where[index[:, 0]], [], []
        for group, (lengths, held) in enumerate(self._held):
            rows.append(np.flatnonzero(where[:, 0] == group))
            place, pair = torch.from_numpy(where[rows[-1], 1]), torch.from_numpy(index[rows[-1], 1])
            found.append(held.ways(place, pair // sum(lengths), pair % sum(lengths), before, _still(self.body)))
        order = torch.from_numpy(np.concatenate(rows)).argsort()
        latents, actions, taken = (torch.cat(parts)[order] for parts in zip(*found, strict=True))
        began = torch.arange(before + 1).expand(len(index), -1)
        times = torch.cat([began, before + taken[:, None]], 1) * self.body.step_seconds
        return Clip(self.body.name, times, latents=latents, actions=actions)


@dataclass(frozen=True)
class _Connected:
    """Places with walks of the same lengths, one after another, and all shortest ways in each."""

    latents: Float[Tensor, "places moments tokens dim"]
    done: Float[Tensor, "places moments action"]
    steps: Float[Tensor, "places moments moments"]  # inf where no way is known
    neighbours: Int[Tensor, "places moments neighbours"]
    costs: Float[Tensor, "places moments neighbours"]  # inf where there is no edge
    actions: Float[Tensor, "places moments neighbours action"]
    effort: Float[Tensor, "places moments neighbours"]

    def ways(
        self, place: Tensor, start: Tensor, goal: Tensor, before: int, still: Float[Tensor, "action"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and actions of each way, and the steps that it takes; ``still`` is the action of no effort."""
        moments = torch.stack([*(start - back for back in range(before, -1, -1)), goal], 1)
        through = self.costs[place, start] + self.steps[place[:, None], self.neighbours[place, start], goal[:, None]]
        taken, which = through.min(1)
        taken = torch.where(start == goal, 0.0, taken)
        # The first edge is short; who has farther to go goes on in its direction at full effort.
        stretch = taken.clamp_max(1.0) / self.effort[place, start, which].clamp_min(1e-3)
        first = still + (self.actions[place, start, which] - still) * stretch[:, None]
        done = self.done[place[:, None], moments[:, :before]]
        return self.latents[place[:, None], moments], torch.cat([done, first[:, None]], 1), taken


def _connect(model: WorldModel, clips: Sequence[Clip], body: Embodiment, settings: WaySettings) -> _Connected:
    """Several places at once; ``clips`` has the first walk of each, then the second of each, and so on."""
    past = torch.cat([_past(model.encode(clip).values, settings.window) for clip in clips], 1)
    latents = past[:, :, -1]
    done = torch.cat([functional.pad(_actions(clip), (0, 0, 0, 1)) for clip in clips], 1)
    places, moments = latents.shape[:2]
    # From the last moment of a walk nothing was done.
    goes_on = torch.cat([torch.arange(clip.steps, device=latents.device) < clip.steps - 1 for clip in clips])
    number = min(settings.neighbours, moments - 1)
    flat = latents.flatten(2)
    apart = torch.cdist(flat, flat)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    near = apart.topk(number, largest=False).indices
    rows = torch.arange(places, device=flat.device)[:, None, None]
    here, there = past[:, :, None].expand(-1, -1, number, -1, -1, -1), latents[rows, near]
    belief = Belief(body.name, _latent(here.flatten(0, 2)))
    acted = model.propose(belief, _latent(there.flatten(0, 2)[:, None]), 1)
    landed = model.predict(belief, acted, 1).values[:, 0].view_as(there)
    was = Belief(body.name, _latent(past[:, goes_on].flatten(0, 1)))
    expected = model.predict(was, done[:, goes_on].flatten(0, 1)[:, None], 1).values[:, 0]
    error = (expected - latents.roll(-1, 1)[:, goes_on].flatten(0, 1)).flatten(1).norm(dim=-1).median()
    acted = acted[:, 0].view(places, moments, number, -1)
    effort = _effort(acted, body)
    lands = (landed - there).flatten(3).norm(dim=-1) <= settings.near * error + 1e-5
    costs = torch.where(lands & (effort <= settings.hop), effort.clamp_min(settings.least), torch.inf)
    # What was really done is one more edge.
    following = torch.arange(1, moments + 1, device=flat.device).clamp_max(moments - 1).expand(places, -1)
    real = _effort(done, body)
    real_costs = torch.where(goes_on, real.clamp_min(settings.least), torch.inf)
    near, costs = torch.cat([near, following[..., None]], 2), torch.cat([costs, real_costs[..., None]], 2)
    acted, effort = torch.cat([acted, done[:, :, None]], 2), torch.cat([effort, real[..., None]], 2)
    steps = flat.new_full((places, moments, moments), torch.inf).scatter_reduce_(2, near, costs, "amin")
    steps.diagonal(dim1=1, dim2=2).zero_()
    for middle in range(moments):  # Floyd 1962, Warshall 1962
        torch.minimum(steps, steps[:, :, middle, None] + steps[:, None, middle], out=steps)
    return _Connected(latents, done, steps, near, costs, acted, effort)


def _actions(clip: Clip) -> Float[Tensor, "batch time-1 action"]:
    assert clip.actions is not None
    return clip.actions


def _effort(actions: Float[Tensor, "*batch action"], body: Embodiment) -> Float[Tensor, "*batch"]:
    """The length of an action, where half of its range is 1, and never more than 1."""
    half = (actions.new_tensor(body.high) - actions.new_tensor(body.low)) / 2
    return torch.linalg.vector_norm((actions - _still(body).to(actions)) / half, dim=-1).clamp_max(1.0)


def _still(body: Embodiment) -> Float[Tensor, "action"]:
    """The middle of an action's range."""
    return (torch.tensor(body.low) + torch.tensor(body.high)) / 2


def _past(
    latents: Float[Tensor, "walks moments tokens dim"], window: int
) -> Float[Tensor, "walks moments window tokens dim"]:
    """The last ``window`` latents at each moment; a walk was still before it began."""
    ago = torch.arange(window - 1, -1, -1, device=latents.device)
    moments = torch.arange(latents.shape[1], device=latents.device)
    return latents[:, (moments[:, None] - ago).clamp_min(0)]


def _latent(values: Float[Tensor, "rows time tokens dim"]) -> Latent:
    return Latent(values, values.new_zeros(values.shape[:2]))


def _by_lengths(store: PerceivedStore, before: int) -> dict[_Lengths, list[tuple[int, ...]]]:
    """The walks of each place that are long enough to show a way, by how long they are."""
    places: dict[str | int, list[int]] = {}
    for episode in store.perceived:
        if (info := store.episodes[episode]).length > before + 1:
            places.setdefault(info.place or episode, []).append(episode)
    found: dict[_Lengths, list[tuple[int, ...]]] = {}
    for walks in places.values():
        found.setdefault(tuple(store.episodes[episode].length for episode in walks), []).append(tuple(walks))
    return found


def _begin(lengths: Sequence[int]) -> list[int]:
    """The first moment of each walk."""
    return [sum(lengths[:number]) for number in range(len(lengths))]


def _fields(places: _Connected) -> tuple[Tensor, ...]:
    return tuple(getattr(places, name) for name in places.__dataclass_fields__)
