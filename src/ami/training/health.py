"""What the gauges mean: which of them is a sickness, since which step, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ami.types import Objective, WorldModel

# Measured on the baby's films: under masked prediction tokens deviate by 0.7 to 0.8, and by 0.05 once they have
# collapsed; the teacher is 0.05 to 0.15 of the student's length away from it.
_FAR, _SAME = 0.5, 1e-6  # of a teacher from its student
_STALE = 0.5  # share of the teacher that is still what it began with, when half of the stage is over
_LITTLE, _MUCH = 0.1, 0.98  # of the tokens are hidden


@dataclass(frozen=True)
class Ailment:
    """One gauge that is out of bounds."""

    gauge: str  # as the metrics call it
    what: str
    why: str  # the number, what it means and what to try

    def at(self, step: int, since: str = "") -> str:
        """In one sentence."""
        return f"{self.what} at step {step}: {self.why}{since}"


def examine(
    measured: Mapping[str, float],
    model: WorldModel,
    objective: Objective,
    *,
    clips: Mapping[str, int],
    done: float = 1.0,
) -> tuple[Ailment, ...]:
    """What is out of bounds among the gauges that were measured.

    ``clips`` are the films, or walks, of each embodiment that were measured: a code of what does not change in a film
    cannot use more dimensions than there are films. ``done`` is the share of the stage that is over.
    """
    found: list[Ailment] = []
    for name, value in measured.items():
        of, mark, gauge = name.rpartition("gauge/")
        if not mark:
            continue
        body = of.removesuffix("/")
        if body:
            part = model.part(body)
            dim = part.latent_shape[1] - part.untaught
            ails = _of_latents(gauge, value, f"'{body}'", dim, clips[body], objective.least_deviation)
        else:
            ails = _of_objective(gauge, value, done)
        found += [Ailment(name, *each) for each in ails]
    return tuple(found)


def history(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Every ailment in a run's metrics, in the order in which they came: since when, and whether it went away."""
    gauged = [row for row in rows if any("gauge/" in name for name in row)]
    begun: dict[str, tuple[int, Ailment]] = {}
    last: dict[str, int] = {}
    for place, row in enumerate(gauged):
        for each in row.get("warnings", ()):
            ail = Ailment(**each)
            begun.setdefault(ail.gauge, (row["step"], ail))
            last[ail.gauge] = place
    said = []
    for name, (step, ail) in begun.items():
        later = [row["step"] for row in gauged[last[name] + 1 :] if name in row]
        said.append(ail.at(step, f" (it was well again at step {later[0]})" if later else ""))
    return tuple(said)


def _of_latents(
    gauge: str, value: float, body: str, dim: int, clips: int, least_deviation: float
) -> Iterator[tuple[str, str]]:
    if gauge.startswith("deviation") and value < least_deviation:
        yield (
            "features collapsed",
            f"{gauge} of {body} is {value:.3f} where {least_deviation:g} or more is healthy: all that it "
            "sees looks alike to it; raise the weight of a regulariser (gaussian, variance), or lower the rate, or let "
            "a teacher follow more slowly",
        )
    least = max(min(2.0, dim / 4), dim / 50)
    if gauge.startswith("rank") and value < least < clips - 2:
        yield (
            "features flattened",
            f"latents of {body} use {value:.1f} of {dim} dimensions ({gauge}) where {least:.1f} or more are healthy: "
            "they tell little apart; raise the weight of a regulariser (gaussian, covariance, inverse)",
        )


def _of_objective(gauge: str, value: float, done: float) -> Iterator[tuple[str, str]]:
    if gauge == "teacher_distance" and value > _FAR:
        yield (
            "the teacher lost its student",
            f"they are {value:.2f} of the student's length apart where less than {_FAR:g} is healthy, so it is taught "
            "what it has left behind; lower the rate or the teacher's momentum",
        )
    if gauge == "teacher_distance" and value < _SAME:
        yield (
            "the teacher is its student's double",
            f"they are {value:.1g} apart, so either nothing is learned (is the rate 0?) or nothing keeps the code from "
            "collapsing; raise the rate or the teacher's momentum",
        )
    if gauge == "teacher_beginning" and value > _STALE and done >= 0.5:
        yield (
            "the teacher does not follow",
            f"{value:.0%} of it is still what it began with when {done:.0%} of the stage is over, so random weights "
            "set the targets; lower the teacher's momentum or train for longer",
        )
    if gauge.startswith("mask_ratio") and not _LITTLE <= value <= _MUCH:
        little = "too little: what is hidden can be copied from beside it; hide more or larger blocks, or more slots"
        much = "too much: next to nothing is left to see; hide fewer or smaller blocks, or fewer slots"
        yield (
            "masks out of bounds",
            f"{value:.1%} of the tokens are hidden ({gauge}), which is {little if value < _LITTLE else much}",
        )
