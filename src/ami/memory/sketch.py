"""A small picture of many latents, two bits a number: most of the search is done in it, the rest where it points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor

from ami import files

_BITS, _MOST_PIECES = 4, 256  # of a piece's code; more pieces than so many would overflow the sums of 16 bits
_TRAIN, _ROUNDS = 2048, 10  # rows that the codebook is learned from, and how often: more of either found no more
_BLOCK = 65536  # rows at a time
_QUESTIONS, _NEIGHBOURS, _RECALL = 128, 10, 0.98
_MOST = 8192  # rows that a sketch may point to; where more were needed it would not pay

Exact = Callable[[Float[Tensor, "questions dim"], int], Int64[Tensor, "questions top"]]


@dataclass(frozen=True, eq=False)
class Sketch:
    """Each latent in pieces of two numbers or more, each piece as the nearest of 16 that stand for all.

    Source: product quantisation (Jégou et al. 2011, "Product quantization for nearest neighbor search"), looked
    through by FAISS with tables in registers (André et al. 2015, "Cache locality is not enough"). How many rows must be
    looked at where the sketch points (``pool``) is measured when it is made: so many that ``_RECALL`` of the ten true
    neighbours of rows drawn from all are among them. So latents that fill all of space cost more than those on a thin
    surface, and neither is missed.
    """

    index: Any  # faiss.IndexPQFastScan: the package has no types
    codebook: Float[np.ndarray, "pieces 16 piece"]
    codes: UInt8[np.ndarray, "rows bytes"]
    pool: int

    @classmethod
    def build(cls, vectors: Float16[np.ndarray, "rows dim"], generator: torch.Generator, exact: Exact) -> Self | None:
        """``None`` without FAISS, or where no sketch is good enough."""
        faiss = _faiss()
        if faiss is None:
            return None
        piece, pieces = _pieces(vectors.shape[1])
        drawn = torch.randperm(len(vectors), generator=generator)
        quantizer = faiss.ProductQuantizer(piece * pieces, pieces, _BITS)
        quantizer.cp.niter = _ROUNDS
        quantizer.train(_padded(vectors[drawn[:_TRAIN].sort().values.numpy()], piece * pieces))
        blocks = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
        codes = np.concatenate([quantizer.compute_codes(_padded(block, piece * pieces)) for block in blocks])
        codebook = faiss.vector_to_array(quantizer.centroids).reshape(pieces, 2**_BITS, piece)
        made = cls(_index(faiss, codebook, codes), codebook, codes, _MOST)
        pool = made._needed(vectors, drawn[:_QUESTIONS].numpy(), exact)
        return None if pool is None else cls(made.index, codebook, codes, pool)

    def search(self, question: Float[np.ndarray, "dim"], count: int) -> Int64[np.ndarray, "count"]:
        """The rows that seem nearest, the nearest first."""
        padded = _padded(question[None], self.codebook.shape[0] * self.codebook.shape[2])
        found = self.index.search(padded, min(count, len(self.codes)))[1][0]
        return found[found >= 0]

    def _needed(self, vectors: np.ndarray, asked: Int64[np.ndarray, "questions"], exact: Exact) -> int | None:
        """How many rows must be looked at to find the neighbours of the rows ``asked``."""
        questions = torch.from_numpy(vectors[asked]).float()
        places = []
        for row, question, true in zip(asked.tolist(), questions, exact(questions, _NEIGHBOURS + 1), strict=True):
            found = torch.from_numpy(self.search(question.numpy(), _MOST))
            hit = found[:, None] == true[true != row]  # a row is no neighbour of itself
            places.append(torch.where(hit.any(0), hit.int().argmax(0) + 1.0, torch.inf))
        needed = float(torch.cat(places).quantile(_RECALL, interpolation="higher"))
        return int(needed) if needed <= _MOST else None

    def write(self, folder: Path) -> None:
        """As plain arrays: FAISS's own files are not read."""
        files.write_array(folder / "codebook.npy", self.codebook)
        files.write_array(folder / "codes.npy", self.codes)
        files.write_array(folder / "pool.npy", np.array(self.pool))

    @classmethod
    def read(cls, folder: Path, rows: int, dim: int) -> Self | None:
        """``None`` where none was written, or without FAISS; ``ValueError`` where it is of other rows."""
        faiss = _faiss()
        if faiss is None or not (folder / "pool.npy").is_file():
            return None
        codebook, codes, pool = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("codebook", "codes", "pool")
        )
        piece, pieces = _pieces(dim)
        if codebook.shape != (pieces, 2**_BITS, piece) or codes.shape != (rows, -(-pieces // 2)):
            raise ValueError(f"{folder} is not whole")
        return cls(_index(faiss, codebook, codes), codebook, codes, int(pool))


def _faiss() -> Any:
    try:
        import faiss  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        return None
    return faiss


def _pieces(dim: int) -> tuple[int, int]:
    """Numbers in a piece, and pieces in a latent."""
    piece = max(2, -(-dim // _MOST_PIECES))
    return piece, -(-dim // piece)


def _padded(vectors: np.ndarray, dim: int) -> Float[np.ndarray, "rows dim"]:
    """With zeros at the end, so that they can be cut in equal pieces."""
    padded = np.zeros((len(vectors), dim), np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded


def _index(faiss: Any, codebook: np.ndarray, codes: np.ndarray) -> Any:
    """What FAISS looks through: the codes once more, in the order that its registers want."""
    pieces, _, piece = codebook.shape
    plain = faiss.IndexPQ(pieces * piece, pieces, _BITS)
    faiss.copy_array_to_vector(np.ascontiguousarray(codebook, np.float32).ravel(), plain.pq.centroids)
    plain.is_trained = True
    plain.add_sa_codes(np.ascontiguousarray(codes))
    return faiss.IndexPQFastScan(plain)
