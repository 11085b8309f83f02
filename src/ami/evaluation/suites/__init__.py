"""Every suite of questions, by name. Each is frozen: other questions get another name."""

from ami.evaluation.benchmark import Benchmark, Suite
from ami.evaluation.suites import control
from ami.evaluation.suites.real import TASKS, RealFilms
from ami.evaluation.suites.recognition import DrawnFilms
from ami.evaluation.suites.splice import KINDS, Splice

_SPLICES: tuple[Benchmark, ...] = tuple(Splice(kind) for kind in KINDS)
_REAL: tuple[Benchmark, ...] = tuple(RealFilms(task) for task in TASKS)
_QUICK = DrawnFilms(learn=400, supervised_steps=100, attentive_steps=200)

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        *control.SUITES,
        Suite("films", ((DrawnFilms(), 500),)),
        Suite("films-quick", ((_QUICK, 200),)),
        Suite("real-films", (*((each, 600) for each in _REAL), *((each, 240) for each in _SPLICES)), real_films=True),
    )
}
