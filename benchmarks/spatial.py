"""What depth and poses cost: CPU-seconds of a spatial training step with them, and of one from colours alone.

    python benchmarks/spatial.py [--rounds 12]

The two take turns of 8 steps, on one thread and at 64 px; the maze needs no extra. Means, for a quarter of the steps
have points, which cost more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from ami.data.episodes import Store
from ami.recipes.spatial import SPATIAL, spatial
from ami.training.loop import begin, fit
from ami.worlds import maze, maze_walks

_TURN = 8  # steps


def main() -> None:
    """Print both, and their ratio turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "maze", maze.EMBODIMENT, maze_walks.TRUTH)
        store.append(maze_walks.collect(60, 24, seed=0))
        running = {}
        for senses in ("all", "colours"):
            recipe = spatial([store], 0, replace(SPATIAL, senses=senses, steps=(rounds + 1) * _TURN + 1))
            stage = recipe.stages[0]
            running[senses] = fit(begin(recipe.build(), replace(stage, gauge_every=10**9), 0), stage, 0)
        spent: dict[str, list[float]] = {senses: [] for senses in running}
        for _ in range(rounds + 1):
            for senses, steps in running.items():
                began = time.process_time()
                for _ in range(_TURN):
                    next(steps)
                spent[senses].append((time.process_time() - began) / _TURN)
        warm = {senses: each[1:] for senses, each in spent.items()}
        for senses, each in warm.items():
            print(f"{senses:8s} {1000 * fmean(each):6.1f} CPU-ms a step")
        ratios = [one / other for one, other in zip(warm["all"], warm["colours"], strict=True)]
        ratio = fmean(warm["all"]) / fmean(warm["colours"])
        print(f"ratio    {ratio:6.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} turns)")


if __name__ == "__main__":
    main()
