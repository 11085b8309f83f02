"""What people see: bars on a terminal while something is done, and tables when it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # it brings torch along, and this file is read before a verb is chosen
    from ami.types import LeftOut

COLOURS = {"error": "bold red", "warning": "yellow", "ok": "green"}
_WIDTH = 120  # of what is printed where there is no terminal


@dataclass(frozen=True)
class Outcome:
    """What a verb came to: for machines, for people, and the exit code."""

    document: Any
    shown: RenderableType = ""
    code: int = 0
    silent: bool = False  # another process says it

    def show(self) -> None:
        """Print it for people."""
        width = None if sys.stdout.isatty() else _WIDTH
        console = Console(width=width, markup=False, highlight=False)
        for part in self.shown.renderables if isinstance(self.shown, Group) else (self.shown,):
            console.print(part, soft_wrap=isinstance(part, str | Text))  # sentences may hold paths


class Bars:
    """Progress on a terminal, each line with the time that it still needs; silence elsewhere."""

    def __init__(self, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._tasks: dict[str, TaskID] = {}
        self.before = ""  # what stands before every line: which part of a longer job this is

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def tell(self, what: str, done: int, total: int, note: str = "") -> None:
        """So much of it is done; a line is there until all of it is."""
        name = f"{self.before}{what}"
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note="")
        self._progress.update(self._tasks[name], completed=done, total=total, note=note, visible=done < total)


def lines(*said: str) -> Text:
    """Sentences under one another; never wrapped, for they may hold paths."""
    return Text("\n".join(said), no_wrap=True, overflow="ignore")


def with_lines(shown: RenderableType, *said: str) -> Group:
    """Something to show, and sentences below it."""
    return Group(shown, lines(*said))


def listing(rows: Sequence[Sequence[str]]) -> Table:
    """Names and what they are."""
    shown = Table.grid(padding=(0, 2))
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def findings(found: Sequence[Mapping[str, str]]) -> Table:
    """What the data doctor found, the worst first."""
    shown = Table.grid(padding=(0, 2))
    for each in sorted(found, key=lambda each: list(COLOURS).index(each["level"])):
        shown.add_row(
            Text(each["level"], COLOURS[each["level"]]), Text(each["name"], no_wrap=True), Text(each["message"])
        )
    return shown


def comparison(names: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> Group:
    """Reports side by side: a column each, a row for each question."""
    from ami.evaluation.plots import amount, number

    shown = Table(box=SIMPLE_HEAD, show_edge=False)
    shown.add_column("benchmark")
    shown.add_column("metric")
    for name in names:
        shown.add_column(Text(name), justify="right")
    held = [{(each["benchmark"], each["metric"]): each for each in document["results"]} for document in documents]
    for question in dict.fromkeys(question for answers in held for question in answers):
        cells = []
        for answers in held:
            each = answers.get(question)
            cells.append(
                f"{amount(each['value'], each['unit'])}\n"
                f"{number(each['low'], each['unit'])}–{number(each['high'], each['unit'])}, n = {each['n']}"
                if each
                else "not asked"
            )
        shown.add_row(*question, *cells)
    heads = (
        f"{name}: {document['checkpoint']['digest'][:12]}" for name, document in zip(names, documents, strict=True)
    )
    return Group(shown, lines("checkpoints", *heads))


def missing(left_out: Sequence[LeftOut], most: int | None = None) -> list[str]:
    """What did not come in: how much in all, then each (or at ``most`` so many) with its reason."""
    if not left_out:
        return []
    known = [each.seconds for each in left_out if each.seconds is not None]
    unknown = len(left_out) - len(known)
    clips = f" ({sum(each.clips or 0 for each in left_out)} clips)" if any(each.clips for each in left_out) else ""
    lost = [f"{sum(known):.1f} s{clips} lost"] if known else []
    lost += [f"{unknown} of unknown length"] if unknown else []
    more = [] if most is None or len(left_out) <= most else [f"and {len(left_out) - most} more"]
    return [
        f"{len(left_out)} left out: {', '.join(lost)}",
        *(f"left out {each.name}: {each.why}" for each in left_out[:most]),
        *more,
    ]


def listed(described: Mapping[str, str]) -> Outcome:
    """What there is of a kind, by name."""
    rows = list(described.items())
    return Outcome([{"name": name, "description": text} for name, text in rows], listing(rows))


def plain(value: Any) -> str:
    """A value of a JSON document as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
