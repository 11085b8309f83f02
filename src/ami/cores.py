"""The cores of this machine: how many this process computes on, and several jobs at once, each in its own process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch

Tell = Callable[..., None]  # told how far a job has come, in whatever words its caller expects


def compute_on(count: int | None = None) -> None:
    """Compute on ``count`` cores: on all that this process may use where neither it nor OMP_NUM_THREADS says."""
    _keep_memory()
    if count is None and "OMP_NUM_THREADS" in os.environ:
        return
    free = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    torch.set_num_threads(count or free or 1)


def at_once(jobs: Sequence[Callable[[Tell], Any]], tell: Tell, workers: int) -> list[Any]:
    """What each job comes to, in their order; ``workers`` of them at a time, each in a process of its own.

    They share the cores that this process computes on: for work that one core does nearly as fast as two, as that of
    small networks is. A job is called with ``tell``. It, its words and its answer are pickled on their way between our
    own processes, and hold no tensors, each of which would take a piece of shared memory. With one worker, or one job,
    all is done here, one after another. An error of a job is raised here and ends the others; where this process dies,
    they end at their next word.
    """
    workers = min(workers, len(jobs))
    if workers < 2:
        return [job(tell) for job in jobs]
    context, threads = multiprocessing.get_context("spawn"), max(torch.get_num_threads() // workers, 1)
    waiting, busy, found = list(enumerate(jobs))[::-1], dict[Connection, int](), dict[int, Any]()
    lines, processes = zip(*(_worker(context, threads) for _ in range(workers)), strict=True)

    def next_job(line: Connection) -> None:
        busy[line], job = waiting.pop()
        line.send(job)

    try:
        for line in lines:
            next_job(line)
        while busy:
            for line in cast("list[Connection]", wait(list(busy))):
                try:
                    what, said = line.recv()
                except EOFError:
                    raise RuntimeError("a process that did a part of this was ended; was memory short?") from None
                if what == "tells":
                    tell(*said)
                elif what == "failed":
                    raise said
                else:
                    found[busy.pop(line)] = said
                    if waiting:
                        next_job(line)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    return [found[number] for number in range(len(jobs))]


def _worker(context: SpawnContext, threads: int) -> tuple[Connection, BaseProcess]:
    """A process that does jobs, and the line to it."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, threads), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _work(line: Connection, threads: int) -> None:
    """Do the jobs that come down a line until nobody is at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gave us the work, which ends us
    compute_on(threads)
    try:
        while True:
            job = line.recv()
            try:
                answer = "done", job(lambda *said: line.send(("tells", said)))
            except (ValueError, OSError, RuntimeError) as error:  # what is said in a sentence; a bug ends this process
                error.add_note(traceback.format_exc())
                answer = "failed", error
            line.send(answer)
    except (EOFError, BrokenPipeError):
        return


def _keep_memory() -> None:
    """Ask glibc to keep freed memory for the next step.

    By default each large buffer is mapped anew and given back, and the page faults of the fresh ones made training
    about a fifth slower.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_threshold, trim_threshold, gib, mib = -3, -1, 2**30, 2**20  # the numbers are from malloc.h
    libc = ctypes.CDLL(None)
    if not libc.mallopt(mmap_threshold, gib):
        libc.mallopt(mmap_threshold, 32 * mib)  # the most that older versions take
    libc.mallopt(trim_threshold, gib)
