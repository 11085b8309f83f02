"""Refusals that several verbs share, each one sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path


def choose(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is not known; the sentence has the near matches, or all that there are."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"there is no {kind} {name!r}; {hint}")


def refuse_used(out: Path, how: str = " with --out") -> None:
    """Refuse to write where something is; what a killed process was writing does not count."""
    if out.exists() and (not out.is_dir() or any(file.suffix != ".part" for file in out.iterdir())):
        raise ValueError(f"{out} is there and is not empty; choose a new folder{how}, or delete this one first")
