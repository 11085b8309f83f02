"""Films for the report: what they show side by side, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Strip:
    """A film of one episode: what happened, what the model imagined at the same moments, and the goal it was shown."""

    title: str
    real: UInt8[np.ndarray, "k height width 3"]
    imagined: UInt8[np.ndarray, "k height width 3"] | None
    goal: UInt8[np.ndarray, "height width 3"]
    caption: str  # how it ended

    def __post_init__(self) -> None:
        films = [self.real, self.goal[None]] + ([] if self.imagined is None else [self.imagined])
        for film in films:
            if film.dtype != np.uint8 or film.ndim != 4 or film.shape[-1] != 3 or not film.size:
                raise ValueError(
                    f"strip {self.title!r}: pictures are uint8 (k, H, W, 3), not {film.dtype} {film.shape}"
                )
        if self.imagined is not None and len(self.imagined) != len(self.real):
            raise ValueError(f"strip {self.title!r}: {len(self.imagined)} imagined frames beside {len(self.real)} real")


@dataclass(frozen=True)
class Beside:
    """Films side by side, the same moments of each above one another, and a number for each moment of each."""

    title: str
    films: Mapping[str, UInt8[np.ndarray, "k height width 3"]]
    curves: Mapping[str, Float[np.ndarray, "k"]]  # by the same names; NaN where nobody can say
    moment: int | None  # from which on they differ
    caption: str

    def __post_init__(self) -> None:
        if (
            self.films.keys() != self.curves.keys()
            or len({len(each) for held in (self.films, self.curves) for each in held.values()}) != 1
        ):
            raise ValueError(f"films {self.title!r}: each needs a curve of its own, and all are equally long")
