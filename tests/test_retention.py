"""What is kept when not all can be: the promises, on streams that were made to break them."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import memories
from ami.memory import retention
from ami.memory.retention import choose


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=4, max_size=9),
    keep=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_retention_keeps_its_promises(points, keep: int, share: float, seed: int) -> None:
    vectors, rng = np.array(points, np.float16), np.random.default_rng(seed)
    surprise = np.where(rng.random(len(points)) < 0.3, np.nan, rng.integers(0, 5, len(points)).astype(float))
    keep = min(keep, len(points) - 1)
    kept = choose(vectors, surprise, keep, share, torch.Generator().manual_seed(0))
    stay = np.flatnonzero(kept.rows).tolist()
    assert len(stay) == keep
    sure = int(keep * share)
    ranked = sorted((value for value in surprise.tolist() if not math.isnan(value)), reverse=True)
    stays = sorted((value for value in surprise[kept.rows].tolist() if not math.isnan(value)), reverse=True)
    assert stays[:sure][: len(ranked)] == ranked[:sure]
    exact = vectors.astype(float)
    assert memories.radius(exact, stay) <= kept.radius + 1e-3
    if free := keep - sure:
        best = min(memories.radius(exact, list(some)) for some in combinations(range(len(points)), free))
        assert kept.radius <= 2 * best + 1e-3


@pytest.mark.parametrize("worth", [2**30, 0])  # all at once, and in groups
def test_what_was_rarely_seen_survives_a_flood(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_WORTH", worth)
    monkeypatch.setattr(retention, "_TOGETHER", 256)
    rng = np.random.default_rng(0)
    flood = rng.normal(size=(3000, 8)) * 0.1
    rare = rng.normal(size=(5, 8)) * 20
    where = rng.choice(3005, 5, replace=False)
    vectors = np.insert(flood, np.sort(where) - np.arange(5), rare, axis=0).astype(np.float16)
    surprise = np.zeros(3005)
    loud = rng.choice(3005, 20, replace=False)
    surprise[loud] = 1 + rng.random(20)
    kept = choose(vectors, surprise, 200, 0.1, torch.Generator().manual_seed(0))
    assert kept.rows.sum() == 200
    assert kept.rows[loud].all()
    assert kept.rows[np.linalg.norm(vectors.astype(float), axis=1) > 5].sum() == 5
    assert memories.radius(vectors.astype(float), np.flatnonzero(kept.rows).tolist()) <= kept.radius * (1 + 1e-3)
    assert kept.radius < 0.6
