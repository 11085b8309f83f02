"""What the data doctor says of a store: one finding after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ami.data.episodes import Store

_NAMED = 3  # episodes named in a sentence before "and n more"


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at, and what it saw, in one sentence with numbers."""

    level: Literal["error", "warning", "ok"]
    name: str
    message: str


def each(store: Store) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Every episode's number and arrays."""
    return ((number, store.arrays(number)) for number in range(len(store)))


def called(store: Store, number: int) -> str:
    """What a sentence calls an episode."""
    source = store.episodes[number].source
    return f"episode {number} ({source})" if source else f"episode {number}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
