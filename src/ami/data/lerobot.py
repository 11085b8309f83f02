"""LeRobot datasets, versions 2.0 to 3.0, as episodes: numbers in parquet files, cameras in films or pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ami.data.episode import Episode
from ami.data.recording import Recording, Wanted, needed, square
from ami.data.video import read_moments
from ami.types import Embodiment

_INFO = Path("meta") / "info.json"
_ACTION, _STATE = "action", "observation.state"


@dataclass(frozen=True)
class _Stretch:
    """Where one episode lies."""

    number: int
    length: int  # frames
    task: str
    table: Path  # parquet file with its rows, and those of others from version 3 on
    film: Path | None  # with its camera, likewise
    begin: float  # seconds into the film


@dataclass(frozen=True)
class _Dataset:
    """A dataset's own description, and which camera of it is wanted."""

    folder: Path
    info: dict[str, Any]
    camera: str | None
    parquet: Any  # the module

    @property
    def filmed(self) -> bool:
        """Is the camera kept as films? Otherwise as pictures in the table."""
        return self.camera is not None and self.info["features"][self.camera]["dtype"] == "video"

    def columns(self) -> list[str]:
        """What is read of the tables."""
        wanted = [_ACTION, _STATE, *([] if self.camera is None or self.filmed else [self.camera])]
        return [name for name in wanted if name in self.info["features"]]

    def at(self, template: str, **places: Any) -> Path:
        """A file of the dataset; one that would lie outside of it is refused."""
        path = self.folder / self.info[template].format(**places)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{self.folder / _INFO} leads outside of the dataset, to {path}")
        return path


def is_lerobot(path: Path) -> bool:
    """Is this a LeRobot dataset?"""
    return (path / _INFO).is_file() and "codebase_version" in (path / _INFO).read_text(encoding="utf-8")


def open_lerobot(path: Path, wanted: Wanted) -> Recording:
    """A dataset as the ``lerobot`` package writes it (Cadene et al. 2024), in any version from 2.0 to 3.0.

    ``action`` and ``observation.state`` (which becomes ``proprio``) keep the units that the robot's makers gave them;
    an action's bounds are the least and the most that was recorded of it. The row of frame t holds what was seen and
    the action done then, which leads to frame t+1, so the last action of an episode is dropped. One camera is taken, by
    its whole name or the last part of it; depth films are none. Frames come at the dataset's own rate.
    """
    parquet = needed("pyarrow.parquet", "a LeRobot dataset", "robots")
    try:
        info = json.loads((path / _INFO).read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version.split(".")[0] not in ("v2", "v3"):
            raise ValueError(f"it has version {version}; known are 2.0 to 3.0, and lerobot converts older ones")
        dataset = _Dataset(path, info, _camera(info["features"], wanted.camera), parquet)
        stretches = _newer(dataset) if version.startswith("v3") else _older(dataset)
        low, high = _bounds(path) if _ACTION in info["features"] else ((), ())
        robot = info.get("robot_type")
        name = path.resolve().name if robot in (None, "", "unknown") else str(robot)
        body = Embodiment(name, 1 / float(info["fps"]), low, high)
    except (KeyError, TypeError, OSError, ZeroDivisionError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a LeRobot dataset that can be read: {error!r}") from error
    names = tuple(f"episode {each.number}" for each in stretches)
    return Recording(path, body, names, lambda number: (_episode(dataset, body, stretches[number], wanted.size), None))


def _camera(features: dict[str, Any], wanted: str | None) -> str | None:
    """The feature that is the wanted camera, or the first; ``None`` where there is none."""
    known = [
        name
        for name, feature in features.items()
        if feature["dtype"] in ("video", "image") and not (feature.get("info") or {}).get("video.is_depth_map")
    ]
    chosen = [name for name in known if wanted in (None, name, name.split(".")[-1])]
    if wanted is not None and not chosen:
        raise ValueError(f"it has no camera {wanted!r}; there are {', '.join(known) or 'none'}")
    return chosen[0] if chosen else None


def _older(dataset: _Dataset) -> list[_Stretch]:
    """Version 2: a table and a film for each episode."""
    found = []
    for held in _lines(dataset.folder / "meta" / "episodes.jsonl"):
        number = held["episode_index"]
        places = {"episode_chunk": number // dataset.info["chunks_size"], "episode_index": number}
        film = dataset.at("video_path", video_key=dataset.camera, **places) if dataset.filmed else None
        table = dataset.at("data_path", **places)
        found.append(_Stretch(number, held["length"], "; ".join(held["tasks"]), table, film, 0.0))
    return found


def _newer(dataset: _Dataset) -> list[_Stretch]:
    """Version 3: tables and films that hold many episodes."""
    found, film_of = [], f"videos/{dataset.camera}/"
    names = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    names += [film_of + part for part in ("chunk_index", "file_index", "from_timestamp")] if dataset.filmed else []
    for path in sorted((dataset.folder / "meta" / "episodes").rglob("*.parquet")):
        for held in _table(dataset, path, names).to_pylist():
            film, begin = None, 0.0
            if dataset.filmed:
                places = {"chunk_index": held[f"{film_of}chunk_index"], "file_index": held[f"{film_of}file_index"]}
                film = dataset.at("video_path", video_key=dataset.camera, **places)
                begin = held[f"{film_of}from_timestamp"]
            table = dataset.at("data_path", chunk_index=held["data/chunk_index"], file_index=held["data/file_index"])
            task = "; ".join(held["tasks"])
            found.append(_Stretch(held["episode_index"], held["length"], task, table, film, begin))
    return sorted(found, key=lambda stretch: stretch.number)


def _bounds(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the most of each number of an action, from the dataset's own statistics."""
    whole, each = folder / "meta" / "stats.json", folder / "meta" / "episodes_stats.jsonl"
    if whole.is_file():
        held = [json.loads(whole.read_text(encoding="utf-8"))[_ACTION]]
    else:
        held = [line["stats"][_ACTION] for line in _lines(each)]
    low, high = (np.array([one[name] for one in held], float) for name in ("min", "max"))
    return tuple(low.min(0).tolist()), tuple(high.max(0).tolist())


def _episode(dataset: _Dataset, body: Embodiment, stretch: _Stretch, size: int) -> Episode:
    mine = [("episode_index", "==", stretch.number)]
    table = _table(dataset, stretch.table, dataset.columns(), mine)
    if table.num_rows != stretch.length or not stretch.length:
        raise ValueError(
            f"{stretch.table} holds {table.num_rows} frames of episode {stretch.number} and {stretch.length} were "
            f"promised; copy it again"
        )
    times = np.arange(stretch.length) * body.step_seconds
    video = None
    if stretch.film is not None:
        video = read_moments(stretch.film, stretch.begin + times, size=size)
    elif dataset.camera is not None:
        video = _pictures(table.column(dataset.camera).to_pylist(), size, stretch.table)
    name = f"{dataset.folder.resolve().name}/{stretch.number}"
    return Episode(
        times,
        video,
        proprio=_numbers(table, _STATE),
        actions=None if not body.low else _numbers(table, _ACTION, -1),
        source=f"{name}: {stretch.task}" if stretch.task else name,
    )


def _table(dataset: _Dataset, path: Path, columns: Sequence[str], rows: Any = None) -> Any:
    try:
        return dataset.parquet.read_table(path, columns=list(columns), filters=rows)
    except (OSError, ValueError) as error:  # its own errors are kinds of these two
        raise ValueError(f"table {path} cannot be read ({error}); copy it again") from error


def _numbers(table: Any, name: str, stop: int | None = None) -> Float[np.ndarray, "frames numbers"] | None:
    """A column whose cells are lists of equally many numbers; ``None`` where there is no such column."""
    if name not in table.column_names:
        return None
    return np.array(table.column(name).to_pylist(), np.float32)[:stop].reshape(table.num_rows + (stop or 0), -1)


def _pictures(cells: Sequence[dict[str, Any]], size: int, path: Path) -> UInt8[np.ndarray, "frames size size 3"]:
    """Pictures that lie in the table itself."""
    try:
        return np.stack([square(Image.open(io.BytesIO(cell["bytes"])), size) for cell in cells])
    except (OSError, TypeError, SyntaxError) as error:
        raise ValueError(f"table {path} holds a picture that cannot be read ({error}); copy it again") from error


def _lines(path: Path) -> list[Any]:
    """What a file of JSON lines holds."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
