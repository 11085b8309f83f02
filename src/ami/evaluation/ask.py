"""Ask one checkpoint every question of a suite, and gather the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ami import cores, parallel
from ami.data.episodes import Store
from ami.data.pairs import Pair
from ami.evaluation.benchmark import Answer, Asking, Progress, Suite
from ami.evaluation.decoder import fit_decoder
from ami.evaluation.report import Checkpoint, Code, Report, this_machine
from ami.evaluation.report import Suite as SuiteName
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.diagnosed import diagnosed
from ami.evaluation.suites.robots import NextLatent
from ami.models import checkpoint
from ami.training.loop import drawn_from
from ami.types import Clip, WorldModel


@dataclass(frozen=True)
class Question:
    """How a checkpoint is asked: which suite, with which fresh episodes, and on which held-out recordings."""

    suite: str = "rooms"
    seed: int = 0  # of the evaluation's own episodes
    n: int | None = None  # episodes a benchmark, in place of the suite's number
    baseline_n: int | None = 25  # at most so many for baselines that plan: each costs as much as the model
    device: str = "cpu"  # where the model lies
    diagnose: bool = False  # with the truth in place of one part of the agent after another


def suite_named(name: str) -> Suite:
    """A suite by its name. ``ValueError`` names the others."""
    if name not in SUITES:
        raise ValueError(f"there is no suite '{name}'; choose one of {', '.join(SUITES)}")
    return SUITES[name]


def ask(
    folder: Path,
    question: Question,
    *,
    rooms: Store | None = None,
    robots: Clip | None = None,
    films: Store | None = None,
    pairs: Sequence[Pair] = (),
    rivals: Mapping[str, Path] | None = None,
    collect_seconds: float | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
    commands: Sequence[str] = (),
    progress: Progress = lambda what, done, total: None,
    workers: int = 1,
) -> Report:
    """Everything in one report, under one digest; ``workers`` questions at a time, each in a process of its own.

    ``rooms`` are pictures that the decoder of the film strips learns to draw (no strips without), ``robots`` held-out
    episodes, one in each row, for ``bridge/next-latent``, ``films`` recordings for suites that ask about real films,
    ``pairs`` matched films for suites that ask about published ones, ``rivals`` other checkpoints for suites that ask
    them the same; ``curves`` are the training's metrics.
    """
    suite = _suite(question)
    device = _device(suite, question.device)
    _able(suite, question.n, folder)
    asked = _Asked(folder, question, _folder(rooms), _folder(films), tuple(pairs), tuple((rivals or {}).items()))
    jobs = [partial(_answer, asked, number) for number in range(len(suite.asked))]
    try:
        answer = sum(cores.at_once(jobs, progress, workers), Answer(()))
    finally:
        _ready.cache_clear()  # what lies in the folder may be another model the next time
    model, came_from = checkpoint.load(folder), checkpoint.read_provenance(folder)
    protocol = suite.protocol
    if robots is not None:
        robot, fresh = NextLatent(), untrained(model).to(device)
        answer += Answer(tuple(robot.run(model.to(device), robots, seed=question.seed, untrained=fresh)))
        protocol = (*protocol, *robot.protocol)
    collected = {} if collect_seconds is None else {"collect": collect_seconds}
    return Report(
        checkpoint=Checkpoint(
            digest=checkpoint.digest(folder),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            recipe=came_from.recipe,
        ),
        suite=SuiteName(name=suite.name, digest=suite.digest),
        code=Code(**asdict(checkpoint.code_version())),
        results=answer.results,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine("fp32", device),
        cpu_seconds={**collected, "train": came_from.cpu_seconds},
        strips=answer.strips,
        curves=curves,
        protocol=protocol,
        commands=commands,
        notes=_notes(answer),
        provenance={"data": dict(came_from.data), "seeds": list(came_from.seeds), "steps": came_from.steps},
    )


@dataclass(frozen=True)
class _Asked:
    """All that a process needs to know to answer: little enough to be sent to it."""

    folder: Path
    question: Question
    rooms: Path | None
    films: Path | None
    pairs: tuple[Pair, ...]
    rivals: tuple[tuple[str, Path], ...]


def _able(suite: Suite, n: int | None, folder: Path) -> None:
    """``ValueError`` where a benchmark needs more episodes, or another model: said before the first is asked."""
    for each, _ in suite.asked:
        least = getattr(each, "least", 1)
        if n is not None and n < least:
            raise ValueError(
                f"{each.name} was to ask {n} episode; its interval needs {least} or more: give --n {least}"
            )
    if needs := [able for each, _ in suite.asked if (able := getattr(each, "able", None))]:
        model = checkpoint.load(folder)
        for able in needs:
            able(model)


def _answer(asked: _Asked, number: int, tell: cores.Tell) -> Answer:
    """To the benchmark of that number in the suite."""
    model, asking = _ready(asked)
    benchmark, n = _suite(asked.question).asked[number]
    return benchmark.run(model, n if asked.question.n is None else asked.question.n, replace(asking, progress=tell))


@lru_cache(maxsize=1)  # one process answers several questions
def _ready(asked: _Asked) -> tuple[WorldModel, Asking]:
    """Who is asked, and how."""
    device = _device(_suite(asked.question), asked.question.device)
    model = checkpoint.load(asked.folder).to(device)
    return model, Asking(
        asked.question.seed,
        untrained(model).to(device),
        asked.question.baseline_n,
        None if asked.rooms is None else fit_decoder(model, Store.open(asked.rooms)),
        films=None if asked.films is None else Store.open(asked.films),
        pairs=asked.pairs,
        rivals={name: checkpoint.load(rival) for name, rival in asked.rivals},
    )


def _folder(store: Store | None) -> Path | None:
    return None if store is None else store.folder


def _suite(question: Question) -> Suite:
    suite = suite_named(question.suite)
    return diagnosed(suite) if question.diagnose else suite


def _device(suite: Suite, name: str) -> torch.device:
    """Where a suite is asked. ``ValueError`` where it cannot be asked there."""
    if name != "cpu" and not suite.on_gpu:
        able = ", ".join(name for name, each in SUITES.items() if each.on_gpu)
        raise ValueError(f"the suite {suite.name} is asked on a CPU; on a GPU there are {able}")
    return parallel.device(name)


def held_out_clip(store: Store, episodes: Sequence[int]) -> Clip:
    """Whole episodes, one in each row, cut to the length of the shortest."""
    shortest = min(store.episodes[episode].length for episode in episodes)
    return store.clips(np.array([[episode, 0] for episode in episodes]), shortest)


def untrained(model: WorldModel, kinds: checkpoint.Kinds = checkpoint.MODELS) -> WorldModel:
    """The same architecture with fresh weights, of any kind that a checkpoint can hold."""
    kind = next(kind for _, kind in kinds.values() if type(model) is kind)
    with drawn_from(0):
        return kind(model.config).eval()


def _notes(answer: Answer) -> list[str]:
    """What the benchmarks say, and what falls short: wherever the same planner on the true simulator is better."""
    notes = list(answer.notes)
    for result in answer.results:
        best = result.baselines.get("simulator")
        if best is not None and best.low > result.high:
            notes.append(
                f"{result.benchmark} {result.metric}: {result.value:.0%}, where the same planner on the true simulator "
                f"has {best.value:.0%}: what is missing was not learned."
            )
    return notes
