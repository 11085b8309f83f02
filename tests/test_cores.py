"""Several jobs at once: their answers, their words, and what happens when one of them, or who waits for them, ends."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ami.cores import at_once
from jobs import die, fail, square, talk


def test_jobs_are_done_in_processes_of_their_own_and_answer_in_order() -> None:
    words = []
    answers = at_once([partial(square, number) for number in range(5)], lambda *said: words.append(said), 2)
    assert [answer[0] for answer in answers] == [0, 1, 4, 9, 16]
    assert len({answer[1] for answer in answers} | {os.getpid()}) == 3  # two, and this one
    assert {answer[2] for answer in answers} == {1}
    assert sorted(words) == [("squaring", number) for number in range(5)]


@pytest.mark.parametrize(("count", "workers"), [(3, 1), (1, 4)])
def test_one_worker_or_one_job_needs_no_other_process(count: int, workers: int) -> None:
    answers = at_once([partial(square, number) for number in range(count)], lambda *said: None, workers)
    assert {answer[1] for answer in answers} == {os.getpid()}


def test_an_error_is_raised_here_and_ends_the_others(tmp_path: Path) -> None:
    jobs = [partial(talk, tmp_path), partial(fail, ValueError("there is no such film"))]
    with pytest.raises(ValueError, match="there is no such film") as raised:
        at_once(jobs, lambda *said: None, 2)
    assert "in fail" in raised.value.__notes__[0]  # where it happened
    assert not any(map(_alive, tmp_path.iterdir()))


def test_a_process_that_is_killed_is_missed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="was memory short"):
        at_once([partial(talk, tmp_path), die], lambda *said: None, 2)


def test_who_is_left_alone_ends(tmp_path: Path) -> None:
    alone = f"""
from functools import partial
from pathlib import Path
from ami.cores import at_once
from jobs import talk
if __name__ == "__main__":
    at_once([partial(talk, Path({str(tmp_path)!r}))] * 2, lambda *said: None, 2)
"""
    (tmp_path / "alone").mkdir()
    (script := tmp_path / "alone" / "script.py").write_text(alone)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    waiting = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths})
    _until(lambda: len([path for path in tmp_path.iterdir() if path.is_file()]) == 2)
    waiting.kill()
    waiting.wait()
    _until(lambda: not any(map(_alive, tmp_path.iterdir())))


def _alive(marker: Path) -> bool:
    return marker.name.isdigit() and Path("/proc", marker.name).is_dir()


def _until(true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
