"""Four rooms seen through the eyes of who walks in them, as ``miniworld`` draws them, with depth and pose."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from jaxtyping import Float

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.task import REPEAT, SIZE, needed, refuse_few

NAME = "first-person-rooms"
FORWARD, TURN = 0.15, 6.0  # metres and degrees in an environment step, at most
_FAR = 50.0  # metres: beyond is the sky, through a crack between walls, whose depth is unknown
EMBODIMENT = Embodiment(NAME, step_seconds=REPEAT * 0.1, low=(-1.0, -1.0), high=(1.0, 1.0))
TRUTH = ("x", "z", "heading", "box_x", "box_z")  # metres in the world, y up; radians from x towards -z


def collect(episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record walks of ``steps`` model steps; an action is how far to go and to turn left, held for 5 environment steps.

    ``ValueError`` where ``miniworld`` is not installed.
    """
    refuse_few(episodes, steps)
    # It reads this when it is first imported, and would look for a screen without it.
    needed("pyglet", NAME).options["headless"] = True
    module = needed("miniworld.envs.fourrooms", NAME)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how it draws
        env = module.FourRooms(obs_width=SIZE, obs_height=SIZE)
    try:
        return [_walk(env, steps, (seed, number), f"{NAME}/seed-{seed}/{number}") for number in range(episodes)]
    finally:
        env.close()


def _walk(env: Any, steps: int, key: tuple[int, int], source: str) -> Episode:
    rng = np.random.default_rng(key)
    env.reset(seed=int(rng.integers(2**31)))
    seen, actions, bend, away = [_look(env)], [], 0.0, 0
    for _ in range(steps - 1):
        # Ahead with slow bends; at a wall some steps back, turning to one side until another way is ahead.
        bend = float(np.clip(0.7 * bend + 0.4 * rng.standard_normal(), -1.0, 1.0))
        action = np.array([-0.2, np.sign(bend)]) if away else np.array([rng.uniform(0.4, 1.0), bend])
        went = []
        for _ in range(REPEAT):
            env.turn_agent(TURN * action[1])
            went.append(env.move_agent(FORWARD * action[0], 0.0))
        away = max(away - 1, 0) if all(went) or away else int(rng.integers(2, 6))
        seen.append(_look(env))
        actions.append(action)
    focal = SIZE / 2 / np.tan(np.deg2rad(env.agent.cam_fov_y) / 2)
    return Episode(
        times=np.arange(steps) * EMBODIMENT.step_seconds,
        actions=np.stack(actions).astype(np.float32),
        intrinsics=np.array([focal, focal, SIZE / 2, SIZE / 2]),
        source=source,
        place="",  # another box in each
        **{name: np.stack([each[name] for each in seen]) for name in seen[0]},
    )


def _look(env: Any) -> dict[str, np.ndarray]:
    """What is seen from here, and the truth about it."""
    agent, depth = env.agent, env.render_depth()[..., 0]
    return {
        "video": env.render_obs(),
        "depth": np.where(depth < _FAR, depth, 0.0),
        "pose": _pose(np.asarray(agent.cam_pos, float), float(agent.dir)),
        "truth": np.array([agent.pos[0], agent.pos[2], agent.dir, env.box.pos[0], env.box.pos[2]]),
    }


def _pose(eye: Float[np.ndarray, "3"], heading: float) -> Float[np.ndarray, "4 4"]:
    """Camera to world: the camera's x is right, y down and z ahead; the world's y is up."""
    cos, sin = np.cos(heading), np.sin(heading)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = (sin, 0.0, cos), (0.0, -1.0, 0.0), (cos, 0.0, -sin), eye
    return pose
