"""The verbs that ask about recordings: what can be read out of a checkpoint, and what if something had been other."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from ami.cli.show import Outcome, listing, with_lines
from ami.cli.verb import Heavy

if TYPE_CHECKING:
    from ami.evaluation.futures import WhatIf
    from ami.reasoning.readouts import Kept

_GRAMMAR = "write action=0.5,0 or action=0:0.5,0;3:0,0 (from step 0 on, from step 3 on), or past=EPISODE"


@dataclass(frozen=True, kw_only=True)
class Readout(Heavy):
    """Learn to read a named quantity, in its unit, out of what a checkpoint perceives; without a store, list them.

    Learned on half of a store's episodes from their recorded truth, and measured on the other half. It is kept in the
    checkpoint's folder beside the checkpoint, whose digest does not change. `ami imagine` shows what it reads.
    """

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    data: Positional[Path | None] = None  # a store with its truth
    name: str | None = None  # what it is to be called: position, friction
    columns: tuple[str, ...] = ()  # of the store's truth, as `ami data info` lists them
    unit: str = ""  # of the columns: px, m, m/s
    features: Literal["latent", "recurrent"] = "latent"  # of each step, or carried along, where hidden things are
    replace: bool = False  # the one that has this name

    def run(self) -> Outcome:
        """Learn it."""
        from ami.cli.asking import checkpoint_in
        from ami.data.episodes import Store
        from ami.evaluation.reading import fit_readout_on
        from ami.models import checkpoint
        from ami.reasoning import readouts

        folder = checkpoint_in(self.checkpoint)
        model, digest = checkpoint.load(folder), checkpoint.digest(folder)
        shelf = readouts.load(folder, digest)
        if self.data is not None:
            if not self.name or not self.columns:
                raise ValueError("a read-out has a name and reads columns of the truth; give --name and --columns")
            if self.name in shelf and not self.replace:
                raise ValueError(f"{folder} has a read-out {self.name!r}; choose another name, or say --replace")
            store = Store.open(self.data)
            kept = fit_readout_on(model, store, self.columns, unit=self.unit, features=self.features)
            shelf = {**shelf, self.name: kept}
            readouts.save(folder, digest, shelf)
        held = [{"name": name, **kept.fitted.model_dump(mode="json")} for name, kept in shelf.items()]
        return Outcome({"checkpoint": digest, "readouts": held}, listing([_line(*each) for each in shelf.items()]))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.checkpoint


@dataclass(frozen=True, kw_only=True)
class Imagine(Heavy):
    """Imagine a recording's future as it was, and as it might have been: side by side, as JSON and as a page.

    What is hidden is inferred first, from what was then seen, and is the same in both futures. --what-if is one of:
    action=0.5,0 (this action at every step), action=0:0.5,0;3:0,0 (one from step 0 on, another from step 3 on; before
    the first, what was recorded), past=7 (episode 7 was seen up to then).
    """

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    data: Positional[Path]  # the store of the recording
    episode: int  # which recording, from 0
    what_if: str  # what is other: action=NUMBERS, action=STEP:NUMBERS;STEP:NUMBERS, or past=EPISODE
    start: int | None = None  # last step that is believed, from 0; the middle of the recording, if not said
    steps: int | None = None  # to imagine; 16, or as many as the recording has left, if not said
    infer: Literal["recurrent", "latents", "nothing"] | None = None  # of the belief; what it carries along, if it does
    out: Path | None = None  # folder of imagined.json and imagined.html; in runs/imagine, if not said

    def run(self) -> Outcome:
        """Imagine it."""
        from ami import files
        from ami.cli.asking import checkpoint_in
        from ami.cli.refuse import refuse_used
        from ami.data.episodes import Store
        from ami.evaluation.futures import imagine, strips
        from ami.evaluation.futures_page import page
        from ami.evaluation.nearest import nearest_frames
        from ami.models import checkpoint
        from ami.reasoning import readouts

        asked = self.question
        refuse_used(self.writes)
        folder = checkpoint_in(self.checkpoint)
        model, digest = checkpoint.load(folder), checkpoint.digest(folder)
        store = Store.open(self.data)
        answer = imagine(model, store, asked, readouts.load(folder, digest))
        held = {"checkpoint": digest, "what_if": self.what_if, **answer.document}
        pictures = strips(answer, nearest_frames(model, store, self.episode))
        files.write_json(self.writes / "imagined.json", held)
        files.write_text(self.writes / "imagined.html", page(held, pictures, table(held), said(held)))
        shown = with_lines(listing(table(held)), *said(held), f"the page is {self.writes / 'imagined.html'}")
        return Outcome({"folder": str(self.writes), **held}, shown)

    @property
    def question(self) -> WhatIf:
        """What is asked."""
        from ami.evaluation.futures import WhatIf

        held, past = parsed(self.what_if)
        return WhatIf(self.episode, held, past, self.start, self.steps, self.infer)

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        question = re.sub(r"[^\w.,=-]+", "-", self.what_if)
        return self.out or Path("runs/imagine") / f"{self.data.name}-{self.episode}-{question}"


def parsed(words: str) -> tuple[tuple[tuple[int, tuple[float, ...]], ...], int | None]:
    """The actions held, each from its step on, or the past that was seen instead. ``ValueError`` with the grammar."""
    what, _, value = words.partition("=")
    try:
        if what.strip() == "past":
            return (), int(value)
        if what.strip() == "action":
            parts = [part.rpartition(":") for part in value.split(";")]
            held = tuple((int(step) if mark else 0, tuple(map(float, at.split(",")))) for step, mark, at in parts)
            if all(math.isfinite(number) for _, action in held for number in action) and list(held) == sorted(held):
                return held, None
    except ValueError:
        pass  # one sentence for all that cannot be read
    raise ValueError(f"--what-if is {words!r}, which cannot be read; {_GRAMMAR}")


def table(held: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The steps as rows of text, below a row of names: how far apart, and what is read out of both futures."""
    read = held["readouts"]
    rows = [("time", "apart", "error", *(f"{each['name']} {which}" for each in read for which in _shown(each)))]
    for step, (time, apart, error) in enumerate(zip(held["times"], held["apart"], held["error"], strict=True)):
        cells = (_numbers(values[step]) for each in read for values in _shown(each).values())
        rows.append((f"{time:.1f} s", f"{apart:.3f}", f"{error:.3f}", *cells))
    return rows


def _shown(read: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a read-out, with the truth where it is known."""
    columns = {"imagined": read["factual"], "what if": read["what_if"], "what if, truly": read["truth"]["what_if"]}
    return {name: values for name, values in columns.items() if values is not None}


def said(held: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, a sentence each."""
    lines = [
        "apart: how far the two futures are from one another; error: the imagined one from what was recorded "
        "(root mean square of latents)"
    ]
    for each in held["readouts"]:
        error = ", ".join(f"{name} ± {off:.3g}" for name, off in zip(each["quantities"], each["error"], strict=True))
        lines.append(f"{each['name']}: {error} {each['unit']}".rstrip())
    for each in held["hidden"]:
        lines.append(
            f"{each['name']} after what was seen: {_numbers(each['before'])}; after inferring: "
            f"{_numbers(each['after'])} {each['unit']}".rstrip()
        )
    if held["inferred"]:
        before, after = (sum(held["energy"][name]) / len(held["times"]) for name in ("before_inferring", "factual"))
        lines.append(f"energy of what was then seen: {before:.3g}, and {after:.3g} with the hidden causes inferred")
    return lines


def _numbers(values: list[float | None]) -> str:
    return " ".join("?" if value is None else f"{value:.4g}" for value in values)


def _line(name: str, kept: Kept) -> tuple[str, ...]:
    """A read-out for people."""
    held = kept.fitted
    ahead = [""] * len(held.error) if held.imagined is None else [f", imagined ± {each:.3g}" for each in held.imagined]
    read = ", ".join(
        f"{quantity} ± {error:.3g} {held.unit} (R² {r2:.3f}{more})".replace("  ", " ")
        for quantity, error, r2, more in zip(held.quantities, held.error, held.r2, ahead, strict=True)
    )
    return name, f"{held.embodiment}, {held.features}", read
