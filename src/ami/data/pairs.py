"""Films in pairs, one possible and one impossible, as IntPhys, IntPhys 2, GRASP and InfLevel are published."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from ami.data.video import frame_rate, pictures_in, read_film, read_picture, read_pictures

Name = Literal["intphys", "intphys2", "grasp", "inflevel"]
Film = UInt8[np.ndarray, "frames size size 3"]


@dataclass(frozen=True)
class Pair:
    """A film of what can happen and its twin, which is the same up to something that cannot.

    Pairs of one ``quadruplet`` show one scene and are not independent. There each event happens once as it can and once
    as it cannot, so that nothing but the order of events tells possible films from impossible ones.
    """

    possible: Path  # a film, or a folder of pictures
    impossible: Path
    principle: str  # that is violated, in the words of those who published it
    quadruplet: str
    condition: str = ""  # "visible" or "occluded", "fixed" or "moving" (the camera): as far as the folder says it
    parts: float | None = None  # seconds after which the twins differ; None: compressed films do everywhere
    rate: float | None = None  # frames a second of pictures; None: a film says it itself

    def read(self, size: int, fps: float) -> tuple[Film, Film]:
        """Both films, the possible one first: their middle squares, ``fps`` times a second."""
        return self._read(self.possible, size, fps), self._read(self.impossible, size, fps)

    def frame_rate(self) -> float:
        """Frames a second at which they were made."""
        return frame_rate(self.possible) if self.rate is None else self.rate

    def _read(self, path: Path, size: int, fps: float) -> Film:
        if self.rate is None:
            video = read_film(path, size=size, fps=fps).video
        else:
            video = read_pictures(path, self.rate, size=size, fps=fps).video
        assert video is not None
        return video


@dataclass(frozen=True)
class Layout:
    """How a set of films lies in its folder."""

    places: tuple[str, ...]  # where it may begin below the folder that is named
    mark: str  # a pattern of what is there and nowhere else
    pairs: Callable[[Path], Iterator[Pair]]
    looks: str  # for people


def find(folder: Path, layout: Name | None = None) -> list[Pair]:
    """All pairs in ``folder``; its layout, a name in ``LAYOUTS`` where one is wanted, is recognised by what is there.

    ``ValueError`` says in one sentence what is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the one in which the films were unpacked")
    wanted = LAYOUTS if layout is None else {layout: LAYOUTS[layout]}
    for name, each in wanted.items():
        for root in (folder / place for place in each.places):
            if any(root.glob(each.mark)):
                if not (found := list(each.pairs(root))):
                    raise ValueError(f"{root} is laid out as {name}, but no film in it has its twin; unpack it again")
                return found
    looks = "; ".join(f"{name}: {each.looks}" for name, each in wanted.items())
    raise ValueError(f"{folder} holds no matched films as they are published ({looks})")


# IntPhys: Riochet et al. 2022, "IntPhys 2019: a benchmark for visual intuitive physics understanding".
_INTPHYS_RATE = 15.0  # frames a second
_BLOCKS = {"O1": "permanence", "O2": "shape-constancy", "O3": "continuity"}


def _intphys(root: Path) -> Iterator[Pair]:
    """Scenes of four films in any order, two of them possible; twins are those that stay alike the longest."""
    for scene in sorted(path for path in root.glob("O[123]/*") if path.is_dir()):
        films: dict[bool, list[Path]] = {True: [], False: []}
        for pictures in (scene / number / "scene" for number in "1234"):
            if not pictures_in(pictures):
                raise ValueError(f"{pictures} holds no pictures; a scene has four films: copy it again")
            films[_is_possible(pictures.with_name("status.json"))].append(pictures)
        if len(films[True]) != 2:
            raise ValueError(f"{scene} has {len(films[True])} possible films of four, and a scene has 2; copy it again")
        (one, two), (three, four) = films[True], films[False]
        ways = [
            [(good, bad, _alike(good, bad)) for good, bad in way]
            for way in (((one, three), (two, four)), ((one, four), (two, three)))
        ]
        condition = next((word for word in ("occluded", "visible") if word in scene.name), "")
        for good, bad, alike in max(ways, key=lambda way: sum(count for _, _, count in way)):
            parts = alike / _INTPHYS_RATE if alike < len(pictures_in(good)) else None
            scene_name = f"{scene.parent.name}/{scene.name}"
            yield Pair(good, bad, _BLOCKS[scene.parent.name], scene_name, condition, parts, _INTPHYS_RATE)


def _is_possible(status: Path) -> bool:
    try:
        return bool(json.loads(status.read_text(encoding="utf-8"))["header"]["is_possible"])
    except FileNotFoundError:
        raise ValueError(f"{status} is missing: only the dev set of IntPhys says which films are possible") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{status} does not say in its header whether the film is_possible; copy it again") from None


def _alike(one: Path, other: Path) -> int:
    """How many pictures two films have in common at their beginning."""

    def same(pair: tuple[Path, Path]) -> bool:
        a, b = pair
        return a.read_bytes() == b.read_bytes() or np.array_equal(read_picture(a), read_picture(b))

    return sum(1 for _ in takewhile(same, zip(pictures_in(one), pictures_in(other), strict=False)))


# IntPhys 2: Bordes et al. 2025, "IntPhys 2: benchmarking intuitive physics understanding in complex synthetic
# environments".
_COLUMNS = ("SceneIndex", "file_name", "condition", "type", "Camera")


def _intphys2(root: Path) -> Iterator[Pair]:
    """A table of films whose types are 1_Possible, 1_Impossible, 2_Possible and 2_Impossible in each scene."""
    table = root / "metadata.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if missing := [name for name in _COLUMNS if not all(row.get(name) for row in rows)]:
        raise ValueError(f"{table} says no {missing[0]}: only Debug and Main of IntPhys 2 say which films are possible")
    kinds = {"Possible": defaultdict(list), "Impossible": defaultdict(list)}
    for row in rows:
        number, _, kind = row["type"].partition("_")
        if kind not in kinds:
            raise ValueError(f"{table} has a film of the type {row['type']!r}; 1_Possible is one, copy it again")
        film = root / row["file_name"]
        if not film.is_file():
            raise ValueError(f"{table} lists {film}, which is not there; unpack IntPhys 2 again")
        kinds[kind][row["SceneIndex"], number].append((film, row))
    for twins, possible in kinds["Possible"].items():
        for (good, row), (bad, _) in zip(possible, kinds["Impossible"][twins], strict=False):
            yield Pair(good, bad, row["condition"].partition("_")[0], row["SceneIndex"], row["Camera"].lower())


# GRASP: Jassim et al. 2024, "GRASP: a novel benchmark for evaluating language grounding and situated physics
# understanding in multimodal language models". Its first level shows nothing impossible.
def _grasp(root: Path) -> Iterator[Pair]:
    """A folder P_TEST of possible films for each IP_TEST of impossible ones, which have the same numbers."""
    for impossible in sorted(root.glob("IP_*/*.mp4")):
        test = impossible.parent.name.removeprefix("IP_")
        possible = root / f"P_{test}" / impossible.name
        if possible.is_file():
            principle = "-".join(re.findall(r"[A-Z][a-z]+", test)).lower()
            yield Pair(possible, impossible, principle, f"{test}/{impossible.stem}")


# InfLevel: Weihs et al. 2022, "Benchmarking progress to infant-level physical reasoning in AI".
_TRIALS = {"vv": "vi", "ii": "iv", "ui": "uv", "cv": "ci"}  # possible: its impossible twin


def _inflevel(root: Path) -> Iterator[Pair]:
    """Films named CAMERA__PRINCIPLE__COVER__OBJECT__TRIAL[__DIRECTION].mp4, whose trial is two letters.

    They are whole: with the introduction that shows how the cover works.
    """
    for film in sorted(root.glob("*/*__*__*__*__*.mp4")):
        words = film.stem.split("__")
        twin = film.with_name("__".join([*words[:4], _TRIALS.get(words[4], "none"), *words[5:]]) + ".mp4")
        if twin.is_file():
            yield Pair(film, twin, words[1], "__".join(words[:4] + words[5:]))


LAYOUTS: dict[Name, Layout] = {
    "intphys": Layout(
        ("", "dev"), "O[123]/*/[1234]", _intphys, "O1/01/1/scene/scene_001.png and O1/01/1/status.json, of the dev set"
    ),
    "intphys2": Layout(("", "Main"), "metadata.csv", _intphys2, "metadata.csv and Videos/NAME.mp4, in Main or Debug"),
    "grasp": Layout(
        ("", "level2", "videos/level2"), "IP_*/*.mp4", _grasp, "P_Gravity/000.mp4 and IP_Gravity/000.mp4, of level2"
    ),
    "inflevel": Layout(
        ("",), "*/*__*__*__*__*.mp4", _inflevel, "gravity/center__gravity__COVER__OBJECT__ui.mp4 and its twin …__uv.mp4"
    ),
}
