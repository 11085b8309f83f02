"""What every verb of the command line has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ami.cli.show import Outcome


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What every verb has."""

    json: bool = False  # print one JSON document and nothing else

    after_interrupt: ClassVar[str] = "nothing was written"  # the end of a sentence

    def run(self) -> Outcome:
        """Do it."""
        raise NotImplementedError

    @property
    def writes(self) -> Path | str | None:
        """The folder, or whatever else, that it fills."""
        return None


@dataclass(frozen=True, kw_only=True)
class Heavy(Verb):
    """What every verb has that computes for longer."""

    threads: int | None = None  # cores to compute with; all of them, or OMP_NUM_THREADS, where it is not said


@dataclass(frozen=True)
class Group:
    """A word that several verbs share, each of them said after it."""

    what: Any
