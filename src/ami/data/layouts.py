"""The layouts in which recordings come, and how each is recognised: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ami.data import lerobot, points, pusht, robomimic, spatial
from ami.data.recording import Recording, Wanted
from ami.data.robots import WIDOWX, read_bridge
from ami.data.video import FILM, SUFFIXES, read_good_part


@dataclass(frozen=True)
class Layout:
    """One way in which recordings lie on disk: a file, or a folder that is taken as a whole."""

    kind: str  # in sentences, with its article
    looks: str  # by what it is known, in a sentence
    known: Callable[[Path], bool]
    open: Callable[[Path, Wanted], Recording]  # ``ValueError`` where it is not what it looks like


def _ends(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes and path.is_file()


def _film(path: Path, wanted: Wanted) -> Recording:
    fps = wanted.fps or 1 / FILM.step_seconds
    body = replace(FILM, step_seconds=1 / fps)
    return Recording(path, body, (path.name,), lambda _: read_good_part(path, size=wanted.size, fps=fps))


def _widowx(path: Path, wanted: Wanted) -> Recording:
    return Recording(path, WIDOWX, (path.name,), lambda _: (read_bridge(path), None))


FILMS = Layout("a film", " ".join(SUFFIXES), _ends(*SUFFIXES), _film)
# The first that knows a path has it.
LAYOUTS = (
    FILMS,
    Layout("a robot episode", ".npz", _ends(".npz"), _widowx),
    Layout("an HDF5 file", " ".join(robomimic.SUFFIXES), _ends(*robomimic.SUFFIXES), robomimic.open_robomimic),
    Layout("a Zarr group", ".zarr with data and meta", pusht.is_pusht, pusht.open_pusht),
    Layout("a LeRobot dataset", "meta/info.json", lerobot.is_lerobot, lerobot.open_lerobot),
    Layout("an RGB-D folder", "rgb.txt", spatial.is_tum, spatial.open_tum),
    Layout("a 7-Scenes folder", "frame-*.color.png", spatial.is_seven_scenes, spatial.open_seven_scenes),
    Layout("point clouds", " ".join(points.SUFFIXES), points.is_clouds, points.open_clouds),
)


@dataclass(frozen=True)
class Found:
    """A recording that was recognised and not yet opened."""

    path: Path
    layout: Layout


def find(paths: Sequence[Path], layouts: Sequence[Layout] = LAYOUTS) -> list[Found]:
    """Every recording that ``paths`` name or hold, in order; folders are searched to the bottom, each taken once."""
    looks = ", ".join(layout.looks for layout in layouts)
    found: dict[Path, Found] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        inside = {each.path: each for each in _within(path, layouts)}
        if not inside and path.is_dir():
            raise ValueError(f"folder {path} holds no recording ({looks})")
        if not inside:
            raise ValueError(f"{path} is not a recording by its name; known are {looks}")
        found |= inside
    if not found:
        raise ValueError(f"no file was named; give recordings ({looks}), or folders of them")
    return list(found.values())


def _within(path: Path, layouts: Sequence[Layout]) -> Iterator[Found]:
    layout = next((each for each in layouts if each.known(path)), None)
    if layout is not None:
        yield Found(path, layout)
    elif path.is_dir():
        for inside in sorted(path.iterdir()):
            yield from _within(inside, layouts)
