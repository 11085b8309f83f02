"""After one walk: where the walls are, where things are, where one has been before, and the way to a thing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.statistics import bootstrap_mean, bootstrap_ratio, share_by_cluster
from ami.evaluation.suites.recall import Recall, explores
from ami.evaluation.walking import Walked, views
from ami.nn.places import between
from ami.planning.routes import Routes, follow
from ami.types import Interval, Result, WorldModel
from ami.worlds import maze_walks
from ami.worlds.maze import COLOURS, SIZE, STRIDE, TURN, Mazes, edges, with_edge

_APART = 4_000_037
_SEEN = 12  # columns, over all steps, in which a post was seen
_CORNERS = np.array([[0.3, 0.3], [0.3, 0.7], [0.7, 0.3], [0.7, 0.7]])
_FROM = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # across the cell, and along its two sides
_BACK = 0.55  # metres from a post to who looks at it
_PICTURE = (SIZE, SIZE, 3)


@dataclass(frozen=True)
class Layout:
    """Walls, things, places where one has been before, and the way to a thing, after one walk."""

    steps: int = 300  # of the walk
    budget: int = 120  # steps to a thing
    near: float = 0.5  # metres from a thing to who has reached it

    least = 2  # episodes: intervals are over them
    able = staticmethod(explores)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "recall/layout"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"recall/walls, recall/objects: after one walk of {self.steps} steps through a maze of 5 x 5 cells, poses "
            "told as in recall/marker: of two pictures of each inner edge from both its sides, with a wall and "
            "without, the pair that fits better; and of 100 places (4 in each cell) for each post seen in "
            f"{_SEEN} columns or more, the one at which pictures with it, from three poses in its cell, fit better "
            "than those of nothing and of a post of any other colour by most, no two posts at one place: how far off "
            "it is, in cells.",
            "recall/loop-closure: at each step within 0.35 m and 30 degrees of one more than 100 steps before, the "
            "earlier step whose believed pose and latent are nearest must be within 0.5 m and 30 degrees of the true "
            "pose. 'latent' looks at latents alone, 'pose' at believed poses alone.",
            f"recall/go-to: from where the walk ends, to within {self.near} m of each of those posts in {self.budget} "
            "steps, by shortest ways over what is believed to be open to where the post is believed to be; the share "
            "of those that the same planner reaches that is told the walls, its pose and where the post is.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask after ``n`` walks."""
        self.able(model)
        began, rng = time.perf_counter(), np.random.default_rng([_APART + asking.seed, 0])
        mazes = maze_walks.sample(n, rng)
        poses, actions = maze_walk(mazes, self.steps, rng)
        walked = Walked(model, mazes, poses, actions)
        columns = np.zeros((n, mazes.posts.shape[1]), int)
        for step in range(self.steps + 1):
            seen = walked.step()
            shows = np.where((seen.post < seen.wall) & (seen.post < 4), seen.post_colour, 0)
            columns += (shows[:, None] == mazes.post_colours[..., None]).sum(-1)
            if step % 50 == 0:
                asking.tell("walking", step, self.steps)
        told = _Told(asking.seed, np.random.default_rng(asking.seed), began)
        row, post = np.nonzero(columns >= _SEEN)
        believed = self._objects(walked, row, post)
        true = mazes.posts[row, post]
        far = {who: np.linalg.norm(each - true, axis=-1) for who, each in believed.items()}
        far["middle of the maze"] = np.linalg.norm(true - np.array(mazes.size) / 2, axis=-1)
        walls, right = self._walls(walked)
        loop, closed = self._loops(walked)
        results = [told.share("recall/walls", walls, right)]
        if len(np.unique(row)) > 1:
            results.append(told.mean("recall/objects", "error_cells", row, far, "cells"))
            results += self._go(walked, row, post, believed["model"], told, rng)
        if len(np.unique(loop)) > 1:
            results.append(told.share("recall/loop-closure", loop, closed, "recall1"))
        return Answer(tuple(results))

    @staticmethod
    def _walls(walked: Walked) -> tuple[Int[np.ndarray, "k"], dict[str, Bool[np.ndarray, "k"]]]:
        """The rows of all inner edges, and whether each twin was right about it."""
        mazes = walked.mazes
        walls, middles = edges(mazes)
        inner = np.nonzero((middles[:, :2] > 0).all(1) & (middles[:, :2] < mazes.size).all(1))[0]
        row, edge = np.repeat(np.arange(len(mazes)), len(inner)), np.tile(inner, len(mazes))
        x, y, heading = middles[edge].T
        back = np.stack([np.cos(heading), np.sin(heading)], -1) / 2
        sides = [np.stack([x - s * back[:, 0], y - s * back[:, 1], heading + (s < 0) * np.pi], -1) for s in (1, -1)]
        poses, here = np.stack(sides, 1), mazes.rows(row)
        answers = [views(with_edge(here, edge, np.full(len(row), each)), poses) for each in (False, True)]
        misfits = walked.misfits(row, poses, answers)
        true = walls[row, edge]
        return row, {who: each.sum(1).argmin(1) == true for who, each in misfits.items()} | {"always open": ~true}

    @staticmethod
    def _objects(
        walked: Walked, row: Int[np.ndarray, "k"], post: Int[np.ndarray, "k"]
    ) -> dict[str, Float[np.ndarray, "k 2"]]:
        """Where each twin believes each post to be."""
        wide, high = walked.mazes.size
        cells = np.stack(np.meshgrid(np.arange(wide), np.arange(high), indexing="ij"), -1).reshape(-1, 1, 2)
        spots = (cells + _CORNERS).reshape(-1, 2)
        toward = np.tile((_CORNERS - _CORNERS[::-1]) * _FROM[:, None], (1, len(cells), 1))  # (view spot 2)
        toward = toward / np.linalg.norm(toward, axis=-1, keepdims=True)
        poses = np.concatenate([spots - _BACK * toward, np.arctan2(toward[..., 1:], toward[..., :1])], -1)
        poses = poses.swapaxes(0, 1)  # (spot view 3)
        found: dict[str, list[np.ndarray]] = {}
        for each in np.unique(row).tolist():
            alone = walked.mazes.rows(np.full(len(spots), each))
            colours = [np.full((len(spots), 1), colour) for colour in range(len(COLOURS) + 1)]
            there = [replace(alone, posts=spots[:, None], post_colours=colour) for colour in colours[1:]]
            nothing = replace(alone, posts=np.full((len(spots), 1, 2), -9.0), post_colours=colours[1])
            answers = [views(maze, poses).reshape(1, -1, *_PICTURE) for maze in (nothing, *there)]
            misfits = walked.misfits(np.array([each]), poses.reshape(1, -1, 3), answers)
            for who, misfit in misfits.items():
                fits = misfit[0].reshape(*poses.shape[:2], -1).sum(1)  # (spot answer)
                asked = walked.mazes.post_colours[each, post[row == each]]
                gain = np.stack([np.delete(fits, colour, 1).min(1) - fits[:, colour] for colour in asked])
                found.setdefault(who, []).extend(spots[linear_sum_assignment(gain, maximize=True)[1]])
        return {who: np.array(each).reshape(-1, 2) for who, each in found.items()}

    @staticmethod
    def _loops(walked: Walked) -> tuple[Int[np.ndarray, "k"], dict[str, Bool[np.ndarray, "k"]]]:
        """The rows of the steps at which one has been before, and whether an earlier one there was found."""
        believed, tokens = walked.believed, walked.tokens.flatten(2)
        rows, found = [], {"model": [], "latent": [], "pose": []}
        for row, true in enumerate(walked.poses):
            apart = np.linalg.norm(true[:, None, :2] - true[None, :, :2], axis=-1)
            turned = np.abs((true[:, None, 2] - true[None, :, 2] + np.pi) % (2 * np.pi) - np.pi)
            before = np.arange(len(true))[:, None] - np.arange(len(true))[None] > 100
            for step in np.nonzero((before & (apart < 0.35) & (turned < np.pi / 6)).any(1))[0].tolist():
                past = slice(0, step - 100)
                here = between(believed[row, step].expand(step - 100, -1), believed[row, past])
                pose = (here / torch.tensor([0.3, 0.3, 0.4])).square().sum(-1)
                latent = (tokens[row, step] - tokens[row, past]).square().mean(-1)
                for who, score in (("model", pose + latent), ("latent", latent), ("pose", pose)):
                    best = int(score.argmin())
                    found[who].append(apart[step, best] < 0.5 and turned[step, best] < np.pi / 6)
                rows.append(row)
        return np.array(rows, int), {who: np.array(each) for who, each in found.items()}

    def _go(
        self,
        walked: Walked,
        row: Int[np.ndarray, "k"],
        post: Int[np.ndarray, "k"],
        believed: Float[np.ndarray, "k 2"],
        told: _Told,
        rng: np.random.Generator,
    ) -> list[Result]:
        """Go to each post known, by what is believed and by what is so."""
        goals = walked.mazes.posts[row, post]
        own = _reached(walked, row, believed, goals, self, rng, informed=False)
        oracle = _reached(walked, row, goals, goals, self, rng, informed=True)
        return [told.ratio("recall/go-to", row, own, oracle)] if oracle.any() else []


def maze_walk(mazes: Mazes, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A walk about a whole maze from anywhere in it."""
    return maze_walks.walk(mazes, maze_walks.starts(mazes, rng), steps, rng)


def _reached(
    walked: Walked,
    rows: Int[np.ndarray, "k"],
    goals: Float[np.ndarray, "k 2"],
    true: Float[np.ndarray, "k 2"],
    how: Layout,
    rng: np.random.Generator,
    *,
    informed: bool,
) -> Bool[np.ndarray, "k"]:
    """Whether each gets near its true goal in time; ``informed`` is told walls and pose."""
    model, mazes = walked.model, walked.mazes.rows(rows)
    assert walked.belief is not None
    belief, pose = walked.belief.rows(torch.from_numpy(rows)), walked.poses[rows, -1]
    planned = torch.from_numpy(np.concatenate([goals, np.zeros((len(goals), 1))], 1)).float()
    if not informed:
        planned = walked.from_near(rows, planned[:, None].numpy())[:, 0]
    fields, going = [], np.arange(len(rows))
    for index, goal in enumerate(planned):
        maze, one = mazes.rows(slice(index, index + 1)), belief.rows(slice(index, index + 1))
        known = maze.free if informed else (lambda at, one=one: model.free(one, at[None])[0])
        fields.append(Routes().to(goal[:2], known))
    for _ in range(how.budget):
        here = torch.from_numpy(pose).float() if informed else model.where(belief)
        steps = [follow(fields[each], at, stride=STRIDE, turn=TURN) for each, at in zip(going, here, strict=True)]
        actions = torch.stack(steps)
        pose = mazes.move(pose, actions.numpy(), rng)
        left = np.linalg.norm(pose[:, :2] - true[going], axis=1) >= how.near
        going, pose, mazes, actions = going[left], pose[left], mazes.rows(left), actions[torch.from_numpy(left)]
        if not len(going):
            break
        if not informed:
            belief = belief if left.all() else belief.rows(torch.from_numpy(np.nonzero(left)[0]))
            belief = model.believe(belief, walked.perceive(mazes.look(pose)[0][:, None]), actions[:, None])
    return ~np.isin(np.arange(len(rows)), going)


@dataclass(frozen=True)
class _Told:
    """Results of one evaluation, redrawing whole walks."""

    seed: int
    rng: np.random.Generator
    began: float

    def share(
        self,
        name: str,
        rows: np.ndarray,
        right: dict[str, np.ndarray],
        metric: str = "accuracy",
    ) -> Result:
        found = {who: share_by_cluster(each.astype(float), rows, self.rng) for who, each in right.items()}
        return self._result(name, metric, len(rows), found, "share")

    def mean(self, name: str, metric: str, rows: np.ndarray, values: dict[str, np.ndarray], unit: str) -> Result:
        found = {who: bootstrap_mean(v, self.rng, clusters=rows, method="percentile") for who, v in values.items()}
        return self._result(name, metric, len(rows), found, unit)

    def ratio(self, name: str, rows: np.ndarray, own: np.ndarray, oracle: np.ndarray) -> Result:
        found = bootstrap_ratio(own.astype(float), oracle.astype(float), self.rng, clusters=rows, method="percentile")
        told = share_by_cluster(oracle.astype(float), rows, self.rng)
        return self._result(name, "success_ratio", len(rows), {"model": found, "told all": told}, "share")

    def _result(self, name: str, metric: str, n: int, found: dict[str, Interval], unit: str) -> Result:
        own = found["model"]
        beside = {who: each for who, each in found.items() if who != "model"}
        seconds = time.perf_counter() - self.began
        how = "bootstrap over walks, 95 %"
        return Result(name, metric, own.value, own.low, own.high, n, unit, (self.seed,), how, beside, seconds)


ASKED = ((Recall(), 20), (Layout(), 40))
SUITES = (Suite("recall", ASKED), Suite("layout", ((Layout(), 40),)))
QUICK = ((Recall(ages=(10, 100), tour=150), 8), (Layout(steps=200), 4))
