"""One plan, shown: from a drawn start to a drawn goal in a world, or between two pictures."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Group
from rich.table import Table

from ami.agent import perceive
from ami.cli.asking import checkpoint_in
from ami.cli.refuse import choose
from ami.cli.show import lines
from ami.data.recording import opened
from ami.evaluation.suites.control import RoomsBenchmark
from ami.evaluation.suites.reaching import BY_WAYS
from ami.evaluation.suites.ways import NoPlanBenchmark
from ami.models import checkpoint
from ami.planning.anytime import Anytime
from ami.planning.costs import DOUBTED, Doubt, GoalDistance, StepsToGo, Unsure
from ami.planning.landmarks import Landmarks, StepsThrough
from ami.planning.sampling import SamplingPlanner
from ami.types import Clip, Plan, WorldModel
from ami.worlds import rooms


def plan(
    folder: Path,
    world: str | None,
    start: Path | None,
    goal: Path | None,
    embodiment: str | None,
    horizon: int,
    seed: int,
    budget_ms: float | None = None,
) -> dict[str, Any]:
    """Plan once with the checkpoint in ``folder``, by the search that the suites use; in a budget, if there is one.

    A model that has learned how far things are begins from what it proposes, and searches for fewer steps to go.
    """
    if (world is None and (start is None or goal is None)) or (world is not None and start is not None):
        raise ValueError("give a world with --world (and --goal, if you have a picture of it), or --start and --goal")
    if horizon < 1:
        raise ValueError(f"--horizon is {horizon}; a plan is 1 step long or more")
    if budget_ms is not None and not budget_ms >= 0:
        raise ValueError(f"--budget-ms is {budget_ms:g}; a budget is 0 milliseconds or more")
    if world is not None:
        choose("world to plan in", world, [f"two-rooms/{family}" for family in (*rooms.FAMILIES, rooms.SEALED)])
    model = checkpoint.load(checkpoint_in(folder))
    ask = partial(_search, model, horizon=horizon, seed=seed, budget_ms=budget_ms)
    if world is None:
        body = _who(model, embodiment)
        side = model.part(body).picture
        assert start is not None
        assert goal is not None
        if side is None:
            raise ValueError(f"'{body}' is told of objects and sees no pictures; it cannot plan between two")
        made, took = ask(body, read_picture(start, side), read_picture(goal, side))
        return {"start": str(start), "goal": str(goal), **_document(model, made, took, body, seed)}
    body = embodiment or rooms.EMBODIMENT.name
    if body not in model.embodiments:
        known = ", ".join(model.embodiments)
        raise ValueError(f"the model does not know the embodiment '{body}'; it knows {known}")
    if body != rooms.EMBODIMENT.name:
        raise ValueError(f"in {world} one acts as '{rooms.EMBODIMENT.name}', not as '{body}'")
    family = world.removeprefix("two-rooms/")
    asked = NoPlanBenchmark(sealed=True) if family == rooms.SEALED else RoomsBenchmark(family)
    pairs = asked.pairs(seed, 1)
    now, wanted = (pairs.rooms.render(place)[0] for place in (pairs.start, pairs.goal))
    if goal is not None:
        made, took = ask(body, now, read_picture(goal, rooms.SIZE))
        return {"world": world, "goal": str(goal), **_document(model, made, took, body, seed)}
    made, took = ask(body, now, wanted)
    position = pairs.start
    for action in made.actions[0].numpy(force=True):
        position = pairs.rooms.step(position, action[None])[-1]
    return {
        "world": world,
        **_document(model, made, took, body, seed),
        "pixels_to_go": float(np.linalg.norm(pairs.goal - pairs.start)),
        "pixels_left": float(np.linalg.norm(pairs.goal - position)),
    }


def shown(held: dict[str, Any]) -> Group:
    """A plan for people."""
    table = Table.grid(padding=(0, 2))
    for step, action in enumerate(held["actions"], start=1):
        table.add_row(f"step {step}", *(f"{number:+.3f}" for number in action))
    said = [
        f"imagined cost {held['imagined_cost']:.4g} after {held['model_calls']} futures in "
        f"{held['milliseconds']:.0f} ms"
    ]
    if held["unsure"]:
        said.append(f"the end may be off by {held['unsure'][-1] ** 0.5:.2f} deviations of what is perceived")
    if "pixels_left" in held:
        said.append(
            f"done in the true world, without another look, it ends {held['pixels_left']:.1f} px from the goal, "
            f"which was {held['pixels_to_go']:.1f} px away"
        )
    if held["why"]:
        said.append(f"no plan was found: {held['why']}; this is the best that was imagined, not to be acted on")
    return Group(table, lines(*said))


def _search(
    model: WorldModel,
    body: str,
    start: np.ndarray,
    goal: np.ndarray,
    *,
    horizon: int,
    seed: int,
    budget_ms: float | None,
) -> tuple[Plan, float]:
    """The plan, and the milliseconds that it took the second time: the first warms up."""
    asked = RoomsBenchmark("fixed")
    path, last, nearest = asked.weights
    # A budget wants small calls: the clock is read between two of them.
    search = SamplingPlanner(asked.planner if budget_ms is None else replace(asked.planner, samples=64, iterations=100))
    bounds, seen, known = model.embodiments[body], _picture_clip(start, body), Landmarks.of(model, body, BY_WAYS.sure)
    for _ in range(2):
        began = time.perf_counter()
        wanted = perceive(model, _picture_clip(goal, body))
        here = perceive(model, seen)
        belief = model.believe(None, here, None, body)
        cost, guess = GoalDistance(wanted, asked.distance, sum=path, last=last, min=nearest), None
        if body in model.reaches:
            cost = StepsToGo(wanted, lambda now, there: model.reach(now, there, body))
            cost = cost if known is None else StepsThrough.to(wanted, known)
            guess = model.propose(belief, wanted, horizon)
        spent = 1000 * (time.perf_counter() - began)
        # No search is better than what who imitates proposes; a budget of nothing leaves that.
        left = 0.0 if body in model.imitates else None if budget_ms is None else max(budget_ms - spent, 0.0)
        planner = search if left is None else Anytime(search, left)
        generators = [torch.Generator().manual_seed(seed)]
        made = planner.plan(
            model,
            cost,
            belief,
            horizon=horizon,
            low=bounds.low,
            high=bounds.high,
            generators=generators,
            first_guess=guess,
        )
        doubt = Doubt.of(model, wanted, body)
        if doubt is not None and doubt(here, made.actions) > DOUBTED:
            made = replace(made, why=("unreachable",))
    return made, 1000 * (time.perf_counter() - began)


def _document(model: WorldModel, made: Plan, took: float, body: str, seed: int) -> dict[str, Any]:
    unsure = Unsure.of(model, body)
    return {
        "embodiment": body,
        "seed": seed,
        "actions": made.actions[0].tolist(),
        "why": (made.why or ("",))[0],
        "imagined_cost": float(made.cost[0]),
        "unsure": None if unsure is None else unsure.uncertainty(made.imagined, made.actions)[0].tolist(),
        "model_calls": made.model_calls,
        "milliseconds": took,
    }


def _who(model: WorldModel, embodiment: str | None) -> str:
    """The embodiment that was named, or the only one of the model that can act."""
    able = [name for name, body in model.embodiments.items() if body.action_dim]
    if embodiment is None and len(able) != 1:
        raise ValueError(f"the model can act as {', '.join(able) or 'nobody'}; name one with --embodiment")
    if embodiment is not None:
        choose("embodiment that this model can act as", embodiment, able)
    return embodiment or able[0]


def read_picture(path: Path, side: int) -> np.ndarray:
    """A picture file as the model sees: its middle square, at the model's size."""
    with opened(path) as picture:
        return np.asarray(ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BOX))


def _picture_clip(picture: np.ndarray, embodiment: str) -> Clip:
    """One step at which ``picture`` ``(height, width, 3)`` uint8 is seen."""
    video = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, None, None]
    return Clip(embodiment, torch.zeros(1, 1), video=video)
