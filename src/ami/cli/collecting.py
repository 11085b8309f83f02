"""Experience from a world into a store."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ami import files
from ami.cli.refuse import refuse_used
from ami.cores import Tell
from ami.data.episodes import Store
from ami.worlds import gym, rooms

COLLECTED = "collected.json"  # in a store's folder: how it was recorded, and the CPU-seconds that it took
ALL = "two-rooms/all"
WORLDS = {
    "two-rooms/fixed": "two rooms seen from above; the wall and its door stand in the middle",
    "two-rooms/door": "the same; the door is somewhere else in each episode",
    "two-rooms/wall": "the same; wall and door are somewhere else in each episode",
    f"two-rooms/{rooms.SEALED}": "the same; the wall is somewhere else in each episode and has no door",
    f"two-rooms/{rooms.REVISITED}": "wall and door somewhere else in each, every sixth sealed, and two walks of each",
    ALL: "fixed, door and wall in equal shares, in one store",
    "drawn-films": "movers over a textured background; the camera pans in half of the films, nobody acts",
    "physics": "films of what can happen: things that move, meet, turn back and fall, and gusts of wind",
    "maze": "mazes seen by who walks in them, with depth and pose; coloured markers and posts, another maze each time",
    "cups": "a shell game: a ball under one of three cups that change places, and now and then a lift",
    "push-t": "a pusher and a T-shaped block on a table, seen from above (needs the extra 'worlds', as all below)",
    "reacher": "an arm of two joints, seen from above",
    "point-maze": "a ball in a maze, seen from above",
    "cube": "a robot arm that moves a cube about a table, with a camera in front of it",
    "first-person-rooms": "four rooms seen by who walks in them, with depth and pose",
    "tabletop": "things that slide on a table, seen by a camera that moves about them, with depth and pose",
    "physics-3d": "what can happen in 'physics', staged in a room, with depth and pose",
    "i-phyre": "drawn games in which blocks are removed and balls fall, told by objects (needs the extra 'iphyre')",
    "memory-maze": "Memory Maze 9x9, walked by who knows it, with depth and pose (needs the extra 'memory-maze')",
    "gym:ID": "any Gymnasium environment with pixels, by its id, acting at random",
}
_TOGETHER = 60  # episodes that are held in memory at once
_SEEDS = 10_000  # at most so many such groups to a seed, so that no two seeds share a group


def collect(world: str, out: Path, episodes: int, steps: int, seed: int, tell: Tell) -> Store:
    """Record episodes into a new store at ``out``, which appears when all are there.

    ``two-rooms/all`` takes its families in turn, so that every stretch of the store holds all of them. A few episodes
    are recorded at a time, each time from a seed of its own: what a seed gives does not depend on the machine.
    """
    refuse_used(out)
    names = [f"two-rooms/{family}" for family in rooms.FAMILIES] if world == ALL else [world]
    if episodes < len(names) or steps < 2 or seed < 0:
        raise ValueError(
            f"{episodes} episodes of {steps} steps from seed {seed} were asked for; at least {len(names)} of 2 steps "
            f"from seed 0 can be recorded"
        )
    left = [(episodes + place) // len(names) for place in range(len(names))]
    began, store = time.process_time(), None
    with files.whole_folder(out) as part:
        for group in range(_SEEDS):
            place = group % len(names)
            count = min(_TOGETHER, left[place])
            left[place] -= count
            if count:
                recorded = gym.record(names[place], count, steps, seed * _SEEDS + group)
                store = store or Store.create(part, recorded.embodiment, recorded.truth_names)
                store.append(recorded.episodes)
                tell(f"collecting {world}", episodes - sum(left), episodes)
            if not any(left):
                break
        else:
            raise ValueError(f"{episodes} episodes are too many for one store; collect several, each with its seed")
        how = {"world": world, "episodes": episodes, "steps": steps, "seed": seed}
        files.write_json(part / COLLECTED, {**how, "cpu_seconds": time.process_time() - began})
    return Store.open(out)


def collect_seconds(store: Store) -> float | None:
    """CPU-seconds that recording a store took, where that is known."""
    path = store.folder / COLLECTED
    return json.loads(path.read_text(encoding="utf-8"))["cpu_seconds"] if path.is_file() else None
