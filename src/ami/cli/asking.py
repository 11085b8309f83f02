"""A suite's questions to a checkpoint, with the recordings at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ami.cli.collecting import collect_seconds
from ami.cli.show import Bars
from ami.data.episodes import Store
from ami.data.pairs import Pair, find
from ami.evaluation.ask import Question, ask, held_out_clip, suite_named
from ami.evaluation.benchmark import Suite
from ami.evaluation.report import Report
from ami.evaluation.suites import SUITES
from ami.models import checkpoint
from ami.recipes.common import sides
from ami.training.run import read_metrics
from ami.types import Clip
from ami.worlds import rooms


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint that a folder is, or that the run in it ended with."""
    if (folder / "recipe.json").is_file():
        if not (folder / "checkpoint").is_dir():
            raise ValueError(f"the run in {folder} is not finished; go on with ami train … --resume")
        return folder / "checkpoint"
    return folder


def held_out(store: Store) -> Clip | None:
    """The episodes of a store that no recipe trains on, one in each row; ``None`` if there are fewer than two."""
    trained, held = sides(store)
    return None if set(trained) & set(held) or len(held) < 2 else held_out_clip(store, held)


def given(suite: Suite, folders: Sequence[Path]) -> tuple[list[Store], list[Pair]]:
    """What ``--data`` names, as a suite takes it: stores, or the one folder of published films that it asks about."""
    if suite.layout is None:
        return [Store.open(folder) for folder in folders], []
    if len(folders) != 1:
        raise ValueError(
            f"the suite {suite.name} asks about published films, and {len(folders)} folders came; name with --data the "
            f"one in which {suite.layout} was unpacked"
        )
    return [], find(folders[0], suite.layout)


def ask_about(
    folder: Path,
    question: Question,
    stores: Sequence[Store],
    bars: Bars,
    commands: Sequence[str],
    pairs: Sequence[Pair] = (),
    rivals: Sequence[Path] = (),
) -> Report:
    """Ask the checkpoint in ``folder``.

    A store of rooms is for film strips, and what AMI draws is drawn anew; other stores, and pairs of films, are asked
    about themselves. ``rivals`` are told apart by the names of their folders.
    """
    if question.n is not None and question.n < 1:
        raise ValueError(f"--n is {question.n}; a result needs at least one episode")
    if question.seed < 0:
        raise ValueError(f"--seed is {question.seed}; seeds count from 0")
    _refuse_alike(rivals)
    came_from = checkpoint.read_provenance(folder)
    pictures, robots, films, notes = None, None, None, []
    for store in stores:
        kind = store.embodiment.name
        if kind == rooms.EMBODIMENT.name:
            pictures = store
        elif store.truth_names:
            continue  # of a world that is asked about in itself
        elif store.embodiment.action_dim and (robots := held_out(store)) is None:
            raise ValueError(f"{store.folder} has {len(store)} episodes, too few to hold two of them out; record more")
        elif not store.embodiment.action_dim:
            if films is not None:
                raise ValueError(f"{films.folder} and {store.folder} both hold films; name one of them")
            films = store
            if not suite_named(question.suite).real_films:
                asks = ", ".join(name for name, suite in SUITES.items() if suite.real_films)
                raise ValueError(
                    f"{store.folder} holds films ('{kind}'), about which the suite {question.suite} asks nothing; "
                    f"choose {asks}, or leave the store out"
                )
        if kind in came_from.data and came_from.data[kind] != store.digest:
            notes.append(f"{store.folder} is not the store that the checkpoint learned '{kind}' from.")
    collected = [each for each in map(collect_seconds, stores) if each is not None]
    report = ask(
        folder,
        question,
        rooms=pictures,
        robots=robots,
        films=films,
        pairs=pairs,
        rivals={rival.name: checkpoint_in(rival) for rival in rivals},
        collect_seconds=sum(collected) if collected else None,
        curves=read_metrics(folder.parent),
        commands=commands,
        progress=bars.tell,
        workers=torch.get_num_threads() if question.device == "cpu" else 1,
    )
    return replace(report, notes=[*report.notes, *notes])


def _refuse_alike(rivals: Sequence[Path]) -> None:
    """Each row of a report has a name of its own."""
    taken = {"model", "untrained", "pixels", "mean", "last-view", "chance"}
    for rival in rivals:
        if (name := rival.resolve().name) in taken:
            raise ValueError(f"--rivals {rival}: another row of the report is called '{name}'; rename the folder")
        taken.add(name)
