"""The report: what a checkpoint was asked and what it answered, for people (HTML) and for machines (JSON)."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from ami import files
from ami.evaluation import page
from ami.evaluation.plots import amount, number
from ami.evaluation.strips import Beside, Strip
from ami.types import Result

DOCUMENT, LOG, PAGE = "report.json", "episodes.jsonl", "report.html"


class Closed(BaseModel):
    """A part of ``report.json``: frozen, no key that is not listed, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Checkpoint(Closed):
    """Which model was asked."""

    digest: str
    parameters: PositiveInt
    recipe: str


class Suite(Closed):
    """What it was asked."""

    name: str
    digest: str


class Code(Closed):
    """What asked it; ``None`` where the code did not lie in a repository."""

    version: str
    commit: str | None
    dirty: bool | None


class Range(Closed):
    """A value inside its interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} is not inside [{self.low}, {self.high}]")
        return self


class Bin(Closed):
    """The answer for goals between two distances, the model's and its baselines'."""

    low: float
    high: float
    unit: str
    n: NonNegativeInt
    rows: dict[str, Range]


class Answer(Range):
    """``types.Result`` on disk: without what only the page draws."""

    benchmark: str
    metric: str
    n: PositiveInt
    unit: str
    seeds: tuple[int, ...]
    interval: str
    baselines: dict[str, Range]
    seconds: float
    model_calls: NonNegativeInt
    by_distance: tuple[Bin, ...] = ()


class EpisodeLog(Closed):
    """The episode log that belongs to the report, by content."""

    lines: NonNegativeInt
    digest: str


class Document(Closed):
    """All of ``report.json``. The films and curves are on the page only."""

    version: Literal[1] = Field(alias="schema")
    checkpoint: Checkpoint
    suite: Suite
    code: Code
    created: str
    machine: dict[str, str | int | float]
    cpu_seconds: dict[str, float]
    results: tuple[Answer, ...]
    protocol: tuple[str, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: dict[str, JsonValue]
    episodes: EpisodeLog

    @model_validator(mode="after")
    def _asked_once(self) -> Self:
        asked = [(answer.benchmark, answer.metric) for answer in self.results]
        twice = {" ".join(question) for question in asked if asked.count(question) > 1}
        if twice:
            raise ValueError(f"answered more than once: {', '.join(sorted(twice))}")
        return self


@dataclass(frozen=True)
class Report:
    """Everything a report says. Nothing is looked up while it is written: the same report gives the same files."""

    checkpoint: Checkpoint
    suite: Suite
    code: Code
    results: Sequence[Result]
    created: str  # when, ISO 8601
    machine: Mapping[str, str | int | float] = field(default_factory=dict)  # see ``this_machine``
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)  # of making it: {"collect": 12.0, "train": 80.5}
    strips: Sequence[Strip | Beside] = ()
    curves: Sequence[Mapping[str, Any]] = ()  # the rows of metrics.jsonl: "step" and named numbers
    protocol: Sequence[str] = ()  # how it was asked, a plain sentence each
    commands: Sequence[str] = ()  # what makes this report again
    notes: Sequence[str] = ()  # what falls short
    provenance: Mapping[str, JsonValue] = field(default_factory=dict)  # of the checkpoint


def this_machine(precision: str, device: torch.device | None = None) -> dict[str, str | int | float]:
    """What the numbers were made on, and the name of a GPU. ``precision`` is that of the arithmetic, e.g. "fp32"."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device is not None and device.type == "cuda" else {}
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return {
        "cores": cores,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": precision,
        **gpu,
    }


def write_report(folder: Path, report: Report) -> None:
    """Write the episode log, the page, and last ``report.json``: where that is, the report is whole."""
    log = _episode_log(report.results)
    document = Document(
        schema=1,
        checkpoint=report.checkpoint,
        suite=report.suite,
        code=report.code,
        created=report.created,
        machine=dict(report.machine),
        cpu_seconds=dict(report.cpu_seconds),
        results=tuple(_answer(result) for result in report.results),
        protocol=tuple(report.protocol),
        commands=tuple(report.commands),
        notes=tuple(report.notes),
        provenance=dict(report.provenance),
        episodes=EpisodeLog(lines=log.count("\n"), digest=files.digest([log.encode()])),
    )
    html = page.page(report)
    files.write_text(folder / LOG, log)
    files.write_text(folder / PAGE, html)
    files.write_json(folder / DOCUMENT, document.model_dump(mode="json", by_alias=True))


def read_report(folder: Path) -> dict[str, Any]:
    """The content of ``report.json``, checked: its schema, its intervals, and the episode log beside it.

    Raises:
        ValueError: there is no report, or it is damaged; one sentence.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        raise ValueError(f"{folder} holds no {DOCUMENT}: give the folder of a finished report")
    try:
        document = Document.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path} is damaged or not of this version: {where}: {first['msg']}") from None
    log = folder / LOG
    if not log.is_file() or files.digest([log.read_bytes()]) != document.episodes.digest:
        raise ValueError(f"{log} is not the episode log that {DOCUMENT} was written with: make the report again")
    return document.model_dump(mode="json", by_alias=True)


def table(report: Report) -> Group:
    """The results for a terminal, a table per benchmark: each metric's value, interval, n and baselines."""
    tables = []
    for benchmark in dict.fromkeys(result.benchmark for result in report.results):
        asked = [result for result in report.results if result.benchmark == benchmark]
        names = list(dict.fromkeys(name for result in asked for name in result.baselines))
        shown = Table(title=benchmark, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
        shown.add_column("metric", no_wrap=True)
        for name in ("value", "interval", "n", *names):
            shown.add_column(name.replace("-", " "), justify="right")
        for result in asked:
            low, high = number(result.low, result.unit), number(result.high, result.unit)
            beside = [number(held.value, result.unit) if (held := result.baselines.get(name)) else "" for name in names]
            shown.add_row(result.metric, amount(result.value, result.unit), f"{low}–{high}", str(result.n), *beside)
        tables.append(shown)
    return Group(*tables)


def _answer(result: Result) -> Answer:
    held = {name: getattr(result, name) for name in Answer.model_fields if name not in ("baselines", "by_distance")}
    baselines = {name: Range(**asdict(interval)) for name, interval in result.baselines.items()}
    bins = (result.details or {}).get("by_distance", ())
    return Answer(**held, baselines=baselines, by_distance=tuple(bins))


def _episode_log(results: Sequence[Result]) -> str:
    """A line per episode. Metrics of one benchmark that were read off the same episodes share their lines."""
    logged: list[tuple[str, list[str], Sequence[Mapping[str, Any]]]] = []
    for result in results:
        rows = (result.details or {}).get("episodes", ())
        same = next((held for held in logged if held[0] == result.benchmark and held[2] == rows), None)
        if same:
            same[1].append(result.metric)
        elif rows:
            logged.append((result.benchmark, [result.metric], rows))
    return "".join(
        json.dumps({"benchmark": benchmark, "metrics": metrics, "episode": i, **row}, allow_nan=False) + "\n"
        for benchmark, metrics, rows in logged
        for i, row in enumerate(rows)
    )
