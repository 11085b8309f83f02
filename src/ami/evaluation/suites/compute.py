"""Success against compute: the same questions with less search and with more."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ami.evaluation.benchmark import Answer, Asking, Benchmark, Suite
from ami.evaluation.suites import control, tasks
from ami.evaluation.suites.reaching import BY_WAYS, SHORT, ByWays, counted
from ami.evaluation.suites.tasks import TaskBenchmark
from ami.evaluation.suites.ways import WALL, WaysBenchmark
from ami.types import WorldModel
from ami.worlds import rooms, task


@dataclass(frozen=True)
class ComputeBenchmark:
    """One benchmark, asked of one model by one search after another, from little to much."""

    of: WaysBenchmark | TaskBenchmark
    searches: tuple[tuple[int, int, int], ...] = ((4, 1, 1), (8, 1, 1), (16, 1, 1), (16, 2, 1), (64, 4, 2), (256, 6, 2))

    @property
    def name(self) -> str:
        """What the names of its results begin with."""
        return f"{self.of.name}/compute"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            *self.of.protocol,
            "compute/AxBxC: by A candidates × B iterations over C steps, and half of the iterations when replanning.",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that never acted in the world that is asked about."""
        if isinstance(self.of, TaskBenchmark):
            self.of.able(model)

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about the same ``n`` fresh pairs by each search; a note says what an action took."""
        self.able(model)
        results, notes = [], []
        for search in self.searches:
            asked = replace(self.of, ways=_searching(*search))
            began, used = time.perf_counter(), time.process_time()
            played, actions = _played(asked, model, n, asking)
            seconds, used = time.perf_counter() - began, time.process_time() - used
            name = f"{self.name}/{'x'.join(map(str, search))}"
            results += [
                counted(name, metric, wins, {}, seed=asking.seed, seconds=seconds, model_calls=played.model_calls)
                for metric, wins in played.scores().items()
            ]
            notes.append(f"{name}: {1000 * used / actions:.1f} CPU-milliseconds an action, the world's own included.")
        return Answer(tuple(results), notes=tuple(notes))


def _searching(candidates: int, iterations: int, horizon: int) -> ByWays:
    """By ways, with so much search; with one iteration its best candidate is not imagined again."""
    search = replace(
        SHORT,
        samples=candidates,
        elites=min(SHORT.elites, candidates // 2),
        iterations=iterations,
        settle=iterations > 1,
    )
    return replace(BY_WAYS, search=search, warm_iterations=(iterations + 1) // 2, horizon=horizon)


def _played(
    asked: WaysBenchmark | TaskBenchmark, model: WorldModel, n: int, asking: Asking
) -> tuple[control.Played | tasks.Played, int]:
    """What happened, and how many actions were done."""
    if isinstance(asked, TaskBenchmark):
        pairs = asked.pairs(tasks.TASKS[asked.world](), asking.seed, n)
        played, repeat = asked.plan(model, pairs, asking), task.REPEAT
    else:
        played, repeat = asked.plan(model, asked.pairs(asking.seed, n), asking), rooms.REPEAT
    return played, (len(played.path) - 1) // repeat * n


_FAR = TaskBenchmark("point-maze", "distance-100", (100, 100), tasks.TASKS["point-maze"].success)
_WORLDS = (TaskBenchmark("reacher", "lewm", (25, 25), tasks.TASKS["reacher"].success), _FAR)
_ROOMS: tuple[tuple[Benchmark, int], ...] = ((ComputeBenchmark(WALL), 150),)

SUITES: tuple[Suite, ...] = (
    Suite("compute", _ROOMS),
    Suite("compute-worlds", (*_ROOMS, *((ComputeBenchmark(each), 50) for each in _WORLDS))),
)
