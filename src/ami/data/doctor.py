"""The data doctor: what is wrong with a store, before a model learns it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from ami import files
from ami.data.episodes import Store
from ami.data.finding import Finding, called, each, some
from ami.data.survey import survey


def check(store: Store, against: Store | None = None) -> list[Finding]:
    """Examine a store; with ``against``, also whether that (evaluation) store shares episodes or frames with it.

    An ``error`` makes results wrong (damaged files, NaN, held-out data that was trained on); a ``warning`` is for a
    person to judge. Files that cannot be read end the examination after they are named.
    """
    if not len(store):
        return [Finding("error", "empty", f"{store.folder} holds no episode")]
    broken = store.verify()
    if broken:
        findings = [Finding("error", "files", f"{sentence}; restore it from a backup") for sentence in broken]
        if any("cannot be read" in sentence for sentence in broken):
            return findings
    else:
        findings = [Finding("ok", "files", f"all {len(store)} episodes are as they were written (sha256)")]
    findings += [_not_a_number(store), _steps(store), *_actions(store), _copies(store), *_pictures(store)]
    findings += survey(store, against)
    findings += [_coverage(store), *_visited(store), *_left_out(store)]
    if against is not None:
        findings.append(_overlap(store, against))
    return findings


def info(store: Store) -> dict[str, Any]:
    """What a store holds, as plain numbers and names."""
    frames = sum(info.length for info in store.episodes)
    sizes = [info.length for info in store.episodes]
    return {
        "folder": str(store.folder),
        "digest": store.digest,
        "embodiment": asdict(store.embodiment),
        "episodes": len(store),
        "frames": frames,
        "minutes": frames * store.embodiment.step_seconds / 60,
        "shortest": min(sizes, default=0),
        "longest": max(sizes, default=0),
        "fields": {name: list(shape) for name, shape in store.fields.items()},
        "truth_names": list(store.truth_names),
        "left_out": [{"name": one.name, "why": one.why, "seconds": one.seconds} for one in store.left_out],
    }


def _not_a_number(store: Store) -> Finding:
    bad = [
        (name, f"{name} of {called(store, number)}")
        for number, arrays in each(store)
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    if not bad:
        return Finding("ok", "nan", "every number is finite")
    only_truth = all(name == "truth" for name, _ in bad)  # which may not be known everywhere
    return Finding("warning" if only_truth else "error", "nan", f"NaN or infinity in {some([said for _, said in bad])}")


def _steps(store: Store) -> Finding:
    """Are frames as far apart as the embodiment says?"""
    wanted = store.embodiment.step_seconds
    apart = {number: np.diff(arrays["times"]) for number, arrays in each(store)}
    bad = [number for number, gaps in apart.items() if len(gaps) and not np.allclose(gaps, wanted, rtol=0.02, atol=0)]
    if not bad:
        return Finding("ok", "step", f"frames are {wanted:g} s apart, as {store.embodiment.name!r} says")
    typical = float(np.median(np.concatenate([apart[number] for number in bad])))
    message = f"frames are {typical:g} s apart (median) where {store.embodiment.name!r} says {wanted:g} s"
    return Finding("error", "step", f"{message}: {some([called(store, number) for number in bad])}")


def _actions(store: Store) -> Iterator[Finding]:
    """Are actions alive, inside their bounds, and of the size of their bounds?"""
    if "actions" not in store.fields:
        return
    actions = np.concatenate([arrays["actions"] for _, arrays in each(store)]).astype(np.float64)
    actions = actions[np.isfinite(actions).all(1)]
    if not len(actions):
        yield Finding("error", "actions", "no episode has a usable action")
        return
    low, high = np.array(store.embodiment.low), np.array(store.embodiment.high)
    spread, room = actions.std(0), np.maximum(high - low, 1e-12)
    still = np.asarray(spread < 1e-6 * room)
    outside = (actions < low - 1e-6) | (actions > high + 1e-6)
    faint = ~still & (spread < 0.01 * room)  # a uniform action has 0.29 of the room, a timid robot about 0.05

    def told(dims: np.ndarray) -> str:
        """Dimensions with what was seen and what was said."""
        seen = zip(actions.min(0), actions.max(0), low, high, strict=True)
        said = [f"{a:.3g} to {b:.3g} (bounds {c:.3g} to {d:.3g})" for a, b, c, d in seen]
        return ", ".join(f"{dim}: {said[dim]}" for dim in np.flatnonzero(dims))

    if still.any():
        yield Finding("warning", "constant actions", f"nothing can be learnt of action dimension {told(still)}")
    if outside.any():
        count = int(outside.any(1).sum())
        level = "error" if count > 0.05 * len(actions) else "warning"
        share = f"{count} of {len(actions)} actions ({count / len(actions):.1%})"
        yield Finding(
            level, "bounds", f"{share} are outside the bounds in dimension {told(np.asarray(outside.any(0)))}"
        )
    if faint.any():
        message = f"actions use under 1 % of the bounds in dimension {told(faint)}: are the units the same?"
        yield Finding("warning", "scale", message)
    alive = spread[~still]
    if len(alive) and (fold := alive.max() / alive.min()) > 3:
        message = f"action dimensions differ {fold:.0f}-fold in deviation ({alive.min():.3g} to {alive.max():.3g})"
        yield Finding("warning", "not normalised", f"{message}: a model must divide by it, as AMI's own do")
    if not (still.any() or outside.any() or faint.any()):
        yield Finding("ok", "actions", f"{len(actions)} actions of {len(low)} numbers, all inside their bounds")


def _copies(store: Store) -> Finding:
    many = [digest for digest, count in Counter(info.digest for info in store.episodes).items() if count > 1]
    if not many:
        return Finding("ok", "duplicates", "no episode is there twice")
    twice = [called(store, n) for n, info in enumerate(store.episodes) if info.digest in many]
    return Finding("warning", "duplicates", f"{len(twice)} episodes are copies of one another: {some(twice)}")


def _pictures(store: Store) -> Iterator[Finding]:
    """Do films show anything, and does it move?"""
    if "video" not in store.fields:
        return
    blank, frozen, all_frames = Counter[int](), [], 0
    for number, arrays in each(store):
        video = arrays["video"]
        flat = video.reshape(len(video), -1)
        blank[number] = int((flat.max(1).astype(int) - flat.min(1) < 4).sum())
        # Every other pixel is enough to see a change, and half the work.
        moved = (flat[1:, ::2] != flat[:-1, ::2]).mean(1) if len(flat) > 1 else np.ones(1)
        if (moved < 1e-3).mean() > 0.5:
            frozen.append(f"{called(store, number)} ({(moved < 1e-3).mean():.0%} of frames repeat the one before)")
        all_frames += len(video)
    if blank.total():
        where = some([called(store, number) for number, count in blank.items() if count])
        yield Finding("warning", "blank frames", f"{blank.total()} of {all_frames} frames are of one colour: {where}")
    if frozen:
        yield Finding("warning", "frozen film", f"films that hardly move: {some(frozen)}")
    if not (blank.total() or frozen):
        yield Finding("ok", "pictures", f"{all_frames} frames, none of one colour, no film frozen")


def _coverage(store: Store) -> Finding:
    frames = sum(info.length for info in store.episodes)
    minutes = frames * store.embodiment.step_seconds / 60
    windows = len(store.windows(16))
    message = f"{len(store)} episodes, {frames} frames, {minutes:.1f} minutes, {windows} windows of 16 steps"
    if windows:
        return Finding("ok", "coverage", message)
    longest = max(info.length for info in store.episodes)
    return Finding("warning", "coverage", f"{message}: the longest episode has {longest}, so clips must be shorter")


def _visited(store: Store) -> Iterator[Finding]:
    """How much of the action space and of the range of truth was seen, in tenths of each dimension."""
    if "actions" in store.fields:
        low, high = np.array(store.embodiment.low), np.array(store.embodiment.high)
        seen = _tenths(np.concatenate([arrays["actions"] for _, arrays in each(store)]), low, high)
        level = "warning" if seen.min() < 0.3 else "ok"
        shares = ", ".join(f"{share:.0%}" for share in seen)
        yield Finding(level, "actions visited", f"of each action dimension's range this share was visited: {shares}")
    if store.truth_names:
        truth = np.concatenate([arrays["truth"] for _, arrays in each(store)])
        seen = _tenths(truth, np.nanmin(truth, 0), np.nanmax(truth, 0))
        shares = ", ".join(
            f"{name} {truth[:, k].min():.3g} to {truth[:, k].max():.3g} ({seen[k]:.0%} of it)"
            for k, name in enumerate(store.truth_names)
        )
        yield Finding("ok", "truth visited", f"range of the true state, and the share visited: {shares}")


def _left_out(store: Store) -> Iterator[Finding]:
    """What did not come in when the store was made?"""
    if store.left_out:
        seconds = sum(one.seconds or 0.0 for one in store.left_out)
        message = f"{len(store.left_out)} recordings did not come in, or not to their end ({seconds:.1f} s at least)"
        yield Finding("warning", "left out", f"{message}: {some([one.name for one in store.left_out])}")


def _overlap(store: Store, against: Store) -> Finding:
    """Is anything in both stores? Whole episodes by digest, single frames by theirs."""
    there = {info.digest for info in against.episodes}
    shared = [called(store, number) for number, info in enumerate(store.episodes) if info.digest in there]
    if shared:
        return Finding("error", "overlap", f"{len(shared)} episodes are also in {against.folder}: {some(shared)}")
    if "video" not in store.fields or store.fields.get("video") != against.fields.get("video"):
        return Finding("ok", "overlap", f"no episode is also in {against.folder}")
    known = {digest for number in range(len(against)) for digest in _frames(against, number)}
    counts = Counter({number: sum(d in known for d in _frames(store, number)) for number in range(len(store))})
    if not counts.total():
        return Finding("ok", "overlap", f"no episode and no frame is also in {against.folder}")
    where = some([called(store, number) for number, count in counts.most_common() if count])
    return Finding("error", "overlap", f"{counts.total()} frames are also in {against.folder}, in {where}")


def _frames(store: Store, number: int) -> list[str]:
    """Digests of an episode's frames, blank ones left out: two films may both begin in black."""
    video = store.arrays(number)["video"]
    return [files.digest([np.ascontiguousarray(frame).data]) for frame in video if np.ptp(frame) >= 4]


def _tenths(
    values: Float[np.ndarray, "rows dim"], low: Float[np.ndarray, "dim"], high: Float[np.ndarray, "dim"]
) -> Float[np.ndarray, "dim"]:
    places = (values - low) / np.maximum(high - low, 1e-12) * 10
    places = np.clip(np.nan_to_num(places, nan=-1.0), -1, 10).astype(int)
    places[np.isclose(values, high)] = 9
    return np.array([len(np.intersect1d(column, np.arange(10))) / 10 for column in places.T])
