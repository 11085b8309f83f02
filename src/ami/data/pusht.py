"""Episodes one after another in a Zarr group, as diffusion policy keeps its Push-T demonstrations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ami.data.episode import Episode
from ami.data.recording import Recording, Wanted, needed, squares
from ami.types import Embodiment

TABLE = 512.0  # px on a side, the simulator's own unit
PUSHER = Embodiment("push-t/demonstrations", step_seconds=0.1, low=(0.0, 0.0), high=(TABLE, TABLE))
STATE = ("pusher_x", "pusher_y", "block_x", "block_y", "block_angle")
_DESCRIPTIONS = (".zarray", "zarr.json")
_PICTURES, _ENDS = "img", "episode_ends"


def is_pusht(path: Path) -> bool:
    """Is this a Zarr group with the episodes' ends beside the data?"""
    return any((path / "meta" / _ENDS / name).is_file() for name in _DESCRIPTIONS) and (path / "data").is_dir()


def open_pusht(path: Path, wanted: Wanted) -> Recording:
    """A group in the layout of diffusion policy's Push-T (Chi et al. 2023), Zarr format 2 or 3.

    ``data/action`` (N 2): where to send the pusher, px of the 512 x 512 table, x right and y down. ``data/state``
    (N 5): pusher and block in px and the block's angle in radians, which become ``truth``; the pusher is ``proprio``
    too. ``data/img`` (N height width 3), 0 to 255, may be missing. ``meta/episode_ends``: where each episode stops.
    10 frames a second. The action of a frame leads to the next, so the last one of an episode is dropped.
    """
    zarr = needed("zarr", "a Zarr group", "robots")
    try:
        ends = np.asarray(_array(zarr, path / "meta" / _ENDS)[:], np.int64)
        held = {
            name: _array(zarr, path / "data" / name)
            for name in ("action", "state", _PICTURES)
            if name != _PICTURES or (path / "data" / name).is_dir()
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a Zarr group in the layout of Push-T that can be read: {error}") from error
    starts, total = np.concatenate([[0], ends[:-1]]), ends[-1] if len(ends) else 0
    if not total or (ends <= starts).any() or any(array.shape[0] < total for array in held.values()):
        sizes = ", ".join(f"{name} {array.shape}" for name, array in held.items())
        raise ValueError(f"{path}: its episodes end at {total} and there are {sizes}; copy it again")
    if held["action"].shape[1:] != (2,) or held["state"].shape[1:] != (len(STATE),):
        raise ValueError(f"{path}: an action has 2 numbers and a state {len(STATE)} in Push-T; it is another task's")
    names = tuple(f"episode {number}" for number in range(len(ends)))

    def read(number: int) -> tuple[Episode, None]:
        rows, source = slice(starts[number], ends[number]), f"{path.name}/{number}"
        try:
            part = {name: np.asarray(array[rows]) for name, array in held.items()}
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError is what its codecs say of damage
            raise ValueError(f"{path}: {names[number]} cannot be read ({error}); copy it again") from error
        return _episode(part, source, wanted.size), None

    return Recording(path, PUSHER, names, read, STATE)


def _episode(part: dict[str, np.ndarray], source: str, size: int) -> Episode:
    state = part["state"].astype(np.float32)
    return Episode(
        times=np.arange(len(state)) * PUSHER.step_seconds,
        video=squares(part[_PICTURES], size, source) if _PICTURES in part else None,
        proprio=state[:, :2],
        actions=part["action"][:-1].astype(np.float32),
        truth=state,
        source=source,
    )


def _array(zarr: Any, path: Path) -> Any:
    """An array, still to be read. Zarr knows a codec that unpickles, and a file may ask for it: it is refused."""
    for described in (path / name for name in _DESCRIPTIONS):
        if described.is_file() and any(
            "pickle" in codec.lower() for codec in _codecs(json.loads(described.read_text(encoding="utf-8")))
        ):
            raise ValueError(f"{described} asks for pickle, which can run code that a file brings along")
    return zarr.open_array(path, mode="r")


def _codecs(document: Any) -> list[str]:
    """Every name and id in a description, wherever in it."""
    if isinstance(document, list):
        return [name for each in document for name in _codecs(each)]
    if not isinstance(document, dict):
        return []
    own = [str(document[key]) for key in ("id", "name") if key in document]
    return own + [name for each in document.values() for name in _codecs(each)]
