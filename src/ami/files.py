"""The only writer of files: whole or not at all, and the digests that name their contents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` so that a reader sees the old file or the new one, never a part, also after a power cut.

    ``write`` fills a temporary file beside it, which is synced and renamed. On any failure (a full disk, say) the
    temporary file is removed and the old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside ``folder``, to be filled: it gets its name at the end, or is removed where that fails.

    So whoever sees the folder sees all of it, also after a power cut. One that holds something is never overwritten.
    """
    folder = folder.resolve()
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: a rename is only safe once its folder is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole, indented for people; NaN is refused because JSON has none."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file whole."""
    write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def append_line(path: Path, document: Any) -> None:
    """Add one JSON line to a log. A torn last line is possible after a crash; readers drop it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(document) + "\n")


def canonical(document: Any) -> bytes:
    """The one spelling of a JSON document that digests are taken of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """sha256 over parts, each preceded by its length so that no two lists of parts collide."""
    sha = hashlib.sha256()
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        sha.update(size.to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_arrays(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over named arrays: name, type, shape and bytes, in the order of the names."""

    def parts() -> Iterable[bytes | memoryview]:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            yield canonical([name, array.dtype.str, list(array.shape)])
            yield array.reshape(-1).view(np.uint8).data

    return digest(parts())
