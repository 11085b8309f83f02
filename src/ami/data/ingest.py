"""Turn recordings in any known layout into a store, all of it or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ami import files
from ami.data.episodes import Episode, Store
from ami.data.layouts import Found, find
from ami.data.recording import MissingError, Recording, Wanted
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
    wanted: Wanted | None = None,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> IngestReport:
    """Read recordings, and those in folders, into a new store at ``out``.

    ``ami.data.layouts`` says which are known; pictures are cut to their middle square, and WidowX episodes (``.npz``)
    are taken as they are. Nothing appears at ``out`` until everything was read. The first bad episode is a
    ``ValueError``, unless ``skip_bad`` leaves such episodes out, and keeps of a film that is cut short or damaged what
    comes before that. What was left out, and copies of what is there already, are listed in the report and in the
    store's index. ``progress`` is told how many episodes of how many are done.
    """
    out, wanted, skipped = Path(out), wanted or Wanted(), []
    _refuse_used(out)
    opened = _opened(find(paths), wanted, skipped if skip_bad else None)
    body = _together(opened)
    if wanted.fps is not None and body.action_dim:
        raise ValueError(f"what {body.name!r} did was recorded frame by frame, at its own rate; leave --fps out")
    total, done = sum(len(recording.names) for _, recording in opened), 0
    with files.whole_folder(out) as part:
        store = Store.create(part, body, opened[0][1].truth_names)
        gathered = _Gathered(store, skipped)
        for _, recording in opened:
            for number, name in enumerate(recording.names):
                if progress is not None:
                    progress(done, total)
                label = str(recording.path) if len(recording.names) == 1 else f"{recording.path}: {name}"
                try:
                    gathered.add(label, *recording.read(number), keep=skip_bad)
                except ValueError as error:
                    if not skip_bad:
                        raise _refusal(error) from error
                    skipped.append(LeftOut(label, str(error)))
                done += 1
        store = gathered.finish()
    if progress is not None:
        progress(total, total)
    return IngestReport(
        out,
        store.digest,
        len(store),
        sum(info.length for info in store.episodes),
        tuple(gathered.skipped),
        tuple(gathered.shortened),
        tuple(gathered.duplicates),
    )


class _Gathered:
    """Episodes on their way into a store, written a shard at a time."""

    def __init__(self, store: Store, skipped: list[LeftOut]) -> None:
        self.store = store
        self.skipped = skipped
        self.shortened: list[LeftOut] = []
        self.duplicates: list[LeftOut] = []
        self._waiting: list[Episode] = []
        self._first: Episode | None = None
        self._seen: dict[str, str] = {}

    def add(self, label: str, episode: Episode, lost: LeftOut | None, *, keep: bool) -> None:
        if lost is not None and not keep:
            raise ValueError(lost.why)
        self._first = self._first or episode
        self.store.check(episode, self._first)
        known = self._seen.setdefault(episode.digest, label)
        if known != label:
            self.duplicates.append(LeftOut(label, f"the same content as {known}", 0.0))
            return
        if lost is not None:
            kept = f"its first {len(episode) * self.store.embodiment.step_seconds:.1f} s were kept"
            self.shortened.append(replace(lost, why=f"{lost.why}; {kept}"))
        self._waiting.append(episode)
        if sum(array.nbytes for held in self._waiting for array in held.arrays().values()) >= _SHARD_BYTES:
            self._write()

    def finish(self) -> Store:
        if not self._seen:
            raise _nothing(self.skipped)
        self._write()
        self.store.leave_out([*self.skipped, *self.shortened, *self.duplicates])
        return self.store

    def _write(self) -> None:
        self.store.append(self._waiting)
        self._waiting = []


def _opened(found: Sequence[Found], wanted: Wanted, skipped: list[LeftOut] | None) -> list[tuple[Found, Recording]]:
    """What was found, opened; what cannot be is noted in ``skipped``, or refused where there is no such list."""
    opened = []
    for each in found:
        try:
            opened.append((each, each.layout.open(each.path, wanted)))
        except MissingError:
            raise
        except ValueError as error:
            if skipped is None:
                raise _refusal(error) from error
            skipped.append(LeftOut(str(each.path), str(error)))
    if not opened:
        raise _nothing(skipped or [])
    return opened


def _together(opened: Sequence[tuple[Found, Recording]]) -> Embodiment:
    """The one embodiment that all are of, with bounds that hold everybody's actions."""
    (first, recording), body = opened[0], opened[0][1].embodiment
    for each, other in opened[1:]:
        theirs = other.embodiment
        if theirs.name != body.name:
            raise ValueError(
                f"{first.path.name} is {first.layout.kind} ({body.name!r}) and {each.path.name} {each.layout.kind} "
                f"({theirs.name!r}), and a store holds one embodiment; ingest them into two stores"
            )
        if not math.isclose(theirs.step_seconds, body.step_seconds, rel_tol=0.01):
            raise ValueError(
                f"a step of {first.path.name} takes {body.step_seconds:g} s and one of {each.path.name} "
                f"{theirs.step_seconds:g} s; ingest them into two stores, or at one rate with --fps"
            )
        if theirs.action_dim != body.action_dim or other.truth_names != recording.truth_names:
            raise ValueError(
                f"{first.path.name} and {each.path.name} differ in the numbers of an action ({body.action_dim} and "
                f"{theirs.action_dim}) or of the true state; ingest them into two stores"
            )
        low, high = tuple(map(min, body.low, theirs.low)), tuple(map(max, body.high, theirs.high))
        body = replace(body, low=low, high=high)
    return body


def _refusal(error: ValueError) -> ValueError:
    return ValueError(f"{error} (--skip-bad leaves such files out and goes on)")


def _nothing(skipped: Sequence[LeftOut]) -> ValueError:
    if not skipped:
        return ValueError("what was named holds no episode; copy it again")
    return ValueError(f"not one of {len(skipped)} files could be read; the first: {skipped[0].why}")


def _refuse_used(out: Path) -> None:
    if (out / "index.json").exists():
        raise ValueError(f"{out} already holds a store; choose another folder with --out, or delete this one first")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and is not empty; choose a new folder with --out")
