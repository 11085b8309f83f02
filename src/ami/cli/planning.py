"""One plan, shown: from a drawn start to a drawn goal in a world, or between two pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Group
from rich.table import Table

from ami.agent import Agent, perceive
from ami.cli.asking import checkpoint_in
from ami.cli.refuse import choose
from ami.cli.show import lines
from ami.evaluation.suites.control import RoomsBenchmark
from ami.models import checkpoint
from ami.planning.costs import GoalDistance
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
) -> dict[str, Any]:
    """Plan once with the checkpoint in ``folder``, by the search that the suites use."""
    if (world is None) == (start is None and goal is None) or (start is None) != (goal is None):
        raise ValueError("give a world with --world, or two pictures with --start and --goal, and not both")
    if world is not None:
        choose("world to plan in", world, [f"two-rooms/{family}" for family in rooms.FAMILIES])
    model = checkpoint.load(checkpoint_in(folder))
    if start and goal:
        body = _who(model, embodiment)
        side = model.part(body).picture
        assert side is not None, "who acts sees pictures of one size"
        made, took = _search(model, body, _read(start, side), _read(goal, side), horizon, seed)
        return {"start": str(start), "goal": str(goal), **_document(made, took, body, seed)}
    assert world is not None
    body = embodiment or rooms.EMBODIMENT.name
    pairs = RoomsBenchmark(world.removeprefix("two-rooms/")).pairs(seed, 1)
    now, wanted = (pairs.rooms.render(place)[0] for place in (pairs.start, pairs.goal))
    made, took = _search(model, body, now, wanted, horizon, seed)
    position = pairs.start
    for action in made.actions[0].numpy(force=True):
        position = pairs.rooms.step(position, action[None])[-1]
    return {
        "world": world,
        **_document(made, took, body, seed),
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
    if "world" in held:
        said.append(
            f"done in the true world, without another look, it ends {held['pixels_left']:.1f} px from the goal, "
            f"which was {held['pixels_to_go']:.1f} px away"
        )
    return Group(table, lines(*said))


def _search(
    model: WorldModel, body: str, start: np.ndarray, goal: np.ndarray, horizon: int, seed: int
) -> tuple[Plan, float]:
    """The plan, and the milliseconds that it took the second time: the first warms up."""
    asked = RoomsBenchmark("fixed")
    path, last, nearest = asked.weights
    agent = Agent(
        model,
        body,
        GoalDistance(perceive(model, _picture_clip(goal, body)), asked.distance, sum=path, last=last, min=nearest),
        SamplingPlanner(asked.planner),
        horizon=horizon,
        replan_every=1,
        seed=seed,
    )
    seen = _picture_clip(start, body)
    agent.act(None, seen)
    began = time.perf_counter()
    _, state = agent.act(None, seen)
    return state.plan, 1000 * (time.perf_counter() - began)


def _document(made: Plan, took: float, body: str, seed: int) -> dict[str, Any]:
    return {
        "embodiment": body,
        "seed": seed,
        "actions": made.actions[0].tolist(),
        "imagined_cost": float(made.cost[0]),
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


def _read(path: Path, side: int) -> np.ndarray:
    """A picture file as the model sees: its middle square, at the model's size."""
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BOX))
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def _picture_clip(picture: np.ndarray, embodiment: str) -> Clip:
    """One step at which ``picture`` ``(height, width, 3)`` uint8 is seen."""
    video = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, None, None]
    return Clip(embodiment, torch.zeros(1, 1), video=video)
