"""Push-T: a round pusher moves a T-shaped block over a table, as ``gym-pusht`` simulates it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from ami.worlds.pictures import fitted
from ami.worlds.task import REPEAT, SIZE, Act, State, Task, along, needed

TABLE = 512.0  # px on a side, the simulator's own unit; a picture shows all of it
EDGE = 20.0  # px from the walls that the pusher's centre keeps
REACH = 60.0  # px from the pusher to the point that an action of 1 sends it to
NEAR = 20.0  # px
TURN = np.pi / 9  # radians
_AWAY = 90.0  # px from the block's middle, from where it is pushed


class PushT(Task):
    """Positions in px of the 512 x 512 table, x to the right and y down; angles in radians, velocities per second.

    An action is where to send the pusher, from where it is when the model step begins; the simulator's own controller
    brings it there. ``success`` is that of DINO-WM (Zhou et al. 2024) and LeWM: pusher and block together within
    20 px, and the block turned by less than 20 degrees.
    """

    name: ClassVar[str] = "push-t"
    seconds: ClassVar[float] = 0.1
    low: ClassVar[tuple[float, ...]] = (-1.0, -1.0)
    high: ClassVar[tuple[float, ...]] = (1.0, 1.0)
    success: ClassVar[str] = "pusher and block within 20 px (of a table of 512) together, the block's angle within 20°"

    def __init__(self) -> None:
        module = needed("gym_pusht.envs.pusht", self.name)
        self._env = module.PushTEnv(observation_width=4 * SIZE, observation_height=4 * SIZE)
        self._env._get_coverage = lambda: 0.0  # of its own goal, at every step: more than all of the physics

    @property
    def truth(self) -> tuple[str, ...]:
        """Positions, the block's angle, and the velocities of all three."""
        where = ("pusher_x", "pusher_y", "block_x", "block_y", "block_angle")
        return (*where, *(f"{each}_velocity" for each in where))

    def start(self, rng: np.random.Generator) -> State:
        """Pusher and block anywhere, apart from each other and at rest."""
        while True:
            pusher, block = rng.uniform(50.0, 462.0, 2), rng.uniform(120.0, 392.0, 2)
            if np.linalg.norm(pusher - block) > _AWAY:
                return np.concatenate([pusher, block, [rng.uniform(-np.pi, np.pi)], np.zeros(5)])

    def step(self, state: State, action: Float[np.ndarray, "action"]) -> Float[np.ndarray, "repeat truth"]:
        """Send the pusher to a point and keep sending it there."""
        self._restore(state)
        target = np.clip(state[:2] + REACH * np.asarray(action, float), EDGE, TABLE - EDGE)
        passed = []
        for _ in range(REPEAT):
            self._env.step(target)
            pusher, block = self._env.agent, self._env.block
            moves = (*pusher.velocity, *block.velocity, block.angular_velocity)
            passed.append([*pusher.position, *block.position, block.angle, *moves])
        return np.array(passed)

    def render(self, state: State) -> UInt8[np.ndarray, "64 64 3"]:
        """The table from above."""
        self._restore(state)
        return fitted(self._env._render(), SIZE)

    def place(self, states: Float[np.ndarray, "... truth"]) -> Float[np.ndarray, "... parts axes"]:
        """The two positions together, and the angle on a circle where a chord of 1 is the tolerance."""
        angle, still = states[..., 4], np.zeros_like(states[..., 4])
        circle = np.stack([np.cos(angle), np.sin(angle), still, still], -1) / (2 * np.sin(TURN / 2))
        return np.stack([states[..., :4] / NEAR, circle], -2)

    def explorer(self, rng: np.random.Generator) -> Act:
        """Goes round to some side of the block and pushes through it, again and again; sometimes just wanders."""
        target, left = np.zeros(2), 0
        pushes = False

        def act(state: State) -> Float[np.ndarray, "action"]:
            nonlocal target, left, pushes
            if left == 0 or np.linalg.norm(target - state[:2]) < 15.0:
                pushes = not pushes and rng.random() < 0.8
                middle, heading = _middle(state), rng.uniform(-np.pi, np.pi)
                side = np.array([np.cos(heading), np.sin(heading)])
                if rng.random() < 0.5:  # from outside, so that the block does not stay at a wall
                    side = (middle - TABLE / 2) / max(float(np.linalg.norm(middle - TABLE / 2)), 1.0)
                if pushes:
                    target = middle + rng.uniform(0.3, 0.9) * (middle - state[:2]) + rng.normal(0.0, 20.0, 2)
                else:
                    target = middle + _AWAY * rng.uniform(1.0, 1.5) * side
                target, left = np.clip(target, EDGE, TABLE - EDGE), int(rng.integers(4, 9))
            left -= 1
            pace = rng.uniform(0.5, 1.0)
            return along(np.clip((target - state[:2]) / REACH, -pace, pace), 0.15, rng)

        return act

    def script(self, goal: State) -> Act:
        """Straight to where the pusher shall be: what is in the way is pushed, by luck the right way."""
        return lambda state: np.clip((goal[:2] - state[:2]) / REACH, -1.0, 1.0)

    def _restore(self, state: State) -> None:
        """A new space each time: an old one remembers contacts that this state never had."""
        env = self._env
        env._setup()
        env.goal_pose = np.array([-TABLE, -TABLE, 0.0])  # its own goal is never in the picture
        env.agent.position, env.agent.velocity = tuple(state[:2]), tuple(state[5:7])
        # The angle turns the block about its centre of gravity, which is not its origin; so the position comes last.
        env.block.angle = float(state[4])
        env.block.position, env.block.velocity = tuple(state[2:4]), tuple(state[7:9])
        env.block.angular_velocity = float(state[9])
        env.space.reindex_shapes_for_body(env.agent)
        env.space.reindex_shapes_for_body(env.block)


def _middle(state: State) -> Float[np.ndarray, "2"]:
    """About the middle of the T, which lies 45 px down its stem from its origin."""
    return state[2:4] + 45.0 * np.array([-np.sin(state[4]), np.cos(state[4])])
