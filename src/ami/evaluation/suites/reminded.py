"""Another life in the same house: what a new belief knows once it is reminded of moments kept on disk."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.suites.recall import Recall, explores, known_markers, share
from ami.evaluation.walking import Walked, markers
from ami.memory.episodic import About, Memory
from ami.memory.moment import Moment, Where
from ami.nn.places import between
from ami.types import Belief, Latent, WorldModel
from ami.worlds import maze_walks
from ami.worlds.maze import EMBODIMENT, NAME

_APART = 5_000_011


@dataclass(frozen=True)
class Reminded:
    """Which colour is the marker on that wall, asked of who was switched off and on and has only what is on disk?"""

    steps: int = 200  # of the first life
    every: int = 2  # steps between two moments that are kept

    least = 2  # episodes: intervals are over them
    able = staticmethod(explores)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "recall/reminded"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"recall/reminded: {self.steps} steps through a maze of 5 x 5 cells; every {self.every} of them a moment "
            "is kept in an episodic memory on disk, with the pose that was believed. A new belief begins where the "
            "walk ended, is reminded of the moments, and asked as in recall/marker. 'new' is not reminded; 'old' is "
            "the belief that walked.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask after ``n`` walks."""
        self.able(model)
        began, rng = time.perf_counter(), np.random.default_rng([_APART + asking.seed, 0])
        mazes = maze_walks.sample(n, rng)
        poses, actions = maze_walks.walk(mazes, maze_walks.starts(mazes, rng), self.steps, rng)
        walked, asked = Walked(model, mazes, poses, actions), markers(mazes)
        columns = np.zeros(asked.face.shape, int)
        for _ in range(self.steps + 1):
            columns += asked.seen(walked.step())
        due = known_markers(columns)
        rows, old = Recall.ask(walked, asked, due)
        last = Latent(walked.tokens[:, -1:], torch.zeros(n, 1))
        fresh, walked.origin = model.believe(None, last, None, NAME), walked.believed[:, -1]
        walked.belief = fresh
        _, new = Recall.ask(walked, asked, due)
        walked.belief = _remind(model, fresh, walked, walked.origin, self.every)
        _, reminded = Recall.ask(walked, asked, due)
        right = {"model": reminded["model"], "old": old["model"], "new": new["model"]}
        seconds = time.perf_counter() - began
        return Answer((share(self.name, rows, right, asking.seed, np.random.default_rng(asking.seed), seconds),))


def _remind(model: WorldModel, belief: Belief, walked: Walked, origin: Tensor, every: int) -> Belief:
    """The belief of who reads what the walks left on disk."""
    about = About("0" * 64, NAME, walked.tokens[0, 0].numel())
    reminded = []
    with tempfile.TemporaryDirectory() as folder, Memory.create(Path(folder) / "memory", about) as memory:
        for row in range(len(belief)):
            memory.append(
                [
                    Moment(
                        walked.tokens[row, step].flatten().numpy(),
                        step * EMBODIMENT.step_seconds,
                        (*walked.believed[row, step, :2].tolist(), 0.0),
                        str(row),
                        turn=(0.0, 0.0, float(walked.believed[row, step, 2])),
                    )
                    for step in range(0, walked.now + 1, every)
                ]
            )
        for row in range(len(belief)):
            found = memory.rows(Where(episodes=(str(row),)))
            pose = np.concatenate([found.places[:, :2], found.turns[:, 2:]], 1)
            seen = torch.from_numpy(found.vectors.astype(np.float32)).view(1, len(pose), *model.part(NAME).latent_shape)
            from_here = between(origin[row].expand(len(pose), -1), torch.from_numpy(pose).float())
            one = belief.rows(slice(row, row + 1))
            reminded.append(model.remind(one, from_here[None], Latent(seen, torch.zeros(1, len(pose)))))
    return Belief(NAME, belief.latents, recurrent=torch.cat([each.recurrent for each in reminded]))  # pyright: ignore


SUITES = (Suite("reminded", ((Reminded(), 20),)),)
