"""The simulated tasks by name."""

from __future__ import annotations

from collections.abc import Mapping

from ami.worlds.bodies import PointMaze, Reacher
from ami.worlds.cube import Cube
from ami.worlds.push import PushT
from ami.worlds.task import Task

TASKS: Mapping[str, type[Task]] = {kind.name: kind for kind in (PushT, Reacher, PointMaze, Cube)}
