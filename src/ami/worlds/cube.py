"""Cube: a robot arm grasps a cube and puts it elsewhere, as ``ogbench`` simulates it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ami.worlds.bodies import Body, mujoco_for
from ami.worlds.task import Act, State, along, needed

NEAR = 0.04  # metres
_PATIENCE = 40  # model steps of an explorer for one target
_LOW, _HIGH = np.array([0.3, -0.3]), np.array([0.55, 0.3])  # metres: where OGBench puts cubes on its table


class Cube(Body):
    """The single cube of OGBench (Park et al. 2025); metres and radians.

    An action moves the gripper (x, y, z, yaw) and opens (-1) or closes (1) it, from where it is at each environment
    step. ``success`` is OGBench's: the cube's position counts alone, not the arm's. What the
    motors are told is part of the state, for it decides how firmly the cube is held.
    """

    name: ClassVar[str] = "cube"
    seconds: ClassVar[float] = 0.05
    low: ClassVar[tuple[float, ...]] = (-1.0,) * 5
    high: ClassVar[tuple[float, ...]] = (1.0,) * 5
    success: ClassVar[str] = "the cube, 4 cm wide, is within 4 cm"
    controls: ClassVar[bool] = True
    camera = "front_pixels"

    def __init__(self) -> None:
        mujoco_for(self.name)
        env = needed("ogbench.manipspace.envs.cube_env", self.name).CubeEnv(
            "single", ob_type="pixels", mode="data_collection", visualize_info=False
        )
        env.get_pixel_observation = lambda: None  # a picture at every reset that nobody asked for
        env.reset(seed=0)
        super().__init__(env.model, env.data)
        self._env, self._cube = env, int(env.model.joint("object_joint_0").qposadr[0])
        self._oracles = needed("ogbench.manipspace.oracles.markov.cube_markov", self.name)

    def start(self, rng: np.random.Generator) -> State:
        """Arm and cube anywhere, at rest."""
        self._env.reset(seed=int(rng.integers(2**31)))
        return self.read()

    def do(self, action: Float[np.ndarray, "action"]) -> None:
        """As the environment does it, without its observations."""
        self._env.set_control(action)
        self._mujoco.mj_step(self.model, self.data, nstep=round(self.seconds / self.model.opt.timestep))

    def place(self, states: Float[np.ndarray, "... truth"]) -> Float[np.ndarray, "... parts axes"]:
        """Where the cube is."""
        return states[..., None, self._cube : self._cube + 3] / NEAR

    def explorer(self, rng: np.random.Generator) -> Act:
        """OGBench's own oracle brings the cube from place to place, with noise on what it does."""
        oracle, left, target = self._oracle(), 0, np.zeros(3)

        def act(state: State) -> Float[np.ndarray, "action"]:
            nonlocal left, target
            if left == 0 or oracle.done:
                target, left = np.array([*rng.uniform(_LOW, _HIGH), NEAR / 2]), _PATIENCE
                _begin(oracle, np.array([*rng.uniform(_LOW, _HIGH), rng.uniform(0.2, 0.35)]))
            left -= 1
            return along(self._advice(oracle, state, target), 0.1, rng)

        return act

    def script(self, goal: State) -> Act:
        """OGBench's own oracle, told where the cube shall be."""
        oracle, target = self._oracle(), goal[self._cube : self._cube + 3]
        _begin(oracle, np.array([0.4, 0.0, 0.3]))
        return lambda state: self._advice(oracle, state, target)

    def _oracle(self) -> Any:
        # It was made to decide at every environment step, and never to go slowly; an action here is held.
        return self._oracles.CubeMarkovOracle(env=self._env, min_norm=0.01)

    def _advice(self, oracle: Any, state: State, target: Float[np.ndarray, "3"]) -> Float[np.ndarray, "action"]:
        self.restore(state)
        self.data.mocap_pos[self._env._cube_target_mocap_ids[0]] = target
        self._mujoco.mj_rnePostConstraint(self.model, self.data)  # the forces by which it feels what it holds
        action = oracle.select_action(None, self._env.compute_ob_info())
        return np.clip(action * [1.0, 1.0, 1.0, 0.25, 1.0], -1.0, 1.0)


def _begin(oracle: Any, rest: Float[np.ndarray, "3"]) -> None:
    """Begin anew, with nothing left to chance: it draws where to rest from NumPy's global randomness."""
    oracle.reset(None, None)
    oracle._final_pos, oracle._final_yaw = rest, 0.0
