"""What is kept when not all can be: the surprising, and of the rest as varied a choice as there is room for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float64, Int64
from torch import Tensor

_TOGETHER = 4096  # rows that are all compared with each other
# Choosing among all rows at once compares each that is kept with each that is there: worth it up to so many times, and
# where fewer than one in so many is kept, because every group must keep one.
_WORTH, _SPARSE = 2**30, 256
_SAMPLE, _ROUNDS = 32, 5  # rows for each centre that it is found on, and rounds of finding


@dataclass(frozen=True, eq=False)
class Kept:
    """Which rows stay, and how near to each that goes there is one that stays (Euclid)."""

    rows: Bool[np.ndarray, "rows"]
    radius: float


def choose(
    vectors: Float16[np.ndarray, "rows dim"],
    surprise: Float64[np.ndarray, "rows"],
    keep: int,
    surprising: float,
    generator: torch.Generator,
) -> Kept:
    """Choose ``keep`` rows. Of equals, the later ones stay. Where surprise is not known it is NaN. It is promised that

    1. the ``surprising`` share of ``keep`` that is most surprising stays;
    2. nothing goes that is farther than ``radius`` from all that stays: so what was rarely seen, and has nothing else
       within the radius, stays, however often other things were seen after it;
    3. where rows are few (4,096, or ``keep`` is small), ``radius`` is at most twice the least that any choice has of as
       many rows as point 1 leaves.

    The rest is chosen farthest first (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; his
    theorem is the third promise). Many rows are chosen from in groups of similar ones, as many from each as makes all
    their radii equal; the radius is then no longer provably near the least, but it holds.
    """
    newest = np.arange(len(vectors))[::-1]  # argmax and stable sorting prefer what comes first
    known = newest[~np.isnan(surprise[newest])]
    sure = known[np.argsort(-surprise[known], kind="stable")][: int(keep * surprising)]
    first = np.zeros(len(vectors), bool)
    first[sure] = True
    alone = len(vectors) <= _TOGETHER or len(vectors) * keep <= _WORTH or keep * _SPARSE <= len(vectors)
    groups = [newest] if alone else _groups(vectors, newest, generator)
    most = keep if alone else len(vectors)
    order, gaps = [], []
    for group in groups:
        chosen, gap = _farthest_first(vectors[group], first[group], most)
        order.append(group[chosen])
        gaps.append(gap)
    rows, gap = np.concatenate(order), np.concatenate(gaps)
    ranked = np.argsort(-gap, kind="stable")
    kept = np.zeros(len(vectors), bool)
    kept[rows[ranked[:keep]]] = True
    return Kept(kept, float(gap[ranked[keep:]].max(initial=0.0)))


def _farthest_first(
    vectors: Float16[np.ndarray, "rows dim"], first: Bool[np.ndarray, "rows"], most: int
) -> tuple[Int64[np.ndarray, "some"], Float[np.ndarray, "some"]]:
    """An order of rows, and how far each was from all before it: never rising, infinite for those in ``first``.

    It ends one row after ``most``: that one tells how far the rest is.
    """
    block = torch.from_numpy(vectors).float()
    block = block - block.mean(0)  # distances of latents that share a large mean would drown in rounding
    whole = torch.cdist(block, block).numpy() if len(block) <= _TOGETHER else None

    def distances(row: int) -> np.ndarray:
        if whole is not None:
            return whole[row]
        return torch.cdist(block, block[row, None], compute_mode="donot_use_mm_for_euclid_dist")[:, 0].numpy()

    order, gaps = np.flatnonzero(first).tolist(), [np.inf] * int(first.sum())
    near = np.full(len(block), np.inf, np.float32)
    for row in order:
        np.minimum(near, distances(row), out=near)
    near[order] = -1
    while len(order) < min(most + 1, len(block)):
        row = int(near.argmax())
        order.append(row)
        gaps.append(float(near[row]))
        np.minimum(near, distances(row), out=near)
        near[row] = -1
    return np.array(order), np.array(gaps)


def _groups(
    vectors: Float16[np.ndarray, "rows dim"], newest: Int64[np.ndarray, "rows"], generator: torch.Generator
) -> list[Int64[np.ndarray, "some"]]:
    """Rows in groups of similar ones, none larger than what is compared all with all."""
    centres = _centres(vectors, 2 * len(vectors) // _TOGETHER, generator)
    owner = _nearest_centre(vectors, centres)[newest]
    together = newest[np.argsort(owner, kind="stable")]
    bounds = np.searchsorted(np.sort(owner), np.arange(1, len(centres)))
    parts = [part for part in np.split(together, bounds) if len(part)]
    return [piece for part in parts for piece in np.array_split(part, -(-len(part) // _TOGETHER))]


def _centres(
    vectors: Float16[np.ndarray, "rows dim"], count: int, generator: torch.Generator
) -> Float[Tensor, "count dim"]:
    """Centres of groups: Lloyd's algorithm on a sample; a group that runs empty stays where it was."""
    sample = vectors[torch.randperm(len(vectors), generator=generator)[: _SAMPLE * count].numpy()]
    centres = torch.from_numpy(sample[:count]).float()
    for _ in range(_ROUNDS):
        owner = torch.from_numpy(_nearest_centre(sample, centres))
        sizes = owner.bincount(minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, owner, torch.from_numpy(sample).float())
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centres)
    return centres


def _nearest_centre(
    vectors: Float16[np.ndarray, "rows dim"], centres: Float[Tensor, "count dim"]
) -> Int64[np.ndarray, "rows"]:
    halves, middle = centres.square().sum(1) / 2, range(0, len(vectors), _TOGETHER)
    blocks = (torch.from_numpy(vectors[start : start + _TOGETHER]).float() for start in middle)
    return torch.cat([(block @ centres.T - halves).argmax(1) for block in blocks]).numpy()
