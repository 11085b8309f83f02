"""What other memories than one of places recall of a walk, with the same eyes: taught here, on walks of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.cells import CELLS, Cell, Teaching, taught
from ami.evaluation.suites.recall import Recall, explores, known_markers, share
from ami.evaluation.walking import Walked, markers
from ami.nn.places import between
from ami.types import Clip, Latent, WorldModel
from ami.worlds import maze_walks
from ami.worlds.maze import EMBODIMENT, NAME, Mazes, Seen

_APART = 6_000_011
_TOGETHER = 50  # walks that are perceived at a time


@dataclass(frozen=True)
class Cells:
    """Which colour is the marker on that wall? Asked of a model of places, and of other memories beside it."""

    ages: tuple[int, ...] = (10, 100, 300)
    tour: int = 250  # steps in one half of a maze of two, before the other
    lessons: int = 250  # walks from which the cells learn
    clip: int = 128  # steps of each
    teaching: Teaching = field(default_factory=Teaching)

    able = staticmethod(explores)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "recall/cells"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        how = self.teaching
        return (
            f"recall/cells: as recall/marker, {self.tour} steps in the first half. 'GRU' and 'minGRU' hold "
            f"{2 * how.width} numbers; 'attention' holds all of the past and looks through it for each answer. They "
            f"learn from the model's frozen latents of {self.lessons} other walks of {self.clip} steps in such mazes, "
            f"in {how.steps} steps of {how.batch} walks, to tell what is seen from where the walk leads. They are "
            "told the true pose, and the model is not.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Teach the cells, then walk ``n`` walks with them."""
        self.able(model)
        began, rng = time.perf_counter(), np.random.default_rng([_APART + asking.seed, 0])
        cells = self._taught(model, asking)
        mazes = _mazes(n, rng)
        half = np.broadcast_to(np.arange(50) < 25, (n, 50))
        steps = self.tour + max(self.ages)
        one = maze_walks.walk(mazes, maze_walks.starts(mazes, rng, half), self.tour, rng, half)
        two = maze_walks.walk(mazes, one[0][:, -1], steps - self.tour, rng, ~half)
        poses, actions = np.concatenate([one[0], two[0][:, 1:]], 1), np.concatenate([one[1], two[1]], 1)
        walked, asked = Beside(model, mazes, poses, actions, cells=cells), markers(mazes)
        columns, last = np.zeros(asked.face.shape, int), np.full(asked.face.shape, -1)
        done = {age: np.zeros(asked.face.shape, bool) for age in self.ages}
        told: dict[int, list[tuple[np.ndarray, dict[str, np.ndarray]]]] = {age: [] for age in self.ages}
        for step in range(steps + 1):
            seen = asked.seen(walked.step())
            columns, last = columns + seen, np.where(seen > 0, step, last)
            for age in self.ages:
                due = known_markers(columns) & (step - last == age) & ~done[age]
                done[age] |= due
                told[age] += [Recall.ask(walked, asked, due)] if due.any() else []
            if step % 50 == 0:
                asking.tell("walking beside other cells", step, steps)
        results, rng = [], np.random.default_rng(asking.seed)
        for age, answers in told.items():
            rows = np.concatenate([rows for rows, _ in answers]) if answers else np.zeros(0, int)
            if len(np.unique(rows)) > 1:
                right = {who: np.concatenate([each[who] for _, each in answers]) for who in answers[0][1]}
                seconds = time.perf_counter() - began
                results.append(share(f"{self.name}/age-{age}", rows, right, asking.seed, rng, seconds))
        return Answer(tuple(results))

    def _taught(self, model: WorldModel, asking: Asking) -> dict[str, Cell]:
        """Every cell, from the same walks."""
        rng = np.random.default_rng([_APART + asking.seed, 1])
        mazes = _mazes(self.lessons, rng)
        walked = maze_walks.walk(mazes, maze_walks.starts(mazes, rng), self.clip - 1, rng)[0]
        parts = [slice(first, first + _TOGETHER) for first in range(0, self.lessons, _TOGETHER)]
        seen = torch.cat([_perceived(model, mazes.rows(part), walked[part]) for part in parts])
        poses, cells = torch.from_numpy(walked).float(), {}
        since = between(poses[:, :1].expand_as(poses), poses)
        for place, kind in enumerate(CELLS):
            asking.tell("teaching other cells", place, len(CELLS))
            with torch.enable_grad():
                cells[kind] = taught(kind, seen, since, self.teaching, torch.Generator().manual_seed(asking.seed))
        return cells


@dataclass
class Beside(Walked):
    """A walk, with cells that live through it beside the model and are told where they are."""

    cells: dict[str, Cell] = field(default_factory=dict)
    held: dict[str, Tensor] = field(init=False, default_factory=dict)

    def step(self) -> Seen:
        """Go on by one step, look, and keep what is seen."""
        seen, every = super().step(), slice(self.now, self.now + 1)
        here = self.from_start(np.arange(len(self.poses)), self.poses[:, every])
        for who, cell in self.cells.items():
            self.held[who] = cell.keep(self.held.get(who), self.tokens[:, every], here)
        return seen

    def others(self, index: Tensor, asked: Float[Tensor, "k view 3"], seen: Latent) -> dict[str, Tensor]:
        """The cells."""
        answers = seen.values.unflatten(1, (asked.shape[1], -1))
        return {who: cell.misfits(self.held[who][index], asked, answers) for who, cell in self.cells.items()}


def _mazes(count: int, rng: np.random.Generator) -> Mazes:
    """Of two halves that one gate joins."""
    return maze_walks.sample(count, rng, 10, 5, gate=True)


def _perceived(
    model: WorldModel, mazes: Mazes, poses: Float[np.ndarray, "batch steps 3"]
) -> Float[Tensor, "batch steps column dim"]:
    """What the model perceives along each walk."""
    shown = np.stack([mazes.look(poses[:, step])[0] for step in range(poses.shape[1])], 1)
    video = torch.from_numpy(shown).permute(0, 1, 4, 2, 3)[:, :, None]
    times = torch.arange(poses.shape[1]).expand(len(poses), -1) * EMBODIMENT.step_seconds
    return model.encode(Clip(NAME, times.float(), video)).values


ASKED = ((Cells(), 6),)
SUITES = (Suite("cells", ASKED),)
