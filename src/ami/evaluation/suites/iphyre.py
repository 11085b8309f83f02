"""I-PHYRE: remove blocks, each at its moment, so that all balls fall; what to try is chosen by imagining only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ami.evaluation.benchmark import Answer, Asking, Benchmark, Suite
from ami.evaluation.report import Strip
from ami.evaluation.simulator import IPhyreSimulator
from ami.evaluation.suites.reaching import counted, share
from ami.planning.attempts import Attempts
from ami.planning.costs import ReadOut
from ami.types import Belief, Clip, Latent, WorldModel
from ami.worlds.iphyre import (
    BALL,
    BODY,
    LASTS,
    LATEST,
    SIDE,
    THERE,
    Layout,
    Plan,
    Play,
    Y,
    actions,
    games,
    play,
    random_plan,
    render,
)

_KEY = 0x49504859  # evaluation draws from (this, seed, row, use); collecting from (seed, episode): they never meet
_PLANS, _SEARCH = range(2)
_NEVER = 3 * LATEST  # seconds: never is far from ever
_HALF = 20.0  # px: a plan that leaves balls so high promises half as much as one that is perfect
_HASTE = 1e-4  # of each px of height at each step, beside each px that is left at the end
_STEPS = round(LASTS / BODY.step_seconds)


@dataclass(frozen=True)
class Tried:
    """What happened in each row: how many attempts it took, 0 where none of them succeeded."""

    took: Int[np.ndarray, "n"]
    shown: Mapping[int, tuple[Plan, Latent]] | None = None  # the last plan tried in a row, and how it was imagined
    model_calls: int = 0

    def within(self, attempts: int) -> Bool[np.ndarray, "n"]:
        """Who succeeded in at most so many."""
        return (self.took > 0) & (self.took <= attempts)


@dataclass(frozen=True)
class IPhyreBenchmark:
    """Solve each of the 40 games within ``attempts`` plays. The protocol is pinned here.

    An attempt is a whole plan: when to remove which block. The model is told what there is at the beginning, imagines
    ``samples`` random plans, and the most promising is played; what failed, and what is like it, then promises less.
    No play of the 40 games trains anything: a model learns from drawn games.
    """

    attempts: int = 10
    samples: int = 200  # plans imagined
    near: float = 0.5  # seconds: plans whose removals are so near are alike
    simulated: int = 40  # plans that the row "simulator" imagines: it is slow
    change: float = 0.5  # seconds by which the search without a model changes a removal

    name = "i-phyre"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            "The 40 games of I-PHYRE, each as often as the next; an attempt is a play of at most "
            f"{LASTS:g} s by one plan, which says at what tenth of a second up to {LATEST:g} s each block is removed.",
            f"solved: all balls below the screen at once within {self.attempts} attempts; solved_first: at the first.",
            f"The model is told what there is at the beginning and imagines {self.samples} random plans; nothing was "
            "trained on plays of these games. A plan that failed makes those like it promise less.",
            "random: random plans. no-model: the best plan so far, by how far its balls fell, is changed at random. "
            f"simulator: the same choice among {self.simulated} plans imagined by the true simulator.",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that has not learned from these games."""
        if BODY.name not in model.embodiments:
            raise ValueError(f"{self.name} asks a model that has learned from '{BODY.name}', and this one has not")

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about the first ``n`` rows, the games in turn; two results, and a few films."""
        self.able(model)
        if n < 1:
            raise ValueError(f"{n} games were asked for; a result needs at least one")
        known = list(games().items())
        rows = [known[row % len(known)] for row in range(n)]
        layouts = [layout for _, layout in rows]
        began = time.perf_counter()
        tried = self.plan(model, layouts, asking, "model", self.samples)
        seconds = time.perf_counter() - began
        others = self._baselines(layouts, asking)
        log = [{"game": name, "attempts": int(took)} for (name, _), took in zip(rows, tried.took, strict=True)]
        return Answer(
            tuple(
                counted(
                    self.name,
                    metric,
                    tried.within(most),
                    {who: share(other.within(most)) for who, other in others.items()},
                    seed=asking.seed,
                    seconds=seconds,
                    model_calls=tried.model_calls,
                    details={"episodes": log},
                )
                for metric, most in (("solved", self.attempts), ("solved_first", 1))
            ),
            self._strips(rows, tried, asking),
        )

    def plan(self, model: WorldModel, layouts: list[Layout], asking: Asking, what: str, samples: int) -> Tried:
        """Choose by imagining with ``model``, play what was chosen, and go on until it works."""
        took, shown = np.zeros(len(layouts), int), {}
        for row, layout in enumerate(layouts):
            rng = np.random.default_rng((_KEY, asking.seed, row, _PLANS))
            plans = np.stack([random_plan(layout, rng) for _ in range(samples)])
            imagined, promise = imagine(model, layout, plans)
            choice = Attempts(torch.from_numpy(np.minimum(plans, _NEVER)).float(), promise, self.near)
            failed: list[int] = []
            while len(failed) < min(self.attempts, samples) and not took[row]:
                chosen = choice.next(failed)
                if play(layout, plans[chosen])[0]:
                    took[row] = len(failed) + 1
                failed.append(chosen)
            last = Latent(imagined.values[failed[-1:]], imagined.times[failed[-1:]])
            shown[row] = plans[failed[-1]], last
            asking.tell(f"{self.name}: {what}", row + 1, len(layouts))
        return Tried(took, shown, samples * len(layouts))

    def _baselines(self, layouts: list[Layout], asking: Asking) -> dict[str, Tried]:
        fewer = layouts[: asking.baseline_n or len(layouts)]
        found = {
            "random": self.search(layouts, asking, change=None),
            "no-model": self.search(layouts, asking, change=self.change),
            "simulator": self.plan(IPhyreSimulator(), fewer, asking, "simulator", self.simulated),
        }
        if asking.untrained is not None:
            found["untrained"] = self.plan(asking.untrained, fewer, asking, "untrained", self.samples)
        return found

    def search(self, layouts: list[Layout], asking: Asking, change: float | None) -> Tried:
        """Without a model: random plans, or (``change``) two of them and then changes of the best so far."""
        took = np.zeros(len(layouts), int)
        for row, layout in enumerate(layouts):
            rng = np.random.default_rng((_KEY, asking.seed, row, _SEARCH))
            best, least = random_plan(layout, rng), np.inf
            for attempt in range(self.attempts):
                plan = random_plan(layout, rng)
                if change is not None and attempt > 1:
                    plan = _changed(best, plan, change, rng)
                solved, passed = play(layout, plan)
                if solved:
                    took[row] = attempt + 1
                    break
                left = float(height(torch.from_numpy(passed[-1:])[None]))
                best, least = (plan, left) if left < least else (best, least)
        return Tried(took)

    def _strips(self, rows: list[tuple[str, Layout]], tried: Tried, asking: Asking) -> tuple[Strip, ...]:
        """One that took the most attempts, one that failed, and then simply the first."""
        wanted = [int(tried.took.argmax()), *np.flatnonzero(tried.took == 0)[:1].tolist(), *range(len(rows))]
        strips = []
        for row in list(dict.fromkeys(wanted))[: asking.strips]:
            name, layout = rows[row]
            plan, imagined = (tried.shown or {})[row]
            real = play(layout, plan)[1]
            moments = np.linspace(0, len(real) - 2, 8).round().astype(int)
            strips.append(
                Strip(
                    title=f"{self.name}: {name}",
                    real=np.stack([render(real[moment + 1]) for moment in moments]),
                    imagined=np.stack([render(imagined.values[0, moment].numpy(force=True)) for moment in moments]),
                    goal=render(Play(layout).objects()),
                    caption=f"attempt {tried.took[row]} succeeded" if tried.took[row] else "no attempt succeeded",
                )
            )
        return tuple(strips)


@torch.no_grad()
def imagine(
    model: WorldModel, layout: Layout, plans: Float[np.ndarray, "plans removable"]
) -> tuple[Latent, Float[Tensor, "plans"]]:
    """The futures of some plans, and what each promises: 1 where all balls fall at once, less the higher they stay."""
    told = torch.from_numpy(Play(layout).objects()).flatten()[None, None]
    seen = model.encode(Clip(BODY.name, torch.zeros(1, 1), proprio=told))
    belief: Belief = model.believe(None, seen, None, BODY.name).repeat(len(plans))
    done = torch.from_numpy(actions(layout, plans, _STEPS)).float()
    future = model.predict(belief, done, _STEPS)
    wish = ReadOut(lambda latent: height(latent.values)[..., None], torch.zeros(1, 1), sum=_HASTE)
    return future, _HALF / (_HALF + wish(future, done))


def height(objects: Float[Tensor, "*batch objects 15"]) -> Float[Tensor, "*batch"]:
    """How far balls are above the lower edge of the screen, the mean over balls; 0 when all have fallen, px."""
    balls = objects[..., BALL] * objects[..., THERE]
    return ((SIDE - objects[..., Y]).clamp_min(0) * balls).sum(-1) / balls.sum(-1).clamp_min(1)


def _changed(best: Plan, other: Plan, change: float, rng: np.random.Generator) -> Plan:
    """Moments moved a little, to tenths of a second, and one removal or more taken from ``other``."""
    moved = np.round(np.clip(best + change * rng.standard_normal(len(best)), 0.1, LATEST), 1)
    moved[~np.isfinite(best)] = np.inf
    taken = rng.random(len(best)) < 1 / len(best)
    taken[rng.integers(len(best))] = True
    return np.where(taken, other, moved)


_GAMES: Benchmark = IPhyreBenchmark()

SUITES: tuple[Suite, ...] = (Suite("i-phyre", ((_GAMES, 40),)),)
