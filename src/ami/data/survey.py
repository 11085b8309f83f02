"""Do depth, points, intrinsics and poses fit one another: units, axes and the sense of a pose?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami import geometry
from ami.data.episodes import Store
from ami.data.finding import Finding, called, each, some

_NEAR, _FAR = 0.02, 200.0  # metres: no camera's or scanner's usual distance lies outside
_WITHIN = 0.03  # of a distance: a point this near to where another frame sees something is that thing
_GAPS = (1, 2, 4, 8, 16, 32)  # frames between two views
_PAIRS, _EPISODES, _POINTS = 4, 8, 4096  # looked at: pairs for each gap, episodes, points of a frame
_BETTER = 0.1  # more points must fit before another reading of the poses is named
_LEAST = 0.05  # of the points: where fewer are seen again, nothing can be said


def _axes(*columns: tuple[int, int, int]) -> Float[Tensor, "4 4"]:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(columns, dtype=torch.float64).T
    return pose


def _lengths(times: float) -> Callable[[Tensor], Tensor]:
    return lambda pose: geometry.assemble(pose[..., :3, :3], times * pose[..., :3, 3])


# What poses that do not fit may be instead, each with what makes them fit.
_READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "led from world to camera, not from camera to world": geometry.inverse,
    "had OpenGL's axes (y up, z backward)": lambda pose: pose @ _axes((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "had the axes of a vehicle (x ahead, z up)": lambda pose: pose @ _axes((0, -1, 0), (0, 0, -1), (1, 0, 0)),
    **{
        f"were {times:g} times as long beside depth": _lengths(times)
        for times in (1000.0, 5.0, 0.2, 0.001)  # millimetres, and TUM's 5000 units to a metre
    },
}


def survey(store: Store, against: Store | None = None) -> Iterator[Finding]:
    """Findings about a store's spatial fields; with ``against``, whether that store is in the same units."""
    for name in ("depth", "points"):
        if name not in store.fields:
            continue
        usual, unknown = _distances(store, name)
        yield _scale(name, usual, unknown)
        if against is not None and name in against.fields:
            yield _same_scale(name, usual, _distances(against, name)[0], against)
    if "depth" in store.fields and "intrinsics" not in store.fields:
        yield Finding("warning", "intrinsics", "there is depth and no intrinsics, so nobody can say where things are")
    if "intrinsics" in store.fields:
        yield _intrinsics(store)
    if {"depth", "intrinsics", "pose"} <= set(store.fields):
        yield _poses(store)


def _distances(store: Store, name: str) -> tuple[float, float]:
    """The median distance in metres (NaN where there is none), and the share that is unknown."""
    seen = []
    for _, arrays in each(store):
        held = arrays[name][:: max(len(arrays[name]) // 16, 1)]
        seen.append((np.linalg.norm(held, axis=-1) if name == "points" else held).ravel())
    all_seen = np.concatenate(seen)
    known = all_seen[all_seen > 0]
    return float(np.median(known)) if len(known) else float("nan"), 1 - len(known) / max(len(all_seen), 1)


def _scale(name: str, usual: float, unknown: float) -> Finding:
    if np.isnan(usual):
        return Finding("error", f"{name} scale", f"all {name} are unknown (0)")
    message = f"{name}: {usual:.3g} m away (median), {unknown:.0%} unknown"
    if not _NEAR <= usual <= _FAR:
        units = "millimetres" if usual > _FAR else "kilometres, or divided twice"
        return Finding("error", f"{name} scale", f"{message}: {name} are metres, and these look like {units}")
    return Finding("warning" if unknown > 0.95 else "ok", f"{name} scale", message)


def _same_scale(name: str, usual: float, theirs: float, against: Store) -> Finding:
    message = f"{name} are {usual:.3g} m away (median) and {theirs:.3g} m in {against.folder}"
    if max(usual, theirs) > 50 * min(usual, theirs):
        return Finding("error", f"{name} units", f"{message}: are both in metres?")
    return Finding("ok", f"{name} units", message)


def _intrinsics(store: Store) -> Finding:
    """Are they those of pictures of this size?"""
    picture = next((store.fields[name][:2] for name in ("video", "depth") if name in store.fields), None)
    if picture is None:
        return Finding("ok", "intrinsics", "there are no pictures to compare them with")
    height, width = picture
    bad = []
    for number, arrays in each(store):
        fx, fy, cx, cy = arrays["intrinsics"].tolist()
        in_pictures = np.array([fx / width, fy / height]), np.array([cx / width, cy / height])
        if not (((in_pictures[0] > 0.2) & (in_pictures[0] < 10)).all() and (abs(in_pictures[1] - 0.5) < 0.5).all()):
            bad.append(f"{called(store, number)} with {fx:.4g} {fy:.4g} {cx:.4g} {cy:.4g}")
    if bad:
        message = f"not of pictures of {width} x {height} px by their fx fy cx cy: {some(bad)}"
        return Finding("warning", "intrinsics", message)
    return Finding("ok", "intrinsics", f"all cameras look through the middle of {width} x {height} px")


@dataclass(frozen=True)
class _Views:
    """Pairs of frames of one episode, which may see the same things."""

    points: Float[Tensor, "pairs points 3"]  # of the first frames, in their camera's axes
    first: Float[Tensor, "pairs 4 4"]
    second: Float[Tensor, "pairs 4 4"]
    depth: Float[Tensor, "pairs height width"]  # of the second frames
    intrinsics: Float[Tensor, "4"]


def seen_again(
    points: Float[Tensor, "pairs points 3"],
    motion: Float[Tensor, "pairs 4 4"],
    depth: Float[Tensor, "pairs height width"],
    intrinsics: Float[Tensor, "4"],
) -> Float[Tensor, "pairs points"]:
    """How far, as a share of its distance, each point of one camera is from what another sees in that direction.

    ``motion`` leads from the first camera's axes to the second's. NaN where a point is unknown, out of the second
    picture, or meets unknown depth. What stands before a point, in one view only, makes a large number.
    """
    height, width = depth.shape[1:]
    column, row, ahead = geometry.project(geometry.place(motion, points), intrinsics.expand(len(points), 4)).unbind(-1)
    inside = geometry.known(points) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = torch.where(inside, row.floor() * width + column.floor(), 0).long()
    there = depth.flatten(1).gather(1, pixel)
    return torch.where(inside & (there > 0), (ahead - there).abs() / there, torch.nan)


def _views(arrays: dict[str, np.ndarray]) -> _Views | None:
    frames = len(arrays["depth"])
    pairs = [
        (first, first + gap)
        for gap in _GAPS
        if gap < frames
        for first in np.unique(np.linspace(0, frames - 1 - gap, _PAIRS).astype(int)).tolist()
    ]
    if not pairs:
        return None
    first, second = np.array(pairs).T
    depth, pose = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("depth", "pose"))
    intrinsics = torch.from_numpy(arrays["intrinsics"].astype(np.float64))
    points = geometry.unproject(depth[first], intrinsics.expand(len(first), 4)).flatten(1, 2)
    points = points[:, :: max(points.shape[1] // _POINTS, 1)]
    return _Views(points, pose[first], pose[second], depth[second], intrinsics)


def _fit(views: _Views, reading: Callable[[Tensor], Tensor]) -> Tensor:
    """Of each pair, how far points are from what the other frame sees if the poses are read so."""
    motion = geometry.relative(reading(views.second), reading(views.first))
    return seen_again(views.points, motion, views.depth, views.intrinsics)


def _share(apart: Tensor, views: _Views) -> float:
    """Of the known points, those that the other frame sees where they are: mean over pairs."""
    known = geometry.known(views.points).sum(1).clamp_min(1)
    return ((apart <= _WITHIN).sum(1) / known).mean().item()


def _poses(store: Store) -> Finding:
    """Are the points of one frame where another sees them?"""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(len(store), _EPISODES)).astype(int)).tolist()
    looked = [views for number in chosen if (views := _views(store.arrays(number))) is not None]
    if not looked:
        return Finding("ok", "poses", "no episode has two frames to compare")
    as_they_are = [_fit(views, lambda pose: pose) for views in looked]
    share = float(np.mean([_share(*each) for each in zip(as_they_are, looked, strict=True)]))
    others = {
        name: float(np.mean([_share(_fit(views, reading), views) for views in looked]))
        for name, reading in _READINGS.items()
    }
    best = max(others, key=lambda name: others[name])
    if others[best] > share + _BETTER:
        return Finding(
            "error",
            "poses",
            f"{share:.0%} of points are where other frames see them, and {others[best]:.0%} would be if poses {best}; "
            f"wanted are camera to world, metres, x right, y down, z ahead",
        )
    if share < _LEAST:
        message = f"only {share:.1%} of points are where other frames see them: too few to judge the poses by"
        return Finding("warning", "poses", message)
    apart = torch.cat([each.flatten() for each in as_they_are])
    typical = apart[apart.isfinite()].median().item()
    message = f"{share:.0%} of points are where other frames see them; where both see, {typical:.1%} apart (median)"
    return Finding("warning" if typical > 2 * _WITHIN else "ok", "poses", message)
