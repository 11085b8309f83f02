"""Frames per CPU-second of simulated scenes with depth: colour, depth and segments at 64 px, beside MuJoCo's Renderer.

    python benchmarks/looking.py

Needs the extra 'worlds'. All look at the same scene of the world ``tabletop`` and take turns, so that a busy neighbour
slows all rows alike. The last rows are whole films: simulating, drawing, and telling the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ami.worlds import staged, tabletop
from ami.worlds.bodies import mujoco_for
from ami.worlds.eye import Eye, mjcf, room
from ami.worlds.scenes import free
from ami.worlds.task import SIZE

LOOKS, TURNS = 32, 5


def main() -> None:
    """Time everything in turns and print the table."""
    mujoco, eye = mujoco_for("looking"), Eye("looking")
    things = "".join(
        f'<geom type="{kind}" size="0.1 0.1 0.1" pos="{x} 0 0.1" material="matt" rgba="{0.5 + x} 0.4 0.3 1"/>'
        for kind, x in (("box", -0.4), ("sphere", 0.0), ("cylinder", 0.4))
    )
    model = mujoco.MjModel.from_xml_string(mjcf(room(0.0, np.ones((5, 3))) + things))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    poses, studio, scene = tabletop.paths(LOOKS, rng), staged.Studio(), free(2, rng)

    def ours() -> None:
        for pose in poses:
            eye.look(model, data, pose)

    def whole_films() -> None:
        tabletop.film(eye, LOOKS, (0, 0))

    plain, costly = renderer(mujoco, model, 0), renderer(mujoco, model, 4)
    for flag in ("mjRND_SHADOW", "mjRND_REFLECTION"):
        plain.scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
    works: dict[str, Callable[[], object]] = {
        "ours, colour smoothed by fours": ours,
        "Renderer, no shadows, no smoothing": lambda: theirs(plain, data),
        "Renderer as it is": lambda: theirs(costly, data),
        "ours, films of tabletop": whole_films,
        "ours, films of physics-3d, colour alone": lambda: studio.draw((scene,), LOOKS // 2, rng),
    }
    taken: dict[str, list[float]] = {title: [] for title in works}
    for turn in range(TURNS + 1):
        for title, work in works.items():
            began = time.process_time()
            work()
            if turn:  # the first is to warm up
                taken[title].append(LOOKS / (time.process_time() - began))
    print("frames per CPU-second, median of", TURNS, "turns\n")
    for title, rates in taken.items():
        print(f"{title:40} {np.median(rates):8,.0f}")


def renderer(mujoco, model, samples: int):
    """MuJoCo's own; it reads how often to sample a pixel when it is made."""
    model.vis.quality.offsamples = samples
    return mujoco.Renderer(model, SIZE, SIZE)


def theirs(renderer, data) -> None:
    """The three buffers, one pass each."""
    for _ in range(LOOKS):
        for enable in (None, renderer.enable_depth_rendering, renderer.enable_segmentation_rendering):
            if enable:
                enable()
            renderer.update_scene(data, camera="eye")
            renderer.render()
            renderer.disable_depth_rendering()
            renderer.disable_segmentation_rendering()


if __name__ == "__main__":
    main()
