"""Two Rooms as a Gymnasium environment: one room, one agent, one environment step at a time.

``gymnasium.make("ami.worlds.rooms_env:ami/TwoRooms-door-v0")`` makes one without any import before it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from ami.worlds.rooms import FAMILIES, SECONDS, SIZE, Rooms, sample_pairs

STEPS = 120  # environment steps in an episode
NEAR = 4.5  # px: so near to the goal counts as reached


class TwoRooms(gymnasium.Env[np.ndarray, np.ndarray]):
    """Reach the place that a picture shows. Observations are pictures ``(64, 64, 3)`` uint8, actions lie in [-1, 1]².

    An action longer than 1 is shortened to 1; 1 is 2 px. ``info`` holds the picture of the ``goal``; ``distance``, the
    shortest way to it in px; whether the agent has been within 4.5 px of it since the reset (``success``); and, for
    measuring only, ``state`` (x, y, wall, door) and ``goal_state`` (x, y) in px. The reward is 1 while within 4.5 px.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / SECONDS)}
    _rooms: Rooms
    _at: np.ndarray
    _goal: np.ndarray
    _reached: bool

    def __init__(self, family: str = "fixed", cross_room: bool = True, render_mode: str | None = None) -> None:
        if family not in FAMILIES:
            raise ValueError(f"unknown family of rooms '{family}'; there are {', '.join(FAMILIES)}")
        self.family, self.cross_room, self.render_mode = family, cross_room, render_mode
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Draw a new layout, start and goal."""
        super().reset(seed=seed)
        self._rooms, self._at, self._goal = sample_pairs(self.family, 1, self.np_random, cross_room=self.cross_room)
        self._reached = False
        return self.render(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move once. The episode's end after 120 steps comes from ``gymnasium.make``."""
        self._at = self._rooms.move(self._at, np.asarray(action, float)[None])
        near = bool(np.linalg.norm(self._at - self._goal) <= NEAR)
        self._reached |= near
        return self.render(), float(near), False, False, self._info()

    def render(self) -> np.ndarray:
        """The picture ``(64, 64, 3)`` seen now."""
        return self._rooms.render(self._at)[0]

    def _info(self) -> dict[str, Any]:
        return {
            "goal": self._rooms.render(self._goal)[0],
            "goal_state": self._goal[0].copy(),
            "state": np.array([*self._at[0], self._rooms.wall[0], self._rooms.door[0]]),
            "distance": float(self._rooms.distance(self._at, self._goal)[0]),
            "success": self._reached,
        }


def register() -> None:
    """Make ``ami/TwoRooms-fixed-v0``, ``-door-`` and ``-wall-`` known to Gymnasium; again does no harm."""
    for family in FAMILIES:
        name = f"ami/TwoRooms-{family}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="ami.worlds.rooms_env:TwoRooms",
                max_episode_steps=STEPS,
                kwargs={"family": family},
            )


# Gymnasium 1.0 dropped entry points: a package's environments are found by importing the module that registers them,
# which gymnasium.make("ami.worlds.rooms_env:ami/TwoRooms-door-v0") does by itself.
register()
