"""Episodes on disk: a folder of plain ``.npy`` files and one index, cut into clips by memory-mapped windows.

A store looks like this, and NumPy alone can open it::

    index.json                   schema, embodiment, fields, and for each episode: shard, start, length, digest, source
                                 and place
    shards/00000/video.npy       frames of all the shard's episodes, one after another
    shards/00000/actions.npy     the same number of rows; the last row of each episode is zero, for nothing followed it

    video = numpy.load("shards/00000/video.npy", mmap_mode="r")[start : start + length]

Every array has one row per frame (``intrinsics`` are repeated). A shard never changes once written; the index is
replaced last, so that a crash leaves the store as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from ami import files
from ami.data.episode import FIELDS, Episode
from ami.types import Clip, Embodiment, LeftOut

SCHEMA = 2
_FORMAT = "ami-store"


@dataclass(frozen=True)
class EpisodeInfo:
    """Where an episode lies in its store, and what it holds."""

    shard: int
    start: int
    length: int
    digest: str
    source: str = ""
    place: str = ""  # episodes with the same one were recorded in the same surroundings; "": nobody can say


class Store:
    """A folder of episodes of one embodiment. Open one with ``Store.open``, begin one with ``Store.create``."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self._index = index
        self._mapped: dict[tuple[int, str], np.ndarray] = {}
        body: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in index["embodiment"].items()}
        self.embodiment = Embodiment(**body)
        self.truth_names: tuple[str, ...] = tuple(index["truth_names"])
        self._read_index()

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process is sent: where it lies."""
        return Store.open, (self.folder,)

    @staticmethod
    def create(folder: Path, embodiment: Embodiment, truth_names: Sequence[str] = ()) -> Store:
        """Begin an empty store. ``truth_names`` names the numbers of ``truth``."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is not empty; choose a new folder for the store, or delete this one first")
        index = {
            "format": _FORMAT,
            "schema": SCHEMA,
            "embodiment": asdict(embodiment),
            "truth_names": list(truth_names),
            "fields": {},
            "left_out": [],
            "episodes": [],
        }
        files.write_json(folder / "index.json", index)
        return Store.open(folder)

    @staticmethod
    def open(folder: Path) -> Store:
        """Open a store that is there."""
        folder = Path(folder)
        if not folder.is_dir():
            what = "it is a file" if folder.exists() else "no such folder"
            raise ValueError(f"there is no store in {folder}: {what}; make one with ami collect or ami ingest")
        if not (folder / "index.json").is_file():
            what = "not a store: it has no index.json" if any(folder.iterdir()) else "empty"
            raise ValueError(f"{folder} is {what}; make one with ami collect or ami ingest")
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            format_, schema = index["format"], index["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is not a store: its index.json is not one of ours ({error!r})") from error
        if format_ != _FORMAT:
            raise ValueError(f"{folder} is not a store: its index.json says it is {format_!r}, not {_FORMAT!r}")
        if schema > SCHEMA:
            raise ValueError(f"{folder} has schema {schema}, this AMI reads up to {SCHEMA}; install a newer AMI")
        try:
            return Store(folder, index)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}/index.json is damaged ({error!r}); make the store again") from error

    def append(self, episodes: Sequence[Episode]) -> None:
        """Add episodes, all or none of them, as one new shard. They must hold the fields the store holds."""
        episodes = tuple(episodes)
        if not episodes:
            return
        for episode in episodes:
            self.check(episode, episodes[0])
        fields = self._index["fields"] or _describe(episodes[0])
        number = 1 + max((info.shard for info in self.episodes), default=-1)
        folder = self.folder / "shards" / f"{number:05d}"  # a crashed append may have left files here: replaced now
        for name in fields:
            _write_rows(folder / f"{name}.npy", name, episodes)
        files.sync_folder(folder.parent)
        added, start = [], 0
        for episode in episodes:
            added.append(
                asdict(EpisodeInfo(number, start, len(episode), episode.digest, episode.source, episode.place))
            )
            start += len(episode)
        self._replace_index({"fields": fields, "episodes": [*self._index["episodes"], *added]})

    def leave_out(self, refused: Sequence[LeftOut]) -> None:
        """Note files that did not come in, or not to their end."""
        noted = [[each.name, each.why, each.seconds] for each in refused]
        self._replace_index({"left_out": [*self._index["left_out"], *noted]})

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Files that did not come in, or not to their end."""
        return tuple(LeftOut(*held) for held in self._index["left_out"])  # older stores do not say how many seconds

    def check(self, episode: Episode, like: Episode | None = None) -> None:
        """Refuse an episode that cannot lie beside the store's own; in an empty store, beside ``like``."""
        name = episode.name
        for what, array, width in (
            ("an action", episode.actions, self.embodiment.action_dim),
            ("truth", episode.truth, len(self.truth_names)),
        ):
            came = 0 if array is None else array.shape[1]
            if came != width:
                raise ValueError(f"{name} has {came} numbers in {what}; {self.embodiment.name!r} has {width} here")
        mine = {field: kept["shape"] for field, kept in _describe(episode).items()}
        there = {field: kept["shape"] for field, kept in (self._index["fields"] or _describe(like or episode)).items()}
        for field in sorted(mine.keys() | there.keys()):
            if mine.get(field) != there.get(field):
                came, wanted = (shapes.get(field, "nothing") for shapes in (mine, there))
                raise ValueError(f"{name} has {came} for {field} at each frame; the other episodes have {wanted}")

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def fields(self) -> dict[str, tuple[int, ...]]:
        """What was recorded at each frame, and the shape of one frame of it. Empty until the first append."""
        return {name: tuple(kept["shape"]) for name, kept in self._index["fields"].items()}

    @property
    def digest(self) -> str:
        """sha256 of the embodiment and of every episode's content, in order."""
        body = files.canonical(self._index["embodiment"])
        return files.digest([body, *(info.digest.encode() for info in self.episodes)])

    def arrays(self, episode: int) -> dict[str, np.ndarray]:
        """An episode's fields as read-only views of the files, unchecked: ``actions`` without their last, empty row."""
        info = self.episodes[episode]
        rows = slice(info.start, info.start + info.length)
        held = {name: self._map(info.shard, name)[rows] for name in self.fields}
        if "actions" in held:
            held["actions"] = held["actions"][:-1]
        if "intrinsics" in held:
            held["intrinsics"] = held["intrinsics"][0]
        return held

    def read(self, episode: int) -> Episode:
        """One episode, as views of the files."""
        info = self.episodes[episode]
        return Episode(**self.arrays(episode), source=info.source, place=info.place)

    def verify(self) -> list[str]:
        """Re-read every byte: one sentence for each episode that is not what was written; empty when all is well."""
        changed = []
        for number, info in enumerate(self.episodes):
            name = f"episode {number} ({info.source or 'no source'}, shards/{info.shard:05d})"
            try:
                if files.digest_arrays(self.arrays(number)) != info.digest:
                    changed.append(f"{name} has changed since it was written")
            except ValueError as error:
                changed.append(f"{name} cannot be read: {error}")
        return changed

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first frame) from which a window of that length fits, episode after episode."""
        chosen = np.arange(len(self)) if episodes is None else np.asarray(episodes, np.int64)
        lengths = self._table[chosen, 2] if len(chosen) else np.zeros(0, np.int64)
        counts = np.maximum(lengths - steps * frames_per_step + 1, 0)
        first = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack([np.repeat(chosen, counts), first], axis=1)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Cut windows at (episode, first frame). Times, points, pose, proprio and truth are of a step's last frame.

        ``video`` is a view in which time, height and width come before colour in memory, as convolutions want it.
        With several frames to a step the actions inside a step have no place: a store with actions is refused.
        """
        if frames_per_step > 1 and "actions" in self.fields:
            raise ValueError(
                f"{self.folder} has actions, so a step must be one frame; {frames_per_step} were asked for"
            )
        shards, rows = self._locate(np.asarray(index, np.int64), steps * frames_per_step)
        ends = slice(frames_per_step - 1, None, frames_per_step)

        def gather(name: str, length: int = steps * frames_per_step) -> torch.Tensor | None:
            return self._gather(name, shards, rows, length) if name in self.fields else None

        def at_ends(name: str) -> torch.Tensor | None:
            held = gather(name)
            return None if held is None else held[:, ends]

        video, depth, intrinsics, times = gather("video"), gather("depth"), gather("intrinsics", 1), at_ends("times")
        assert times is not None
        return Clip(
            embodiment=self.embodiment.name,
            times=times,
            video=None if video is None else video.unflatten(1, (steps, frames_per_step)).permute(0, 1, 2, 5, 3, 4),
            depth=None if depth is None else depth.unflatten(1, (steps, frames_per_step)).unsqueeze(3),
            points=at_ends("points"),
            pose=at_ends("pose"),
            intrinsics=None if intrinsics is None else intrinsics[:, 0],
            proprio=at_ends("proprio"),
            actions=gather("actions", steps - 1),
            truth=at_ends("truth"),
        )

    def _locate(
        self, index: Int[np.ndarray, "batch 2"], length: int
    ) -> tuple[Int[np.ndarray, "batch"], Int[np.ndarray, "batch"]]:
        """The shard, and the row in it, at which each window begins."""
        episode, first = index[:, 0], index[:, 1]
        known = (episode >= 0) & (episode < len(self))
        if not known.all():
            raise ValueError(f"there is no episode {episode[~known][0]}: {self.folder} holds {len(self)}, from 0")
        shards, starts, lengths = self._table[episode].T
        inside = (first >= 0) & (first + length <= lengths)
        if length < 1 or not inside.all():
            bad = int(np.argmin(inside))
            raise ValueError(
                f"a window of {length} frames from frame {first[bad]} is not inside episode {episode[bad]}, "
                f"which has {lengths[bad]} frames"
            )
        return shards, starts + first

    def _gather(
        self, name: str, shards: Int[np.ndarray, "batch"], rows: Int[np.ndarray, "batch"], length: int
    ) -> torch.Tensor:
        kept = self._index["fields"][name]
        out = np.empty((len(rows), length, *kept["shape"]), kept["dtype"])
        # One copy a window runs at the speed of memory; indexing with a table of frames copies twice over many shards.
        for place, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            out[place] = self._map(shard, name)[row : row + length]
        return torch.from_numpy(out)

    def _map(self, shard: int, name: str) -> np.ndarray:
        if (shard, name) in self._mapped:
            return self._mapped[shard, name]
        path = self.folder / "shards" / f"{shard:05d}" / f"{name}.npy"
        kept = self._index["fields"][name]
        try:
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read ({error}); copy it back from a backup") from error
        wanted = (self._rows[shard], *kept["shape"])
        if array.shape != wanted or array.dtype != kept["dtype"]:
            raise ValueError(f"{path} holds {array.dtype} {array.shape}; the index says {kept['dtype']} {wanted}")
        self._mapped[shard, name] = array
        return array

    def _replace_index(self, changes: dict[str, Any]) -> None:
        index = {**self._index, **changes, "schema": SCHEMA}
        files.write_json(self.folder / "index.json", index)
        self._index = index
        self._read_index()

    def _read_index(self) -> None:
        """Make from the index what reading needs."""
        self.episodes: tuple[EpisodeInfo, ...] = tuple(EpisodeInfo(**info) for info in self._index["episodes"])
        places = [(info.shard, info.start, info.length) for info in self.episodes]
        self._table = np.array(places, np.int64).reshape(-1, 3)
        self._rows: dict[int, int] = {}
        for info in self.episodes:
            self._rows[info.shard] = max(self._rows.get(info.shard, 0), info.start + info.length)


def split(store: Store, held_out: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Part the episodes in those to train on and those held out, by their content alone.

    Ordered by digest, the first ``round(n * held_out)`` are held out, at least one on each side where there are two:
    25 part 20 to 5 exactly, in whatever order they came, and copies stay together, as do episodes of one place. The
    price: after an append one near the border may change sides (a threshold on each digest would keep sides for ever,
    but hold out anything from 1 to 9 of 25). So train and evaluate on the same store.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"the held-out share is {held_out}; it must lie between 0 and 1")
    places: dict[str, str] = {}  # the smallest digest of each
    for info in store.episodes:
        if info.place:
            places[info.place] = min(info.digest, places.get(info.place, info.digest))
    keys = [places.get(info.place, info.digest) for info in store.episodes]
    distinct = sorted(set(keys))
    count = min(max(round(len(distinct) * held_out), 1), len(distinct) - 1) if len(distinct) > 1 else 0
    chosen = set(distinct[:count])
    held = tuple(number for number, key in enumerate(keys) if key in chosen)
    return tuple(number for number in range(len(store)) if number not in set(held)), held


def _describe(episode: Episode) -> dict[str, Any]:
    """The fields an episode holds: how one row of each is kept."""
    rows = {name: (4,) if name == "intrinsics" else array.shape[1:] for name, array in episode.arrays().items()}
    return {name: {"dtype": FIELDS[name][0], "shape": list(shape)} for name, shape in rows.items()}


def _write_rows(path: Path, name: str, episodes: Sequence[Episode]) -> None:
    """Write one field of all the episodes, one row per frame, without a second copy of it in memory."""
    shape = _describe(episodes[0])[name]["shape"]
    header = {"descr": FIELDS[name][0], "fortran_order": False, "shape": (sum(map(len, episodes)), *shape)}

    def write(file: Any) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        for episode in episodes:
            array = episode.arrays()[name]
            if name == "intrinsics":
                array = np.tile(array, (len(episode), 1))
            file.write(np.ascontiguousarray(array).data)
            if name == "actions":
                file.write(bytes(array.itemsize * array.shape[1]))

    files.write_whole(path, write)
