"""Every suite of questions, by name. Each is frozen: other questions get another name."""

from ami.evaluation.benchmark import Benchmark, Suite
from ami.evaluation.suites import (
    calibration,
    cells,
    compute,
    control,
    guarded,
    hidden,
    iphyre,
    layout,
    memory_maze,
    occluded,
    physics,
    physics_3d,
    published,
    real_places,
    reminded,
    shells,
    spatial,
    tasks,
    ways,
)
from ami.evaluation.suites.real import TASKS, RealFilms
from ami.evaluation.suites.recognition import DrawnFilms
from ami.evaluation.suites.splice import KINDS, Splice

_SPLICES: tuple[Benchmark, ...] = tuple(Splice(kind) for kind in KINDS)
_REAL: tuple[Benchmark, ...] = tuple(RealFilms(task) for task in TASKS)
_QUICK = DrawnFilms(learn=1000, supervised_steps=100, attentive_steps=200)

_ROOMS: tuple[Benchmark, ...] = (control.RoomsBenchmark("fixed"), control.RoomsBenchmark("door"), ways.WALL)
_DEMO = (*((each, 50) for each in _ROOMS), (_QUICK, 200), (physics.QUICK, 20), *layout.QUICK, spatial.QUICK)
_PLANNING = (*ways.ASKED, *guarded.SWEPT)
_RECORDED = (*((each, 600) for each in _REAL), *((each, 240) for each in _SPLICES))
_RECORDED_QUICK = (*((each, 200) for each in _REAL), *((each, 60) for each in _SPLICES))

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("demo", _DEMO),
        Suite("demo-films", (*_DEMO, *_RECORDED_QUICK), real_films=True),
        *control.SUITES,
        *ways.SUITES,
        *guarded.SUITES,
        *calibration.SUITES,
        *compute.SUITES,
        *tasks.SUITES,
        Suite("planning-rooms", _PLANNING),
        Suite("planning-worlds", (*_PLANNING, *tasks.ASKED)),
        *physics.SUITES,
        *physics_3d.SUITES,
        *hidden.SUITES,
        *shells.SUITES,
        *occluded.SUITES,
        Suite("reason-4", (*physics.ASKED, *hidden.ASKED)),
        *published.SUITES,
        *iphyre.SUITES,
        *layout.SUITES,
        Suite("memory", (*layout.ASKED, *shells.ASKED)),
        *cells.SUITES,
        *memory_maze.SUITES,
        *reminded.SUITES,
        *spatial.SUITES,
        *real_places.SUITES,
        Suite("films", ((DrawnFilms(), 1000),), on_gpu=True),
        Suite("real-films", _RECORDED, real_films=True, on_gpu=True),
        Suite("video", ((DrawnFilms(), 1000), *_RECORDED), real_films=True, on_gpu=True),
    )
}
