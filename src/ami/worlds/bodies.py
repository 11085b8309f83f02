"""Worlds that MuJoCo simulates: what they share, PointMaze of ``ogbench`` and the Reacher of ``dm_control``."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from ami.worlds.pictures import fitted
from ami.worlds.task import REPEAT, SIZE, Act, State, Task, along, needed


class Body(Task):
    """A MuJoCo model whose state is its joints' positions and velocities. Subclasses open it and act in it."""

    camera: Any = -1  # a number, a name or an MjvCamera
    controls: ClassVar[bool] = False  # whether what its motors are told is part of the state too

    def __init__(self, model: Any, data: Any) -> None:
        self._mujoco = mujoco_for(self.name)
        self.model, self.data = model, data
        self._renderer: Any = None

    @property
    def truth(self) -> tuple[str, ...]:
        """Positions as MuJoCo counts them, then velocities, then controls."""
        sizes = {"qpos": self.model.nq, "qvel": self.model.nv, "ctrl": self.model.nu if self.controls else 0}
        return tuple(f"{what}_{i}" for what, size in sizes.items() for i in range(size))

    @abstractmethod
    def do(self, action: Float[np.ndarray, "action"]) -> None:
        """One environment step from where the simulator is."""

    def read(self) -> State:
        """The state that the simulator is in."""
        held = [self.data.qpos, self.data.qvel, self.data.ctrl]
        return np.concatenate(held if self.controls else held[:2])

    def step(self, state: State, action: Float[np.ndarray, "action"]) -> Float[np.ndarray, "repeat truth"]:
        """The action, held."""
        self.restore(state)
        passed = []
        for _ in range(REPEAT):
            self.do(np.asarray(action, float))
            passed.append(self.read())
        return np.stack(passed)

    def render(self, state: State) -> UInt8[np.ndarray, "64 64 3"]:
        """Drawn at twice the size: MuJoCo's own smoothing of edges and its shadows cost 20 to 40 ms without a GPU."""
        self.restore(state)
        if self._renderer is None:
            self.model.vis.quality.offsamples = 0
            self._renderer = self._mujoco.Renderer(self.model, 2 * SIZE, 2 * SIZE)
            close_at_exit(self, self._renderer.close)
            for flag in ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_SKYBOX", "mjRND_HAZE"):
                self._renderer.scene.flags[getattr(self._mujoco.mjtRndFlag, flag)] = 0
        self._renderer.update_scene(self.data, camera=self.camera)
        return fitted(self._renderer.render(), SIZE)

    def restore(self, state: State) -> None:
        """All else is reset too: a solver that starts warm would remember what was simulated before."""
        self._mujoco.mj_resetData(self.model, self.data)
        parts = np.split(np.asarray(state, float), np.cumsum([self.model.nq, self.model.nv]))
        self.data.qpos[:], self.data.qvel[:] = parts[:2]
        if self.controls:
            self.data.ctrl[:] = parts[2]
        self._mujoco.mj_forward(self.model, self.data)


class PointMaze(Body):
    """A ball that is moved through the medium maze of OGBench (Park et al. 2025), seen from above; metres.

    The simulator sets its velocity to 0 before each step, so only the position counts.
    """

    name: ClassVar[str] = "point-maze"
    seconds: ClassVar[float] = 0.1
    low: ClassVar[tuple[float, ...]] = (-1.0, -1.0)
    high: ClassVar[tuple[float, ...]] = (1.0, 1.0)
    success: ClassVar[str] = "within 1 m, where a corridor is 4 m wide"
    pace: ClassVar[float] = 0.2 * REPEAT  # metres in a model step, in x and in y

    def __init__(self) -> None:
        mujoco_for(self.name)
        made = needed("ogbench.locomaze.maze", self.name).make_maze_env("point", "maze", maze_type="medium")
        super().__init__(made.model, made.data)
        self._env, self.camera = made, made.custom_camera
        self.model.geom("target").rgba[3] = 0.0  # its own goal is never in the picture
        self.model.geom("pointbody").rgba[:3] = 0.9, 0.25, 0.15

    def start(self, rng: np.random.Generator) -> State:
        """At rest somewhere in a free cell."""
        return np.concatenate([self._free(rng), np.zeros(2)])

    def do(self, action: Float[np.ndarray, "action"]) -> None:
        """As the environment does it: the action moves the ball, and contacts push it back."""
        self._env.step(action)

    def place(self, states: Float[np.ndarray, "... truth"]) -> Float[np.ndarray, "... parts axes"]:
        """The position; the tolerance is OGBench's metre."""
        return states[..., None, :2]

    def explorer(self, rng: np.random.Generator) -> Act:
        """From one free place to another along OGBench's own shortest way, with noise, at changing pace."""
        goal, pace = self._free(rng), rng.uniform(0.5, 1.0)

        def act(state: State) -> Float[np.ndarray, "action"]:
            nonlocal goal, pace
            if np.linalg.norm(state[:2] - goal) < self.pace or rng.random() < 0.02:
                goal, pace = self._free(rng), rng.uniform(0.5, 1.0)
            return along(pace * self._toward(state[:2], goal), 0.3, rng)

        return act

    def script(self, goal: State) -> Act:
        """OGBench's own shortest way."""
        return lambda state: self._toward(state[:2], goal[:2])

    def _toward(self, at: Float[np.ndarray, "2"], goal: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
        here = self._env.xy_to_ij(at) == self._env.xy_to_ij(goal)
        gap = (goal if here else self._env.get_oracle_subgoal(at, goal)[0]) - at
        return gap / max(float(np.abs(gap).max()), self.pace)

    def _free(self, rng: np.random.Generator) -> Float[np.ndarray, "2"]:
        cell = tuple(rng.choice(np.argwhere(self._env.maze_map == 0)))
        return np.array(self._env.ij_to_xy(cell)) + rng.uniform(-1.0, 1.0, 2)


class Reacher(Body):
    """The two-joint arm of dm_control (Tassa et al. 2018), seen from above; radians and metres.

    There is no target to touch: a goal is a place of the fingertip. ``success`` asks for the hard task's target
    and fingertip to touch.
    """

    name: ClassVar[str] = "reacher"
    seconds: ClassVar[float] = 0.02
    low: ClassVar[tuple[float, ...]] = (-1.0, -1.0)
    high: ClassVar[tuple[float, ...]] = (1.0, 1.0)
    success: ClassVar[str] = "the fingertip within 2.5 cm, where the arm is 24 cm long"
    links: ClassVar[tuple[float, float]] = (0.12, 0.12)  # metres
    near: ClassVar[float] = 0.025  # metres
    camera = "fixed"

    def __init__(self) -> None:
        mujoco = mujoco_for(self.name)
        described, assets = needed("dm_control.suite.reacher", self.name).get_model_and_assets()
        model = mujoco.MjModel.from_xml_string(described, assets)
        super().__init__(model, mujoco.MjData(model))
        model.geom("target").rgba[3] = 0.0

    def start(self, rng: np.random.Generator) -> State:
        """Any pose, at rest."""
        return np.array([rng.uniform(-np.pi, np.pi), rng.uniform(-2.7, 2.7), 0.0, 0.0])

    def do(self, action: Float[np.ndarray, "action"]) -> None:
        """The two torques."""
        self.data.ctrl[:] = action
        self._mujoco.mj_step(self.model, self.data)

    def place(self, states: Float[np.ndarray, "... truth"]) -> Float[np.ndarray, "... parts axes"]:
        """Where the fingertip is."""
        (upper, fore), shoulder, both = self.links, states[..., 0], states[..., 0] + states[..., 1]
        x = upper * np.cos(shoulder) + fore * np.cos(both)
        y = upper * np.sin(shoulder) + fore * np.sin(both)
        return np.stack([x, y], -1)[..., None, :] / self.near

    def explorer(self, rng: np.random.Generator) -> Act:
        """Torques that change slowly, now and then braked: an arm that is only pushed at random spins."""
        torque = rng.uniform(-1.0, 1.0, 2)

        def act(state: State) -> Float[np.ndarray, "action"]:
            nonlocal torque
            torque = np.clip(0.8 * torque + 0.6 * rng.standard_normal(2), -1.0, 1.0)
            return along(torque - 0.3 * state[2:], 0.1, rng)

        return act

    def script(self, goal: State) -> Act:
        """To the goal's joint angles, as a spring with a brake; with more brake it shakes, for an action is held."""

        def act(state: State) -> Float[np.ndarray, "action"]:
            gap = goal[:2] - state[:2]
            gap[0] = (gap[0] + np.pi) % (2 * np.pi) - np.pi
            return np.clip(2.0 * gap - 0.1 * state[2:], -1.0, 1.0)

        return act


def mujoco_for(world: str) -> Any:
    """MuJoCo, drawing without a screen unless somebody chose otherwise; it reads that when it is first imported.

    Without a GPU, Mesa draws such small pictures faster without threads of its own, and the same to the bit.
    """
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("LP_NUM_THREADS", "0")
    return needed("mujoco", world)


def close_at_exit(owner: object, close: Callable[[], None]) -> None:
    """Close what draws with its owner, or when Python ends, before MuJoCo lets go of the display that closing needs."""
    closing = weakref.finalize(owner, close)
    closing.atexit = False
    atexit.register(closing)
