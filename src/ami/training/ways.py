"""Ways that lead somewhere, put together from walks that did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ami import parallel
from ami.data.episodes import EpisodeInfo
from ami.training.perceived import PerceivedStore
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_TOGETHER = 16  # walks that are connected in one go
BEFORE = 2  # moments before the start that a clip of a way shows


@dataclass(frozen=True)
class WaySettings:
    """How the moments of a walk are joined."""

    neighbours: int = 16  # of each moment, that might be one short action away
    hop: float = 0.8  # the longest of such actions, at full effort 1: the shorter, the surer
    near: float = 2.0  # an action must be imagined to land so near, in medians of the one-step error
    least: float = 0.02  # steps that any action costs
    apart: int = 4  # moments from one goal to the next


class WayStore:
    """Shortest ways between the moments of each walk, as clips: some moments, the start, the goal.

    The time between start and goal is what the way takes at full effort, and the action between them its first. Two
    moments are joined where the action that the model proposes from one to the other is short and lands there in
    imagination, and where one really followed the other. Source: search on the replay buffer (Eysenbach et al. 2019),
    whose edges are short learned distances; here the world model checks them.
    """

    @torch.no_grad()
    def __init__(self, store: PerceivedStore, model: WorldModel, body: Embodiment, settings: WaySettings) -> None:
        self.store, self.settings, self.body = store, settings, body
        training = model.training
        model.eval()
        self._walks: dict[int, tuple[int, int]] = {}  # episode: its place among those of its length
        self._held: dict[int, _Connected] = {}  # length: walks
        for length, episodes in _by_length(store).items():
            self._walks |= {episode: (length, place) for place, episode in enumerate(episodes)}
            parts = []
            for start in range(0, len(episodes), _TOGETHER):
                index = np.array([[episode, 0] for episode in episodes[start : start + _TOGETHER]])
                clip = store.clips(index, length).to(parallel.device_of(model))
                parts.append(_connect(model, clip, body, settings))
            joined = (torch.cat(field).cpu() for field in zip(*map(_fields, parts), strict=True))
            self._held[length] = _Connected(*joined)
        model.train(training)

    @property
    def folder(self) -> Path:
        """Where the walks lie."""
        return self.store.folder

    @property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        """The walks."""
        return self.store.episodes

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (walk, start · length + goal) between which a way is known; goals ``apart`` from one another."""
        found = []
        for episode, (length, place) in self._walks.items():
            known = self._held[length].steps[place].isfinite()
            known[:BEFORE], known[:, np.arange(length) % self.settings.apart != 0] = False, False
            pairs = known.flatten().nonzero().numpy()
            found.append(np.concatenate([np.full_like(pairs, episode), pairs], 1))
        return np.concatenate(found)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those ways, each as ``BEFORE`` moments, the start and the goal."""
        assert (steps, frames_per_step) == (BEFORE + 2, 1), "a way is some moments, its start and its goal"
        rows = []
        for length in sorted({self._walks[int(episode)][0] for episode, _ in index}):
            inside = [row for row, (episode, _) in enumerate(index) if self._walks[int(episode)][0] == length]
            walk = torch.tensor([self._walks[int(index[row, 0])][1] for row in inside])
            pair = torch.from_numpy(index[inside, 1])
            rows.append((inside, self._held[length].ways(walk, pair // length, pair % length)))
        order = torch.tensor([row for inside, _ in rows for row in inside]).argsort()
        latents, actions, taken = (torch.cat([way[part] for _, way in rows])[order] for part in range(3))
        began = torch.arange(BEFORE + 1).expand(len(index), -1)
        times = torch.cat([began, BEFORE + taken[:, None]], 1) * self.body.step_seconds
        return Clip(self.body.name, times, latents=latents, actions=actions)


@dataclass(frozen=True)
class _Connected:
    """Walks of one length, and all shortest ways in each."""

    latents: Float[Tensor, "walks moments tokens dim"]
    done: Float[Tensor, "walks moments action"]
    steps: Float[Tensor, "walks moments moments"]  # inf where no way is known
    neighbours: Int[Tensor, "walks moments neighbours"]
    costs: Float[Tensor, "walks moments neighbours"]  # inf where there is no edge
    actions: Float[Tensor, "walks moments neighbours action"]
    effort: Float[Tensor, "walks moments neighbours"]

    def ways(self, walk: Tensor, start: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and actions of each way, and the steps that it takes."""
        moments = torch.stack([*(start - back for back in range(BEFORE, -1, -1)), goal], 1)
        through = self.costs[walk, start] + self.steps[walk[:, None], self.neighbours[walk, start], goal[:, None]]
        taken, which = through.min(1)
        taken = torch.where(start == goal, 0.0, taken)
        # The first edge is short; who has farther to go goes on in its direction at full effort.
        stretch = taken.clamp_max(1.0) / self.effort[walk, start, which].clamp_min(1e-3)
        first = self.actions[walk, start, which] * stretch[:, None]
        done = self.done[walk[:, None], moments[:, :BEFORE]]
        return self.latents[walk[:, None], moments], torch.cat([done, first[:, None]], 1), taken


def _connect(model: WorldModel, clip: Clip, body: Embodiment, settings: WaySettings) -> _Connected:
    assert clip.actions is not None
    latents = model.encode(clip).values
    walks, moments = latents.shape[:2]
    number = min(settings.neighbours, moments - 1)
    flat = latents.flatten(2)
    near = torch.cdist(flat, flat).topk(number + 1, largest=False).indices[..., 1:]
    rows = torch.arange(walks, device=flat.device)[:, None, None]
    here, there = latents[:, :, None].expand(-1, -1, number, -1, -1), latents[rows, near]
    belief = Belief(body.name, _one(here.flatten(0, 2)))
    acted = model.propose(belief, _one(there.flatten(0, 2)), 1)
    landed = model.predict(belief, acted, 1).values[:, 0].view_as(there)
    was = Belief(body.name, _one(latents[:, :-1].flatten(0, 1)))
    done = model.predict(was, clip.actions.flatten(0, 1)[:, None], 1).values[:, 0]
    error = (done - latents[:, 1:].flatten(0, 1)).flatten(1).norm(dim=-1).median()
    acted = acted[:, 0].view(walks, moments, number, -1)
    effort = _effort(acted, body)
    lands = (landed - there).flatten(3).norm(dim=-1) <= settings.near * error + 1e-5
    costs = torch.where(lands & (effort <= settings.hop), effort.clamp_min(settings.least), torch.inf)
    # What was really done is one more edge; from the last moment nothing was.
    following = torch.arange(1, moments + 1, device=flat.device).clamp_max(moments - 1).expand(walks, -1)
    real = _effort(clip.actions, body)
    real_costs = functional.pad(real.clamp_min(settings.least), (0, 1), value=torch.inf)
    near, costs = torch.cat([near, following[..., None]], 2), torch.cat([costs, real_costs[..., None]], 2)
    padded = functional.pad(clip.actions, (0, 0, 0, 1))
    acted, effort = torch.cat([acted, padded[:, :, None]], 2), torch.cat([effort, _effort(padded, body)[..., None]], 2)
    steps = flat.new_full((walks, moments, moments), torch.inf).scatter_reduce_(2, near, costs, "amin")
    steps.diagonal(dim1=1, dim2=2).zero_()
    for middle in range(moments):  # Floyd 1962, Warshall 1962
        torch.minimum(steps, steps[:, :, middle, None] + steps[:, None, middle], out=steps)
    return _Connected(latents, padded, steps, near, costs, acted, effort)


def _effort(actions: Float[Tensor, "*batch action"], body: Embodiment) -> Float[Tensor, "*batch"]:
    """The length of an action, where half of its range is 1, and never more than 1."""
    low, high = actions.new_tensor(body.low), actions.new_tensor(body.high)
    return torch.linalg.vector_norm((actions - (low + high) / 2) / ((high - low) / 2), dim=-1).clamp_max(1.0)


def _one(values: Float[Tensor, "rows tokens dim"]) -> Latent:
    return Latent(values[:, None], values.new_zeros(len(values), 1))


def _by_length(store: PerceivedStore) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for episode in store.perceived:
        if (length := store.episodes[episode].length) > BEFORE + 1:
            found.setdefault(length, []).append(episode)
    return found


def _fields(walks: _Connected) -> tuple[Tensor, ...]:
    return tuple(getattr(walks, name) for name in walks.__dataclass_fields__)
