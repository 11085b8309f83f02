"""An eye for what MuJoCo simulates: colour, depth in metres, and which geom each pixel shows, from any pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ami.worlds.bodies import close_at_exit, mujoco_for
from ami.worlds.drawing import textures
from ami.worlds.pictures import fitted
from ami.worlds.task import SIZE

FOVY = 50.0  # degrees, of the whole picture
INTRINSICS = (*(SIZE / 2 / np.tan(np.deg2rad(FOVY) / 2),) * 2, SIZE / 2, SIZE / 2)  # fx fy cx cy, px
FLOOR, WALL, TABLE = range(3)  # its textures
_TEXTURES = 3
ROOM, _TALL = 2.5, 2.5  # metres: half of a room's side, and its height
_NEAR, _FAR = 0.05, 20.0  # metres
_GEOMS = 100  # at most, in one picture


@dataclass(frozen=True)
class Seen:
    """What one look shows. ``depth`` is along the camera's axis, 0 where nothing is; so is ``geom`` -1."""

    video: UInt8[np.ndarray, "64 64 3"]
    depth: Float[np.ndarray, "64 64"]  # metres
    geom: Int[np.ndarray, "64 64"]  # numbers in the model


class Eye:
    """Looks at models that ``mjcf`` wrote: these share their assets, so one OpenGL context serves all of them.

    Two passes: colour at twice the size, whose pixels are averaged by fours (MuJoCo's own smoothing and its shadows
    cost 20 to 40 ms without a GPU), then depth and geoms in one, as the rays through the pixels' middles meet them.
    """

    def __init__(self, world: str) -> None:
        mujoco = self._mujoco = mujoco_for(world)
        gl = self._gl = mujoco.GLContext(2 * SIZE, 2 * SIZE)
        gl.make_current()
        empty = mujoco.MjModel.from_xml_string(mjcf(room(0.0, np.ones((5, 3)))))
        context = self._context = mujoco.MjrContext(empty, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene, self._painted = mujoco.MjvScene(empty, _GEOMS), empty
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
            self._flag(flag, False)
        self._options, self._untouched, self._camera = mujoco.MjvOption(), mujoco.MjvPerturb(), mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0

        def close() -> None:
            gl.make_current()
            context.free()
            gl.free()

        close_at_exit(self, close)

    def look(self, model: Any, data: Any, pose: Float[np.ndarray, "4 4"]) -> Seen:
        """Everything that is seen from ``pose``, camera to world."""
        video = self.colours(model, data, pose)
        for flag in ("SEGMENT", "IDCOLOR"):
            self._flag(flag, True)
        coded, near_far = self._read(SIZE, depth=True)
        for flag in ("SEGMENT", "IDCOLOR"):
            self._flag(flag, False)
        geoms = np.array([-1, *(each.objid for each in self._scene.geoms[: self._scene.ngeom])])
        depth = 1.0 / (near_far * (1.0 / _NEAR - 1.0 / _FAR) + 1.0 / _FAR)
        number = coded.astype(np.int64) @ [1, 256, 65536]
        return Seen(video, np.where(near_far > 0.0, depth, 0.0), geoms[number])

    def colours(self, model: Any, data: Any, pose: Float[np.ndarray, "4 4"]) -> UInt8[np.ndarray, "64 64 3"]:
        """The picture alone, in less than two thirds of the time."""
        mujoco = self._mujoco
        self._gl.make_current()
        if self._painted is not model:
            for number in range(_TEXTURES):
                mujoco.mjr_uploadTexture(model, self._context, number)
            self._painted = model
        # MuJoCo's cameras have y up and look along -z.
        data.cam_xpos[0], data.cam_xmat[0] = pose[:3, 3], (pose[:3, :3] * [1.0, -1.0, -1.0]).ravel()
        mujoco.mjv_updateScene(
            model, data, self._options, self._untouched, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        return fitted(self._read(2 * SIZE)[0], SIZE)

    def _flag(self, name: str, on: bool) -> None:
        self._scene.flags[getattr(self._mujoco.mjtRndFlag, f"mjRND_{name}")] = on

    def _read(self, size: int, *, depth: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Draw and read; OpenGL counts rows from below. Depth: 1 at ``_NEAR``, 0 at ``_FAR``, linear in 1 / metres."""
        port = self._mujoco.MjrRect(0, 0, size, size)
        colour, near_far = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.float32)
        self._mujoco.mjr_render(port, self._scene, self._context)
        self._mujoco.mjr_readPixels(colour, near_far if depth else None, port, self._context)
        return colour[::-1], near_far[::-1]


def mjcf(inside: str, light: Sequence[float] = (0.3, 0.2, -1.0)) -> str:
    """A document for MuJoCo: ``inside`` the world, lit along ``light``, with an eye and the assets that all share.

    The materials ``floor``, ``wall`` and ``table`` are textured, ``matt`` and ``glossy`` are not.
    """
    named = zip(("floor", "wall", "table"), (8.0, 3.0, 1.0), strict=True)
    textured = "".join(
        f'<texture name="{name}" type="2d" builtin="flat" width="{SIZE}" height="{SIZE}" rgb1="1 1 1"/>'
        f'<material name="{name}" texture="{name}" texrepeat="{often} {often}" specular="0"/>'
        for name, often in named
    )
    return f"""<mujoco>
  <option timestep="0.005"/>
  <statistic extent="1" center="0 0 0"/>
  <visual>
    <map znear="{_NEAR}" zfar="{_FAR}"/><quality offsamples="0"/><global offwidth="{2 * SIZE}" offheight="{2 * SIZE}"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
  </visual>
  <asset>
    {textured}
    <material name="matt" specular="0.05" shininess="0.1"/><material name="glossy" specular="0.9" shininess="0.7"/>
  </asset>
  <worldbody>
    <camera name="eye" fovy="{FOVY}"/>
    <light directional="true" dir="{text(light)}" diffuse="0.45 0.45 0.45" specular="0.4 0.4 0.4"/>
    {inside}
  </worldbody>
</mujoco>"""


def room(floor: float, tints: Float[np.ndarray, "5 3"]) -> str:
    """Geoms for ``mjcf``: a floor at the height ``floor`` (metres) and four walls around the origin, each tinted.

    Every room has the same size, for OpenGL's lists hold planes as large as they were when the context was made.
    """
    laid = f'<geom type="plane" size="{ROOM} {ROOM} 1" pos="0 0 {floor}" material="floor" rgba="{text(tints[0])} 1"/>'
    walls = [
        f'<geom type="plane" size="{ROOM} {_TALL / 2} 1" pos="{x * ROOM} {y * ROOM} {floor + _TALL / 2}" '
        f'xyaxes="{y} {-x} 0 0 0 1" material="wall" rgba="{text(tint)} 1"/>'
        for (x, y), tint in zip(((1, 0), (0, 1), (-1, 0), (0, -1)), tints[1:], strict=True)
    ]
    return laid + "".join(walls)


def paint(model: Any, rng: np.random.Generator, cells: tuple[float, ...] = (16.0, 4.0)) -> None:
    """New noise for the textures of a model that was just compiled; ``cells`` are the px between its knots."""
    noise = textures(
        np.zeros((_TEXTURES, 1, 2)), rng, size=SIZE, reach=1, cells=cells, contrast=25.0, light=(120.0, 190.0)
    )
    model.tex_data[:] = noise.astype(np.uint8).ravel()


def looking(place: Float[np.ndarray, "3"], at: Float[np.ndarray, "3"], roll: float = 0.0) -> Float[np.ndarray, "4 4"]:
    """The pose (camera to world; x right, y down, z ahead) of who looks from ``place`` at ``at``, rolled by radians."""
    ahead = (at - place) / np.linalg.norm(at - place)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    pose[:3, 2], pose[:3, 3] = ahead, place
    return pose


def text(numbers: Sequence[float] | np.ndarray) -> str:
    """Numbers as MJCF wants them."""
    return " ".join(f"{number:.6g}" for number in numbers)
