"""What one more step of a belief costs, from the first to the hundred-thousandth: CPU milliseconds, and memory held.

    python benchmarks/living.py [--steps 1000] [--size baby] [--only places]

Steps are drawn at random: what is seen changes no cost. *window* is a JEPA that holds its last 64 latents, *grid* one
that lives through films, *places* one that walks, looks and finds itself. *all of the past* forgets nothing and is
asked for one view a step: one layer of attention, and so a small part of what a transformer with a cache does; it is
there to show what growing looks like.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from ami.evaluation.cells import Attention
from ami.models import jepa, places, recurrent
from ami.types import Belief, Embodiment, Latent, WorldModel
from ami.worlds.maze import EMBODIMENT

MARKS = (0, 10, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
BODY = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(1.0, 1.0))

Step = Callable[[torch.Generator], object]  # lives through one more


def lived(model: WorldModel, body: Embodiment = BODY) -> Step:
    """A belief that goes on by one step each time."""
    held: list[Belief | None] = [None]

    def step(draw: torch.Generator) -> None:
        seen = Latent(torch.randn(1, 1, *model.latent_shape, generator=draw), torch.zeros(1, 1))
        action = None if held[0] is None else 2 * torch.rand(1, 1, body.action_dim, generator=draw) - 1
        held[0] = model.believe(held[0], seen, action, body.name)

    return step


def remembered(columns: int, dim: int) -> Step:
    """All of the past, and one view asked for."""
    cell = Attention((columns, dim), 256).eval()
    held: list[torch.Tensor | None] = [None]

    def step(draw: torch.Generator) -> None:
        seen, pose = torch.randn(1, 1, columns, dim, generator=draw), torch.randn(1, 1, 3, generator=draw)
        held[0] = kept = cell.keep(held[0], seen, pose)
        cell.tell(kept, pose)

    return step


def kinds(size: str) -> dict[str, Callable[[], Step]]:
    """What is measured, by name."""
    bodies = {BODY.name: BODY}
    return {
        "window": lambda: lived(jepa.JEPA(jepa.sized(size, bodies, window=64)).eval()),
        "grid": lambda: lived(recurrent.RecurrentJEPA(recurrent.sized(bodies, size)).eval()),
        "places": lambda: lived(places.PlacesJEPA(places.sized(bodies, size)).eval()),
        "all of the past": lambda: remembered(16, 32),
    }


def held_now() -> float:
    """MiB that the process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


@torch.no_grad()
def main() -> None:
    """Live, and print the mean of each stretch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--size", default="baby")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    marks = sorted({mark for mark in MARKS if mark < options.steps} | {options.steps})
    print(f"{'':16} {'steps':>18} {'a step':>13} {'more held':>13}")
    for name, make in kinds(options.size).items():
        if options.only and name not in options.only:
            continue
        step, draw, before = make(), torch.Generator().manual_seed(0), held_now()
        for first, last in pairwise(marks):
            began = time.process_time()
            for _ in range(first, last):
                step(draw)
            each = 1e3 * (time.process_time() - began) / (last - first)
            print(
                f"{name:16} {first:8,} to {last:6,} {each:10.2f} ms {held_now() - before:9.1f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
