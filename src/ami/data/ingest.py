"""Turn films and robot recordings into a store, all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ami import files
from ami.data.episodes import Episode, Store
from ami.data.robots import WIDOWX, read_bridge
from ami.data.video import FILM, SUFFIXES, read_good_part
from ami.types import Embodiment, LeftOut

_SHARD_BYTES = 256 * 2**20  # what ingest holds in memory before it writes a shard


@dataclass(frozen=True)
class IngestReport:
    """What came in, and what did not: files left out, films of which only the beginning is good, copies of another."""

    store: Path
    digest: str
    episodes: int
    frames: int
    skipped: tuple[LeftOut, ...] = ()
    shortened: tuple[LeftOut, ...] = ()
    duplicates: tuple[LeftOut, ...] = ()

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """All of it, as the store's index lists it."""
        return self.skipped + self.shortened + self.duplicates


def ingest(
    paths: Sequence[Path],
    out: Path,
    *,
    size: int = 64,
    fps: float = 10.0,
    skip_bad: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> IngestReport:
    """Read files, and the recordings in folders, into a new store at ``out``.

    Films are resampled to ``size`` pixels and ``fps``; robot episodes (``.npz``) are taken as they are. Nothing appears
    at ``out`` until everything was read. The first bad file is a ``ValueError``, unless ``skip_bad`` leaves such files
    out, and keeps of a film that is cut short or damaged what comes before that. What was left out, and copies of what
    is there already, are listed in the report and in the store's index. ``progress`` is told how many files of how many
    are done.
    """
    out = Path(out)
    _refuse_used(out)
    found = recordings(paths)
    body = _embodiment(found, fps)
    staging = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        gathered = _Gathered(Store.create(staging, body))
        for done, path in enumerate(found):
            if progress is not None:
                progress(done, len(found))
            try:
                read = (read_bridge(path), None) if body is WIDOWX else read_good_part(path, size=size, fps=fps)
                gathered.add(path, *read, keep=skip_bad)
            except ValueError as error:
                if not skip_bad:
                    raise ValueError(f"{error} (--skip-bad leaves such files out and goes on)") from error
                gathered.skipped.append(LeftOut(str(path), str(error)))
        store = gathered.finish()
        staging.rename(out)
        files.sync_folder(out.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if progress is not None:
        progress(len(found), len(found))
    return IngestReport(
        out,
        store.digest,
        len(store),
        sum(info.length for info in store.episodes),
        tuple(gathered.skipped),
        tuple(gathered.shortened),
        tuple(gathered.duplicates),
    )


def recordings(paths: Sequence[Path], known: Sequence[str] = (*SUFFIXES, ".npz")) -> list[Path]:
    """The files to read, in order, with folders searched to the bottom for names that end as is ``known``."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
            if not inside:
                raise ValueError(f"folder {path} holds no recording ({' '.join(known)})")
            found += inside
        elif not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        elif path.suffix.lower() not in known:
            raise ValueError(f"{path} is not a recording by its name; known are {' '.join(known)}")
        else:
            found.append(path)
    if not found:
        raise ValueError(f"no file was named; give recordings ({' '.join(known)}), or folders of them")
    return list(dict.fromkeys(found))


class _Gathered:
    """Episodes on their way into a store, written a shard at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.skipped: list[LeftOut] = []
        self.shortened: list[LeftOut] = []
        self.duplicates: list[LeftOut] = []
        self._waiting: list[Episode] = []
        self._first: Episode | None = None
        self._seen: dict[str, Path] = {}

    def add(self, path: Path, episode: Episode, lost: LeftOut | None, *, keep: bool) -> None:
        if lost is not None and not keep:
            raise ValueError(lost.why)
        self._first = self._first or episode
        self.store.check(episode, self._first)
        known = self._seen.setdefault(episode.digest, path)
        if known != path:
            self.duplicates.append(LeftOut(str(path), f"the same content as {known}", 0.0))
            return
        if lost is not None:
            kept = f"its first {len(episode) * self.store.embodiment.step_seconds:.1f} s were kept"
            self.shortened.append(replace(lost, why=f"{lost.why}; {kept}"))
        self._waiting.append(episode)
        if sum(array.nbytes for held in self._waiting for array in held.arrays().values()) >= _SHARD_BYTES:
            self._write()

    def finish(self) -> Store:
        if not self._seen:
            raise ValueError(f"not one of {len(self.skipped)} files could be read; the first: {self.skipped[0].why}")
        self._write()
        self.store.leave_out([*self.skipped, *self.shortened, *self.duplicates])
        return self.store

    def _write(self) -> None:
        self.store.append(self._waiting)
        self._waiting = []


def _refuse_used(out: Path) -> None:
    if (out / "index.json").exists():
        raise ValueError(f"{out} already holds a store; choose another folder with --out, or delete this one first")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and is not empty; choose a new folder with --out")


def _embodiment(found: Sequence[Path], fps: float) -> Embodiment:
    """The one embodiment that all the files are of."""
    robots = [path for path in found if path.suffix.lower() == ".npz"]
    films = [path for path in found if path.suffix.lower() != ".npz"]
    if robots and films:
        raise ValueError(
            f"{films[0].name} is a film ({FILM.name!r}) and {robots[0].name} a robot episode ({WIDOWX.name!r}), and a "
            f"store holds one embodiment; ingest them into two stores"
        )
    if not fps > 0:
        raise ValueError(f"{fps} frames per second were asked for; the rate must be above 0")
    return WIDOWX if robots else replace(FILM, step_seconds=1 / fps)
