"""What is remembered of a walk: the colour of a marker long out of sight, before and after a restart; and forgotten."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int

from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.statistics import bootstrap_mean, share_by_cluster
from ami.evaluation.walking import TWINS, WINDOW, Markers, Walked, markers, painted, views
from ami.memory.belief import load_belief, save_belief
from ami.types import Belief, Interval, Result, WorldModel
from ami.worlds import maze_walks
from ami.worlds.maze import COLOURS, NAME

_APART = 3_000_017
_ENOUGH = 8  # columns, over all steps, in which a marker was seen
_CHANCE = 1 / len(COLOURS)
_WALKS = 40  # together


def explores(model: WorldModel) -> None:
    """``ValueError`` unless the model has learned where things are in mazes."""
    if NAME not in model.places:
        known = ", ".join(model.places) or "none"
        raise ValueError(
            f"this model has not learned where things are in a '{NAME}' (it has of: {known}); "
            f"train it on `ami collect {NAME}` with the recipe places or baby"
        )


@dataclass(frozen=True)
class Recall:
    """Which colour is the marker on that wall, so many steps after it was last seen?"""

    ages: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)
    tour: int = 250  # steps in one half of a maze of two, before the other

    able = staticmethod(explores)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "recall/marker"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"recall/marker: mazes of two halves of 5 x 5 cells joined by one gate; {self.tour} steps go about one "
            "half and all others about the other. Feet slip, and no pose is told. A marker seen in at least "
            f"{_ENOUGH} columns of pictures is asked for when it was last seen so many steps ago: of six pictures of "
            "its wall from three poses some 0.6 m before it, one for each colour, those that fit best what is expected "
            "from there are the answer. A pose is told by how it lies from where one was when nearest to it.",
            "'told from the start' is asked of the same belief, and told how each pose lies from where the walk began; "
            f"'window' is the same model whose belief began {WINDOW} steps ago; 'another walk' is asked of another "
            "walk's belief; 'nearest view' keeps every view with the pose that was believed and takes the one nearest "
            "to the pose asked for. Forgetting: how many points are lost of the markers of the first half from the "
            "moment at which it is left to the end of the walk, those that were seen in between left out.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask in ``n`` walks."""
        self.able(model)
        began = time.perf_counter()
        told = _Told()
        for first in range(0, n, _WALKS):
            rng = np.random.default_rng([_APART + asking.seed, first])
            self._walk(model, min(_WALKS, n - first), first, rng, told, asking)
        rng, seconds = np.random.default_rng(asking.seed), time.perf_counter() - began
        results = [
            share(
                f"{self.name}/age-{age}", told.rows(f"age-{age}"), told.right(f"age-{age}"), asking.seed, rng, seconds
            )
            for age in self.ages
            if told.asked(f"age-{age}")
        ]
        if told.asked("end"):
            results.append(_forgetting(told, asking.seed, rng, seconds))
            results.append(
                share("recall/after-restart", told.rows("end"), told.right("restarted"), asking.seed, rng, seconds)
            )
        return Answer(tuple(results))

    def _walk(
        self, model: WorldModel, count: int, first: int, rng: np.random.Generator, told: _Told, asking: Asking
    ) -> None:
        mazes = maze_walks.sample(count, rng, 10, 5, gate=True)
        half = np.broadcast_to(np.arange(50) < 25, (count, 50))
        steps = self.tour + max(self.ages)
        one = maze_walks.walk(mazes, maze_walks.starts(mazes, rng, half), self.tour, rng, half)
        two = maze_walks.walk(mazes, one[0][:, -1], steps - self.tour, rng, ~half)
        walked = Walked(model, mazes, np.concatenate([one[0], two[0][:, 1:]], 1), np.concatenate([one[1], two[1]], 1))
        asked = markers(mazes)
        columns, last = np.zeros(asked.face.shape, int), np.full(asked.face.shape, -1)
        done: Bool[np.ndarray, "age batch marker"] = np.zeros((len(self.ages), *asked.face.shape), bool)
        left = np.zeros(asked.face.shape, bool)  # of the first half, when it is left
        for step in range(steps + 1):
            seen = asked.seen(walked.step())
            columns, last = columns + seen, np.where(seen > 0, step, last)
            known = known_markers(columns)
            for place, age in enumerate(self.ages):
                due = known & (step - last == age) & ~done[place]
                done[place] |= due
                told.add(f"age-{age}", first, *self.ask(walked, asked, due))
            if step == self.tour:
                left = known & (asked.before[..., 0, 0] < 5)
                told.add("left", first, *self.ask(walked, asked, left))
                held = left.copy()
            if step % 50 == 0:
                asking.tell("walking", step, steps)
        held &= last <= self.tour
        told.keep("left", first, held[left])
        told.add("end", first, *self.ask(walked, asked, held))
        walked.belief = _restarted(walked.belief)
        told.add("restarted", first, *self.ask(walked, asked, held))

    @staticmethod
    def ask(
        walked: Walked, asked: Markers, due: Bool[np.ndarray, "batch marker"]
    ) -> tuple[Int[np.ndarray, "k"], dict[str, Bool[np.ndarray, "k"]]]:
        """The rows of what was asked, and whether each twin was right."""
        rows, place = np.nonzero(due)
        if not len(rows):
            return rows, {}
        mazes, face, before = walked.mazes.rows(rows), asked.face[rows, place], asked.before[rows, place]
        answers = [views(painted(mazes, face, colour), before) for colour in range(1, len(COLOURS) + 1)]
        misfits = walked.misfits(rows, before, answers)
        return rows, {who: each.sum(1).argmin(1) + 1 == asked.colour[rows, place] for who, each in misfits.items()}


class _Told:
    """Whether each question was answered rightly, by its kind: by whom, and in which walk it was asked."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {}
        self._right: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, kind: str, first: int, rows: np.ndarray, right: dict[str, np.ndarray]) -> None:
        if len(rows):
            self._rows.setdefault(kind, []).append(rows + first)
            self._right.setdefault(kind, []).append(right)

    def keep(self, kind: str, first: int, which: np.ndarray) -> None:
        """Of what was added last, only some."""
        if kind in self._rows and len(which):
            self._rows[kind][-1] = self._rows[kind][-1][which]
            self._right[kind][-1] = {who: each[which] for who, each in self._right[kind][-1].items()}

    def asked(self, kind: str) -> bool:
        """Whether it was, in two walks at least: one says nothing of how much walks differ."""
        return kind in self._rows and len(np.unique(self.rows(kind))) > 1

    def rows(self, kind: str) -> np.ndarray:
        return np.concatenate(self._rows[kind])

    def right(self, kind: str) -> dict[str, np.ndarray]:
        return {who: np.concatenate([each[who] for each in self._right[kind]]) for who in ("model", *TWINS)}


def known_markers(columns: Int[np.ndarray, "batch marker"]) -> Bool[np.ndarray, "batch marker"]:
    """Which markers were seen well enough to be asked for."""
    return columns >= _ENOUGH


def _restarted(belief: Belief | None) -> Belief:
    """The belief of a process that was ended and began again: as a file, and from the file."""
    assert belief is not None
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "belief.safetensors"
        save_belief(kept, belief, NAME)
        return load_belief(kept, NAME)


def share(
    name: str,
    rows: Int[np.ndarray, "k"],
    right: Mapping[str, Bool[np.ndarray, "k"]],
    seed: int,
    rng: np.random.Generator,
    seconds: float,
    chance: float = _CHANCE,
) -> Result:
    """A share, and its twins', redrawing whole walks."""

    found = {who: share_by_cluster(each.astype(float), rows, rng) for who, each in right.items()}
    own = found.pop("model")
    return Result(
        name,
        "accuracy",
        own.value,
        own.low,
        own.high,
        len(rows),
        "share",
        (seed,),
        "bootstrap over walks, 95 %",
        {**found, "chance": Interval(chance, chance, chance)},
        seconds,
    )


def _forgetting(told: _Told, seed: int, rng: np.random.Generator, seconds: float) -> Result:
    """Points lost between the moment at which the first half is left and the end."""
    before, after, rows = told.right("left"), told.right("end"), told.rows("end")
    lost = {who: 100 * (before[who].astype(float) - after[who].astype(float)) for who in before}
    found = {who: bootstrap_mean(each, rng, clusters=rows, method="percentile") for who, each in lost.items()}
    own = found.pop("model")
    return Result(
        "recall/forgetting",
        "points",
        own.value,
        own.low,
        own.high,
        len(rows),
        "points",
        (seed,),
        "bootstrap over walks, 95 %",
        {who: each for who, each in found.items() if who != "window"},
        seconds,
    )
