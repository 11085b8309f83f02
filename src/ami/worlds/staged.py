"""The events of ``scenes`` staged in a room with depth, where MuJoCo draws them for a camera that may go round them.

Whatever moves is simulated as ever (``physics``), in a plane: on the floor, or upright where there is gravity. A pixel
of that plane is 2 cm; its middle is the world's origin, z is up. A screen is a board that hangs between the camera and
whatever it has to hide at the film's moment. There are no shadows: they would tell what a board hides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.bodies import mujoco_for
from ami.worlds.drawing import OUTLINES
from ami.worlds.eye import INTRINSICS, Eye, looking, mjcf, paint, room, text
from ami.worlds.physics import SIZE, paths
from ami.worlds.scenes import Scenes
from ami.worlds.violations import EMBODIMENT as FLAT
from ami.worlds.violations import FRAMES, GREY, GUST, blinks, possible

NAME = "physics-3d"
PIXEL = 0.02  # metres
_PUSH = PIXEL / FLAT.step_seconds**2  # m/s² of a gust of one pixel per frame and frame
EMBODIMENT = Embodiment(NAME, FLAT.step_seconds, (-GUST * _PUSH,) * 2, (GUST * _PUSH,) * 2)
TRUTH = tuple(f"{who}_{what}" for who in "ab" for what in ("there", "x", "y", "z", "vx", "vy", "vz", "pixels"))
_ORBIT = 0.025  # radians in azimuth for a pixel that the camera pans in the plane
_WALL, _ROPE = 0.06, 0.005  # metres: half of the wall's height, and of how thick the rope is
_BOARD = 0.45  # where the screen hangs, of the way from the camera to the middle
# The body of each outline: a kind of geom, and its sizes in radii. Each reaches a radius down, so that it rests there.
_BODIES = {
    "disc": ("sphere", (1.0,)),
    "square": ("box", (0.8, 0.8, 1.0)),
    "triangle": ("ellipsoid", (0.6, 0.6, 1.0)),
    "diamond": ("cylinder", (0.8, 1.0)),
    "cross": ("capsule", (0.5, 0.5)),
    "ring": ("box", (1.0, 0.4, 1.0)),
}
_OUTLINES = tuple(OUTLINES)


@dataclass(frozen=True)
class Setting:
    """Where one film is shot: what all of its outcomes share."""

    geoms: str  # the room and, where something is hidden, the board before it
    light: tuple[float, float, float]  # where it goes
    noise: int  # seed of the textures
    cells: tuple[float, ...]  # of the textures, px
    poses: Float[np.ndarray, "frames 4 4"]


class Studio:
    """Shoots films of scenes. ``ValueError`` where ``mujoco`` is not installed."""

    def __init__(self) -> None:
        self._mujoco, self._eye = mujoco_for(NAME), Eye(NAME)

    def draw(
        self,
        sides: tuple[Scenes, ...],
        frames: int,
        rng: np.random.Generator,
        *,
        outcomes: tuple[tuple[int, int], ...] = ((0, 0),),
        held_out: bool = False,
    ) -> UInt8[np.ndarray, "outcomes films frames 64 64 3"]:
        """As ``violations.draw``, in three dimensions."""
        count = len(sides[0])
        places = [paths(side.movers, side.stage, frames)[0] for side in sides]
        drawn = np.empty((len(outcomes), count, frames, SIZE, SIZE, 3), np.uint8)
        for row in range(count):
            one = [side.rows(slice(row, row + 1)) for side in sides]
            setting = _setting(one, frames, rng, held_out)
            for number, (furniture, movers) in enumerate(outcomes):
                stage = one[furniture]
                cast = Scenes(one[movers].movers, stage.stage, stage.paint)
                model, data = self._built(cast, setting)
                for frame, pose in enumerate(setting.poses):
                    _put(model, data, cast, places[movers][row, :, frame], frame)
                    drawn[number, row, frame] = self._eye.colours(model, data, pose)
        return drawn

    def film(
        self,
        scene: Scenes,
        gusts: Float[np.ndarray, "gaps 2"],
        closed: Bool[np.ndarray, "frames"],
        rng: np.random.Generator,
        source: str = "",
    ) -> Episode:
        """A scene of one film, with all that is known of it; ``gusts`` as in the plane, blind where ``closed``."""
        (place,), (speed,) = paths(scene.movers, scene.stage, len(closed), gusts[None])
        setting, there = _setting([scene], len(closed), rng, held_out=False), scene.movers.there[0, :2]
        model, data = self._built(scene, setting)
        told = np.zeros((len(closed), 2, len(TRUTH) // 2))
        told[:, :, 0] = there
        told[:, there, 1:4] = _raised(place, scene)[:2].swapaxes(0, 1)[:, there]
        told[:, there, 4:7] = _along(speed, scene)[:2].swapaxes(0, 1)[:, there] / EMBODIMENT.step_seconds
        seen = []
        for frame, pose in enumerate(setting.poses):
            _put(model, data, scene, place[:, frame], frame)
            seen.append(self._eye.look(model, data, pose))
            for mover in np.flatnonzero(there):
                told[frame, mover, 7] = (seen[-1].geom == model.geom(f"mover{mover}").id).sum() * ~closed[frame]
        return Episode(
            times=np.arange(len(closed)) * EMBODIMENT.step_seconds,
            video=np.where(closed[:, None, None, None], np.uint8(GREY), [each.video for each in seen]),
            depth=np.where(closed[:, None, None], 0.0, [each.depth for each in seen]),
            pose=setting.poses,
            intrinsics=np.array(INTRINSICS),
            actions=gusts * _PUSH,
            truth=told.reshape(len(closed), -1),
            source=source,
        )

    def _built(self, scene: Scenes, setting: Setting) -> tuple[Any, Any]:
        """A model of the film, in which nothing is in its place yet."""
        inside = setting.geoms + _furniture(scene) + _movers(scene)
        model = self._mujoco.MjModel.from_xml_string(mjcf(inside, setting.light))
        paint(model, np.random.default_rng(setting.noise), setting.cells)
        data = self._mujoco.MjData(model)
        self._mujoco.mj_forward(model, data)
        return model, data


def collect(count: int, frames: int = FRAMES, seed: int = 0) -> list[Episode]:
    """``count`` films of ``frames`` frames of what can happen. An action is a gust: m/s² along x, and against y."""
    if count < 1 or frames < 12:
        raise ValueError(f"{count} films of {frames} frames were asked for; at least 1 of 12 can be drawn")
    rng, studio = np.random.default_rng(seed), Studio()
    closed, films = blinks(count, frames, rng), {}
    for rows, scenes, gusts in possible(count, frames, rng):
        for row, film in enumerate(rows.tolist()):
            scene, source = scenes.rows(slice(row, row + 1)), f"{NAME}/seed-{seed}/{film}"
            films[film] = studio.film(scene, gusts[row], closed[film], rng, source)
    return [films[film] for film in range(count)]


def _upright(scene: Scenes) -> bool:
    return bool(scene.stage.gravity[0] > 0)


def _setting(sides: list[Scenes], frames: int, rng: np.random.Generator, held_out: bool) -> Setting:
    scene = sides[0]
    upright, moment, (across, along) = _upright(scene), int(scene.stage.moment[0]), scene.stage.camera[0]
    azimuth, elevation = -np.pi / 2 + rng.uniform(-0.5, 0.5), rng.uniform(*(0.06, 0.18) if upright else (0.6, 0.85))
    distance, height = rng.uniform(1.15, 1.4) + 0.2 * upright, 0.58 if upright else 0.05
    since, aim = np.arange(frames) - moment, np.array([0.0, 0.0, height])
    climb = (0.1 if upright else 0.4) * _ORBIT * along * since  # from high above, rope and mover would overlap
    turn, rise = azimuth + _ORBIT * across * since, np.clip(elevation + climb, 0.03, 1.4)
    away = np.stack([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)], -1)
    poses = np.stack([looking(aim + distance * each, aim) for each in away])
    return Setting(
        geoms=room(0.0, rng.uniform(0.4, 0.9, (5, 3))) + _board(sides, poses[moment]),
        light=(*rng.uniform(-0.6, 0.6, 2), -1.0),
        noise=int(rng.integers(2**31)),
        cells=(8.0, 2.0) if held_out else (16.0, 4.0),
        poses=poses,
    )


def _along(way: Float[np.ndarray, "... 2"], scene: Scenes) -> Float[np.ndarray, "... 3"]:
    """A direction in the plane as one in the room, metres for pixels."""
    x, y = PIXEL * way[..., 0], -PIXEL * way[..., 1]
    return np.stack([x, 0.0 * y, y] if _upright(scene) else [x, y, 0.0 * y], -1)


def _raised(place: Float[np.ndarray, "movers ... 2"], scene: Scenes) -> Float[np.ndarray, "movers ... 3"]:
    """Where the middles of movers are in the room."""
    placed = _along(place - _origin(scene), scene)
    if not _upright(scene):
        placed[..., 2] = PIXEL * scene.movers.radius[0, : len(place)].reshape(-1, *(1,) * (place.ndim - 2))
    return placed


def _origin(scene: Scenes) -> Float[np.ndarray, "2"]:
    """The place in the plane that is the room's origin: the floor is there, or there it begins."""
    return np.array([SIZE / 2, scene.stage.floor[0] if _upright(scene) else SIZE / 2])


def _put(model: Any, data: Any, scene: Scenes, place: Float[np.ndarray, "movers 2"], frame: int) -> None:
    """Everything that moves to where it is at a frame."""
    placed = _raised(place, scene)
    for mover in np.flatnonzero(scene.movers.there[0]):
        data.geom_xpos[model.geom(f"mover{mover}").id] = placed[mover]
    if scene.stage.rope[0].any():
        rope = model.geom("rope")
        drawn_up = scene.stage.pull[0] * max(frame - int(scene.stage.moment[0]), 0)
        data.geom_xpos[rope.id] = rope.pos + PIXEL * drawn_up * np.array([0.0, 0.0, 1.0])


def _movers(scene: Scenes) -> str:
    geoms = []
    for mover in np.flatnonzero(scene.movers.there[0]):
        kind, sizes = _BODIES[_OUTLINES[scene.movers.shape[0, mover]]]
        size = np.array(sizes) * PIXEL * scene.movers.radius[0, mover]
        look = f'material="matt" {_rgba(scene.movers.colour[0, mover])}'
        geoms.append(f'<geom name="mover{mover}" type="{kind}" size="{text(size)}" {look}/>')
    return "".join(geoms)


def _furniture(scene: Scenes) -> str:
    """The wall and the rope, where there are any."""
    stage, geoms = scene.stage, ""
    if stage.wall[0].any():
        geoms += _box("wall", *_block(stage.wall[0], scene, 0.0, 2 * _WALL), scene.paint[0, 0])
    if stage.rope[0].any():
        ends = stage.rope[0] - [0.0, 0.0, 0.0, 1.0]  # seen from above, what hangs is higher at its back
        geoms += _box("rope", *_block(ends, scene, -_ROPE, _ROPE), scene.paint[0, 1])
    return geoms


def _board(sides: list[Scenes], pose: Float[np.ndarray, "4 4"]) -> str:
    """A board that faces a camera, and hides from it all that could be where the plane has a screen."""
    scene = sides[0]
    if not scene.stage.screen[0].any():
        return ""
    tall = 2.0 * PIXEL * max(float(side.movers.radius[side.movers.there].max(initial=0.0)) for side in sides)
    middle, half = _block(scene.stage.screen[0], scene, *((-tall / 2, tall / 2) if _upright(scene) else (0.0, tall)))
    ends = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), -1).reshape(-1, 3)
    x, y, ahead = ((middle + half * ends - pose[:3, 3]) @ pose[:3, :3]).T
    away = _BOARD * float(ahead.mean())
    low, high = (np.array([pick(x / ahead), pick(y / ahead)]) * away for pick in (np.min, np.max))
    hung = pose[:3, :3] @ [*(low + high) / 2, away] + pose[:3, 3]
    turned = f'xyaxes="{text(pose[:3, :2].T.ravel())}"'
    return _box("board", hung, np.array([*(high - low) / 2, 0.005]), scene.paint[0, 2], turned)


def _block(
    box: Float[np.ndarray, "4"], scene: Scenes, near: float, far: float
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Middle and half sizes of what stands on a rectangle of the plane, from ``near`` it to ``far``."""
    out = np.array([0.0, 1.0, 0.0]) if _upright(scene) else np.array([0.0, 0.0, 1.0])
    middle = _along((box[:2] + box[2:]) / 2 - _origin(scene), scene) + (near + far) / 2 * out
    return middle, np.abs(_along((box[2:] - box[:2]) / 2, scene)) + (far - near) / 2 * out


def _box(name: str, middle: np.ndarray, half: np.ndarray, colour: np.ndarray, turned: str = "") -> str:
    where = f'size="{text(half)}" pos="{text(middle)}" {turned}'
    return f'<geom name="{name}" type="box" {where} material="matt" {_rgba(colour)}/>'


def _rgba(colour: Float[np.ndarray, "3"]) -> str:
    return f'rgba="{text(colour / 255.0)} 1"'
