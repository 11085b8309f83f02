"""What an action costs one robot that has learned ways: CPU milliseconds of perceiving, believing and a short search.

    python benchmarks/acting.py [--episodes 10] [--samples 16] [--iterations 1]

A baby walks about in Two Rooms, one episode at a time, one thread. Its weights are drawn at random, which changes no
cost. Each part is asked again by itself; medians over all actions but the first of an episode. 2 ms were asked for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ami.agent import Agent, AgentState, perceive
from ami.evaluation.suites.control import shown
from ami.evaluation.suites.reaching import BRIEF
from ami.models.jepa import JEPA, sized
from ami.planning.filled import Filled
from ami.types import Clip
from ami.worlds.rooms import EMBODIMENT, sample_pairs

STEPS, ASKED = 30, 2.0


def cost(ask: Callable[[], object]) -> float:
    """CPU ms of one call."""
    began = time.process_time()
    ask()
    return 1e3 * (time.process_time() - began)


def parts(agent: Agent, state: AgentState, seen: Clip) -> dict[str, float]:
    """What each part of the next action takes, CPU ms."""
    model, latents = agent.model, agent.model.encode(seen)
    belief = model.believe(state.belief, latents, state.last_action[:, None])
    assert state.places is not None
    assert state.heights is not None
    planner, filled = agent.warm_planner or agent.planner, Filled(agent.cost, state.places, state.heights)
    asked = {"horizon": agent.horizon, "low": agent.body.low, "high": agent.body.high}
    return {
        "perceive": cost(lambda: model.encode(seen)),
        "believe": cost(lambda: model.believe(state.belief, latents, state.last_action[:, None])),
        "search": cost(lambda: planner.plan(model, filled, belief, generators=[torch.Generator()], **asked)),
        "whole action": cost(lambda: agent.act(state, seen)),
    }


@torch.no_grad()
def main() -> None:
    """Walk about, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--samples", type=int, default=BRIEF.search.samples)
    parser.add_argument("--iterations", type=int, default=BRIEF.warm_iterations)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # torch's layers take no generator
    model = JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT}, reaches=(EMBODIMENT.name,))).eval()
    search = replace(BRIEF.search, samples=options.samples)
    ways = replace(BRIEF, search=search, warm_iterations=options.iterations)
    found: list[dict[str, float]] = []
    for episode in range(options.episodes):
        rooms, place, goal = sample_pairs("wall", 1, np.random.default_rng(episode), cross_room=True)
        agent = ways.agent(model, EMBODIMENT.name, perceive(model, shown(rooms, goal)), episode)
        action, state = agent.act(None, shown(rooms, place))
        for _ in range(STEPS - 1):
            place = rooms.step(place, action.numpy())[-1]
            seen = shown(rooms, place)
            found.append(parts(agent, state, seen))
            action, state = agent.act(state, seen)
    table = {name: statistics.median(each[name] for each in found) for name in found[0]}
    rest = table["whole action"] - sum(took for name, took in table.items() if name != "whole action")
    for name, took in {**table, "of which filling pits and the rest": rest, "asked": ASKED}.items():
        print(f"{name:36} {took:6.2f} CPU-ms")


if __name__ == "__main__":
    main()
