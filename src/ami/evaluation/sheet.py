"""A contact sheet of a scene: its frames side by side, what was read out of a model, and the place from above."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ami.evaluation.scene import Scene

_FRAMES = 8  # at most
_NUMBERED = "#d04a12"  # the path and the cameras
_POINTS = 30_000  # drawn from above, at most


def sheet(scene: Scene) -> bytes:
    """The PNG."""
    count = len(scene.times)
    shown = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int))
    rows = _rows(scene)
    tall, wide = 1.15 * len(rows), 1.15 * max(len(shown), 3)
    figure = Figure(figsize=(1.2 + wide + (5.2 if scene.clouds else 0.6), max(tall + 0.7, 3.4)), layout="constrained")
    figure.suptitle(scene.title if scene.told is None else f"{scene.title}; read-outs learned from {scene.told.taught}")
    left, *right = [figure]
    if scene.clouds:
        left, *right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.2 + wide, 5.2])[0]
    if rows:
        _pictures(left, rows, shown, scene)
    for part in right:
        _above(part.subplots(), scene, shown)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _rows(scene: Scene) -> dict[str, np.ndarray]:
    """What is shown of each frame, by its name: colours have three numbers for a pixel, metres one."""
    told = scene.told
    depth = None if scene.depth is None else np.where(scene.depth > 0, scene.depth, np.nan)
    rows = {"colours": scene.video, "depth": depth}
    if told is not None:
        rows |= {
            "depth read\nfrom colours": told.depth,
            "colours imagined\nfrom before": told.imagined_video,
            "depth imagined\nfrom before": told.imagined_depth,
        }
    return {name: pictures for name, pictures in rows.items() if pictures is not None}


def _pictures(part: Any, rows: dict[str, np.ndarray], shown: np.ndarray, scene: Scene) -> None:
    axes = part.subplots(len(rows), len(shown), squeeze=False)
    metres = [pictures for pictures in rows.values() if pictures.ndim == 3]
    far = max((float(np.nanpercentile(each, 98)) for each in metres[:1]), default=1.0)
    drawn = None
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for cell, frame in zip(line, shown, strict=True):
            cell.set(xticks=[], yticks=[])
            cell.set_facecolor("#d8d8d8")  # where nothing is known
            if pictures.ndim == 4:
                cell.imshow(pictures[frame])
            else:
                drawn = cell.imshow(pictures[frame], vmin=0, vmax=far, cmap="viridis_r")
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for cell, frame in zip(axes[0], shown, strict=True):
        cell.set_title(f"{frame}: {scene.times[frame]:.1f} s", fontsize=8)
    if drawn is not None:
        part.colorbar(drawn, ax=axes, label="m", shrink=0.6, pad=0.01)


def _above(axes: Any, scene: Scene, shown: np.ndarray) -> None:
    """The points of all frames and the way of the camera, seen along what its pictures call down."""
    right, ahead = _ground(scene)
    places = np.concatenate([cloud.places for cloud in scene.clouds])
    colours = np.concatenate([cloud.colours for cloud in scene.clouds])
    kept = slice(None, None, -(-len(places) // _POINTS) or 1)
    axes.scatter(places[kept] @ right, places[kept] @ ahead, s=1.5, c=colours[kept] / 255, linewidths=0)
    if scene.pose is not None:
        way, looks = scene.pose[:, :3, 3], scene.pose[:, :3, 2]
        axes.plot(way @ right, way @ ahead, color=_NUMBERED, linewidth=1.4)
        axes.plot(way[shown] @ right, way[shown] @ ahead, "o", color=_NUMBERED, markersize=3)
        for frame in (shown[0], shown[-1]):
            axes.annotate(
                str(frame),
                (way[frame] @ right, way[frame] @ ahead),
                xytext=(10 * (looks[frame] @ right), 10 * (looks[frame] @ ahead)),  # on the side to which it looks
                textcoords="offset points",
                fontsize=9,
                color=_NUMBERED,
                ha="center",
                va="center",
            )
    axes.set(xlabel="m", ylabel="m", aspect="equal")
    axes.set_title("from above: points, and the camera's way", fontsize=9)


def _ground(scene: Scene) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Two directions across what cameras call down, the second where they mostly look."""
    turns = np.eye(3)[None] if scene.pose is None else scene.pose[:, :3, :3]
    down = turns[:, :, 1].sum(0)
    down /= np.linalg.norm(down)
    ahead = turns[0, :, 2] - (turns[0, :, 2] @ down) * down
    if np.linalg.norm(ahead) < 1e-3:  # the first looks straight down
        ahead = -turns[0, :, 1]
    ahead /= np.linalg.norm(ahead)
    return np.cross(down, ahead), ahead
