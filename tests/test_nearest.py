"""What is nearest is found: all of it by an exact search, nearly all through a sketch."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.memory import nearest
from ami.memory.nearest import Part, Rows


def test_latents_that_share_a_large_mean_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    vectors = (100 + rng.normal(size=(5000, 64))).astype(np.float16)
    question = (100 + rng.normal(size=64)).astype(np.float32)
    true = np.linalg.norm(vectors.astype(float) - question, axis=1).argsort()[:10]
    found = nearest.nearest(vectors, torch.from_numpy(question)[None], 10)[0]
    assert found.tolist() == true.tolist()


@pytest.mark.parametrize("kind", ["everywhere", "on a surface"])
def test_a_sketch_finds_nearly_all_and_never_what_is_not_allowed(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    count, dim = 20_000, 31  # odd: the last piece is half empty
    vectors = rng.normal(size=(count + 20, dim))
    if kind == "on a surface":
        vectors = np.sin(rng.normal(size=(count + 20, 3)) @ rng.normal(size=(3, dim)))
    rows = Rows(
        np.arange(count),
        np.zeros(count),
        np.zeros((count, 3)),
        np.zeros((count, 3)),
        np.zeros(count, np.int32),
        vectors[:count].astype("f2"),
    )
    part = Part.build(rows, torch.Generator().manual_seed(0))
    assert part.sketch is not None
    part.write(tmp_path)
    again = Part.read(tmp_path)
    for allowed in (None, rng.random(count) < 0.5, np.arange(count) < 5000, vectors[:count, 0] > 0.2):
        hits = []
        for question in vectors[count:].astype(np.float32):
            exact = part.candidates(question, 10, allowed, exact=True)
            found = part.candidates(question, 10, allowed, exact=False)
            assert allowed is None or allowed[found].all()
            assert np.array_equal(found, again.candidates(question, 10, allowed, exact=False))
            hits.append(len(set(exact[:10].tolist()) & set(found.tolist())) / 10)
        assert np.mean(hits) >= 0.95


def test_everything_is_searched_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(nearest, "_FEW", 10)
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    rows = Rows(np.arange(50), np.zeros(50), np.zeros((50, 3)), np.zeros((50, 3)), np.zeros(50, np.int32), vectors)
    part = Part.build(rows, torch.Generator())
    assert part.sketch is None
    assert part.candidates(vectors[7].astype(np.float32), 1, None, exact=False).tolist() == [7]
