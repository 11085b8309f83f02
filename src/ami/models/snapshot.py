"""A training run's state on disk, so that it goes on bit for bit: optimiser, random generators, step, teacher.

The file is safetensors: its tensors are those of the state, and its header holds everything else as JSON. Nothing in
it can run code, which a pickle could.

Where several processes share tensors out (:func:`ami.parallel.share_out`), each writes its own rows into a file beside
it, and this one, which names the save that they belong to, comes last: a state is whole or not there. Any number of
processes can read it; each takes from the files the rows that it will hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ami import files, parallel

_KEY = "ami.snapshot.2"


@dataclass(frozen=True)
class Stored:
    """A tensor that lies on disk, its rows in one file or in several."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[_File, ...]

    def like(self, held: Tensor | None = None) -> Tensor:
        """Read it: all of it or, where ``held`` is shared, this process's rows, laid out in the same way."""
        if held is None or not parallel.is_shared(held):
            first, *others = self.parts
            return self._rows(0, self.shape[0]) if others else first.tensors.get_tensor(self.name)
        if tuple(held.shape) != self.shape:
            raise ValueError(f"a tensor of shape {self.shape} was saved, and one of {tuple(held.shape)} is wanted")
        return parallel.shared_like(self._rows(*parallel.rows_here(held)), held)

    def _rows(self, first: int, last: int) -> Tensor:
        """From ``first`` to ``last`` (not included): no other row is read."""
        found, before = [], 0
        for part in self.parts:
            rows = part.tensors.get_slice(self.name)
            count = rows.get_shape()[0]
            begin, end = max(first - before, 0), min(last - before, count)
            if begin < end:
                found.append(rows[begin:end])
            before += count
        return torch.cat(found) if found else self.parts[0].tensors.get_slice(self.name)[0:0]


def save_state(path: Path, state: Mapping[str, Any], turn: int = 0) -> None:
    """Write a state whole: nested dicts, lists and tuples of tensors, numbers, text and ``None``.

    Keys may be text or whole numbers. All processes must call it; ``turn`` differs from that of the save before, whose
    files stay until this one's are complete. Raises ``ValueError`` for anything else, with its place in the state.
    """
    whole: dict[str, Tensor] = {}
    shares: dict[str, Tensor] = {}
    tree = _encode(state, "state", whole, shares)
    header = {"turn": turn, "rank": parallel.rank(), "ranks": parallel.size() if shares else 1}
    if shares and parallel.rank() > 0:
        _write(_beside(path, turn, parallel.rank()), shares, header)
    parallel.wait()
    if parallel.rank() == 0:
        _write(path, whole | shares, header | {"state": tree})
        needed = {_beside(path, turn, rank) for rank in range(1, header["ranks"])}
        for old in set(path.parent.glob(f"{path.stem}.*.*{path.suffix}")) - needed:
            old.unlink()
    parallel.wait()  # or a process that is ahead could lose what it writes for the next save


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote: the same types, the same bits, every tensor whole and on the CPU."""
    return _read(path, Stored.like)


def open_state(path: Path) -> dict[str, Any]:
    """The same with a :class:`Stored` in place of each tensor, so that a process reads no more than its share."""
    return _read(path, lambda stored: stored)


@dataclass(frozen=True)
class _File:
    path: Path
    tensors: Any  # an open safetensors file
    header: Mapping[str, Any]
    names: frozenset[str]

    @classmethod
    def open(cls, path: Path) -> _File:
        try:
            tensors = safe_open(path, framework="pt")
            header = (tensors.metadata() or {}).get(_KEY)
            names = frozenset(tensors.keys())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); resume from an older snapshot") from None
        if header is None:
            raise ValueError(f"{path} holds tensors but is not a snapshot that this version of AMI can read")
        told = json.loads(header)
        if told["tensors"] != len(names):
            raise ValueError(f"{path} is damaged: it holds {len(names)} tensors, and {told['tensors']} were saved")
        return cls(path, tensors, told, names)


def _write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    told = {_KEY: json.dumps({**header, "tensors": len(tensors)}, allow_nan=False)}
    files.write_whole(path, lambda file: file.write(safetensors.torch.save(dict(tensors), told)))


def _beside(path: Path, turn: int, rank: int) -> Path:
    return path.with_name(f"{path.stem}.{turn}.{rank}{path.suffix}")


def _read(path: Path, keep: Callable[[Stored], Any]) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no snapshot at {path}; a run writes one each time it saves")
    first = _File.open(path)
    if "state" not in first.header:
        raise ValueError(f"{path} is one process's part of a snapshot; give the file that all of them belong to")
    turn, ranks = first.header["turn"], first.header["ranks"]
    opened = [first]
    for rank in range(1, ranks):
        beside = _beside(path, turn, rank)
        if not beside.is_file():
            raise ValueError(
                f"{beside} is missing: {path} was saved by {ranks} processes into {ranks} files; copy all of them"
            )
        opened.append(_File.open(beside))
        if [opened[-1].header[key] for key in ("turn", "rank", "ranks")] != [turn, rank, ranks]:
            raise ValueError(f"{beside} does not belong to {path}; copy the files of one save together")
    return _decode(first.header["state"], _stored(opened, keep))


def _stored(opened: list[_File], keep: Callable[[Stored], Any]) -> Callable[[str, list[int] | None], Any]:
    """What finds a tensor by its name; its shape is said where every file holds some of its rows."""

    def find(name: str, shape: list[int] | None) -> Any:
        parts = tuple(opened if shape is not None else opened[:1])
        for part in parts:
            if name not in part.names:
                raise ValueError(f"{part.path} is damaged: tensor {name} of the snapshot is not in it; copy it again")
        found = [part.tensors.get_slice(name).get_shape() for part in parts]
        if shape is not None and [sum(rows for rows, *_ in found), *found[0][1:]] != shape:
            raise ValueError(f"{parts[0].path} is damaged: its files hold other rows of tensor {name} than were saved")
        return keep(Stored(name, tuple(shape or found[0]), parts))

    return find


def _encode(value: Any, place: str, whole: dict[str, Tensor], shares: dict[str, Tensor]) -> Any:
    """Plain values as they are; all else as an object with one key, which says what it was."""
    if isinstance(value, Tensor):
        name, shared = str(len(whole) + len(shares)), parallel.is_shared(value)
        # A copy of its own: tensors that share memory (tied weights) are refused by the format.
        (shares if shared else whole)[name] = parallel.part_here(value).cpu().contiguous().clone()
        return {"shared": [name, list(value.shape)]} if shared else {"tensor": name}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if type(key) not in (str, int)]:
            raise ValueError(f"{place} has the key {wrong[0]!r}; a snapshot's keys are text or whole numbers")
        return {"dict": [[key, _encode(item, f"{place}[{key!r}]", whole, shares)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, f"{place}[{i}]", whole, shares) for i, item in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{place} is a {type(value).__name__}, which a snapshot cannot hold; save numbers or tensors")


def _decode(value: Any, find: Callable[[str, list[int] | None], Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return find(held, None)
    if kind == "shared":
        return find(*held)
    if kind == "float":
        return float(held)
    if kind == "dict":
        return {key: _decode(item, find) for key, item in held}
    items = [_decode(item, find) for item in held]
    return items if kind == "list" else tuple(items)
